//! Objects that are deleted or moved while the scrub or a verification reads them.

use ron_codec::address::Address;
use ron_io::ports::{DiskOp, VerifyOutcome};

use super::{a_world, place, put_all, round_goes_on, turn};
use crate::{
    flow::Ask,
    store::tests::world::{World, object},
};

/// Performs everything but the last act that was asked for, then that.
fn run_late(world: &mut World) {
    let late = world.pending.pop().expect("an act is in progress");
    world.run();
    world.pending.push(late);
    world.run();
}

#[test]
fn what_is_deleted_while_it_is_looked_at_is_not_damaged() {
    let large = object(1, 2_000_000);
    let address = Address::of(&large);
    let mut world = a_world(18);
    put_all(&mut world, std::slice::from_ref(&large));
    world.ask(Ask::Delete { address });
    world.verify(1, address);
    run_late(&mut world);
    assert_eq!(world.verified.pop(), Some((1, VerifyOutcome::Missing)));
    assert!(world.damaged.is_empty());
    // The same under the scrub.
    world.answers.clear();
    put_all(&mut world, std::slice::from_ref(&large));
    world.scrub_now();
    let opens = |world: &World| match world.pending.last() {
        Some((_, DiskOp::Open { path, .. })) => path.extension().is_some_and(|end| end == "obj"),
        _ => false,
    };
    while !opens(&world) {
        turn(&mut world);
    }
    let late = world.pending.pop().unwrap();
    world.ask(Ask::Delete { address });
    world.run();
    world.pending.push(late);
    round_goes_on(&mut world);
    assert!(world.damaged.is_empty() && world.stats.damaged_objects.get() == 0);
}

#[test]
fn what_is_moved_while_it_is_looked_at_is_not_damaged() {
    let small = object(1, 5000);
    let address = Address::of(&small);
    let bulk: Vec<_> = (10..13).map(|n| object(n, 700_000)).collect();
    let mut world = a_world(19);
    put_all(&mut world, std::slice::from_ref(&small));
    put_all(&mut world, &bulk);
    let (first, ..) = place(&world, &small);
    bulk.iter().for_each(|bytes| {
        world.ask(Ask::Delete { address: Address::of(bytes) });
    });
    world.verify(1, address);
    let late = world.pending.pop().expect("its segment is about to be opened");
    while world.segments().contains(&first) {
        turn(&mut world);
    }
    world.pending.push(late);
    world.run();
    let whole = VerifyOutcome::Whole { size: 5000 };
    assert_eq!(world.verified.pop(), Some((1, whole)), "it is found where it is now");
    assert!(world.damaged.is_empty() && world.holds(&small));
}
