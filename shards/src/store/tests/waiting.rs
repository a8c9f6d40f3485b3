//! Reads that wait for memory: who goes on first, and who is refused.

use ron_codec::limits::GROUP_LEN;
use ron_io::{arena::BlockMut, ports::ShardId};

use super::*;
use crate::flow::Peer;

/// A stored object of 1 MiB, and all the memory, which nobody gives back before it is dropped.
fn without_memory(world: &mut World) -> (Address, Vec<BlockMut>) {
    let bytes = object(1, 1024 * 1024);
    world.put(&bytes);
    let held = std::iter::from_fn(|| world.memory.alloc(GROUP_LEN)).collect();
    (Address::of(&bytes), held)
}

#[test]
fn reads_that_no_memory_comes_for_are_refused_after_a_while() {
    let mut world = World::new(7);
    let (address, held) = without_memory(&mut world);
    let asked = [
        world.ask(Ask::Open { address, first: Some(0) }),
        world.ask(Ask::Group { address, index: 1, begins: false, ahead: false }),
        world.ask(Ask::Group { address, index: 1, begins: false, ahead: false }),
    ];
    world.run();
    assert!(world.store.awaits_memory());
    world.now.mono_ns += crate::limits::READ_WAIT_NS - 1;
    world.settle();
    assert_eq!(world.answers.len(), 0);
    world.now.mono_ns += 1;
    world.settle();
    assert_eq!(world.answers.len(), 1, "an answer that began would be cut");
    world.now.mono_ns += crate::limits::READ_NEXT_WAIT_NS - crate::limits::READ_WAIT_NS - 1;
    world.settle();
    assert_eq!(world.answers.len(), 1);
    world.now.mono_ns += 1;
    world.settle();
    for asked in asked {
        let answer = world.answers.remove(&asked);
        let refused =
            matches!(answer, Some(Reply::Failed(Fault::Busy) | Reply::Late { index: 1, .. }));
        assert!(refused, "{answer:?}");
    }
    assert_eq!((world.stats.memory_waits.get(), world.stats.memory_refusals.get()), (2, 3));
    assert!(!world.store.awaits_memory());
    drop(held);
    assert!(matches!(
        world.answer(Ask::Group { address, index: 1, begins: false, ahead: false }),
        Reply::Group(_)
    ));
}

#[test]
fn answers_that_began_go_on_before_those_that_begin() {
    let mut world = World::new(11);
    let (address, mut held) = without_memory(&mut world);
    let opened = world.ask(Ask::Open { address, first: Some(0) });
    let begins = world.ask(Ask::Group { address, index: 3, begins: true, ahead: false });
    let both = world.ask(Ask::Open { address, first: Some(4 * GROUP_LEN as u64) });
    let began = world.ask(Ask::Group { address, index: 5, begins: false, ahead: false });
    // Who reads on does not wait longer because a newcomer wants the same.
    let joined = world.ask(Ask::Group { address, index: 4, begins: false, ahead: false });
    world.run();
    for expected in [&[both, joined][..], &[began], &[opened], &[begins]] {
        held.truncate(held.len() - 1);
        world.settle();
        world.run();
        let mut answered: Vec<u32> = world.answers.keys().copied().collect();
        answered.sort_unstable();
        assert_eq!(answered, expected);
        // What was answered keeps its memory.
        held.extend(std::iter::from_fn(|| world.memory.alloc(GROUP_LEN)));
        world.answers.clear();
        while world.memory.alloc(GROUP_LEN).map(|block| held.push(block)).is_some() {}
    }
}

/// A client with this number.
fn client(number: u8) -> Option<Peer> {
    Some(Peer::of([192, 0, 2, number].into()))
}

#[test]
fn reads_of_many_clients_take_turns() {
    let mut world = World::new(12);
    let (address, mut held) = without_memory(&mut world);
    let mut ask = |of, index| {
        world.peer = client(of);
        let asked = world.ask(Ask::Group { address, index, begins: true, ahead: false });
        world.run();
        asked
    };
    let greedy: Vec<u32> = (0..6).map(|index| ask(1, index)).collect();
    let (second, third) = ([ask(2, 6), ask(2, 7)], ask(3, 8));
    let order = [greedy[0], second[0], third, greedy[1], second[1], greedy[2], greedy[3]];
    for expected in order {
        held.truncate(held.len() - 1);
        world.settle();
        world.run();
        assert_eq!(world.answers.keys().copied().collect::<Vec<_>>(), [expected]);
        world.answers.clear();
        while world.memory.alloc(GROUP_LEN).map(|block| held.push(block)).is_some() {}
    }
    // What is left is refused when it has waited too long, no matter who had turns meanwhile.
    world.now.mono_ns += crate::limits::READ_WAIT_NS;
    world.settle();
    assert_eq!(world.answers.keys().copied().collect::<Vec<_>>(), greedy[4..]);
    assert!(!world.store.awaits_memory());
}

