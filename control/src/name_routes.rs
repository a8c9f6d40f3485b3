//! Names over the admin listener: list, look at, give, and take away.
//!
//! ```text
//!   GET    /names?prefix=&after=&limit=     those below a path, in their order
//!   GET    /names/<path>                    one of them, with its version as entity tag
//!   PUT    /names/<path>  {"address": "…"}  If-Match: "<version>", or If-None-Match: *
//!   DELETE /names/<path>                    If-Match: "<version>"
//!   GET    /name-log?limit=                 the last changes, the oldest of them first
//! ```
//!
//! Who may ask was judged before. A path is percent-encoded, and means what `NamePath` says.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use ron_codec::{
    address::Address, error::ErrorCode, http::target::percent_decode, limits::TARGET_LEN_MAX,
    name::NamePath,
};
use serde::{Deserialize, Serialize};

use crate::{
    admin::Admin,
    conn::Client,
    limits::{
        NAME_CHANGES_KEPT, NAME_CHANGES_LISTED, NAMES_LISTED, NAMES_LISTED_MAX, RETRY_ORDER_S,
    },
    names::{Made, Unchanged},
    records::{Change, Expected, Fault, Record, Wanted},
    refused::refusal,
    respond::{error, json},
};

/// What `GET /names` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameList {
    /// Of all names: it rises with every change.
    pub version: u64,
    pub names: Vec<Name>,
    /// Where to go on, as `after`, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NamePath>,
}

/// A name, and the bundle or object that it was given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub path: NamePath,
    pub address: Address,
    /// The version of all names that the last change of this one made.
    pub version: u64,
    /// When that was, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// A change of a name, as `PUT` and `DELETE` answer it and `GET /name-log` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameChange {
    pub version: u64,
    pub unix_ms: u64,
    pub path: NamePath,
    pub before: Option<Address>,
    pub after: Option<Address>,
    /// Whether every shard had it when this was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
}

/// What `GET /name-log` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameLog {
    pub changes: Vec<NameChange>,
}

/// What `PUT` is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameBody {
    pub address: String,
}

impl From<Record> for Name {
    fn from(record: Record) -> Name {
        let Record { path, address, version, unix_ms } = record;
        Name { path, address, version, unix_ms }
    }
}

impl NameChange {
    fn new(change: Change, served: Option<bool>) -> NameChange {
        let Change { version, unix_ms, path, before, after } = change;
        NameChange { version, unix_ms, path, before, after, served }
    }
}

/// What is wrong with a request: a field, and why.
struct Bad(String);

impl Bad {
    fn new(field: &str, why: impl std::fmt::Display) -> Bad {
        Bad(format!("{field}: {why}"))
    }
}

pub(crate) async fn list(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = match ListQuery::parse(&uri) {
        Ok(query) => query,
        Err(Bad(why)) => return error(&headers, ErrorCode::BadRequest, &why),
    };
    let ListQuery { prefix, after, limit } = query;
    let look =
        move |records: &crate::records::Records| records.list(&prefix, after.as_ref(), limit);
    match admin.kernel.names.look(look).await {
        Ok(listed) => {
            let last = listed.records.last().map(|record| record.path.clone());
            let names = listed.records.into_iter().map(Name::from).collect();
            let next = last.filter(|_| listed.more);
            json(&headers, StatusCode::OK, &NameList { version: listed.version, names, next })
        }
        Err(unchanged) => unchanged_answer(&headers, &unchanged),
    }
}

pub(crate) async fn get(State(admin): State<Arc<Admin>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = match path_of(&uri) {
        Ok(path) => path,
        Err(Bad(why)) => return error(&headers, ErrorCode::BadRequest, &why),
    };
    match admin.kernel.names.look(move |records| records.get(&path)).await {
        Ok(Some(record)) => {
            let version = record.version;
            tagged(json(&headers, StatusCode::OK, &Name::from(record)), version)
        }
        Ok(None) => unchanged_answer(&headers, &Unchanged::Fault(Fault::NotFound)),
        Err(unchanged) => unchanged_answer(&headers, &unchanged),
    }
}

pub(crate) async fn put(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return error(&headers, ErrorCode::TooLarge, "the body is too long, or did not arrive");
    };
    let wanted = address_of(&body).and_then(|address| wanted(&uri, &headers, Some(address)));
    change(&admin, &client, &headers, wanted).await
}

pub(crate) async fn delete(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<Client>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    change(&admin, &client, &headers, wanted(&uri, &headers, None)).await
}

pub(crate) async fn log(State(admin): State<Arc<Admin>>, uri: Uri, headers: HeaderMap) -> Response {
    let mut limit = NAME_CHANGES_LISTED;
    for (key, value) in pairs(&uri) {
        let read = match key {
            "limit" => number(value, NAME_CHANGES_KEPT).map(|given| limit = given),
            _ => Err(Bad::new(key, "is no parameter of this route, which has limit")),
        };
        if let Err(Bad(why)) = read {
            return error(&headers, ErrorCode::BadRequest, &why);
        }
    }
    match admin.kernel.names.look(move |records| records.changes(limit)).await {
        Ok(changes) => {
            let changes = changes.into_iter().map(|change| NameChange::new(change, None));
            json(&headers, StatusCode::OK, &NameLog { changes: changes.collect() })
        }
        Err(unchanged) => unchanged_answer(&headers, &unchanged),
    }
}

