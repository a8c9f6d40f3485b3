//! What a client asks for over OAP/1: storage requests and credit, read and written.
//!
//! Requests are short JSON from strangers. Reading one is bounded by `REQUEST_LEN_MAX` and, for a
//! request by address, allocates nothing. Refused are: what is not one JSON object, an unknown
//! operation, a field that is missing, ambiguous, given twice or of the wrong type; each names the
//! field. Unknown fields are skipped, since deployed clients may send more than this node knows.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use super::frame::{APP_HELLO, APP_MAILBOX, APP_STORAGE, Flags, FrameHeader};
use super::json::append_json;
use super::limits::{OP_ECHO_LEN_MAX, REQUEST_LEN_MAX};
use crate::address::Address;
use crate::error::ErrorCode;

/// A storage request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageRequest {
    /// Bytes of an object.
    Get(GetRequest),
    /// Whether the node has an object.
    Has {
        /// The object.
        addr: Address,
    },
    /// Store the `len` bytes that follow in the stream's data frames.
    Put {
        /// Bytes of the object.
        len: u64,
        /// What they must hash to.
        addr: Option<Address>,
    },
}

/// A request for some or all bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRequest {
    /// Which object.
    pub what: GetWhat,
    /// First byte wanted.
    pub offset: u64,
    /// Most bytes wanted; `None` is all from `offset` on.
    pub len: Option<u64>,
    /// Whether the first frame of the answer describes the object.
    pub meta: bool,
}

/// How a get names its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetWhat {
    /// By its digest.
    ByAddress(Address),
    /// By a path of the name table; begins with `/`.
    ByPath(String),
}

/// The bytes of an object that a get is answered with; they lie within the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First byte sent.
    pub offset: u64,
    /// Bytes sent.
    pub len: u64,
}

