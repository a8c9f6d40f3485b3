//! Damage to objects and to what lies beside their data, and disks that fail.

use std::io;

use ron_codec::{address::Address, limits::DISK_BLOCK_LEN, record::RecordHeader};
use ron_io::{
    ports::DiskOp,
    sim::{Kind, Planted},
};

use super::{a_world, digests, flip, place, put_all, rebuild, round};
use crate::{flow::Fault, store::tests::world::object};

#[test]
fn damaged_data_are_reported_and_nothing_else_is() {
    let objects = [object(1, 1000), object(2, 100_000), object(3, 5000), object(4, 2_000_000)];
    for hurt in 0..4 {
        for after_restart in [false, true] {
            let mut world = a_world(2);
            put_all(&mut world, &objects);
            if after_restart {
                world.stop();
                world.restart();
            }
            let path = match hurt {
                3 => world.config.layout.object_path(0, &Address::of(&objects[3])),
                _ => place(&world, &objects[hurt]).0,
            };
            let at = if hurt == 3 { 4096 } else { place(&world, &objects[hurt]).1 + 128 };
            flip(&mut world, &path, at + objects[hurt].len() - 1);
            for nth in 1..3 {
                round(&mut world);
                assert_eq!(world.damaged, digests(&[&objects[hurt]]), "told once, each round");
                let stats = &world.stats;
                assert_eq!((stats.damaged_objects.get(), stats.integrity_fail.get()), (nth, nth));
                assert_eq!(stats.scrub_repaired.get(), 0);
            }
            let address = Address::of(&objects[hurt]);
            assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "it is still there");
            let whole = |n: &usize| *n != hurt;
            assert!((0..4).filter(whole).all(|n| world.holds(&objects[n])));
            rebuild(&mut world);
            assert!((0..4).filter(whole).all(|n| world.holds(&objects[n])), "{hurt}");
        }
    }
}

#[test]
fn damage_beside_right_data_is_repaired() {
    let objects = [object(1, 1000), object(2, 100_000), object(3, 5000), object(4, 300_000)];
    for (hurt, what) in [(0, "header"), (1, "header"), (1, "outboard"), (3, "outboard")] {
        let mut world = a_world(3);
        put_all(&mut world, &objects);
        let (path, at, header) = place(&world, &objects[hurt]);
        let spot = if what == "header" { 20 } else { header.outboard_offset() as usize + 33 };
        flip(&mut world, &path, at + spot);
        round(&mut world);
        assert!(world.damaged.is_empty());
        assert_eq!((world.stats.scrub_repaired.get(), world.stats.damaged_objects.get()), (1, 0));
        let told = format!("{what} of {}", Address::of(&objects[hurt]));
        assert!(world.notes.iter().any(|note| note.contains(&told)), "{:?}", world.notes);
        world.chill();
        assert!(objects.iter().all(|bytes| world.holds(bytes)), "{what} of {hurt}");
        round(&mut world);
        assert_eq!(world.stats.scrub_repaired.get(), 1, "it is whole now");
        rebuild(&mut world);
        assert!(objects.iter().all(|bytes| world.holds(bytes)), "{what} of {hurt}, rebuilt");
        assert_eq!(world.stats.objects.get(), 4);
    }
}

#[test]
fn object_files_are_looked_at_all_over() {
    let large = object(4, 2 * 1024 * 1024);
    let address = Address::of(&large);
    for damage in ["data", "cut", "missing", "garbage"] {
        let mut world = a_world(6);
        put_all(&mut world, std::slice::from_ref(&large));
        let path = world.config.layout.object_path(0, &address);
        match damage {
            "data" => flip(&mut world, &path, DISK_BLOCK_LEN + 777),
            "cut" => world.disk.damage(&path, |bytes| bytes.truncate(1_000_000)),
            "garbage" => world.disk.damage(&path, |bytes| bytes.fill(0xee)),
            _ => drop(world.disk.perform(DiskOp::Remove { path, durable: false })),
        }
        round(&mut world);
        assert_eq!(world.damaged, digests(&[&large]), "{damage}");
        assert_eq!(world.stats.integrity_fail.get(), 1);
        assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "{damage}");
    }
}

