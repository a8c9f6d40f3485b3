//! What goes wrong: each fault as often as the run's plan says.

use std::{fs, io, os::unix::fs::FileExt, path::Path};

use ron_codec::address::Address;
use ron_io::{
    ports::Order,
    sim::{End, Weather},
};
use ron_shards::flow::Mail;

use super::{node::Node, objects, plan::Hunt, trace::violation, world::World};

/// Milliseconds a drain may take until what is not finished is dropped.
const DRAIN_MS: u64 = 20_000;

/// Nanoseconds of the longest leap of time.
const LEAP_NS: u64 = 120_000_000_000;

/// Milliseconds of the longest jump of the time of day: about fifty years.
const JUMP_MS: u64 = 1_600_000_000_000;

/// Acts within which a process ends that is about to.
const FUSE_MAX: u64 = 30;

/// Steps for which what is hunted fails, at most.
const HUNTING_MAX: u64 = 120;

/// Bits of a file that flip at once.
const FLIPS_MAX: u64 = 8;

impl World {
    /// Injects the faults that come before the next step.
    pub(super) fn strike(&mut self) {
        let faults = self.plan.faults;
        self.hunting = self.hunting.saturating_sub(1);
        if self.plan.hunt.is_some() && self.hunting == 0 {
            self.disk.weather = Weather::default();
        }
        // A rebuild takes many steps, and would hardly ever come to its end.
        let is_ready = self.node.as_ref().is_some_and(Node::is_ready);
        let spares = self.plan.churn && !is_ready && !self.chance.one_in(8);
        if !spares && (self.chance.one_in(faults.power) || self.chance.one_in(faults.kill)) {
            self.light_fuse();
        }
        if self.chance.one_in(faults.drain) && !self.draining {
            self.drain();
        }
        if self.chance.one_in(faults.reset) && !self.clients.is_empty() {
            let at = self.chance.below(self.clients.len());
            self.reset(at);
        }
        if self.chance.one_in(faults.rot) {
            self.rot();
        }
        if self.chance.one_in(faults.jump) {
            let ms = self.chance.magnitude(JUMP_MS) as i64;
            self.clock.set_back_or_forward(if self.chance.toss() { ms } else { -ms });
        }
        if self.chance.one_in(faults.leap) {
            self.clock.pass(self.chance.magnitude(LEAP_NS));
        }
        if self.chance.one_in(faults.full) {
            let space = self.chance.magnitude(8 << 20);
            let capacity = self.chance.toss().then(|| self.disk.used() + space);
            self.trace.note(|| format!("capacity {capacity:?}"));
            self.disk.set_capacity(capacity);
        }
        if self.chance.one_in(faults.weather) {
            let calm = self.disk.weather != Weather::default() || self.chance.toss();
            self.disk.weather = if calm { Weather::default() } else { self.plan.stormy };
        }
        if self.chance.one_in(faults.orders) {
            self.order();
        }
    }

    /// What is hunted fails for some steps.
    pub(super) fn aim(&mut self, hunt: Hunt) {
        let (often, most) = match hunt {
            // A read is tried again.
            Hunt::Rebuild => (1, HUNTING_MAX / 4),
            _ => (self.chance.pick(&[1, 2, 4]), HUNTING_MAX),
        };
        self.disk.weather = hunt.weather(often);
        self.hunting = self.chance.between(4, most);
        self.trace.note(|| format!("hunt: {:?}", hunt.weather(often)));
    }

    /// The process will end in the midst of one of its next acts.
    pub(super) fn light_fuse(&mut self) {
        let acts = self.chance.between(1, FUSE_MAX) as u32;
        if let Some(node) = &mut self.node {
            node.fuse.get_or_insert(acts);
        }
    }

    /// The process ends without having been asked to, and another one starts.
    pub(super) fn crash(&mut self) {
        let faults = self.plan.faults;
        let kill = faults.power == 0 || (faults.kill > 0 && self.chance.toss());
        self.end(if kill { End::Kill } else { End::Power });
        self.boot();
    }

    /// The process ends.
    pub(super) fn end(&mut self, how: End) {
        self.trace.note(|| format!("the end: {how:?}"));
        // It is nobody's fault that answers are cut now.
        let chaos = std::mem::replace(&mut self.sky.chaos, true);
        for client in std::mem::take(&mut self.clients) {
            self.with_stage(|stage| client.over(stage));
        }
        self.sky.chaos = chaos;
        if let Some(node) = self.node.take() {
            node.end(how, &mut self.disk, &mut self.chance);
        }
        self.oracle.settle(true);
        for partition in std::mem::take(&mut self.unsynced) {
            let objects = objects::all().iter().enumerate();
            let there = objects.filter(|(_, object)| object.may_be_file());
            let there =
                there.filter(|(_, object)| self.layout.owner(&object.address).0 == partition);
            if how == End::Power {
                there.for_each(|(id, _)| self.oracle.doubt(id));
            }
        }
        if self.chance.one_in(self.plan.faults.index_loss) {
            self.lose_index();
        }
    }