/// Why a request is refused. All of these concern one stream; the connection stays open
/// (OAP/1 §3.6). The texts may be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A request payload of `len` bytes.
    #[error("request of {len} bytes is longer than {REQUEST_LEN_MAX}")]
    TooLong { len: usize },
    /// Not one JSON object; `column` is where it went wrong, counted from 1.
    #[error("request is not a JSON object, see byte {column}")]
    NotJson { column: usize },
    /// A field that the operation needs is not there.
    #[error("field {field} is missing")]
    Missing { field: &'static str },
    /// A field is there and is not what it has to be.
    #[error("field {field} is not {want}")]
    WrongType { field: &'static str, want: &'static str },
    /// A field is there more than once.
    #[error("field {field} is given twice")]
    Twice { field: &'static str },
    /// Two fields that exclude each other.
    #[error("fields {a} and {b} exclude each other")]
    Both { a: &'static str, b: &'static str },
    /// An operation that is unknown here; `op` is cut to `OP_ECHO_LEN_MAX` bytes.
    #[error("op {op:?} is unknown")]
    UnknownOp { op: String },
    /// A get that begins behind the end of its object.
    #[error("offset {offset} is beyond the size {size}")]
    Offset { offset: u64, size: u64 },
    /// A flag that a client does not send, or that this version does not serve.
    #[error("flag {flag} is not served")]
    Flag { flag: &'static str },
    /// A flag that a request must have.
    #[error("flag {flag} is missing")]
    FlagMissing { flag: &'static str },
    /// A protocol that is unknown, or that this version does not serve.
    #[error("app_proto_id {app:#06x} is not served")]
    App { app: u16 },
    /// A HELLO with `len` bytes of payload.
    #[error("HELLO with a payload of {len} bytes")]
    HelloPayload { len: u32 },
}

impl RequestError {
    /// The status of the answer: 413 for a request that is too long, otherwise 400.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLong { .. } => ErrorCode::TooLarge,
            _ => ErrorCode::BadRequest,
        }
    }
}

/// Judges a frame of a client by its header alone: that it comes from a client, asks for nothing
/// that is not served, and speaks a known protocol. The order of frames is not judged here.
///
/// # Errors
///
/// `Flag`, `FlagMissing`, `App` and `HelloPayload` of [`RequestError`].
pub fn check_client_frame(head: &FrameHeader) -> Result<(), RequestError> {
    let flags = head.flags;
    // OAP/1 §3.9 for the first two, OAP/1 §3.7 for the last.
    let refused = [(Flags::RESP, "RESP"), (Flags::EVENT, "EVENT"), (Flags::COMP, "COMP")];
    for (bit, flag) in refused {
        if flags.contains(bit) {
            return Err(RequestError::Flag { flag });
        }
    }
    match head.app_proto_id {
        // OAP/1 §5.1
        APP_HELLO if head.payload_len > 0 => {
            Err(RequestError::HelloPayload { len: head.payload_len })
        }
        APP_HELLO => Ok(()),
        // OAP/1 §1.4
        APP_STORAGE if !flags.contains(Flags::REQ) => {
            Err(RequestError::FlagMissing { flag: "REQ" })
        }
        APP_STORAGE => Ok(()),
        // OAP/1 §8.1
        APP_MAILBOX => Err(RequestError::App { app: APP_MAILBOX }),
        app => Err(RequestError::App { app }),
    }
}

impl StorageRequest {
    /// Reads the payload of a `REQ|START` frame.
    ///
    /// # Errors
    ///
    /// Every [`RequestError`] of a payload.
    pub fn parse(payload: &[u8]) -> Result<Self, RequestError> {
        let fields = Fields::parse(payload)?;
        match fields.op()? {
            "get" => fields.get().map(Self::Get),
            "has" => Ok(Self::Has { addr: fields.addr_required()? }),
            "put" => {
                let len = fields.number("len")?.ok_or(RequestError::Missing { field: "len" })?;
                Ok(Self::Put { len, addr: fields.addr()? })
            }
            other => {
                let ends = other.char_indices().map(|(at, char)| at + char.len_utf8());
                let end = ends.take_while(|end| *end <= OP_ECHO_LEN_MAX).last().unwrap_or(0);
                Err(RequestError::UnknownOp { op: other[..end].to_owned() })
            }
        }
    }
}

impl GetRequest {
    /// The whole object at `addr`, without its description.
    #[must_use]
    pub const fn whole(addr: Address) -> Self {
        Self { what: GetWhat::ByAddress(addr), offset: 0, len: None, meta: false }
    }

    /// Whether a range is asked for, so that a good answer carries 206 instead of 0.
    #[must_use]
    pub const fn is_range(&self) -> bool {
        // OAP/1 §6.4
        self.offset > 0 || self.len.is_some()
    }

    /// What to send of an object of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`RequestError::Offset`] when the request begins behind the end.
    pub fn window(&self, size: u64) -> Result<Window, RequestError> {
        // OAP/1 §6.4
        let rest = size
            .checked_sub(self.offset)
            .ok_or(RequestError::Offset { offset: self.offset, size })?;
        Ok(Window { offset: self.offset, len: self.len.map_or(rest, |len| len.min(rest)) })
    }
}

/// Reads the payload of a credit frame: the bytes that the client grants.
///
/// # Errors
///
/// As [`StorageRequest::parse`].
pub fn parse_credit(payload: &[u8]) -> Result<u64, RequestError> {
    // OAP/1 §7.2
    Fields::parse(payload)?.number("credit")?.ok_or(RequestError::Missing { field: "credit" })
}

/// Appends the payload of a get.
pub fn write_get_request(out: &mut Vec<u8>, request: &GetRequest) {
    #[derive(serde::Serialize)]
    struct Get<'a> {
        op: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        addr: Option<&'a Address>,
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        len: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        meta: Option<bool>,
    }
    let (addr, path) = match &request.what {
        GetWhat::ByAddress(addr) => (Some(addr), None),
        GetWhat::ByPath(path) => (None, Some(path.as_str())),
    };
    let offset = (request.offset > 0).then_some(request.offset);
    let meta = request.meta.then_some(true);
    append_json(out, &Get { op: "get", addr, path, offset, len: request.len, meta });
}

/// Appends the payload of a has.
pub fn write_has_request(out: &mut Vec<u8>, addr: &Address) {
    #[derive(serde::Serialize)]
    struct Has<'a> {
        op: &'static str,
        addr: &'a Address,
    }
    append_json(out, &Has { op: "has", addr });
}

/// Appends the payload of the first frame of a put of `len` bytes.
pub fn write_put_request(out: &mut Vec<u8>, len: u64, addr: Option<&Address>) {
    #[derive(serde::Serialize)]
    struct Put<'a> {
        op: &'static str,
        len: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        addr: Option<&'a Address>,
    }
    append_json(out, &Put { op: "put", len, addr });
}

