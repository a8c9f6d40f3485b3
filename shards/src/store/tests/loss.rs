//! A log that lost a part below the position of the snapshot.

use super::*;
use crate::store::layout::{Layout, hidden_mark};

/// The objects 0 to 19 in a first segment. A second process deleted 0 to 3 and stored 20 and 21.
/// All is in order, and stopped.
fn two_segments(seed: u64) -> (World, PathBuf) {
    let mut world = World::new(seed);
    for n in 0..20 {
        world.put(&bytes_of(n));
    }
    world.stop();
    world.restart();
    for n in 0..4 {
        let answer = world.answer(Ask::Delete { address: address(n) });
        assert!(matches!(answer, Reply::Deleted), "{answer:?}");
    }
    for n in [20, 21] {
        world.put(&bytes_of(n));
    }
    world.stop();
    let last = world.segments().pop().unwrap();
    assert!(last.ends_with("00000002.seg"), "{last:?}");
    (world, last)
}

fn bytes_of(n: u64) -> Vec<u8> {
    object(n, 3000)
}

fn address(n: u64) -> Address {
    Address::of(&bytes_of(n))
}

fn lose(world: &mut World, what: Lose) {
    let all = world.segments();
    match what {
        Lose::Tail => {
            let last = all.last().unwrap();
            world.disk.damage(last, |file| file.truncate(4096));
        }
        Lose::Last => world.disk.lose(all.last().unwrap()),
        Lose::All => all.iter().for_each(|path| world.disk.lose(path)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lose {
    /// All of the last segment but its first block.
    Tail,
    /// The last segment.
    Last,
    All,
}

#[test]
fn what_a_lost_part_of_the_log_held_stays_deleted_or_is_damaged() {
    for what in [Lose::Tail, Lose::Last, Lose::All] {
        let (mut world, _) = two_segments(1);
        lose(&mut world, what);
        world.restart();
        let told = world.notes.iter().any(|note| note.contains("segment 2"));
        assert!(told && world.notes.iter().any(|note| note.contains("do not rebuild")), "{what:?}");
        for round in 0..2 {
            for n in 0..4 {
                assert_eq!(world.get(&address(n)), Err(None), "{what:?} {round}: {n} is deleted");
            }
            for n in 4..20 {
                let lost = what == Lose::All;
                let wanted = if lost { Err(Some(Fault::Integrity)) } else { Ok(bytes_of(n)) };
                assert_eq!(world.get(&address(n)), wanted, "{what:?} {round}: {n}");
            }
            for n in [20, 21] {
                let wanted = Err(Some(Fault::Integrity));
                assert_eq!(world.get(&address(n)), wanted, "{what:?} {round}: {n}");
            }
            world.stop();
            world.restart();
        }
    }
}

#[test]
fn behind_a_lost_part_of_the_log_writing_goes_on_in_a_new_segment() {
    for what in [Lose::Tail, Lose::Last, Lose::All] {
        let (mut world, last) = two_segments(2);
        lose(&mut world, what);
        let before = world.segments();
        world.restart();
        // Its damage is found out by the read, and the bytes heal it.
        assert!(world.get(&address(20)).is_err());
        let answer = world.put(&bytes_of(20));
        assert!(is_new(&answer), "{what:?}");
        let answer = world.put(&bytes_of(30));
        assert!(is_new(&answer), "{what:?}");
        let now = world.segments();
        let new: Vec<_> = now.iter().filter(|path| !before.contains(path)).collect();
        assert!(new.iter().all(|path| ***path > *last), "{what:?}: {new:?}");
        world.crash(7);
        world.run();
        assert!(world.holds(&bytes_of(20)) && world.holds(&bytes_of(30)), "{what:?}");
        assert_eq!(world.get(&address(21)), Err(Some(Fault::Integrity)), "{what:?}");
        for n in 0..4 {
            assert_eq!(world.get(&address(n)), Err(None), "{what:?}: {n} is deleted");
        }
    }
}

#[test]
fn what_is_lost_is_refused_and_taken_again_though_nobody_has_read_it() {
    let (mut world, _) = two_segments(5);
    lose(&mut world, Lose::Last);
    world.restart();
    let opened = world.answer(Ask::Open { address: address(20), first: None });
    assert!(matches!(opened, Reply::Failed(Fault::Integrity)), "{opened:?}");
    let whole = world.answer(Ask::Whole { address: address(21) });
    assert!(matches!(whole, Reply::Failed(Fault::Integrity)), "its bytes are wanted: {whole:?}");
    let (mut world, _) = two_segments(5);
    lose(&mut world, Lose::Last);
    world.restart();
    for n in [20, 21] {
        assert!(is_new(&world.put(&bytes_of(n))), "what it had was lost");
        assert_eq!(world.get(&address(n)), Ok(bytes_of(n)));
        assert!(!is_new(&world.put(&bytes_of(n))));
    }
    world.crash(8);
    assert!(world.holds(&bytes_of(20)) && world.holds(&bytes_of(21)));
}

/// A backup of a segment that somebody puts beside the log says nothing new.
#[test]
fn a_copy_of_a_segment_brings_back_nothing_that_was_deleted() {
    let (mut world, _) = two_segments(6);
    let first = world.segments().remove(0);
    let bytes = world.disk.bytes(&first).to_vec();
    world.disk.place(&first.with_file_name("00000009.seg"), &bytes);
    world.restart();
    for n in 0..4 {
        assert_eq!(world.get(&address(n)), Err(None), "{n} is deleted");
    }
    assert!((4..22).all(|n| world.get(&address(n)) == Ok(bytes_of(n))));
    assert!(is_new(&world.put(&bytes_of(0))));
    world.crash(9);
    assert!(world.holds(&bytes_of(0)) && !world.holds(&bytes_of(1)));
}

#[test]
fn the_scrub_reports_what_a_lost_part_of_the_log_held() {
    for (what, damaged) in [(Lose::Tail, 2), (Lose::Last, 2), (Lose::All, 18)] {
        let (mut world, _) = two_segments(3);
        lose(&mut world, what);
        world.config.storage.scrub_bytes_per_s = 1 << 30;
        world.restart();
        world.scrub_now();
        world.settle();
        for _ in 0..1000 {
            world.now.mono_ns += 1_000_000_000;
            world.settle();
            world.run();
        }
        assert_eq!(world.stats.damaged_now.get(), damaged, "{what:?}: {:?}", world.notes);
    }
}

#[test]
fn records_of_another_partition_are_not_taken_up_and_stay() {
    let (mut world, _) = two_segments(4);
    let dir = world.config.layout.volumes[0].clone();
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.config.layout = Layout::single(dir, 2, 1);
    world.restart();
    let told = world.notes.iter().filter(|note| note.contains("records of partition 1")).count();
    assert_eq!(told, 1, "{:?}", world.notes);
    for n in 4..20 {
        let own = address(n).partition(2) == 0;
        assert_eq!(world.get(&address(n)), if own { Ok(bytes_of(n)) } else { Err(None) });
    }
    let paths = world.disk.paths();
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    let marks: Vec<_> = names.filter_map(hidden_mark).collect();
    assert!(matches!(marks[..], [(1, Some(_)), (2, Some(_))]), "{marks:?}");
}

/// A rebuild that cannot read a part of the log keeps the files of what was deleted, which may have
/// been stored again there, but not where the deletion came after all of that part.
#[test]
fn a_deletion_behind_all_that_is_hidden_is_not_undone() {
    let large = |n: u64| object(n, 1_100_000);
    let mut world = World::new(17);
    for n in 0..8 {
        world.put(&object(n, 900_000));
    }
    let delete_and_keep = |world: &mut World, bytes: &[u8]| {
        assert!(is_new(&put_large(world, bytes)));
        fail(world, Kind::Remove, 1, ErrorKind::Other);
        delete(world, bytes);
    };
    delete_and_keep(&mut world, &large(100));
    let segment = world.segments().remove(0);
    let at = digest_in(&world, &segment, &Address::of(&object(1, 900_000)));
    world.disk.damage(&segment, |bytes| bytes[at] ^= 1);
    let rebuild = |world: &mut World| {
        world.lose_index();
        world.kill();
    };
    rebuild(&mut world);
    assert_eq!(object_files(&world), 1, "it may have been stored again");
    delete_and_keep(&mut world, &large(101));
    assert_eq!(object_files(&world), 2);
    rebuild(&mut world);
    assert!(!world.holds(&large(101)), "a deletion is undone");
    assert_eq!(object_files(&world), 1);
}
