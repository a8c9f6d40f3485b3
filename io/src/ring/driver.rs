//! The loop of a shard: events in, acts out, sleep when there are none.

use std::{
    future::Future,
    io,
    os::fd::FromRawFd,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use glommio::{
    Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares, io::BufferedFile, timer::Timer,
};

use super::{
    disk::{Access, Disk, Queues},
    net::{Heard, Listener, Net, Wait},
    probe::Refused,
};
use crate::{
    lane::{Bell, Receiver, Sender},
    limits::{BLOCKING_THREADS, LISTENERS_MAX, MAIL_TURN_MAX, RECV_BUFFER_LEN},
    ports::{Act, ConnId, Event, Machine, Now, Report, Severity, ShardId},
    stats::Stats,
};

/// Shares of the executor for what nobody waits for, against 1000 of all else.
const BACKGROUND_SHARES: usize = 10;

/// Bytes of buffers that glommio registers with its rings, and so counts as locked memory.
const EXECUTOR_MEMORY: usize = 1024 * 1024;

/// What ended a driver before its shard asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(
        "cannot start the executor of a shard: {0}. If this is about memlock, raise the limit \
         with `ulimit -l 65536`, or LimitMEMLOCK=64M in a systemd unit"
    )]
    Executor(String),
    #[error("cannot map the memory of a shard: {0}")]
    Shard(io::Error),
    #[error("the socket ring failed: {0}")]
    Ring(io::Error),
    #[error("the bell failed: {0}")]
    Bell(String),
}

/// A shard's ends of the lanes between threads.
pub struct Mailboxes<M> {
    /// What wakes this shard.
    pub bell: Arc<Bell>,
    /// Lanes to read, from the other shards and from control.
    pub from: Vec<Receiver<M>>,
    /// Lanes to the other shards, by their number; none at this shard's own.
    pub to: Vec<Option<Sender<M>>>,
    /// The lane to the control plane.
    pub reports: Sender<Report>,
}

/// All that one shard needs to run.
pub struct Driver<M> {
    /// The core to run on; any, when none is given.
    pub core: Option<usize>,
    pub name: String,
    pub listeners: Vec<Listener>,
    pub mailboxes: Mailboxes<M>,
    pub stats: Arc<Stats>,
}

impl<M: Send + 'static> Driver<M> {
    /// Runs the shard that `make` makes, on this thread, until it has stopped.
    ///
    /// # Errors
    /// When the machine refuses what is needed, or the ring fails while running.
    pub fn run<S>(self, make: impl FnOnce() -> io::Result<S>) -> Result<(), DriverError>
    where
        S: Machine<Mail = M>,
    {
        self.run_with(Access::Direct, make)
    }

    pub(super) fn run_with<S>(
        self,
        access: Access,
        make: impl FnOnce() -> io::Result<S>,
    ) -> Result<(), DriverError>
    where
        S: Machine<Mail = M>,
    {
        assert!(self.listeners.len() <= LISTENERS_MAX, "{} listeners", self.listeners.len());
        let placement = self.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name(&self.name)
            .io_memory(EXECUTOR_MEMORY)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
            .make()
            .map_err(|error| DriverError::Executor(error.to_string()))?;
        executor.run(async move {
            let executor = glommio::executor();
            let latency = Latency::Matters(Duration::from_millis(10));
            let background = Shares::Static(BACKGROUND_SHARES);
            let queues = Queues {
                foreground: executor.create_task_queue(Shares::default(), latency, "disk"),
                background: executor.create_task_queue(background, Latency::NotImportant, "idle"),
            };
            let completions = Bell::new().map_err(DriverError::Ring)?;
            let bell = self.mailboxes.bell.eventfd();
            let net = Net::new(bell, completions.eventfd(), self.listeners)?;
            let driving = Driving {
                shard: make().map_err(DriverError::Shard)?,
                net,
                disk: Disk::new(queues, access),
                mailboxes: self.mailboxes,
                stats: self.stats,
                start: Instant::now(),
                plaintext: vec![0; RECV_BUFFER_LEN].into_boxed_slice(),
                stopped: false,
                completions: Completions::new(&completions),
                sampled_at: 0,
            };
            driving.run().await
        })
    }
}

/// A shard being driven.
struct Driving<S: Machine> {
    shard: S,
    net: Net,
    disk: Disk,
    mailboxes: Mailboxes<S::Mail>,
    stats: Arc<Stats>,
    start: Instant,
    /// Decrypted bytes on their way to the shard.
    plaintext: Box<[u8]>,
    stopped: bool,
    completions: Completions,
    /// When the thread's CPU time was looked at last.
    sampled_at: u64,
}

impl<S: Machine> Driving<S> {
    async fn run(mut self) -> Result<(), DriverError> {
        // The shard's first event: it starts its partitions.
        let now = self.now();
        self.apply(Event::Tick, now);
        while !self.stopped {
            if self.disk.is_idle() {
                // Nothing but the ring and the mailboxes can bring news: wait in the ring itself.
                self.turn(true)?;
            } else if self.turn(false)? {
                // Disk and background work get their turn.
                glommio::executor().yield_task_queue_now().await;
            } else {
                self.sleep().await?;
            }
        }
        // Answers that are queued get a last chance to go.
        self.net.turn(Wait::Not).map_err(DriverError::Ring)?;
        Ok(())
    }

