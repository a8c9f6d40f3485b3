//! What threads share by, so that a model can stand in for it.
//!
//! Built as usual these are the atomics of the standard library, a queue of `crossbeam` and an
//! eventfd. Built with `--cfg loom` they are loom's: the tests in this crate named `loom` then
//! try every order in which threads can see each other's steps (`.ci/loom`).

#[cfg(not(loom))]
mod real {
    use std::{
        io,
        os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    };

    pub(crate) use crossbeam::queue::ArrayQueue;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };

    /// Nothing: only a model keeps account of what was read and written.
    #[derive(Debug, Default)]
    pub(crate) struct Touched(());

    impl Touched {
        #[inline]
        pub(crate) fn read(&self) {}

        #[inline]
        pub(crate) fn write(&self) {}
    }

    /// A descriptor that becomes readable when it is notified.
    #[derive(Debug)]
    pub(crate) struct EventFd(OwnedFd);

    impl EventFd {
        pub(crate) fn new() -> io::Result<EventFd> {
            // SAFETY: plain system call with valid flags.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call returned a new descriptor that nobody else owns.
            Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
        }

        pub(crate) fn notify(&self) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes are written from an array of eight. It waits only when the
            // counter is full, which 2^64 notices that nobody reads would take.
            unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }

        pub(crate) fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }
}

#[cfg(loom)]
mod model {
    use std::{fmt, io, os::fd::RawFd};

    use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
    use loom::sync::{Condvar, Mutex, atomic::AtomicUsize};

    /// Tells loom that memory it does not see is read, or written.
    #[derive(Debug, Default)]
    pub(crate) struct Touched(UnsafeCell<()>);

    // SAFETY: there is nothing in it.
    unsafe impl Sync for Touched {}

    impl Touched {
        pub(crate) fn read(&self) {
            self.0.with(|_| ());
        }

        pub(crate) fn write(&self) {
            self.0.with_mut(|_| ());
        }
    }

    /// Stands for the eventfd: a wait ends when it was notified, and then takes that away.
    #[derive(Debug, Default)]
    pub(crate) struct EventFd {
        notified: Mutex<bool>,
        readable: Condvar,
    }

    impl EventFd {
        pub(crate) fn new() -> io::Result<EventFd> {
            Ok(EventFd::default())
        }

        pub(crate) fn notify(&self) {
            *self.notified.lock().expect("nobody panics") = true;
            self.readable.notify_one();
        }

        #[cfg(test)]
        pub(crate) fn wait(&self) {
            let mut notified = self.notified.lock().expect("nobody panics");
            while !std::mem::take(&mut *notified) {
                notified = self.readable.wait(notified).expect("nobody panics");
            }
        }

        pub(crate) fn fd(&self) -> RawFd {
            -1
        }
    }

    /// Stands for `crossbeam`'s queue, with weaker orderings than that has: a place is taken by
    /// its number, filled, and then said to be full. It holds `len` messages in all of a model's
    /// run, so that no place is used twice.
    pub(crate) struct ArrayQueue<T> {
        places: Vec<(AtomicBool, UnsafeCell<Option<T>>)>,
        tail: AtomicUsize,
        head: AtomicUsize,
    }

    // SAFETY: a place is written by the one thread that took its number and read, after that said
    // so, by the one reader; loom checks it.
    unsafe impl<T: Send> Sync for ArrayQueue<T> {}

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(len: usize) -> ArrayQueue<T> {
            let place = |_| (AtomicBool::new(false), UnsafeCell::new(None));
            let (tail, head) = (AtomicUsize::new(0), AtomicUsize::new(0));
            ArrayQueue { places: (0..len).map(place).collect(), tail, head }
        }

        pub(crate) fn push(&self, message: T) -> Result<(), T> {
            let at = self.tail.fetch_add(1, Ordering::Relaxed);
            assert!(at < self.places.len(), "a model sends no more than the queue is long");
            let (full, place) = &self.places[at];
            // SAFETY: nobody else has this number, and nobody reads before it is full.
            place.with_mut(|place| unsafe { *place = Some(message) });
            full.store(true, Ordering::Release);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            let at = self.head.load(Ordering::Relaxed);
            let (full, place) = self.places.get(at)?;
            full.load(Ordering::Acquire).then(|| {
                self.head.store(at + 1, Ordering::Relaxed);
                // SAFETY: it is full, and there is one reader.
                place.with_mut(|place| unsafe { (*place).take() }).expect("it is full")
            })
        }

        /// Messages so far.
        #[cfg(test)]
        pub(crate) fn sent(&self) -> usize {
            self.tail.load(Ordering::Relaxed)
        }

        pub(crate) fn len(&self) -> usize {
            self.tail.load(Ordering::Relaxed) - self.head.load(Ordering::Relaxed)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }

    impl<T> fmt::Debug for ArrayQueue<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("ArrayQueue")
        }
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;
