//! Wakers of other threads as something that tokio polls.
//!
//! tokio polls edge-triggered, where every write of an eventfd is an event of its own, so its count
//! need not be read. Who wakes, and why, is not known here.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use ron_io::lane::Waker;
use tokio::io::{Interest, unix::AsyncFd};

/// A waker as something to be polled.
pub(crate) struct WakerFd(pub(crate) Arc<Waker>);

impl AsRawFd for WakerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.eventfd()
    }
}

/// Registers a waker with the reactor. Must be called inside a tokio runtime.
///
/// # Errors
/// What `epoll_ctl(2)` answered.
#[expect(deprecated, reason = "its successor is unsafe, and unsafe code is for the I/O crate")]
pub(crate) fn watch(waker: Arc<Waker>) -> io::Result<AsyncFd<WakerFd>> {
    // The old constructor is deprecated because a descriptor might be closed or change while it
    // is registered. This one cannot: the waker owns it until the last handle is dropped, always
    // names the same one, and `WakerFd` holds a handle.
    AsyncFd::with_interest(WakerFd(waker), Interest::READABLE)
}
