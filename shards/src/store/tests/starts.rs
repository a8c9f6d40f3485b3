//! Starts on a disk with faults: what cannot be read stays as it is, and the node starts.

use super::*;

#[test]
fn a_short_read_at_boot_cuts_nothing_off() {
    let mut world = World::new(4);
    let objects: Vec<Vec<u8>> = (0..8).map(|n| object(n, 50_000)).collect();
    for bytes in &objects {
        world.put(bytes);
    }
    let path = world.segments().remove(0);
    let len = world.disk.bytes(&path).len();
    for rebuilt in [false, true] {
        world.disk.kill();
        if rebuilt {
            world.lose_index();
        }
        world.disk.short_scans = limits::BOOT_SCAN_TRIES as usize - 1;
        world.restart();
        assert!(world.store.is_ready(), "{:?}", world.store.failed());
        assert_eq!((world.disk.short_scans, world.stats.partitions_absent.get()), (0, 0));
        assert!(objects.iter().all(|bytes| world.holds(bytes)), "the whole of it was read");
        assert_eq!(world.disk.bytes(&path).len(), len);
    }
    quiesce(&mut world);
    world.kill();
    world.put(&object(9, 50_000));
    world.disk.kill();
    let len = world.disk.bytes(&path).len();
    world.disk.short_scans = limits::BOOT_SCAN_TRIES as usize;
    world.restart();
    assert_eq!(world.stats.partitions_absent.get(), 1, "what was read is not all there is");
    assert_eq!(world.disk.open_files(), 0);
    assert_eq!(world.disk.bytes(&path).len(), len);
    world.kill();
    assert!(objects.iter().all(|bytes| world.holds(bytes)) && world.holds(&object(9, 50_000)));
}

#[test]
fn a_snapshot_of_a_log_whose_end_was_cut_is_used() {
    let mut world = World::new(5);
    let bytes = object(0, 3000);
    world.put(&bytes);
    quiesce(&mut world);
    world.kill();
    world.put(&object(1, 3000));
    world.put(&object(2, 3000));
    world.disk.kill();
    let path = world.segments().pop().unwrap();
    world.disk.damage(&path, |found| found.truncate(found.len() - 4096 + 3300));
    world.restart();
    let len = world.disk.bytes(&path).len();
    assert!(!len.is_multiple_of(4096), "it is cut behind a record");
    quiesce(&mut world);
    world.stop();
    world.notes.clear();
    world.restart();
    assert!(world.holds(&bytes) && world.holds(&object(1, 3000)));
    assert!(!world.notes.iter().any(|note| note.contains("index")), "{:?}", world.notes);
}

#[test]
fn a_file_that_cannot_be_removed_at_boot_is_noted() {
    let mut world = World::new(5);
    let bytes = object(1, LARGE);
    put_large(&mut world, &bytes);
    fail(&mut world, Kind::Remove, 1, ErrorKind::Other);
    delete(&mut world, &bytes);
    world.lose_index();
    world.disk.kill();
    fail(&mut world, Kind::Remove, 1, ErrorKind::Other);
    world.restart();
    assert!(world.store.is_ready(), "{:?}", world.store.failed());
    assert!(world.notes.iter().any(|note| note.contains("cannot be removed")), "{:?}", world.notes);
    assert!(!world.holds(&bytes));
}

#[test]
fn an_object_file_that_cannot_be_read_does_not_keep_the_node_from_starting() {
    for kind in [Kind::Open, Kind::Scan] {
        let mut world = World::new(6);
        let (bytes, other) = (object(1, LARGE), object(2, LARGE));
        put_large(&mut world, &bytes);
        put_large(&mut world, &other);
        for (times, both) in [(2, true), (3, false)] {
            world.lose_index();
            for segment in world.segments() {
                world.disk.lose(&segment);
            }
            world.disk.kill();
            // The files are found by their names, and each is opened, looked at and closed.
            fail(&mut world, kind, times, ErrorKind::Other);
            world.restart();
            assert!(world.store.is_ready(), "{:?}", world.store.failed());
            assert!(world.disk.planted.iter().all(|one| one.times == 0));
            world.disk.planted.clear();
            let held = [&bytes, &other].map(|bytes| usize::from(world.holds(bytes)));
            assert_eq!(held.iter().sum::<usize>(), if both { 2 } else { 1 }, "{kind:?} {times}");
            assert_eq!(object_files(&world), 2, "it stays, for it may be read another time");
        }
    }
}

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
    world.lose_index();
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

/// Names that no log reaches do not decide what is written next.
#[test]
fn a_name_that_no_log_reaches_loses_nothing() {
    let folder = |world: &World| world.config.layout.segments_dir(0);
    let mut world = World::new(21);
    world.put(&object(1, 3000));
    let mark = folder(&world).join(format!("00000001.{}.hidden", u64::MAX >> 1));
    world.disk.place(&mark, &[]);
    world.kill();
    assert!(matches!(world.put(&object(2, 3000)), Reply::Stored { new: true }));
    delete(&mut world, &object(1, 3000));
    world.kill();
    assert!(world.holds(&object(2, 3000)) && !world.holds(&object(1, 3000)));
    // Behind this one there is no number left: the partition does not open, and loses nothing.
    let last = folder(&world).join(format!("{:08}.seg", limits::FILE_NUMBER_MAX));
    world.disk.place(&last, &[]);
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
        world.lose_index();
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
