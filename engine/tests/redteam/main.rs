//! Peers that want the node for themselves, over real sockets.
//!
//! Each case prints what is resident and what another client met, before, during and after; it
//! holds that the other client is served, that the node stays within the memory it said it would
//! use, and that the connections end with their peers.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod frames;
mod handshakes;
mod uploads;
