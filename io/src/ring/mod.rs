//! The driver: runs a shard on the real machine.
//!
//! One thread, pinned to a core. Its loop tells the shard what its sockets, its disk and its
//! mailboxes brought, and performs what the shard asks for. Sockets and the bytes of open files
//! live on an io_uring of our own; what may block is done by other threads.
//!
//! With nothing to do the loop sleeps, so an idle shard uses no CPU. It sleeps in the ring, in the
//! same system call that submits and collects; the ring polls the waker that mailboxes and the
//! disk's threads ring.

mod conn;
mod disk;
mod driver;
mod half_closed;
mod heap;
mod listen;
mod net;
mod probe;
mod recv_pool;

pub use driver::{Driver, DriverError, Mailboxes};
pub use heap::keep_freed_memory;
#[cfg(feature = "sample")]
pub(crate) use heap::release_now;
pub use listen::bind;
pub use net::Listener;
pub use probe::{Refused, check};
pub use tls::{Certificate, Certificates, TlsConfig, server_config};

use crate::tls;

#[cfg(test)]
mod tests;
