//! The index: finding an object in memory and in LMDB, noting one, and carrying changes over.
//!
//! The limits: the standard library's maps for what is in memory, LMDB within one transaction for
//! what is not, and for a checkpoint a durable write of as many bytes of keys and entries.

use std::{
    collections::HashMap,
    fs::File,
    hint::black_box,
    io::{Seek, SeekFrom, Write},
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief, random_bytes, random_picks};
use ron_codec::address::Address;
use ron_shards::{
    limits::MEMTABLE_CHECKPOINT,
    store::{
        audit::{Entry, Location},
        bench::IndexBench,
    },
};

/// Objects in LMDB.
const STORED: u64 = 128 * 1024;

/// Objects looked up or noted at once.
const STEPS: usize = 1024;

/// Bytes of a key and an entry.
const PAIR_LEN: usize = 32 + 24;

const STORED_SEED: u64 = 1;
const CHANGED_SEED: u64 = 2;
const FRESH_SEED: u64 = 3;

fn entry(n: u64) -> Entry {
    let location = Location::Segment { segment: 1 + (n >> 15) as u32, offset: (n << 7) as u32 };
    Entry { location, size: 4096, sequence: n }
}

fn addresses(seed: u64, count: u64) -> Vec<Address> {
    (0..count).map(|n| address(seed, n)).collect()
}

/// Some of these, in no order.
fn some_of(addresses: &[Address]) -> Vec<Address> {
    let picks = random_picks(9, STEPS, addresses.len() as u64);
    picks.into_iter().map(|pick| addresses[pick as usize]).collect()
}

/// An index with all of these in LMDB and no changes.
fn stored(dir: &tempfile::TempDir, addresses: &[Address]) -> IndexBench {
    let mut index = IndexBench::open(dir.path()).expect("the folder is empty");
    for (n, address) in addresses.iter().enumerate() {
        index.insert(*address, entry(n as u64));
    }
    checkpoint(&mut index);
    index
}

fn checkpoint(index: &mut IndexBench) {
    index.checkpoint()().expect("the disk has room");
    index.carried();
}

fn found(index: &IndexBench, asked: &[Address]) -> usize {
    let there = |address: &&Address| matches!(index.get(address), Ok(Some(_)));
    asked.iter().filter(there).count()
}

fn gets(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a folder");
    let in_lmdb = addresses(STORED_SEED, STORED);
    let in_memory = addresses(CHANGED_SEED, MEMTABLE_CHECKPOINT as u64);
    let mut index = stored(&dir, &in_lmdb);
    let map: HashMap<Address, Entry> = in_memory.iter().map(|a| (*a, entry(1))).collect();
    for (n, address) in in_memory.iter().enumerate() {
        index.insert(*address, entry(n as u64));
    }

    let asked = some_of(&in_memory);
    assert_eq!(found(&index, &asked), STEPS);
    let mut bench = c.benchmark_group("index get, in memory");
    bench.throughput(Throughput::Elements(STEPS as u64));
    bench.bench_function("limit: std HashMap", |b| {
        b.iter(|| asked.iter().filter(|address| black_box(map.get(address)).is_some()).count());
    });
    bench.bench_function("get", |b| b.iter(|| found(&index, black_box(&asked))));
    bench.finish();

    for (name, asked, there) in [
        ("index get, in LMDB", some_of(&in_lmdb), STEPS),
        ("index get, nowhere", addresses(FRESH_SEED, STEPS as u64), 0),
    ] {
        assert_eq!(found(&index, &asked), there);
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Elements(STEPS as u64));
        bench.bench_function("limit: LMDB, one transaction", |b| {
            b.iter(|| index.bare(black_box(&asked)));
        });
        bench.bench_function("get", |b| b.iter(|| found(&index, black_box(&asked))));
        bench.finish();
    }
}

fn puts(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a folder");
    let in_lmdb = addresses(STORED_SEED, STORED);
    let mut index = stored(&dir, &in_lmdb);
    let fresh = addresses(FRESH_SEED, STEPS as u64);
    let again = some_of(&in_lmdb);
    let mut bench = c.benchmark_group("index put");
    bench.throughput(Throughput::Elements(STEPS as u64));
    bench.bench_function("limit: std HashMap", |b| {
        b.iter_batched_ref(
            HashMap::new,
            |map| {
                for (n, address) in fresh.iter().enumerate() {
                    map.insert(*address, entry(n as u64));
                }
            },
            BatchSize::LargeInput,
        );
    });
    for (name, addresses) in [("a new object", &fresh), ("one that is in LMDB", &again)] {
        bench.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    index.forget_changes();
                    let start = Instant::now();
                    for (n, address) in addresses.iter().enumerate() {
                        index.insert(*address, entry(n as u64));
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    bench.finish();
}

fn checkpoints(c: &mut Criterion) {
    const CHANGES: u64 = 4096;
    let dir = tempfile::tempdir().expect("there is room for a folder");
    let mut index = stored(&dir, &addresses(STORED_SEED, STORED));
    let mut file = File::create(dir.path().join("plain")).expect("the folder is ours");
    let pairs = random_bytes(4, CHANGES as usize * PAIR_LEN);
    let mut bench = c.benchmark_group("checkpoint of 4096 changes");
    bench.throughput(Throughput::Elements(CHANGES)).sampling_mode(SamplingMode::Flat);
    bench.sample_size(10);
    bench.bench_function("limit: write and sync of the pairs", |b| {
        b.iter(|| {
            file.seek(SeekFrom::Start(0)).expect("a file can be sought");
            file.write_all(&pairs).expect("the disk has room");
            file.sync_data().expect("the disk works");
        });
    });
    let mut round = 0;
    bench.bench_function("checkpoint", |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                // Objects that are known, so that the index stays as large as it is.
                for n in 0..CHANGES {
                    let known = address(STORED_SEED, (round * CHANGES + n) % STORED);
                    index.insert(known, entry(n));
                }
                round += 1;
                let job = index.checkpoint();
                let start = Instant::now();
                job().expect("the disk has room");
                spent += start.elapsed();
                index.carried();
            }
            spent
        });
    });
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = gets, puts, checkpoints }
criterion_main!(benches);