    /// One turn of the loop. Returns whether there was anything to do.
    fn turn(&mut self, may_wait: bool) -> Result<bool, DriverError> {
        let wait = if may_wait { self.wait() } else { Wait::Not };
        let mut worked = self.enter(wait)?;
        self.mailboxes.bell.awake();
        let now = self.now();
        while let Some(heard) = self.net.hear() {
            self.tell(heard, now);
        }
        for at in 0..self.mailboxes.from.len() {
            for _ in 0..MAIL_TURN_MAX {
                let Some(mail) = self.mailboxes.from[at].take() else { break };
                worked = true;
                self.apply(Event::Mail(mail), now);
            }
        }
        while let Some((ticket, done)) = self.disk.outcome() {
            worked = true;
            self.apply(Event::Disk { ticket, done }, now);
        }
        if self.shard.wake_at().is_some_and(|at| at <= now.mono_ns) {
            worked = true;
            self.apply(Event::Tick, now);
        }
        self.pass_notes_on();
        self.account(now);
        Ok(worked)
    }

    /// Lets the ring have what the disk wants of it, and the disk what the ring has done. Returns
    /// whether there is anything to tell.
    fn enter(&mut self, wait: Wait) -> Result<bool, DriverError> {
        while let Some((number, entry)) = self.disk.submission() {
            self.net.transfer(number, entry);
        }
        let heard = self.net.turn(wait).map_err(DriverError::Ring)?;
        while let Some((number, result)) = self.net.landed() {
            self.disk.landed(number, result);
        }
        Ok(heard || self.disk.has_outcome())
    }

    fn pass_notes_on(&mut self) {
        while let Some(message) = self.disk.note() {
            // A shard has a lane to every other one and none to itself.
            let own = self.mailboxes.to.iter().position(Option::is_none).unwrap_or_default();
            let shard = ShardId(own as u16);
            let note = Report::Note { shard, severity: Severity::Warn, message };
            if self.mailboxes.reports.send(note).is_err() {
                self.stats.reports_dropped.add(1);
            }
        }
    }

    /// How long the ring may wait: until the shard's time, unless there is mail.
    fn wait(&self) -> Wait {
        self.mailboxes.bell.sleepy();
        if self.mailboxes.from.iter().any(|lane| !lane.is_empty()) {
            return Wait::Not;
        }
        match self.shard.wake_at() {
            Some(at) => Wait::For(Duration::from_nanos(at.saturating_sub(self.now().mono_ns))),
            None => Wait::Forever,
        }
    }

    /// Notes how long the turn that began at `began` took, and now and then the CPU time.
    fn account(&mut self, began: Now) {
        let now = self.now().mono_ns;
        let took = now - began.mono_ns;
        if took > self.stats.stall_max_ns.get() {
            self.stats.stall_max_ns.set(took);
        }
        if now - self.sampled_at >= SAMPLE_NS {
            self.sampled_at = now;
            let busy = cpu_time_ns();
            self.stats.busy_ns.set(busy);
            self.stats.idle_ns.set(now.saturating_sub(busy));
        }
    }

    fn tell(&mut self, heard: Heard, now: Now) {
        match heard {
            Heard::Accepted { conn, listener, peer } => {
                self.apply(Event::Opened { conn, listener, peer }, now);
            }
            Heard::Received { conn, buffer, len } => self.received(conn, buffer, len, now),
            Heard::Sent { conn, len } => {
                if self.net.conn(conn).is_some() {
                    self.apply(Event::Sent { conn, len }, now);
                }
            }
            Heard::Eof { conn } => {
                if self.net.conn(conn).is_some() {
                    self.apply(Event::Eof { conn }, now);
                }
            }
            Heard::Closed { conn } => self.apply(Event::Closed { conn }, now),
        }
    }

    fn received(&mut self, conn: ConnId, buffer: u16, len: usize, now: Now) {
        match self.net.conn(conn).map(|state| state.tls.is_some()) {
            None => {}
            Some(false) => {
                let data = self.net.received(buffer, len);
                self.shard.apply(Event::Bytes { conn, data }, now);
                self.perform();
            }
            // When TLS fails: tell the peer why, if it listens, and be done with it.
            Some(true) if self.received_tls(conn, buffer, len, now).is_err() => {
                self.net.abort_after_flush(conn);
            }
            Some(true) => {}
        }
        self.net.give_back(buffer);
    }

    /// Decrypts a receive buffer and tells the shard what was in it.
    fn received_tls(&mut self, conn: ConnId, buffer: u16, len: usize, now: Now) -> io::Result<()> {
        let mut at = 0;
        while at < len {
            let Some((taken, heard)) = self.net.decrypt(conn, buffer, at..len)? else {
                return Ok(());
            };
            at += taken;
            if heard.secured {
                self.apply(Event::Secured { conn }, now);
            }
            self.tell_plaintext(conn, now);
            // The handshake, a key update or a ticket may want to be sent.
            self.net.list(conn);
            if heard.closed {
                self.net.ended_by_notice(conn);
            }
        }
        Ok(())
    }

