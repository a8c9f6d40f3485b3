//! What an index of millions of objects costs: memory, the steps of its growth, a snapshot, an
//! open.
//!
//! `cargo test --release -p ron-bench --test index_growth -- --ignored --nocapture`

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use ron_bench::{address, random_picks};
use ron_codec::address::Address;
use ron_shards::store::{
    audit::{Entry, Location},
    bench::IndexBench,
};

const OBJECTS: u64 = 8_000_000;
const GETS: usize = 1_000_000;
const SEED: u64 = 1;

fn entry(n: u64) -> Entry {
    let location =
        Location::Segment { segment: 1 + (n >> 15) as u32, offset: (n as u32 % 32768) << 7 };
    Entry { location, size: 4096, sequence: n }
}

/// Bytes of memory of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it says so");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Nanoseconds that this thread ran, whatever else the machine did.
fn ran() -> Duration {
    let read = fs::read_to_string("/proc/thread-self/schedstat").expect("it is there");
    let ns = read.split_whitespace().next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

/// How long this takes, and the longest of its steps so far.
fn timed<T>(longest: &mut Duration, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = step();
    *longest = start.elapsed().max(*longest);
    outcome
}

#[test]
#[ignore = "takes a gigabyte of memory, and half of that on disk"]
fn what_millions_of_objects_cost() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made");
    let mut index = IndexBench::open(dir.path()).expect("the folder is empty");
    let before = resident();
    let mut longest = Duration::ZERO;
    let start = ran();
    for n in 0..OBJECTS {
        let address = address(SEED, n);
        timed(&mut longest, || index.insert(address, entry(n)));
    }
    let spent = ran() - start;
    let (counted, resident) = (index.bytes(), resident() - before);
    println!("{OBJECTS} objects, in the order they come; times of the processor but the longest");
    println!("hash and insert: {:?} each, the longest {longest:?}", spent / OBJECTS as u32);
    let each = |bytes: u64| bytes as f64 / OBJECTS as f64;
    println!("memory: {:.1} bytes each as counted, {:.1} resident", each(counted), each(resident));
    assert!(each(counted) < 64.0);

    let asked: Vec<Address> =
        random_picks(9, GETS, OBJECTS).into_iter().map(|n| address(SEED, n)).collect();
    let start = ran();
    assert!(asked.iter().all(|address| black_box(index.get(address)).is_some()));
    println!("get of any: {:?} each", (ran() - start) / GETS as u32);

    let (mut step, mut job_longest, mut jobs) = (Duration::ZERO, Duration::ZERO, 0);
    let start = ran();
    let mut job = Some(timed(&mut step, || index.checkpoint()));
    while let Some(run) = job {
        timed(&mut job_longest, run).expect("the disk has space");
        job = timed(&mut step, || index.written());
        jobs += 1;
    }
    let len: u64 = fs::read_dir(dir.path())
        .expect("it is there")
        .map(|file| file.and_then(|file| file.metadata()).expect("a file").len())
        .sum();
    println!("base: {len} bytes in {:?}, {jobs} jobs", ran() - start);
    println!("of these the longest step of the shard {step:?}, the longest job {job_longest:?}");
    drop(index);

    let (start, clock) = (ran(), Instant::now());
    let index = IndexBench::open(dir.path()).expect("it is whole");
    let (spent, passed) = (ran() - start, clock.elapsed());
    println!("open: {spent:?}, by the clock {passed:?}, {:.1} bytes each", each(index.bytes()));
    assert!(asked.iter().all(|address| index.get(address).is_some()));
}
