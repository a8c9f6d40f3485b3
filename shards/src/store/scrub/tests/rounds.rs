//! Whole rounds: what they read, at what pace, and beside whom.

use ron_codec::address::Address;
use ron_io::ports::VerifyOutcome;

use super::{
    SECOND_NS, a_world, digests, flip, place, places_left, put_all, round, round_goes_on, turn,
};
use crate::{
    flow::Ask,
    limits::{CHECKPOINT_AFTER_NS, PACE_BURST_LEN, SCRUB_READ_LEN},
    store::tests::world::{object, shapes},
};

#[test]
fn a_clean_round_reads_everything_and_finds_nothing() {
    let mut world = a_world(1);
    let mut objects = shapes();
    objects.push(object(98, 1024 * 1024 + 1));
    objects.push(object(99, 5 * 1024 * 1024 + 777));
    put_all(&mut world, &objects);
    let files = world.disk.open_files();
    for nth in 1..3 {
        world.now.unix_ms = 1_000_000 * nth;
        round(&mut world);
        let stats = &world.stats;
        let count = objects.len() as u64;
        assert_eq!((stats.scrub_objects.get(), stats.scrub_rounds.get()), (nth * count, nth));
        let bytes: u64 = objects.iter().map(|bytes| bytes.len() as u64).sum();
        assert!(stats.scrub_bytes.get() >= nth * bytes);
        assert_eq!((stats.damaged_objects.get(), stats.scrub_repaired.get()), (0, 0));
        assert_eq!(stats.integrity_fail.get(), 0);
        assert_eq!(stats.scrub_finished_unix_s.get(), 1000 * nth);
        assert!(world.notes.iter().any(|note| note.contains("13 objects, 0 damaged")));
        assert_eq!(world.disk.open_files(), files, "what it opened is closed");
        assert!(world.damaged.is_empty());
    }
    assert_eq!(world.store.wake_at(&world.free_space).map(|at| at > world.now.mono_ns), Some(true));
    world.now.mono_ns += CHECKPOINT_AFTER_NS;
    world.settle();
    world.run();
    assert_eq!(world.store.wake_at(&world.free_space), None, "an idle node stays idle");
}

#[test]
fn an_empty_partition_is_scrubbed_too() {
    let mut world = a_world(1);
    round(&mut world);
    assert_eq!((world.stats.scrub_objects.get(), world.stats.scrub_bytes.get()), (0, 0));
}

#[test]
fn a_round_goes_through_all_partitions_that_serve() {
    let mut world = a_world(17);
    let dir = world.config.layout.volumes[0].clone();
    world.config.layout.volumes = vec![dir.clone(), dir.join("lost")];
    world.config.layout.absent = vec![1];
    world.config.layout.partitions = 5;
    world.restart();
    let all: Vec<_> = (0..60).map(|n| object(n, 30_000)).collect();
    let layout = world.config.layout.clone();
    let absent = |bytes: &Vec<u8>| layout.is_absent(layout.owner(&Address::of(bytes)).0);
    let (lost, there): (Vec<_>, Vec<_>) = all.into_iter().partition(absent);
    assert!(lost.len() > 5 && there.len() > 20);
    put_all(&mut world, &there);
    let (path, at, _) = place(&world, &there[0]);
    flip(&mut world, &path, at + 128);
    world.verify(1, Address::of(&lost[0]));
    assert!(matches!(world.verified.pop(), Some((1, VerifyOutcome::Failed { .. }))));
    round(&mut world);
    assert_eq!(world.damaged, digests(&[&there[0]]));
    assert_eq!(world.stats.scrub_objects.get(), there.len() as u64);
    // A round that is ended between its partitions goes on with those that are left.
    world.stats.scrub_objects.set(0);
    world.scrub_now();
    while places_left(&world).is_none_or(|left| left == 3) {
        turn(&mut world);
    }
    let before = world.stats.scrub_objects.get();
    world.stop();
    world.restart();
    assert_eq!(world.stats.scrub_running.get(), 1);
    round_goes_on(&mut world);
    let after = world.stats.scrub_objects.get();
    assert!(after < there.len() as u64, "{before}, then {after}");
    assert!(before + after >= there.len() as u64, "{before}, then {after}");
}

#[test]
fn it_keeps_to_its_pace() {
    let mut world = a_world(9);
    world.config.storage.scrub_bytes_per_s = 100_000;
    world.restart();
    put_all(&mut world, &(0..8).map(|n| object(n, 200_000)).collect::<Vec<_>>());
    let began = world.now.mono_ns;
    world.scrub_now();
    while world.stats.scrub_rounds.get() == 0 {
        turn(&mut world);
        let passed = u128::from(world.now.mono_ns - began);
        let allowed = passed * 100_000 / u128::from(SECOND_NS);
        let ahead = PACE_BURST_LEN as u128 + u128::from(SCRUB_READ_LEN);
        assert!(u128::from(world.stats.scrub_bytes.get()) <= allowed + ahead);
        assert!(world.pending.len() <= 2, "one read, and perhaps a checkpoint");
    }
    let bytes = world.stats.scrub_bytes.get();
    let least = (bytes - PACE_BURST_LEN as u64) * 10_000;
    assert!(world.now.mono_ns - began >= least, "{bytes} bytes take their time");
    assert!(world.now.mono_ns - began < 2 * least, "and not much more");
}

#[test]
fn a_busy_shard_is_left_alone() {
    let mut world = a_world(10);
    let bytes = object(1, 1024 * 1024);
    put_all(&mut world, std::slice::from_ref(&bytes));
    let address = Address::of(&bytes);
    for index in 0..16 {
        world.ask(Ask::Group { address, index, begins: false, ahead: false });
    }
    world.run();
    world.answers.clear();
    world.chill();
    for index in 0..16 {
        world.ask(Ask::Group { address, index, begins: false, ahead: false });
    }
    let busy = world.pending.len();
    assert!(busy > 8, "{busy}");
    world.scrub_now();
    assert_eq!(world.pending.len(), busy, "nothing was started");
    assert_eq!(world.store.scrub.wake_at(), None, "what is in progress will end");
    while world.pending.len() > 8 {
        assert_eq!(world.stats.scrub_bytes.get(), 0);
        world.step();
    }
    round_goes_on(&mut world);
    assert_eq!(world.stats.scrub_objects.get(), 1);
}
