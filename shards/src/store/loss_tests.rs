//! A log of which a part is lost, below the position of the snapshot.

use std::path::PathBuf;

use ron_codec::address::Address;

use super::{
    layout::Layout,
    testworld::{World, is_new, object},
};
use crate::flow::{Ask, Fault, Reply};

/// The objects 0 to 19 in a first segment, of which 0 to 3 were deleted by a second process, which
/// stored 20 and 21: all in order, and stopped.
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
    let marks = world.disk.paths();
    for segment in [1, 2] {
        assert!(marks.contains(&world.config.layout.hidden_path(0, segment)), "{segment}");
    }
}
