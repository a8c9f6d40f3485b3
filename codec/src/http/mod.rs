//! HTTP/1.1 as bytes: request heads, targets, ranges, entity tags, chunked bodies, response heads,
//! bodies of several parts.
//!
//! Everything here runs once or more per request of a shard, so nothing here allocates: heads are
//! borrowed from the receive buffer and answers are appended to a buffer the caller keeps. The
//! module refuses what two readers could understand differently (RFC 9112 §11.2). It does not
//! decide which method a route allows, who may write, or how long a peer may take.

pub mod body;
pub mod etag;
pub mod fields;
pub mod multipart;
pub mod range;
pub mod request;
pub mod response;
pub mod target;

pub use fields::{FieldLines, FieldValues};
