//! The node.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use ron_codec::address::Address;
use ron_control::logging;
use ron_engine::{config::Config, machine::Machine, node};
use ron_io::process;

fn main() -> ExitCode {
    // Handlers come with the control plane; until then a reload asked for too early does no harm.
    process::ignore_signals();
    let machine = match Machine::probe() {
        Ok(machine) => machine,
        Err(error) => return failed(&error),
    };
    let known = machine.clone();
    let settings =
        move || Config::load(std::env::args_os(), &|name| std::env::var_os(name), &known);
    let config = match settings() {
        Ok(config) => config,
        Err(error) => {
            error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(error) = logging::init(&config.log, logging::Format::auto()) {
        return failed(&error);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match node::run(&config, &machine, Box::new(settings), announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

/// The ready line on standard output, and on standard error what to try first.
fn announce(ready: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{ready}")?;
    out.flush()?;
    if let Some(http) = ready["http"].as_str() {
        let address = Address::of(b"hello\n");
        eprintln!("store an object:  echo hello | curl -sT - http://{http}/o/");
        eprintln!("fetch it again:   curl http://{http}/o/{address}");
    }
    Ok(())
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rond: {error}");
    ExitCode::FAILURE
}
