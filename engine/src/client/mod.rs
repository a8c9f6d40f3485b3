//! The client of a node: what `ronctl` does.
//!
//! Objects are streamed, so that their size does not matter, and what was fetched whole is hashed
//! here too: the node need not be trusted for it. Requests that may be repeated are, a few times,
//! when the node could not be reached or asked for patience.

mod admin;
mod args;
mod download;
mod early;
mod error;
mod export;
mod http;
mod import;
mod listing;
mod name;
mod name_args;
mod oap;
mod options;
mod pour;
mod progress;
mod retry;
mod source;
mod stdout;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod unfinished;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use clap::Parser;
use ron_codec::address::Address;
use serde::Serialize;

pub use args::{ArgError, Args, Cap, Command, Get, HostPort, NodeUrl, Range, Seconds, Shared};
pub use error::{AnswerFault, ClientError, EXIT_HELP, Exit};
pub use name_args::{ChangeOptions, NameCommand};
pub use options::{Export, Import, Ls, Prefix, PrefixError};

use crate::fsck;
use download::Download;
use http::Http;
use oap::Oap;
use retry::{sleep, with_retries};
use source::{Input, Source, hash_file};
use stdout::{print, stdout_failed};

/// Reads the arguments, first the program's name, and does what they say. Results go to stdout;
/// a failure is one line on stderr.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no failures.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return if error.print().is_ok() { exit } else { Exit::Local };
        }
    };
    let mut wait = sleep(args.shared.quiet);
    match execute(&args, &mut io::stdout().lock(), &mut wait) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("ronctl: {error}");
            error.exit()
        }
    }
}

/// Does what `args` say. Short results go to `out`; `wait` is how to pause between two tries.
fn execute(
    args: &Args,
    out: &mut dyn Write,
    wait: &mut dyn FnMut(&ClientError, Duration),
) -> Result<(), ClientError> {
    let shared = &args.shared;
    match &args.command {
        Command::Put { file } => {
            let address = put(shared, file, wait)?;
            print(out, format_args!("{address}"))
        }
        Command::Get(get) => {
            let verified = fetch(shared, get, wait)?;
            if !verified && !shared.quiet {
                eprintln!("ronctl: range not verified by the client");
            }
            Ok(())
        }
        Command::Stat { address, json } => {
            let http = Http::from_args(shared, &shared.node)?;
            let size = with_retries(wait, || http.stat(address))?;
            print_stat(out, address, size, *json)
        }
        Command::Fsck(options) => Ok(fsck::run(options, shared.quiet, out)?),
        Command::Rm { addresses } => admin::rm(shared, addresses, out, wait),
        // There is no other way to scrub than now.
        Command::Scrub { now: _ } => admin::scrub(shared, out, wait),
        Command::Verify { addresses } => admin::verify(shared, addresses, out, wait),
        Command::Ls(options) => listing::ls(shared, options, out, wait),
        Command::Export(options) => export::export(shared, options, wait),
        Command::Import(options) => import::import(shared, options, wait),
        Command::Storage { json } => admin::storage(shared, *json, out, wait),
        Command::Name { command } => name::run(shared, command, out, wait),
    }
}

/// Files longer than this are asked for before they are sent.
const ASK_FIRST_LEN: u64 = 32 * 1024 * 1024;

/// Stores `path` and returns its address.
fn put(
    shared: &Shared,
    path: &Path,
    wait: &mut dyn FnMut(&ClientError, Duration),
) -> Result<Address, ClientError> {
    let http = Http::from_args(shared, &shared.node)?;
    let quiet = shared.quiet;
    let (sent, stored) = match Input::open(path)? {
        Input::File { file, path, len } => {
            let address = hash_file(&file, &path, len, quiet)?;
            // A node that has it says so before it is sent; one that knows its copy to be damaged
            // does not, and takes it again.
            if len > ASK_FIRST_LEN && http.stat(&address).is_ok_and(|size| size == len) {
                return Ok(address);
            }
            let stored = with_retries(wait, || {
                http.put(Some(&address), &mut Source::file(&file, &path, len, quiet)?)
            })?;
            (address, stored)
        }
        // A stream cannot be read twice, so it is sent once.
        Input::Stream { mut reader, path } => {
            let mut source = Source::stream(&mut *reader, &path, quiet);
            let stored = http.put(None, &mut source)?;
            (source.address().unwrap_or(stored.addr), stored)
        }
    };
    if stored.addr == sent {
        Ok(sent)
    } else {
        Err(ClientError::Stored { sent, stored: stored.addr })
    }
}

/// Fetches an object and returns whether it was verified.
fn fetch(
    shared: &Shared,
    get: &Get,
    wait: &mut dyn FnMut(&ClientError, Duration),
) -> Result<bool, ClientError> {
    let (address, range) = (&get.address, get.range.as_ref());
    let mut download = Download::new(*address, get.output.as_deref(), shared.quiet);
    let Some(at) = &get.oap else {
        let http = Http::from_args(shared, &shared.node)?;
        return with_retries(wait, || http.get(address, range, &mut download));
    };
    let ca = tls::trusted(shared.ca.as_deref())?;
    let oap = Oap {
        at,
        name: get.name.as_deref(),
        cap: shared.cap.as_ref(),
        ca: &ca,
        timeout: shared.timeout.0,
    };
    with_retries(wait, || oap.get(address, range, &mut download))
}

fn print_stat(
    out: &mut dyn Write,
    address: &Address,
    size: u64,
    json: bool,
) -> Result<(), ClientError> {
    #[derive(Serialize)]
    struct Stat<'a> {
        addr: &'a Address,
        size: u64,
    }
    if !json {
        return print(out, format_args!("{address} {size}"));
    }
    let written = serde_json::to_string(&Stat { addr: address, size });
    let line = written.map_err(|error| stdout_failed(error.into()))?;
    print(out, format_args!("{line}"))
}