#[test]
fn object_files_are_repaired_where_they_lie() {
    let large = object(4, 2 * 1024 * 1024 + 5);
    let address = Address::of(&large);
    let damages: [(&str, usize); 4] = [("header", 20), ("outboard", 5), ("cut", 0), ("block", 1)];
    for (damage, at) in damages {
        let mut world = a_world(6);
        put_all(&mut world, std::slice::from_ref(&large));
        let (_, _, header) = place(&world, &large);
        let (_, sequence) = (header.kind(), header.sequence());
        let header = RecordHeader::for_file(address, large.len() as u64, sequence).unwrap();
        let path = world.config.layout.object_path(0, &address);
        let outboard = header.outboard_offset() as usize;
        match damage {
            "header" => flip(&mut world, &path, at),
            "outboard" => flip(&mut world, &path, outboard + at),
            "cut" => world.disk.damage(&path, |bytes| bytes.truncate(outboard + 40)),
            _ => world.disk.damage(&path, |bytes| bytes[..4096].fill(7)),
        }
        round(&mut world);
        assert!(world.damaged.is_empty(), "{damage}");
        assert_eq!((world.stats.scrub_repaired.get(), world.stats.integrity_fail.get()), (1, 0));
        assert!(world.holds(&large), "{damage}");
        assert_eq!(world.disk.bytes(&path).len() as u64, header.record_len());
        world.crash(3);
        assert!(world.holds(&large), "{damage}");
        round(&mut world);
        assert_eq!(world.stats.scrub_repaired.get(), 0, "nothing is left to mend");
    }
    // A disk that cannot be written keeps its damage, which is reported.
    let mut world = a_world(6);
    put_all(&mut world, std::slice::from_ref(&large));
    let path = world.config.layout.object_path(0, &address);
    flip(&mut world, &path, 20);
    let error = io::ErrorKind::ReadOnlyFilesystem;
    world.disk.planted.push(Planted { kind: Kind::Write, skip: 0, times: 1, error });
    round(&mut world);
    assert_eq!(world.damaged, digests(&[&large]));
    assert_eq!(world.stats.scrub_repaired.get(), 0);
}

#[test]
fn a_missing_segment_is_told_object_by_object() {
    let objects = [object(1, 1000), object(2, 100_000)];
    let mut world = a_world(7);
    put_all(&mut world, &objects);
    world.stop();
    world.restart();
    put_all(&mut world, &[object(3, 10)]);
    let path = world.segments().remove(0);
    world.disk.perform(DiskOp::Remove { path, durable: false }).unwrap();
    round(&mut world);
    world.damaged.sort_unstable();
    let mut both = digests(&[&objects[0], &objects[1]]);
    both.sort_unstable();
    assert_eq!(world.damaged, both);
    assert!(world.holds(&object(3, 10)));
}

#[test]
fn what_the_disk_does_not_give_costs_only_itself() {
    let objects: Vec<_> = (0..30).map(|n| object(n, 20_000)).collect();
    for skip in 0..8 {
        let mut world = a_world(8);
        put_all(&mut world, &objects);
        let error = io::ErrorKind::Other;
        world.disk.planted.push(Planted { kind: Kind::Scan, skip, times: 1, error });
        round(&mut world);
        assert!(world.damaged.is_empty(), "it could be read the second time");
        rebuild(&mut world);
        assert!(objects.iter().all(|bytes| world.holds(bytes)));
    }
    let mut world = a_world(8);
    put_all(&mut world, &objects);
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Scan, skip: 0, times: 2, error });
    round(&mut world);
    let told = world.damaged.len();
    assert_eq!(told, 1, "one object cannot be read at all");
    assert_eq!((world.stats.integrity_fail.get(), world.stats.damaged_objects.get()), (0, 1));
    assert!(world.notes.iter().any(|note| note.contains("cannot be read")));
}

#[test]
fn files_that_cannot_be_opened_are_damage_and_end_no_round() {
    let objects: Vec<_> = (0..40).map(|n| object(n, 1_100_000)).collect();
    let mut world = a_world(8);
    put_all(&mut world, &objects);
    // The segment is opened before the files of objects.
    let (times, error) = (30, io::ErrorKind::PermissionDenied);
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 1, times, error });
    round(&mut world);
    assert_eq!(world.stats.scrub_objects.get(), 40, "{:?}", world.notes);
    assert_eq!((world.damaged.len(), world.stats.damaged_now.get()), (times, times as u64));
    round(&mut world);
    assert_eq!(world.stats.damaged_now.get(), 0, "they can be opened again");
}
