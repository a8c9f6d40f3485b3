//! `ron-perf`: storage load for a node, measured.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ron_perf::storage::{Load, LoadError, Outcome, Verb, run};
use serde_json::json;

/// Puts load on the storage of a node, and says how fast it was.
#[derive(Debug, Parser)]
#[command(name = "ron-perf", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store objects that are not there yet.
    Put(Options),
    /// Fetch the objects that a `put` of the same size, count and seed has stored.
    Get {
        #[command(flatten)]
        options: Options,
        /// How often each object is fetched.
        #[arg(long, default_value_t = 1)]
        passes: u64,
        /// Hash what is fetched.
        #[arg(long)]
        verify: bool,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// The node: http://HOST:PORT
    #[arg(long, value_parser = parse_node)]
    node: String,
    /// Length of each object, in bytes or with KiB, MiB or GiB.
    #[arg(long, value_parser = parse_size)]
    size: usize,
    /// Different objects.
    #[arg(long)]
    count: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Chooses the objects: other seeds, other objects.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn parse_node(text: &str) -> Result<String, String> {
    let node = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match node.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(node.to_string())
        }
        _ => Err("expected http://HOST:PORT".to_string()),
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: usize = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        unit => return Err(format!("unknown unit {unit:?}: use KiB, MiB or GiB")),
    };
    let number: usize = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(unit).ok_or_else(|| "too large".to_string())
}

fn print(verb: Verb, options: &Options, outcome: &Outcome) {
    let verb = if verb == Verb::Put { "put" } else { "get" };
    let us = |share| outcome.quantile(share).as_micros() as u64;
    if options.json {
        let line = json!({
            "verb": verb,
            "size": options.size,
            "connections": options.connections,
            "requests": outcome.requests,
            "bytes": outcome.bytes,
            "seconds": outcome.took.as_secs_f64(),
            "mib_per_s": outcome.mib_per_s(),
            "rps": outcome.requests_per_s(),
            "p50_us": us(0.5),
            "p99_us": us(0.99),
            "max_us": us(1.0),
        });
        println!("{line}");
    } else {
        println!(
            "{verb}: {} requests, {:.0} MiB/s, {:.0} requests/s, p50 {} µs, p99 {} µs, max {} µs",
            outcome.requests,
            outcome.mib_per_s(),
            outcome.requests_per_s(),
            us(0.5),
            us(0.99),
            us(1.0),
        );
    }
}

fn perform(cli: Cli) -> Result<(), LoadError> {
    let (verb, options, passes, verify) = match cli.command {
        Command::Put(options) => (Verb::Put, options, 1, false),
        Command::Get { options, passes, verify } => (Verb::Get, options, passes, verify),
    };
    let load = Load {
        node: options.node.clone(),
        verb,
        size: options.size,
        count: options.count,
        passes,
        connections: usize::from(options.connections),
        seed: options.seed,
        verify,
    };
    print(verb, &options, &run(&load)?);
    Ok(())
}

fn main() -> ExitCode {
    match perform(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ron-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_nodes_are_read_or_refused() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert!(
            parse_size("64MB").is_err() && parse_size("KiB").is_err() && parse_size("").is_err()
        );
        assert!(parse_size("99999999999GiB").is_err());
        assert_eq!(parse_node("http://127.0.0.1:80/"), Ok("127.0.0.1:80".to_string()));
        assert!(parse_node("http://localhost").is_err() && parse_node("http://:1").is_err());
    }
}
