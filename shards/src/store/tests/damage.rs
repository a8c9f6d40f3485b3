//! Damage is never served. It is reported, and the bytes heal it when they come again.

use ron_io::ports::VerifyOutcome;

use super::*;
use crate::store::flaw::Harm;

fn store(world: &mut World, bytes: &[u8]) -> Reply {
    let ask = world.store_ask(bytes);
    world.answer(ask)
}

/// The file with the object's data: its own, or the only segment.
fn file_of(world: &World, bytes: &[u8]) -> PathBuf {
    let own = world.config.layout.object_path(0, &Address::of(bytes));
    if world.disk.paths().contains(&own) { own } else { world.segments().pop().unwrap() }
}

/// Flips a bit in the middle of the object's data; twice is never.
fn flip(world: &mut World, bytes: &[u8]) {
    let path = file_of(world, bytes);
    let middle = bytes.len() / 2;
    let start = find(world.disk.bytes(&path), &bytes[..64]);
    world.disk.damage(&path, |file| file[start + middle] ^= 1);
    world.chill();
}

fn find(file: &[u8], start: &[u8]) -> usize {
    file.windows(start.len()).rposition(|window| window == start).expect("the object is there")
}

fn lengths() -> [usize; 3] {
    [3000, 200_000, LARGE]
}

fn stored(len: usize) -> (World, Vec<u8>) {
    let mut world = World::new(len as u64);
    let bytes = object(1, len);
    store(&mut world, &bytes);
    (world, bytes)
}

/// Whether an opening is refused, with the first group and without.
#[track_caller]
fn is_barred(world: &mut World, bytes: &[u8]) -> bool {
    let address = Address::of(bytes);
    let refused = [Some(0), None].map(|first| match world.answer(Ask::Open { address, first }) {
        Reply::Failed(Fault::Integrity) => true,
        Reply::Opened { .. } => false,
        other => panic!("{other:?}"),
    });
    assert_eq!(refused[0], refused[1], "the head and the body say the same");
    refused[0]
}

#[test]
fn what_is_damaged_is_refused_before_its_first_byte() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        flip(&mut world, &bytes);
        assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Integrity)));
        assert!(is_barred(&mut world, &bytes), "{len}");
        assert_eq!(world.stats.damaged_now.get(), 1);
        let reads = world.stats.integrity_fail.get();
        assert!(is_barred(&mut world, &bytes));
        assert_eq!(world.stats.integrity_fail.get(), reads, "it is not read again to find out");
    }
}

#[test]
fn an_error_that_passes_is_no_damage() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        world.chill();
        fail(&mut world, Kind::Read, 1, ErrorKind::UnexpectedEof);
        assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Integrity)));
        assert_eq!(world.healed, [*Address::of(&bytes).as_bytes()], "it was read again at once");
        assert!(world.holds(&bytes));
    }
}

#[test]
fn who_brings_the_bytes_again_heals() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        flip(&mut world, &bytes);
        assert!(world.get(&Address::of(&bytes)).is_err());
        let answer = store(&mut world, &bytes);
        assert!(matches!(answer, Reply::Stored { new: true }), "{len}: {answer:?}");
        world.chill();
        assert!(world.holds(&bytes));
        assert_eq!(world.healed, [*Address::of(&bytes).as_bytes()]);
        assert_eq!((world.stats.damaged_now.get(), world.stats.objects.get()), (0, 1));
        let answer = store(&mut world, &bytes);
        assert!(matches!(answer, Reply::Stored { new: false }), "{len}: {answer:?}");
        world.kill();
        assert!(world.holds(&bytes));
        lose_index(&mut world);
        assert!(world.holds(&bytes), "{len}: {:?}", world.notes);
    }
}

