//! Deletion, compaction and room, on the disk twin.

use std::collections::{BTreeMap, BTreeSet};

use ron_codec::address::Address;
use ron_io::ports::DiskOp;

use super::{
    Store,
    testdisk::{Kind, Planted},
    testworld::{World, hashed, object},
};
use crate::{
    entropy::Entropy,
    flow::{Ask, Fault, Reply},
    limits,
};

const LARGE: usize = 1_100_000;

fn delete(world: &mut World, bytes: &[u8]) -> Reply {
    world.answer(Ask::Delete { address: Address::of(bytes) })
}

fn put_large(world: &mut World, bytes: &[u8]) -> Reply {
    let ask = world.upload(bytes);
    world.answer(ask)
}

/// Performs acts and turns until nothing is left to do, checkpoints included.
fn quiesce(world: &mut World) {
    loop {
        world.run();
        match world.store.wake_at(&world.room) {
            Some(at) => world.now.mono_ns = world.now.mono_ns.max(at),
            None => return,
        }
        world.settle();
    }
}

fn lose_index(world: &mut World) {
    world.store = Store::new(&world.config);
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.crash(1);
}

#[test]
fn what_is_deleted_is_gone_and_stays_gone() {
    for large in [false, true] {
        let mut world = World::new(1);
        let kept = object(1, 5000);
        let gone = object(2, if large { LARGE } else { 70_000 });
        world.put(&kept);
        let put = |world: &mut World| match large {
            true => put_large(world, &gone),
            false => world.put(&gone),
        };
        assert!(matches!(put(&mut world), Reply::Stored { new: true }));
        assert!(world.holds(&gone));
        assert!(matches!(delete(&mut world, &gone), Reply::Deleted));
        assert!(!world.holds(&gone), "not even in the cache");
        assert!(matches!(delete(&mut world, &gone), Reply::Missing));
        let path = world.config.layout.object_path(0, &Address::of(&gone));
        assert!(!world.disk.paths().contains(&path));
        world.crash(7);
        assert!(!world.holds(&gone) && world.holds(&kept));
        lose_index(&mut world);
        assert!(!world.holds(&gone) && world.holds(&kept));
        assert!(matches!(put(&mut world), Reply::Stored { new: true }));
        world.crash(8);
        lose_index(&mut world);
        assert!(world.holds(&gone));
        assert_eq!((world.stats.objects.get(), world.stats.deletes.get()), (2, 0));
    }
}

#[test]
fn deletions_of_one_object_at_once_share_a_tombstone() {
    let mut world = World::new(2);
    let bytes = object(1, 9000);
    world.put(&bytes);
    let asked: Vec<u32> =
        (0..3).map(|_| world.ask(Ask::Delete { address: Address::of(&bytes) })).collect();
    // An object that is put while it is being deleted is there still.
    let put = world.put_ask(&bytes);
    let put = world.ask(put);
    world.run();
    assert!(matches!(world.answers[&put], Reply::Stored { new: false }));
    assert!(asked.iter().all(|asked| matches!(world.answers[asked], Reply::Deleted)));
    assert_eq!(world.stats.sync_writes.get(), 2);
    assert!(!world.holds(&bytes));
}

#[test]
fn a_file_that_comes_again_is_not_removed_with_the_old_one() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let bytes = object(3, LARGE);
        put_large(&mut world, &bytes);
        let address = Address::of(&bytes);
        let asked = world.ask(Ask::Delete { address });
        // The tombstone is durable and the file about to be removed when the object comes again.
        while !world.pending.iter().any(|(_, op)| matches!(op, DiskOp::Remove { .. })) {
            assert!(world.step());
        }
        let again = world.upload(&bytes);
        let again = world.ask(again);
        world.run();
        assert!(matches!(world.answers[&asked], Reply::Deleted));
        assert!(matches!(world.answers[&again], Reply::Stored { new: true }));
        world.chill();
        assert!(world.holds(&bytes), "seed {seed}");
        world.crash(seed);
        assert!(world.holds(&bytes), "seed {seed}");
    }
}

