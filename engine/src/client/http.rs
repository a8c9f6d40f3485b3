//! HTTP to a node: put, get, stat and delete, and what its admin listener is asked.
//!
//! The client asks for bytes as they are stored, follows no redirect and uses no proxy: an object
//! comes from the node that was named or not at all. Whatever a node answers is checked against the
//! question before any of it is used.

use std::{
    io::{self, Read},
    time::Duration,
};

use ron_codec::{address::Address, error::ErrorReply};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use ureq::{
    Agent, Body, RequestBuilder, SendBody, Timeout,
    http::{HeaderMap, Response, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector, DefaultConnector},
    },
};

use super::{
    args::{Cap, NodeUrl, Range, Shared},
    download::{Download, Part},
    early::Deaf,
    error::{AnswerFault, ClientError},
    retry::parse_retry_after,
    source::Source,
    tls,
};
use crate::archive::Fields;

mod open;

/// Bytes that are read from a body at once.
const READ_LEN: usize = 256 * 1024;

/// Longest JSON of an answer that is read.
const JSON_LEN_MAX: u64 = 16 * 1024;

/// Longest report of an admin listener that is read: its lists are cut long before.
const REPORT_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Bodies of at least this length are announced, and sent when the node says that it wants them.
const EXPECT_LEN_MIN: u64 = 1024 * 1024;

/// The media type of an object when nothing else is known.
const MEDIA_TYPE: &str = "application/octet-stream";

/// A node that speaks HTTP.
pub(super) struct Http {
    agent: Agent,
    node: NodeUrl,
    cap: Option<Cap>,
    /// Of the request in progress.
    deaf: Deaf,
}

/// What must be so, or a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    /// There is nothing to change yet.
    IsNew,
    Version(u64),
}

impl Condition {
    fn add<B>(self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match self {
            Condition::None => request,
            Condition::IsNew => request.header("If-None-Match", "*"),
            Condition::Version(version) => request.header("If-Match", format!("\"{version}\"")),
        }
    }
}

/// What a put is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Stored {
    pub(super) addr: Address,
}

/// How to speak to a node: what every thread that does so needs.
pub(super) struct Contact<'a> {
    node: &'a NodeUrl,
    cap: Option<&'a Cap>,
    /// The certificates to trust; none are needed without TLS.
    ca: Vec<CertificateDer<'static>>,
    timeout: Duration,
}

impl<'a> Contact<'a> {
    /// The node at this address, spoken to as the arguments say.
    pub(super) fn from_args(shared: &'a Shared, node: &'a NodeUrl) -> Result<Self, ClientError> {
        let ca = if node.is_tls() { tls::trusted(shared.ca.as_deref())? } else { Vec::new() };
        Ok(Self { node, cap: shared.cap.as_ref(), ca, timeout: shared.timeout.0 })
    }

    /// Connections of their own.
    pub(super) fn http(&self) -> Http {
        Http::new(self.node, self.cap, &self.ca, self.timeout)
    }
}

impl Http {
    /// The node at this address, spoken to as the arguments say.
    pub(super) fn from_args(shared: &Shared, at: &NodeUrl) -> Result<Self, ClientError> {
        Contact::from_args(shared, at).map(|contact| contact.http())
    }

