//! Faults of uploads: what is refused leaves no file, unless a record may stand for it.

use super::*;

#[test]
fn an_upload_whose_record_is_not_committed_leaves_no_file() {
    for (kind, error) in [(Kind::Write, ErrorKind::StorageFull), (Kind::Sync, ErrorKind::Other)] {
        let mut world = World::new(6);
        world.put(&object(0, 3000));
        let bytes = object(1, LARGE);
        fail(&mut world, kind, 1, error);
        let answer = put_large(&mut world, &bytes);
        assert!(matches!(answer, Reply::Failed(Fault::Full | Fault::Disk)), "{answer:?}");
        assert_eq!(object_files(&world), 0);
        assert!(!world.holds(&bytes));
        lose_index(&mut world);
        assert!(!world.holds(&bytes), "what was refused is there");
        assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
        lose_index(&mut world);
        assert!(world.holds(&bytes));
    }
}

#[test]
fn the_record_of_an_upload_that_cannot_be_cut_off_keeps_its_file() {
    for (seed, (cuts, syncs)) in (0..4).zip([(1, 1), (0, 2)].into_iter().cycle()) {
        let mut world = World::new(seed);
        world.config.storage.scrub_bytes_per_s = limits::SCRUB_BYTES_PER_S;
        world.restart();
        let (first, bytes) = (object(0, 3000), object(1, LARGE));
        world.put(&first);
        fail(&mut world, Kind::Sync, syncs, ErrorKind::Other);
        fail(&mut world, Kind::Truncate, cuts, ErrorKind::Other);
        let answer = put_large(&mut world, &bytes);
        assert!(matches!(answer, Reply::Failed(Fault::Disk)), "{answer:?}");
        assert!(!world.holds(&bytes));
        // Nothing stands for the file, as far as this process knows, and it is let lie.
        scrub(&mut world);
        assert_eq!(object_files(&world), 1);
        // Another one may find the record, and finds the file with it.
        world.kill();
        assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { .. }));
        assert!(world.holds(&bytes) && world.holds(&first));
        world.disk.crash(seed);
        world.restart();
        assert!(world.holds(&bytes) && world.holds(&first));
    }
}

#[test]
fn an_upload_that_cannot_get_its_place_leaves_no_file() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        let bytes = object(1, LARGE);
        fail(&mut world, Kind::Rename, 1, ErrorKind::Other);
        let answer = put_large(&mut world, &bytes);
        assert!(matches!(answer, Reply::Failed(Fault::Disk)), "{answer:?}");
        assert_eq!(object_files(&world), 0, "seed {seed}");
        assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
        assert!(world.holds(&bytes));
    }
}

#[test]
fn a_folder_of_objects_that_somebody_removed_is_made_again() {
    let bytes = object(1, LARGE);
    let mut world = World::new(17);
    assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
    delete(&mut world, &bytes);
    quiesce(&mut world);
    let folder = world.config.layout.objects_dir(0, Address::of(&bytes).as_bytes()[0]);
    world.disk.lose_folder(&folder);
    let answer = put_large(&mut world, &bytes);
    assert!(matches!(answer, Reply::Stored { new: true }), "{answer:?}");
    assert!(world.holds(&bytes));
}

#[test]
fn an_upload_that_cannot_be_taken_leaves_no_file() {
    let mut world = World::new(10);
    let bytes = object(1, LARGE);
    world.begin_restart();
    for _ in 0..3 {
        assert!(world.step(), "the partition is not open yet");
    }
    let ask = world.upload(&bytes);
    let Ask::Adopt { path, .. } = &ask else { panic!("{ask:?}") };
    let path = path.clone();
    let asked = world.ask(ask);
    assert!(matches!(world.answers[&asked], Reply::Failed(Fault::Busy)));
    world.run();
    assert!(!world.disk.paths().contains(&path));
    assert!(matches!(put_large(&mut world, &bytes), Reply::Stored { new: true }));
}