/// A PUT of its bytes heals it before a read has met the damage.
#[test]
fn what_lies_beside_the_data_heals_too() {
    for len in [200_000, LARGE] {
        let (mut world, bytes) = stored(len);
        let address = Address::of(&bytes);
        let path = file_of(&world, &bytes);
        let outboard = hashed(&bytes).outboard;
        let start = find(world.disk.bytes(&path), &outboard.as_bytes()[..32]);
        world.disk.damage(&path, |file| file[start + 9] ^= 1);
        world.chill();
        world.verify(1, address);
        world.run();
        assert!(matches!(world.verified.pop(), Some((1, VerifyOutcome::Damaged { .. }))));
        let answer = world.answer(Ask::Open { address, first: None });
        assert!(matches!(answer, Reply::Opened { .. }), "{len}: its data are right");
        let answer = world.answer(Ask::Whole { address });
        assert!(matches!(answer, Reply::Failed(Fault::Integrity)), "its bytes are wanted");
        let answer = store(&mut world, &bytes);
        assert!(matches!(answer, Reply::Stored { new: true }), "{len}: {answer:?}");
        let answer = world.answer(Ask::Whole { address });
        assert!(matches!(answer, Reply::Opened { .. }), "{len}: {answer:?}");
        world.chill();
        world.verify(2, address);
        world.run();
        assert_eq!(world.verified, [(2, VerifyOutcome::Whole { size: len as u64 })]);
    }
}

#[test]
fn healing_that_fails_leaves_what_was_there() {
    for (kind, error) in [
        (Kind::Write, ErrorKind::StorageFull),
        (Kind::Sync, ErrorKind::Other),
        (Kind::Rename, ErrorKind::Other),
    ] {
        for len in lengths() {
            if kind == Kind::Rename && len != LARGE {
                continue;
            }
            let (mut world, bytes) = stored(len);
            flip(&mut world, &bytes);
            assert!(world.get(&Address::of(&bytes)).is_err());
            fail(&mut world, kind, 1, error);
            let answer = store(&mut world, &bytes);
            assert!(matches!(answer, Reply::Failed(_)), "{kind:?} {len}: {answer:?}");
            assert!(is_barred(&mut world, &bytes), "{kind:?} {len}");
            let own = world.config.layout.object_path(0, &Address::of(&bytes));
            assert_eq!(
                world.disk.paths().contains(&own),
                len == LARGE,
                "its file is not taken back"
            );
            assert!(matches!(store(&mut world, &bytes), Reply::Stored { new: true }));
            world.chill();
            assert!(world.holds(&bytes));
        }
    }
}

#[test]
fn what_is_deleted_is_damaged_no_more() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        let address = Address::of(&bytes);
        flip(&mut world, &bytes);
        assert!(world.get(&address).is_err());
        assert!(matches!(world.answer(Ask::Delete { address }), Reply::Deleted));
        assert_eq!(world.get(&address), Err(None));
        assert_eq!((world.stats.damaged_now.get(), world.healed.len()), (0, 1));
    }
}

#[test]
fn what_is_found_whole_is_served_again() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        let address = Address::of(&bytes);
        flip(&mut world, &bytes);
        world.verify(1, address);
        world.run();
        let (_, outcome) = world.verified.pop().unwrap();
        assert!(matches!(outcome, VerifyOutcome::Damaged { .. }), "{outcome:?}");
        assert!(is_barred(&mut world, &bytes), "what is verified and what is read agree");
        let path = file_of(&world, &bytes);
        let start = find(world.disk.bytes(&path), &bytes[..64]);
        world.disk.damage(&path, |file| file[start + len / 2] ^= 1);
        assert!(is_barred(&mut world, &bytes));
        world.verify(2, address);
        world.run();
        assert_eq!(world.verified, [(2, VerifyOutcome::Whole { size: len as u64 })]);
        assert!(world.holds(&bytes));
        assert_eq!(world.healed.len(), 1);
    }
}

#[test]
fn the_scrub_tells_both_ways() {
    for len in lengths() {
        let mut world = World::new(len as u64);
        world.config.storage.scrub_bytes_per_s = limits::SCRUB_BYTES_PER_S;
        world.restart();
        let bytes = object(1, len);
        store(&mut world, &bytes);
        let path = file_of(&world, &bytes);
        let start = find(world.disk.bytes(&path), &bytes[..64]);
        flip(&mut world, &bytes);
        scrub(&mut world);
        assert!(is_barred(&mut world, &bytes), "nobody has read it, and it is known");
        world.disk.damage(&path, |file| file[start + len / 2] ^= 1);
        scrub(&mut world);
        assert!(world.holds(&bytes), "{len}");
    }
}

