//! The store against the disk twin: what was stored is served, and what is damaged never leaves.

use std::io;

use ron_codec::{address::Address, limits::GROUP_LEN};
use ron_io::{
    arena::BlockMut,
    ports::{DiskOp, ShardId},
};

use super::{
    Store,
    testdisk::{Kind, Planted},
    testworld::{World, is_new, object, shapes},
};
use crate::flow::{Ask, Fault, Peer, Reply};

#[test]
fn objects_of_every_shape_survive_a_restart() {
    let mut world = World::new(1);
    let large = object(99, 5 * 1024 * 1024 + 777);
    for bytes in shapes() {
        assert!(is_new(&world.put(&bytes)), "{} bytes", bytes.len());
        world.chill();
        assert!(world.holds(&bytes));
    }
    let ask = world.upload(&large);
    assert!(is_new(&world.answer(ask)));
    assert!(world.holds(&large));
    let count = shapes().len() as u64 + 1;
    assert_eq!(world.stats.objects.get(), count);
    world.stop();
    assert_eq!(world.disk.open_files(), 0);
    world.restart();
    assert!(world.notes.is_empty(), "{:?}", world.notes);
    assert_eq!(world.stats.objects.get(), count);
    assert!(shapes().iter().chain([&large]).all(|bytes| world.holds(bytes)));
    world.kill();
    assert!(shapes().iter().chain([&large]).all(|bytes| world.holds(bytes)));
    assert!(!world.holds(b"never stored"));
}

#[test]
fn asks_before_the_boot_is_over_are_told_to_come_again() {
    let mut world = World::new(1);
    world.store = Store::new(&world.config);
    let address = Address::of(b"");
    let reply = world.answer(Ask::Open { address, first: None });
    assert!(matches!(reply, Reply::Failed(Fault::Busy)));
}

#[test]
fn appends_that_wait_share_one_sync() {
    let mut world = World::new(2);
    let first = world.put_ask(&object(0, 100));
    world.ask(first);
    for n in 1..50 {
        let ask = world.put_ask(&object(n, 100));
        world.ask(ask);
    }
    world.run();
    assert!(world.answers.values().all(is_new));
    assert_eq!((world.stats.syncs.get(), world.stats.sync_writes.get()), (2, 50));
    assert!((0..50).all(|n| world.holds(&object(n, 100))));
}

#[test]
fn an_object_that_is_there_or_on_its_way_costs_no_write() {
    let mut world = World::new(3);
    let bytes = object(7, 5000);
    let asks = [world.put_ask(&bytes), world.put_ask(&bytes), world.upload(&bytes)];
    let asked = asks.map(|ask| world.ask(ask));
    world.run();
    let new = asked.map(|asked| is_new(&world.answers[&asked]));
    assert_eq!(new, [true, false, false]);
    let written = world.disk.written;
    assert!(!is_new(&world.put(&bytes)));
    let ask = world.upload(&bytes);
    assert!(!is_new(&world.answer(ask)));
    assert_eq!((world.disk.written, world.stats.syncs.get()), (written, 1));
    let tmp = world.config.layout.tmp_dir(0);
    assert!(!world.disk.paths().iter().any(|path| path.starts_with(&tmp)), "uploads are removed");
    assert_eq!(world.stats.objects.get(), 1);
}

#[test]
fn a_hit_asks_the_disk_nothing() {
    let mut world = World::new(4);
    let bytes = object(1, GROUP_LEN);
    world.put(&bytes);
    let performed = world.disk.performed.len();
    assert!(world.holds(&bytes), "kept when it was put");
    world.chill();
    assert!(world.holds(&bytes));
    assert!(world.disk.performed.len() > performed);
    let performed = world.disk.performed.len();
    assert!(world.holds(&bytes));
    let behind = Ask::Open { address: Address::of(&bytes), first: Some(GROUP_LEN as u64) };
    let Reply::Opened { size, first: None } = world.answer(behind) else { panic!() };
    assert_eq!(size, GROUP_LEN as u64);
    assert_eq!(world.disk.performed.len(), performed);
    assert_eq!((world.stats.cache_hits.get(), world.stats.cache_misses.get()), (2, 1));
    assert_eq!(world.stats.verify_groups.get(), 1);
    assert_eq!(world.stats.verify_bytes.get(), GROUP_LEN as u64);
}

