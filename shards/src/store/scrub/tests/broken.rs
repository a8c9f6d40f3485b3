//! Headers in the log that are broken: a rebuild finds nothing behind them.

use ron_codec::address::Address;

use super::{a_world, digests, flip, place, put_all, rebuild, round, turn};
use crate::{flow::Ask, store::tests::world::object};

#[test]
fn what_lies_behind_a_broken_header_is_moved() {
    let first: Vec<_> = (0..20).map(|n| object(n, 3000 + n as usize * 5000)).collect();
    let large = object(50, 1_500_000);
    // The header of a record that counts, of a pad, of a file record, and of one that is dead.
    for broken in ["object", "pad", "file", "dead"] {
        let mut world = a_world(4);
        put_all(&mut world, &first[..10]);
        put_all(&mut world, std::slice::from_ref(&large));
        put_all(&mut world, &first[10..]);
        world.answer(Ask::Delete { address: Address::of(&first[9]) });
        let (path, at, header) = match broken {
            "object" => place(&world, &first[3]),
            "file" => place(&world, &large),
            _ => place(&world, &first[9]),
        };
        let end = at + header.record_len() as usize;
        flip(&mut world, &path, if broken == "pad" { end + 9 } else { at + 70 });
        round(&mut world);
        assert!(world.damaged.is_empty(), "{broken}");
        let note = world.notes.iter().find(|note| note.contains("what lies behind is moved"));
        assert!(note.is_some(), "{broken}: {:?}", world.notes);
        // What comes later does not go where it could not be found again.
        let later = object(60, 7000);
        put_all(&mut world, std::slice::from_ref(&later));
        let (path_now, ..) = place(&world, &later);
        assert_ne!(path_now, path);
        let stored = || first[..9].iter().chain(&first[10..]).chain([&large, &later]);
        assert!(stored().all(|bytes| world.holds(bytes)), "{broken}");
        world.notes.clear();
        round(&mut world);
        assert!(!world.notes.iter().any(|note| note.contains("is moved")), "{:?}", world.notes);
        rebuild(&mut world);
        let lost = stored().find(|bytes| !world.holds(bytes)).map(Vec::len);
        assert_eq!(lost, None, "{broken}: an object is lost in the rebuild");
    }
}

#[test]
fn deletions_behind_a_broken_header_are_saved_as_soon_as_it_is_found() {
    let objects: Vec<_> = (0..6).map(|n| object(n, 9000)).collect();
    let mut world = a_world(14);
    put_all(&mut world, &objects);
    world.answer(Ask::Delete { address: Address::of(&objects[0]) });
    // Read from the log, and in no checkpoint yet.
    world.kill();
    let (path, at, _) = place(&world, &objects[2]);
    flip(&mut world, &path, at + 70);
    world.scrub_now();
    while !world.notes.iter().any(|note| note.contains("what lies behind is moved")) {
        turn(&mut world);
    }
    world.kill();
    assert!(!world.holds(&objects[0]), "it was deleted");
    assert!(objects[1..].iter().all(|bytes| world.holds(bytes)));
}

#[test]
fn what_is_damaged_behind_a_broken_header_stays() {
    let objects: Vec<_> = (0..6).map(|n| object(n, 9000)).collect();
    let mut world = a_world(5);
    put_all(&mut world, &objects);
    let (path, at, _) = place(&world, &objects[1]);
    let (_, behind, _) = place(&world, &objects[4]);
    flip(&mut world, &path, at);
    flip(&mut world, &path, behind + 500);
    for _ in 0..2 {
        round(&mut world);
        assert_eq!(world.damaged, digests(&[&objects[4]]));
    }
    rebuild(&mut world);
    for n in [0, 1, 2, 3, 5] {
        assert!(world.holds(&objects[n]), "{n}");
    }
}
