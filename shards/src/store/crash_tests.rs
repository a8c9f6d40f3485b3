//! The store crashed at every act: what was acknowledged is there, and what was not is absent or
//! whole.

use std::collections::BTreeMap;

use super::{
    Store,
    testworld::{World, object},
};
use crate::{flow::Reply, limits};

/// Bytes of the script's objects: none, one and many groups, in segments and files.
const LENS: [usize; 10] = [10, 5000, 70_000, 4096, 0, 200_000, 9000, 1_100_000, 3000, 1_200_000];

/// Puts objects, three at a time, with a checkpoint due after each, and stops before the act `nth`.
/// Returns what was acknowledged by then, or `None` if the script has fewer acts.
fn run_script(world: &mut World, objects: &[Vec<u8>], nth: usize) -> Option<Vec<Vec<u8>>> {
    let mut asked = BTreeMap::new();
    let mut acts = 0;
    for some in objects.chunks(3) {
        for bytes in some {
            let large = bytes.len() > 1024 * 1024;
            let ask = if large { world.upload(bytes) } else { world.put_ask(bytes) };
            asked.insert(world.ask(ask), bytes.clone());
        }
        while acts < nth && world.step() {
            acts += 1;
        }
        if acts == nth {
            let stored = |asked| matches!(world.answers.get(asked), Some(Reply::Stored { .. }));
            let stored = asked.iter().filter(|(asked, _)| stored(asked));
            return Some(stored.map(|(_, bytes)| bytes.clone()).collect());
        }
        world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
    }
    None
}

/// The next act is performed in part.
fn tear(world: &mut World) {
    if let Some((_, op)) = world.pending.first() {
        world.disk.half_done(op);
    }
}

/// Crashes the script before or in its act `nth`, then again: in the boot, after it, and with the
/// index lost.
fn crash_at(nth: usize, seed: u64) -> bool {
    let mut world = World::new(seed);
    let objects: Vec<_> = LENS.iter().zip(seed * 100..).map(|(len, n)| object(n, *len)).collect();
    let Some(acknowledged) = run_script(&mut world, &objects, nth) else { return false };
    if seed.is_multiple_of(2) {
        tear(&mut world);
    }
    for round in 0..2 {
        // A killed process leaves all that it wrote, a failed machine only what it synced.
        if round == 0 && seed % 3 == 1 {
            world.disk.kill();
        } else {
            world.disk.crash(seed + round);
        }
        world.begin_restart();
        for _ in 0..(seed * 7 + nth as u64 + round) % 12 {
            world.step();
        }
        if seed % 3 == 1 {
            world.kill();
        } else {
            tear(&mut world);
            world.crash(seed + round + 50);
        }
        for bytes in &acknowledged {
            assert!(world.holds(bytes), "seed {seed}, act {nth}: {} bytes lost", bytes.len());
        }
        // Whatever else is there is whole, and stays: it is answered for from now on.
        let there: Vec<bool> = objects.iter().map(|bytes| world.holds(bytes)).collect();
        if round == 1 && nth.is_multiple_of(2) {
            world.store = Store::new(&world.config);
            std::fs::remove_dir_all(world.config.layout.index_dir(0)).unwrap();
        }
        world.crash(seed + round + 100);
        for (bytes, there) in objects.iter().zip(there) {
            assert!(!there || world.holds(bytes), "seed {seed}, act {nth}: vanished later");
        }
        let tmp = world.config.layout.tmp_dir(0);
        assert!(!world.disk.paths().iter().any(|path| path.starts_with(&tmp)));
        assert!(matches!(world.put(&objects[0]), Reply::Stored { .. }));
    }
    true
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    for seed in 0..4 {
        let acts = (0..1000).find(|nth| !crash_at(*nth, seed)).expect("the script ends");
        assert!(acts > 20, "the script has {acts} acts");
    }
}
