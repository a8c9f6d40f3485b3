//! OAP/1: frames, and the messages of HELLO and storage in them.
//!
//! Bytes to frames ([`Deframer`]), headers to bytes ([`encode_header`]), JSON payloads to requests
//! ([`StorageRequest`]) and answers to JSON, for both ends of a connection. This module refuses
//! what a frame or a payload alone shows to be wrong. The order of streams, their deadlines and
//! their credit are decided by the owner of the connection. `docs/OAP1.md` is the specification;
//! comments cite its clauses.

mod answer;
mod deframe;
mod frame;
mod json;
pub mod limits;
mod request;

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod twin;

pub use answer::{
    AnswerError, HasAnswer, Hello, Meta, PutAnswer, parse_answer, write_has, write_hello,
    write_meta, write_put_done,
};
pub use deframe::{Deframer, Piece};
pub use frame::{
    APP_HELLO, APP_MAILBOX, APP_STORAGE, Flags, FrameError, FrameHeader, HEADER_LEN, VERSION,
    append_frame, encode_header,
};
pub use request::{
    GetRequest, GetWhat, RequestError, StorageRequest, Window, check_client_frame, parse_credit,
    write_credit, write_get_request, write_has_request, write_put_request,
};
