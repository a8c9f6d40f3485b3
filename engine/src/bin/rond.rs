//! The node.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
};

use ron_control::logging;
use ron_engine::{
    config::{Config, LogFormat, keys::unknown_variables},
    machine::Machine,
    node,
};
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
    let format = match config.log_format {
        LogFormat::Auto => logging::Format::auto(),
        LogFormat::Json => logging::Format::Json,
        LogFormat::Text => logging::Format::Text,
    };
    if let Err(error) = logging::init(&config.log, format) {
        return failed(&error);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for name in unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("the variable {name} is no setting and is ignored; see rond --help");
    }
    match node::run(&config, &machine, Box::new(settings), announce) {
        Ok(()) => {
            logging::end(None);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&*error),
    }
}

/// The ready line on standard output; and on a terminal, what to try first. Neither keeps the node
/// waiting: standard output may be a pipe that nobody reads, and a terminal may be stopped.
fn announce(ready: &serde_json::Value) {
    let line = format!("{ready}\n");
    let write = move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!("the ready line cannot be written: {error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("ready".to_owned()).spawn(write) {
        tracing::warn!("no thread can be started to write the ready line: {error}");
    }
    if io::stderr().is_terminal() {
        node::hints(ready).iter().for_each(|hint| logging::say(hint));
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    logging::end(Some(&format_args!("rond: {error}")));
    match error.downcast_ref::<node::Hung>() {
        Some(_) => ExitCode::from(node::HUNG_EXIT_CODE),
        None => ExitCode::FAILURE,
    }
}