    fn new(
        node: &NodeUrl,
        cap: Option<&Cap>,
        ca: &[CertificateDer<'static>],
        timeout: Duration,
    ) -> Self {
        let roots: Vec<_> = ca.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(tls::provider())
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .user_agent(concat!("ronctl/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .build();
        let deaf = Deaf::default();
        let connector = DefaultConnector::new().chain(deaf.clone());
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Self { agent, node: node.clone(), cap: cap.cloned(), deaf }
    }

    /// Sends all of `source`, which must be at its beginning, to the place of `address`, or to that
    /// of objects without a name. Returns what the node says it stored. An answer that comes before
    /// all was sent is the outcome.
    ///
    /// # Errors
    ///
    /// Those of the connection, the source and the node.
    pub(super) fn put(
        &self,
        address: Option<&Address>,
        source: &mut Source,
    ) -> Result<Stored, ClientError> {
        self.put_with(address, source, &Fields::default())
    }

    /// The same, and says this of the object.
    pub(super) fn put_with(
        &self,
        address: Option<&Address>,
        source: &mut Source,
        fields: &Fields,
    ) -> Result<Stored, ClientError> {
        let mut request = self.authorize(self.agent.put(self.node.object(address)));
        let len = source.len();
        let media_type = fields.media_type.as_deref().unwrap_or(MEDIA_TYPE);
        request = request.header("Content-Type", media_type);
        if let Some(disposition) = &fields.disposition {
            request = request.header("Content-Disposition", disposition);
        }
        if let Some(len) = len {
            request = request.header("Content-Length", len);
        }
        if len.is_none_or(|len| len >= EXPECT_LEN_MIN) {
            request = request.header("Expect", "100-continue");
        }
        self.deaf.reset();
        source.stop_when(&self.deaf);
        let sent = request.send(SendBody::from_reader(source));
        if let Some(fault) = source.take_fault() {
            return Err(fault);
        }
        let mut response = sent.map_err(|error| self.failure(error))?;
        if !matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Err(refusal(&mut response));
        }
        let json = read_json(&mut response, JSON_LEN_MAX)?;
        serde_json::from_slice(&json).map_err(|_| AnswerFault::Json { len: json.len() }.into())
    }

    /// Fetches an object, or a part of it, into `download`. Returns whether it was verified.
    ///
    /// # Errors
    ///
    /// Those of the connection, the node and the download.
    pub(super) fn get(
        &self,
        address: &Address,
        range: Option<&Range>,
        download: &mut Download,
    ) -> Result<bool, ClientError> {
        let mut request = self.authorize(self.agent.get(self.node.object(Some(address))));
        if let Some(range) = range {
            request = request.header("Range", format!("bytes={range}"));
        }
        let mut response = request.call().map_err(|error| self.failure(error))?;
        let part = match (response.status(), range) {
            (StatusCode::OK, None) => {
                Part { offset: 0, len: content_length(response.headers()), whole: true }
            }
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                partial_content(response.headers(), range)?
            }
            (StatusCode::OK, Some(_)) => return Err(AnswerFault::RangeIgnored.into()),
            _ => return Err(refusal(&mut response)),
        };
        check_identity(response.headers())?;
        download.begin(part)?;
        pour(response.body_mut(), download)?;
        download.finish()
    }

    /// Asks how many bytes an object has.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn stat(&self, address: &Address) -> Result<u64, ClientError> {
        let request = self.authorize(self.agent.head(self.node.object(Some(address))));
        let mut response = request.call().map_err(|error| self.failure(error))?;
        match response.status() {
            StatusCode::OK => {}
            // The answer to HEAD has no body that could say so.
            StatusCode::NOT_FOUND => return Err(ClientError::NotFound { address: *address }),
            // A node with too much to do is not asked twice.
            StatusCode::SERVICE_UNAVAILABLE => return Err(refusal(&mut response)),
            status => {
                let said = refusal(&mut response);
                return Err(self.reason(address, status).unwrap_or(said));
            }
        }
        check_identity(response.headers())?;
        content_length(response.headers()).ok_or_else(|| AnswerFault::NoLength.into())
    }

    /// Why HEAD was answered with `status`, in the words of the node: the first byte is asked for.
    fn reason(&self, address: &Address, status: StatusCode) -> Option<ClientError> {
        let request = self.authorize(self.agent.get(self.node.object(Some(address))));
        let mut response = request.header("Range", "bytes=0-0").call().ok()?;
        (response.status() == status).then(|| refusal(&mut response))
    }

