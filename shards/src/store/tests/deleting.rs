//! What is deleted is gone, and stays gone though its file cannot be removed at once.

use super::*;

#[test]
fn what_is_deleted_is_gone_and_stays_gone() {
    for large in [false, true] {
        let mut world = World::new(1);
        let kept = object(1, 5000);
        let gone = object(2, if large { LARGE } else { 70_000 });
        world.put(&kept);
        let put = |world: &mut World| match large {
            true => put_large(world, &gone),
            false => world.put(&gone),
        };
        assert!(matches!(put(&mut world), Reply::Stored { new: true }));
        assert!(world.holds(&gone));
        assert!(matches!(ask_to_delete(&mut world, &gone), Reply::Deleted));
        assert!(!world.holds(&gone), "not even in the cache");
        assert!(matches!(ask_to_delete(&mut world, &gone), Reply::Missing));
        let path = world.config.layout.object_path(0, &Address::of(&gone));
        assert!(!world.disk.paths().contains(&path));
        world.crash(7);
        assert!(!world.holds(&gone) && world.holds(&kept));
        lose_index(&mut world);
        assert!(!world.holds(&gone) && world.holds(&kept));
        assert!(matches!(put(&mut world), Reply::Stored { new: true }));
        world.crash(8);
        lose_index(&mut world);
        assert!(world.holds(&gone));
        assert_eq!((world.stats.objects.get(), world.stats.deletes.get()), (2, 0));
    }
}

#[test]
fn deletions_of_one_object_at_once_share_a_tombstone() {
    let mut world = World::new(2);
    let bytes = object(1, 9000);
    world.put(&bytes);
    let asked: Vec<u32> =
        (0..3).map(|_| world.ask(Ask::Delete { address: Address::of(&bytes) })).collect();
    // An object that is put while it is being deleted is there still.
    let put = world.put_ask(&bytes);
    let put = world.ask(put);
    world.run();
    assert!(matches!(world.answers[&put], Reply::Stored { new: false }));
    assert!(asked.iter().all(|asked| matches!(world.answers[asked], Reply::Deleted)));
    assert_eq!(world.stats.sync_writes.get(), 2);
    assert!(!world.holds(&bytes));
}

#[test]
fn a_file_that_comes_again_is_not_removed_with_the_old_one() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let bytes = object(3, LARGE);
        put_large(&mut world, &bytes);
        let address = Address::of(&bytes);
        let asked = world.ask(Ask::Delete { address });
        // The tombstone is durable and the file about to be removed when the object comes again.
        while !world.pending.iter().any(|(_, op)| matches!(op, DiskOp::Remove { .. })) {
            assert!(world.step());
        }
        let again = world.upload(&bytes);
        let again = world.ask(again);
        world.run();
        assert!(matches!(world.answers[&asked], Reply::Deleted));
        assert!(matches!(world.answers[&again], Reply::Stored { new: true }));
        world.chill();
        assert!(world.holds(&bytes), "seed {seed}");
        world.crash(seed);
        assert!(world.holds(&bytes), "seed {seed}");
    }
}

#[test]
fn what_is_stored_while_its_file_is_removed_is_deleted_like_any_other() {
    let mut met = 0;
    for seed in 0..64 {
        let mut world = World::new(seed);
        let bytes = object(1, 10_000);
        let address = Address::of(&bytes);
        let ask = world.upload(&bytes);
        world.answer(ask);
        let first = world.ask(Ask::Delete { address });
        while world.stats.objects.get() > 0 {
            world.step();
        }
        // It is gone, and its file is not.
        let ask = world.put_ask(&bytes);
        let again = world.ask(ask);
        while !world.answers.contains_key(&again) {
            world.step();
        }
        met += usize::from(!world.answers.contains_key(&first));
        let second = world.ask(Ask::Delete { address });
        world.run();
        for asked in [first, second] {
            let answer = world.answers.remove(&asked);
            assert!(matches!(answer, Some(Reply::Deleted)), "{answer:?}");
        }
        assert!(!world.holds(&bytes), "seed {seed}: what is deleted is served");
    }
    assert!(met > 8, "only {met} seeds met the removal");
}

#[test]
fn a_file_that_cannot_be_removed_is_noted_and_no_more() {
    let mut world = World::new(8);
    let bytes = object(1, LARGE);
    put_large(&mut world, &bytes);
    fail(&mut world, Kind::Remove, 1, ErrorKind::Other);
    assert!(matches!(ask_to_delete(&mut world, &bytes), Reply::Deleted));
    assert!(world.notes.iter().any(|note| note.contains("its file stays")));
    assert!(!world.holds(&bytes));
    lose_index(&mut world);
    assert!(!world.holds(&bytes), "the tombstone is remembered");
    assert!(!world.disk.paths().iter().any(|path| path.extension().is_some_and(|e| e == "obj")));
}

/// A large object that is deleted while its file cannot be removed, in a segment in which nothing
/// else is left.
fn deleted_and_not_removed(world: &mut World) -> Vec<u8> {
    let gone = object(1, LARGE);
    put_large(world, &gone);
    fail(world, Kind::Remove, 1, ErrorKind::Other);
    delete(world, &gone);
    assert_eq!(object_files(world), 1);
    world.put(&object(2, 3000));
    quiesce(world);
    boot(world);
    world.put(&object(3, 3000));
    delete(world, &object(2, 3000));
    gone
}

#[test]
fn a_deletion_is_not_undone_with_its_tombstone() {
    let mut world = World::new(7);
    let gone = deleted_and_not_removed(&mut world);
    let first = world.config.layout.segment_path(0, 1);
    assert!(world.disk.paths().contains(&first));
    quiesce(&mut world);
    assert!(!world.disk.paths().contains(&first), "{:?}", world.notes);
    assert_eq!(object_files(&world), 0, "what was owed is done before the tombstone goes");
    lose_index(&mut world);
    assert!(!world.holds(&gone) && world.holds(&object(3, 3000)));
}

#[test]
fn a_file_that_cannot_be_removed_keeps_its_tombstone() {
    let mut world = World::new(8);
    let gone = deleted_and_not_removed(&mut world);
    let first = world.config.layout.segment_path(0, 1);
    // The folder's sync comes before the removal of the file, and that of the segment behind.
    let error = ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Remove, skip: 1, times: 1, error });
    settle_now(&mut world);
    world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
    world.settle();
    settle_now(&mut world);
    assert!(world.notes.iter().any(|note| note.contains("its file stays")), "{:?}", world.notes);
    assert!(world.disk.paths().contains(&first));
    // Nothing is tried before its time.
    world.now.mono_ns += limits::REMOVE_AGAIN_NS / 2;
    world.settle();
    settle_now(&mut world);
    assert_eq!(object_files(&world), 1);
    lose_index(&mut world);
    assert!(!world.holds(&gone), "a deletion is undone");
    quiesce(&mut world);
    assert!(!world.disk.paths().contains(&first), "{:?}", world.notes);
    assert_eq!(object_files(&world), 0);
}
