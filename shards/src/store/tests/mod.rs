//! The store on the disk twin, and what its tests share.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use ron_codec::address::Address;
use ron_io::{
    ports::DiskOp,
    sim::{Chance, Kind, Planted},
};

use super::Store;
use crate::{
    flow::{Ask, Fault, Reply},
    limits,
};
use world::{World, hashed, is_new, object, shapes};

mod commits;
mod compaction;
mod crashes;
mod damage;
mod deleting;
mod hidden;
mod listing;
mod loss;
mod orphans;
mod rebuild;
mod serving;
mod space;
mod starts;
mod transitions;
mod uploads;
mod waiting;
pub(super) mod world;

const LARGE: usize = 1_100_000;

/// Acts that one moment may cause: a shard that does more than this while its clock stands still
/// has a loop without pace.
const ACTS_AT_ONCE_MAX: usize = 500;

/// Asks for a deletion, and says what the answer is.
fn ask_to_delete(world: &mut World, bytes: &[u8]) -> Reply {
    world.answer(Ask::Delete { address: Address::of(bytes) })
}

fn delete(world: &mut World, bytes: &[u8]) {
    let answer = ask_to_delete(world, bytes);
    assert!(matches!(answer, Reply::Deleted), "{answer:?}");
}

fn put_large(world: &mut World, bytes: &[u8]) -> Reply {
    let ask = world.upload(bytes);
    world.answer(ask)
}

fn fail(world: &mut World, kind: Kind, times: usize, error: ErrorKind) {
    world.disk.planted.push(Planted { kind, skip: 0, times, error });
}

/// Lets acts and turns happen until nothing is left to do at this time, and says how many acts
/// that were.
#[track_caller]
fn settle_now(world: &mut World) -> usize {
    let mut acts = 0;
    loop {
        while world.step() {
            acts += 1;
            assert!(acts <= ACTS_AT_ONCE_MAX, "the clock stands still: {:?}", world.notes.last());
        }
        match world.store.wake_at(&world.free_space) {
            Some(at) if at <= world.now.mono_ns => world.settle(),
            _ => return acts,
        }
    }
}

/// The same as time passes, until nothing is left to do.
fn quiesce(world: &mut World) {
    for _ in 0..1000 {
        settle_now(world);
        match world.store.wake_at(&world.free_space) {
            Some(at) => world.now.mono_ns = world.now.mono_ns.max(at),
            None => return assert_eq!(world.free_space.promised(0), 0, "space is given back"),
        }
        world.settle();
    }
    panic!("the store never comes to rest");
}

/// As [`quiesce`] does, with no bound on the acts, and space may be promised in the end.
fn come_to_rest(world: &mut World) {
    loop {
        world.run();
        match world.store.wake_at(&world.free_space) {
            Some(at) => world.now.mono_ns = world.now.mono_ns.max(at),
            None => return,
        }
        world.settle();
    }
}

/// Another process takes over, as far as the moment in which it serves.
fn boot(world: &mut World) {
    world.disk.kill();
    world.begin_restart();
    while !world.store.is_ready() {
        assert!(world.step(), "{:?}", world.store.failed());
    }
}

fn lose_index(world: &mut World) {
    world.lose_index();
    world.crash(1);
}

/// A whole round of the scrub.
fn scrub(world: &mut World) {
    let rounds = world.stats.scrub_rounds.get();
    world.scrub_now();
    while world.stats.scrub_rounds.get() == rounds {
        act(world);
    }
    world.run();
}

/// One act of the scrub's round, or time passes until the next.
fn act(world: &mut World) {
    if !world.step() {
        let at = world.store.wake_at(&world.free_space).expect("a round is in progress");
        world.now.mono_ns = world.now.mono_ns.max(at);
        world.settle();
    }
}

/// Where the record of an object with this address lies in the segment: from there its digest.
fn digest_in(world: &World, segment: &Path, address: &Address) -> usize {
    let mut windows = world.disk.bytes(segment).windows(32);
    windows.position(|window| window == address.as_bytes()).expect("it is in the log")
}

fn object_files(world: &World) -> usize {
    let paths = world.disk.paths();
    paths.iter().filter(|path| path.extension().is_some_and(|e| e == "obj")).count()
}
