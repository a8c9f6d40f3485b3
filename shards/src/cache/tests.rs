use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use super::*;
use crate::limits::{READS_HOT_PERCENT, READS_NEXT_PERCENT};
use proptest::prelude::*;
use ron_io::pipe::Pipe;

fn memory(blocks: usize) -> Memory {
    Memory::new(blocks * BLOCK_LEN, &Secret::of_seed(42)).unwrap()
}

fn object() -> Address {
    Address::of(b"an object")
}

fn block(memory: &mut Memory, len: usize) -> Option<Block> {
    memory.alloc(len).map(|block| block.freeze(len))
}

/// Brings a group in as the store does: memory first, then the bytes, then the cache.
fn load(memory: &mut Memory, index: u64, len: usize) {
    let block = block(memory, len).unwrap();
    memory.insert(&object(), 1 << 30, &Verified::vouch(index, block, false));
}

impl Memory {
    fn check(&self) {
        self.lists.check();
        assert!(self.bytes() <= self.arena_len());
        for home in [Home::Small, Home::Main] {
            for (index, _) in self.lists.order(home) {
                let page = self.find(self.hash(&object(), index), &object(), index);
                assert_eq!(self.lists.entry(page.unwrap()).index, index);
            }
        }
    }

    fn clear(&mut self) {
        for home in [Home::Small, Home::Main] {
            for (index, _) in self.lists.order(home) {
                self.forget(&object(), index);
            }
        }
    }
}

/// S3-FIFO the obvious way, for blocks of one length: vectors, oldest first.
struct Twin {
    unit: usize,
    capacity: usize,
    small_len: usize,
    small: Vec<(u64, u8)>,
    main: Vec<(u64, u8)>,
    departed: Vec<Option<u64>>,
}

impl Twin {
    fn new(blocks: usize, unit: usize) -> Twin {
        let (capacity, small_len) = (blocks * BLOCK_LEN / unit, blocks * BLOCK_LEN / 10);
        Twin { unit, capacity, small_len, small: vec![], main: vec![], departed: vec![] }
    }

    fn get(&mut self, key: u64) -> Option<bool> {
        let main = self.main.iter_mut().find(|(k, _)| *k == key).map(|entry| (true, entry));
        let small = self.small.iter_mut().find(|(k, _)| *k == key).map(|entry| (false, entry));
        let (in_main, entry) = main.or(small)?;
        entry.1 = (entry.1 + 1).min(3);
        Some((in_main || entry.1 >= 2) && self.unit == BLOCK_LEN)
    }

    fn load(&mut self, key: u64) {
        while self.small.len() + self.main.len() == self.capacity {
            self.evict();
        }
        let entries = self.small.len() + self.main.len();
        let lately = self.departed.len().saturating_sub(entries - entries / 10);
        if let Some(note) = self.departed[lately..].iter_mut().find(|k| **k == Some(key)) {
            *note = None;
            self.main.push((key, 0));
        } else {
            self.small.push((key, 0));
        }
    }

    fn evict(&mut self) {
        if self.main.is_empty() || self.small.len() * self.unit >= self.small_len {
            match self.small.remove(0) {
                (key, 2..) => self.main.push((key, 0)),
                (key, _) => {
                    self.departed.iter_mut().filter(|k| **k == Some(key)).for_each(|k| *k = None);
                    self.departed.push(Some(key));
                }
            }
        } else {
            match self.main.remove(0) {
                (_, 0) => {}
                (key, uses) => self.main.push((key, uses - 1)),
            }
        }
    }

