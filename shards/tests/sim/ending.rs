//! How a run ends: the faults cease, what is in progress comes to its end, and after one more boot
//! every object is looked at.

use std::{fs, path::Path};

use ron_codec::{limits::GROUP_LEN, record::record_len_max};
use ron_io::{
    ports::Order,
    sim::{End, Weather},
    stats::{Proto, Stats},
};
use ron_shards::{
    limits::{SMALL_SEGMENT_LEN, SMALL_SEGMENTS_MAX},
    store::layout::Layout,
};

use super::{
    client::Client, node::Node, objects, oracle::Known, plan::Faults, trace::violation,
    world::World,
};

/// Steps that the end of a run takes at most: more are a node that does not come to rest.
const REST_STEPS_MAX: u64 = 400_000;

/// Nanoseconds of a step at most, on average, while objects are looked at.
const PACE_CALM_NS: u64 = 10_000_000;

/// Nanoseconds a request may wait although nothing but time passes.
const HANG_NS: u64 = 60_000_000_000;

/// Bytes that a shard may hold more after a flood, besides a tenth: tables that have grown to the
/// number of its connections and of the questions that waited, files and outboards that it keeps
/// open.
const KEPT_LEN: usize = 128 * 1024;

/// Bytes of a record that a scrub has read to move it, at most, and of the group it hashes.
const MOVED_LEN: usize = (record_len_max() + GROUP_LEN as u64) as usize;

/// Nanoseconds after which a node that has space again must take objects.
const RECOVERY_NS: u64 = 600_000_000_000;

/// Bytes a second of the last scrub, which nobody waits for.
const SCRUB_FAST: u64 = 1 << 32;

/// Nanoseconds that pass between two tries of it.
const RETRY_NS: u64 = 5_000_000_000;

impl World {
    pub(super) fn finish(&mut self) {
        self.calm_down();
        self.rest();
        let how = self.chance.below(3);
        self.trace.note(|| format!("the last end is {how}"));
        match how {
            0 => self.end(End::Power),
            1 => self.end(End::Kill),
            _ => self.end_well(),
        }
        // What is still wrong with the disk is what rotted.
        self.sky.chaos = false;
        self.plan.storage.scrub_bytes_per_s = SCRUB_FAST;
        self.boot();
        self.wait_until_ready();
        self.check_all();
        if self.knows_all() && self.chance.toss() {
            self.check_disk_usage();
        }
        self.end_well();
        if self.plan.churn {
            self.check_rebuilt();
        }
    }

    /// The log and the object files alone say the same once more.
    fn check_rebuilt(&mut self) {
        for partition in 0..self.plan.partitions {
            // It may never have been there.
            let _ = fs::remove_dir_all(self.layout.index_dir(partition));
        }
        self.boot();
        self.wait_until_ready();
        self.check_all();
        self.end_well();
    }

    /// The faults cease.
    fn calm_down(&mut self) {
        self.trace.note(|| "calm".to_string());
        self.plan.hunt = None;
        self.plan.faults = Faults { index_loss: self.plan.faults.index_loss, ..Faults::default() };
        // Nor does time pass so fast that deadlines end what is checked.
        self.plan.pace_ns = self.plan.pace_ns.min(PACE_CALM_NS);
        self.disk.weather = Weather::default();
        self.disk.set_capacity(None);
        if let Some(flood) = &mut self.plan.flood {
            flood.disk_ns = 0;
        }
        if let Some(node) = &mut self.node {
            node.fuse = None;
            node.parts.iter_mut().for_each(|part| part.queue.hurry());
        }
    }

    /// Lets everything in progress come to its end.
    fn rest(&mut self) {
        self.wait_until_ready();
        self.recover();
        self.clients.iter_mut().for_each(Client::content);
        self.busy = false;
        let mut stuck_ns = 0;
        for _ in 0..REST_STEPS_MAX {
            let waiting: usize = self.clients.iter().map(Client::in_progress).sum();
            let at_rest = self.node.as_ref().is_some_and(Node::is_at_rest);
            if waiting == 0 && at_rest && self.clients.is_empty() {
                self.check_rest();
                self.check_memory_is_back();
                self.oracle.settle(false);
                return;
            }
            let before = self.clock.now().mono_ns;
            let idle = self.is_idle();
            if !self.step() {
                violation!("nothing will ever happen, {waiting} requests wait");
            }
            // What only time moves on must not be what a client waits for.
            stuck_ns = match waiting > 0 && idle {
                true => stuck_ns + self.clock.now().mono_ns - before,
                false if idle => stuck_ns,
                false => 0,
            };
            if stuck_ns > HANG_NS {
                let who = self.clients.iter().filter(|client| client.in_progress() > 0);
                violation!("{waiting} requests wait for nothing: {:?}", who.collect::<Vec<_>>());
            }
        }
        violation!("the node does not come to rest");
    }

