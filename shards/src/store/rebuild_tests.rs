//! Logs that cannot be read, rebuilds without them, and what comes after, on the disk twin.

use std::{io::ErrorKind, path::PathBuf};

use ron_codec::address::Address;
use ron_io::ports::DiskOp;

use super::{
    Store,
    fault_tests::{delete, fail, lose_index, object_files, quiesce},
    testdisk::{Kind, Planted},
    testworld::{World, object},
};
use crate::{
    flow::{Fault, Reply},
    limits,
};

const LARGE: usize = 1_100_000;

/// Where the disk gives neither the index nor the log, what is there is not known: nothing is said
/// to be missing, and all is there once it can be read.
#[test]
fn an_index_and_a_log_that_cannot_be_read_are_no_empty_partition() {
    let bytes = object(1, 900_000);
    let mut world = World::new(13);
    world.put(&bytes);
    quiesce(&mut world);
    let dir = world.config.layout.index_dir(0);
    let snapshots: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!snapshots.is_empty());
    // A link to itself leads to nothing that can be read.
    for path in &snapshots {
        std::fs::rename(path, path.with_extension("aside")).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
    }
    world.disk.kill();
    fail(&mut world, Kind::Scan, limits::BOOT_SCAN_TRIES as usize, ErrorKind::Other);
    world.restart();
    assert_eq!(world.stats.partitions_absent.get(), 1);
    assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Absent)));
    for path in &snapshots {
        std::fs::remove_file(path).unwrap();
        std::fs::rename(path.with_extension("aside"), path).unwrap();
    }
    world.kill();
    assert_eq!(world.stats.partitions_absent.get(), 0);
    assert!(world.holds(&bytes));
}

#[test]
fn a_piece_of_the_log_that_cannot_be_read_does_not_keep_the_node_from_starting() {
    let objects: Vec<Vec<u8>> = (0..3).map(|n| object(n, 900_000)).collect();
    let mut world = World::new(12);
    for bytes in &objects {
        world.put(bytes);
    }
    quiesce(&mut world);
    world.kill();
    world.put(&object(9, 3000));
    let lens: Vec<usize> =
        world.segments().iter().map(|path| world.disk.bytes(path).len()).collect();
    // With the index, behind its position: this partition does not open, and the others do.
    world.disk.kill();
    let times = limits::BOOT_SCAN_TRIES as usize;
    fail(&mut world, Kind::Scan, times, ErrorKind::Other);
    world.restart();
    assert!(world.store.is_ready(), "{:?}", world.store.failed());
    assert_eq!(world.stats.partitions_absent.get(), 1);
    assert_eq!(world.get(&Address::of(&objects[0])), Err(Some(Fault::Absent)));
    // Once more it is there again, and nothing was cut.
    world.kill();
    assert!(objects.iter().all(|bytes| world.holds(bytes)));
    // An error that passes is none.
    world.disk.kill();
    fail(&mut world, Kind::Scan, times - 1, ErrorKind::Other);
    world.restart();
    assert_eq!(world.stats.partitions_absent.get(), 0);
    assert!(objects.iter().all(|bytes| world.holds(bytes)));
    // In a rebuild the segment ends there.
    world.store = Store::new(&world.config);
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.disk.kill();
    let error = ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Scan, skip: 1, times, error });
    world.restart();
    assert!(world.store.is_ready(), "{:?}", world.store.failed());
    assert!(world.notes.iter().any(|note| note.contains("cannot be read")), "{:?}", world.notes);
    assert!(world.holds(&objects[0]) && world.holds(&object(9, 3000)));
    assert!(matches!(world.put(&object(10, 3000)), Reply::Stored { new: true }));
    let paths = world.segments();
    for (path, len) in paths.iter().zip(lens) {
        assert_eq!(world.disk.bytes(path).len(), len, "nothing is cut");
    }
    world.stop();
    world.restart();
    assert!(world.holds(&object(10, 3000)) && world.holds(&objects[0]));
    lose_index(&mut world);
    assert!(objects.iter().all(|bytes| world.holds(bytes)), "it can be read again");
}

