//! Faults of the commits: what was refused is not there, what was stored is, and a partition that
//! cannot write takes no more.

use super::*;

#[test]
fn a_full_disk_answers_full_and_recovers() {
    let mut world = World::new(11);
    world.put(&object(0, 5000));
    for times in [1, 3] {
        fail(&mut world, Kind::Write, times, ErrorKind::StorageFull);
        for n in 0..times as u64 {
            let reply = world.put(&object(100 + n, 9000));
            assert!(matches!(reply, Reply::Failed(Fault::Full)), "{reply:?}");
            assert!(!world.holds(&object(100 + n, 9000)));
        }
        world.disk.planted.clear();
    }
    let segments = world.segments().len();
    assert!(is_new(&world.put(&object(100, 9000))));
    assert_eq!(world.segments().len(), segments, "the segment is used on");
    assert!(world.holds(&object(0, 5000)));
    world.crash(3);
    assert!(world.holds(&object(0, 5000)) && world.holds(&object(100, 9000)));
    assert!(!world.holds(&object(101, 9000)));
}

#[test]
fn a_segment_whose_sync_failed_is_not_trusted_again() {
    let mut world = World::new(12);
    world.put(&object(0, 5000));
    fail(&mut world, Kind::Sync, 1, ErrorKind::Other);
    let reply = world.put(&object(1, 5000));
    assert!(matches!(reply, Reply::Failed(Fault::Disk)), "{reply:?}");
    assert!(!world.holds(&object(1, 5000)));
    let before = world.segments();
    assert!(is_new(&world.put(&object(1, 5000))));
    assert_eq!(world.segments().len(), before.len() + 1);
    assert_eq!(world.disk.bytes(&before[0]).len(), 8192, "it is cut to what was committed");
    for seed in 0..20 {
        world.crash(seed);
        assert!(world.holds(&object(0, 5000)) && world.holds(&object(1, 5000)));
    }
}

#[test]
fn a_segment_that_cannot_be_cut_ends_writing() {
    let mut world = World::new(13);
    world.put(&object(0, 5000));
    for kind in [Kind::Sync, Kind::Truncate] {
        fail(&mut world, kind, 1, ErrorKind::Other);
    }
    for n in 1..3 {
        let reply = world.put(&object(n, 5000));
        assert!(matches!(reply, Reply::Failed(Fault::Disk)), "{reply:?}");
    }
    assert!(world.holds(&object(0, 5000)), "reading goes on");
    world.stop();
}

#[test]
fn a_failed_checkpoint_is_tried_again() {
    let mut world = World::new(14);
    world.put(&object(0, 5000));
    fail(&mut world, Kind::Run, 1, ErrorKind::Other);
    world.checkpoint();
    assert!(world.notes.iter().any(|note| note.contains("checkpoint")));
    world.checkpoint();
    assert_eq!(world.store.wake_at(&world.free_space), None, "nothing is left to carry over");
    world.kill();
    assert!(world.holds(&object(0, 5000)));
}

#[test]
fn what_a_sync_that_failed_has_left_is_durable_before_it_counts() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        let (first, bytes) = (object(0, 3000), object(1, 5000));
        world.put(&first);
        fail(&mut world, Kind::Sync, 1, ErrorKind::Other);
        fail(&mut world, Kind::Truncate, 1, ErrorKind::Other);
        assert!(matches!(world.put(&bytes), Reply::Failed(Fault::Disk)));
        // The next process can read it, and says that it is stored.
        world.kill();
        assert!(matches!(world.put(&bytes), Reply::Stored { new: false }));
        world.disk.crash(seed);
        world.restart();
        assert!(world.holds(&bytes) && world.holds(&first));
    }
}

#[test]
fn what_a_cut_that_was_not_synced_took_away_does_not_come_back() {
    for seed in 0..16 {
        let mut world = World::new(seed);
        let (first, bytes) = (object(0, 3000), object(1, 5000));
        world.put(&first);
        world.put(&bytes);
        quiesce(&mut world);
        fail(&mut world, Kind::Sync, 2, ErrorKind::Other);
        let answer = world.answer(Ask::Delete { address: Address::of(&bytes) });
        assert!(matches!(answer, Reply::Failed(Fault::Disk)), "{answer:?}");
        // The next process finds the object, and nothing behind the last checkpoint.
        world.kill();
        assert!(matches!(world.put(&bytes), Reply::Stored { new: false }));
        world.disk.crash(100 + seed);
        world.restart();
        assert!(world.holds(&bytes) && world.holds(&first), "seed {seed}: {:?}", world.notes);
    }
}

