//! The shard itself: one owner, one loop.
//!
//! Each event goes to the one part it concerns: a session, the store, or the mesh. Then the shard
//! *settles*: questions are routed to their owners and answers to their askers until none is left,
//! so that each event starts from a settled state. A cache hit is asked, answered and sent in the
//! `apply` that parsed its request.
//!
//! ```text
//!            Opened Bytes Sent Eof Closed          Disk              Mail
//!                     │                             │                 │
//!   settle:        session ── asks ──► route ──► store │ mesh ──► other shard
//!                     ▲                             │                 │
//!                     └────────── replies ◄─────────┴─────────────────┘
//! ```

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use ron_codec::address::Address;
use ron_io::{
    ports::{
        Act, Acts, ConnId, DiskDone, Event, ListenerId, Machine, Now, Order, Report, Severity,
        Ticket,
    },
    splitmix::SplitMix64,
    stats::{Phase, Proto, Rejected, Stats},
    wheel::Wheel,
};

use crate::{
    cache::{Memory, Pages},
    config::Config,
    flow::{Ask, Asker, Body, Cx, Fault, Mail, Peer, Place, Reply, StreamId, Tickets, Waiter},
    ingest,
    limits::{
        IDLE_CUT_NS, IDLE_CUTS_MAX, IDLE_LOOK_NS, MEMORY_RETRY_NS, READER_STALE_NS,
        REFUSED_TELL_NS, RELIEVE_AFTER_NS, RELIEVE_CUTS_MAX, RELIEVE_EVERY_NS, SETTLE_ROUNDS_MAX,
        SHED_SHARE, UPLOAD_SLOW_NS, refused_max, spare_connections,
    },
    mesh::{self, Mesh},
    names::Names,
    resolved::Resolved,
    session::{Session, http::HttpSession, oap::OapSession},
    sessions::Sessions,
    store::{Damage, FreeSpace, Store},
};

/// Questions, and answers, within a shard that it keeps memory for.
const QUEUE_KEPT: usize = 256;

/// Bytes of memory of the most questions that wait for a place at other shards.
pub const fn waiting_bill() -> usize {
    mesh::bill()
}

/// One pinned core's worth of node.
#[derive(Debug)]
pub struct Shard {
    config: Config,
    names: Names,
    stats: Arc<Stats>,
    acts: Acts<Mail, Body>,
    store: Store,
    mesh: Mesh,
    sessions: Sessions,
    wheel: Wheel,
    memory: Memory,
    tickets: Tickets,
    entropy: SplitMix64,
    free_space: FreeSpace,
    damage: Damage,
    resolved: Resolved,
    asks: VecDeque<(StreamId, Ask)>,
    replies: VecDeque<(Asker, Reply)>,
    due: Vec<u32>,
    /// When readers are looked for again that hold memory and take nothing.
    relief_at: u64,
    /// Before this no idle connections are looked for.
    idle_look_at: u64,
    /// Before this nothing is said of refused connections, and how many there were meanwhile.
    refused_tell_at: u64,
    refused_unreported: u64,
    /// When uploads that wait for memory try again.
    uploads_at: Option<u64>,
    /// When slow uploads are looked for again, while others wait for memory.
    uploads_relief_at: Option<u64>,
    life: Life,
}

/// ```text
///   New ──► Booting ──► Serving ──► Draining ──► Drained ──► Stopping ──► Stopped
///              └─ failed ──────────────────────────────────────────────────►┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    New,
    /// The store opens its partitions. Connections are taken, and requests refused as unavailable.
    Booting,
    Serving,
    /// No new connections; those there are finish, or are dropped at this time.
    Draining {
        until_ns: u64,
        cut: bool,
    },
    /// All connections are gone; other shards may still ask for objects.
    Drained,
    /// No shard asks any more; the store makes everything durable.
    Stopping,
    Stopped,
}

