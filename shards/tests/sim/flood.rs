//! A run in which many peers are slow, silent, greedy or rude at once, and a few behave.
//!
//! The node and its disk are quick here: whatever can happen on them happens before time passes.
//! So the times that are measured are those that peers, deadlines and the disk take, and those who
//! behave must be served whatever the others do.
//!
//! ```text
//!   all objects are stored ──► the flood ──► half of the rude ones leave, half read what is theirs
//!                                                   ──► rest: memory is what it was
//! ```

use ron_io::{sim, stats::Proto};

use super::{
    client::{Client, Waits},
    node::LISTENERS,
    plan::Flood,
    rude::{Misdeed, Rude, WAY_LEN_MAX},
    trace::violation,
    world::World,
};

const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds for which a client that behaves hears nothing of its request, at most.
const SILENCE_NS: u64 = 10 * SECOND_NS;

/// The same where the answer needs no memory for what is in an object: less than it takes until
/// readers are cut for others, who would wait that long behind reads.
const FRUGAL_NS: u64 = SECOND_NS / 20;

/// The same for the first of what a read brings, which may have to wait for memory: it is refused
/// after 3 s, when its shard looks again.
const READ_NS: u64 = 3 * SECOND_NS + SECOND_NS / 4;

/// Nanoseconds within which such a client, asking again and again, is served once.
const SERVED_NS: u64 = 40 * SECOND_NS;

/// Nanoseconds between two requests of one that behaves, and before it tries again; a tenth where
/// all that it asks is brief.
const THINK_NS: u64 = SECOND_NS;

/// Nanoseconds after which a peer whose connection ended comes again, at most.
const AGAIN_NS: u64 = 5 * SECOND_NS;

/// Steps of a flood, for the sake of time.
const FLOOD_STEPS_MAX: u64 = 50_000;

/// Steps for which those who did not read do so when the flood has ended.
const EBB_STEPS: u64 = 2000;

/// Bytes that the sockets of a connection hold at least, as those of the kernel do: the last answer
/// of a connection always fits.
const SOCKETS_LEN_MIN: usize = 4 * 1024;

/// Steps between two moments of a flood: more are a node that works without end.
const STEPS_AT_ONCE_MAX: u64 = 1_000_000;

/// One who behaves.
#[derive(Debug)]
struct Polite {
    shard: usize,
    listener: usize,
    link: Option<sim::Link>,
    /// It asks often, and only for what needs no memory.
    brief: bool,
    /// When it last got something for its request, while it has one.
    waits_since: Option<u64>,
    served_at: u64,
    served: u64,
    next_at: u64,
}

impl World {
    pub(super) fn flood(&mut self, flood: &Flood) {
        self.wait_until_ready();
        self.sky.chaos = false;
        self.store_all();
        self.trace.note(|| "the flood".to_string());
        self.before_flood = self.count_memory();
        let begun = self.clock.now().mono_ns;
        let mut polite = self.polite_ones(flood);
        let mut arrivals: Vec<u64> =
            (0..flood.peers).map(|_| begun + self.chance.magnitude(flood.lasts_ns / 4)).collect();
        let (mut steps, mut at_once) = (0, 0);
        while self.clock.now().mono_ns < begun + flood.lasts_ns && steps < FLOOD_STEPS_MAX {
            // A node that waits for memory looks again and again.
            steps += u64::from(!self.nothing_came_of_it);
            at_once += 1;
            if at_once > STEPS_AT_ONCE_MAX {
                violation!("the node works without end, and time stands still");
            }
            let before = self.clock.now().mono_ns;
            if !self.machine_step() {
                let idle = self.nothing_came_of_it;
                self.peers_step(&mut polite, &mut arrivals, flood);
                self.nothing_came_of_it = idle;
            }
            if self.clock.now().mono_ns > before {
                at_once = 0;
            }
            self.look_at_polite(&mut polite);
        }
        self.summary.steps += steps;
        self.sky.chaos = true;
        self.ebb();
    }

    fn store_all(&mut self) {
        let mut objects = self.plan.objects.clone();
        objects.sort_unstable();
        objects.dedup();
        for object in objects {
            self.ask_once(0, |http, stage| http.store(object, stage));
        }
    }

