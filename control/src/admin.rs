//! The admin listener's routes: is the node alive, is it ready, how is it doing, what is it.
//!
//! It serves operators and their machines, not content, and changes nothing.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use ron_codec::{
    corr::CorrId,
    error::{ErrorCode, ErrorEnvelope},
};
use serde::Serialize;

use crate::{
    BuildInfo, Kernel,
    metrics::{Form, Metrics},
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the routes answer from.
pub(crate) struct Admin {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) metrics: Metrics,
    pub(crate) build: BuildInfo,
}

pub(crate) fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(admin)
}

async fn healthz(headers: HeaderMap) -> Response {
    answer(&headers, StatusCode::OK, TEXT, "ok")
}

async fn readyz(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let readiness = admin.kernel.health.look(Instant::now());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(&headers, status, &readiness);
    if let Some(seconds) = readiness.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::accepted(accept);
    match admin.metrics.render(form) {
        Ok(text) => answer(&headers, StatusCode::OK, form.content_type(), text),
        Err(_) => error(&headers, ErrorCode::Internal, "the metrics cannot be written"),
    }
}

async fn version(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    json(&headers, StatusCode::OK, &admin.build)
}

async fn not_found(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::NotFound, "there is no such route on the admin listener")
}

async fn method_not_allowed(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::MethodNotAllowed, "this route only takes GET and HEAD")
}

fn json(headers: &HeaderMap, status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answer(headers, status, JSON, body),
        Err(_) => error(headers, ErrorCode::Internal, "the answer cannot be written"),
    }
}

fn error(headers: &HeaderMap, code: ErrorCode, message: &str) -> Response {
    let corr_id = corr_id(headers);
    let mut body = Vec::new();
    ErrorEnvelope { code, message, corr_id: corr_id.as_str() }.write_json(&mut body);
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(&corr_id, status, JSON, body.into())
}

fn answer(
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
