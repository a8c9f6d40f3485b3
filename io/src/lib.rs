//! The crate that moves bytes, and the only one that waits.
//!
//! Without the feature `ring` this crate is its ports alone: the events a shard gets, the acts
//! it answers with, the blocks bytes live in, the mailboxes between threads and the counters the
//! control plane reads. They know no protocol and no disk format. The feature `ring` adds the
//! driver that performs acts: sockets on an io_uring of our own inside a glommio executor, disk,
//! TLS. The feature `sim` adds one made of dice, for tests; `sample` what the profiler of
//! the control plane samples threads with.
//!
//! All the unsafe code of the node is here, each block with its argument, but for the one call that
//! opens control's records.

pub mod arena;
pub mod counter;
pub mod lane;
pub mod latency;
pub mod limits;
pub mod listing;
pub mod names;
pub mod peers;
pub mod pipe;
pub mod ports;
pub mod process;
pub mod progress;
pub mod regular;
#[cfg(feature = "ring")]
pub mod ring;
#[cfg(feature = "sample")]
pub mod sample;
mod seqlock;
#[cfg(feature = "sim")]
pub mod sim;
pub mod splitmix;
pub mod stats;
mod sync;
#[cfg(feature = "tls")]
#[path = "ring/tls.rs"]
pub mod tls;
pub mod watch;
pub mod wheel;
pub mod work;
