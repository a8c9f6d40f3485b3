//! What a node answers over OAP/1, apart from raw bytes and errors: JSON, written and read.
//!
//! The same types serve the node, which writes them, and its clients, which read them. Unknown
//! fields are skipped, so that a client understands a newer node. Each reader takes one payload; a
//! frame bounds its length.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::frame::VERSION;
use super::json::append_json;
use super::limits::{FRAME_LEN_MAX, OAP_INFLIGHT_MAX};
use crate::address::Address;

/// The flags that this version serves and a peer may rely on. EVENT needs the mailbox, and COMP
/// frames are refused: OAP/1 §5.3.
const SUPPORTED_FLAGS: [&str; 2] = ["ACK_REQ", "APP_E2E"];

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hello {
    /// Version of the node's software.
    pub server_version: String,
    /// Largest `len` of a frame, in bytes.
    pub max_frame: u64,
    /// Most streams open at once on a connection.
    pub max_inflight: u32,
    /// Names of the flags that the node serves.
    pub supported_flags: Vec<String>,
    /// Versions of the protocol that the node speaks.
    pub oap_versions: Vec<u8>,
    /// Transports that the node listens on.
    pub transports: Vec<String>,
    /// Whether the transport's key exchange is post-quantum.
    pub pq: bool,
}

/// Whether a node has an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasAnswer {
    /// Whether it is there.
    pub has: bool,
    /// Its bytes; 0 when it is not there.
    pub size: u64,
}

/// An object was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Its address.
    pub addr: Address,
    /// Its bytes.
    pub size: u64,
    /// False when the node had it before.
    pub new: bool,
}

/// What an answer with `meta` begins with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Meta {
    /// The object.
    pub obj: Address,
    /// Bytes of the whole object.
    pub size: u64,
    /// First byte sent.
    pub offset: u64,
    /// Bytes sent.
    pub len: u64,
    /// Its media type.
    pub content_type: String,
}

/// A payload is not the answer that was expected; `column` is where it went wrong, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("answer of {len} bytes is not understood, see byte {column}")]
pub struct AnswerError {
    /// Bytes of the payload.
    pub len: usize,
    /// Where it went wrong.
    pub column: usize,
}

/// Reads an answer: a [`Hello`], [`HasAnswer`], [`PutAnswer`] or [`Meta`].
///
/// # Errors
///
/// [`AnswerError`] when the payload is not the JSON of a `T`.
pub fn parse_answer<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, AnswerError> {
    serde_json::from_slice(payload)
        .map_err(|error| AnswerError { len: payload.len(), column: error.column() })
}

/// Appends the answer to a HELLO.
pub fn write_hello(out: &mut Vec<u8>, server_version: &str) {
    #[derive(Serialize)]
    struct HelloOut<'a> {
        server_version: &'a str,
        max_frame: usize,
        max_inflight: u32,
        supported_flags: [&'static str; SUPPORTED_FLAGS.len()],
        oap_versions: [u8; 1],
        transports: [&'static str; 1],
        pq: bool,
    }
    // OAP/1 §5.3
    let hello = HelloOut {
        server_version,
        max_frame: FRAME_LEN_MAX,
        max_inflight: OAP_INFLIGHT_MAX,
        supported_flags: SUPPORTED_FLAGS,
        oap_versions: [VERSION],
        transports: ["tcp+tls"],
        pq: false,
    };
    append_json(out, &hello);
}

/// Appends the answer to a has: the bytes of the object, or `None` when it is not there.
pub fn write_has(out: &mut Vec<u8>, size: Option<u64>) {
    // OAP/1 §6.7
    append_json(out, &HasAnswer { has: size.is_some(), size: size.unwrap_or(0) });
}

/// Appends the answer to a put.
pub fn write_put_done(out: &mut Vec<u8>, done: &PutAnswer) {
    // OAP/1 §6.9
    append_json(out, done);
}

/// Appends what an answer with `meta` begins with: `len` bytes follow, from `offset`
/// of an object of `size` bytes.
pub fn write_meta(
    out: &mut Vec<u8>,
    obj: &Address,
    size: u64,
    window: super::Window,
    content_type: &str,
) {
    #[derive(Serialize)]
    struct MetaOut<'a> {
        obj: &'a Address,
        size: u64,
        offset: u64,
        len: u64,
        content_type: &'a str,
    }
    // OAP/1 §6.6
    let (offset, len) = (window.offset, window.len);
    append_json(out, &MetaOut { obj, size, offset, len, content_type });
}

