//! Looking inside a running node: what its threads spend their time on, and what each shard is
//! doing.
//!
//! Shards take no part in it: what they show they show anyway, and samples are taken by the
//! kernel's leave. A profile costs CPU time, so it is for those who may give orders; it is to be
//! had under load and while the node is ending.

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use ron_codec::error::ErrorCode;

use crate::{
    admin::Admin,
    conn::Client,
    respond::{answer, error, json},
};

mod ask;
mod flame;
mod latency;
pub(crate) mod profile;
pub mod shards;
pub(crate) mod stuck;

use ask::{Ask, Form};
use profile::NoProfile;

/// `GET /debug/shards`.
pub(crate) async fn shards(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let report = shards::ShardsReport::new(&admin.kernel.stats);
    json(&headers, StatusCode::OK, &report)
}

/// `GET /debug/profile`.
pub(crate) async fn profile(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let stats = &admin.kernel.stats;
    let ask = match Ask::parse(uri.query().unwrap_or_default(), stats.len()) {
        Ok(ask) => ask,
        Err(wrong) => return error(&headers, ErrorCode::BadRequest, &wrong.to_string()),
    };
    let profile = match admin.kernel.profiles.begin(ask, stats) {
        Ok(profile) => profile,
        Err(no) => return refused(&headers, &no),
    };
    let _waiting = client.wait();
    match profile.outcome().await {
        Ok(text) => {
            let mut response = answer(&headers, StatusCode::OK, content_type(ask.form), text);
            if ask.form == Form::Svg {
                let policy = HeaderValue::from_static(PICTURE_POLICY);
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            }
            response
        }
        Err(no) => refused(&headers, &no),
    }
}

/// What a picture may do: run its own script, which asks for a name, without the origin of the
/// listener, and load nothing.
const PICTURE_POLICY: &str = "sandbox allow-scripts allow-modals; default-src 'none'; \
                              script-src 'unsafe-inline'; style-src 'unsafe-inline'";

fn content_type(form: Form) -> &'static str {
    match form {
        Form::Svg => "image/svg+xml; charset=utf-8",
        Form::Folded => "text/plain; charset=utf-8",
    }
}

fn refused(headers: &HeaderMap, no: &NoProfile) -> Response {
    let code = match no {
        NoProfile::Busy { .. } => ErrorCode::Overload,
        NoProfile::NotRunning { .. } => ErrorCode::NotReady,
        NoProfile::Draining => ErrorCode::Draining,
        NoProfile::Failed { .. } => ErrorCode::Internal,
    };
    let mut response = error(headers, code, &no.to_string());
    if let Some(seconds) = no.retry_after_s() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
