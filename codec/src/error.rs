//! The error envelope that HTTP and OAP share: which codes exist, what they promise, how they read.
//!
//! A code belongs to exactly one status and says by itself whether trying again can help. This
//! module does not decide which failure deserves which code (each wire has its own `From` for its
//! parse errors) and it writes no message of its own.

use serde::de::IntoDeserializer;
use serde::{Deserialize, Serialize};

/// What went wrong, as clients may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadRequest,
    /// The body of a write hashes to something else than the address it was sent for.
    BadDigest,
    Unauthorized,
    /// The terms of a bundle ask for payment, and this node has them kept.
    PaymentRequired,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    /// The client accepts no form of the content that exists.
    NotAcceptable,
    /// The peer was too slow.
    Timeout,
    Conflict,
    PreconditionFailed,
    /// Size, ratio or decompression cap.
    TooLarge,
    TargetTooLong,
    RangeNotSatisfiable,
    ExpectationFailed,
    /// The tenant's own limit.
    OverQuota,
    HeadTooLarge,
    Internal,
    NotImplemented,
    /// Stored bytes failed verification and could not be repaired.
    Integrity,
    /// The node's limit.
    Overload,
    NotReady,
    Draining,
    UpstreamTimeout,
    VersionNotSupported,
    StorageFull,
}

impl ErrorCode {
    /// Every code, by status.
    pub const ALL: [Self; 26] = [
        Self::BadRequest,
        Self::BadDigest,
        Self::Unauthorized,
        Self::PaymentRequired,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::Timeout,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::TargetTooLong,
        Self::RangeNotSatisfiable,
        Self::ExpectationFailed,
        Self::OverQuota,
        Self::HeadTooLarge,
        Self::Internal,
        Self::NotImplemented,
        Self::Integrity,
        Self::Overload,
        Self::NotReady,
        Self::Draining,
        Self::UpstreamTimeout,
        Self::VersionNotSupported,
        Self::StorageFull,
    ];

    /// The status of an answer with this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadDigest => 400,
            Self::Unauthorized => 401,
            Self::PaymentRequired => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::TargetTooLong => 414,
            Self::RangeNotSatisfiable => 416,
            Self::ExpectationFailed => 417,
            Self::OverQuota => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::Integrity => 502,
            Self::Overload | Self::NotReady | Self::Draining => 503,
            Self::UpstreamTimeout => 504,
            Self::VersionNotSupported => 505,
            Self::StorageFull => 507,
        }
    }

    /// The code as it is spelled in the envelope, in logs and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadDigest => "bad_digest",
            Self::Unauthorized => "unauthorized",
            Self::PaymentRequired => "payment_required",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::TargetTooLong => "target_too_long",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::ExpectationFailed => "expectation_failed",
            Self::OverQuota => "over_quota",
            Self::HeadTooLarge => "head_too_large",
            Self::Internal => "internal",
            Self::NotImplemented => "not_implemented",
            Self::Integrity => "integrity",
            Self::Overload => "overload",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::VersionNotSupported => "version_not_supported",
            Self::StorageFull => "storage_full",
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::OverQuota
                | Self::Integrity
                | Self::Overload
                | Self::NotReady
                | Self::Draining
                | Self::UpstreamTimeout
                | Self::StorageFull
        )
    }

    /// The code that is spelled `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            text.into_deserializer();
        Self::deserialize(text).ok()
    }
}

/// An error as a node writes it: the body of an HTTP error or the payload of an OAP error frame.
/// `message` is short, names the limit that was met and leaks neither paths nor internals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorEnvelope<'a> {
    pub code: ErrorCode,
    pub message: &'a str,
    pub corr_id: &'a str,
    /// When to try again, where no header says it.
    pub retry_after_ms: Option<u64>,
}

impl ErrorEnvelope<'_> {
    /// Appends the envelope to `out` as one line of JSON without a line end.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"code\":\"");
        out.extend_from_slice(self.code.as_str().as_bytes());
        out.extend_from_slice(b"\",\"message\":");
        write_json_string(self.message, out);
        out.extend_from_slice(b",\"retryable\":");
        out.extend_from_slice(if self.code.retryable() { b"true" } else { b"false" });
        out.extend_from_slice(b",\"corr_id\":");
        write_json_string(self.corr_id, out);
        if let Some(ms) = self.retry_after_ms {
            out.extend_from_slice(b",\"retry_after_ms\":");
            out.extend_from_slice(ms.to_string().as_bytes());
        }
        out.push(b'}');
    }
}

