//! The admin listener's connections: so many at once, and none that does nothing for long unless
//! its answer takes long.
//!
//! ```text
//!  accepted ──► open ── no byte for IDLE_MAX ───────────────► closed
//!                 ├─ a request without its end for ASK_MAX ──► closed
//!                 └─ the idlest, when there are too many ────► closed
//! ```
//!
//! A connection whose answer is being waited for (a verification, a profile) is never the idlest.
//! There are fewer of those than places, so that a new connection is let in at once.

use std::{
    future::{Future, pending},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Duration, Instant, Sleep, sleep},
};

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Neither giving nor taking a byte.
    pub(crate) idle: Duration,
    /// From the first byte of a request to the first of its answer, unless that is waited for.
    pub(crate) ask: Duration,
}

/// A listener that closes the idlest of its connections when more come than it has places for.
pub(crate) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    open: Arc<Open>,
    patience: Patience,
}

impl Limited {
    pub(crate) fn new(listener: TcpListener, connections_max: usize, patience: Patience) -> Self {
        let places = Arc::new(Semaphore::new(connections_max));
        Limited { listener, places, open: Arc::default(), patience }
    }
}

impl Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        if self.places.available_permits() == 0 {
            self.open.close_idlest();
        }
        // The semaphore is never closed, so that waiting for it cannot fail.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return pending().await;
        };
        let waits = Arc::default();
        let (entry, closed) = Open::enter(&self.open, &waits);
        let idle = Box::pin(sleep(self.patience.idle));
        let patience = self.patience;
        let watched =
            Watched { stream, idle, patience, asked: None, waits, closed, entry, _place: place };
        (watched, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Open(Mutex<Vec<Entry>>);

/// One of them.
#[derive(Debug)]
struct Entry {
    number: u64,
    /// When it last gave or took a byte.
    active: Instant,
    waits: Arc<AtomicUsize>,
    /// Closes it when dropped.
    _close: oneshot::Sender<()>,
}

/// What the next connection is called.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Open {
    fn enter(open: &Arc<Open>, waits: &Arc<AtomicUsize>) -> (Ticket, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let mut entries = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never used again: a connection that was asked to close may outlive its entry.
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (active, waits) = (Instant::now(), Arc::clone(waits));
        entries.push(Entry { number, active, waits, _close: close });
        (Ticket { open: Arc::clone(open), number }, closed)
    }

    /// Closes the connection that was active least lately, of those whose answer nobody waits for.
    fn close_idlest(&self) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |entry: &&Entry| entry.waits.load(Ordering::Relaxed) == 0;
        let idlest = entries.iter().filter(idle).min_by_key(|entry| entry.active);
        if let Some(number) = idlest.map(|entry| entry.number) {
            entries.retain(|entry| entry.number != number);
        }
    }
}

/// The place of a connection among those that are open, for as long as it lives.
#[derive(Debug)]
struct Ticket {
    open: Arc<Open>,
    number: u64,
}

impl Ticket {
    fn active(&self, now: Instant) {
        let mut entries = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.number == self.number) {
            entry.active = now;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut entries = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.number != self.number);
    }
}

