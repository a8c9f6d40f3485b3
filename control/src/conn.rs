//! The admin listener's connections: so many at once, and none that does nothing for long unless
//! its answer takes long.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, Sleep, sleep},
};

/// A listener that accepts only while fewer than its most connections are open.
pub(crate) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle_max: Duration,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, connections_max: usize, idle_max: Duration) -> Self {
        Limited { listener, places: Arc::new(Semaphore::new(connections_max)), idle_max }
    }
}

impl Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        // The semaphore is never closed, so that waiting for it cannot fail.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return pending().await;
        };
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let idle = Box::pin(sleep(self.idle_max));
        let idle_max = self.idle_max;
        (Watched { stream, idle, idle_max, waits: Arc::default(), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once it has neither given nor taken a byte for `idle_max`.
pub(crate) struct Watched {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    idle_max: Duration,
    /// Answers of the connection that are being waited for.
    waits: Arc<AtomicUsize>,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle.as_mut().reset(Instant::now() + self.idle_max);
            return polled;
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if self.waits.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.idle.as_mut().reset(Instant::now() + self.idle_max);
        }
        Poll::Pending
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    peer: SocketAddr,
    waits: Arc<AtomicUsize>,
}

impl Connected<IncomingStream<'_, Limited>> for Client {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Client {
        Client { peer: *stream.remote_addr(), waits: Arc::clone(&stream.io().waits) }
    }
}

impl Client {
    /// Whether it is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }

    /// Its connection may be idle as long as the result lives, because an answer takes long.
    pub(crate) fn wait(&self) -> Waiting {
        self.waits.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(&self.waits))
    }
}

/// Keeps a connection that waits.
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.watch(cx, polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::TcpStream as Client};

    use super::*;

    #[test]
    fn places_are_limited_and_idlers_lose_theirs() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let idle_max = Duration::from_millis(50);
            let mut limited = Limited::new(listener, 1, idle_max);
            let mut first = Client::connect(addr).unwrap();
            let _second = Client::connect(addr).unwrap();
            let (mut watched, _) = limited.accept().await;
            let more = tokio::time::timeout(idle_max / 2, limited.accept()).await;
            assert!(more.is_err(), "the only place is taken");
            let mut space = [0; 8];
            let mut into = ReadBuf::new(&mut space);
            let read = std::future::poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut into));
            assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            drop(watched);
            assert_eq!(first.read(&mut [0; 1]).unwrap(), 0, "the idler was closed");
            let next = tokio::time::timeout(Duration::from_secs(5), limited.accept()).await;
            assert!(next.is_ok(), "a place that is free again is used");
        });
    }

    #[test]
    fn who_waits_for_an_answer_is_no_idler() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let idle_max = Duration::from_millis(20);
            let mut limited = Limited::new(listener, 1, idle_max);
            let _client = Client::connect(addr).unwrap();
            let (mut watched, peer) = limited.accept().await;
            let waiting = super::Client { peer, waits: Arc::clone(&watched.waits) }.wait();
            let mut space = [0; 8];
            let mut into = ReadBuf::new(&mut space);
            let mut read =
                std::future::poll_fn(|cx| Pin::new(&mut watched).poll_read(cx, &mut into));
            let early = tokio::time::timeout(idle_max * 4, &mut read).await;
            assert!(early.is_err(), "it may wait");
            drop(waiting);
            assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
