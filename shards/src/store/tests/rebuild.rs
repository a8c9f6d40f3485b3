//! An index that is made again from the log, also where a part of it cannot be read.

use super::*;

#[test]
fn a_lost_index_is_made_again() {
    for loss in ["removed", "garbage", "older", "segment"] {
        let mut world = World::new(10);
        let large = object(99, 2 * 1024 * 1024);
        for bytes in shapes() {
            world.put(&bytes);
        }
        let ask = world.upload(&large);
        world.answer(ask);
        world.stop();
        world.restart();
        world.put(b"in another segment");
        world.stop();
        world.store = Store::new(&world.config);
        let index = world.config.layout.index_dir(0);
        match loss {
            "removed" => std::fs::remove_dir_all(&index).unwrap(),
            "garbage" => {
                for entry in std::fs::read_dir(&index).unwrap() {
                    std::fs::write(entry.unwrap().path(), [7; 8192]).unwrap();
                }
            }
            "older" => std::fs::write(index.join("data.mdb"), [7; 8192]).unwrap(),
            _ => {
                // The log record of the large object is lost too, its file is not.
                std::fs::remove_dir_all(&index).unwrap();
                for path in world.segments() {
                    world.disk.perform(DiskOp::Remove { path, durable: false }).unwrap();
                }
            }
        }
        world.restart();
        assert!(world.store.is_ready(), "{:?}", world.store.failed());
        assert!(world.holds(&large), "{loss}");
        if loss == "segment" {
            assert_eq!(world.stats.objects.get(), 1);
            continue;
        }
        assert!(world.notes.iter().any(|note| note.contains("rebuilding")), "{:?}", world.notes);
        assert!(world.notes.iter().any(|note| note.contains("rebuilt")), "{:?}", world.notes);
        assert!(shapes().iter().all(|bytes| world.holds(bytes)), "{loss}");
        assert!(world.holds(b"in another segment"));
        assert_eq!(world.stats.objects.get(), shapes().len() as u64 + 2);
    }
}

#[test]
fn a_rebuild_keeps_the_file_that_it_takes_up() {
    let mut world = World::new(1);
    let bytes = object(1, LARGE);
    put_large(&mut world, &bytes);
    delete(&mut world, &bytes);
    // The record of the second store lies behind a damaged header.
    let before = world.disk.bytes(&world.segments()[0]).len();
    world.put(&object(2, 3000));
    assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
    // Another segment follows, so that the damage is no torn end.
    world.kill();
    world.put(&object(3, 3000));
    assert!(world.holds(&bytes));
    let path = world.segments().remove(0);
    world.disk.damage(&path, |bytes| bytes[before] ^= 1);
    for _ in 0..2 {
        lose_index(&mut world);
        assert!(world.holds(&bytes), "{:?}", world.notes);
    }
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
        world.lose_index();
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
        world.lose_index();
        world.disk.kill();
        let times = segments * limits::BOOT_SCAN_TRIES as usize;
        fail(world, kind, times, error);
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
        let (_, rename) = world.pending.remove(at);
        world.disk.half_perform(rename);
        assert_eq!(object_files(&world), 1);
        world.lose_index();
        world.kill();
        assert!(world.holds(&bytes), "{:?}", world.notes);
        world.lose_index();
        world.crash(seed);
        assert!(world.holds(&bytes), "seed {seed}: {:?}", world.notes);
    }
}

/// The index is lost, and one of the segments that are there cannot be read.
fn rebuild(world: &mut World, unread: Option<usize>) {
    world.lose_index();
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
pub(super) fn what_was_moved_behind_its_tombstone_stays_deleted() {
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

/// The index was made again from an older record, and a newer one says that there is a file.
#[test]
fn the_file_of_a_record_that_a_rebuild_could_not_read_stays() {
    let mut world = World::new(17);
    world.config.storage.scrub_bytes_per_s = limits::SCRUB_BYTES_PER_S;
    let bytes = object(1, 900_000);
    for bytes in [&bytes, &object(2, 900_000), &object(3, 900_000)] {
        world.put(bytes);
    }
    let segment = world.segments().remove(0);
    let flip = |world: &mut World| world.disk.damage(&segment, |bytes| bytes[9000] ^= 1);
    flip(&mut world);
    world.kill();
    assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Integrity)));
    assert!(is_new(&put_large(&mut world, &bytes)), "it is stored anew, as a file");
    flip(&mut world);
    rebuild(&mut world, Some(1));
    assert!(world.holds(&bytes), "the older record is whole again: {:?}", world.notes);
    scrub(&mut world);
    assert_eq!(object_files(&world), 1, "{:?}", world.notes);
    rebuild(&mut world, None);
    assert!(world.holds(&bytes), "{:?}", world.notes);
}

/// The tombstone of an earlier deletion is moved behind the last checkpoint, and the process ends.
#[test]
fn a_tombstone_that_is_moved_takes_nothing_that_came_again_behind_damage() {
    let bytes = object(1, LARGE);
    let begin = || {
        let mut world = World::new(18);
        world.config.compact_dead_min = 64 << 10;
        put_large(&mut world, &bytes);
        delete(&mut world, &bytes);
        let others: Vec<Vec<u8>> = (20..24).map(|n| object(n, 100_000)).collect();
        others.iter().for_each(|bytes| drop(world.put(bytes)));
        world.kill();
        put_large(&mut world, &bytes);
        world.kill();
        world.put(&object(2, 3000));
        rebuild(&mut world, Some(1));
        assert!(world.holds(&bytes), "its file is there: {:?}", world.notes);
        quiesce(&mut world);
        for bytes in &others {
            world.ask(Ask::Delete { address: Address::of(bytes) });
        }
        world
    };
    let mut moved = 0;
    for acts in 0.. {
        let mut world = begin();
        let ended = (0..acts).any(|_| !world.step());
        moved += usize::from(world.stats.compact_moved_bytes.get() > 0);
        world.kill();
        assert!(world.holds(&bytes), "after {acts} acts: {:?}", world.notes);
        if ended {
            break;
        }
    }
    assert!(moved > 3, "its tombstone is moved");
}
