//! The scrub on the disk twin: every damage is found once, told once, and costs nobody else.
//!
//! Here is what these tests do to their worlds. The tests are in files by subject.

use std::path::{Path, PathBuf};

use ron_codec::{
    address::Address,
    record::{RecordHeader, RecordKind},
};

use super::{Acting, Ready};
use crate::{limits::SCRUB_BYTES_PER_S, machine::Turn, store::tests::world::World};

mod broken;
mod damage;
mod meanwhile;
mod properties;
mod rounds;
mod schedule;
mod verify;

const SECOND_NS: u64 = 1_000_000_000;

/// A world whose scrub is on, and begins when it is ordered.
fn a_world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.config.storage.scrub_bytes_per_s = SCRUB_BYTES_PER_S;
    world.config.storage.scrub_every_ms = 0;
    world.restart();
    world
}

/// Lets the shard do the next thing, whatever it is: an act, or what the time brings.
fn turn(world: &mut World) {
    if world.step() {
        return;
    }
    let at = world.store.wake_at(&world.free_space).expect("a round is in progress");
    world.now.mono_ns = world.now.mono_ns.max(at);
    world.settle();
}

/// Runs a whole round of the scrub, and all it leads to.
fn round(world: &mut World) {
    let rounds = world.stats.scrub_rounds.get();
    world.damaged.clear();
    world.notes.clear();
    world.scrub_now();
    while world.stats.scrub_rounds.get() == rounds {
        turn(world);
    }
    world.run();
    assert_eq!(world.stats.scrub_running.get(), 0);
}

/// Places that a round is still to go through, if there is one.
fn places_left(world: &World) -> Option<usize> {
    match world.store.scrub.machine.get() {
        Turn::Ready(Ready::Idle) => None,
        Turn::Ready(Ready::Between(round) | Ready::Patrolling(round, _))
        | Turn::Waiting(Acting { round, .. }) => Some(round.todo.len()),
    }
}

fn round_goes_on(world: &mut World) {
    let rounds = world.stats.scrub_rounds.get();
    while world.stats.scrub_rounds.get() == rounds {
        turn(world);
    }
    world.run();
}

/// Another process finds the data without an index.
fn rebuild(world: &mut World) {
    world.stop();
    assert_eq!(world.disk.open_files(), 0);
    world.lose_index();
    world.restart();
    assert!(world.store.is_ready(), "{:?}", world.store.failed());
    world.damaged.clear();
}

fn put(world: &mut World, bytes: &[u8]) {
    let large = bytes.len() > 1024 * 1024;
    let ask = if large { world.upload(bytes) } else { world.put_ask(bytes) };
    world.ask(ask);
}

/// Stores objects in one batch, as far as one takes them.
fn put_all(world: &mut World, objects: &[Vec<u8>]) {
    // The first commit takes what was asked first; what waits for it shares the next.
    objects.iter().for_each(|bytes| put(world, bytes));
    world.run();
    world.answers.clear();
    world.chill();
}

/// Where a record of an object lies in the segments: the last copy of it.
fn place(world: &World, bytes: &[u8]) -> (PathBuf, usize, RecordHeader) {
    let address = Address::of(bytes);
    let mut found = None;
    for path in world.segments() {
        let segment = world.disk.bytes(&path);
        let mut at = 0;
        while let Some(header) = segment.get(at..) {
            let Ok(header) = RecordHeader::decode(header) else { break };
            if header.digest() == address && header.kind() != RecordKind::Tombstone {
                found = Some((path.clone(), at, header));
            }
            at += header.record_len() as usize;
        }
    }
    found.expect("the object is in the log")
}

fn flip(world: &mut World, path: &Path, at: usize) {
    world.disk.damage(path, |bytes| bytes[at] ^= 4);
}

fn digests(objects: &[&Vec<u8>]) -> Vec<[u8; 32]> {
    objects.iter().map(|bytes| *Address::of(bytes).as_bytes()).collect()
}
