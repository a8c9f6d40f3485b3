//! The loop of a shard: events in, acts out, sleep when there are none.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

mod laps;

use laps::Laps;

use super::{
    disk::{Access, Disk, Workers},
    heap::{self, Ebb},
    net::{Listener, Net, NetEvent, Wait},
    probe::Refused,
};
use crate::{
    lane::{Receiver, Sender, Waker},
    limits::{
        ACCEPT_REPORT_EVERY, BLOCKING_THREADS, CPU_SAMPLE_EVERY, LISTENERS_MAX, MAIL_TURN_MAX,
        OUTCOMES_TURN_MAX, RECV_BUFFER_LEN,
    },
    ports::{Act, ConnId, Event, Machine, Now, Report, Severity, ShardId},
    stats::Stats,
    tls,
    watch::{clock_ns, own_thread},
    work::Work,
};

/// Bytes of buffers that glommio registers with its rings, and so counts as locked memory.
const EXECUTOR_MEMORY: usize = 1024 * 1024;

/// Bytes of the heap that a connection takes, more or less, whatever it does.
const CONNECTION_HEAP_LEN: u64 = 4 * 1024;

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
    #[error("cannot start the threads of a shard's disk: {0}")]
    Threads(io::Error),
}

/// A shard's ends of the lanes between threads.
pub struct Mailboxes<M> {
    /// What wakes this shard.
    pub waker: Arc<Waker>,
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
    /// Connections with which no more are accepted, but for [`ACCEPTS_MAX`] of each listener.
    ///
    /// [`ACCEPTS_MAX`]: crate::limits::ACCEPTS_MAX
    pub connections_max: usize,
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
        // They are not bound to the shard's core.
        let workers = Workers::start(&self.name, BLOCKING_THREADS, &self.mailboxes.waker)
            .map_err(DriverError::Threads)?;
        let placement = self.core.map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement)
            .name(&self.name)
            .io_memory(EXECUTOR_MEMORY)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(|error| DriverError::Executor(error.to_string()))?;
        executor.run(async move {
            let waker = self.mailboxes.waker.eventfd();
            let net = Net::new(waker, self.listeners, self.connections_max)?;
            let start_ns = clock_ns();
            self.stats.watch.thread.set(own_thread() as u64);
            self.stats.watch.set_lanes(self.mailboxes.from.iter().map(Receiver::depth).collect());
            let shard = self.mailboxes.own();
            let driving = Driving {
                shard: make().map_err(DriverError::Shard)?,
                net,
                disk: Disk::new(workers, access),
                mailboxes: self.mailboxes,
                laps: Laps::new(Arc::clone(&self.stats), shard, start_ns),
                stats: self.stats,
                start_ns,
                plaintext: vec![0; RECV_BUFFER_LEN].into_boxed_slice(),
                stopped: false,
                accepts_reported: (0, 0),
                ebb: Ebb::default(),
                ended_ns: start_ns,
            };
            driving.run()
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
    laps: Laps,
    /// When the shard's time began, in `clock_ns`.
    start_ns: u64,
    /// Decrypted bytes on their way to the shard.
    plaintext: Box<[u8]>,
    stopped: bool,
    /// Failed accepts that were said, and when, in `clock_ns`.
    accepts_reported: (u64, u64),
    /// How much memory the connections have, and had.
    ebb: Ebb,
    /// When the last thing ended that was measured, in `clock_ns`.
    ended_ns: u64,
}

impl<M> Mailboxes<M> {
    /// The shard these belong to: it has a lane to every other one and none to itself.
    fn own(&self) -> ShardId {
        ShardId(self.to.iter().position(Option::is_none).unwrap_or_default() as u16)
    }
}

impl<S: Machine> Driving<S> {
    fn run(mut self) -> Result<(), DriverError> {
        // The shard's first event: it starts its partitions.
        let now = self.now();
        self.laps.start(self.start_ns + now.mono_ns);
        self.apply(Event::Tick, now);
        while !self.stopped {
            self.turn()?;
        }
        // Answers that are queued get a last chance to go.
        self.net.flush_all(Wait::Not);
        self.net.turn(Wait::Not).map_err(DriverError::Ring)?;
        Ok(())
    }

    /// One turn of the loop. With nothing at hand it sleeps in the ring.
    fn turn(&mut self) -> Result<(), DriverError> {
        let wait = self.wait();
        self.laps.begin(Work::Ring);
        let wait = self.hand_over(wait);
        if !matches!(wait, Wait::Not) {
            self.stats.watch.rest();
        }
        self.enter(wait)?;
        self.mailboxes.waker.unpark();
        let now = self.now();
        let now_ns = self.start_ns + now.mono_ns;
        match wait {
            Wait::Not => self.spent(Work::Ring, now_ns),
            Wait::For(_) | Wait::Forever => self.stats.watch.wake(now_ns),
        }
        self.laps.start(now_ns);
        // What telling this brings is for the next turn, so that every turn ends.
        for _ in 0..self.net.pending() {
            let Some(event) = self.net.next_event() else { break };
            self.tell(event, now);
        }
        for at in 0..self.mailboxes.from.len() {
            for _ in 0..MAIL_TURN_MAX {
                let Some(mail) = self.mailboxes.from[at].take() else { break };
                self.apply(Event::Mail(mail), now);
            }
        }
        for _ in 0..OUTCOMES_TURN_MAX {
            let Some((ticket, done)) = self.disk.outcome() else { break };
            self.apply(Event::Disk { ticket, done }, now);
        }
        if self.shard.wake_at().is_some_and(|at| at <= now.mono_ns) {
            self.apply(Event::Tick, now);
        }
        self.pass_notes_on();
        self.note_accepts(now_ns);
        self.give_memory_back();
        self.account(now);
        Ok(())
    }

    /// Lets the ring have what connections and the disk want of it. Returns how long it may wait.
    fn hand_over(&mut self, wait: Wait) -> Wait {
        while let Some((number, entry)) = self.disk.submission() {
            self.net.transfer(number, entry);
        }
        self.net.flush_all(wait)
    }

    /// Lets the ring work, and the disk have what the ring has done.
    fn enter(&mut self, wait: Wait) -> Result<(), DriverError> {
        self.net.turn(wait).map_err(DriverError::Ring)?;
        while let Some((number, result)) = self.net.landed() {
            self.disk.landed(number, result);
        }
        Ok(())
    }

    /// After a flood, lets the system have what was freed.
    fn give_memory_back(&mut self) {
        let tables = self.net.counts().conns * CONNECTION_HEAP_LEN;
        if self.ebb.saw(tables + self.stats.connection_buffer_bytes.get()) {
            self.net.release_spares();
            self.disk.release_spares();
            heap::release();
        }
    }

    fn pass_notes_on(&mut self) {
        while let Some(message) = self.disk.note() {
            let shard = self.mailboxes.own();
            let note = Report::Note { shard, severity: Severity::Warn, message };
            teller(&self.mailboxes, &self.stats)(note);
        }
    }

    /// Says now and then that connections cannot be accepted.
    fn note_accepts(&mut self, now_ns: u64) {
        let failures = self.net.counts().accept_failures;
        let again_ns = ACCEPT_REPORT_EVERY.as_nanos() as u64;
        let (reported, reported_ns) = self.accepts_reported;
        if failures == reported || (reported > 0 && now_ns.saturating_sub(reported_ns) < again_ns) {
            return;
        }
        self.accepts_reported = (failures, now_ns);
        let (failed, error) = (failures - reported, self.net.accept_error());
        let message = format!(
            "cannot accept connections ({failed} times since the last such line): {error}. If this \
             is about files, raise LimitNOFILE or lower connections_max"
        );
        let note = Report::Note { shard: self.mailboxes.own(), severity: Severity::Error, message };
        teller(&self.mailboxes, &self.stats)(note);
    }

    /// How long the ring may wait: until the shard's time, unless there is mail or the disk has
    /// something to tell. From now on both use the waker, which the ring polls.
    fn wait(&self) -> Wait {
        self.mailboxes.waker.prepare_park();
        let has_mail = self.mailboxes.from.iter().any(|lane| !lane.is_empty());
        if has_mail || self.disk.has_outcome() {
            return Wait::Not;
        }
        match self.shard.wake_at() {
            Some(at) => Wait::For(Duration::from_nanos(at.saturating_sub(self.mono_ns()))),
            None => Wait::Forever,
        }
    }

    /// What was done since the last measurement was this.
    fn spent(&mut self, work: Work, now_ns: u64) {
        let held_ns = now_ns.saturating_sub(self.ended_ns);
        let tell = teller(&self.mailboxes, &self.stats);
        self.laps.span(work, held_ns, now_ns, tell);
        self.ended_ns = now_ns;
    }

    /// Notes how long the turn that began at `began` took and what there is to do, and now and then
    /// the CPU time.
    fn account(&mut self, began: Now) {
        let now_ns = clock_ns();
        let took = now_ns.saturating_sub(self.start_ns + began.mono_ns);
        if took > self.stats.stall_max_ns.get() {
            self.stats.stall_max_ns.set(took);
        }
        self.laps.finish(now_ns, teller(&self.mailboxes, &self.stats));
        self.show();
        if now_ns.saturating_sub(self.laps.cpu().at_ns) >= CPU_SAMPLE_EVERY.as_nanos() as u64 {
            let busy = self.laps.sample(now_ns).busy_ns;
            self.stats.busy_ns.set(busy);
            self.stats.idle_ns.set((now_ns - self.start_ns).saturating_sub(busy));
        }
        self.ended_ns = now_ns;
    }

    /// Lets be seen from outside what waits and what the ring did.
    fn show(&self) {
        let (ring, counts) = (&self.stats.watch.ring, self.net.counts());
        ring.enters.set(counts.enters);
        ring.completions.set(counts.completions);
        ring.overflows.set(counts.overflows);
        ring.starved.set(counts.starved);
        ring.waiting.set(counts.waiting);
        ring.conns.set(counts.conns);
        self.stats.lent_bytes.set(counts.lent_bytes);
        self.stats.verify_sends.set(counts.proofs.made);
        self.stats.verify_send_failures.set(counts.proofs.failed);
        ring.accept_failures.set(counts.accept_failures);
        ring.accept_paused.set(counts.accept_paused);
        let (disk, depths) = (&self.stats.watch.disk, self.disk.depths());
        let figures = [&disk.transfers, &disk.tasks, &disk.waiting, &disk.background];
        figures.into_iter().zip(depths).for_each(|(figure, depth)| figure.set(depth as u64));
        let wake_at = self.shard.wake_at().map(|at| self.start_ns.saturating_add(at));
        self.stats.watch.wake_at_ns.set(wake_at.unwrap_or_default());
    }

    fn tell(&mut self, event: NetEvent, now: Now) {
        match event {
            NetEvent::Accepted { conn, listener, peer } => {
                self.apply(Event::Opened { conn, listener, peer }, now);
            }
            NetEvent::Received { conn, buffer, len } => self.received(conn, buffer, len, now),
            NetEvent::Sent { conn, len } => {
                if self.net.conn(conn).is_some() {
                    self.apply(Event::Sent { conn, len }, now);
                }
            }
            NetEvent::Eof { conn } => {
                if self.net.conn(conn).is_some() {
                    self.apply(Event::Eof { conn }, now);
                }
            }
            NetEvent::Closed { conn } => self.apply(Event::Closed { conn }, now),
        }
    }

    fn received(&mut self, conn: ConnId, buffer: u16, len: usize, now: Now) {
        match self.net.conn(conn).map(|state| state.tls.is_some()) {
            None => {}
            Some(false) => {
                self.laps.begin(Work::Bytes);
                let data = self.net.received(buffer, len);
                self.shard.apply(Event::Bytes { conn, data }, now);
                self.perform();
                self.laps.end(Work::Bytes);
            }
            // When TLS fails: tell the peer why, if it listens, and be done with it.
            Some(true) => {
                let mut receiving = Receiving { driving: self, conn, buffer, len, now };
                if tls::receive(&mut receiving, len).is_err() {
                    self.net.abort_after_flush(conn);
                }
            }
        }
        self.net.give_back(buffer);
    }

    fn apply(&mut self, event: Event<'_, S::Mail>, now: Now) {
        let work = event.work();
        self.laps.begin(work);
        self.shard.apply(event, now);
        self.perform();
        self.laps.end(work);
    }

    /// Performs all that the shard wants done.
    fn perform(&mut self) {
        while let Some(act) = self.shard.acts().pop() {
            match act {
                Act::Send { conn, head, body } => {
                    self.net.send(conn, self.shard.acts().bytes(head), body.map(Into::into));
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
                Act::Report(report) => teller(&self.mailboxes, &self.stats)(report),
                Act::StopAccepting => self.net.stop_accepting(),
                Act::Stopped => self.stopped = true,
            }
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ns: self.mono_ns(), unix_ms: unix.as_millis() as u64 }
    }

    fn mono_ns(&self) -> u64 {
        clock_ns().saturating_sub(self.start_ns)
    }
}

/// A receive buffer with ciphertext of a connection.
struct Receiving<'a, S: Machine> {
    driving: &'a mut Driving<S>,
    conn: ConnId,
    buffer: u16,
    len: usize,
    now: Now,
}

impl<S: Machine> tls::Receiver for Receiving<'_, S> {
    fn decrypt(&mut self, at: usize) -> io::Result<Option<(usize, tls::Decrypted)>> {
        self.driving.laps.begin(Work::Tls);
        let decrypted = self.driving.net.decrypt(self.conn, self.buffer, at..self.len)?;
        self.driving.laps.end(Work::Tls);
        Ok(decrypted)
    }

    fn secured(&mut self) {
        self.driving.apply(Event::Secured { conn: self.conn }, self.now);
    }

    fn tell_plaintext(&mut self) -> bool {
        let Driving { shard, net, laps, plaintext, .. } = &mut *self.driving;
        let conn = self.conn;
        let Some(tls) = net.conn(conn).and_then(|state| state.tls.as_mut()) else { return false };
        let len = tls.read(plaintext);
        if len == 0 {
            return false;
        }
        laps.begin(Work::Bytes);
        shard.apply(Event::Bytes { conn, data: &plaintext[..len] }, self.now);
        self.driving.perform();
        self.driving.laps.end(Work::Bytes);
        true
    }

    fn answer(&mut self) {
        self.driving.net.list(self.conn);
    }

    fn closed(&mut self) {
        self.driving.net.ended_by_notice(self.conn);
    }
}

/// Tells the control plane, if its mailbox is not full.
fn teller<'a, M>(mailboxes: &'a Mailboxes<M>, stats: &'a Stats) -> impl FnMut(Report) + 'a {
    move |report| {
        if mailboxes.reports.send(report).is_err() {
            stats.reports_dropped.add(1);
        }
    }
}
