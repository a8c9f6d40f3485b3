//! The sockets that a node listens on: bound before anything is made on disk, so that a start that
//! fails for want of a port leaves nothing behind.
//!
//! The kernel takes the rings of a process apart after the process has ended, and their sockets
//! with them. Who starts a node again at once after it was killed finds its addresses in use for a
//! moment, so a start tries them for a while.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ron_io::{
    ring::{self, Certificates, Listener},
    stats::Proto,
};
use ron_shards::config::Listener as Spoken;

use crate::{config::Config, failure::Failure};

/// How long a start tries to listen on addresses that are in use, all of them together, and how
/// often. What a killed node leaves is gone within a tenth of this.
const IN_USE_MAX: Duration = Duration::from_secs(1);
const IN_USE_AGAIN: Duration = Duration::from_millis(10);

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
        let until = Instant::now() + IN_USE_MAX;
        let mut bound = Vec::new();
        for kind in kinds(config) {
            let Some(address) = kind.address else { continue };
            let (address, sockets) = patiently(until, || ring::bind(address, config.shards()))
                .map_err(|error| format!("cannot listen on {address} ({}): {error}", kind.name))?;
            let listeners = sockets.into_iter().map(|socket| Listener { socket, tls: None });
            bound.push(Bound { kind, address, listeners: listeners.collect() });
        }
        let admin = patiently(until, || TcpListener::bind(config.admin))
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

/// Binds, again and again while the address is in use, until that time.
fn patiently<T>(until: Instant, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(IN_USE_AGAIN);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_tried_again_for_a_while() {
        let later = || Instant::now() + Duration::from_secs(60);
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut tries = 0;
        let mut third = || {
            tries += 1;
            if tries < 3 { Err(in_use()) } else { Ok(tries) }
        };
        assert_eq!(patiently(later(), &mut third).unwrap(), 3);
        // It stays in use.
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let mut tries = 0;
        let outcome = patiently(Instant::now() + 3 * IN_USE_AGAIN, || {
            tries += 1;
            TcpListener::bind(address)
        });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!((2..=4).contains(&tries), "{tries}");
        // Nothing else is waited for.
        let mut tries = 0;
        let outcome = patiently(later(), || {
            tries += 1;
            Err::<(), _>(io::Error::from(io::ErrorKind::AddrNotAvailable))
        });
        assert_eq!((outcome.unwrap_err().kind(), tries), (io::ErrorKind::AddrNotAvailable, 1));
    }
}
