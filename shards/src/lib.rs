//! The crate that decides.
//!
//! A shard is one pinned core and all it owns: its connections, its storage partitions, its cache.
//! It is a synchronous state machine that gets events and the time and answers with acts; it
//! has no clock, socket, file or thread of its own, and no randomness that was not handed in. What
//! waits is in the driver, what bytes mean is in the codec.

mod asker;
pub mod cache;
pub mod config;
pub mod download;
pub mod entropy;
pub mod flow;
pub mod ingest;
pub mod limits;
mod machine;
mod mesh;
pub mod names;
pub mod resolved;
pub mod session;
mod sessions;
pub mod shard;
pub mod store;
#[cfg(test)]
mod testing;
mod turns;
