//! `ronctl`, the operator's tool: stores and fetches objects by their address.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(ron_engine::client::run(std::env::args_os()) as u8)
}
