//! Answers of the admin listener: plain or JSON, each with a correlation id, and none to be kept by
//! a cache or taken for something else by a browser.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use ron_codec::{
    corr::CorrId,
    error::{ErrorCode, ErrorEnvelope},
};
use serde::Serialize;

const JSON: &str = "application/json";

/// An answer in JSON, with a line end behind it.
pub(crate) fn json(headers: &HeaderMap, status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(headers, status, JSON, body)
        }
        Err(_) => error(headers, ErrorCode::Internal, "the answer cannot be written"),
    }
}

/// A refusal or a failure, in the envelope that all errors of the node have.
pub(crate) fn error(headers: &HeaderMap, code: ErrorCode, message: &str) -> Response {
    let corr_id = corr_id(headers);
    let mut body = Vec::new();
    ErrorEnvelope { code, message, corr_id: corr_id.as_str(), retry_after_ms: None }
        .write_json(&mut body);
    body.push(b'\n');
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(&corr_id, status, JSON, body.into())
}

/// An answer of this content type.
pub(crate) fn answer(
    headers: &HeaderMap,
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    respond(&corr_id(headers), status, content_type, body.into())
}

fn respond(
    corr_id: &CorrId,
    status: StatusCode,
    content_type: &'static str,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A correlation id has only bytes that a header may have, so this never fails.
    if let Ok(value) = HeaderValue::from_bytes(corr_id.as_bytes()) {
        headers.insert("x-corr-id", value);
    }
    response
}

/// The client's id if it sent a sane one, else a new one.
fn corr_id(headers: &HeaderMap) -> CorrId {
    let field = |name| headers.get(name).map(HeaderValue::as_bytes);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The standard library seeds each hasher at random: good enough for a name in a log.
    let random = || u128::from(RandomState::new().build_hasher().finish());
    let unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    CorrId::choose(field("x-corr-id"), field("traceparent"), unix_ms, random() << 64 | random())
}