/// Lends every part of the shard but the one that is handling an event.
macro_rules! cx {
    ($shard:ident, $now:expr) => {
        Cx {
            now: $now,
            config: &$shard.config,
            names: &$shard.names,
            stats: &$shard.stats,
            acts: &mut $shard.acts,
            asks: &mut $shard.asks,
            replies: &mut $shard.replies,
            memory: &mut $shard.memory,
            tickets: &mut $shard.tickets,
            entropy: &mut $shard.entropy,
            free_space: &mut $shard.free_space,
            damage: &mut $shard.damage,
            resolved: &mut $shard.resolved,
        }
    };
}

impl Shard {
    /// A shard that will open its partitions at its first event.
    ///
    /// # Errors
    /// When the arena cannot be mapped.
    pub fn new(mut config: Config, stats: Arc<Stats>) -> io::Result<Shard> {
        // They are replaced later, and then nothing may hold on to them.
        let names = std::mem::take(&mut config.names);
        stats.names_version.set(names.version());
        let memory = Memory::new(config.arena_len, &config.cache_secret)?;
        let memory = if config.verify_sends { memory.with_seals() } else { memory };
        Ok(Shard {
            store: Store::new(&config),
            mesh: Mesh::new(config.shard, config.layout.shards)
                .with_places(config.mesh_reads, config.mesh_others),
            names,
            stats,
            acts: Acts::default(),
            sessions: Sessions::default(),
            wheel: Wheel::default(),
            memory,
            tickets: Tickets::default(),
            entropy: SplitMix64::new(config.seed),
            free_space: FreeSpace::new(&config),
            damage: Damage::default(),
            resolved: Resolved::default(),
            asks: VecDeque::with_capacity(QUEUE_KEPT),
            replies: VecDeque::with_capacity(QUEUE_KEPT),
            due: Vec::new(),
            relief_at: 0,
            idle_look_at: 0,
            refused_tell_at: 0,
            refused_unreported: 0,
            uploads_at: None,
            uploads_relief_at: None,
            life: Life::New,
            config,
        })
    }

    /// Where the pages of its arena are. At rest, those that are not free are cached.
    pub fn pages(&mut self) -> Pages {
        self.memory.pages()
    }

    /// Takes one event into the part it concerns.
    fn take(&mut self, event: Event<'_, Mail>, now: Now) {
        match event {
            Event::Opened { conn, listener, peer } => self.opened(conn, listener, peer, now),
            Event::Closed { conn } => self.closed(conn, now),
            Event::Secured { conn } => self.tell(conn, now, |s, cx| s.on_secured(cx)),
            Event::Bytes { conn, data } => self.tell(conn, now, |s, cx| s.on_bytes(data, cx)),
            Event::Sent { conn, len } => self.tell(conn, now, |s, cx| s.on_sent(len, cx)),
            Event::Eof { conn } => self.tell(conn, now, |s, cx| s.on_eof(cx)),
            Event::Disk { ticket, done } => self.disk(ticket, done, now),
            Event::Mail(mail) => self.mail(mail, now),
            Event::Tick => self.tick(now),
        }
    }

