//! Every input that a fuzzer kept, through the function that it was kept for.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ron_io::sim::Chance;

// A library of its own for the fuzzer, whose binaries name what is public in it.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

/// It counts what a session of TLS holds.
#[global_allocator]
static HEAP: ron_io::sim::heap::Heap = ron_io::sim::heap::Heap;

/// Inputs of chance that each target of the store is given.
const STORE_INPUTS: u64 = 300;

/// Time that they are given when they are asked for alone.
const STORE_SOAK: Duration = Duration::from_secs(600);

/// The inputs of a target, by name, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be read").path();
            (path.display().to_string(), fs::read(&path).expect("an input can be read"))
        })
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn every_input_of_every_corpus() {
    for (name, target) in fuzz::TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 5, "{name} has only {} inputs", inputs.len());
        for (path, input) in inputs {
            // What fails is named, since the panic itself does not say what it was given.
            let run = std::panic::catch_unwind(|| target(&input));
            assert!(run.is_ok(), "{path}");
        }
    }
}

#[test]
fn every_target_has_a_binary_and_every_corpus_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("it can be read").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let targets: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

/// An input of chance, for the targets that take any bytes for operations.
fn input(seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let len = chance.between(1, 90);
    (0..len).map(|_| chance.next_u64() as u8).collect()
}

/// Gives the targets of the store an input, and says which seed it came from if they panic.
fn try_store(seed: u64) {
    let input = input(seed);
    let both = [("store", fuzz::store::store as fuzz::Target), ("damage", fuzz::damage::damage)];
    for (name, target) in both {
        let run = std::panic::catch_unwind(|| target(&input));
        assert!(run.is_ok(), "{name}, seed {seed}: {input:?}");
    }
}

/// A coverage-guided fuzzer is slow here and needs a nightly compiler; chance finds much, too.
#[test]
fn the_store_does_as_a_map_whatever_happens_to_it() {
    (0..STORE_INPUTS).for_each(try_store);
}

#[test]
#[ignore = "ten minutes; run in release"]
fn the_store_does_as_a_map_for_long() {
    let begun = Instant::now();
    let mut seed = STORE_INPUTS;
    while begun.elapsed() < STORE_SOAK {
        try_store(seed);
        seed += 1;
    }
    println!("{} inputs of chance", seed - STORE_INPUTS);
}