#[test]
fn compaction_gives_the_room_of_deleted_objects_back() {
    let mut world = World::new(4);
    let objects: Vec<Vec<u8>> = (0..40).map(|n| object(n, 200_000)).collect();
    for bytes in &objects {
        world.put(bytes);
    }
    let full = world.stats.segment_bytes.get();
    for bytes in objects.iter().step_by(4).chain(objects.iter().skip(1).step_by(4)) {
        delete(&mut world, bytes);
    }
    for bytes in objects.iter().skip(2).step_by(4) {
        delete(&mut world, bytes);
    }
    quiesce(&mut world);
    let live: Vec<&Vec<u8>> = objects.iter().skip(3).step_by(4).collect();
    assert!(world.stats.compactions.get() >= 1);
    assert!(world.stats.segment_bytes.get() < full / 2, "{:?}", world.segments());
    assert_eq!(world.stats.objects.get(), 10);
    let on_disk: usize = world.segments().iter().map(|path| world.disk.bytes(path).len()).sum();
    assert_eq!(on_disk as u64, world.stats.segment_bytes.get());
    world.chill();
    for rebuilt in [false, true] {
        if rebuilt {
            lose_index(&mut world);
        }
        for (n, bytes) in objects.iter().enumerate() {
            assert_eq!(world.holds(bytes), live.contains(&bytes), "object {n}, {rebuilt}");
        }
        world.crash(9);
    }
}

/// Reads and moves of the compaction are all there is but what is held back below.
#[test]
fn compaction_yields_to_a_busy_disk_and_goes_on_at_its_pace() {
    let mut world = World::new(4);
    let live: Vec<Vec<u8>> = (0..64).map(|n| object(n, 500_000)).collect();
    let dead: Vec<Vec<u8>> = (100..180).map(|n| object(n, 500_000)).collect();
    for (nth, bytes) in dead.iter().enumerate() {
        world.put(bytes);
        live.get(nth).map(|bytes| world.put(bytes));
    }
    for bytes in &dead {
        world.ask(Ask::Delete { address: Address::of(bytes) });
    }
    // Others want the disk all the time, and do not get it.
    world.chill();
    for bytes in &live[..limits::COMPACT_UNDER_WAY_MAX + 1] {
        world.ask(Ask::Open { address: Address::of(bytes), first: Some(0) });
    }
    let held = |op: &DiskOp| matches!(op, DiskOp::Read { .. });
    let begun = world.now.mono_ns;
    let passed = loop {
        while world.step_where(|op| !held(op)) {}
        if world.stats.compactions.get() > 0 {
            break world.now.mono_ns - begun;
        }
        let moved = world.stats.compact_moved_bytes.get();
        let allowed = u128::from(world.now.mono_ns - begun)
            * u128::from(limits::COMPACT_YIELDING_BYTES_PER_S)
            / 1_000_000_000;
        let step = u128::from(limits::PACE_BURST_LEN.unsigned_abs()) + 2 * 1024 * 1024;
        assert!(u128::from(moved) <= allowed + step, "{moved} of {allowed}");
        let at = world.store.wake_at(&world.room).expect("it goes on by itself");
        assert!(at > world.now.mono_ns, "it does not ask again at once");
        world.now.mono_ns = at;
        world.settle();
    };
    let least = 32_000_000 * 1_000_000_000 / limits::COMPACT_YIELDING_BYTES_PER_S;
    assert!(passed > least / 2, "{passed} ns");
    assert_eq!(world.pending.iter().filter(|(_, op)| held(op)).count(), 9);
    world.run();
    live.iter().for_each(|bytes| assert!(world.holds(bytes)));
}

#[test]
fn a_segment_with_damage_is_left_alone() {
    let mut world = World::new(5);
    let objects: Vec<Vec<u8>> = (0..20).map(|n| object(n, 200_000)).collect();
    for bytes in &objects {
        world.put(bytes);
    }
    quiesce(&mut world);
    let path = world.segments().remove(0);
    world.disk.damage(&path, |bytes| bytes[150_000] ^= 1);
    for bytes in &objects[1..] {
        delete(&mut world, bytes);
    }
    quiesce(&mut world);
    assert!(world.segments().contains(&path));
    assert!(world.notes.iter().any(|note| note.contains("is not compacted")), "{:?}", world.notes);
    world.chill();
    assert_eq!(world.get(&Address::of(&objects[0])), Err(Some(Fault::Integrity)));
}

#[test]
fn a_full_disk_refuses_objects_and_recovers_by_itself() {
    let mut world = World::new(6);
    world.config.storage.reserve_bytes = 2_000_000;
    world.disk.capacity = 12_000_000;
    world.restart();
    let mut stored = Vec::new();
    let refused = loop {
        let bytes = object(stored.len() as u64, 300_000);
        match world.put(&bytes) {
            Reply::Stored { .. } => stored.push(bytes),
            Reply::Failed(Fault::Full) => break bytes,
            other => panic!("{other:?}"),
        }
        world.now.mono_ns += limits::ROOM_AFTER_NS;
        world.settle();
        world.run();
    };
    assert!((25..=33).contains(&stored.len()), "{} objects", stored.len());
    assert_eq!(world.stats.partitions_full.get(), 1);
    assert!(stored.iter().all(|bytes| world.holds(bytes)), "reads go on");
    for bytes in stored.drain(3..) {
        assert!(matches!(delete(&mut world, &bytes), Reply::Deleted), "below the reserve too");
    }
    quiesce(&mut world);
    assert!(matches!(world.put(&refused), Reply::Stored { new: true }));
    assert_eq!(world.stats.partitions_full.get(), 0);
    assert!(stored.iter().all(|bytes| world.holds(bytes)));
}