    /// Asks the node to end in good order.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.trace.note(|| "drain".to_string());
        let order = Order::Drain { within_ms: DRAIN_MS };
        self.order_all(&order);
    }

    pub(super) fn order_all(&mut self, order: &Order) {
        if let Some(node) = &mut self.node {
            for at in 0..node.parts.len() {
                node.mesh.send(at, at, Mail::Order(order.clone()));
            }
        }
    }

    /// The node has ended in good order: nothing is left open, half done or held.
    pub(super) fn drained(&mut self) {
        self.check_drained();
        self.end(End::Power);
        self.boot();
    }

    /// What must hold when a node has ended in good order.
    pub(super) fn check_drained(&mut self) {
        let Some(node) = &mut self.node else { return };
        for (at, part) in node.parts.iter_mut().enumerate() {
            let left = part.queue.in_progress() + part.queue.undelivered();
            if part.net.open() > 0 {
                violation!("shard {at} ended with {} connections", part.net.open());
            }
            // Closing and removing is begun, and nobody waits for it.
            if left == 0 && part.pages_held() > 0 {
                violation!("shard {at} ended and {} pages are held", part.pages_held());
            }
        }
    }

    /// Bits of a stored file flip.
    fn rot(&mut self) {
        let files: Vec<_> = self
            .disk
            .files()
            .filter(|(name, _, len)| *len > 0 && !name.ends_with(".tmp"))
            .map(|(name, id, len)| (name.to_string(), id, len))
            .collect();
        if files.is_empty() {
            return;
        }
        let (name, id, len) = files[self.chance.below(files.len())].clone();
        self.ledger.note_name(&name, id, len as u64);
        for _ in 0..self.chance.magnitude(FLIPS_MAX) {
            let at = self.chance.below(len);
            if self.disk.rot(id, at, self.chance.next_u64() as u32) {
                self.trace.note(|| format!("rot in {name} at {at}"));
                self.ledger.rot(id, at as u64);
            }
        }
    }

    fn order(&mut self) {
        if self.chance.toss() {
            return self.order_all(&Order::Scrub);
        }
        let object = self.chance.pick(&self.plan.objects);
        let address: Address = objects::all()[object].address;
        let order = Order::Verify { id: object as u64, digest: *address.as_bytes() };
        self.order_all(&order);
    }

    /// An index is gone, or some of its files are; they are cut, or bits of them flip.
    fn lose_index(&mut self) {
        for partition in 0..self.plan.partitions {
            let dir = self.layout.index_dir(partition);
            // What is lost in part only may be believed, and then excuses much.
            let whole = if self.plan.hunt.is_some() { 3 } else { 1 };
            if self.chance.below(4) < whole {
                self.trace.note(|| format!("index {partition} is gone"));
                // It may never have been there.
                let _ = fs::remove_dir_all(&dir);
            }
            let listed = fs::read_dir(&dir).into_iter().flatten();
            let mut files: Vec<_> = listed.map(|entry| entry.expect("an entry").path()).collect();
            files.sort_unstable();
            for file in files {
                let how = self.chance.below(4);
                self.trace.note(|| format!("index {partition}: {how} happens to {file:?}"));
                self.damage(&file, how).expect("a file of the index can be damaged");
                if how > 0 {
                    self.stale.insert(partition);
                }
            }
        }
    }

    fn damage(&mut self, path: &Path, how: usize) -> io::Result<()> {
        let file = fs::File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        match how {
            1 if len > 0 => {
                let short = self.chance.between(0, len - 1);
                let block = 4096;
                file.set_len(if self.chance.toss() { short } else { short / block * block })
            }
            2 if len > 0 => {
                let mut byte = [0];
                for _ in 0..self.chance.between(1, FLIPS_MAX) {
                    let at = self.chance.between(0, len - 1);
                    file.read_exact_at(&mut byte, at)?;
                    byte[0] ^= 1 << self.chance.below(8);
                    file.write_all_at(&byte, at)?;
                }
                Ok(())
            }
            3 => fs::remove_file(path),
            _ => Ok(()),
        }
    }
}