async fn change(
    admin: &Admin,
    client: &Client,
    headers: &HeaderMap,
    wanted: Result<Wanted, Bad>,
) -> Response {
    if let Err(refused) = admin.takes_orders() {
        return refusal(headers, refused);
    }
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(Bad(why)) => return error(headers, ErrorCode::BadRequest, &why),
    };
    let _waiting = client.wait();
    match admin.kernel.names.change(wanted, admin.kernel.stats.clone()).await {
        Ok(Made { change, served }) => {
            let is_new = change.before.is_none();
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let (version, is_set) = (change.version, change.after.is_some());
            tracing::info!(version, path = %change.path, after = ?change.after, "name changed");
            let response = json(headers, status, &NameChange::new(change, Some(served)));
            if is_set { tagged(response, version) } else { response }
        }
        Err(unchanged) => unchanged_answer(headers, &unchanged),
    }
}

/// The change that a request asks for.
fn wanted(uri: &Uri, headers: &HeaderMap, address: Option<Address>) -> Result<Wanted, Bad> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Wanted { path: path_of(uri)?, address, expected: expected(headers)?, unix_ms })
}

fn expected(headers: &HeaderMap) -> Result<Expected, Bad> {
    let one = |name: HeaderName| {
        let mut all = headers.get_all(&name).iter();
        let first = all.next().map(|value| value.to_str().unwrap_or_default().trim().to_owned());
        if all.next().is_some() {
            Err(Bad::new(name.as_str(), "is there twice"))
        } else {
            Ok(first)
        }
    };
    match (one(header::IF_MATCH)?, one(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Anything),
        (Some(tag), None) if tag == "*" => Ok(Expected::Something),
        (None, Some(tag)) if tag == "*" => Ok(Expected::Nothing),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.and_then(|digits| digits.parse().ok());
            let why = "is one entity tag of GET, such as \"5\", or *";
            version.map(Expected::Version).ok_or_else(|| Bad::new("if-match", why))
        }
        (None, Some(_)) => Err(Bad::new("if-none-match", "can be * only")),
        (Some(_), Some(_)) => Err(Bad::new("if-none-match", "cannot be there beside if-match")),
    }
}

fn address_of(body: &[u8]) -> Result<Address, Bad> {
    let body: NameBody = serde_json::from_slice(body)
        .map_err(|_| Bad::new("body", "is JSON with one field: {\"address\": \"b3:…\"}"))?;
    Address::parse_route_segment(&body.address).map_err(|why| Bad::new("address", why))
}

/// The name that the path of a request is about.
fn path_of(uri: &Uri) -> Result<NamePath, Bad> {
    read_path("path", uri.path().strip_prefix("/names").unwrap_or_default())
}

fn read_path(field: &str, encoded: &str) -> Result<NamePath, Bad> {
    let mut decoded = [0; TARGET_LEN_MAX];
    let len = percent_decode(encoded.as_bytes(), &mut decoded)
        .ok_or_else(|| Bad::new(field, "has a broken escape, or is too long"))?;
    let text = std::str::from_utf8(&decoded[..len]).map_err(|_| Bad::new(field, "is no UTF-8"))?;
    text.parse().map_err(|why| Bad::new(field, why))
}

/// What is listed.
struct ListQuery {
    prefix: NamePath,
    after: Option<NamePath>,
    limit: usize,
}

impl ListQuery {
    fn parse(uri: &Uri) -> Result<ListQuery, Bad> {
        let prefix = read_path("prefix", "")?;
        let mut query = ListQuery { prefix, after: None, limit: NAMES_LISTED };
        for (key, value) in pairs(uri) {
            match key {
                "prefix" => query.prefix = read_path(key, value)?,
                "after" => query.after = Some(read_path(key, value)?),
                "limit" => query.limit = number(value, NAMES_LISTED_MAX)?,
                _ => {
                    let why = "is no parameter of this route, which has prefix, after and limit";
                    return Err(Bad::new(key, why));
                }
            }
        }
        Ok(query)
    }
}

/// Keys and values of the query of a request; values are as they were sent.
fn pairs(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn number(text: &str, max: usize) -> Result<usize, Bad> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| Bad::new("limit", format!("is a whole number, 1 to {max}")))
}

fn tagged(mut response: Response, version: u64) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn unchanged_answer(headers: &HeaderMap, unchanged: &Unchanged) -> Response {
    let (code, message) = match unchanged {
        Unchanged::Unusable(why) => {
            (ErrorCode::NotReady, format!("names cannot be kept or looked up: {why}"))
        }
        Unchanged::Busy => {
            (ErrorCode::Overload, "as many changes wait as can wait at once".to_owned())
        }
        Unchanged::TooMany(max) => {
            (ErrorCode::StorageFull, format!("there are {max} names, which is names.max"))
        }
        Unchanged::TooLong(max) => {
            let why = "as many as names.max allows: 128 for each name";
            (ErrorCode::StorageFull, format!("the paths of all names take {max} bytes, {why}"))
        }
        Unchanged::Fault(fault) => {
            let code = match fault {
                Fault::Unexpected(_) => ErrorCode::PreconditionFailed,
                Fault::NotFound => ErrorCode::NotFound,
                Fault::StoreFull | Fault::DiskFull => ErrorCode::StorageFull,
                Fault::Failed(_) => ErrorCode::Internal,
            };
            (code, fault.to_string())
        }
    };
    if matches!(code, ErrorCode::Internal | ErrorCode::StorageFull) {
        tracing::error!("names: {message}");
    }
    let mut response = error(headers, code, &message);
    if code == ErrorCode::Overload {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_ORDER_S));
    }
    response
}