    fn polite_ones(&mut self, flood: &Flood) -> Vec<Polite> {
        let now = self.clock.now().mono_ns;
        let polite = |nth| Polite {
            shard: self.chance.below(self.plan.shards.into()),
            listener: self.chance.below(LISTENERS.len()),
            link: None,
            brief: nth == 0 && self.chance.toss(),
            waits_since: None,
            served_at: now,
            served: 0,
            next_at: now + self.chance.magnitude(THINK_NS),
        };
        (0..flood.polite).map(polite).collect()
    }

    /// Lets one thing happen that takes no time. False if there is none.
    fn machine_step(&mut self) -> bool {
        let busy = std::mem::replace(&mut self.busy, false);
        let chosen = self.choose();
        self.busy = busy;
        let Some(chosen) = chosen else { return false };
        self.happen(chosen);
        self.after();
        true
    }

    /// Time passes until somebody does something.
    fn peers_step(&mut self, polite: &mut [Polite], arrivals: &mut Vec<u64>, flood: &Flood) {
        let machine = self.node.as_ref().and_then(super::node::Node::next_at);
        let rude = self.clients.iter().filter_map(|client| Some(client.rude.as_ref()?.next_at));
        let good = polite.iter().filter(|one| one.waits_since.is_none()).map(|one| one.next_at);
        let next = rude.chain(good).chain(arrivals.iter().copied()).chain(machine).min();
        self.clock.pass_until(next.unwrap_or(u64::MAX));
        let now = self.clock.now().mono_ns;
        self.look_at_rude();
        let (come, later) = arrivals.iter().partition(|at| **at <= now);
        *arrivals = later;
        let come: Vec<u64> = come;
        come.iter().for_each(|_| self.rude_one_comes(flood));
        let due = |client: &Client| client.rude.as_ref().is_some_and(|rude| rude.next_at <= now);
        while let Some(at) = self.clients.iter().position(due) {
            if self.rude_one_acts(at) {
                arrivals.push(now + self.chance.magnitude(AGAIN_NS));
            }
        }
        for one in polite.iter_mut() {
            if one.waits_since.is_none() && one.next_at <= now {
                self.polite_one_asks(one);
            }
        }
    }

    fn rude_one_comes(&mut self, flood: &Flood) {
        let habit = self.chance.pick(&flood.habits);
        let (now, allowed) = (self.clock.now().mono_ns, self.plan.deadlines);
        let rude = Rude::new(habit, now, &allowed, &mut self.chance);
        let shard = self.chance.below(self.plan.shards.into());
        let listener = self.chance.below(LISTENERS.len());
        self.come(shard, listener, Some(rude));
    }

    fn come(&mut self, shard: usize, listener: usize, mut rude: Option<Rude>) -> Option<sim::Link> {
        let sockets_len = (self.chance.magnitude(1 << 17) as usize).max(SOCKETS_LEN_MIN);
        let link = self
            .with_node(|node, deck| node.connect(shard, listener, sockets_len, deck))
            .flatten()?;
        let is_oap = LISTENERS[listener].proto == Proto::Oap;
        if let (Some(rude), Some(node)) = (&mut rude, &mut self.node)
            && rude.withholds_hello()
        {
            rude.hello = node.parts[shard].net.withhold(link).into();
        }
        let protocol = (is_oap, LISTENERS[listener].tls);
        self.clients.push(Client::tireless((shard, link), protocol, rude));
        Some(link)
    }

    /// A rude peer does what it does. True if it left.
    fn rude_one_acts(&mut self, at: usize) -> bool {
        let mut client = self.clients.swap_remove(at);
        let (shard, link) = (client.shard, client.link);
        let Some(node) = &self.node else { return false };
        let on_the_way = node.parts[shard].net.unread(link);
        if let Some(rude) = &mut client.rude {
            rude.secured = !node.parts[shard].net.is_handshaking(link);
        }
        let Misdeed { write, notify, raw, read, end, reset } =
            self.with_stage(|stage| client.misbehave(on_the_way, stage));
        self.trace.note(|| {
            let habit = client.rude.as_ref().map(|rude| rude.habit);
            let (bytes, raw) = (write.len(), raw.len());
            format!("{shard}: {link:?} {habit:?}: {bytes}, {raw}, {read}, {notify} {end} {reset}")
        });
        self.clients.push(client);
        if let Some(node) = &mut self.node {
            let net = &mut node.parts[shard].net;
            net.write(link, &write);
            if notify {
                net.close_notify(link);
            }
            if on_the_way < WAY_LEN_MAX {
                net.write_raw(link, &raw);
            }
            if end {
                net.end(link);
            }
        }
        if reset {
            self.reset(self.clients.len() - 1);
            return true;
        }
        let open = self.node.as_ref().is_some_and(|node| node.parts[shard].net.is_open(link));
        let clients = self.clients.len();
        // When the node has closed, it reads all that is left, and leaves.
        if read > 0 || !open {
            self.read(shard, link, if open { read } else { usize::MAX });
        }
        self.clients.len() < clients
    }

