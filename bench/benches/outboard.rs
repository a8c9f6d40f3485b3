//! Verifying a group, hashing an upload and merging an outboard, beside a bare BLAKE3 hash.
//!
//! The price of "every byte verified": what a cold read or an upload cannot go below. A group of
//! 64 KiB is hashed many chunks at a time; merging goes one pair at a time, so its limit, a hash
//! of as many compressions, is one that it cannot reach.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief, random_bytes};
use ron_codec::{address::Address, limits::GROUP_LEN, outboard};

/// Groups of an object of 64 MiB.
const VALUES: usize = 1024;

/// Bytes of one compression of BLAKE3.
const COMPRESSION_LEN: usize = 64;

fn groups(c: &mut Criterion) {
    let object = random_bytes(1, 4 * GROUP_LEN);
    let mut hashing = outboard::Hashing::new();
    hashing.update(&object).expect("four groups are no limit");
    let hashed = hashing.finish();
    let group = &object[GROUP_LEN..2 * GROUP_LEN];
    let mut bench = c.benchmark_group("verify 64 KiB");
    bench.throughput(Throughput::Bytes(GROUP_LEN as u64));
    bench.bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(group))));
    bench.bench_function("group of a larger object", |b| {
        b.iter(|| hashed.outboard.verify_group(&hashed.address, 1, black_box(group)));
    });
    bench.finish();

    for (name, len) in [("verify 4 KiB", 4096), ("verify 1 KiB", 1024)] {
        let small = &object[..len];
        let address = Address::of(small);
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(len as u64));
        bench.bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(small))));
        bench.bench_function("whole object", |b| {
            b.iter(|| {
                outboard::verify_group(&address, len as u64, None, 0, black_box(small)).is_ok()
            });
        });
        bench.finish();
    }
}

fn uploads(c: &mut Criterion) {
    for (name, len) in
        [("hash an upload of 4 KiB", 4096), ("hash an upload of 1 MiB", 16 * GROUP_LEN)]
    {
        let object = random_bytes(2, len);
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(len as u64));
        bench
            .bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(&object))));
        bench.bench_function("with its outboard", |b| {
            b.iter(|| {
                let mut hashing = outboard::Hashing::new();
                hashing.update(black_box(&object)).expect("sixteen groups are no limit");
                hashing.finish()
            });
        });
        bench.bench_function("as it arrives, by 16 KiB", |b| {
            b.iter(|| {
                let mut hashing = outboard::Hashing::new();
                for arrival in black_box(&object).chunks(ron_io::limits::RECV_BUFFER_LEN) {
                    hashing.update(arrival).expect("sixteen groups are no limit");
                }
                hashing.finish()
            });
        });
        bench.finish();
    }
}

fn roots(c: &mut Criterion) {
    let values: Vec<outboard::GroupValue> =
        (0..VALUES as u64).map(|n| *address(3, n).as_bytes()).collect();
    let as_many = random_bytes(4, (VALUES - 1) * COMPRESSION_LEN);
    let mut bench = c.benchmark_group("merge 1024 values to a root");
    bench.throughput(Throughput::Elements(VALUES as u64));
    bench.bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(&as_many))));
    bench.bench_function("merge", |b| b.iter(|| outboard::merge_root(black_box(&values))));
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = groups, uploads, roots }
criterion_main!(benches);
