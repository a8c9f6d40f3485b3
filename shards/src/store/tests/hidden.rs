//! Damage that a start meets in the log: what it hides is kept, and nothing behind it is cut off.

use super::*;

#[test]
fn damage_in_the_tail_is_told_from_a_torn_batch() {
    let mut world = World::new(16);
    world.put(&object(0, 5000));
    world.put(&object(1, 5000));
    let segment = world.segments().remove(0);
    world.disk.damage(&segment, |bytes| bytes[1000] ^= 1);
    world.kill();
    assert_eq!(world.get(&Address::of(&object(0, 5000))), Err(Some(Fault::Integrity)));
    assert!(world.holds(&object(1, 5000)), "what was acknowledged later is not cut off");
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
    let at = digest_in(&world, &segment, &Address::of(&objects[1]));
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
    world.lose_index();
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
pub(super) fn a_mark_is_tried_until_it_can_be_made() {
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