#[test]
fn readers_of_one_group_share_one_read() {
    let mut world = World::new(5);
    let bytes = object(1, 200_000);
    world.put(&bytes);
    let address = Address::of(&bytes);
    for _ in 0..10 {
        world.ask(Ask::Open { address, first: Some(70_000) });
        world.ask(Ask::Group { address, index: 1, begins: false, ahead: false });
    }
    world.run();
    let reads = world.disk.performed.iter().filter(|kind| **kind == Kind::Read).count();
    assert_eq!((reads, world.answers.len()), (1, 20));
    assert!(matches!(
        world.answer(Ask::Group { address, index: 4, begins: false, ahead: false }),
        Reply::Missing
    ));
}

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
    // What is left is refused when it has waited too long, whoever had turns meanwhile.
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

#[test]
fn reads_have_only_so_many_files() {
    let mut world = World::new(10);
    let objects: Vec<_> = (0..12).map(|n| object(n, 1024 * 1024 + 1)).collect();
    for bytes in &objects {
        let ask = world.upload(bytes);
        assert!(is_new(&world.answer(ask)));
    }
    // Fewer than would stay open idle, so that all of them are needed by others in the end.
    world.config.read_files_max = 3;
    let others = world.disk.open_files();
    for round in 0..2 {
        world.chill();
        for bytes in &objects {
            world.ask(Ask::Open { address: Address::of(bytes), first: Some(0) });
        }
        let mut most = 0;
        while world.step() {
            most = most.max(world.disk.open_files() - others);
        }
        assert_eq!(most, 3, "round {round}");
        let opened = |reply: &Reply| matches!(reply, Reply::Opened { first: Some(_), .. });
        assert_eq!(world.answers.values().filter(|reply| opened(reply)).count(), objects.len());
        world.answers.clear();
    }
}

#[test]
fn damage_is_never_served_and_costs_others_nothing() {
    let small = object(1, 1000);
    let (two, other) = (object(2, 100_000), object(3, 100_000));
    let large = object(4, 2 * 1024 * 1024);
    // Each object's record, in the order of the log: where a bit is flipped, and who it hurts.
    let start = 4096;
    let spots = [20, 128, 128 + 70_000, 128 + 100_096, 128 + 100_096 + 63];
    for at in [128, 500, 1127].into_iter().chain(spots.map(|spot| start + spot)) {
        let mut world = World::new(7);
        let asks = [&small, &two, &other].map(|bytes| world.put_ask(bytes));
        for ask in asks {
            world.ask(ask);
        }
        world.run();
        let ask = world.upload(&large);
        world.answer(ask);
        world.chill();
        let segment = world.segments().remove(0);
        let hurt = if at < start { &small } else { &two };
        let found = world.disk.bytes(&segment)[start..start + 8].to_vec();
        assert_eq!(found, ron_codec::record::RECORD_MAGIC, "the second record starts here");
        world.disk.damage(&segment, |bytes| bytes[at] ^= 4);
        for _ in 0..2 {
            let got = world.get(&Address::of(hurt));
            assert_eq!(got, Err(Some(Fault::Integrity)), "at {at}");
        }
        assert_eq!(world.stats.integrity_fail.get(), 1, "the second time it is known");
        assert_eq!(world.damaged, [*Address::of(hurt).as_bytes()]);
        let whole = [&small, &two, &other, &large].into_iter().filter(|bytes| *bytes != hurt);
        whole.for_each(|bytes| assert!(world.holds(bytes)));
    }
}

#[test]
fn damage_of_an_object_file_is_found_wherever_it_is() {
    let large = object(4, 2 * 1024 * 1024);
    let address = Address::of(&large);
    for damage in ["header", "data", "outboard", "short", "missing"] {
        let mut world = World::new(8);
        let ask = world.upload(&large);
        world.answer(ask);
        let path = world.config.layout.object_path(0, &address);
        let outboard = 4096 + large.len();
        match damage {
            "header" => world.disk.damage(&path, |bytes| bytes[20] ^= 1),
            "data" => world.disk.damage(&path, |bytes| bytes[4096] ^= 1),
            "outboard" => world.disk.damage(&path, |bytes| bytes[outboard + 5] ^= 1),
            "short" => world.disk.damage(&path, |bytes| bytes.truncate(outboard)),
            _ => drop(world.disk.perform(DiskOp::Remove { path, durable: false })),
        }
        assert_eq!(world.get(&address), Err(Some(Fault::Integrity)), "{damage}");
        assert_eq!(world.stats.integrity_fail.get(), 1);
    }
}

