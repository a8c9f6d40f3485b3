//! Storage records: a header to bytes and back, and a commit of small objects.
//!
//! A header carries a checksum, so its limit is a hash of what that covers. A batch is laid out in
//! one buffer, as a direct write needs it: its limit is a copy of the same data.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{brief, random_bytes};
use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, RECORD_HEADER_LEN},
    record::RecordHeader,
};
use ron_shards::store::audit::is_whole;

/// Bytes of a header that its checksum covers.
const CHECKED_LEN: usize = 112;

/// Objects of a batch, and bytes of each.
const OBJECTS: usize = 64;
const OBJECT_LEN: usize = 4096;

fn headers(c: &mut Criterion) {
    let header = RecordHeader::for_segment(Address::of(b"an object"), OBJECT_LEN as u64, 9)
        .expect("the object is short");
    let bytes = header.encode();
    let mut bench = c.benchmark_group("record header");
    bench.throughput(Throughput::Bytes(RECORD_HEADER_LEN as u64));
    bench.bench_function("limit: blake3::hash", |b| {
        b.iter(|| blake3::hash(black_box(&bytes[..CHECKED_LEN])));
    });
    bench.bench_function("beside: memcpy", |b| b.iter(|| *black_box(&bytes)));
    bench.bench_function("encode", |b| b.iter(|| black_box(&header).encode()));
    bench.bench_function("decode", |b| b.iter(|| RecordHeader::decode(black_box(&bytes)).is_ok()));
    bench.finish();
}

/// Appends the record of an object to a batch.
fn put(batch: &mut Vec<u8>, address: Address, object: &[u8], sequence: u64) {
    let header = RecordHeader::for_segment(address, object.len() as u64, sequence)
        .expect("the object is short");
    let start = batch.len();
    batch.extend_from_slice(&header.encode());
    batch.extend_from_slice(object);
    batch.resize(start + header.record_len() as usize, 0);
}

/// Lays out a batch as a commit writes it, its last pad included.
fn lay_out(batch: &mut Vec<u8>, objects: &[(Address, &[u8])]) {
    for (n, (address, object)) in objects.iter().enumerate() {
        put(batch, *address, object, n as u64);
    }
    let end = (batch.len() + RECORD_HEADER_LEN).next_multiple_of(DISK_BLOCK_LEN);
    let pad = RecordHeader::pad((end - batch.len()) as u64);
    batch.extend_from_slice(&pad.encode());
    batch.resize(end, 0);
}

/// Reads a batch as recovery and scrub do. Returns how many of its records are whole.
fn scan(mut batch: &[u8]) -> usize {
    let mut whole = 0;
    while let Ok(header) = RecordHeader::decode(batch) {
        let (record, rest) = batch.split_at(header.record_len() as usize);
        whole += usize::from(is_whole(&header, record));
        batch = rest;
    }
    whole
}

fn batches(c: &mut Criterion) {
    let data = random_bytes(1, OBJECTS * OBJECT_LEN);
    let objects: Vec<_> = data.chunks(OBJECT_LEN).map(|data| (Address::of(data), data)).collect();
    let mut batch = Vec::with_capacity(2 * data.len());
    lay_out(&mut batch, &objects);
    let stored = batch.clone();
    assert_eq!(scan(&stored), OBJECTS + 1, "the pad is a record too");
    let mut bench = c.benchmark_group("batch of 64 objects of 4 KiB");
    bench.throughput(Throughput::Bytes(data.len() as u64));
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            batch.clear();
            batch.extend_from_slice(black_box(&data));
        });
    });
    bench.bench_function("lay out", |b| {
        b.iter(|| {
            batch.clear();
            lay_out(&mut batch, black_box(&objects));
        });
    });
    bench.finish();

    let mut bench = c.benchmark_group("scan of 64 objects of 4 KiB");
    bench.throughput(Throughput::Bytes(data.len() as u64));
    bench.bench_function("limit: blake3::hash", |b| {
        b.iter(|| {
            for (_, object) in &objects {
                black_box(blake3::hash(black_box(object)));
            }
        });
    });
    bench.bench_function("decode and verify", |b| b.iter(|| scan(black_box(&stored))));
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = headers, batches }
criterion_main!(benches);
