//! The scrub on the disk twin: every damage is found once, told once, and costs nobody else.

use std::{
    io,
    path::{Path, PathBuf},
};

use ron_codec::{
    address::Address,
    limits::DISK_BLOCK_LEN,
    record::{RecordHeader, RecordKind},
};
use ron_io::ports::{DiskOp, VerifyOutcome};

use crate::{
    flow::{Ask, Fault},
    limits::{
        CHECKPOINT_AFTER_NS, PACE_BURST_LEN, SCRUB_BYTES_PER_S, SCRUB_READ_LEN, VERIFIES_MAX,
    },
    store::{
        Store,
        tests::{
            disk::{Kind, Planted},
            world::{World, object, shapes},
        },
    },
};

mod properties;

const SECOND_NS: u64 = 1_000_000_000;

/// A world whose scrub is on, and begins when it is ordered.
fn a_world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.config.storage.scrub_bytes_per_s = SCRUB_BYTES_PER_S;
    world.config.storage.scrub_every_ms = 0;
    world.restart();
    world
}

/// Lets the shard do the next thing, whatever it is: an act, or what the time brings.
fn turn(world: &mut World) {
    if world.step() {
        return;
    }
    let at = world.store.wake_at(&world.room).expect("a round is under way");
    world.now.mono_ns = world.now.mono_ns.max(at);
    world.settle();
}

/// Runs a whole round of the scrub, and all it leads to.
fn round(world: &mut World) {
    let rounds = world.stats.scrub_rounds.get();
    world.damaged.clear();
    world.notes.clear();
    world.scrub_now();
    while world.stats.scrub_rounds.get() == rounds {
        turn(world);
    }
    world.run();
    assert_eq!(world.stats.scrub_running.get(), 0);
}

/// Another process finds the data without an index.
fn rebuild(world: &mut World) {
    world.stop();
    assert_eq!(world.disk.open_files(), 0);
    world.store = Store::new(&world.config);
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.restart();
    assert!(world.store.is_ready(), "{:?}", world.store.failed());
    world.damaged.clear();
}

fn put(world: &mut World, bytes: &[u8]) {
    let large = bytes.len() > 1024 * 1024;
    let ask = if large { world.upload(bytes) } else { world.put_ask(bytes) };
    world.ask(ask);
}

/// Stores objects in one batch, as far as one takes them.
fn put_all(world: &mut World, objects: &[Vec<u8>]) {
    // The first commit takes what was asked first; what waits for it shares the next.
    objects.iter().for_each(|bytes| put(world, bytes));
    world.run();
    world.answers.clear();
    world.chill();
}

/// Where a record of an object lies in the segments: the last copy of it.
fn place(world: &World, bytes: &[u8]) -> (PathBuf, usize, RecordHeader) {
    let address = Address::of(bytes);
    let mut found = None;
    for path in world.segments() {
        let segment = world.disk.bytes(&path);
        let mut at = 0;
        while let Some(header) = segment.get(at..) {
            let Ok(header) = RecordHeader::decode(header) else { break };
            if header.digest() == address && header.kind() != RecordKind::Tombstone {
                found = Some((path.clone(), at, header));
            }
            at += header.record_len() as usize;
        }
    }
    found.expect("the object is in the log")
}

fn flip(world: &mut World, path: &Path, at: usize) {
    world.disk.damage(path, |bytes| bytes[at] ^= 4);
}

fn digests(objects: &[&Vec<u8>]) -> Vec<[u8; 32]> {
    objects.iter().map(|bytes| *Address::of(bytes).as_bytes()).collect()
}

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
    assert_eq!(world.store.wake_at(&world.room).map(|at| at > world.now.mono_ns), Some(true));
    world.now.mono_ns += CHECKPOINT_AFTER_NS;
    world.settle();
    world.run();
    assert_eq!(world.store.wake_at(&world.room), None, "an idle node stays idle");
}

#[test]
fn an_empty_partition_is_scrubbed_too() {
    let mut world = a_world(1);
    round(&mut world);
    assert_eq!((world.stats.scrub_objects.get(), world.stats.scrub_bytes.get()), (0, 0));
}