#[test]
fn a_read_error_is_not_called_damage() {
    let mut world = World::new(9);
    let bytes = object(1, 100);
    world.put(&bytes);
    world.chill();
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Read, skip: 0, times: 1, error });
    assert_eq!(world.get(&Address::of(&bytes)), Err(Some(Fault::Disk)));
    assert_eq!(world.stats.integrity_fail.get(), 0);
    assert!(world.holds(&bytes), "it is tried again");
}

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
fn a_full_disk_answers_full_and_recovers() {
    let mut world = World::new(11);
    world.put(&object(0, 5000));
    for times in [1, 3] {
        let error = io::ErrorKind::StorageFull;
        world.disk.planted.push(Planted { kind: Kind::Write, skip: 0, times, error });
        for n in 0..times as u64 {
            let reply = world.put(&object(100 + n, 9000));
            assert!(matches!(reply, Reply::Failed(Fault::Full)), "{reply:?}");
            assert!(!world.holds(&object(100 + n, 9000)));
        }
        world.disk.planted.clear();
    }
    let segments = world.segments().len();
    assert!(is_new(&world.put(&object(100, 9000))));
    assert_eq!(world.segments().len(), segments, "the segment is used on");
    assert!(world.holds(&object(0, 5000)));
    world.crash(3);
    assert!(world.holds(&object(0, 5000)) && world.holds(&object(100, 9000)));
    assert!(!world.holds(&object(101, 9000)));
}

#[test]
fn a_segment_whose_sync_failed_is_not_trusted_again() {
    let mut world = World::new(12);
    world.put(&object(0, 5000));
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Sync, skip: 0, times: 1, error });
    let reply = world.put(&object(1, 5000));
    assert!(matches!(reply, Reply::Failed(Fault::Disk)), "{reply:?}");
    assert!(!world.holds(&object(1, 5000)));
    let before = world.segments();
    assert!(is_new(&world.put(&object(1, 5000))));
    assert_eq!(world.segments().len(), before.len() + 1);
    assert_eq!(world.disk.bytes(&before[0]).len(), 8192, "it is cut to what was committed");
    for seed in 0..20 {
        world.crash(seed);
        assert!(world.holds(&object(0, 5000)) && world.holds(&object(1, 5000)));
    }
}

#[test]
fn a_segment_that_cannot_be_cut_ends_writing() {
    let mut world = World::new(13);
    world.put(&object(0, 5000));
    let error = io::ErrorKind::Other;
    for kind in [Kind::Sync, Kind::Truncate] {
        world.disk.planted.push(Planted { kind, skip: 0, times: 1, error });
    }
    for n in 1..3 {
        let reply = world.put(&object(n, 5000));
        assert!(matches!(reply, Reply::Failed(Fault::Disk)), "{reply:?}");
    }
    assert!(world.holds(&object(0, 5000)), "reading goes on");
    world.stop();
}

#[test]
fn a_failed_checkpoint_is_tried_again() {
    let mut world = World::new(14);
    world.put(&object(0, 5000));
    let error = io::ErrorKind::Other;
    world.disk.planted.push(Planted { kind: Kind::Run, skip: 0, times: 1, error });
    world.checkpoint();
    assert!(world.notes.iter().any(|note| note.contains("checkpoint")));
    world.checkpoint();
    assert_eq!(world.store.wake_at(&world.room), None, "nothing is left to carry over");
    world.kill();
    assert!(world.holds(&object(0, 5000)));
}

#[test]
fn a_segment_that_is_full_is_followed_by_another() {
    let mut world = World::new(15);
    // Batches of nearly 4 MiB: 64 of them fill a segment.
    for n in 0..260_u64 {
        let bytes = object(n % 2 * 1000 + n, 1024 * 1024);
        assert!(is_new(&world.put(&bytes)));
    }
    assert_eq!(world.segments().len(), 2);
    for path in world.segments() {
        assert!(world.disk.bytes(&path).len() as u64 <= ron_codec::limits::SEGMENT_LEN_MAX);
    }
    assert!(world.holds(&object(0, 1024 * 1024)) && world.holds(&object(1259, 1024 * 1024)));
    let runs = world.disk.performed.iter().filter(|kind| **kind == Kind::Run).count();
    assert!(runs > 3, "a long tail starts checkpoints: {runs}");
    world.crash(1);
    assert!(world.holds(&object(0, 1024 * 1024)) && world.holds(&object(1259, 1024 * 1024)));
}

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