    fn tell_plaintext(&mut self, conn: ConnId, now: Now) {
        loop {
            let Some(tls) = self.net.conn(conn).and_then(|state| state.tls.as_mut()) else {
                return;
            };
            let len = tls.read(&mut self.plaintext);
            if len == 0 {
                return;
            }
            let data = &self.plaintext[..len];
            self.shard.apply(Event::Bytes { conn, data }, now);
            self.perform();
        }
    }

    fn apply(&mut self, event: Event<'_, S::Mail>, now: Now) {
        self.shard.apply(event, now);
        self.perform();
    }

    /// Performs all that the shard wants done.
    fn perform(&mut self) {
        while let Some(act) = self.shard.acts().pop() {
            match act {
                Act::Send { conn, head, body } => {
                    self.net.send(conn, self.shard.acts().bytes(head), body);
                }
                Act::Finish { conn } => self.net.finish(conn),
                Act::Abort { conn } => self.net.abort(conn),
                Act::Pause { conn } => self.net.pause(conn),
                Act::Resume { conn } => self.net.resume(conn),
                Act::Disk { ticket, op } => self.disk.perform(ticket, op),
                Act::Mail { to, mail } => {
                    let lane = self.mailboxes.to[usize::from(to.0)].as_ref();
                    let left = lane.map(|lane| lane.send(mail).is_ok());
                    assert_eq!(left, Some(true), "the lane to shard {} overflowed", to.0);
                }
                Act::Report(report) => {
                    if self.mailboxes.reports.send(report).is_err() {
                        self.stats.reports_dropped.add(1);
                    }
                }
                Act::StopAccepting => self.net.stop_accepting(),
                Act::Stopped => self.stopped = true,
            }
        }
    }

    /// Sleeps in the executor, while the disk works, until a completion of the ring, an outcome of
    /// the disk or the shard's time. A message rings the bell, which the ring hears.
    async fn sleep(&mut self) -> Result<(), DriverError> {
        self.net.sleepy();
        let wait = self.wait();
        // Whatever came before the two lines above was not told: look once more.
        if !self.enter(Wait::Not)? {
            let timer = match wait {
                Wait::Not => Some(Timer::new(Duration::ZERO)),
                Wait::For(duration) => Some(Timer::new(duration)),
                Wait::Forever => None,
            };
            Asleep { completions: &mut self.completions, disk: &self.disk, timer }.await?;
        }
        self.net.awake();
        self.mailboxes.bell.awake();
        Ok(())
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ns: self.start.elapsed().as_nanos() as u64, unix_ms: unix.as_millis() as u64 }
    }
}

/// How often the CPU time of the thread is looked at.
const SAMPLE_NS: u64 = 100_000_000;

fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills one timespec. It cannot fail for the thread's own clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A read of the ring's eventfd, under way across sleeps: it is started anew only when it ended.
struct Completions {
    file: std::rc::Rc<BufferedFile>,
    read: Option<Told>,
    told: Arc<Wakeup>,
}

type Told = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// What the read wakes. The executor keeps a waker for each time that a read is polled, until it
/// ends, and one read may outlast any number of sleeps: so it is polled only when it was woken.
#[derive(Default)]
struct Wakeup {
    woken: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl Completions {
    fn new(eventfd: &Bell) -> Completions {
        // SAFETY: dup makes a descriptor of our own, which the file may close.
        let file = unsafe { BufferedFile::from_raw_fd(libc::dup(eventfd.eventfd())) };
        Completions { file: std::rc::Rc::new(file), read: None, told: Arc::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DriverError>> {
        let told = &self.told;
        told.sleeper.lock().unwrap_or_else(PoisonError::into_inner).replace(cx.waker().clone());
        if self.read.is_none() {
            told.woken.store(true, Ordering::Relaxed);
        }
        if !told.woken.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let read = self.read.get_or_insert_with(|| {
            let file = std::rc::Rc::clone(&self.file);
            Box::pin(async move {
                file.read_at(0, 8).await.map(|_| ()).map_err(|error| error.to_string())
            })
        });
        let waker = Waker::from(Arc::clone(told));
        let done = std::task::ready!(read.as_mut().poll(&mut Context::from_waker(&waker)));
        self.read = None;
        Poll::Ready(done.map_err(DriverError::Bell))
    }
}

/// The sleep itself: ends with the first of ring, disk and timer.
struct Asleep<'a> {
    completions: &'a mut Completions,
    disk: &'a Disk,
    timer: Option<Timer>,
}

impl Future for Asleep<'_> {
    type Output = Result<(), DriverError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.disk.wake(cx.waker());
        if let Poll::Ready(rung) = this.completions.poll(cx) {
            return Poll::Ready(rung);
        }
        if this.disk.has_outcome() {
            return Poll::Ready(Ok(()));
        }
        match &mut this.timer {
            Some(timer) => Pin::new(timer).poll(cx).map(|_| Ok(())),
            None => Poll::Pending,
        }
    }
}
