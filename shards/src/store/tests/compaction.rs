//! Sparse segments are compacted at a pace, and no deletion is undone with them.

use ron_codec::record::{RecordHeader, RecordKind};

use super::*;

#[test]
fn compaction_gives_the_room_of_deleted_objects_back() {
    let mut world = World::new(4);
    let objects: Vec<Vec<u8>> = (0..40).map(|n| object(n, 200_000)).collect();
    for bytes in &objects {
        world.put(bytes);
    }
    let full = world.stats.segment_bytes.get();
    for bytes in objects.iter().step_by(4).chain(objects.iter().skip(1).step_by(4)) {
        ask_to_delete(&mut world, bytes);
    }
    for bytes in objects.iter().skip(2).step_by(4) {
        ask_to_delete(&mut world, bytes);
    }
    come_to_rest(&mut world);
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
    for bytes in &live[..limits::COMPACT_IN_PROGRESS_MAX + 1] {
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
        let at = world.store.wake_at(&world.free_space).expect("it goes on by itself");
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
    come_to_rest(&mut world);
    let path = world.segments().remove(0);
    world.disk.damage(&path, |bytes| bytes[150_000] ^= 1);
    for bytes in &objects[1..] {
        ask_to_delete(&mut world, bytes);
    }
    come_to_rest(&mut world);
    assert!(world.segments().contains(&path));
    assert!(world.notes.iter().any(|note| note.contains("is not compacted")), "{:?}", world.notes);
    world.chill();
    assert_eq!(world.get(&Address::of(&objects[0])), Err(Some(Fault::Integrity)));
}

/// A live object in segment 1 with one that is deleted in segment 2, which has enough that is dead
/// to be compacted.
fn tombstone_in_a_sparse_segment(world: &mut World) -> Vec<u8> {
    let gone = object(1, 5000);
    let below = std::mem::take(&mut world.config.storage.compact_below_percent);
    world.put(&object(0, 900_000));
    world.put(&gone);
    world.kill();
    delete(world, &gone);
    for n in 10..14 {
        world.put(&object(n, 700_000));
    }
    for n in 10..14 {
        delete(world, &object(n, 700_000));
    }
    quiesce(world);
    world.config.storage.compact_below_percent = below;
    gone
}

#[test]
fn a_tombstone_that_was_not_moved_stays_where_it_was() {
    for kind in [Kind::Write, Kind::Sync, Kind::Open] {
        for skip in 0..4 {
            let mut world = World::new(2);
            let gone = tombstone_in_a_sparse_segment(&mut world);
            boot(&mut world);
            let fault = Planted { kind, skip, times: 1, error: ErrorKind::StorageFull };
            world.disk.planted.push(fault);
            quiesce(&mut world);
            assert!(!world.holds(&gone));
            lose_index(&mut world);
            assert!(!world.holds(&gone), "{kind:?} {skip}: a deletion is undone");
            assert!(world.holds(&object(0, 900_000)));
        }
    }
}

#[test]
fn compaction_waits_before_it_tries_again() {
    for (kind, error) in [
        (Kind::Run, ErrorKind::Other),
        (Kind::Write, ErrorKind::StorageFull),
        (Kind::Open, ErrorKind::StorageFull),
        (Kind::Sync, ErrorKind::Other),
        (Kind::Truncate, ErrorKind::Other),
    ] {
        let mut world = World::new(3);
        let gone = tombstone_in_a_sparse_segment(&mut world);
        boot(&mut world);
        fail(&mut world, kind, usize::MAX, error);
        for _ in 0..5 {
            settle_now(&mut world);
            world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
            world.settle();
        }
        let notes = world.notes.len();
        assert!(notes < 60, "{kind:?}: {notes} lines, {:?}", &world.notes[notes - 3..]);
        world.disk.planted.clear();
        quiesce(&mut world);
        assert!(!world.holds(&gone) && world.holds(&object(0, 900_000)));
        // After these the partition takes no more writes, or leaves the segment to a restart.
        let ended = matches!(kind, Kind::Truncate | Kind::Sync | Kind::Open);
        assert!(ended || world.stats.compactions.get() > 0, "{kind:?}");
    }
}

fn tombstones(world: &World) -> usize {
    let mut found = 0;
    for path in world.segments() {
        let (segment, mut at) = (world.disk.bytes(&path), 0);
        while let Some(Ok(header)) = segment.get(at..).map(RecordHeader::decode) {
            found += usize::from(header.kind() == RecordKind::Tombstone);
            at += header.record_len() as usize;
        }
    }
    found
}

#[test]
fn the_log_does_not_grow_with_deletions() {
    const ROUND: u64 = 512;
    let mut world = World::new(9);
    world.config.storage.max_bytes = Some(20 * 1024 * 1024);
    // Too long to be one of many small segments.
    let kept: Vec<Vec<u8>> = (0..5).map(|n| object(n, 1 << 20)).collect();
    for bytes in &kept {
        world.put(bytes);
    }
    // The segment of those that stay is the oldest from now on.
    world.stop();
    world.restart();
    for round in 0..40 {
        let objects: Vec<Vec<u8>> =
            (0..ROUND).map(|n| object((round << 32) + n + 1000, 100)).collect();
        for bytes in &objects {
            let ask = world.put_ask(bytes);
            world.ask(ask);
        }
        world.run();
        for bytes in &objects {
            world.ask(Ask::Delete { address: Address::of(bytes) });
        }
        quiesce(&mut world);
        let refused = |reply: &Reply| matches!(reply, Reply::Failed(_));
        assert!(!std::mem::take(&mut world.answers).values().any(refused), "round {round}");
    }
    let most = (limits::COMPACT_DEAD_MIN / 128 + ROUND) as usize;
    assert!(tombstones(&world) <= most, "{} tombstones", tombstones(&world));
    assert!(
        world.segments().iter().map(|path| world.disk.bytes(path).len()).sum::<usize>() < 14 << 20
    );
    assert!(kept.iter().all(|bytes| world.holds(bytes)));
    lose_index(&mut world);
    assert!(kept.iter().all(|bytes| world.holds(bytes)));
    assert_eq!(world.stats.objects.get(), 5);
}

/// Nothing but the index speaks for what lies behind a damaged header, and of tombstones it knows
/// only how many there are.
#[test]
fn tombstones_behind_damage_keep_their_segment() {
    let mut world = World::new(24);
    world.config.compact_dead_min = 16 << 10;
    let (gone, first, second) = (object(1, 5000), object(2, 30_000), object(3, 30_000));
    world.put(&gone);
    world.put(&object(4, 200_000));
    world.kill();
    world.put(&first);
    world.put(&second);
    delete(&mut world, &gone);
    world.stop();
    let segment = world.segments().remove(1);
    let at = digest_in(&world, &segment, &Address::of(&second));
    world.disk.damage(&segment, |bytes| bytes[at] ^= 1);
    world.restart();
    delete(&mut world, &first);
    delete(&mut world, &second);
    quiesce(&mut world);
    assert!(world.segments().contains(&segment), "a tombstone is gone: {:?}", world.notes);
    assert!(world.notes.iter().any(|note| note.contains("is not compacted")), "{:?}", world.notes);
    // Once all of it can be read it is compacted as any other.
    world.disk.damage(&segment, |bytes| bytes[at] ^= 1);
    world.stop();
    world.restart();
    quiesce(&mut world);
    assert!(!world.segments().contains(&segment), "{:?}", world.notes);
    lose_index(&mut world);
    assert!(!world.holds(&gone) && world.holds(&object(4, 200_000)));
}
