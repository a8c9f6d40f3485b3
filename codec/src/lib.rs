//! What bytes mean: addresses, OAP frames, HTTP heads, outboards, storage records, errors.
//!
//! This crate is pure. Bytes go in, meaning comes out; it has no clock, socket, file, thread or
//! `async`, so every rule of a wire or disk format can be tested here with nothing but slices.

pub mod address;
pub mod authority;
pub mod corr;
pub mod error;
pub mod http;
pub mod limits;
pub mod manifest;
pub mod name;
pub mod oap;
pub mod outboard;
pub mod record;
