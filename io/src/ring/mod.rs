//! The driver: runs a shard on the real machine.
//!
//! One thread, pinned to a core, runs a glommio executor. In it the driver's loop tells the shard
//! what its sockets, its disk and its mailboxes brought, and performs what the shard asks for.
//! Sockets and the bytes of open files live on an io_uring of our own; what may block is a task of
//! the executor, done by another thread.
//!
//! With nothing to do the loop sleeps, so an idle shard uses no CPU. While no task is under way it
//! sleeps in the ring, in the same system call that submits and collects; the ring polls the bell
//! of the mailboxes. While there are tasks it sleeps in the executor, which is told of the ring's
//! completions through an eventfd.

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