    /// Tells a session something, then files its deadline.
    fn tell(&mut self, conn: ConnId, now: Now, what: impl FnOnce(&mut Session, &mut Cx<'_>)) {
        let Some(session) = self.sessions.get(conn) else { return };
        what(session, &mut cx!(self, now));
        match session.deadline() {
            Some(due) => self.wheel.set(conn.slot, due),
            None => self.wheel.clear(conn.slot),
        }
        self.sessions.recount(conn);
        self.stats.connection_buffer_bytes.set(self.sessions.held() as u64);
    }

    fn opened(&mut self, conn: ConnId, listener: ListenerId, peer: SocketAddr, now: Now) {
        let listener = self.config.listener(listener);
        let from = Peer::of(peer.ip());
        let refusal = match self.life {
            Life::Draining { .. } | Life::Drained | Life::Stopping | Life::Stopped => {
                Some(Rejected::Draining)
            }
            _ if self.sessions.open() >= self.config.connections_max => Some(Rejected::Connections),
            _ if self.sessions.of_peer(from) >= self.config.connections_per_peer => {
                Some(Rejected::PeerConnections)
            }
            _ => None,
        };
        if let Some(why) = refusal {
            match why {
                Rejected::Connections => {
                    self.stats.refuse_connection(self.stats.peers.bucket(from));
                }
                _ => self.stats.reject(why),
            }
            self.tell_refused(why, now);
            // Saying why takes a connection, for a moment. Under TLS it would take a handshake.
            let most = refused_max(self.config.connections_max);
            let is_answered = why != Rejected::Draining && self.sessions.refused() < most;
            if !is_answered || listener.proto != Proto::Http {
                self.acts.push(Act::Abort { conn });
                return self.close_idle(now);
            }
        }
        self.stats.connections[listener.proto as usize].add(1);
        let mut cx = cx!(self, now);
        let session = match listener.proto {
            Proto::Http | Proto::Https => {
                Session::Http(Box::new(HttpSession::new(conn, listener, peer, &mut cx)))
            }
            Proto::Oap => Session::Oap(Box::new(OapSession::new(conn, listener, peer, &mut cx))),
        };
        let served = refusal.is_none().then_some(from);
        self.sessions.insert(conn, served, session);
        self.close_idle(now);
        // Files the session's first deadline.
        self.tell(conn, now, |session, cx| {
            if refusal.is_some() {
                session.turn_away(cx);
            }
        });
    }

    /// Says now and then that connections are refused, and what for.
    fn tell_refused(&mut self, why: Rejected, now: Now) {
        let setting = match why {
            Rejected::Connections => "connections_max",
            Rejected::PeerConnections => "connections_per_peer",
            _ => return,
        };
        self.refused_unreported += 1;
        if self.refused_tell_at > now.mono_ns {
            return;
        }
        self.refused_tell_at = now.mono_ns + REFUSED_TELL_NS;
        let count = std::mem::take(&mut self.refused_unreported);
        self.note(format!(
            "connections are refused, the last for {setting} ({count} since the last such line)"
        ));
    }

    /// Closes idle connections where hardly any place is left for newcomers.
    fn close_idle(&mut self, now: Now) {
        let most = self.config.connections_max;
        let spare = spare_connections(most);
        let scarce = self.sessions.open() + spare >= most;
        if !scarce || now.mono_ns < self.idle_look_at {
            return;
        }
        let before_ns = now.mono_ns.saturating_sub(IDLE_CUT_NS);
        let wanted = spare.clamp(1, IDLE_CUTS_MAX);
        let idle = self.sessions.idlest(before_ns, wanted);
        // Looking at all of them is worth it for many, and must not be done for each newcomer.
        if idle.len() < wanted {
            self.idle_look_at = now.mono_ns + IDLE_LOOK_NS;
        }
        for conn in idle {
            self.tell(conn, now, |session, cx| session.drop_idle(cx));
        }
    }

    fn closed(&mut self, conn: ConnId, now: Now) {
        let Some(mut session) = self.sessions.remove(conn) else { return };
        self.stats.connection_buffer_bytes.set(self.sessions.held() as u64);
        self.wheel.clear(conn.slot);
        session.on_closed(&mut cx!(self, now));
        self.stats.connections[session.proto() as usize].sub(1);
    }

    fn disk(&mut self, ticket: Ticket, done: io::Result<DiskDone>, now: Now) {
        match self.tickets.redeem(ticket) {
            Waiter::Partition { partition, tag } => {
                self.store.on_disk(partition, tag, done, &mut cx!(self, now));
            }
            Waiter::Stream { stream, tag } => {
                let StreamId { conn, stream } = stream;
                self.tell(conn, now, |session, cx| session.on_disk(stream, tag, done, cx));
            }
            Waiter::Discard { file, upload } => {
                ingest::discard(file, upload, done, &mut cx!(self, now));
            }
            Waiter::FreeSpace { volume } => {
                let space = match done {
                    Ok(DiskDone::Space(space)) => Some(space),
                    _ => None,
                };
                self.store.on_space(volume, space, &mut cx!(self, now));
            }
            Waiter::Closing(_) | Waiter::Nobody => {}
        }
    }

    fn mail(&mut self, mail: Mail, now: Now) {
        match mail {
            Mail::Ask { from, ask } => {
                self.stats.mesh_hops.add(1);
                self.store.on_ask(from, ask, &mut cx!(self, now));
            }
            Mail::Reply { from, to, place, reply } => {
                self.mesh.answered(from, place, &reply);
                self.replies.push_back((self.own(to), reply));
            }
            Mail::Relieve { from } => {
                self.cut_stale(false, now);
                let mail = Mail::Relieved { from: self.config.shard };
                self.acts.push(Act::Mail { to: from, mail });
            }
            Mail::Relieved { from } => self.mesh.relieved(from),
            Mail::Drained { from } => self.mesh.drained(from),
            Mail::Order(order) => self.order(&order, now),
        }
    }

    fn order(&mut self, order: &Order, now: Now) {
        match order {
            Order::Drain { within_ms } => self.drain(*within_ms, now),
            Order::Scrub => self.store.scrub_now(&mut cx!(self, now)),
            Order::Verify { id, digest } => {
                let address = Address::from_bytes(*digest);
                self.store.verify(*id, address, &mut cx!(self, now));
            }
            Order::List { id, range } => self.store.list(*id, *range, &mut cx!(self, now)),
            // Every request is judged by the tokens of its moment, so this holds from the next on.
            Order::WriteTokens(tokens) => {
                self.config.authority = self.config.authority.with_tokens(&tokens.0);
            }
            Order::Names(table) => {
                self.names = Names::new(Arc::clone(table));
                self.stats.names_version.set(self.names.version());
                self.acts.push(Act::Report(Report::Names { shard: self.config.shard }));
            }
        }
    }

    fn tick(&mut self, now: Now) {
        if self.life == Life::New {
            self.life = Life::Booting;
            self.store.boot(&mut cx!(self, now));
        }
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now.mono_ns, &mut due);
        for slot in due.drain(..) {
            if let Some(conn) = self.sessions.at(slot) {
                self.tell(conn, now, |session, cx| session.on_deadline(cx));
            }
        }
        self.due = due;
    }

