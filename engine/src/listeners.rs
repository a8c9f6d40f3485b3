//! The sockets that a node listens on: bound before anything is made on disk, so that a start that
//! fails for want of a port leaves nothing behind.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use ron_io::{
    ring::{self, Certificates, Listener},
    stats::Proto,
};
use ron_shards::config::Listener as Spoken;

use crate::{config::Config, failure::Failure};

/// Where the node can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) oap: Option<SocketAddr>,
    pub(crate) oap_plain: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

/// What is spoken on one kind of listener.
struct Kind {
    name: &'static str,
    address: Option<SocketAddr>,
    spoken: Spoken,
    /// The name of the protocol in a TLS handshake.
    alpn: &'static [u8],
}

/// One kind of listener, with a socket for each shard.
struct Bound {
    kind: Kind,
    address: SocketAddr,
    listeners: Vec<Listener>,
}

/// All sockets of a node, without certificates yet.
pub(crate) struct Listeners {
    bound: Vec<Bound>,
    pub(crate) admin: TcpListener,
    pub(crate) addresses: Addresses,
}

fn kinds(config: &Config) -> [Kind; 4] {
    let kind = |name, address, proto, alpn: &'static [u8]| Kind {
        name,
        address,
        spoken: Spoken { proto, tls: !alpn.is_empty() },
        alpn,
    };
    [
        kind("http", config.http, Proto::Http, b""),
        kind("https", config.https, Proto::Https, b"http/1.1"),
        kind("oap", config.oap, Proto::Oap, b"ron/1"),
        kind("oap_plain", config.oap_plain, Proto::Oap, b""),
    ]
}

impl Listeners {
    /// Binds every listener that is on, once for each shard, and the admin listener.
    ///
    /// # Errors
    /// The address that cannot be bound, its setting, and why.
    pub(crate) fn bind(config: &Config) -> Result<Listeners, Failure> {
        let mut bound = Vec::new();
        for kind in kinds(config) {
            let Some(address) = kind.address else { continue };
            let (address, sockets) = ring::bind(address, config.shards())
                .map_err(|error| format!("cannot listen on {address} ({}): {error}", kind.name))?;
            let listeners = sockets.into_iter().map(|socket| Listener { socket, tls: None });
            bound.push(Bound { kind, address, listeners: listeners.collect() });
        }
        let admin = TcpListener::bind(config.admin)
            .map_err(|error| format!("cannot listen on {} (admin): {error}", config.admin))?;
        let at = |name| {
            let found = bound.iter().find(|bound: &&Bound| bound.kind.name == name)?;
            Some(found.address)
        };
        let addresses = Addresses {
            http: at("http"),
            https: at("https"),
            oap: at("oap"),
            oap_plain: at("oap_plain"),
            admin: admin.local_addr()?,
        };
        Ok(Listeners { bound, admin, addresses })
    }

    /// What is spoken on the listeners of a shard, in their order.
    pub(crate) fn spoken(&self) -> Vec<Spoken> {
        self.bound.iter().map(|bound| bound.kind.spoken).collect()
    }

    /// Deals the sockets to the shards. Those that speak TLS show these certificates.
    ///
    /// # Errors
    /// When a TLS listener cannot be set up.
    ///
    /// # Panics
    /// When there is one, and there are no certificates.
    pub(crate) fn deal(
        self,
        shards: usize,
        certificates: Option<&Arc<Certificates>>,
    ) -> Result<(Vec<Vec<Listener>>, TcpListener), Failure> {
        let mut dealt: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
        for Bound { kind, listeners, .. } in self.bound {
            let tls = match (kind.spoken.tls, certificates) {
                (false, _) => None,
                (true, Some(certificates)) => {
                    Some(ring::server_config(certificates, &[kind.alpn])?)
                }
                (true, None) => panic!("{} has no certificates", kind.name),
            };
            for (dealt, listener) in dealt.iter_mut().zip(listeners) {
                dealt.push(Listener { tls: tls.clone(), ..listener });
            }
        }
        Ok((dealt, self.admin))
    }
}