#[test]
fn a_client_that_wants_most_makes_room_for_others() {
    let mut world = World::new(13);
    let (address, held) = without_memory(&mut world);
    world.config.fetches_max = 8;
    let mut ask = |of, index| {
        world.peer = client(of);
        let asked = world.ask(Ask::Group { address, index, begins: true, ahead: false });
        world.run();
        let refused = std::mem::take(&mut world.answers);
        for answer in refused.values() {
            assert!(matches!(answer, Reply::Late { .. }), "{answer:?}");
        }
        (asked, refused.into_keys().collect::<Vec<_>>())
    };
    let greedy: Vec<u32> = (0..6).map(|index| ask(1, index).0).collect();
    let (asked, refused) = ask(1, 6);
    assert_eq!(refused, [asked], "its own");
    assert_eq!(ask(2, 7).1, [greedy[5]], "the newest of who has most");
    assert_eq!(ask(2, 8).1, [greedy[4]]);
    assert_eq!(ask(3, 9).1, [greedy[3]]);
    // All have as much, or nearly.
    let (asked, refused) = ask(2, 10);
    assert_eq!(refused, [asked]);
    // Answers that began have places of their own, and nothing of them is refused for others.
    world.peer = client(1);
    for index in [11, 12] {
        world.ask(Ask::Group { address, index, begins: false, ahead: false });
    }
    assert_eq!(world.answers.len(), 0);
    let beyond = world.ask(Ask::Group { address, index: 13, begins: false, ahead: false });
    assert!(matches!(world.answers.remove(&beyond), Some(Reply::Late { index: 13, .. })));
    assert_eq!(world.stats.memory_refusals.get(), 6);
    drop(held);
    world.settle();
    world.run();
    assert_eq!(world.answers.len(), 8);
}

#[test]
fn answers_of_a_client_that_began_most_make_room_for_others() {
    let mut world = World::new(14);
    let (address, held) = without_memory(&mut world);
    world.config.fetches_max = 8;
    let mut ask = |of, index, begins| {
        world.peer = client(of);
        let asked = world.ask(Ask::Group { address, index, begins, ahead: false });
        world.run();
        let refused = std::mem::take(&mut world.answers);
        (asked, refused.into_keys().collect::<Vec<_>>())
    };
    let greedy: Vec<u32> = (0..8).map(|index| ask(1, index, false).0).collect();
    let (asked, refused) = ask(1, 8, false);
    assert_eq!(refused, [asked], "its own");
    assert_eq!(ask(2, 9, false).1, [greedy[7]], "the newest of who has most");
    assert_eq!(ask(2, 10, true).1, [greedy[6]], "more of one than all that is kept");
    assert_eq!(ask(3, 11, true).1, [greedy[5]]);
    assert_eq!(ask(3, 12, true).1, [greedy[4]]);
    assert_eq!(ask(3, 13, false).1, [greedy[3]], "what goes on comes before that");
    // The first has three now, as many as the third.
    let (asked, refused) = ask(1, 14, true);
    assert_eq!(refused, [asked]);
    drop(held);
    world.settle();
    world.run();
    assert_eq!(world.answers.len(), 8);
}

#[test]
fn who_waits_most_for_one_group_makes_room_for_others() {
    let mut world = World::new(15);
    let (address, held) = without_memory(&mut world);
    world.config.fetches_max = 8;
    let mut ask = |of, begins| {
        world.peer = client(of);
        let asked = world.ask(Ask::Group { address, index: 1, begins, ahead: false });
        world.run();
        let refused = std::mem::take(&mut world.answers);
        (asked, refused.into_keys().collect::<Vec<_>>())
    };
    let greedy: Vec<u32> = (0..12).map(|_| ask(1, true).0).collect();
    let (asked, refused) = ask(1, true);
    assert_eq!(refused, [asked], "four are kept for those that go on");
    assert_eq!(ask(2, true).1, [greedy[11]]);
    assert!((0..4).all(|_| ask(1, false).1.is_empty()));
    assert_eq!(ask(2, false).1.len(), 1, "of the first");
    drop(held);
    world.settle();
    world.run();
    assert_eq!(world.answers.len(), 16);
}