    /// Restores the invariants: no question unrouted, no answer undelivered, the store's own work
    /// started, and the shard's life where it should be.
    ///
    /// What cannot be settled within [`SETTLE_ROUNDS_MAX`] goes on in the next turn: other events
    /// have theirs in between.
    fn settle(&mut self, now: Now) {
        self.relieve(now);
        for _ in 0..SETTLE_ROUNDS_MAX {
            while let Some((stream, ask)) = self.asks.pop_front() {
                self.route(stream, ask, now);
            }
            if let Some((asker, reply)) = self.replies.pop_front() {
                self.deliver(asker, reply, now);
                continue;
            }
            self.store.settle(&mut cx!(self, now));
            self.feed_uploads(now);
            if self.asks.is_empty() && self.replies.is_empty() {
                // What a burst took is not kept when it has ended.
                self.asks.shrink_to(QUEUE_KEPT);
                self.replies.shrink_to(QUEUE_KEPT);
                break;
            }
        }
        if self.sessions.held() > self.config.connection_buffers {
            self.shed(now);
        }
        self.live(now);
    }

    /// Drops connections until the buffers of the others fit again.
    fn shed(&mut self, now: Now) {
        let enough = self.config.connection_buffers / SHED_SHARE.1 * SHED_SHARE.0;
        for conn in self.sessions.greediest(now.mono_ns) {
            if self.sessions.held() <= enough {
                break;
            }
            self.tell(conn, now, |session, cx| session.shed(cx));
        }
    }

