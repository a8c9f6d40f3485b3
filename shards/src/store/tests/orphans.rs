//! Files that nothing stands for: the scrub frees them, and a deletion beside it is one.

use super::*;

#[test]
fn files_that_a_crash_left_are_found_and_freed() {
    let mut world = World::new(10);
    world.config.storage.scrub_bytes_per_s = limits::SCRUB_BYTES_PER_S;
    world.restart();
    let (kept, left, gone) = (object(1, LARGE), object(2, LARGE), object(3, LARGE));
    put_large(&mut world, &kept);
    put_large(&mut world, &gone);
    fail(&mut world, Kind::Remove, 1, ErrorKind::Other);
    delete(&mut world, &gone);
    // Renamed and not recorded; and a copy from another volume that was not finished.
    let Ask::Adopt { path, .. } = world.upload(&left) else { panic!() };
    let place = world.config.layout.object_path(0, &Address::of(&left));
    let bytes = world.disk.bytes(&path).to_vec();
    world.disk.place(&place, &bytes);
    let part = world.config.layout.object_path(0, &Address::of(&kept)).with_extension("part");
    world.disk.place(&part, &[1]);
    assert_eq!(object_files(&world), 3);
    scrub(&mut world);
    assert_eq!(object_files(&world), 1, "{:?}", world.notes);
    assert!(!world.disk.paths().iter().any(|path| path.extension().is_some_and(|e| e == "part")));
    assert!(world.notes.iter().any(|note| note.contains("2 files freed")), "{:?}", world.notes);
    assert!(world.holds(&kept) && !world.holds(&left) && !world.holds(&gone));
    assert!(matches!(put_large(&mut world, &left), Reply::Stored { new: true }));
    lose_index(&mut world);
    assert!(world.holds(&kept) && world.holds(&left) && !world.holds(&gone));
}

#[test]
fn a_deletion_is_one_while_a_file_of_that_name_is_freed() {
    let bytes = object(1, 3000);
    let address = Address::of(&bytes);
    // An object in the log, and a file of its name that nothing stands for.
    let begin = |seed: u64| {
        let mut world = World::new(seed);
        world.config.storage.scrub_bytes_per_s = limits::SCRUB_BYTES_PER_S;
        world.restart();
        let Ask::Adopt { path, .. } = world.upload(&bytes) else { panic!() };
        world.put(&bytes);
        world.put(&object(2, 3000));
        let place = world.config.layout.object_path(0, &address);
        let file = world.disk.bytes(&path).to_vec();
        world.disk.place(&place, &file);
        world.scrub_now();
        world
    };
    let mut met = 0;
    for seed in 0..32 {
        let mut world = begin(seed);
        let mut acts = 0;
        while object_files(&world) > 0 {
            act(&mut world);
            acts += 1;
        }
        for early in 1..4 {
            let mut world = begin(seed);
            (0..acts - early).for_each(|_| act(&mut world));
            let asked = world.ask(Ask::Delete { address });
            // Both go on at the same time.
            while !world.answers.contains_key(&asked) {
                world.now.mono_ns += limits::REMOVE_AGAIN_NS;
                world.settle();
                world.step();
            }
            match world.answers.remove(&asked) {
                Some(Reply::Deleted) => {
                    met += usize::from(object_files(&world) == 0);
                    assert!(!world.holds(&bytes), "what is deleted is served");
                }
                // It is refused while that file is being removed.
                Some(Reply::Failed(Fault::Busy)) => assert!(world.holds(&bytes)),
                answer => panic!("{answer:?}, {early} acts before in world {seed}"),
            }
        }
    }
    assert!(met > 8, "only {met} deletions met the removal");
}

#[test]
pub(super) fn a_file_whose_removal_fails_while_orphans_are_looked_for_keeps_its_tombstone() {
    let mut world = World::new(10);
    world.config.compact_dead_min = 8192;
    let gone = object(1, LARGE);
    put_large(&mut world, &gone);
    let address = Address::of(&gone);
    let file = world.config.layout.object_path(0, &address);
    let folder = file.parent().expect("it has a folder").to_path_buf();
    let is_listed = |op: &DiskOp| matches!(op, DiskOp::List { path } if *path == folder);
    let is_removal = |op: &DiskOp| matches!(op, DiskOp::Remove { path, .. } if *path == file);
    world.ask(Ask::Delete { address });
    let mut tries = 0;
    while !world.step_where(is_listed) {
        if !world.step_where(|op| !is_removal(op)) {
            tries += 1;
            assert!(tries < 10, "its folder is never listed");
            world.settle();
        }
    }
    // The search took it for a file that is about to go.
    fail(&mut world, Kind::Remove, 1, ErrorKind::Other);
    assert!(world.step_where(is_removal));
    settle_now(&mut world);
    assert!(world.notes.iter().any(|note| note.contains("its file stays")), "{:?}", world.notes);
    quiesce(&mut world);
    assert_eq!(object_files(&world), 0, "the next search finds it");
    lose_index(&mut world);
    assert!(!world.holds(&gone), "a deletion is undone");
}
