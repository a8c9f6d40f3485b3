//! When rounds begin and end, and what the next process knows of them.

use std::io;

use ron_io::sim::{Kind, Planted};

use super::{SECOND_NS, a_world, put_all, rebuild, round, round_goes_on, turn};
use crate::store::tests::world::object;

#[test]
fn rounds_come_when_they_are_due() {
    let mut world = a_world(12);
    let every_ms = 3_600_000;
    world.config.storage.scrub_every_ms = every_ms;
    world.now.unix_ms = 50_000_000;
    world.restart();
    let began = world.now.mono_ns;
    put_all(&mut world, &[object(1, 5000)]);
    let due = world.store.scrub.wake_at().unwrap();
    assert_eq!(due, began + every_ms * 1_000_000, "a new directory counts as verified");
    // A process that starts later does not wait longer.
    world.stop();
    world.now.unix_ms += every_ms / 2;
    world.now.mono_ns = 7;
    world.restart();
    assert_eq!(world.store.scrub.wake_at(), Some(7 + every_ms / 2 * 1_000_000));
    world.now.mono_ns = world.store.scrub.wake_at().unwrap() - 1;
    world.now.unix_ms += every_ms / 2;
    world.settle();
    assert_eq!(world.stats.scrub_running.get(), 0);
    world.now.mono_ns += 1;
    world.settle();
    assert_eq!(world.stats.scrub_running.get(), 1);
    round_goes_on(&mut world);
    assert_eq!(world.stats.scrub_objects.get(), 1);
    let ended = world.now.mono_ns;
    assert_eq!(world.store.scrub.wake_at(), Some(ended + every_ms * 1_000_000));
    // A clock that was set back does not put the next round off for longer than one period.
    world.stop();
    world.now.unix_ms = 5;
    world.restart();
    let due = world.store.scrub.wake_at().unwrap();
    assert_eq!(due, world.now.mono_ns + every_ms * 1_000_000);
    // Overdue after a long rest: at once.
    world.stop();
    world.now.unix_ms = 60_000_000_000;
    world.restart();
    assert_eq!(world.stats.scrub_running.get(), 1);
}

#[test]
fn an_order_does_not_begin_a_round_twice_and_none_at_no_pace() {
    let mut world = a_world(13);
    put_all(&mut world, &[object(1, 500_000)]);
    world.scrub_now();
    turn(&mut world);
    world.scrub_now();
    round_goes_on(&mut world);
    assert_eq!((world.stats.scrub_running.get(), world.stats.scrub_rounds.get()), (0, 1));
    world.config.storage.scrub_bytes_per_s = 0;
    world.stop();
    world.restart();
    world.scrub_now();
    world.run();
    assert_eq!(world.stats.scrub_running.get(), 0);
    assert!(world.notes.iter().any(|note| note.contains("switched off")));
}

/// Of a directory whose index is lost nobody knows when it was looked at.
#[test]
fn a_rebuilt_directory_is_scrubbed_at_once_and_not_said_to_have_been() {
    let mut world = a_world(10);
    world.config.storage.scrub_every_ms = 1_000_000;
    put_all(&mut world, &[object(1, 3000)]);
    rebuild(&mut world);
    assert_eq!(world.stats.scrub_finished_unix_s.get(), 0);
    while world.stats.scrub_rounds.get() == 0 {
        turn(&mut world);
    }
    assert_eq!(world.now.mono_ns / SECOND_NS, 0, "it does not wait");
}

#[test]
fn a_round_that_could_not_look_at_everything_is_not_said_to_have_ended() {
    let objects: Vec<_> = (0..40).map(|n| object(n, 1_100_000)).collect();
    let mut world = a_world(8);
    put_all(&mut world, &objects);
    world.now.unix_ms = 5_000_000;
    let (times, error) = (30, io::ErrorKind::OutOfMemory);
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 1, times, error });
    world.scrub_now();
    while world.notes.iter().all(|note| !note.contains("a round ended early")) {
        turn(&mut world);
    }
    assert_eq!(world.stats.scrub_rounds.get(), 0, "{:?}", world.notes);
    assert_eq!(world.stats.scrub_finished_unix_s.get(), 0);
    world.disk.planted.clear();
    round(&mut world);
    assert!(world.stats.scrub_finished_unix_s.get() > 0);
}

#[test]
fn a_stop_does_not_wait_and_the_next_process_goes_on() {
    let objects: Vec<_> = (0..40).map(|n| object(n, 300_000)).collect();
    let large = object(99, 3_000_000);
    for turns in [0, 1, 2, 3].into_iter().chain((7..5000).step_by(53)) {
        let mut world = a_world(11);
        world.now.unix_ms = 1_000_000;
        for some in objects.chunks(10) {
            put_all(&mut world, some);
            // Each process begins a segment.
            world.stop();
            world.restart();
        }
        put_all(&mut world, std::slice::from_ref(&large));
        world.scrub_now();
        for _ in 0..turns {
            if world.stats.scrub_rounds.get() == 0 {
                turn(&mut world);
            }
        }
        if world.stats.scrub_rounds.get() > 0 {
            return;
        }
        let read = world.stats.scrub_bytes.get();
        let performed = world.disk.performed.len();
        world.stop();
        let scans = world.disk.performed[performed..].iter().filter(|kind| **kind == Kind::Scan);
        assert!(scans.count() <= 1, "only what was in progress is finished");
        assert_eq!(world.disk.open_files(), 0);
        assert_eq!(world.stats.scrub_running.get(), 0);
        world.restart();
        let began = world.stats.scrub_running.get() + world.stats.scrub_rounds.get();
        if turns < 3 && began == 0 {
            // Nothing was read: there is nothing to go on with.
            continue;
        }
        assert_eq!(began, 1, "after {turns} turns");
        if world.stats.scrub_rounds.get() == 0 {
            round_goes_on(&mut world);
        }
        let again = world.stats.scrub_bytes.get();
        let longest = 10 * 300_000 * 11 / 10 + 300_000;
        let all: u64 = 40 * 300_000 + 3_000_000;
        assert!(read + again >= all, "{read} and {again} bytes");
        assert!(read + again <= all * 11 / 10 + longest + 3_000_000, "{read} and {again} bytes");
        assert_eq!(world.stats.scrub_finished_unix_s.get(), 1000);
        world.stop();
        world.restart();
        assert_eq!(world.stats.scrub_running.get(), 0, "it was over");
        assert_eq!(world.stats.scrub_finished_unix_s.get(), 1000);
    }
    panic!("no stop came after the round");
}