#[test]
fn what_is_read_ahead_leaves_room_to_what_is_needed_next() {
    let mut world = World::new(16);
    let (address, held) = without_memory(&mut world);
    world.config.fetches_max = 8;
    let mut ask = |of, index, ahead| {
        world.peer = client(of);
        let asked = world.ask(Ask::Group { address, index, begins: false, ahead });
        world.run();
        let refused = |(number, reply)| match reply {
            Reply::Late { ahead, .. } => (number, ahead),
            other => panic!("{other:?}"),
        };
        (asked, std::mem::take(&mut world.answers).into_iter().map(refused).collect::<Vec<_>>())
    };
    let greedy: Vec<u32> = (0..4).map(|index| ask(1, index, true).0).collect();
    let (asked, refused) = ask(1, 4, true);
    assert_eq!(refused, [(asked, true)], "half is all that is read ahead has");
    assert_eq!(ask(2, 5, true).1, [(greedy[3], true)], "of it each has a part");
    for index in 6..10 {
        assert_eq!(ask(1, index, false).1, [], "the other half is free");
    }
    // The first has seven of eight, and loses first what it needs last.
    assert_eq!(ask(2, 10, false).1, [(greedy[2], true)]);
    assert_eq!(ask(3, 11, false).1, [(greedy[1], true)]);
    assert_eq!(ask(3, 12, true).1.len(), 1, "for what is ahead, only what is ahead is refused");
    drop(held);
    world.settle();
    world.run();
    assert!(world.answers.values().all(|reply| matches!(reply, Reply::Group(_))));
    assert_eq!(world.answers.len(), 8);
}

#[test]
fn what_nobody_wants_any_more_takes_no_memory() {
    let mut world = World::new(8);
    let (address, mut held) = without_memory(&mut world);
    let reads =
        |world: &World| world.disk.performed.iter().filter(|kind| **kind == Kind::Read).count();
    let before = reads(&world);
    for index in 0..8 {
        let asked = world.ask(Ask::Group { address, index, begins: false, ahead: false });
        world.run();
        world.cancel(asked, address, index);
    }
    let wanted = world.ask(Ask::Group { address, index: 9, begins: false, ahead: false });
    held.truncate(held.len() - 1);
    world.settle();
    world.run();
    assert!(matches!(world.answers.remove(&wanted), Some(Reply::Group(_))));
    assert_eq!((reads(&world) - before, world.answers.len()), (1, 0));
    assert!(!world.store.awaits_memory());
}

#[test]
fn a_read_of_another_shard_is_told_that_it_waits_and_has_no_place_any_more() {
    let mut world = World::new(9);
    let (address, held) = without_memory(&mut world);
    for count in 1..=crate::limits::MESH_PARKED_BEGINS_MAX {
        world.ask_from(ShardId(1), Ask::Open { address, first: Some(0) });
        world.run();
        assert_eq!(world.short.len(), count);
    }
    let one_more = world.ask_from(ShardId(1), Ask::Open { address, first: Some(0) });
    let refused = world.answers.remove(&one_more);
    assert!(matches!(refused, Some(Reply::Failed(Fault::Busy))), "{refused:?}");
    let other = world.ask_from(ShardId(2), Ask::Open { address, first: Some(0) });
    assert_eq!(world.short.last(), Some(&other));
    // Another client takes the newest place of who has most.
    world.peer = client(2);
    let modest =
        world.ask_from(ShardId(1), Ask::Group { address, index: 1, begins: true, ahead: false });
    let refused = std::mem::take(&mut world.answers);
    assert_eq!(world.short.last(), Some(&modest));
    assert_eq!(refused.len(), 1);
    drop(held);
    world.settle();
    world.run();
    assert_eq!(world.answers.len(), crate::limits::MESH_PARKED_BEGINS_MAX + 1);
    assert!(world.memory.park(ShardId(1), true), "they are parked no more");
}

#[test]
fn reads_wait_for_memory_and_go_on() {
    let mut world = World::new(6);
    let bytes = object(1, 1024 * 1024);
    world.put(&bytes);
    let mut held = Vec::new();
    while let Some(block) = world.memory.alloc(GROUP_LEN) {
        held.push(block);
    }
    let address = Address::of(&bytes);
    let opening = world.ask(Ask::Open { address, first: Some(0) });
    for index in 0..16 {
        world.ask(Ask::Group { address, index, begins: false, ahead: false });
    }
    world.run();
    world.settle();
    assert_eq!(world.answers.len(), 0);
    world.short.sort_unstable();
    let told: Vec<u32> = (opening + 1..opening + 17).collect();
    assert_eq!(world.short, told, "those who may keep groups, once each");
    held.truncate(held.len() - 3);
    while world.answers.len() < 17 {
        let before = world.answers.len();
        world.settle();
        world.run();
        // The answers hold what they brought until they are taken.
        world.answers.values_mut().for_each(|reply| *reply = Reply::Missing);
        assert!(world.answers.len() > before, "waiting reads go on");
    }
}
