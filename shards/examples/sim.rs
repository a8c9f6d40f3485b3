//! Runs worlds made of dice until one of them sees a promise broken.
//!
//! ```text
//! sim [--seed N [--trace]] [--seeds N] [--from N] [--seconds S] [--jobs J]
//!     [--failures F] [--floods N]
//! ```
//!
//! Without an end it runs until it is stopped, or one seed has failed (`--failures` for more). It
//! ends with 1 when a seed failed, and says which. With `--floods` one world in so many is a flood
//! of rude peers (0 for none), in place of one in 16, which also changes what the other seeds stand
//! for.

#[path = "../tests/sim/mod.rs"]
mod sim;

/// Measures what the node holds.
#[global_allocator]
static HEAP: ron_io::sim::heap::Heap = ron_io::sim::heap::Heap;

use std::{process::ExitCode, time::Duration};

use sim::{
    runner::{Errand, Tally, keep_words, replay, run, run_seed},
    trace::Telling,
};

const USAGE: &str = "sim [--seed N [--trace]] [--seeds N] [--from N] [--seconds S] [--jobs J] \
    [--failures F] [--floods N]";

/// What was asked for on the command line.
struct Args {
    seed: Option<u64>,
    trace: bool,
    errand: Errand,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    keep_words();
    match args.seed {
        Some(seed) => one(seed, args.errand.floods, args.trace),
        None => many(args.errand),
    }
}

fn one(seed: u64, floods: u32, trace: bool) -> ExitCode {
    match run_seed(seed, floods, if trace { Telling::Print } else { Telling::Off }) {
        Ok(summary) => {
            println!("seed {seed}: {summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}: {}", failure.what);
            ExitCode::FAILURE
        }
    }
}

fn many(errand: Errand) -> ExitCode {
    let tally = run(errand, |tally| eprint!("\r{}  ", line(tally)));
    eprintln!();
    println!("{}", line(&tally));
    for failure in &tally.failures {
        println!(
            "seed {}: {}\n  {}",
            failure.seed,
            failure.what,
            replay(failure.seed, errand.floods)
        );
    }
    if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(tally: &Tally) -> String {
    let Tally { seeds, steps, boots, answers, took, .. } = tally;
    let rate = *seeds as f64 / took.as_secs_f64().max(0.001);
    let seconds = took.as_secs();
    format!(
        "{seeds} seeds in {seconds} s, {rate:.0} a second: {steps} steps, {boots} boots, \
         {answers} answers judged"
    )
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let errand = Errand { jobs, ..Errand::default() };
    let mut args = Args { seed: None, trace: false, errand };
    while let Some(word) = words.next() {
        if word == "--trace" {
            args.trace = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
        let number: u64 = value.parse().map_err(|_| format!("{value} is no number"))?;
        match word.as_str() {
            "--seed" => args.seed = Some(number),
            "--seeds" => args.errand.seeds = Some(number),
            "--from" => args.errand.from = number,
            "--seconds" => args.errand.time = Some(Duration::from_secs(number)),
            "--failures" => args.errand.failures_max = number as usize,
            "--floods" => args.errand.floods = number as u32,
            "--jobs" => args.errand.jobs = number as usize,
            other => return Err(format!("{other} means nothing")),
        }
    }
    Ok(args)
}
