//! Listening sockets: one for each shard on the same address, so that the kernel spreads
//! connections and no shard waits for another.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::LISTEN_BACKLOG;

/// Binds `shards` sockets to one address. With port 0 all get the port the first one was given.
///
/// # Errors
/// What the socket calls answered; the address is in the caller's hands.
pub fn bind(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    if address.port() != 0 {
        // Sharing a port is for shards of one node. Another node, or anyone, that listens there
        // is in the way of a socket that does not share.
        let probe = new_socket(address)?;
        probe.set_reuse_address(true)?;
        probe.bind(&address.into())?;
    }
    let first = bind_one(address)?;
    let bound = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the bound address is not an IP address"))?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(bind_one(bound)?);
    }
    Ok((bound, sockets))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = new_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit this: answers are never held back for more.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Whether the kernel paces what this socket's connections send. Sending by reference in paced
/// pieces costs far more than copying, so bodies are copied there.
pub(super) fn paces(socket: &Socket) -> bool {
    socket.tcp_congestion().is_ok_and(|name| name.starts_with(b"bbr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_shared_with_strangers() {
        let (address, _sockets) = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(
            bind(address, 1).err().map(|error| error.kind()),
            Some(io::ErrorKind::AddrInUse)
        );
    }

    #[test]
    fn all_shards_share_the_port_that_was_given() {
        let (address, sockets) = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_ne!(address.port(), 0);
        for socket in sockets {
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(address));
        }
    }
}
