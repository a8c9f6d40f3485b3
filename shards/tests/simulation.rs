//! A few hundred worlds, each different, none of which may see a promise broken.

mod sim;

/// Measures what the node holds.
#[global_allocator]
static HEAP: ron_io::sim::heap::Heap = ron_io::sim::heap::Heap;

use sim::{
    runner::{Errand, keep_words, replay, run, run_seed},
    trace::Telling,
};

/// Whether there are floods of rude peers among the worlds.
const FLOODS: bool = false;

/// Worlds of the test. Many more run in the example `sim`.
const SEEDS: u64 = 300;

#[test]
fn no_world_sees_a_promise_broken() {
    keep_words();
    let tally = run(Errand { seeds: Some(SEEDS), floods: FLOODS, ..Errand::default() }, |_| {});
    if let Some(failure) = tally.failures.first() {
        panic!("seed {}: {}\n  {}", failure.seed, failure.what, replay(failure.seed, FLOODS));
    }
    assert_eq!(tally.seeds, SEEDS);
    assert!(tally.answers > 10 * SEEDS, "{tally:?}: the worlds are idle");
    assert!(tally.boots > 2 * SEEDS, "{tally:?}: nothing ever crashes");
}

/// Worlds that saw one broken once, or whose oracle was wrong.
const BROKEN_ONCE: [u64; 4] = [1_752, 22_011, 67_458, 68_352];

#[test]
fn worlds_that_saw_one_broken_see_it_kept() {
    keep_words();
    for seed in BROKEN_ONCE {
        if let Err(failure) = run_seed(seed, FLOODS, Telling::Off) {
            panic!("seed {}: {}\n  {}", failure.seed, failure.what, replay(failure.seed, FLOODS));
        }
    }
}

#[test]
fn a_seed_is_run_again_step_by_step() {
    for seed in 0..5 {
        let run = || run_seed(seed, FLOODS, Telling::Digest).map_err(|failure| failure.what);
        assert_eq!(run(), run(), "seed {seed}");
    }
}