#[test]
fn deleting_what_is_being_healed_waits() {
    let (mut world, bytes) = stored(LARGE);
    let address = Address::of(&bytes);
    for seed in 0..20 {
        flip(&mut world, &bytes);
        assert!(world.get(&address).is_err());
        let ask = world.upload(&bytes);
        let put = world.ask(ask);
        for _ in 0..seed {
            world.step();
        }
        let delete = world.ask(Ask::Delete { address });
        world.run();
        let answers = (world.answers.remove(&put), world.answers.remove(&delete));
        let there = match answers {
            (Some(Reply::Stored { new: true }), Some(Reply::Failed(Fault::Busy))) => true,
            (Some(Reply::Stored { new: true }), Some(Reply::Deleted)) => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(world.holds(&bytes), there);
        if !there {
            store(&mut world, &bytes);
        }
        world.chill();
        assert!(world.holds(&bytes));
    }
}

/// Objects that were found damaged and found no place in the list heal like the others.
#[test]
fn beyond_the_list_of_damage_every_object_is_taken_again() {
    for len in lengths() {
        let (mut world, bytes) = stored(len);
        for n in 0..limits::DAMAGED_MAX {
            world.damage.note(&Address::of(&n.to_le_bytes()), Harm::Data);
        }
        flip(&mut world, &bytes);
        assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Integrity)));
        let answer = store(&mut world, &bytes);
        assert!(matches!(answer, Reply::Stored { new: true }), "{len}: {answer:?}");
        world.chill();
        assert!(world.holds(&bytes), "{len}");
        assert_eq!(world.stats.objects.get(), 1);
    }
}

#[test]
fn damage_is_never_served_and_costs_others_nothing() {
    let small = object(1, 1000);
    let (two, other) = (object(2, 100_000), object(3, 100_000));
    let large = object(4, 2 * 1024 * 1024);
    // Each object's record, in the order of the log: where a bit is flipped, and who it hurts.
    let start = 4096;
    let spots = [20, 128, 128 + 70_000, 128 + 100_096, 128 + 100_096 + 63];
    for at in [128, 500, 1127].into_iter().chain(spots.map(|spot| start + spot)) {
        let mut world = World::new(7);
        let asks = [&small, &two, &other].map(|bytes| world.put_ask(bytes));
        for ask in asks {
            world.ask(ask);
        }
        world.run();
        let ask = world.upload(&large);
        world.answer(ask);
        world.chill();
        let segment = world.segments().remove(0);
        let hurt = if at < start { &small } else { &two };
        let found = world.disk.bytes(&segment)[start..start + 8].to_vec();
        assert_eq!(found, ron_codec::record::RECORD_MAGIC, "the second record starts here");
        world.disk.damage(&segment, |bytes| bytes[at] ^= 4);
        for _ in 0..2 {
            let got = world.get(&Address::of(hurt));
            assert_eq!(got, Err(Some(Fault::Integrity)), "at {at}");
        }
        assert_eq!(world.stats.integrity_fail.get(), 1, "the second time it is known");
        assert_eq!(world.damaged, [*Address::of(hurt).as_bytes()]);
        let whole = [&small, &two, &other, &large].into_iter().filter(|bytes| *bytes != hurt);
        whole.for_each(|bytes| assert!(world.holds(bytes)));
    }
}

#[test]
fn damage_of_an_object_file_is_found_wherever_it_is() {
    let large = object(4, 2 * 1024 * 1024);
    let address = Address::of(&large);
    for damage in ["header", "data", "outboard", "short", "missing"] {
        let mut world = World::new(8);
        let ask = world.upload(&large);
        world.answer(ask);
        let path = world.config.layout.object_path(0, &address);
        let outboard = 4096 + large.len();
        match damage {
            "header" => world.disk.damage(&path, |bytes| bytes[20] ^= 1),
            "data" => world.disk.damage(&path, |bytes| bytes[4096] ^= 1),
            "outboard" => world.disk.damage(&path, |bytes| bytes[outboard + 5] ^= 1),
            "short" => world.disk.damage(&path, |bytes| bytes.truncate(outboard)),
            _ => drop(world.disk.perform(DiskOp::Remove { path, durable: false })),
        }
        assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "{damage}");
        assert_eq!(world.stats.integrity_fail.get(), 1);
    }
}

#[test]
fn a_read_error_is_not_called_damage() {
    let mut world = World::new(9);
    let bytes = object(1, 100);
    world.put(&bytes);
    world.chill();
    fail(&mut world, Kind::Read, 1, ErrorKind::Other);
    assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Disk)));
    assert_eq!(world.stats.integrity_fail.get(), 0);
    assert!(world.holds(&bytes), "it is tried again");
}