#[test]
fn damaged_data_are_reported_and_nothing_else_is() {
    let objects = [object(1, 1000), object(2, 100_000), object(3, 5000), object(4, 2_000_000)];
    for hurt in 0..4 {
        for after_restart in [false, true] {
            let mut world = a_world(2);
            put_all(&mut world, &objects);
            if after_restart {
                world.stop();
                world.restart();
            }
            let path = match hurt {
                3 => world.config.layout.object_path(0, &Address::of(&objects[3])),
                _ => place(&world, &objects[hurt]).0,
            };
            let at = if hurt == 3 { 4096 } else { place(&world, &objects[hurt]).1 + 128 };
            flip(&mut world, &path, at + objects[hurt].len() - 1);
            for nth in 1..3 {
                round(&mut world);
                assert_eq!(world.damaged, digests(&[&objects[hurt]]), "told once, each round");
                let stats = &world.stats;
                assert_eq!((stats.damaged_objects.get(), stats.integrity_fail.get()), (nth, nth));
                assert_eq!(stats.scrub_repaired.get(), 0);
            }
            let address = Address::of(&objects[hurt]);
            assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "it is still there");
            let whole = |n: &usize| *n != hurt;
            assert!((0..4).filter(whole).all(|n| world.holds(&objects[n])));
            rebuild(&mut world);
            assert!((0..4).filter(whole).all(|n| world.holds(&objects[n])), "{hurt}");
        }
    }
}

#[test]
fn damage_beside_right_data_is_mended() {
    let objects = [object(1, 1000), object(2, 100_000), object(3, 5000), object(4, 300_000)];
    for (hurt, what) in [(0, "header"), (1, "header"), (1, "outboard"), (3, "outboard")] {
        let mut world = a_world(3);
        put_all(&mut world, &objects);
        let (path, at, header) = place(&world, &objects[hurt]);
        let spot = if what == "header" { 20 } else { header.outboard_offset() as usize + 33 };
        flip(&mut world, &path, at + spot);
        round(&mut world);
        assert!(world.damaged.is_empty());
        assert_eq!((world.stats.scrub_repaired.get(), world.stats.damaged_objects.get()), (1, 0));
        let told = format!("{what} of {}", Address::of(&objects[hurt]));
        assert!(world.notes.iter().any(|note| note.contains(&told)), "{:?}", world.notes);
        world.chill();
        assert!(objects.iter().all(|bytes| world.holds(bytes)), "{what} of {hurt}");
        round(&mut world);
        assert_eq!(world.stats.scrub_repaired.get(), 1, "it is whole now");
        rebuild(&mut world);
        assert!(objects.iter().all(|bytes| world.holds(bytes)), "{what} of {hurt}, rebuilt");
        assert_eq!(world.stats.objects.get(), 4);
    }
}

#[test]
fn what_lies_behind_a_broken_header_is_moved() {
    let first: Vec<_> = (0..20).map(|n| object(n, 3000 + n as usize * 5000)).collect();
    let large = object(50, 1_500_000);
    // The header of a record that counts, of a pad, of a file record, and of one that is dead.
    for broken in ["object", "pad", "file", "dead"] {
        let mut world = a_world(4);
        put_all(&mut world, &first[..10]);
        put_all(&mut world, std::slice::from_ref(&large));
        put_all(&mut world, &first[10..]);
        world.answer(Ask::Delete { address: Address::of(&first[9]) });
        let (path, at, header) = match broken {
            "object" => place(&world, &first[3]),
            "file" => place(&world, &large),
            _ => place(&world, &first[9]),
        };
        let end = at + header.record_len() as usize;
        flip(&mut world, &path, if broken == "pad" { end + 9 } else { at + 70 });
        round(&mut world);
        assert!(world.damaged.is_empty(), "{broken}");
        let note = world.notes.iter().find(|note| note.contains("what lies behind is moved"));
        assert!(note.is_some(), "{broken}: {:?}", world.notes);
        // What comes later does not go where it could not be found again.
        let later = object(60, 7000);
        put_all(&mut world, std::slice::from_ref(&later));
        let (path_now, ..) = place(&world, &later);
        assert_ne!(path_now, path);
        let stored = || first[..9].iter().chain(&first[10..]).chain([&large, &later]);
        assert!(stored().all(|bytes| world.holds(bytes)), "{broken}");
        world.notes.clear();
        round(&mut world);
        assert!(!world.notes.iter().any(|note| note.contains("is moved")), "{:?}", world.notes);
        rebuild(&mut world);
        let lost = stored().find(|bytes| !world.holds(bytes)).map(Vec::len);
        assert_eq!(lost, None, "{broken}: an object is lost in the rebuild");
    }
}

