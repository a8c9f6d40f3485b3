//! Verifications, which somebody asks for.

use std::io;

use ron_codec::address::Address;
use ron_io::{
    ports::VerifyOutcome,
    sim::{Kind, Planted},
};

use super::{a_world, digests, flip, place, put_all};
use crate::{limits::VERIFIES_MAX, store::tests::world::object};

#[test]
fn verifications_tell_what_they_find() {
    let mut world = a_world(14);
    let objects = [object(1, 1000), object(2, 100_000), object(3, 2_000_000), object(4, 0)];
    put_all(&mut world, &objects);
    for (id, bytes) in objects.iter().enumerate() {
        world.verify(id as u64, Address::of(bytes));
        world.run();
        let size = bytes.len() as u64;
        assert_eq!(world.verified.pop(), Some((id as u64, VerifyOutcome::Whole { size })));
    }
    world.verify(9, Address::of(b"never stored"));
    assert_eq!(world.verified.pop(), Some((9, VerifyOutcome::Missing)));
    // The cache has it, and the disk is asked all the same.
    assert!(world.holds(&objects[1]));
    let (path, at, header) = place(&world, &objects[1]);
    flip(&mut world, &path, at + header.outboard_offset() as usize);
    world.verify(1, Address::of(&objects[1]));
    world.run();
    let what = "its outboard, beside data that are right".to_string();
    assert_eq!(world.verified.pop(), Some((1, VerifyOutcome::Damaged { what })));
    assert_eq!(world.damaged, digests(&[&objects[1]]));
    let path = world.config.layout.object_path(0, &Address::of(&objects[2]));
    flip(&mut world, &path, 1_000_000);
    world.verify(2, Address::of(&objects[2]));
    world.run();
    let what = "its data".to_string();
    assert_eq!(world.verified.pop(), Some((2, VerifyOutcome::Damaged { what })));
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 0, times: 1, error });
    world.verify(3, Address::of(&objects[0]));
    world.run();
    assert!(matches!(world.verified.pop(), Some((3, VerifyOutcome::Damaged { .. }))));
    let error = io::ErrorKind::OutOfMemory;
    world.disk.planted.push(Planted { kind: Kind::Open, skip: 0, times: 1, error });
    world.verify(3, Address::of(&objects[0]));
    world.run();
    assert!(matches!(world.verified.pop(), Some((3, VerifyOutcome::Failed { .. }))));
    assert_eq!(world.store.scrub.wake_at(), None, "no round comes of it");
}

#[test]
fn verifications_are_few_at_once_and_end_with_the_shard() {
    let mut world = a_world(15);
    let bytes = object(1, 500_000);
    put_all(&mut world, std::slice::from_ref(&bytes));
    for id in 0..VERIFIES_MAX as u64 + 1 {
        world.verify(id, Address::of(&bytes));
    }
    let busy = VerifyOutcome::Failed { what: "busy".to_string() };
    assert_eq!(world.verified, [(VERIFIES_MAX as u64, busy)]);
    for _ in 0..6 {
        assert!(world.step());
    }
    world.verified.clear();
    world.stop();
    assert_eq!(world.verified.len(), VERIFIES_MAX, "each is answered");
    assert_eq!(world.disk.open_files(), 0);
    world.verify(9, Address::of(&bytes));
    assert!(matches!(world.verified.pop(), Some((9, VerifyOutcome::Failed { .. }))));
}

#[test]
fn only_the_owner_answers() {
    let mut world = a_world(16);
    world.config.layout.partitions = 2;
    world.config.layout.shards = 2;
    world.restart();
    let mut answered = 0;
    for n in 0..20_u64 {
        let address = Address::of(&n.to_le_bytes());
        let owned = u64::from(world.config.layout.owner(&address).1 == world.config.shard);
        world.verify(n, address);
        answered += owned as usize;
        assert_eq!(world.verified.len(), answered);
    }
    assert!((1..20).contains(&answered));
}