    /// Lets uploads that wait for memory try again, one of each peer in turn.
    fn feed_uploads(&mut self, now: Now) {
        for _ in 0..self.memory.uploads_waiting() {
            let Some(StreamId { conn, stream }) = self.memory.next_upload(now.mono_ns) else {
                break;
            };
            self.tell(conn, now, |session, cx| session.on_memory(stream, cx));
        }
        let waiting = self.memory.uploads_waiting();
        self.uploads_at = (waiting > 0).then_some(now.mono_ns + MEMORY_RETRY_NS);
        if waiting == 0 {
            self.uploads_relief_at = None;
        } else if *self.uploads_relief_at.get_or_insert(now.mono_ns + RELIEVE_AFTER_NS)
            <= now.mono_ns
        {
            self.uploads_relief_at = Some(now.mono_ns + RELIEVE_EVERY_NS);
            self.end_slow_uploads(waiting.min(RELIEVE_CUTS_MAX), now);
        }
    }

    /// Ends the slowest uploads, so many at most, for those that wait for their memory.
    fn end_slow_uploads(&mut self, at_most: usize, now: Now) {
        let before_ns = now.mono_ns.saturating_sub(UPLOAD_SLOW_NS);
        let mut slow = self.sessions.slow_uploads(before_ns, now.mono_ns);
        if slow.len() > at_most {
            slow.select_nth_unstable_by_key(at_most, |(rate, _)| *rate);
            slow.truncate(at_most);
        }
        for (_, StreamId { conn, stream }) in slow {
            self.stats.uploads_cut.add(1);
            self.tell(conn, now, |session, cx| session.end_slow_upload(stream, cx));
        }
    }

    /// While reads wait for memory, readers that hold some and take too little are cut now and
    /// then.
    fn relieve(&mut self, now: Now) {
        if !self.store.awaits_memory() {
            self.relief_at = now.mono_ns + RELIEVE_AFTER_NS;
        }
        if now.mono_ns < self.relief_at {
            return;
        }
        self.relief_at = now.mono_ns + RELIEVE_EVERY_NS;
        self.mesh.ask_relief(&mut self.acts);
        self.cut_stale(true, now);
    }

    /// Cuts the readers that have taken too little for longest and hold this shard's memory, or
    /// with `own` false that of others.
    fn cut_stale(&mut self, own: bool, now: Now) {
        let before_ns = now.mono_ns.saturating_sub(READER_STALE_NS);
        let mut stale = self.sessions.stale(own, &self.memory, before_ns);
        if stale.len() > RELIEVE_CUTS_MAX {
            stale.select_nth_unstable_by_key(RELIEVE_CUTS_MAX, |(since, _)| *since);
            stale.truncate(RELIEVE_CUTS_MAX);
        }
        for (_, conn) in stale {
            self.stats.readers_cut.add(1);
            self.tell(conn, now, |session, cx| session.shed(cx));
        }
    }

    /// Puts a question to the object's owner.
    fn route(&mut self, stream: StreamId, ask: Ask, now: Now) {
        let (_, owner) = self.config.layout.owner(ask.address());
        let asker = self.own(stream);
        if owner == self.config.shard {
            self.store.on_ask(asker, ask, &mut cx!(self, now));
            return;
        }
        if matches!(ask, Ask::Cancel { .. }) {
            // The other shard answers before long, and nobody will wait for it.
            return;
        }
        if let Some((asker, ask)) = self.mesh.ask(owner, asker, ask, &mut self.acts) {
            ask.refuse(asker, Fault::Busy, &mut cx!(self, now));
        }
    }

    fn deliver(&mut self, asker: Asker, reply: Reply, now: Now) {
        if asker.shard == self.config.shard {
            let StreamId { conn, stream } = asker.stream;
            self.tell(conn, now, |session, cx| session.on_reply(stream, reply, cx));
        } else {
            let Asker { stream: to, place, .. } = asker;
            let mail = Mail::Reply { from: self.config.shard, to, place, reply };
            self.acts.push(Act::Mail { to: asker.shard, mail });
        }
    }

    fn own(&self, stream: StreamId) -> Asker {
        let peer = self.sessions.peer(stream.conn);
        Asker { shard: self.config.shard, stream, peer, place: Place::Other }
    }

