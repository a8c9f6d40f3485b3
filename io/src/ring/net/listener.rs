//! The listeners of a shard, and how many accepts each has in progress.

use socket2::Socket;

use super::super::{listen::paces, tls::TlsConfig};

/// A listener of this shard.
pub struct Listener {
    pub socket: Socket,
    /// Settings of TLS, where a handshake comes first.
    pub tls: Option<TlsConfig>,
}

/// A listener, as the ring keeps it.
pub(super) struct ListenerState {
    pub(super) socket: Socket,
    pub(super) tls: Option<TlsConfig>,
    /// Whether bodies may be sent by reference.
    pub(super) by_reference: bool,
    /// Accepts that are asked for, [`ACCEPTS_MAX`] at most.
    pub(super) armed: u32,
}

impl ListenerState {
    pub(super) fn new(listener: Listener) -> ListenerState {
        ListenerState {
            // TLS is encrypted from the mapping and never sent by reference.
            by_reference: listener.tls.is_none() && !paces(&listener.socket),
            socket: listener.socket,
            tls: listener.tls,
            armed: 0,
        }
    }
}
