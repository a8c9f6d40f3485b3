//! The scrub against anything: bits that flip anywhere, and everybody else at work beside it.

use std::{collections::BTreeSet, ops::Range, path::PathBuf};

use proptest::prelude::*;
use ron_codec::{address::Address, limits::DISK_BLOCK_LEN};
use ron_io::ports::VerifyOutcome;

use super::{SECOND_NS, a_world, place, put, put_all, rebuild, round};
use crate::{
    flow::Ask,
    store::tests::world::{World, object},
};

/// What a property does to its world.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    /// Lengths of the objects, by batch.
    batches: Vec<Vec<usize>>,
    /// After which batches the process is replaced.
    restarts: Vec<bool>,
    deleted: Vec<prop::sample::Index>,
    /// Bits that flip: in which file, and where.
    flips: Vec<(prop::sample::Index, prop::sample::Index, u8)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let len = prop_oneof![
        4 => 0..9000_usize,
        3 => 60_000..140_000_usize,
        1 => 1_000_000..1_200_000_usize,
    ];
    let batches = prop::collection::vec(prop::collection::vec(len, 1..8), 1..5);
    let flip = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u8);
    (
        any::<u64>(),
        batches,
        prop::collection::vec(any::<bool>(), 5),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::collection::vec(flip, 1..7),
    )
        .prop_map(|(seed, batches, restarts, deleted, flips)| Plan {
            seed,
            batches,
            restarts,
            deleted,
            flips,
        })
}

/// Stores what the plan says and returns the objects that are there in the end.
fn carry_out(plan: &Plan, world: &mut World) -> Vec<Vec<u8>> {
    let mut objects = Vec::new();
    for (batch, restart) in plan.batches.iter().zip(&plan.restarts) {
        let start = objects.len() as u64;
        let new: Vec<_> =
            batch.iter().zip(start..).map(|(len, n)| object(plan.seed ^ n, *len)).collect();
        put_all(world, &new);
        for bytes in new {
            // Objects of no bytes are one and the same.
            if !objects.contains(&bytes) {
                objects.push(bytes);
            }
        }
        if *restart {
            world.stop();
            world.restart();
        }
    }
    for which in &plan.deleted {
        if objects.len() > 1 {
            let bytes = objects.swap_remove(which.index(objects.len()));
            world.answer(Ask::Delete { address: Address::of(&bytes) });
        }
    }
    // Damage to what no checkpoint has taken up passes for a torn batch, and is cut at a boot.
    world.stop();
    world.restart();
    world.chill();
    objects
}

type Spot = (PathBuf, Range<usize>);

/// Where the data of an object lie.
fn data_of(world: &World, bytes: &[u8]) -> Spot {
    if bytes.len() > 1024 * 1024 {
        let path = world.config.layout.object_path(0, &Address::of(bytes));
        return (path, DISK_BLOCK_LEN..DISK_BLOCK_LEN + bytes.len());
    }
    let (path, at, _) = place(world, bytes);
    (path, at + 128..at + 128 + bytes.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn flipped_bits_are_found_and_cost_nobody_else(plan in plan()) {
        let mut world = a_world(plan.seed);
        let objects = carry_out(&plan, &mut world);
        let mut files = world.segments();
        files.extend(world.disk.paths().into_iter().filter(|path| {
            path.extension().is_some_and(|name| name == "obj")
        }));
        let spots: Vec<_> = objects.iter().map(|bytes| data_of(&world, bytes)).collect();
        let mut hurt = BTreeSet::new();
        let mut flipped = BTreeSet::new();
        for (file, at, bit) in &plan.flips {
            let path = file.get(&files);
            let len = world.disk.bytes(path).len();
            if len == 0 || !flipped.insert((path, at.index(len), *bit)) {
                continue;
            }
            let at = at.index(len);
            world.disk.damage(path, |bytes| bytes[at] ^= 1 << bit);
            let hit = |(_, (file, data)): &(usize, &Spot)| file == path && data.contains(&at);
            hurt.extend(spots.iter().enumerate().filter(hit).map(|(n, _)| n));
        }
        round(&mut world);
        let told: BTreeSet<_> = world.damaged.iter().copied().collect();
        prop_assert_eq!(told.len(), world.damaged.len(), "each is reported once");
        let expected: BTreeSet<_> =
            hurt.iter().map(|n| *Address::of(&objects[*n]).as_bytes()).collect();
        prop_assert_eq!(told, expected);
        prop_assert_eq!(world.stats.damaged_objects.get(), hurt.len() as u64);
        for pass in ["as it is", "after a crash", "rebuilt"] {
            for (n, bytes) in objects.iter().enumerate() {
                world.chill();
                let got = world.get(&Address::of(bytes));
                if hurt.contains(&n) {
                    prop_assert!(got.is_err(), "{}: {} bytes", pass, bytes.len());
                } else {
                    prop_assert!(got.as_ref() == Ok(bytes), "{}: {} bytes", pass, bytes.len());
                }
            }
            match pass {
                "as it is" => world.crash(plan.seed),
                _ => rebuild(&mut world),
            }
        }
    }

    #[test]
    fn a_round_beside_all_else_finds_nothing(
        seed: u64,
        steps in prop::collection::vec((0..10_u8, 0..12_u64, 0..12_usize), 20..120),
    ) {
        let mut world = World::new(seed);
        world.config.storage.scrub_bytes_per_s = 1 << 40;
        world.config.storage.compact_below_percent = 100;
        world.restart();
        let len = |n: u64| [100, 5000, 70_000, 300_000, 1_100_000, 0][n as usize % 6] + n as usize;
        let mut there = BTreeSet::new();
        for (what, n, turns) in steps {
            let bytes = object(n, len(n));
            match what {
                0..4 => {
                    put(&mut world, &bytes);
                    there.insert(n);
                }
                4..7 => {
                    let address = Address::of(&bytes);
                    world.ask(Ask::Delete { address });
                    there.remove(&n);
                }
                7 => world.verify(n, Address::of(&bytes)),
                _ => world.scrub_now(),
            }
            // Each object is asked for one thing at a time; rounds and verifications go on.
            let mut left = turns;
            while what < 7 && world.answers.is_empty() || left > 0 {
                world.now.mono_ns += SECOND_NS / 1000;
                if !world.step() {
                    world.settle();
                }
                left = left.saturating_sub(1);
            }
            world.answers.clear();
        }
        world.run();
        round(&mut world);
        prop_assert!(world.damaged.is_empty());
        prop_assert_eq!(world.stats.integrity_fail.get(), 0);
        for n in there {
            prop_assert!(world.holds(&object(n, len(n))));
        }
        for (_, outcome) in &world.verified {
            let expected =
                matches!(outcome, VerifyOutcome::Whole { .. } | VerifyOutcome::Missing);
            let busy = matches!(outcome, VerifyOutcome::Failed { what } if what == "busy");
            prop_assert!(expected || busy, "{:?}", outcome);
        }
    }
}
