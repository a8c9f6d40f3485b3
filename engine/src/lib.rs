//! The node assembled: its settings, its data directory, its memory bill. Wiring, nothing clever.

pub mod archive;
pub mod certs;
pub mod client;
pub mod config;
pub mod failure;
pub mod file_bill;
pub mod format;
pub mod fsck;
mod listeners;
pub mod machine;
pub mod memory_bill;
pub mod node;
pub mod random;
pub mod reload;
pub mod stopped;