#[test]
fn what_was_deleted_while_a_segment_could_not_be_read_stays_deleted() {
    let mut world = World::new(12);
    let bytes = object(1, 3000);
    world.put(&bytes);
    for bytes in (6..9).map(|n| object(n, 3000)) {
        world.put(&bytes);
    }
    world.kill();
    delete(&mut world, &bytes);
    for bytes in (1..6).map(|n| object(n, 3000)) {
        world.put(&bytes);
    }
    let lose = |world: &mut World| {
        world.store = Store::new(&world.config);
        std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        world.disk.kill();
    };
    lose(&mut world);
    let (kind, times, error) = (Kind::Scan, limits::BOOT_SCAN_TRIES as usize, ErrorKind::Other);
    world.disk.planted.push(Planted { kind, skip: 1, times, error });
    world.restart();
    assert!(world.holds(&bytes) && !world.holds(&object(2, 3000)), "{:?}", world.notes);
    delete(&mut world, &bytes);
    // The second segment, which can be read again, has it with a higher sequence than the first.
    lose(&mut world);
    world.restart();
    assert!(world.holds(&object(2, 3000)), "{:?}", world.notes);
    assert!(!world.holds(&bytes), "a deletion is undone");
}

/// Two processes can read nothing of the log, and the second knows nothing of the first.
#[test]
fn what_was_deleted_while_nothing_could_be_read_stays_deleted_though_it_happens_again() {
    let mut world = World::new(12);
    world.put(&object(2, 3000));
    let bytes = object(1, 3000);
    let (kind, error) = (Kind::Scan, ErrorKind::Other);
    let lose = |world: &mut World, segments: usize| {
        world.store = Store::new(&world.config);
        std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        world.disk.kill();
        let times = segments * limits::BOOT_SCAN_TRIES as usize;
        world.disk.planted.push(Planted { kind, skip: 0, times, error });
        world.restart();
    };
    lose(&mut world, 1);
    for bytes in (3..9).map(|n| object(n, 3000)) {
        world.put(&bytes);
    }
    world.put(&bytes);
    // All of it is read, and the marks are gone.
    lose(&mut world, 0);
    assert!(world.holds(&bytes), "{:?}", world.notes);
    lose(&mut world, 2);
    assert!(!world.holds(&bytes), "{:?}", world.notes);
    world.put(&bytes);
    delete(&mut world, &bytes);
    lose(&mut world, 0);
    assert!(world.holds(&object(2, 3000)), "{:?}", world.notes);
    assert!(!world.holds(&bytes), "a deletion is undone");
}

/// A rebuild takes up a file whose name a killed process did not make durable: from then on it is
/// answered for.
#[test]
fn what_a_rebuild_takes_up_stays_there() {
    for seed in 0..8 {
        let mut world = World::new(15);
        let bytes = object(1, LARGE);
        world.put(&object(2, 3000));
        let ask = world.upload(&bytes);
        world.ask(ask);
        let is_rename = |op: &DiskOp| matches!(op, DiskOp::Rename { .. });
        while !world.pending.iter().any(|(_, op)| is_rename(op)) {
            assert!(world.step(), "it gets its place by a rename");
        }
        let at = world.pending.iter().position(|(_, op)| is_rename(op)).unwrap();
        while object_files(&world) == 0 {
            world.disk.half_done(&world.pending[at].1);
        }
        world.store = Store::new(&world.config);
        std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        world.kill();
        assert!(world.holds(&bytes), "{:?}", world.notes);
        world.store = Store::new(&world.config);
        std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        world.crash(seed);
        assert!(world.holds(&bytes), "seed {seed}: {:?}", world.notes);
    }
}

/// The index is lost, and one of the segments that are there cannot be read.
fn rebuild(world: &mut World, unread: Option<usize>) {
    world.store = Store::new(&world.config);
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.disk.kill();
    world.disk.unreadable = unread.map(|nth| world.segments().remove(nth));
    world.restart();
    world.disk.unreadable = None;
}

/// An object that is deleted, with its tombstone and other objects in the oldest segment, and its
/// record in a later one: it was moved there while the tombstone could not be read.
fn record_behind_its_tombstone(world: &mut World) -> (Vec<u8>, Vec<Vec<u8>>) {
    world.config.compact_dead_min = 64 << 10;
    let below = std::mem::take(&mut world.config.storage.compact_below_percent);
    let gone = object(1, 5000);
    let sparse: Vec<Vec<u8>> = (10..14).map(|n| object(n, 100_000)).collect();
    world.put(&gone);
    sparse.iter().for_each(|bytes| drop(world.put(bytes)));
    world.kill();
    delete(world, &gone);
    let others: Vec<Vec<u8>> = (20..24).map(|n| object(n, 100_000)).collect();
    others.iter().for_each(|bytes| drop(world.put(bytes)));
    world.config.storage.compact_below_percent = below;
    rebuild(world, Some(1));
    assert!(world.holds(&gone) && !world.holds(&others[0]), "{:?}", world.notes);
    sparse.iter().for_each(|bytes| delete(world, bytes));
    quiesce(world);
    assert_eq!((world.stats.compactions.get() > 0, world.segments().len()), (true, 2));
    // It keeps the segment with the record that was moved.
    world.put(&object(30, 5000));
    (gone, others)
}