/// A connection that fails once it was idle for too long, asked for too long, or has to give its
/// place up.
pub(crate) struct Watched {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    patience: Patience,
    /// When the first byte of a request came whose answer has not begun.
    asked: Option<Instant>,
    /// Answers of the connection that are being waited for.
    waits: Arc<AtomicUsize>,
    closed: oneshot::Receiver<()>,
    entry: Ticket,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    /// Takes note of what came of reading or writing, and fails what took too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        asks: bool,
    ) -> Poll<io::Result<T>> {
        let now = Instant::now();
        let waits = self.waits.load(Ordering::Relaxed) > 0;
        if polled.is_ready() {
            self.entry.active(now);
            self.asked = asks.then(|| self.asked.unwrap_or(now));
            let due = self.due(now);
            self.idle.as_mut().reset(due);
        }
        let late = self.asked.is_some_and(|asked| asked + self.patience.ask <= now);
        if late && !waits || Pin::new(&mut self.closed).poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if polled.is_ready() {
            return polled;
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            if !waits {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.idle.as_mut().reset(now + self.patience.idle);
        }
        Poll::Pending
    }

    /// When the connection will have done nothing for too long.
    fn due(&self, now: Instant) -> Instant {
        let idle = now + self.patience.idle;
        self.asked.map_or(idle, |asked| idle.min(asked + self.patience.ask))
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
    #[cfg(test)]
    pub(crate) fn of(peer: SocketAddr) -> Client {
        Client { peer, waits: Arc::default() }
    }

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
        self.watch(cx, polled, true)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled, false)
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
    use std::{
        io::{Read, Write},
        net::TcpStream as Peer,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SOON: Duration = Duration::from_secs(5);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
    }

    async fn limited(places: usize, idle: Duration, ask: Duration) -> (Limited, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (Limited::new(listener, places, Patience { idle, ask }), addr)
    }

    /// Reads once; yields the number of bytes, or why there are none.
    async fn read(watched: &mut Watched) -> Result<usize, io::ErrorKind> {
        let mut space = [0; 8];
        let mut into = ReadBuf::new(&mut space);
        let read = std::future::poll_fn(|cx| Pin::new(&mut *watched).poll_read(cx, &mut into));
        read.await.map_err(|error| error.kind())?;
        Ok(into.filled().len())
    }

    #[test]
    fn idlers_lose_their_place() {
        run(async {
            let (mut limited, addr) = limited(1, Duration::from_millis(50), LONG).await;
            let mut first = Peer::connect(addr).unwrap();
            let (mut watched, _) = limited.accept().await;
            assert_eq!(read(&mut watched).await, Err(io::ErrorKind::TimedOut));
            drop(watched);
            assert_eq!(first.read(&mut [0; 1]).unwrap(), 0, "the idler was closed");
        });
    }

    #[test]
    fn the_idlest_gives_its_place_up() {
        run(async {
            let (mut limited, addr) = limited(2, LONG, LONG).await;
            let mut peers = vec![Peer::connect(addr).unwrap(), Peer::connect(addr).unwrap()];
            let (mut first, _) = limited.accept().await;
            let (mut second, peer) = limited.accept().await;
            // The first was here before, but has said something since.
            peers[0].write_all(b"GET").unwrap();
            assert_eq!(read(&mut first).await, Ok(3));
            peers.push(Peer::connect(addr).unwrap());
            let (next, outcome) = tokio::join!(limited.accept(), async {
                let outcome = read(&mut second).await;
                drop(second);
                outcome
            });
            assert_eq!(outcome, Err(io::ErrorKind::TimedOut), "the second gave its place up");
            // Whose answer is waited for stays: the one that came last has to go.
            let waiting = Client { peer, waits: Arc::clone(&first.waits) }.wait();
            peers.push(Peer::connect(addr).unwrap());
            let (mut next, mut late) = (next.0, Box::pin(limited.accept()));
            let outcome = tokio::select! {
                outcome = read(&mut next) => outcome,
                _ = &mut late => panic!("there was no place"),
            };
            assert_eq!(outcome, Err(io::ErrorKind::TimedOut));
            drop(next);
            assert!(tokio::time::timeout(SOON, late).await.is_ok());
            drop(waiting);
        });
    }

    #[test]
    fn a_request_that_trickles_has_an_end() {
        run(async {
            let ask = Duration::from_millis(100);
            let (mut limited, addr) = limited(1, LONG, ask).await;
            let mut peer = Peer::connect(addr).unwrap();
            let (mut watched, _) = limited.accept().await;
            let begun = Instant::now();
            let trickle = std::thread::spawn(move || while peer.write_all(b"x").is_ok() {});
            while read(&mut watched).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert!(begun.elapsed() >= ask);
            drop(watched);
            trickle.join().unwrap();
        });
    }

    #[test]
    fn who_waits_for_an_answer_is_no_idler() {
        run(async {
            let patience = Duration::from_millis(20);
            let (mut limited, addr) = limited(1, patience, patience).await;
            let mut client = Peer::connect(addr).unwrap();
            let (mut watched, peer) = limited.accept().await;
            let waiting = Client { peer, waits: Arc::clone(&watched.waits) }.wait();
            client.write_all(b"x").unwrap();
            assert_eq!(read(&mut watched).await, Ok(1));
            let early = tokio::time::timeout(patience * 4, read(&mut watched)).await;
            assert!(early.is_err(), "it may wait");
            drop(waiting);
            assert_eq!(read(&mut watched).await, Err(io::ErrorKind::TimedOut));
        });
    }
}
