//! The index: finding an object, noting one, taking one out, and a checkpoint of what changed.
//!
//! The limits: the standard library's hash map of addresses and entries, and for a checkpoint a
//! durable write of as many bytes of addresses and entries.

use std::{
    collections::HashMap,
    fs::File,
    hint::black_box,
    io::{Seek, SeekFrom, Write},
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief, random_bytes, random_picks};
use ron_codec::address::Address;
use ron_shards::store::{
    audit::{Entry, Location},
    bench::IndexBench,
};

/// Objects in the index.
const STORED: u64 = 128 * 1024;

/// Objects looked up or noted at once.
const STEPS: usize = 1024;

/// Bytes of an address and its entry.
const PAIR_LEN: usize = 51;

const STORED_SEED: u64 = 1;
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

/// An index with all of these, and a map.
fn stored(dir: &tempfile::TempDir, addresses: &[Address]) -> (IndexBench, HashMap<Address, Entry>) {
    let mut index = IndexBench::open(dir.path()).expect("the folder is empty");
    for (n, address) in addresses.iter().enumerate() {
        index.insert(*address, entry(n as u64));
    }
    checkpoint(&mut index);
    (index, addresses.iter().zip(0..).map(|(address, n)| (*address, entry(n))).collect())
}

fn checkpoint(index: &mut IndexBench) {
    let mut job = Some(index.checkpoint());
    while let Some(run) = job {
        run().expect("the disk has space");
        job = index.written();
    }
}

fn found(index: &IndexBench, asked: &[Address]) -> usize {
    asked.iter().filter(|address| index.get(address).is_some()).count()
}

fn gets(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let all = addresses(STORED_SEED, STORED);
    let (index, map) = stored(&dir, &all);
    for (name, asked, there) in [
        ("index get", some_of(&all), STEPS),
        ("index get, nowhere", addresses(FRESH_SEED, STEPS as u64), 0),
    ] {
        assert_eq!(found(&index, &asked), there);
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Elements(STEPS as u64));
        bench.bench_function("limit: std HashMap", |b| {
            b.iter(|| asked.iter().filter(|address| black_box(map.get(address)).is_some()).count());
        });
        bench.bench_function("get", |b| b.iter(|| found(&index, black_box(&asked))));
        bench.finish();
    }
}

fn puts(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let all = addresses(STORED_SEED, STORED);
    let (mut index, mut map) = stored(&dir, &all);
    let fresh = addresses(FRESH_SEED, STEPS as u64);
    let mut bench = c.benchmark_group("index put and remove");
    bench.throughput(Throughput::Elements(STEPS as u64));
    bench.bench_function("limit: std HashMap", |b| {
        b.iter(|| {
            for (n, address) in fresh.iter().enumerate() {
                map.insert(*address, entry(n as u64));
            }
            fresh.iter().filter(|address| map.remove(address).is_some()).count()
        });
    });
    bench.bench_function("put and remove", |b| {
        b.iter(|| {
            for (n, address) in fresh.iter().enumerate() {
                index.insert(*address, entry(n as u64));
            }
            fresh.iter().for_each(|address| index.remove(*address));
            index.forget_changes();
        });
    });
    bench.finish();
}

fn checkpoints(c: &mut Criterion) {
    const CHANGES: u64 = 4096;
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (mut index, _) = stored(&dir, &addresses(STORED_SEED, STORED));
    let mut file = File::create(dir.path().join("plain")).expect("the folder is ours");
    let pairs = random_bytes(4, CHANGES as usize * PAIR_LEN);
    let mut bench = c.benchmark_group("checkpoint of 4096 changes");
    bench.throughput(Throughput::Elements(CHANGES)).sampling_mode(SamplingMode::Flat);
    bench.sample_size(10);
    bench.bench_function("limit: write and sync of the pairs", |b| {
        b.iter(|| {
            file.seek(SeekFrom::Start(0)).expect("a file can be sought");
            file.write_all(&pairs).expect("the disk has space");
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
                let start = Instant::now();
                checkpoint(&mut index);
                spent += start.elapsed();
            }
            spent
        });
    });
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = gets, puts, checkpoints }
criterion_main!(benches);
