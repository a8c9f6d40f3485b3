//! The driver: runs a shard on the real machine.
//!
//! One thread, pinned to a core, runs a glommio executor. In it the driver's loop tells the shard
//! what its sockets, its disk and its mailboxes brought, and performs what the shard asks for.
//! Sockets live on an io_uring of our own; disk operations are tasks of the executor. When there is
//! nothing to do the loop sleeps in glommio on an eventfd, which the socket ring and the mailboxes
//! ring, so an idle shard uses no CPU.

mod conn;
mod disk;
mod driver;
mod listen;
mod net;
mod probe;
mod recv_pool;
mod tls;

pub use driver::{Driver, DriverError, Mailboxes};
pub use listen::bind;
pub use net::Listener;
pub use probe::{Refused, check};
pub use tls::{TlsConfig, server_config};

#[cfg(test)]
mod tests;
