//! JSON of OAP/1 messages, appended to the bytes that are to be sent.
//!
//! Requests and answers write the same way. This module knows no message and reads none: each
//! message is described beside its reader.

use serde::Serialize;

/// Appends the JSON of `value`, which consists of strings, integers and flags.
pub(super) fn append_json<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    // Such values always have a JSON form, and a vector takes every write.
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok());
}
