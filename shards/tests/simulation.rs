//! A few hundred worlds, each different; no promise may break in any of them.

mod sim;

/// Measures what the node holds.
#[global_allocator]
static HEAP: ron_io::sim::heap::Heap = ron_io::sim::heap::Heap;

use sim::{
    runner::{Errand, FLOODS, keep_words, replay, run, run_seed},
    trace::Telling,
};

/// Worlds of the test. Many more run in the example `sim`.
const SEEDS: u64 = 300;

#[test]
fn no_world_sees_a_promise_broken() {
    keep_words();
    let tally = run(Errand { seeds: Some(SEEDS), ..Errand::default() }, |_| {});
    for failure in &tally.failures {
        // The words of panics are kept, and so are those of this test's own.
        eprintln!("seed {}: {}\n  {}", failure.seed, failure.what, replay(failure.seed, FLOODS));
    }
    assert!(tally.failures.is_empty());
    assert_eq!(tally.seeds, SEEDS);
    assert!(tally.answers > 10 * SEEDS, "{tally:?}: the worlds are idle");
    assert!(tally.boots > 2 * SEEDS, "{tally:?}: nothing ever crashes");
}

#[test]
fn a_seed_is_run_again_step_by_step() {
    for seed in 0..5 {
        let run = || run_seed(seed, FLOODS, Telling::Digest).map_err(|failure| failure.what);
        assert_eq!(run(), run(), "seed {seed}");
    }
}