#[test]
fn nobody_is_told_that_an_object_is_gone_whose_record_may_be_there() {
    for (seed, (cuts, syncs)) in (0..4).zip([(1, 1), (0, 2)].into_iter().cycle()) {
        let mut world = World::new(seed);
        let bytes = object(1, 3000);
        world.put(&object(0, 3000));
        fail(&mut world, Kind::Sync, syncs, ErrorKind::Other);
        fail(&mut world, Kind::Truncate, cuts, ErrorKind::Other);
        assert!(matches!(world.put(&bytes), Reply::Failed(Fault::Disk)));
        let gone = |world: &mut World| world.answer(Ask::Delete { address: Address::of(&bytes) });
        let answer = gone(&mut world);
        assert!(matches!(answer, Reply::Failed(Fault::Disk)), "{answer:?}");
        world.kill();
        let answer = gone(&mut world);
        assert!(matches!(answer, Reply::Deleted | Reply::Missing), "{answer:?}");
        world.kill();
        assert!(!world.holds(&bytes));
    }
}

#[test]
fn a_partition_whose_index_cannot_be_saved_takes_no_more() {
    let mut world = World::new(11);
    let bytes = object(1, 3000);
    world.put(&bytes);
    quiesce(&mut world);
    fail(&mut world, Kind::Run, usize::MAX, ErrorKind::StorageFull);
    let mut taken = 0;
    while matches!(world.put(&object(100 + taken, 3000)), Reply::Stored { new: true }) {
        taken += 1;
        world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
        world.settle();
        world.run();
        assert!(taken < 10, "{:?}", world.notes);
    }
    assert_eq!(taken, u64::from(limits::CHECKPOINT_FAILURES_MAX));
    assert_eq!(world.stats.partitions_read_only.get(), 1);
    assert!(world.notes.iter().any(|note| note.contains("cannot be saved")), "{:?}", world.notes);
    let address = Address::of(&bytes);
    assert!(matches!(world.answer(Ask::Delete { address }), Reply::Failed(Fault::Disk)));
    assert!(world.holds(&bytes) && world.holds(&object(100, 3000)), "reads go on");
    world.disk.planted.clear();
    quiesce(&mut world);
    assert_eq!(world.stats.partitions_read_only.get(), 0, "{:?}", world.notes);
    assert!(matches!(world.put(&object(200, 3000)), Reply::Stored { new: true }));
    delete(&mut world, &bytes);
    world.kill();
    assert!(!world.holds(&bytes) && world.holds(&object(100, 3000)));
}

/// So much was changed since the last checkpoint that a commit must wait for the next, and that
/// fails: nobody waits for it without an end.
#[test]
fn what_waits_for_an_index_that_cannot_be_saved_is_answered() {
    for stops in [false, true] {
        let mut world = World::new(20);
        fail(&mut world, Kind::Run, usize::MAX, ErrorKind::StorageFull);
        let held = |op: &DiskOp| matches!(op, DiskOp::Run(_));
        let mut taken = 0;
        while taken < limits::MEMTABLE_MAX as u64 {
            for n in 0..1024 {
                let ask = world.put_ask(&(taken + n).to_le_bytes());
                world.ask(ask);
            }
            while world.step_where(|op| !held(op)) {}
            taken += 1024;
        }
        let stored = world.answers.values().filter(|reply| is_new(reply)).count();
        assert_eq!(stored as u64, taken, "all of it is stored");
        let ask = world.put_ask(b"one more");
        let put = world.ask(ask);
        let address = Address::of(&0_u64.to_le_bytes());
        let delete = world.ask(Ask::Delete { address });
        while world.step_where(|op| !held(op)) {}
        assert!(!world.answers.contains_key(&put) && !world.answers.contains_key(&delete));
        if stops {
            world.stop();
        } else {
            for _ in 0..limits::CHECKPOINT_FAILURES_MAX {
                world.run();
                world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
                world.settle();
            }
        }
        for asked in [put, delete] {
            let answer = world.answers.remove(&asked);
            assert!(matches!(answer, Some(Reply::Failed(Fault::Disk))), "{stops} {answer:?}");
        }
    }
}

#[test]
fn a_partition_that_cannot_begin_a_segment_is_read_only_until_it_can() {
    let mut world = World::new(18);
    let times = limits::BEGIN_FAILURES_MAX;
    for n in 0..times {
        assert_eq!(world.stats.partitions_read_only.get(), 0);
        fail(&mut world, Kind::Open, 1, ErrorKind::PermissionDenied);
        let answer = world.put(&object(n.into(), 3000));
        assert!(matches!(answer, Reply::Failed(Fault::Disk)), "{answer:?}");
    }
    assert_eq!(world.stats.partitions_read_only.get(), 1, "the next who looks sees it");
    let answer = world.put(&object(9, 3000));
    assert!(matches!(answer, Reply::Stored { new: true }), "{answer:?}");
    assert_eq!(world.stats.partitions_read_only.get(), 0);
}
