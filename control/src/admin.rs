//! The admin listener's routes: is the node alive, is it ready, how is it doing, what is it; and
//! orders to look after what it stores. What looks inside a node is in `debug`.
//!
//! It serves operators and their machines, not content, and changes none. Orders are taken from
//! those who may write to the node, and from nobody once the node is going.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Arc, RwLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::from_fn_with_state,
    response::Response,
    routing::{get, post},
};
use ron_codec::{
    address::Address,
    authority::{Authority, Denied},
    corr::CorrId,
    error::{ErrorCode, ErrorEnvelope},
};
use ron_io::ports::{Order, VerifyOutcome};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    BuildInfo, Kernel,
    conn::Client,
    debug,
    limits::{RETRY_GONE_S, RETRY_ORDER_S, VERIFY_MAX},
    metrics::{Form, Metrics},
    sender::guard,
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the routes answer from.
pub(crate) struct Admin {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) metrics: Metrics,
    pub(crate) build: BuildInfo,
    /// Whether the shards scrub.
    pub(crate) scrubs: bool,
    pub(crate) authority: RwLock<Authority>,
}

/// Whether a GET of this costs as much as an order.
pub(crate) fn costs(uri: &Uri) -> bool {
    uri.path() == "/debug/profile"
}

pub(crate) fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/storage", get(storage))
        .route("/debug/shards", get(debug::shards))
        .route("/debug/profile", get(debug::profile))
        .route("/scrub", post(scrub))
        .route("/verify/{address}", post(verify))
        .route_layer(from_fn_with_state(Arc::clone(&admin), guard))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
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

async fn storage(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    json(&headers, StatusCode::OK, &admin.kernel.storage.report())
}

/// What `POST /scrub` answers: how many shards were told to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    pub ordered: usize,
}

async fn scrub(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    match admin.takes_orders().and_then(|()| admin.scrub()) {
        Ok(ordered) => json(&headers, StatusCode::ACCEPTED, &Ordered { ordered }),
        Err(refused) => refusal(&headers, refused),
    }
}

/// What `POST /verify/<addr>` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub addr: Address,
    pub outcome: VerdictKind,
    /// Bytes of an object that is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What is wrong with it, or why that could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

/// What an object was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    Whole,
    Missing,
    Damaged,
    Failed,
}

impl Verdict {
    fn new(addr: Address, outcome: VerifyOutcome) -> Verdict {
        let (outcome, size, what) = match outcome {
            VerifyOutcome::Whole { size } => (VerdictKind::Whole, Some(size), None),
            VerifyOutcome::Missing => (VerdictKind::Missing, None, None),
            VerifyOutcome::Damaged { what } => (VerdictKind::Damaged, None, Some(what)),
            VerifyOutcome::Failed { what } => (VerdictKind::Failed, None, Some(what)),
        };
        Verdict { addr, outcome, size, what }
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

/// Why an order is not given, or has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Denied(Denied),
    Address,
    /// [`VERIFIES_MAX`](crate::limits::VERIFIES_MAX) are in progress.
    TooMany,
    /// A shard has no room for the order.
    Mailbox,
    /// The node is going.
    Draining,
    /// The scrub is switched off.
    NoScrub,
    /// No shard answered within [`VERIFY_MAX`].
    Late,
}

impl Admin {
    /// Whether orders are taken now; whether their sender may give them was checked before.
    fn takes_orders(&self) -> Result<(), Refused> {
        if self.kernel.health.leaving() { Err(Refused::Draining) } else { Ok(()) }
    }

    /// Gives an order to all shards and returns how many they are. When it is refused some may
    /// have taken it all the same: giving one of these orders again does no harm.
    fn give(&self, order: &Order) -> Result<usize, Refused> {
        let orders = &self.kernel.orders;
        if orders.offer(order).is_empty() { Ok(orders.len()) } else { Err(Refused::Mailbox) }
    }

    /// Has every shard begin to scrub; returns how many they are.
    fn scrub(&self) -> Result<usize, Refused> {
        if self.scrubs { self.give(&Order::Scrub) } else { Err(Refused::NoScrub) }
    }

    /// Has the owner of an object read it again, and waits for what comes of it.
    async fn verify(&self, addr: Address, client: &Client) -> Result<Verdict, Refused> {
        let mut verification = self.kernel.verifies.begin(addr).ok_or(Refused::TooMany)?;
        self.give(&Order::Verify { id: verification.id(), digest: *addr.as_bytes() })?;
        let _waiting = client.wait();
        match timeout(VERIFY_MAX, verification.outcome()).await {
            Ok(Some(outcome)) => Ok(Verdict::new(addr, outcome)),
            Ok(None) => Err(Refused::Draining),
            Err(_) => Err(Refused::Late),
        }
    }
}

pub(crate) fn refusal(headers: &HeaderMap, refused: Refused) -> Response {
    let (code, message, retry_after) = match refused {
        Refused::Denied(denied) => return not_allowed(headers, denied),
        Refused::Address => {
            (ErrorCode::BadRequest, "no address, which is b3: and 64 lowercase hex digits", None)
        }
        Refused::TooMany => {
            let message = "as many objects are being verified as can be at once";
            (ErrorCode::Overload, message, Some(RETRY_ORDER_S))
        }
        Refused::Mailbox => {
            (ErrorCode::Overload, "the mailbox of a shard is full", Some(RETRY_ORDER_S))
        }
        Refused::Draining => (ErrorCode::Draining, "the node is going", Some(RETRY_GONE_S)),
        Refused::NoScrub => {
            (ErrorCode::Conflict, "the scrub is switched off: storage.scrub_rate is 0", None)
        }
        Refused::Late => (ErrorCode::UpstreamTimeout, "the outcome took too long", None),
    };
    let mut response = error(headers, code, message);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn not_allowed(headers: &HeaderMap, denied: Denied) -> Response {
    let mut response = error(headers, denied.code(), &format!("not allowed: {denied}"));
    if denied.code() == ErrorCode::Unauthorized {
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn not_found(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::NotFound, "there is no such route on the admin listener")
}

async fn method_not_allowed(headers: HeaderMap) -> Response {
    error(&headers, ErrorCode::MethodNotAllowed, "this route does not take this method")
}

pub(crate) fn json(headers: &HeaderMap, status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(headers, status, JSON, body)
        }
        Err(_) => error(headers, ErrorCode::Internal, "the answer cannot be written"),
    }
}

pub(crate) fn error(headers: &HeaderMap, code: ErrorCode, message: &str) -> Response {
    let corr_id = corr_id(headers);
    let mut body = Vec::new();
    ErrorEnvelope { code, message, corr_id: corr_id.as_str() }.write_json(&mut body);
    body.push(b'\n');
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(&corr_id, status, JSON, body.into())
}

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