#[test]
fn deletions_behind_a_broken_header_are_saved_as_soon_as_it_is_found() {
    let objects: Vec<_> = (0..6).map(|n| object(n, 9000)).collect();
    let mut world = a_world(14);
    put_all(&mut world, &objects);
    world.answer(Ask::Delete { address: Address::of(&objects[0]) });
    // Read from the log, and in no checkpoint yet.
    world.kill();
    let (path, at, _) = place(&world, &objects[2]);
    flip(&mut world, &path, at + 70);
    world.scrub_now();
    while !world.notes.iter().any(|note| note.contains("what lies behind is moved")) {
        turn(&mut world);
    }
    world.kill();
    assert!(!world.holds(&objects[0]), "it was deleted");
    assert!(objects[1..].iter().all(|bytes| world.holds(bytes)));
}

#[test]
fn what_is_damaged_behind_a_broken_header_stays() {
    let objects: Vec<_> = (0..6).map(|n| object(n, 9000)).collect();
    let mut world = a_world(5);
    put_all(&mut world, &objects);
    let (path, at, _) = place(&world, &objects[1]);
    let (_, behind, _) = place(&world, &objects[4]);
    flip(&mut world, &path, at);
    flip(&mut world, &path, behind + 500);
    for _ in 0..2 {
        round(&mut world);
        assert_eq!(world.damaged, digests(&[&objects[4]]));
    }
    rebuild(&mut world);
    for n in [0, 1, 2, 3, 5] {
        assert!(world.holds(&objects[n]), "{n}");
    }
}

#[test]
fn object_files_are_looked_at_all_over() {
    let large = object(4, 2 * 1024 * 1024);
    let address = Address::of(&large);
    for damage in ["data", "cut", "missing", "garbage"] {
        let mut world = a_world(6);
        put_all(&mut world, std::slice::from_ref(&large));
        let path = world.config.layout.object_path(0, &address);
        match damage {
            "data" => flip(&mut world, &path, DISK_BLOCK_LEN + 777),
            "cut" => world.disk.damage(&path, |bytes| bytes.truncate(1_000_000)),
            "garbage" => world.disk.damage(&path, |bytes| bytes.fill(0xee)),
            _ => drop(world.disk.perform(DiskOp::Remove { path, durable: false })),
        }
        round(&mut world);
        assert_eq!(world.damaged, digests(&[&large]), "{damage}");
        assert_eq!(world.stats.integrity_fail.get(), 1);
        assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "{damage}");
    }
}

#[test]
fn object_files_are_mended_where_they_lie() {
    let large = object(4, 2 * 1024 * 1024 + 5);
    let address = Address::of(&large);
    let damages: [(&str, usize); 4] = [("header", 20), ("outboard", 5), ("cut", 0), ("block", 1)];
    for (damage, at) in damages {
        let mut world = a_world(6);
        put_all(&mut world, std::slice::from_ref(&large));
        let (_, _, header) = place(&world, &large);
        let (_, sequence) = (header.kind(), header.sequence());
        let header = RecordHeader::for_file(address, large.len() as u64, sequence).unwrap();
        let path = world.config.layout.object_path(0, &address);
        let outboard = header.outboard_offset() as usize;
        match damage {
            "header" => flip(&mut world, &path, at),
            "outboard" => flip(&mut world, &path, outboard + at),
            "cut" => world.disk.damage(&path, |bytes| bytes.truncate(outboard + 40)),
            _ => world.disk.damage(&path, |bytes| bytes[..4096].fill(7)),
        }
        round(&mut world);
        assert!(world.damaged.is_empty(), "{damage}");
        assert_eq!((world.stats.scrub_repaired.get(), world.stats.integrity_fail.get()), (1, 0));
        assert!(world.holds(&large), "{damage}");
        assert_eq!(world.disk.bytes(&path).len() as u64, header.record_len());
        world.crash(3);
        assert!(world.holds(&large), "{damage}");
        round(&mut world);
        assert_eq!(world.stats.scrub_repaired.get(), 0, "nothing is left to mend");
    }
    // A disk that cannot be written keeps its damage, and it is told.
    let mut world = a_world(6);
    put_all(&mut world, std::slice::from_ref(&large));
    let path = world.config.layout.object_path(0, &address);
    flip(&mut world, &path, 20);
    let error = io::ErrorKind::ReadOnlyFilesystem;
    world.disk.planted.push(Planted { kind: Kind::Write, skip: 0, times: 1, error });
    round(&mut world);
    assert_eq!(world.damaged, digests(&[&large]));
    assert_eq!(world.stats.scrub_repaired.get(), 0);
}