#[test]
fn the_share_of_max_bytes_is_kept() {
    let mut world = World::new(7);
    world.config.storage.max_bytes = Some(3_000_000);
    world.restart();
    for n in 0..2 {
        assert!(matches!(world.put(&object(n, 900_000)), Reply::Stored { .. }));
    }
    assert!(matches!(world.put(&object(2, 1_000_000)), Reply::Stored { .. }));
    assert!(matches!(world.put(&object(3, 200_000)), Reply::Failed(Fault::Full)));
    assert!(matches!(put_large(&mut world, &object(4, LARGE)), Reply::Failed(Fault::Full)));
    let tmp = world.config.layout.tmp_dir(0);
    assert!(!world.disk.paths().iter().any(|path| path.starts_with(&tmp)));
    assert!(matches!(world.put(&object(1, 900_000)), Reply::Stored { new: false }));
    for n in 0..2 {
        delete(&mut world, &object(n, 900_000));
    }
    quiesce(&mut world);
    assert!(matches!(world.put(&object(3, 200_000)), Reply::Stored { new: true }));
}

#[test]
fn a_full_index_refuses_objects_and_warns_before() {
    let mut world = World::new(8);
    world.config.storage.index_len = 4096;
    world.restart();
    let mut taken = 0;
    let warned = |world: &World| world.notes.iter().filter(|n| n.contains("index takes")).count();
    while matches!(world.put(&object(taken, 100)), Reply::Stored { new: true }) {
        taken += 1;
        assert!(taken < 90, "it is never full");
        assert!(warned(&world) <= 1, "once");
        assert_eq!(world.stats.partitions_full.get(), 0);
    }
    assert_eq!((warned(&world), world.stats.partitions_full.get()), (1, 1));
    assert!(taken >= 60, "{taken} objects");
    assert!(matches!(world.put(&object(taken, 100)), Reply::Failed(Fault::Full)));
    assert!(matches!(put_large(&mut world, &object(0, LARGE)), Reply::Failed(Fault::Full)));
    assert!(matches!(world.put(&object(1, 100)), Reply::Stored { new: false }));
    assert!((0..taken).all(|n| world.holds(&object(n, 100))));
    let (bytes, limit) = (world.stats.index_bytes.get(), world.stats.index_limit_bytes.get());
    assert!(limit == 4096 && (limit..limit + 1024).contains(&bytes), "{bytes} of {limit}");
    // A smaller limit keeps no node from starting.
    world.stop();
    world.config.storage.index_len = 1000;
    world.restart();
    assert!((0..taken).all(|n| world.holds(&object(n, 100))));
    assert!(matches!(world.put(&object(taken, 100)), Reply::Failed(Fault::Full)));
    world.config.storage.index_len = 4096;
    world.stop();
    world.restart();
    for n in 0..taken / 2 {
        delete(&mut world, &object(n, 100));
    }
    assert!(matches!(world.put(&object(taken, 100)), Reply::Stored { new: true }));
    assert_eq!(world.stats.partitions_full.get(), 0);
}

#[test]
fn uploads_at_once_do_not_share_what_is_left_of_max_bytes() {
    let mut world = World::new(8);
    world.config.storage.max_bytes = Some(3_000_000);
    world.restart();
    let asked: Vec<u32> = (0..4)
        .map(|n| {
            let ask = world.upload(&object(n, LARGE));
            world.ask(ask)
        })
        .collect();
    world.run();
    let stored = |asked: &&u32| matches!(world.answers[*asked], Reply::Stored { new: true });
    assert_eq!(asked.iter().filter(stored).count(), 2, "{:?}", world.answers);
    assert_eq!(world.stats.file_bytes.get() / 1_000_000, 2);
    quiesce(&mut world);
    assert_eq!(world.room.promised(0), 0);
}

/// Objects at random, and what is known of them.
struct Gamble {
    world: World,
    entropy: Entropy,
    objects: Vec<Vec<u8>>,
    /// What was answered last: there, gone, or unknown since something was not answered.
    known: BTreeMap<usize, Option<bool>>,
    /// Objects whose put was cut off: they may come to light when the index is rebuilt.
    cut_off: BTreeSet<usize>,
}

