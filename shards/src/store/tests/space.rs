//! A disk, a share or an index that is full refuses objects, and recovers by itself.

use super::*;

#[test]
fn a_full_disk_refuses_objects_and_recovers_by_itself() {
    let mut world = World::new(6);
    world.config.storage.reserve_bytes = 2_000_000;
    world.disk.set_capacity(12_000_000);
    world.restart();
    let mut stored = Vec::new();
    let refused = loop {
        let bytes = object(stored.len() as u64, 300_000);
        match world.put(&bytes) {
            Reply::Stored { .. } => stored.push(bytes),
            Reply::Failed(Fault::Full) => break bytes,
            other => panic!("{other:?}"),
        }
        world.now.mono_ns += limits::FREE_SPACE_AFTER_NS;
        world.settle();
        world.run();
    };
    assert!((25..=33).contains(&stored.len()), "{} objects", stored.len());
    assert_eq!(world.stats.partitions_full.get(), 1);
    assert!(stored.iter().all(|bytes| world.holds(bytes)), "reads go on");
    for bytes in stored.drain(3..) {
        assert!(
            matches!(ask_to_delete(&mut world, &bytes), Reply::Deleted),
            "below the reserve too"
        );
    }
    come_to_rest(&mut world);
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
        ask_to_delete(&mut world, &object(n, 900_000));
    }
    come_to_rest(&mut world);
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
        ask_to_delete(&mut world, &object(n, 100));
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
    come_to_rest(&mut world);
    assert_eq!(world.free_space.promised(0), 0);
}