/// Appends the payload of a credit frame.
pub fn write_credit(out: &mut Vec<u8>, credit: u64) {
    #[derive(serde::Serialize)]
    struct Credit {
        credit: u64,
    }
    append_json(out, &Credit { credit });
}

/// The fields that any request may have, in the order of `Fields::values`.
const NAMES: [&str; 7] = ["op", "addr", "path", "offset", "len", "meta", "credit"];

/// The known fields of a request, not yet judged.
#[derive(Default)]
struct Fields<'a> {
    values: [Option<Scalar<'a>>; NAMES.len()],
    /// The first field that was given a second time.
    twice: Option<&'static str>,
}

/// A JSON value, as far as a request can use one.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(u64),
    Text(Cow<'a, str>),
    /// Anything else: a negative or broken number, an array, an object.
    Other,
}

impl<'a> Fields<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, RequestError> {
        // OAP/1 §6.1
        if payload.len() > REQUEST_LEN_MAX {
            return Err(RequestError::TooLong { len: payload.len() });
        }
        // OAP/1 §1.3: all of it, the fields that are skipped too.
        let text = std::str::from_utf8(payload)
            .map_err(|error| RequestError::NotJson { column: error.valid_up_to() + 1 })?;
        let fields: Self = serde_json::from_str(text)
            .map_err(|error| RequestError::NotJson { column: error.column() })?;
        // OAP/1 §6.2
        match fields.twice {
            Some(field) => Err(RequestError::Twice { field }),
            None => Ok(fields),
        }
    }

    fn value(&self, field: &'static str) -> Option<&Scalar<'a>> {
        let value = NAMES.iter().position(|name| *name == field);
        value.and_then(|at| self.values[at].as_ref())
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>, RequestError> {
        match self.value(field) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Text(text)) => Ok(Some(text)),
            Some(_) => Err(RequestError::WrongType { field, want: "a string" }),
        }
    }

    fn number(&self, field: &'static str) -> Result<Option<u64>, RequestError> {
        match self.value(field) {
            None | Some(Scalar::Null) => Ok(None),
            Some(Scalar::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(RequestError::WrongType { field, want: "an integer of 64 bits" }),
        }
    }

    fn flag(&self, field: &'static str) -> Result<bool, RequestError> {
        match self.value(field) {
            None | Some(Scalar::Null) => Ok(false),
            Some(Scalar::Bool(flag)) => Ok(*flag),
            Some(_) => Err(RequestError::WrongType { field, want: "true or false" }),
        }
    }

    fn op(&self) -> Result<&str, RequestError> {
        self.text("op")?.ok_or(RequestError::Missing { field: "op" })
    }

    fn addr(&self) -> Result<Option<Address>, RequestError> {
        let wrong = |_| RequestError::WrongType { field: "addr", want: "an address" };
        // OAP/1 §1.3
        let read = |text| Address::parse_route_segment(text).map_err(wrong);
        self.text("addr")?.map(read).transpose()
    }

    fn addr_required(&self) -> Result<Address, RequestError> {
        self.addr()?.ok_or(RequestError::Missing { field: "addr" })
    }

    fn path(&self) -> Result<Option<&str>, RequestError> {
        let path = self.text("path")?;
        if path.is_some_and(|path| !path.starts_with('/')) {
            return Err(RequestError::WrongType { field: "path", want: "a path from /" });
        }
        Ok(path)
    }

    fn get(&self) -> Result<GetRequest, RequestError> {
        // OAP/1 §6.3
        let what = match (self.addr()?, self.path()?) {
            (Some(addr), None) => GetWhat::ByAddress(addr),
            (None, Some(path)) => GetWhat::ByPath(path.to_owned()),
            (None, None) => return Err(RequestError::Missing { field: "addr" }),
            (Some(_), Some(_)) => return Err(RequestError::Both { a: "addr", b: "path" }),
        };
        let offset = self.number("offset")?.unwrap_or(0);
        Ok(GetRequest { what, offset, len: self.number("len")?, meta: self.flag("meta")? })
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Name(at)) = map.next_key()? {
                    let Some(at) = at else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if fields.values[at].replace(map.next_value()?).is_some() {
                        fields.twice.get_or_insert(NAMES[at]);
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// The name of a field, as its place in `NAMES`; `None` is an unknown one.
struct Name(Option<usize>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name(NAMES.iter().position(|name| *name == text)))
            }
        }

        deserializer.deserialize_identifier(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
