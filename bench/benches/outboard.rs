//! Verifying a group, and hashing an upload, beside a bare BLAKE3 hash of the same bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_codec::{limits::GROUP_LEN, outboard};

fn groups(c: &mut Criterion) {
    let object: Vec<u8> = (0..4 * GROUP_LEN).map(|n| (n % 251) as u8).collect();
    let mut hashing = outboard::Hashing::new();
    hashing.update(&object).expect("four groups are no limit");
    let hashed = hashing.finish();
    let group = &object[GROUP_LEN..2 * GROUP_LEN];
    let mut bench = c.benchmark_group("group of 64 KiB");
    bench.throughput(Throughput::Bytes(GROUP_LEN as u64));
    bench.bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(group))));
    bench.bench_function("verify", |b| {
        b.iter(|| hashed.outboard.verify_group(&hashed.address, 1, black_box(group)));
    });
    bench.finish();
    let mut bench = c.benchmark_group("upload of 256 KiB");
    bench.throughput(Throughput::Bytes(object.len() as u64));
    bench.bench_function("limit: blake3::hash", |b| b.iter(|| blake3::hash(black_box(&object))));
    bench.bench_function("hash with outboard", |b| {
        b.iter(|| {
            let mut hashing = outboard::Hashing::new();
            hashing.update(black_box(&object)).expect("four groups are no limit");
            hashing.finish()
        });
    });
    bench.finish();
}

fn roots(c: &mut Criterion) {
    let values: Vec<_> = (0..1024u32).map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    c.bench_function("merge 1024 values to a root", |b| {
        b.iter(|| outboard::merge_root(black_box(&values)));
    });
}

criterion_group!(benches, groups, roots);
criterion_main!(benches);
