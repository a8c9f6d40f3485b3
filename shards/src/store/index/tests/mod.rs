//! The index: what a checkpoint leaves, and what the next start finds.

use std::{fs, path::Path, sync::Arc};

use ron_codec::limits::DISK_BLOCK_LEN;

use super::*;

/// The segments that entries of these tests lie in.
fn segments() -> Vec<(u32, u64)> {
    (1..500).map(|segment| (segment, 1 << 20)).collect()
}

fn opened(dir: &Path) -> Opened {
    opened_among(dir, segments())
}

fn opened_among(dir: &Path, segments: Vec<(u32, u64)>) -> Opened {
    let slot = OpenSlot::default();
    let of = Of { partition: 0, partitions: 1, segments };
    open_job(dir.to_path_buf(), of, Arc::clone(&slot))().unwrap();
    slot.lock().unwrap().take().unwrap()
}

fn open(dir: &Path) -> Index {
    let opened = opened(dir);
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
    Index::new(opened)
}

fn entry(n: u64) -> Entry {
    let segment = 1 + (n % 400) as u32;
    let location = match n % 3 {
        0 => Location::File { segment },
        _ => Location::Segment { segment, offset: (n as u32).wrapping_mul(128) % (256 << 20) },
    };
    Entry { location, size: (n << 20).min(1 << 20), sequence: u64::MAX - n }
}

/// An object of 1000 bytes at the start of a segment.
fn place(segment: u32) -> Entry {
    Entry { location: Location::Segment { segment, offset: 0 }, size: 1000, sequence: 1 }
}

fn address(n: u64) -> Address {
    Address::of(&n.to_le_bytes())
}

const REACHED: (Position, u64) = (Position { segment: 7, offset: 4096 }, 99);

/// Runs a checkpoint to its end. How many jobs it took.
fn checkpoint(index: &mut Index, reached: (Position, u64)) -> usize {
    let mut jobs = 0;
    let mut job = Some(index.checkpoint(reached));
    while let Some(run) = job {
        run().unwrap();
        jobs += 1;
        job = index.written(true);
    }
    jobs
}

fn all(index: &Index) -> Vec<(Address, Entry)> {
    index.page(None, usize::MAX)
}

fn newest(dir: &Path) -> std::path::PathBuf {
    snapshot::path(dir, *snapshot::generations(dir).unwrap().last().unwrap())
}

mod checkpoints;
mod opening;
mod pages;
mod properties;

/// A base of some blocks, three appends behind it, and what the index was after each.
fn history(dir: &Path) -> Vec<(u64, Vec<(Address, Entry)>)> {
    let mut index = open(dir);
    let mut states = Vec::new();
    for round in 0..4u64 {
        for n in 0..200 {
            index.insert(address(1000 * round + n), entry(1000 * round + n));
        }
        index.remove(address(7 + round));
        index.count_tombstone(2);
        checkpoint(&mut index, (REACHED.0, round));
        let len = fs::metadata(newest(dir)).unwrap().len();
        states.push((len, all(&index)));
    }
    states
}