    /// Whether nothing can happen but that time passes.
    fn is_idle(&self) -> bool {
        let mut moves = Vec::new();
        let Some(node) = &self.node else { return true };
        node.parts.iter().for_each(|part| part.net.moves(&mut moves));
        let in_progress =
            |part: &super::node::Part| part.queue.in_progress() + part.queue.undelivered();
        moves.is_empty()
            && node.mesh.waiting().next().is_none()
            && node.parts.iter().map(in_progress).sum::<usize>() == 0
    }

    pub(super) fn wait_until_ready(&mut self) {
        for _ in 0..REST_STEPS_MAX {
            if self.draining {
                // It is on its way out; the next one will be ready.
            } else if self.node.as_ref().is_some_and(Node::is_ready) {
                return;
            }
            if !self.step() {
                violation!("the node does not get ready");
            }
        }
        violation!("the node does not get ready, whatever happens");
    }

    /// A node that was full takes objects again once there is space, by itself.
    fn recover(&mut self) {
        let (crippled, full) = (!self.crippled.is_empty(), self.sky.full);
        if !full || crippled || self.plan.storage.max_bytes.is_some() {
            return;
        }
        let until = self.clock.now().mono_ns + RECOVERY_NS;
        while self.clock.now().mono_ns < until {
            let object = self.plan.objects[0];
            let answers = self.summary.answers;
            self.ask_once(0, |http, stage| http.store(object, stage));
            // A refusal is no answer; a log may have failed before the faults ceased.
            if self.summary.answers > answers || !self.crippled.is_empty() {
                return;
            }
            self.clock.pass(RETRY_NS);
        }
        violation!("there is space, and the node takes nothing");
    }

    /// What must hold when nothing is in progress.
    fn check_rest(&mut self) {
        let Some(node) = &mut self.node else { return };
        for (at, part) in node.parts.iter_mut().enumerate() {
            let held = part.pages_held();
            if held > 0 {
                violation!("shard {at} is at rest and {held} pages are held");
            }
            let connections: u64 =
                Proto::ALL.iter().map(|proto| part.stats.connections[*proto as usize].get()).sum();
            let (requests, streams) = (part.stats.inflight.get(), part.stats.open_streams.get());
            if (connections, requests, streams) != (0, 0, 0) {
                violation!("shard {at} counts {connections}, {requests}, {streams} at rest");
            }
        }
    }

    /// After a flood the node holds about what it held before.
    fn check_memory_is_back(&mut self) {
        let Some(before) = self.before_flood else { return };
        let Some(now) = self.count_memory() else { return };
        let (was, is) = (before.heap + before.copied, now.heap + now.copied);
        let Some(node) = &self.node else { return };
        let scrubs = node.parts.iter().filter(|part| part.stats.scrub_running.get() > 0).count();
        let kept = node.parts.len() * KEPT_LEN + scrubs * MOVED_LEN;
        if is > was + was / 10 + kept {
            violation!("{was} bytes were held before the flood, {is} are after it");
        }
    }

    /// Every object is asked for, by somebody who takes no excuse.
    fn check_all(&mut self) {
        let mut objects = self.plan.objects.clone();
        objects.sort_unstable();
        objects.dedup();
        for object in objects {
            let shard = self.chance.below(self.plan.shards.into());
            self.trace.note(|| format!("check object {object}"));
            self.ask_once(shard, |http, stage| http.get(object, stage));
        }
        // A quota may be used up, and the clients of this run may have used it.
        if self.plan.storage.max_bytes.is_none() {
            let object = (0..objects::all().len()).find(|id| !self.plan.objects.contains(id));
            let object = object.unwrap_or_default();
            self.ask_once(0, |http, stage| http.store(object, stage));
            let known = self.oracle.known(object);
            if known != Known::Present && !self.ledger.excuses(object) {
                violation!("a healthy node does not take object {object}");
            }
        }
    }