#[test]
fn what_was_moved_behind_its_tombstone_stays_deleted() {
    let mut world = World::new(14);
    let (gone, others) = record_behind_its_tombstone(&mut world);
    // The first process that reads all of it is interrupted by a full disk.
    for disk_fails in [true, false] {
        if disk_fails {
            fail(&mut world, Kind::Write, 1, ErrorKind::StorageFull);
        }
        rebuild(&mut world, None);
        assert!(!world.holds(&gone) && world.holds(&others[0]), "{:?}", world.notes);
    }
    quiesce(&mut world);
    others.iter().for_each(|bytes| delete(&mut world, bytes));
    quiesce(&mut world);
    assert!(!world.segments()[0].ends_with("00000002.seg"), "{:?}", world.segments());
    rebuild(&mut world, None);
    assert!(!world.holds(&gone), "a deletion is undone");
}

#[test]
fn what_was_moved_into_a_hidden_segment_stays_deleted() {
    let mut world = World::new(15);
    let (gone, others) = record_behind_its_tombstone(&mut world);
    // The tombstone can be read now, and what it hides cannot.
    rebuild(&mut world, Some(1));
    assert!(!world.holds(&gone) && world.holds(&others[0]), "{:?}", world.notes);
    others.iter().for_each(|bytes| delete(&mut world, bytes));
    quiesce(&mut world);
    assert!(!world.segments()[0].ends_with("00000002.seg"), "{:?}", world.segments());
    rebuild(&mut world, None);
    assert!(world.holds(&object(30, 5000)), "{:?}", world.notes);
    assert!(!world.holds(&gone), "a deletion is undone");
}

#[test]
fn damage_far_from_the_end_is_no_torn_batch() {
    let objects: Vec<Vec<u8>> = (0..8).map(|n| object(n, 900_000)).collect();
    let mut world = World::new(16);
    for bytes in &objects {
        world.put(bytes);
    }
    let segment = world.segments().remove(0);
    let len = world.disk.bytes(&segment).len();
    let digest = Address::of(&objects[1]);
    let bytes = world.disk.bytes(&segment);
    let at = bytes.windows(32).position(|window| window == digest.as_bytes());
    let at = at.expect("it is in the log");
    world.disk.damage(&segment, |bytes| bytes[at] ^= 1);
    for boot in 0..3 {
        world.kill();
        if boot == 2 {
            lose_index(&mut world);
        }
        let told = world.notes.iter().filter(|note| note.contains("is damaged at")).count();
        assert_eq!(told, usize::from(boot != 1), "{:?}", world.notes);
        assert_eq!(world.disk.bytes(&segment).len(), len, "what was synced is not cut off");
        assert!(world.holds(&objects[0]));
        let more = object(100 + boot, 3000);
        assert!(matches!(world.put(&more), Reply::Stored { new: true }));
        quiesce(&mut world);
    }
    assert!((100..103).all(|seed| world.holds(&object(seed, 3000))));
    assert!(world.stats.integrity_fail.get() > 0);
    // When all of it can be read again nothing was lost, and it is compacted as any other.
    world.disk.damage(&segment, |bytes| bytes[at] ^= 1);
    lose_index(&mut world);
    assert!(objects.iter().all(|bytes| world.holds(bytes)));
    assert_eq!(marks(&world).len(), 0);
}

/// Objects behind a header that rotted, after a start without an index that could not mark their
/// segment, nor could the process `tries` times in all.
fn hidden_and_not_marked(seed: u64, tries: usize) -> (World, PathBuf) {
    let mut world = World::new(seed);
    for n in 0..8 {
        world.put(&object(n, 900_000));
    }
    let segment = world.segments().remove(0);
    world.disk.damage(&segment, |bytes| bytes[0] ^= 1);
    world.store = Store::new(&world.config);
    std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
    world.disk.kill();
    // The first opens the segment.
    let error = ErrorKind::StorageFull;
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 1, times: tries, error });
    world.restart();
    assert!(world.notes.iter().any(|note| note.contains("cannot be marked")), "{:?}", world.notes);
    (world, segment)
}

