//! Bounded mailboxes between threads, and the waker that wakes a sleeping reader.
//!
//! A [`lane`] has a fixed length: when it is full the sender gets its message back.
//! Before a reader sleeps it says so on its [`Waker`]; a sender that then leaves a message writes
//! the waker's eventfd, once. While the reader is awake a message costs no system call.
//!
//! ```text
//!   reader: parked = true ── fence ── all lanes empty? ── sleep on the eventfd
//!   sender: push ─────────── fence ── parked? ─────────── write the eventfd
//! ```
//!
//! One of the two sees the other's first step, so no message is left lying beside a sleeper.

use std::{fmt, io, os::fd::RawFd, sync::Arc};

use crate::sync::{ArrayQueue, AtomicBool, EventFd, Ordering, fence};

/// Wakes one reader out of its sleep. The eventfd blocks, because an io_uring read of one that does
/// not would fail where it should wait; read it only when it was found readable, or through a ring.
#[derive(Debug)]
pub struct Waker {
    parked: AtomicBool,
    eventfd: EventFd,
}

impl Waker {
    /// # Errors
    /// What `eventfd(2)` answered.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker { parked: AtomicBool::new(false), eventfd: EventFd::new()? })
    }

    /// Wakes the reader if it sleeps or is about to.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::AcqRel) {
            self.eventfd.notify();
        }
    }

    /// The reader is about to sleep: it must look at all its lanes once more after this.
    pub fn prepare_park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The reader is awake: it needs no wake-up.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// The descriptor that becomes readable when the reader is woken.
    pub fn eventfd(&self) -> RawFd {
        self.eventfd.fd()
    }
}

/// A mailbox of `len` messages for the reader that `waker` wakes.
///
/// ```
/// use ron_io::lane::{Waker, lane};
///
/// let waker = std::sync::Arc::new(Waker::new()?);
/// let (sender, receiver) = lane(1, &waker);
/// assert_eq!(sender.send("one"), Ok(()));
/// assert_eq!(sender.send("more than it holds"), Err("more than it holds"));
/// assert_eq!(receiver.take(), Some("one"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn lane<T>(len: usize, waker: &Arc<Waker>) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(ArrayQueue::new(len));
    (Sender { queue: Arc::clone(&queue), waker: Arc::clone(waker) }, Receiver { queue })
}

/// The end that leaves messages.
#[derive(Debug)]
pub struct Sender<T> {
    queue: Arc<ArrayQueue<T>>,
    waker: Arc<Waker>,
}

impl<T> Sender<T> {
    /// Leaves a message and wakes the reader.
    ///
    /// # Errors
    /// The message itself, when the lane is full.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.push(message)?;
        self.waker.wake();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { queue: Arc::clone(&self.queue), waker: Arc::clone(&self.waker) }
    }
}

/// The end that takes messages.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Receiver<T> {
    /// The oldest message, if there is one.
    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// Something that knows how many messages lie in the lane, for other threads.
    pub fn depth(&self) -> Depth {
        let queue = Arc::clone(&self.queue);
        Depth(Box::new(move || queue.len()))
    }
}

/// Knows how many messages lie in a lane, whatever they are.
pub struct Depth(Box<dyn Fn() -> usize + Send + Sync>);

impl Depth {
    pub fn len(&self) -> usize {
        (self.0)()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Depth({})", self.len())
    }
}

#[cfg(test)]
#[cfg(loom)]
mod models {
    use super::*;
    use loom::thread;

    fn model(senders: usize) {
        loom::model(move || {
            let waker = Arc::new(Waker::new().unwrap());
            let (sender, receiver) = lane(senders, &waker);
            let senders = (0..senders).map(|n| {
                let sender = sender.clone();
                thread::spawn(move || sender.send(n).unwrap())
            });
            let senders: Vec<_> = senders.collect();
            let mut found = Vec::new();
            while found.len() < senders.len() {
                match receiver.take() {
                    Some(message) => found.push(message),
                    None => {
                        waker.prepare_park();
                        // Sleeping beside a message would last for good: loom reports it.
                        if receiver.is_empty() {
                            waker.eventfd.wait();
                        } else {
                            // Its place was taken, but is not full yet.
                            thread::yield_now();
                        }
                        waker.unpark();
                    }
                }
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            found.sort_unstable();
            assert!(found.into_iter().eq(0..receiver.queue.sent()));
        });
    }

    #[test]
    fn no_message_lies_beside_a_sleeper() {
        model(1);
    }

    #[test]
    fn nor_one_of_two_senders() {
        model(2);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn rung_within(waker: &Waker, timeout_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd: waker.eventfd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&mut poll, 1, timeout_ms) } == 1;
        let mut count = [0u8; 8];
        // SAFETY: eight bytes are read into an array of eight, when there are eight to read.
        ready && unsafe { libc::read(waker.eventfd(), count.as_mut_ptr().cast(), 8) == 8 }
    }

    fn rung(waker: &Waker) -> bool {
        rung_within(waker, 0)
    }

    #[test]
    fn a_full_lane_gives_the_message_back() {
        let (sender, receiver) = lane(2, &Arc::new(Waker::new().unwrap()));
        assert_eq!(sender.send(1), Ok(()));
        assert_eq!(sender.send(2), Ok(()));
        let depth = receiver.depth();
        assert_eq!((sender.send(3), depth.len()), (Err(3), 2));
        assert_eq!(receiver.take(), Some(1));
        assert_eq!(depth.len(), 1);
        assert_eq!(sender.send(3), Ok(()));
    }

    #[test]
    fn only_a_sleeper_is_rung_and_once() {
        let waker = Arc::new(Waker::new().unwrap());
        let (sender, _receiver) = lane(8, &waker);
        sender.send(1).unwrap();
        assert!(!rung(&waker));
        waker.prepare_park();
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        assert!(rung(&waker) && !rung(&waker));
        waker.prepare_park();
        waker.unpark();
        sender.send(4).unwrap();
        assert!(!rung(&waker));
    }

    #[test]
    fn no_message_lies_beside_a_sleeper() {
        let waker = Arc::new(Waker::new().unwrap());
        let (sender, receiver) = lane(4, &waker);
        const MESSAGES: u64 = 20_000;
        let writer = std::thread::spawn(move || {
            for n in 0..MESSAGES {
                let mut message = n;
                while let Err(back) = sender.send(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < MESSAGES {
            if let Some(n) = receiver.take() {
                assert_eq!(n, next);
                next += 1;
                continue;
            }
            waker.prepare_park();
            if receiver.is_empty() {
                assert!(rung_within(&waker, 10_000), "slept beside message {next}");
            }
            waker.unpark();
        }
        writer.join().unwrap();
    }
}