    /// Once the scrub has looked everywhere, the disk holds what the node counts, and nothing else.
    fn check_disk_usage(&mut self) {
        // The first round may be one that an earlier process began.
        self.scrub_rounds(2);
        let Some(node) = &self.node else { return };
        let sum = |counter: fn(&Stats) -> u64| -> u64 {
            node.parts.iter().map(|part| counter(&part.stats)).sum()
        };
        let said = (sum(|stats| stats.segment_bytes.get()), sum(|stats| stats.file_bytes.get()));
        let on_disk = |ending: &str| -> u64 {
            let files = self.disk.files().filter(|(name, ..)| name.ends_with(ending));
            files.map(|(_, _, len)| len as u64).sum()
        };
        let there = (on_disk(".seg"), on_disk(".obj"));
        if said != there {
            violation!("segments and files take {there:?} bytes, and the node counts {said:?}");
        }
        let mut names = self.disk.files().map(|(name, ..)| name);
        let known = |name: &&str| {
            // What a commit that failed left in the midst of the log is marked, and stays.
            let is_mark = self.erred && name.ends_with(".hidden");
            name.ends_with(".seg") || name.ends_with(".obj") || is_mark
        };
        if let Some(name) = names.find(|name| !known(name)) {
            violation!("{name} is left over");
        }
        let segments = sum(|stats| stats.segments.get());
        let marks = self.disk.files().filter(|(name, ..)| name.ends_with(".hidden")).count();
        let most = u64::from(self.plan.partitions) * (SMALL_SEGMENTS_MAX as u64 + 2)
            + there.0 / SMALL_SEGMENT_LEN
            + marks as u64;
        if segments > most {
            violation!("{segments} segments of {} bytes are left", there.0);
        }
    }

    /// Lets each shard scrub so often, and come to rest.
    fn scrub_rounds(&mut self, times: u64) {
        let rounds = |node: &Node, at: usize| node.parts[at].stats.scrub_rounds.get();
        let Some(node) = &self.node else { return };
        let until: Vec<u64> = (0..node.parts.len()).map(|at| rounds(node, at) + times).collect();
        for _ in 0..REST_STEPS_MAX {
            let Some(node) = &self.node else { return };
            let running = |at: usize| node.parts[at].stats.scrub_running.get() > 0;
            let over = (0..until.len()).all(|at| rounds(node, at) >= until[at] && !running(at));
            if over && self.is_idle() {
                return;
            }
            if !over && !(0..until.len()).any(running) && self.is_idle() {
                self.order_all(&Order::Scrub);
            }
            if !self.step() {
                violation!("no scrub, and nothing will ever happen");
            }
        }
        violation!("the scrub does not come to its end");
    }

    /// Makes one request on a connection of its own, and waits until that has ended.
    pub(super) fn ask_once(
        &mut self,
        shard: usize,
        request: impl FnOnce(&mut super::http::Http, &mut super::stage::Stage<'_>) -> Vec<u8>,
    ) {
        const SOCKETS_LEN: usize = 1 << 20;
        let link = self.with_node(|node, deck| node.connect(shard, 0, SOCKETS_LEN, deck)).flatten();
        let Some(link) = link else { violation!("a node that serves takes no connection") };
        let client = self.with_stage(|stage| Client::asking(shard, link, request, stage));
        let (mut client, bytes) = client;
        client.content();
        self.clients.push(client);
        if let Some(node) = &mut self.node {
            node.parts[shard].net.write(link, &bytes);
            node.parts[shard].net.end(link);
        }
        let busy = std::mem::replace(&mut self.busy, false);
        for _ in 0..REST_STEPS_MAX {
            let there = |client: &Client| client.shard == shard && client.link == link;
            if !self.clients.iter().any(there) {
                self.busy = busy;
                return;
            }
            if !self.step() {
                violation!("a request is not answered, and nothing will ever happen");
            }
        }
        violation!("a request is not answered, whatever happens");
    }

    /// The node is asked to end, does so, and leaves nothing behind.
    fn end_well(&mut self) {
        self.ending = true;
        if !self.draining {
            self.drain();
        }
        let mut steps = 0..REST_STEPS_MAX;
        while !self.node.as_ref().is_some_and(Node::is_stopped) {
            if steps.next().is_none() || !self.step() {
                violation!("the node does not end");
            }
        }
        self.check_drained();
        self.settle_files();
        if self.disk.opened() > 0 {
            violation!("{} files are open in the end", self.disk.opened());
        }
        // On a volume that is absent nobody looks.
        let Layout { volumes, absent, .. } = &self.layout;
        let is_gone = |name: &str| {
            absent.iter().any(|at| Path::new(name).starts_with(&volumes[usize::from(*at)]))
        };
        let is_left = |name: &str| name.ends_with(".tmp") && !is_gone(name);
        let upload = self.disk.files().find(|(name, ..)| is_left(name));
        if let Some((name, ..)) = upload.filter(|_| !self.sky.errors) {
            violation!("{name} is left of an upload");
        }
        // Nothing may be lost now, whatever happens.
        self.end(End::Power);
        self.ending = false;
    }

    /// Closing and removing that nobody waits for is done.
    fn settle_files(&mut self) {
        self.tell_node(|node, deck| {
            for at in 0..node.parts.len() {
                while node.parts[at].queue.in_progress() > 0 {
                    node.perform(at, deck);
                }
            }
        });
    }
}