#[cfg(test)]
mod tests {
    use super::super::Window;
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"kept ".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap().strip_prefix("kept ").unwrap().to_owned()
    }

    #[test]
    fn hello_has_the_documented_shape() {
        // OAP/1 §5.3
        let hello = text(|out| write_hello(out, "0.1.0"));
        assert_eq!(
            hello,
            concat!(
                r#"{"server_version":"0.1.0","max_frame":1048576,"max_inflight":64,"#,
                r#""supported_flags":["ACK_REQ","APP_E2E"],"#,
                r#""oap_versions":[1],"transports":["tcp+tls"],"pq":false}"#
            )
        );
        let read: Hello = parse_answer(hello.as_bytes()).unwrap();
        assert_eq!(read.max_frame, 1_048_576);
        assert_eq!(read.supported_flags, ["ACK_REQ", "APP_E2E"]);
    }

    #[test]
    fn the_version_cannot_break_out_of_its_string() {
        let hello = text(|out| write_hello(out, "1\"},\n{"));
        let read: Hello = parse_answer(hello.as_bytes()).unwrap();
        assert_eq!(read.server_version, "1\"},\n{");
    }

    #[test]
    fn a_newer_hello_is_understood() {
        // OAP/1 §5.4
        let newer = br#"{"server_version":"9","max_frame":1048576,"max_inflight":1,"new":[{}],
            "supported_flags":["X"],"oap_versions":[1,2],"transports":[],"pq":true}"#;
        let read: Hello = parse_answer(newer).unwrap();
        assert!(read.pq);
        assert_eq!(read.oap_versions, [1, 2]);
    }

    #[test]
    fn has_and_put_answers() {
        assert_eq!(text(|out| write_has(out, None)), r#"{"has":false,"size":0}"#);
        // An empty object is there all the same.
        let has = text(|out| write_has(out, Some(0)));
        assert_eq!(has, r#"{"has":true,"size":0}"#);
        assert_eq!(parse_answer(has.as_bytes()), Ok(HasAnswer { has: true, size: 0 }));

        let done = PutAnswer { addr: Address::from_bytes([0xab; 32]), size: u64::MAX, new: true };
        let put = text(|out| write_put_done(out, &done));
        let hex = "ab".repeat(32);
        let want = format!(r#"{{"addr":"b3:{hex}","size":18446744073709551615,"new":true}}"#);
        assert_eq!(put, want);
        assert_eq!(parse_answer(put.as_bytes()), Ok(done));
    }

    #[test]
    fn meta_is_written_and_read() {
        let obj = Address::from_bytes([1; 32]);
        let window = Window { offset: 3, len: 4 };
        let meta = text(|out| write_meta(out, &obj, 9, window, "text/plain; x=\"y\""));
        let hex = "01".repeat(32);
        let fixed = r#","size":9,"offset":3,"len":4,"content_type":"text/plain; x=\"y\""}"#;
        let want = format!(r#"{{"obj":"b3:{hex}"{fixed}"#);
        assert_eq!(meta, want);
        let read: Meta = parse_answer(meta.as_bytes()).unwrap();
        assert_eq!((read.obj, read.size, read.offset, read.len), (obj, 9, 3, 4));
        assert_eq!(read.content_type, "text/plain; x=\"y\"");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for payload in [&b""[..], b"{}", b"[", b"\xff", br#"{"has":1,"size":2}"#] {
            let error = parse_answer::<HasAnswer>(payload).unwrap_err();
            assert_eq!(error.len, payload.len());
        }
    }
}
