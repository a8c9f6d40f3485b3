//! Which state machine goes from which state to which other, and by what.
//!
//! Worlds with fixed seeds go through what may happen to a store, and `transitions.txt` lists what
//! its machines did there. What is rare is taken from tests that arrange it. A change of the code
//! that adds, removes or renames a transition shows as a changed line of that file.

use super::*;
use crate::{limits::SCRUB_BYTES_PER_S, machine::take_transitions};
use ron_io::splitmix::SplitMix64;

/// What is expected: a line for each machine, state, event and next state. It is read when the test
/// runs, so that a new table needs no new build.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/tests/transitions.txt");

/// Set to anything, it has the test write the table anew.
const RENEW: &str = "RENEW_TRANSITIONS";

const WORLDS: u64 = 360;
const MOVES: u64 = 100;

const KINDS: [Kind; 11] = [
    Kind::Open,
    Kind::Read,
    Kind::Scan,
    Kind::Write,
    Kind::Sync,
    Kind::Truncate,
    Kind::Rename,
    Kind::Remove,
    Kind::List,
    Kind::Run,
    Kind::Other,
];
const ERRORS: [ErrorKind; 4] =
    [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::NotFound, ErrorKind::UnexpectedEof];

/// Lengths of objects: none, one and many groups, in segments and in files.
const LENS: [usize; 6] = [0, 5000, 200_000, 700_000, 1_000_000, LARGE];

/// Puts that may be in progress at once: the arena has space for their blocks.
const PUTS_MAX: usize = 3;