impl Gamble {
    fn new(seed: u64) -> Gamble {
        let len = |n: u64| if n < 3 { LARGE } else { 150_000 * n as usize / 2 };
        Gamble {
            world: World::new(seed),
            entropy: Entropy::new(seed),
            objects: (0..12).map(|n| object(n + seed * 100, len(n))).collect(),
            known: (0..12).map(|n| (n, Some(false))).collect(),
            cut_off: BTreeSet::new(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.entropy.next_u64() % end
    }

    /// Asks for puts and deletions, and lets some of the acts be performed.
    fn play(&mut self) {
        let mut asked: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
        for _ in 0..self.below(14) {
            let nth = self.below(12) as usize;
            if asked.values().any(|(other, _)| *other == nth) {
                continue;
            }
            let put = self.below(5) < 3;
            let bytes = &self.objects[nth];
            let ask = match (put, bytes.len() > 1024 * 1024) {
                (false, _) => Ask::Delete { address: hashed(bytes).address },
                (true, true) => self.world.upload(bytes),
                (true, false) => self.world.put_ask(bytes),
            };
            self.known.insert(nth, None);
            asked.insert(self.world.ask(ask), (nth, put));
            for _ in 0..self.below(6) {
                self.world.step();
            }
        }
        if self.below(3) > 0 {
            self.world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
            self.world.settle();
        }
        for _ in 0..self.below(40) {
            if !self.world.step() {
                self.world.settle();
            }
        }
        self.learn(&asked);
    }

    fn learn(&mut self, asked: &BTreeMap<u32, (usize, bool)>) {
        for (asked, (nth, put)) in asked {
            match self.world.answers.get(asked) {
                Some(Reply::Missing) if self.cut_off.contains(nth) => {}
                Some(Reply::Stored { .. } | Reply::Deleted | Reply::Missing) => {
                    self.cut_off.remove(nth);
                    self.known.insert(*nth, Some(*put));
                }
                Some(other) => panic!("{other:?}"),
                None if *put => drop(self.cut_off.insert(*nth)),
                None => {}
            }
        }
    }

    fn check(&mut self, what: &str) {
        for (nth, bytes) in self.objects.iter().enumerate() {
            let there = self.world.holds(bytes);
            if let Some(known) = self.known[&nth] {
                assert_eq!(there, known, "{what}, object {nth}");
            }
            if there {
                self.known.insert(nth, Some(true));
            }
        }
    }
}

#[test]
fn no_crash_undoes_what_was_answered() {
    let mut compactions = 0;
    for seed in 0..150 {
        let mut gamble = Gamble::new(seed);
        for round in 0..4 {
            gamble.play();
            compactions += gamble.world.stats.compactions.get();
            if round % 2 == 0 {
                gamble.world.crash(seed * 10 + round);
            } else {
                lose_index(&mut gamble.world);
            }
            gamble.check(&format!("seed {seed}, round {round}"));
        }
        quiesce(&mut gamble.world);
        let Gamble { world, objects, .. } = &mut gamble;
        let there = objects.iter().filter(|bytes| world.holds(bytes)).count();
        assert_eq!(world.stats.objects.get(), there as u64, "seed {seed}");
    }
    assert!(compactions > 10, "{compactions} segments were compacted before a crash");
}

#[test]
fn a_file_that_cannot_be_removed_is_noted_and_no_more() {
    let mut world = World::new(8);
    let bytes = object(1, LARGE);
    put_large(&mut world, &bytes);
    let error = std::io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Remove, skip: 0, times: 1, error });
    assert!(matches!(delete(&mut world, &bytes), Reply::Deleted));
    assert!(world.notes.iter().any(|note| note.contains("its file stays")));
    assert!(!world.holds(&bytes));
    lose_index(&mut world);
    assert!(!world.holds(&bytes), "the tombstone is remembered");
    assert!(!world.disk.paths().iter().any(|path| path.extension().is_some_and(|e| e == "obj")));
}

#[test]
fn an_upload_that_cannot_be_taken_leaves_no_file() {
    let mut world = World::new(10);
    let bytes = object(1, LARGE);
    world.begin_restart();
    for _ in 0..3 {
        assert!(world.step(), "the partition is not open yet");
    }
    let ask = world.upload(&bytes);
    let Ask::Adopt { path, .. } = &ask else { panic!("{ask:?}") };
    let path = path.clone();
    let asked = world.ask(ask);
    assert!(matches!(world.answers[&asked], Reply::Failed(Fault::Busy)));
    world.run();
    assert!(!world.disk.paths().contains(&path));
    assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
}
