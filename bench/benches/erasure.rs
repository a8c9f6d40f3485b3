//! Reed–Solomon over 8 data and 4 parity shards: what redundancy across nodes would cost.
//!
//! The limit is a copy of the data. Beside it stands their hash, which is paid anyway: a code that
//! is faster than that is not what an upload waits for.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reed_solomon_erasure::galois_8::ReedSolomon;
use ron_bench::{brief, random_bytes};

const DATA_SHARDS: usize = 8;
const PARITY_SHARDS: usize = 4;

/// A shard, and whether it is there.
type Shard = (Vec<u8>, bool);

/// Data and parity of random data.
fn encoded(code: &ReedSolomon, shard_len: usize) -> Vec<Shard> {
    let shards = (0..DATA_SHARDS).map(|n| random_bytes(n as u64, shard_len));
    let parity = (0..PARITY_SHARDS).map(|_| vec![0; shard_len]);
    let mut shards: Vec<Vec<u8>> = shards.chain(parity).collect();
    code.encode(&mut shards).expect("the shards are as many and as long as they must be");
    shards.into_iter().map(|shard| (shard, true)).collect()
}

/// Loses the first `lost` shards and makes them again.
fn reconstruct(code: &ReedSolomon, shards: &mut [Shard], lost: usize) {
    for shard in &mut shards[..lost] {
        shard.1 = false;
    }
    code.reconstruct_data(shards).expect("enough shards are left");
}

fn of_shards(c: &mut Criterion, name: &str, shard_len: usize) {
    let code = ReedSolomon::new(DATA_SHARDS, PARITY_SHARDS).expect("the numbers are small");
    let good = encoded(&code, shard_len);
    let data: Vec<&[u8]> = good[..DATA_SHARDS].iter().map(|shard| shard.0.as_slice()).collect();
    let mut copy = vec![0; DATA_SHARDS * shard_len];
    let mut parity = vec![vec![0; shard_len]; PARITY_SHARDS];
    let mut bench = c.benchmark_group(name);
    bench.throughput(Throughput::Bytes((DATA_SHARDS * shard_len) as u64));
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            for (to, from) in copy.chunks_mut(shard_len).zip(black_box(&data)) {
                to.copy_from_slice(from);
            }
        });
    });
    bench.bench_function("beside: blake3::hash", |b| {
        b.iter(|| {
            for shard in &data {
                black_box(blake3::hash(black_box(shard)));
            }
        });
    });
    bench.bench_function("encode", |b| {
        b.iter(|| code.encode_sep(black_box(&data), &mut parity).is_ok());
    });
    for (name, lost) in [("reconstruct one", 1), ("reconstruct four", 4)] {
        let mut shards = good.clone();
        shards[..lost].iter_mut().for_each(|shard| shard.0.fill(0));
        reconstruct(&code, &mut shards, lost);
        let as_before = shards.iter().zip(&good).all(|(shard, good)| shard.0 == good.0);
        assert!(as_before, "{lost} lost shards are made again");
        bench.bench_function(name, |b| b.iter(|| reconstruct(&code, &mut shards, lost)));
    }
    bench.finish();
}

fn erasure(c: &mut Criterion) {
    of_shards(c, "8+4 shards of 64 KiB", 64 * 1024);
    of_shards(c, "8+4 shards of 1 MiB", 1024 * 1024);
}

/// The first reconstruction of a pattern of losses inverts a matrix; later ones remember it.
fn matrices(c: &mut Criterion) {
    let mut bench = c.benchmark_group("8+4, first of a pattern, 1 KiB");
    let known = ReedSolomon::new(DATA_SHARDS, PARITY_SHARDS).expect("the numbers are small");
    let mut shards = encoded(&known, 1024);
    bench.throughput(Throughput::Bytes((DATA_SHARDS * 1024) as u64));
    bench.bench_function("limit: the pattern is known", |b| {
        b.iter(|| reconstruct(&known, &mut shards, PARITY_SHARDS));
    });
    bench.bench_function("invert", |b| {
        b.iter_batched_ref(
            || ReedSolomon::new(DATA_SHARDS, PARITY_SHARDS).expect("the numbers are small"),
            |fresh| reconstruct(fresh, &mut shards, PARITY_SHARDS),
            BatchSize::SmallInput,
        );
    });
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = erasure, matrices }
criterion_main!(benches);