    fn forget(&mut self, key: u64) {
        self.small.retain(|(k, _)| *k != key);
        self.main.retain(|(k, _)| *k != key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The same hits, the same evictions, the same order as the twin, for each class.
    #[test]
    fn agrees_with_the_slow_twin(
        (blocks, class) in prop_oneof![
            (1usize..20, Just(Class::Whole)),
            (1usize..6, Just(Class::Quarter)),
            (1usize..3, Just(Class::Page)),
        ],
        requests in prop::collection::vec((0u64..8, 0u64..8, 0u8..30), 1..600),
    ) {
        let (mut memory, mut twin) = (memory(blocks), Twin::new(blocks, class.bytes()));
        // A small ghost forgets early when many keys fall into one bucket, which the twin has not.
        memory.ghost = Ghost::new(1 << 16);
        for (a, b, what) in requests {
            // Products: few keys are asked for often, many seldom.
            let key = a * b;
            if what == 0 {
                memory.forget(&object(), key);
                twin.forget(key);
            } else {
                let hit = memory.get(&object(), key).map(|cached| cached.group.body(0, 0).is_hot());
                prop_assert_eq!(hit, twin.get(key), "key {}", key);
                if hit.is_none() {
                    load(&mut memory, key, class.bytes());
                    twin.load(key);
                }
            }
            prop_assert_eq!(&memory.lists.order(Home::Small), &twin.small);
            prop_assert_eq!(&memory.lists.order(Home::Main), &twin.main);
        }
    }

    /// Whatever is cached, held, dropped and forgotten: the sums hold, no entry dangles, memory is
    /// refused only while something is held, and all of it comes back.
    #[test]
    fn mixed_lengths_keep_the_books(
        steps in prop::collection::vec(
            (0u8..10, 0u64..40, 0usize..=BLOCK_LEN, any::<prop::sample::Index>()), 1..300),
    ) {
        let mut memory = memory(3);
        let mut held: Vec<Block> = Vec::new();
        for (what, key, len, which) in steps {
            let len = if key % 3 == 0 { len } else { len / 16 };
            match what {
                0..=4 => match block(&mut memory, len) {
                    Some(block) => {
                        if what == 0 { held.push(block.clone()); }
                        memory.insert(&object(), 77, &Verified::vouch(key, block, false));
                    }
                    None => prop_assert!(!held.is_empty(), "{} bytes refused", len),
                },
                5 => {
                    let found = memory.get(&object(), key);
                    held.extend(found.map(|cached| cached.group.block().clone()));
                }
                6 => memory.forget(&object(), key),
                7 => { memory.get(&object(), key); }
                _ if held.is_empty() => {}
                _ => { held.swap_remove(which.index(held.len())); }
            }
            memory.check();
        }
        drop(held);
        memory.clear();
        memory.arena.collect();
        prop_assert_eq!((memory.bytes(), memory.entries()), (0, 0));
        prop_assert_eq!(memory.arena.free_pages(), memory.arena.total_pages());
    }
}

#[test]
fn a_hit_brings_the_block_and_its_object() {
    let mut memory = memory(2);
    let mut filling = memory.alloc(5).unwrap();
    filling.bytes_mut().copy_from_slice(b"hello");
    memory.insert(&object(), 200_000, &Verified::vouch(3, filling.freeze(5), false));
    let cached = memory.get(&object(), 3).unwrap();
    let body = cached.group.body(0, 5);
    assert_eq!((body.bytes(), cached.size, body.is_hot()), (&b"hello"[..], 200_000, false));
    assert!(memory.get(&object(), 2).is_none() && memory.get(&Address::of(b"x"), 3).is_none());
    assert_eq!((memory.entries(), memory.bytes()), (1, PAGE_LEN), "footprints, not lengths");
}

#[test]
fn only_whole_blocks_that_stay_are_hot() {
    let mut memory = memory(2);
    load(&mut memory, 0, BLOCK_LEN);
    load(&mut memory, 1, 4096);
    let mut hot = |index| memory.get(&object(), index).unwrap().group.body(0, 0).is_hot();
    assert_eq!([hot(0), hot(0), hot(0)], [false, true, true]);
    assert_eq!([hot(1), hot(1), hot(1)], [false; 3]);
}

#[test]
fn held_blocks_stay_and_memory_is_refused_until_one_is_dropped() {
    let mut memory = memory(4);
    let mut held: Vec<_> = (0..4)
        .map(|index| {
            load(&mut memory, index, BLOCK_LEN);
            memory.get(&object(), index).unwrap().group.block().clone()
        })
        .collect();
    assert!(memory.alloc(1).is_none());
    assert_eq!(memory.entries(), 4, "evicting a held block frees nothing");
    held.swap_remove(2);
    assert!(memory.alloc(BLOCK_LEN).is_some());
    assert!(memory.get(&object(), 2).is_none());
    assert_eq!(memory.entries(), 3);
}

#[test]
fn a_main_queue_of_held_blocks_does_not_hide_the_small_one() {
    let mut memory = memory(20);
    // All but one reach the main queue and are held; the small queue is below its share.
    (0..19).for_each(|index| load(&mut memory, index, BLOCK_LEN));
    let held: Vec<_> = (0..19)
        .map(|index| {
            memory.get(&object(), index);
            memory.get(&object(), index).unwrap().group.block().clone()
        })
        .collect();
    load(&mut memory, 19, 4096);
    (20..36).for_each(|index| load(&mut memory, index, 4096));
    assert_eq!(memory.lists.len(Home::Main), 19);
    for _ in 0..100 {
        assert!(memory.alloc(4096).is_some());
    }
    drop(held);
}

#[test]
fn a_whole_block_is_won_from_pages_and_quarters() {
    let mut memory = memory(1);
    (0..8).for_each(|index| load(&mut memory, index, 4096));
    (8..10).for_each(|index| load(&mut memory, index, 16 * 1024));
    assert!(memory.alloc(1).is_some(), "the oldest page is enough");
    assert_eq!(memory.entries(), 9);
    let held = memory.get(&object(), 5).unwrap().group.block().clone();
    assert!(memory.alloc(BLOCK_LEN).is_none(), "one page of the block is held");
    assert_eq!(memory.entries(), 9, "and so the others were not evicted in vain");
    drop(held);
    assert!(memory.alloc(BLOCK_LEN).is_some());
    assert_eq!((memory.entries(), memory.bytes()), (0, 0));
}

#[test]
fn a_block_with_a_page_outside_the_cache_is_left_alone() {
    let mut memory = memory(2);
    let filling = memory.alloc(1).unwrap();
    (0..15).for_each(|index| load(&mut memory, index, 1));
    load(&mut memory, 99, BLOCK_LEN);
    assert!(memory.alloc(BLOCK_LEN).is_some());
    assert_eq!(memory.entries(), 15, "only the other block could be won");
    drop(filling);
}

#[test]
fn patience_with_much_used_blocks_ends() {
    let blocks = EVICT_PATIENCE;
    let mut memory = memory(blocks);
    (0..blocks as u64).for_each(|index| load(&mut memory, index, BLOCK_LEN));
    // Fill the main queue, then use all of it as often as is counted.
    for round in 0..2 {
        for index in 0..blocks as u64 {
            (0..3).for_each(|_| drop(memory.get(&object(), index)));
        }
        assert!(memory.alloc(1).is_some(), "round {round}");
        memory.check();
    }
}

#[test]
fn what_the_cache_cannot_keep_is_dropped() {
    let (mut first, mut second) = (memory(1), memory(1));
    let foreign = block(&mut second, 10).unwrap();
    first.insert(&object(), 10, &Verified::vouch(0, foreign, false));
    assert_eq!(first.entries(), 0);
    // Twice the same group, and twice the same block.
    let (one, two) = (block(&mut first, 10).unwrap(), block(&mut first, 10).unwrap());
    let page = one.page();
    first.insert(&object(), 10, &Verified::vouch(0, one.clone(), false));
    first.insert(&object(), 10, &Verified::vouch(0, two, false));
    first.insert(&object(), 10, &Verified::vouch(1, one, false));
    assert_eq!(first.entries(), 1);
    assert_eq!(first.get(&object(), 0).unwrap().group.block().page(), page);
    first.check();
}

#[test]
fn arenas_of_impossible_sizes_are_refused() {
    for len in [0, BLOCK_LEN - 1, (ARENA_BLOCKS_MAX + 1) * BLOCK_LEN] {
        assert_eq!(
            Memory::new(len, &Secret::of_seed(0)).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
    assert_eq!(Memory::new(2 * BLOCK_LEN - 1, &Secret::of_seed(0)).unwrap().arena_len(), BLOCK_LEN);
}

#[test]
fn the_bill_is_a_small_part_of_the_arena() {
    for shift in [16, 20, 28, 34] {
        let (arena, bill) = (1usize << shift, memory_bill(1 << shift));
        assert!(bill > arena / 100 && bill < arena / 25, "{bill} of {arena}");
    }
    assert_eq!(size_of::<Entry>(), 80);
}

/// Connections whose peers do not read yet, and what each must read in the end.
struct Queues {
    pipe: Pipe,
    queues: Vec<(TcpStream, TcpStream, Vec<u8>)>,
}

impl Queues {
    fn new() -> Queues {
        Queues { pipe: Pipe::new().unwrap(), queues: Vec::new() }
    }

    /// Sends a block by reference on a connection of its own.
    fn send(&mut self, block: &Block) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        let all = [block.lend(0..block.len())].into_iter();
        let sent = self.pipe.send(sender.as_raw_fd(), all).unwrap();
        self.queues.push((sender, reader, block.bytes()[..sent.len].to_vec()));
    }

    fn check(self) {
        for (at, (sender, mut reader, expected)) in self.queues.into_iter().enumerate() {
            drop(sender);
            let mut found = Vec::new();
            reader.read_to_end(&mut found).unwrap();
            let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            assert_eq!((found.len(), wrong), (expected.len(), 0), "connection {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reader that reads late reads what was sent, whatever was evicted and brought in meanwhile,
    /// and in whatever pieces.
    #[test]
    fn what_was_sent_does_not_change_when_it_is_evicted(
        requests in prop::collection::vec(
            (0u64..12, prop_oneof![Just(100), Just(10_000), Just(BLOCK_LEN)], any::<bool>()),
            1..120,
        ),
    ) {
        let (mut memory, mut queues) = (memory(3), Queues::new());
        for (stamp, (key, len, sends)) in requests.into_iter().enumerate() {
            let block = match memory.get(&object(), key) {
                Some(cached) => cached.group.block().clone(),
                None => {
                    let mut block = memory.alloc(len).unwrap();
                    block.bytes_mut().fill(stamp as u8);
                    let block = block.freeze(len);
                    memory.insert(&object(), 1 << 30, &Verified::vouch(key, block.clone(), false));
                    block
                }
            };
            if sends && queues.queues.len() < 24 {
                queues.send(&block);
            }
        }
        queues.check();
    }
}

/// All that can be had for a purpose.
fn all_for(memory: &mut Memory, purpose: Purpose) -> Vec<BlockMut> {
    std::iter::from_fn(|| memory.alloc_for(purpose, BLOCK_LEN, None)).collect()
}

#[test]
fn no_owner_takes_what_is_anothers() {
    for blocks in [128, 1000] {
        let mut memory = memory(blocks);
        let uploads = [Purpose::UploadMore, Purpose::UploadFirst, Purpose::UploadShort];
        let reads = [
            Purpose::ReadAhead,
            Purpose::ReadFirst,
            Purpose::ReadNext,
            Purpose::ReadHot,
            Purpose::ReadShort,
        ];
        let mut held = Vec::new();
        for purpose in uploads.into_iter().chain(reads).chain([Purpose::Background]) {
            let got = all_for(&mut memory, purpose);
            assert!(!got.is_empty(), "{purpose:?} of {blocks}");
            held.extend(got);
        }
        assert!(held.len() <= blocks * 9 / 10, "{} of {blocks}", held.len());
        let owners = memory.owners();
        assert_eq!(owners.iter().sum::<usize>(), held.len() * BLOCK_PAGES);
        assert!(owners[1..].iter().all(|pages| *pages > 0) && owners[0] == 0);
        assert!(memory.alloc(BLOCK_LEN).is_some(), "some is nobody's");
        drop(held);
        assert_eq!(memory.pages().owners, [0; 5]);
    }
}

#[test]
fn a_piece_counts_as_the_block_it_keeps_from_being_whole() {
    let mut memory = memory(128);
    let pieces = std::iter::from_fn(|| memory.alloc_for(Purpose::UploadFirst, 1, None));
    assert_eq!(pieces.collect::<Vec<_>>().len(), 28);
}

#[test]
fn short_uploads_and_others_leave_each_other_a_beginning() {
    for short in [true, false] {
        let mut memory = memory(128);
        let all = |memory: &mut Memory, short| -> Vec<BlockMut> {
            std::iter::from_fn(|| memory.alloc_upload(short, BLOCK_LEN)).collect()
        };
        let held = all(&mut memory, short);
        assert!(held.len() > 20 && !memory.admits_upload(short));
        assert!(memory.admits_upload(!short));
        assert!(all(&mut memory, !short).len() > 2);
        drop(held);
        assert!(memory.admits_upload(short));
    }
}

#[test]
fn readers_of_cached_blocks_have_a_share_that_counts_blocks_and_not_readers() {
    let mut memory = memory(128);
    (0..100).for_each(|index| load(&mut memory, index, BLOCK_LEN));
    let mut held = Vec::new();
    for _ in 0..10_000 {
        held.push(memory.get_for(Purpose::ReadNext, &object(), 0).expect("it is held already"));
    }
    assert_eq!(memory.pages().owners, [99 * 16, 0, 0, 16, 0]);
    for index in 1..100 {
        held.extend(memory.get_for(Purpose::ReadNext, &object(), index));
    }
    let blocks =
        |memory: &mut Memory| memory.pages().owners[Owner::Downloads as usize] / BLOCK_PAGES;
    let next_max = 128 * READS_NEXT_PERCENT / 100;
    assert_eq!(blocks(&mut memory), next_max);
    assert!(memory.is_tight());
    let last = 99;
    for purpose in [Purpose::ReadFirst, Purpose::ReadNext] {
        assert!(memory.get_for(purpose, &object(), last).is_none());
        assert!(memory.get_for(purpose, &object(), 0).is_some());
        assert!(memory.alloc_for(purpose, BLOCK_LEN, None).is_none());
    }
    assert_eq!(blocks(&mut memory), next_max, "answers that begin do not take what is left");
    // What is hot stays in memory anyway, so that answers that began find it.
    for index in 70..100 {
        (0..2).for_each(|_| drop(memory.get(&object(), index)));
        held.extend(memory.get_for(Purpose::ReadNext, &object(), index));
        assert!(memory.get_for(Purpose::ReadFirst, &object(), last).is_none());
    }
    assert_eq!(blocks(&mut memory), 128 * READS_HOT_PERCENT / 100);
    assert!(memory.alloc_for(Purpose::ReadShort, BLOCK_LEN, None).is_some());
    let on_another_thread = std::thread::spawn(move || drop(held));
    on_another_thread.join().unwrap();
    assert_eq!(memory.pages().owners, [100 * 16, 0, 0, 0, 0]);
    memory.check();
}

#[test]
fn a_short_group_is_found_however_much_is_held() {
    let mut memory = memory(128);
    (0..100).for_each(|index| load(&mut memory, index, BLOCK_LEN));
    load(&mut memory, 200, 4096);
    let _held: Vec<_> =
        (0..100).filter_map(|index| memory.get_for(Purpose::ReadFirst, &object(), index)).collect();
    assert!(!memory.admits(Purpose::ReadFirst));
    assert!(memory.get_for(Purpose::ReadFirst, &object(), 200).is_some());
}

#[test]
fn what_is_forgotten_while_it_is_held_is_still_charged() {
    let mut memory = memory(8);
    load(&mut memory, 0, BLOCK_LEN);
    let held = memory.get(&object(), 0).unwrap();
    memory.forget(&object(), 0);
    assert_eq!(memory.pages().owners, [0, 0, 0, 16, 0]);
    drop(held);
    assert_eq!(memory.pages().owners, [0; 5]);
    assert!(!memory.is_tight());
}

#[test]
fn reads_of_another_shard_wait_in_a_bounded_number() {
    let mut memory = memory(1);
    (0..MESH_PARKED_BEGINS_MAX).for_each(|_| assert!(memory.park(ShardId(3), true)));
    assert!(!memory.park(ShardId(3), true));
    let left = MESH_PARKED_BEGINS_MAX..MESH_PARKED_MAX;
    left.for_each(|_| assert!(memory.park(ShardId(3), false), "those that began have more"));
    assert!(!memory.park(ShardId(3), false));
    assert!(memory.park(ShardId(0), true), "each shard by itself");
    memory.unpark(ShardId(3));
    assert!(memory.park(ShardId(3), false));
}