/// An error as a client reads it. Absent fields are empty, unknown ones are ignored, and the code
/// is kept as text because a newer node may know more codes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ErrorReply {
    pub code: String,
    pub message: String,
    pub retryable: bool,
    pub corr_id: String,
}

impl ErrorReply {
    /// Reads an envelope.
    ///
    /// # Errors
    ///
    /// When `json` is no JSON object, or one whose fields have other types.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The code, when this version knows it.
    #[must_use]
    pub fn known_code(&self) -> Option<ErrorCode> {
        ErrorCode::parse(&self.code)
    }
}

/// Appends `text` as a JSON string (RFC 8259 §7): quotes, backslashes and control characters are
/// escaped, all else is copied.
fn write_json_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table clients were promised, kept apart from the code on purpose.
    const TABLE: [(u16, &str, bool); 26] = [
        (400, "bad_request", false),
        (400, "bad_digest", false),
        (401, "unauthorized", false),
        (402, "payment_required", false),
        (403, "forbidden", false),
        (404, "not_found", false),
        (405, "method_not_allowed", false),
        (406, "not_acceptable", false),
        (408, "timeout", true),
        (409, "conflict", false),
        (412, "precondition_failed", false),
        (413, "too_large", false),
        (414, "target_too_long", false),
        (416, "range_not_satisfiable", false),
        (417, "expectation_failed", false),
        (429, "over_quota", true),
        (431, "head_too_large", false),
        (500, "internal", false),
        (501, "not_implemented", false),
        (502, "integrity", true),
        (503, "overload", true),
        (503, "not_ready", true),
        (503, "draining", true),
        (504, "upstream_timeout", true),
        (505, "version_not_supported", false),
        (507, "storage_full", true),
    ];

    #[test]
    fn codes_keep_their_promises() {
        let actual = ErrorCode::ALL.map(|code| (code.status(), code.as_str(), code.retryable()));
        assert_eq!(actual, TABLE);
    }

    #[test]
    fn both_spellings_of_a_code_agree() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::parse("BadRequest"), None);
        assert_eq!(ErrorCode::parse(""), None);
    }

    #[test]
    fn an_envelope_is_written_in_the_documented_order() {
        let mut out = b"kept".to_vec();
        let (code, message, corr_id) = (ErrorCode::Overload, "full", "c1");
        let envelope = ErrorEnvelope { code, message, corr_id, retry_after_ms: None };
        envelope.write_json(&mut out);
        let expected =
            r#"kept{"code":"overload","message":"full","retryable":true,"corr_id":"c1"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        ErrorEnvelope { retry_after_ms: Some(1500), ..envelope }.write_json(&mut out);
        let expected = expected["kept".len()..].replace("c1\"}", "c1\",\"retry_after_ms\":1500}");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_reply_tolerates_unknown_codes_and_fields() {
        let reply = ErrorReply::parse(br#"{"code":"teapot","new":[1]}"#).unwrap();
        assert_eq!(reply.code, "teapot");
        assert_eq!(reply.known_code(), None);
        assert!(!reply.retryable);
        assert!(ErrorReply::parse(b"<html>").is_err());
        assert!(ErrorReply::parse(br#"{"retryable":"yes"}"#).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            message in "(.|[\u{0}-\u{20}\"\\\\\u{7f}\u{2028}]){0,40}", corr_id: String,
            index in 0..ErrorCode::ALL.len(),
        ) {
            let code = ErrorCode::ALL[index];
            let mut out = Vec::new();
            let (message_text, corr_id, retry_after_ms) = (&*message, &*corr_id, None);
            ErrorEnvelope { code, message: message_text, corr_id, retry_after_ms }
                .write_json(&mut out);
            let reply = ErrorReply::parse(&out).unwrap();
            prop_assert_eq!(reply.known_code(), Some(code));
            prop_assert_eq!(reply.retryable, code.retryable());
            prop_assert_eq!(reply.message, message);
            prop_assert_eq!(reply.corr_id, corr_id);
        }
    }
}
