//! The node.

use std::process::ExitCode;

use ron_engine::{config::Config, machine::Machine, node};

fn main() -> ExitCode {
    let machine = match Machine::probe() {
        Ok(machine) => machine,
        Err(error) => return failed(&error),
    };
    let config = match Config::load(std::env::args_os(), &|name| std::env::var_os(name), &machine) {
        Ok(config) => config,
        Err(error) => {
            error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Err(error) = ron_control::logging::init(&config.log) {
        return failed(&error);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match node::run(&config, &machine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rond: {error}");
    ExitCode::FAILURE
}