/// A world in which anything may happen, and what decides.
struct Trial {
    world: World,
    entropy: SplitMix64,
    objects: Vec<Vec<u8>>,
    /// Puts that are not answered.
    puts: Vec<u32>,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let objects = LENS.iter().cycle().zip(0..18).map(|(len, n)| object(n, *len));
        Trial {
            world: Trial::world(seed),
            entropy: SplitMix64::new(seed),
            objects: objects.collect(),
            puts: Vec::new(),
        }
    }

    fn world(seed: u64) -> World {
        let mut world = World::new(seed);
        world.config.storage.scrub_bytes_per_s = SCRUB_BYTES_PER_S;
        if seed.is_multiple_of(2) {
            // Much is moved by each compaction.
            world.config.storage.compact_below_percent = limits::COMPACT_BELOW_MAX;
            world.config.compact_dead_min = 100_000;
        }
        world.disk.kill();
        world.restart();
        world
    }

    fn below(&mut self, end: usize) -> usize {
        (self.entropy.next_u64() % end as u64) as usize
    }

    fn run(&mut self) {
        for _ in 0..MOVES {
            self.one_move();
            let most = [3, 20][self.below(2)];
            for _ in 0..self.below(most) {
                act_or_wait(&mut self.world);
            }
        }
        self.world.disk.kill();
        self.restart();
        for _ in 0..500 {
            act_or_wait(&mut self.world);
        }
        self.stop();
    }

    fn one_move(&mut self) {
        let answers = std::mem::take(&mut self.world.answers);
        self.puts.retain(|asked| !answers.contains_key(asked));
        let nth = self.below(self.objects.len());
        let address = Address::of(&self.objects[nth]);
        match self.below(42) {
            0..8 => self.put(nth),
            8..16 => drop(self.world.ask(Ask::Delete { address })),
            16..20 => {
                self.world.chill();
                self.world.ask(Ask::Open { address, first: Some(0) });
            }
            20..23 => self.world.verify(nth as u64, address),
            23..27 => self.world.scrub_now(),
            27..32 => self.plant(),
            32..34 => self.flip(),
            34 => self.world.disk.short_scans = 1,
            35 => self.stop(),
            36 => self.rebuild(),
            37 => self.world.disk.planted.clear(),
            38 | 39 => self.flaw(),
            40 => {
                self.world.disk.kill();
                self.restart();
            }
            _ => {
                let seed = self.entropy.next_u64();
                self.world.disk.crash(seed);
                self.restart();
            }
        }
    }

    fn put(&mut self, nth: usize) {
        if self.puts.len() >= PUTS_MAX {
            return;
        }
        let bytes = &self.objects[nth];
        let large = bytes.len() == LARGE;
        let ask = if large { self.world.upload(bytes) } else { self.world.put_ask(bytes) };
        self.puts.push(self.world.ask(ask));
    }

    /// Has acts to come fail.
    fn plant(&mut self) {
        let kind = KINDS[self.below(KINDS.len())];
        self.plant_kind(kind);
    }

    fn plant_kind(&mut self, kind: Kind) {
        let error = ERRORS[self.below(ERRORS.len())];
        let (skip, times) = (self.below(4), 1 + self.below(3));
        self.world.disk.planted.push(Planted { kind, skip, times, error });
    }

    /// Damages a file, often where it begins.
    fn flip(&mut self) {
        let paths = self.world.disk.paths().into_iter();
        let paths: Vec<_> = paths.filter(|path| !self.world.disk.bytes(path).is_empty()).collect();
        if paths.is_empty() {
            return;
        }
        let path = &paths[self.below(paths.len())];
        let len = self.world.disk.bytes(path).len();
        let near = if self.below(2) == 0 { len.min(128) } else { len };
        let at = self.below(near);
        self.world.disk.damage(path, |bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 4;
            }
        });
    }

    /// Damages an object file beside its data, which a round of the scrub repairs, or fails to.
    fn flaw(&mut self) {
        let mut paths = self.world.disk.paths().into_iter();
        let is_object = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "obj");
        let Some(path) = paths.rfind(is_object) else { return };
        self.world.disk.damage(&path, |bytes| {
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 4;
            }
        });
        self.world.disk.planted.clear();
        self.world.scrub_now();
        let kind = [Kind::Open, Kind::Write, Kind::Sync][self.below(3)];
        self.plant_kind(kind);
        for _ in 0..300 {
            act_or_wait(&mut self.world);
        }
    }

    /// The process is asked to stop, and is killed if it cannot for long.
    fn stop(&mut self) {
        self.world.begin_stop();
        for _ in 0..300 {
            if self.world.store.is_stopped() {
                break;
            }
            act_or_wait(&mut self.world);
        }
        self.world.disk.kill();
        self.restart();
    }

    /// Another process finds no index, and perhaps cannot mark what is damaged.
    fn rebuild(&mut self) {
        self.world.disk.kill();
        if self.below(2) == 0 {
            self.flip();
            self.plant_kind(Kind::Open);
        }
        self.world.store = Store::new(&self.world.config);
        // There is none before the first checkpoint.
        let _ = std::fs::remove_dir_all(self.world.config.layout.index_dir(0));
        self.restart();
    }

    /// Another process takes over, perhaps one that meets faults and gives up; the next meets none.
    /// Where damage passes for what a newer program wrote none can, and the world ends.
    fn restart(&mut self) {
        self.puts.clear();
        self.world.disk.short_scans = 0;
        if self.below(3) == 0 {
            self.plant();
        }
        self.world.restart();
        if !self.world.store.is_ready() {
            self.world.disk.kill();
            self.world.restart();
        }
        if !self.world.store.is_ready() {
            self.world = Trial::world(self.entropy.next_u64());
        }
    }
}

/// One act, or time passes until something is due.
fn act_or_wait(world: &mut World) {
    if world.step() {
        return;
    }
    if let Some(at) = world.store.wake_at(&world.free_space) {
        world.now.mono_ns = world.now.mono_ns.max(at);
    }
    world.settle();
}

#[test]
fn machines_go_where_the_table_says() {
    take_transitions();
    for seed in 0..WORLDS {
        Trial::new(seed).run();
    }
    hidden::a_mark_is_tried_until_it_can_be_made();
    orphans::a_file_whose_removal_fails_while_orphans_are_looked_for_keeps_its_tombstone();
    rebuild::what_was_moved_behind_its_tombstone_stays_deleted();
    let found: BTreeSet<String> = take_transitions().iter().map(ToString::to_string).collect();
    if std::env::var_os(RENEW).is_some() {
        let text: String = found.iter().map(|line| format!("{line}\n")).collect();
        return std::fs::write(TABLE, text).unwrap();
    }
    let table = std::fs::read_to_string(TABLE).unwrap();
    let listed: BTreeSet<String> = table.lines().map(ToString::to_string).collect();
    let gone = listed.difference(&found).map(|line| format!("- {line}"));
    let new = found.difference(&listed).map(|line| format!("+ {line}"));
    let changes: Vec<String> = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "transitions.txt says something else:\n{}\nIf that is meant: {RENEW}=1 cargo test \
         -p ron-shards --lib transitions",
        changes.join("\n"),
    );
}