    fn polite_one_asks(&mut self, one: &mut Polite) {
        let now = self.clock.now().mono_ns;
        let there = |client: &Client| client.shard == one.shard && Some(client.link) == one.link;
        let mut at = self.clients.iter().position(there);
        if at.is_none() {
            one.link = self.come(one.shard, one.listener, None);
            one.served = 0;
            at = one.link.map(|_| self.clients.len() - 1);
        }
        let Some(at) = at else {
            one.next_at = now + THINK_NS;
            return;
        };
        self.let_do(at, if one.brief { Client::act_briefly } else { Client::act });
        one.waits_since = Some(now);
    }

    /// No connection outlives its deadlines.
    fn look_at_rude(&mut self) {
        let (now, Some(node)) = (self.clock.now().mono_ns, &self.node) else { return };
        for client in &self.clients {
            let Some(rude) = &client.rude else { continue };
            let net = &node.parts[client.shard].net;
            if rude.closed_by.is_some_and(|by| by < now) && net.is_open(client.link) {
                violation!(
                    "a connection outlives its deadlines among {}: {client:?}",
                    self.habits()
                );
            }
        }
    }

    fn look_at_polite(&mut self, polite: &mut [Polite]) {
        let now = self.clock.now().mono_ns;
        for one in polite {
            let there =
                |client: &&Client| client.shard == one.shard && Some(client.link) == one.link;
            let client = self.clients.iter().find(there);
            if let Some(client) = client.filter(|client| client.served > one.served) {
                (one.served, one.served_at) = (client.served, now);
            }
            if now > one.served_at + SERVED_NS {
                let habits = self.habits();
                violation!(
                    "one who behaves was not served for a long time among {habits}: {one:?}"
                );
            }
            let Some(since) = one.waits_since else { continue };
            if client.is_none_or(|client| client.in_progress() == 0) {
                one.waits_since = None;
                let think_ns = if one.brief { THINK_NS / 10 } else { THINK_NS };
                one.next_at = now + self.chance.between(think_ns / 4, think_ns);
                continue;
            }
            let most = match client.map(Client::waits_for) {
                Some(Waits::Answer) if !self.plan.is_crowd() => FRUGAL_NS,
                Some(Waits::Read) => READ_NS,
                _ => SILENCE_NS,
            };
            if now > since + most {
                let habits = self.habits();
                violation!(
                    "one who behaves hears nothing for a long time among {habits}: \
                     {one:?} {client:?}"
                );
            }
        }
    }

    /// What the peers are like, and how many there are.
    fn habits(&self) -> String {
        let flood = self.plan.flood.as_ref();
        flood.map_or_else(String::new, |flood| format!("{} {:?}", flood.peers, flood.habits))
    }

    /// Half of the rude ones leave, the others read what is theirs, and leave when they have not
    /// got all of it after a while.
    fn ebb(&mut self) {
        self.trace.note(|| "the ebb".to_string());
        let mut readers = Vec::new();
        for at in (0..self.clients.len()).rev() {
            if self.clients[at].rude.is_none() {
                continue;
            }
            if self.clients[at].is_hostile() || self.chance.toss() {
                self.reset(at);
            } else {
                self.clients[at].content();
                readers.push((self.clients[at].shard, self.clients[at].link));
            }
        }
        for _ in 0..EBB_STEPS {
            self.step();
        }
        let unserved = |client: &Client| {
            client.in_progress() > 0 && readers.contains(&(client.shard, client.link))
        };
        while let Some(at) = self.clients.iter().position(unserved) {
            self.reset(at);
        }
    }
}
