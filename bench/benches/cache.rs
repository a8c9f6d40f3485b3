//! The cache of verified blocks: a hit, and what it costs to bring something in when it is full.
//!
//! The yardstick is the standard library's `HashMap` with its default hash, which resists chosen
//! keys as ours does; for the full cache, such a map with a queue of what to evict next. It keeps
//! no memory, remembers nothing of what left and promotes nothing. No block's bytes are touched.

use std::{
    collections::{HashMap, VecDeque},
    hint::black_box,
    sync::Arc,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief, random_picks};
use ron_codec::address::Address;
use ron_io::{arena::Arena, limits::BLOCK_LEN};
use ron_shards::{
    cache::{Memory, Verified},
    entropy::Secret,
};

const MIB: usize = 1024 * 1024;

/// Bytes of the arena of each cache here.
const ARENA_LEN: usize = 256 * MIB;

/// Bytes of a small object's block, the smallest there is.
const SMALL_LEN: usize = 4096;

/// Blocks of small objects that fill the arena.
const SMALL_BLOCKS: u64 = (ARENA_LEN / SMALL_LEN) as u64;

/// Steps measured at once.
const STEPS: usize = 4096;

const SEED: u64 = 5;

fn memory() -> Memory {
    Memory::new(ARENA_LEN, &Secret::of_seed(SEED)).expect("the arena is reserved, not yet taken")
}

/// Brings a group in as the store does, but for its bytes.
fn load(memory: &mut Memory, address: &Address, index: u64, len: usize) {
    let block = memory.alloc(len).expect("nobody else holds a block").freeze(len);
    memory.insert(address, len as u64, &Verified::vouch(index, block, false));
}

/// First in, first out: as simple as a bounded cache can be.
struct Fifo {
    entries: HashMap<(Address, u64), Arc<u64>>,
    order: VecDeque<(Address, u64)>,
}

impl Fifo {
    fn full(address: &Address) -> Fifo {
        let mut fifo = Fifo { entries: HashMap::new(), order: VecDeque::new() };
        for index in 0..SMALL_BLOCKS {
            fifo.insert(address, index);
        }
        fifo
    }

    fn insert(&mut self, address: &Address, index: u64) {
        if self.entries.len() >= SMALL_BLOCKS as usize
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.entries.insert((*address, index), Arc::new(index));
        self.order.push_back((*address, index));
    }
}

fn hits(c: &mut Criterion) {
    // Nine tenths full: all of them stay.
    let count = SMALL_BLOCKS * 9 / 10;
    let addresses: Vec<Address> = (0..count).map(|n| address(SEED, n)).collect();
    let picks = random_picks(SEED, STEPS, count);
    let asked: Vec<Address> = picks.iter().map(|pick| addresses[*pick as usize]).collect();
    let hot = &asked[..16];
    let mut map = HashMap::new();
    let mut memory = memory();
    for address in &addresses {
        map.insert((*address, 0_u64), Arc::new(0_u64));
        load(&mut memory, address, 0, SMALL_LEN);
    }
    assert!(asked.iter().all(|address| memory.get(address, 0).is_some()));
    for (name, asked) in [("cache hit, one of 16", hot), ("cache hit, one of 59000", &asked)] {
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Elements(asked.len() as u64));
        bench.bench_function("limit: std HashMap", |b| {
            b.iter(|| {
                for address in asked {
                    black_box(map.get(&(*black_box(address), 0)).cloned());
                }
            });
        });
        bench.bench_function("hit", |b| {
            b.iter(|| {
                for address in asked {
                    black_box(memory.get(black_box(address), 0));
                }
            });
        });
        bench.finish();
    }
    let absent: Vec<Address> = (0..STEPS as u64).map(|n| address(SEED + 1, n)).collect();
    let mut bench = c.benchmark_group("cache miss");
    bench.throughput(Throughput::Elements(STEPS as u64));
    bench.bench_function("limit: std HashMap", |b| {
        b.iter(|| absent.iter().filter(|address| map.contains_key(&(**address, 0))).count());
    });
    bench.bench_function("miss", |b| {
        b.iter(|| absent.iter().filter(|address| memory.get(address, 0).is_some()).count());
    });
    bench.finish();
}

/// Every step brings in a group that was never seen: all the others are on their way out.
fn scans(c: &mut Criterion) {
    let object = address(SEED, 0);
    let mut bench = c.benchmark_group("bring into a full cache, a scan");
    bench.throughput(Throughput::Elements(STEPS as u64));
    let mut fifo = Fifo::full(&object);
    let mut next = SMALL_BLOCKS;
    bench.bench_function("limit: HashMap and queue", |b| {
        b.iter(|| {
            for _ in 0..STEPS {
                fifo.insert(&object, next);
                next += 1;
            }
        });
    });
    drop(fifo);
    let mut arena = Arena::new(ARENA_LEN / BLOCK_LEN).expect("the arena is reserved");
    bench.bench_function("beside: arena, take and give back 4 KiB", |b| {
        b.iter(|| {
            for _ in 0..STEPS {
                drop(black_box(arena.alloc(SMALL_LEN)));
            }
        });
    });
    for (name, len) in [("4 KiB", SMALL_LEN), ("64 KiB", BLOCK_LEN)] {
        let mut memory = memory();
        let mut next = 0;
        for _ in 0..ARENA_LEN / len {
            load(&mut memory, &object, next, len);
            next += 1;
        }
        bench.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..STEPS {
                    load(&mut memory, &object, next, len);
                    next += 1;
                }
            });
        });
    }
    bench.finish();
}

/// Half of the steps ask for one of as many groups as a quarter of the cache holds, half for one
/// of four times as many as it holds: the first are promoted, most of the others leave unused.
fn mixes(c: &mut Criterion) {
    const LEN: usize = 256 * 1024;
    let object = address(SEED, 0);
    let often = random_picks(SEED, LEN / 2, SMALL_BLOCKS / 4);
    let seldom = random_picks(SEED + 1, LEN / 2, SMALL_BLOCKS * 4);
    let asked: Vec<u64> = often.into_iter().zip(seldom).flat_map(|(a, b)| [a, b]).collect();
    let turns: Vec<&[u64]> = asked.chunks(STEPS).collect();
    let mut bench = c.benchmark_group("ask a full cache, bring in what is not there");
    bench.throughput(Throughput::Elements(STEPS as u64));
    let mut fifo = Fifo::full(&object);
    let mut turn = turns.iter().cycle();
    bench.bench_function("limit: HashMap and queue", |b| {
        b.iter(|| {
            for index in *turn.next().expect("it goes round") {
                if black_box(fifo.entries.get(&(object, *index))).is_none() {
                    fifo.insert(&object, *index);
                }
            }
        });
    });
    drop(fifo);
    let mut memory = memory();
    let mut turn = turns.iter().cycle();
    let mut step = |memory: &mut Memory| {
        for index in *turn.next().expect("it goes round") {
            if black_box(memory.get(&object, *index)).is_none() {
                load(memory, &object, *index, SMALL_LEN);
            }
        }
    };
    (0..turns.len()).for_each(|_| step(&mut memory));
    bench.bench_function("4 KiB", |b| b.iter(|| step(&mut memory)));
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = hits, scans, mixes }
criterion_main!(benches);