#[test]
fn a_missing_segment_is_told_object_by_object() {
    let objects = [object(1, 1000), object(2, 100_000)];
    let mut world = a_world(7);
    put_all(&mut world, &objects);
    world.stop();
    world.restart();
    put_all(&mut world, &[object(3, 10)]);
    let path = world.segments().remove(0);
    world.disk.perform(DiskOp::Remove { path, durable: false }).unwrap();
    round(&mut world);
    world.damaged.sort_unstable();
    let mut both = digests(&[&objects[0], &objects[1]]);
    both.sort_unstable();
    assert_eq!(world.damaged, both);
    assert!(world.holds(&object(3, 10)));
}

#[test]
fn what_the_disk_does_not_give_costs_only_itself() {
    let objects: Vec<_> = (0..30).map(|n| object(n, 20_000)).collect();
    for skip in 0..8 {
        let mut world = a_world(8);
        put_all(&mut world, &objects);
        let error = io::ErrorKind::Other;
        world.disk.planted.push(Planted { kind: Kind::Scan, skip, times: 1, error });
        round(&mut world);
        assert!(world.damaged.is_empty(), "it could be read the second time");
        rebuild(&mut world);
        assert!(objects.iter().all(|bytes| world.holds(bytes)));
    }
    let mut world = a_world(8);
    put_all(&mut world, &objects);
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Scan, skip: 0, times: 2, error });
    round(&mut world);
    let told = world.damaged.len();
    assert_eq!(told, 1, "one object cannot be read at all");
    assert_eq!((world.stats.integrity_fail.get(), world.stats.damaged_objects.get()), (0, 1));
    assert!(world.notes.iter().any(|note| note.contains("cannot be read")));
}

#[test]
fn files_that_cannot_be_opened_are_damage_and_end_no_round() {
    let objects: Vec<_> = (0..40).map(|n| object(n, 1_100_000)).collect();
    let mut world = a_world(8);
    put_all(&mut world, &objects);
    // The segment is opened before the files of objects.
    let (times, error) = (30, io::ErrorKind::PermissionDenied);
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 1, times, error });
    round(&mut world);
    assert_eq!(world.stats.scrub_objects.get(), 40, "{:?}", world.notes);
    assert_eq!((world.damaged.len(), world.stats.damaged_now.get()), (times, times as u64));
    round(&mut world);
    assert_eq!(world.stats.damaged_now.get(), 0, "they can be opened again");
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
    assert_eq!(world.store.scrub.wake_at(), None, "what is under way will end");
    while world.pending.len() > 8 {
        assert_eq!(world.stats.scrub_bytes.get(), 0);
        world.step();
    }
    round_goes_on(&mut world);
    assert_eq!(world.stats.scrub_objects.get(), 1);
}

fn round_goes_on(world: &mut World) {
    let rounds = world.stats.scrub_rounds.get();
    while world.stats.scrub_rounds.get() == rounds {
        turn(world);
    }
    world.run();
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
        assert!(scans.count() <= 1, "only what was under way is finished");
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

#[test]
fn verifications_tell_what_they_find() {
    let mut world = a_world(14);
    let objects = [object(1, 1000), object(2, 100_000), object(3, 2_000_000), object(4, 0)];
    put_all(&mut world, &objects);
    for (id, bytes) in objects.iter().enumerate() {
        world.verify(id as u64, Address::of(bytes));
        world.run();
        let size = bytes.len() as u64;
        assert_eq!(world.verified.pop(), Some((id as u64, VerifyOutcome::Whole { size })));
    }
    world.verify(9, Address::of(b"never stored"));
    assert_eq!(world.verified.pop(), Some((9, VerifyOutcome::Missing)));
    // The cache has it, and the disk is asked all the same.
    assert!(world.holds(&objects[1]));
    let (path, at, header) = place(&world, &objects[1]);
    flip(&mut world, &path, at + header.outboard_offset() as usize);
    world.verify(1, Address::of(&objects[1]));
    world.run();
    let what = "its outboard, beside data that are right".to_string();
    assert_eq!(world.verified.pop(), Some((1, VerifyOutcome::Damaged { what })));
    assert_eq!(world.damaged, digests(&[&objects[1]]));
    let path = world.config.layout.object_path(0, &Address::of(&objects[2]));
    flip(&mut world, &path, 1_000_000);
    world.verify(2, Address::of(&objects[2]));
    world.run();
    let what = "its data".to_string();
    assert_eq!(world.verified.pop(), Some((2, VerifyOutcome::Damaged { what })));
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 0, times: 1, error });
    world.verify(3, Address::of(&objects[0]));
    world.run();
    assert!(matches!(world.verified.pop(), Some((3, VerifyOutcome::Damaged { .. }))));
    let error = io::ErrorKind::OutOfMemory;
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 0, times: 1, error });
    world.verify(3, Address::of(&objects[0]));
    world.run();
    assert!(matches!(world.verified.pop(), Some((3, VerifyOutcome::Failed { .. }))));
    assert_eq!(world.store.scrub.wake_at(), None, "no round comes of it");
}