    /// Deletes an object.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn delete(&self, address: &Address) -> Result<(), ClientError> {
        let request = self.authorize(self.agent.delete(self.node.object(Some(address))));
        let mut response = request.call().map_err(|error| self.failure(error))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(refusal(&mut response)),
        }
    }

    /// Fetches a report of an admin listener.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn report(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let request = self.authorize(self.agent.get(self.node.path(path)));
        let mut response = request.call().map_err(|error| self.failure(error))?;
        match response.status() {
            StatusCode::OK => read_json(&mut response, REPORT_LEN_MAX),
            _ => Err(refusal(&mut response)),
        }
    }

    /// Gives an order to an admin listener, and waits for what comes of it: up to `patience` for
    /// each sign of life.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn order(&self, path: &str, patience: Duration) -> Result<Vec<u8>, ClientError> {
        let request = self.authorize(self.agent.post(self.node.path(path)));
        let request = request.config().timeout_per_read(Some(patience)).build();
        let mut response = request.send_empty().map_err(|error| self.failure(error))?;
        match response.status() {
            StatusCode::OK | StatusCode::ACCEPTED => read_json(&mut response, JSON_LEN_MAX),
            _ => Err(refusal(&mut response)),
        }
    }

    /// Gives a name, whose path stands in `path`.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn set(
        &self,
        path: &str,
        json: &[u8],
        condition: Condition,
    ) -> Result<Vec<u8>, ClientError> {
        let request = condition.add(self.authorize(self.agent.put(self.node.path(path))));
        let request = request.header("Content-Type", "application/json");
        self.changed(request.send(json))
    }

    /// Takes a name away.
    ///
    /// # Errors
    ///
    /// Those of the connection and the node.
    pub(super) fn unset(&self, path: &str, condition: Condition) -> Result<Vec<u8>, ClientError> {
        let request = condition.add(self.authorize(self.agent.delete(self.node.path(path))));
        self.changed(request.call())
    }

    fn changed(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, ClientError> {
        let mut response = answer.map_err(|error| self.failure(error))?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => read_json(&mut response, JSON_LEN_MAX),
            _ => Err(refusal(&mut response)),
        }
    }

    fn authorize<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.cap {
            Some(cap) => request.header("Authorization", format!("Bearer {}", cap.secret())),
            None => request,
        }
    }

    /// What a failure without an answer means. Only a connection that was never made is
    /// `Unreachable`: everything else may have had an effect.
    fn failure(&self, error: ureq::Error) -> ClientError {
        let (node, reason) = (self.node.to_string(), error.to_string());
        match error {
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                ClientError::Unreachable { node, reason }
            }
            ureq::Error::Io(error) if is_unreachable(&error) => {
                ClientError::Unreachable { node, reason }
            }
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => ClientError::Untrusted { node, reason },
            ureq::Error::Io(error) if is_tls(&error) => ClientError::Untrusted { node, reason },
            ureq::Error::Io(_) | ureq::Error::Timeout(_) => {
                ClientError::Lost { got: 0, len: None, reason }
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => ClientError::Request { reason },
            _ => AnswerFault::Http(reason).into(),
        }
    }
}

/// Whether no connection was made at all.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::AddrNotAvailable
    )
}

/// Whether TLS is what failed.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Moves a body into `download`.
fn pour(body: &mut Body, download: &mut Download) -> Result<(), ClientError> {
    let mut reader = body.as_reader();
    let mut buffer = vec![0; READ_LEN];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => download.write(&buffer[..len])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // A node also cuts an answer short when what it stored proves to be damaged.
                let (got, len) = download.position();
                return Err(ClientError::Lost { got, len, reason: error.to_string() });
            }
        }
    }
}

/// The node's own error out of an answer that is not what was hoped for.
fn refusal(response: &mut Response<Body>) -> ClientError {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return AnswerFault::Status { status: status.as_u16() }.into();
    }
    let retry_after = text(response.headers(), "Retry-After").and_then(parse_retry_after);
    let corr_id = text(response.headers(), "X-Corr-Id").unwrap_or_default().to_owned();
    // The answer to HEAD has no body, and what is not a node has no envelope.
    let json = read_json(response, JSON_LEN_MAX).unwrap_or_default();
    let mut reply = ErrorReply::parse(&json).unwrap_or_default();
    if reply.corr_id.is_empty() {
        reply.corr_id = corr_id;
    }
    ClientError::Node { status: status.as_u16(), reply, retry_after, begun: false }
}

fn read_json(response: &mut Response<Body>, len_max: u64) -> Result<Vec<u8>, ClientError> {
    let mut json = Vec::new();
    let mut reader = response.body_mut().as_reader().take(len_max);
    reader.read_to_end(&mut json).map_err(|error| ClientError::Lost {
        got: 0,
        len: None,
        reason: error.to_string(),
    })?;
    Ok(json)
}

/// What an answer 206 to `range` brings.
fn partial_content(headers: &HeaderMap, range: &Range) -> Result<Part, ClientError> {
    let value = text(headers, "Content-Range").unwrap_or_default();
    let bad = || AnswerFault::ContentRange { value: value.to_owned() };
    let (first, last, size) = parse_content_range(value).ok_or_else(bad)?;
    let len = last - first + 1;
    let asked = first == range.first && range.last.is_none_or(|end| last <= end);
    if !asked || content_length(headers).is_some_and(|announced| announced != len) {
        return Err(bad().into());
    }
    Ok(Part { offset: first, len: Some(len), whole: size == Some(len) })
}

/// Reads `bytes <first>-<last>/<size>`, where the size may be `*`.
fn parse_content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let range: Range = range.parse().ok()?;
    let (first, last) = (range.first, range.last?);
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    // A length of 2^64 cannot be counted.
    (last < size.unwrap_or(u64::MAX)).then_some((first, last, size))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "Content-Length")?.parse().ok()
}

/// Encoded bytes would not hash to the address.
fn check_identity(headers: &HeaderMap) -> Result<(), ClientError> {
    match text(headers, "Content-Encoding") {
        None | Some("identity") => Ok(()),
        Some(value) => Err(AnswerFault::Encoded { value: value.to_owned() }.into()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
