//! What was stored is served, with no more reads and writes than it takes.

use ron_codec::limits::GROUP_LEN;

use super::*;

#[test]
fn objects_of_every_shape_survive_a_restart() {
    let mut world = World::new(1);
    let large = object(99, 5 * 1024 * 1024 + 777);
    for bytes in shapes() {
        assert!(is_new(&world.put(&bytes)), "{} bytes", bytes.len());
        world.chill();
        assert!(world.holds(&bytes));
    }
    let ask = world.upload(&large);
    assert!(is_new(&world.answer(ask)));
    assert!(world.holds(&large));
    let count = shapes().len() as u64 + 1;
    assert_eq!(world.stats.objects.get(), count);
    world.stop();
    assert_eq!(world.disk.open_files(), 0);
    world.restart();
    assert!(world.notes.is_empty(), "{:?}", world.notes);
    assert_eq!(world.stats.objects.get(), count);
    assert!(shapes().iter().chain([&large]).all(|bytes| world.holds(bytes)));
    world.kill();
    assert!(shapes().iter().chain([&large]).all(|bytes| world.holds(bytes)));
    assert!(!world.holds(b"never stored"));
}

#[test]
fn asks_before_the_boot_has_ended_are_told_to_come_again() {
    let mut world = World::new(1);
    world.store = Store::new(&world.config);
    let address = Address::of(b"");
    let reply = world.answer(Ask::Open { address, first: None });
    assert!(matches!(reply, Reply::Failed(Fault::Busy)));
}

#[test]
fn appends_that_wait_share_one_sync() {
    let mut world = World::new(2);
    let first = world.put_ask(&object(0, 100));
    world.ask(first);
    for n in 1..50 {
        let ask = world.put_ask(&object(n, 100));
        world.ask(ask);
    }
    world.run();
    assert!(world.answers.values().all(is_new));
    assert_eq!((world.stats.syncs.get(), world.stats.sync_writes.get()), (2, 50));
    assert!((0..50).all(|n| world.holds(&object(n, 100))));
}

#[test]
fn an_object_that_is_there_or_on_its_way_costs_no_write() {
    let mut world = World::new(3);
    let bytes = object(7, 5000);
    let asks = [world.put_ask(&bytes), world.put_ask(&bytes), world.upload(&bytes)];
    let asked = asks.map(|ask| world.ask(ask));
    world.run();
    let new = asked.map(|asked| is_new(&world.answers[&asked]));
    assert_eq!(new, [true, false, false]);
    let written = world.disk.written;
    assert!(!is_new(&world.put(&bytes)));
    let ask = world.upload(&bytes);
    assert!(!is_new(&world.answer(ask)));
    assert_eq!((world.disk.written, world.stats.syncs.get()), (written, 1));
    let tmp = world.config.layout.tmp_dir(0);
    assert!(!world.disk.paths().iter().any(|path| path.starts_with(&tmp)), "uploads are removed");
    assert_eq!(world.stats.objects.get(), 1);
}

#[test]
fn a_hit_asks_the_disk_nothing() {
    let mut world = World::new(4);
    let bytes = object(1, GROUP_LEN);
    world.put(&bytes);
    let performed = world.disk.performed.len();
    assert!(world.holds(&bytes), "kept when it was put");
    world.chill();
    assert!(world.holds(&bytes));
    assert!(world.disk.performed.len() > performed);
    let performed = world.disk.performed.len();
    assert!(world.holds(&bytes));
    let behind = Ask::Open { address: Address::of(&bytes), first: Some(GROUP_LEN as u64) };
    let Reply::Opened { size, first: None } = world.answer(behind) else { panic!() };
    assert_eq!(size, GROUP_LEN as u64);
    assert_eq!(world.disk.performed.len(), performed);
    assert_eq!((world.stats.cache_hits.get(), world.stats.cache_misses.get()), (2, 1));
    assert_eq!(world.stats.verify_groups.get(), 1);
    assert_eq!(world.stats.verify_bytes.get(), GROUP_LEN as u64);
}

#[test]
fn readers_of_one_group_share_one_read() {
    let mut world = World::new(5);
    let bytes = object(1, 200_000);
    world.put(&bytes);
    let address = Address::of(&bytes);
    for _ in 0..10 {
        world.ask(Ask::Open { address, first: Some(70_000) });
        world.ask(Ask::Group { address, index: 1, begins: false, ahead: false });
    }
    world.run();
    let reads = world.disk.performed.iter().filter(|kind| **kind == Kind::Read).count();
    assert_eq!((reads, world.answers.len()), (1, 20));
    assert!(matches!(
        world.answer(Ask::Group { address, index: 4, begins: false, ahead: false }),
        Reply::Missing
    ));
}

#[test]
fn reads_have_only_so_many_files() {
    let mut world = World::new(10);
    let objects: Vec<_> = (0..12).map(|n| object(n, 1024 * 1024 + 1)).collect();
    for bytes in &objects {
        let ask = world.upload(bytes);
        assert!(is_new(&world.answer(ask)));
    }
    // Fewer than would stay open idle, so that all of them are needed by others in the end.
    world.config.read_files_max = 3;
    let others = world.disk.open_files();
    for round in 0..2 {
        world.chill();
        for bytes in &objects {
            world.ask(Ask::Open { address: Address::of(bytes), first: Some(0) });
        }
        let mut most = 0;
        while world.step() {
            most = most.max(world.disk.open_files() - others);
        }
        assert_eq!(most, 3, "round {round}");
        let opened = |reply: &Reply| matches!(reply, Reply::Opened { first: Some(_), .. });
        assert_eq!(world.answers.values().filter(|reply| opened(reply)).count(), objects.len());
        world.answers.clear();
    }
}

#[test]
fn a_segment_that_is_full_is_followed_by_another() {
    let mut world = World::new(15);
    // Batches of nearly 4 MiB: 64 of them fill a segment.
    for n in 0..260_u64 {
        let bytes = object(n % 2 * 1000 + n, 1024 * 1024);
        assert!(is_new(&world.put(&bytes)));
    }
    assert_eq!(world.segments().len(), 2);
    for path in world.segments() {
        assert!(world.disk.bytes(&path).len() as u64 <= ron_codec::limits::SEGMENT_LEN_MAX);
    }
    assert!(world.holds(&object(0, 1024 * 1024)) && world.holds(&object(1259, 1024 * 1024)));
    let runs = world.disk.performed.iter().filter(|kind| **kind == Kind::Run).count();
    assert!(runs > 3, "a long tail starts checkpoints: {runs}");
    world.crash(1);
    assert!(world.holds(&object(0, 1024 * 1024)) && world.holds(&object(1259, 1024 * 1024)));
}