#[test]
fn verifications_are_few_at_once_and_end_with_the_shard() {
    let mut world = a_world(15);
    let bytes = object(1, 500_000);
    put_all(&mut world, std::slice::from_ref(&bytes));
    for id in 0..VERIFIES_MAX as u64 + 1 {
        world.verify(id, Address::of(&bytes));
    }
    let busy = VerifyOutcome::Failed { what: "busy".to_string() };
    assert_eq!(world.verified, [(VERIFIES_MAX as u64, busy)]);
    for _ in 0..6 {
        assert!(world.step());
    }
    world.verified.clear();
    world.stop();
    assert_eq!(world.verified.len(), VERIFIES_MAX, "each is answered");
    assert_eq!(world.disk.open_files(), 0);
    world.verify(9, Address::of(&bytes));
    assert!(matches!(world.verified.pop(), Some((9, VerifyOutcome::Failed { .. }))));
}

#[test]
fn only_the_owner_answers() {
    let mut world = a_world(16);
    world.config.layout.partitions = 2;
    world.config.layout.shards = 2;
    world.restart();
    let mut answered = 0;
    for n in 0..20_u64 {
        let address = Address::of(&n.to_le_bytes());
        let owned = u64::from(world.config.layout.owner(&address).1 == world.config.shard);
        world.verify(n, address);
        answered += owned as usize;
        assert_eq!(world.verified.len(), answered);
    }
    assert!((1..20).contains(&answered));
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
    while world.store.scrub.round.as_ref().is_none_or(|round| round.todo.len() == 3) {
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

/// Performs everything but the last act that was asked for, then that.
fn run_late(world: &mut World) {
    let late = world.pending.pop().expect("an act is under way");
    world.run();
    world.pending.push(late);
    world.run();
}

#[test]
fn what_is_deleted_while_it_is_looked_at_is_not_damaged() {
    let large = object(1, 2_000_000);
    let address = Address::of(&large);
    let mut world = a_world(18);
    put_all(&mut world, std::slice::from_ref(&large));
    world.ask(Ask::Delete { address });
    world.verify(1, address);
    run_late(&mut world);
    assert_eq!(world.verified.pop(), Some((1, VerifyOutcome::Missing)));
    assert!(world.damaged.is_empty());
    // The same under the scrub.
    world.answers.clear();
    put_all(&mut world, std::slice::from_ref(&large));
    world.scrub_now();
    let opens = |world: &World| match world.pending.last() {
        Some((_, DiskOp::Open { path, .. })) => path.extension().is_some_and(|end| end == "obj"),
        _ => false,
    };
    while !opens(&world) {
        turn(&mut world);
    }
    let late = world.pending.pop().unwrap();
    world.ask(Ask::Delete { address });
    world.run();
    world.pending.push(late);
    round_goes_on(&mut world);
    assert!(world.damaged.is_empty() && world.stats.damaged_objects.get() == 0);
}

#[test]
fn what_is_moved_while_it_is_looked_at_is_not_damaged() {
    let small = object(1, 5000);
    let address = Address::of(&small);
    let bulk: Vec<_> = (10..13).map(|n| object(n, 700_000)).collect();
    let mut world = a_world(19);
    put_all(&mut world, std::slice::from_ref(&small));
    put_all(&mut world, &bulk);
    let (first, ..) = place(&world, &small);
    bulk.iter().for_each(|bytes| {
        world.ask(Ask::Delete { address: Address::of(bytes) });
    });
    world.verify(1, address);
    let late = world.pending.pop().expect("its segment is about to be opened");
    while world.segments().contains(&first) {
        turn(&mut world);
    }
    world.pending.push(late);
    world.run();
    let whole = VerifyOutcome::Whole { size: 5000 };
    assert_eq!(world.verified.pop(), Some((1, whole)), "it is found where it is now");
    assert!(world.damaged.is_empty() && world.holds(&small));
}