    /// Moves the shard's life on when its condition has come.
    fn live(&mut self, now: Now) {
        self.mesh.send_waiting(&mut self.acts);
        self.stats.cache_bytes.set(self.memory.bytes() as u64);
        for (counter, pages) in self.stats.memory_pages.iter().zip(self.memory.owners()) {
            counter.set(pages as u64);
        }
        match self.life {
            Life::Booting => {
                if let Some(reason) = self.store.failed() {
                    let reason = reason.to_string();
                    self.mesh.tell_drained(&mut self.acts);
                    self.stop(Phase::Failed, Some(reason));
                } else if self.store.is_ready() {
                    self.life = Life::Serving;
                    self.stats.set_phase(Phase::Serving);
                    self.acts.push(Act::Report(Report::Ready { shard: self.config.shard }));
                }
            }
            Life::Draining { until_ns, cut } => {
                if now.mono_ns >= until_ns {
                    self.cut_all(until_ns, cut);
                }
                // What nobody waits for any more is asked all the same: it may leave a file.
                if self.sessions.is_empty() && !self.mesh.has_waiting() {
                    self.life = Life::Drained;
                    self.mesh.tell_drained(&mut self.acts);
                    self.live(now);
                }
            }
            Life::Drained if self.mesh.all_drained() => {
                self.life = Life::Stopping;
                self.store.stop(&mut cx!(self, now));
                self.live(now);
            }
            Life::Stopping if self.store.is_stopped() => self.stop(Phase::Stopped, None),
            _ => {}
        }
    }

    fn drain(&mut self, within_ms: u64, now: Now) {
        if !matches!(self.life, Life::New | Life::Booting | Life::Serving) {
            return;
        }
        self.life = Life::Draining { until_ns: now.mono_ns + within_ms * 1_000_000, cut: false };
        self.stats.set_phase(Phase::Draining);
        self.acts.push(Act::StopAccepting);
        for conn in self.sessions.all() {
            self.tell(conn, now, |session, cx| session.on_drain(cx));
        }
    }

    /// Drops the connections that did not end in time.
    fn cut_all(&mut self, until_ns: u64, is_notified: bool) {
        let left = self.sessions.all();
        if !is_notified && !left.is_empty() {
            self.life = Life::Draining { until_ns, cut: true };
            let message = format!("deadlines.drain elapsed: {} connections are cut", left.len());
            self.note(message);
        }
        for conn in left {
            self.acts.push(Act::Abort { conn });
        }
    }

    fn note(&mut self, message: String) {
        let (shard, severity) = (self.config.shard, Severity::Warn);
        self.acts.push(Act::Report(Report::Note { shard, severity, message }));
    }

    fn stop(&mut self, phase: Phase, reason: Option<String>) {
        self.life = Life::Stopped;
        self.stats.set_phase(phase);
        self.acts.push(Act::Report(Report::Stopped { shard: self.config.shard, reason }));
        self.acts.push(Act::Stopped);
    }
}

impl Machine for Shard {
    type Mail = Mail;
    type Body = Body;

    fn apply(&mut self, event: Event<'_, Mail>, now: Now) {
        if self.life == Life::Stopped {
            return;
        }
        self.take(event, now);
        self.settle(now);
    }

    fn acts(&mut self) -> &mut Acts<Mail, Body> {
        &mut self.acts
    }

    fn wake_at(&self) -> Option<u64> {
        let drained = match self.life {
            Life::Draining { until_ns, .. } => Some(until_ns),
            _ => None,
        };
        let unsettled = !self.asks.is_empty() || !self.replies.is_empty();
        let relief = self.store.awaits_memory().then_some(self.relief_at);
        let times = [self.wheel.wake_at(), self.store.wake_at(&self.free_space), drained, relief];
        let soon = [self.uploads_at, unsettled.then_some(0)];
        times.into_iter().chain(soon).flatten().min()
    }
}

#[cfg(test)]
mod tests;