fn marks(world: &World) -> Vec<PathBuf> {
    let is_mark = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "hidden");
    world.disk.paths().into_iter().filter(is_mark).collect()
}

/// A segment that could not be marked is kept by this process and by the next.
#[test]
fn records_that_are_hidden_stay_though_their_segment_cannot_be_marked_at_first() {
    let (mut world, segment) = hidden_and_not_marked(19, 2);
    world.stop();
    // An open that failed may have made the file, and nobody made that durable.
    marks(&world).iter().for_each(|mark| world.disk.lose(mark));
    world.restart();
    assert!(world.notes.iter().any(|note| note.contains("is damaged at")), "{:?}", world.notes);
    assert_eq!(marks(&world).len(), 1);
    for bytes in (20..40).map(|n| object(n, 400_000)) {
        world.put(&bytes);
        delete(&mut world, &bytes);
        quiesce(&mut world);
    }
    world.stop();
    world.restart();
    quiesce(&mut world);
    assert_eq!(world.segments().remove(0), segment, "what is hidden in it is kept");
    world.disk.damage(&segment, |bytes| bytes[0] ^= 1);
    lose_index(&mut world);
    assert!((0..8).all(|n| world.holds(&object(n, 900_000))));
}

/// The process that could not mark it tries again, and makes no checkpoint before.
#[test]
fn a_mark_is_tried_until_it_can_be_made() {
    let (mut world, _) = hidden_and_not_marked(23, 4);
    let snapshots = |world: &World| {
        let entries = std::fs::read_dir(world.config.layout.index_dir(0)).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().ends_with("00000001.idx")).count()
    };
    world.checkpoint();
    assert_eq!(snapshots(&world), 0, "the next start would not look at it again");
    quiesce(&mut world);
    assert_eq!(marks(&world).len(), 1);
    assert!(world.now.mono_ns >= 3 * limits::MARK_AGAIN_NS);
    assert_eq!(snapshots(&world), 1);
}

/// Names that no log reaches do not decide what is written next.
#[test]
fn a_name_that_no_log_reaches_loses_nothing() {
    let folder = |world: &World| world.config.layout.segments_dir(0);
    let mut world = World::new(21);
    world.put(&object(1, 3000));
    let mark = folder(&world).join(format!("00000001.{}.hidden", u64::MAX >> 1));
    world.disk.place(mark, Vec::new());
    world.kill();
    assert!(matches!(world.put(&object(2, 3000)), Reply::Stored { new: true }));
    delete(&mut world, &object(1, 3000));
    world.kill();
    assert!(world.holds(&object(2, 3000)) && !world.holds(&object(1, 3000)));
    // Behind this one there is no number left: the partition does not open, and loses nothing.
    let last = folder(&world).join(format!("{:08}.seg", limits::FILE_NUMBER_MAX));
    world.disk.place(last.clone(), Vec::new());
    world.kill();
    assert_eq!(world.stats.partitions_absent.get(), 1, "{:?}", world.notes);
    assert!(matches!(world.put(&object(3, 3000)), Reply::Failed(Fault::Absent)));
    world.disk.lose(&last);
    world.kill();
    assert!(world.holds(&object(2, 3000)) && !world.holds(&object(1, 3000)));
}

#[test]
fn a_file_where_a_folder_of_objects_should_be_keeps_no_node_from_starting() {
    let mut world = World::new(22);
    world.put(&object(1, 3000));
    for (error, absent) in [(ErrorKind::NotADirectory, 0), (ErrorKind::Other, 1)] {
        world.store = Store::new(&world.config);
        std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        world.disk.kill();
        // Uploads and segments are listed before.
        world.disk.planted.push(Planted { kind: Kind::List, skip: 2, times: 1, error });
        world.restart();
        assert!(world.store.is_ready(), "{:?}", world.store.failed());
        assert_eq!(world.stats.partitions_absent.get(), absent, "{error:?}");
        let wanted = if absent == 0 { Ok(object(1, 3000)) } else { Err(Some(Fault::Absent)) };
        assert_eq!(world.get(&Address::of(&object(1, 3000))), wanted);
        world.kill();
        assert!(world.holds(&object(1, 3000)));
    }
}
