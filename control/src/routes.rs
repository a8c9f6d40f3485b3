//! The admin listener's routes: is the node alive, is it ready, how is it doing, what is it; and
//! orders to look after what it stores. What looks inside a node is in `debug`, names are in
//! `name_routes`.
//!
//! It serves operators and their machines, not content, and changes none. `sender` judges who may
//! ask, and `admin` gives the orders.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::from_fn_with_state,
    response::Response,
    routing::{MethodRouter, get, post},
};
use ron_codec::error::ErrorCode;

use crate::{
    admin::{Admin, Ordered},
    conn::Client,
    debug,
    limits::NAME_BODY_LEN_MAX,
    listing::ListAsk,
    metrics::Form,
    name_routes,
    refused::{Refused, refusal},
    respond::{answer, error, json},
    sender::guard,
};

const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/storage", get(storage))
        .route("/objects", get(objects))
        .route("/debug/shards", get(debug::shards))
        .route("/debug/profile", get(debug::profile))
        .route("/scrub", post(scrub))
        .route("/verify/{address}", post(verify))
        .route("/names", get(name_routes::list))
        .route("/names/", name())
        .route("/names/{*path}", name())
        .route("/name-log", get(name_routes::log))
        .route_layer(from_fn_with_state(Arc::clone(&admin), guard))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(admin)
}

/// The root is a name like others, but no path that a pattern matches.
fn name() -> MethodRouter<Arc<Admin>> {
    let one = get(name_routes::get).put(name_routes::put).delete(name_routes::delete);
    one.layer(DefaultBodyLimit::max(NAME_BODY_LEN_MAX))
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

async fn storage(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    json(&headers, StatusCode::OK, &admin.kernel.storage.report())
}

async fn scrub(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    match admin.takes_orders().and_then(|()| admin.scrub()) {
        Ok(ordered) => json(&headers, StatusCode::ACCEPTED, &Ordered { ordered }),
        Err(refused) => refusal(&headers, refused),
    }
}

async fn verify(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = admin.takes_orders() {
        return refusal(&headers, refused);
    }
    let text = uri.path().strip_prefix("/verify/").unwrap_or_default();
    let verified = match text.parse() {
        Ok(addr) => admin.verify(addr, &client).await,
        Err(_) => Err(Refused::Address),
    };
    match verified {
        Ok(verdict) => json(&headers, StatusCode::OK, &verdict),
        Err(refused) => refusal(&headers, refused),
    }
}

async fn objects(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let ask = match ListAsk::parse(uri.query().unwrap_or_default()) {
        Ok(ask) => ask,
        Err(wrong) => return error(&headers, ErrorCode::BadRequest, &wrong.to_string()),
    };
    match admin.list(&ask, &client).await {
        Ok(page) => json(&headers, StatusCode::OK, &page),
        Err(refused) => refusal(&headers, refused),
    }
}

async fn not_found(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::NotFound, "there is no such route on the admin listener")
}

async fn method_not_allowed(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::MethodNotAllowed, "this route does not take this method")
}
