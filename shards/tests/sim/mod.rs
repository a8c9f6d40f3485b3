//! A node in a world made of dice: real shards, simulated disks, sockets and time, clients that
//! remember their answers, and everything that can go wrong.
//!
//! One number decides a run, and the same number runs it again. What is modelled, and what is not,
//! is described in `docs/decisions/0007-simulation.md`.

// The test and the example each use some of it, and it is part of either.
#![allow(dead_code, unreachable_pub)]

mod client;
mod ending;
mod faults;
mod flood;
mod http;
mod ledger;
mod memory;
mod node;
mod oap;
mod objects;
mod oracle;
mod plan;
mod rude;
pub mod runner;
mod stage;
pub mod trace;
mod world;
