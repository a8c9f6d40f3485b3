//! The client of a node: what `ronctl` does.
//!
//! Objects are streamed, so that their size does not matter, and what was fetched whole is hashed
//! here too: the node need not be trusted for it. Requests that may be repeated are, a few times,
//! when the node could not be reached or asked for patience.

mod admin;
mod args;
mod copies;
mod download;
mod early;
mod error;
mod export;
mod fetch;
mod http;
mod import;
mod jobs;
mod kept;
mod listing;
mod many;
mod media;
mod name;
mod name_args;
mod oap;
mod options;
mod pack;
mod place;
mod pour;
mod progress;
mod retry;
mod send;
mod source;
mod stdout;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod tree;
mod unfinished;
mod unpack;

use std::{
    ffi::OsString,
    io::{self, Write},
    time::Duration,
};

use clap::Parser;
use ron_codec::address::Address;
use serde::Serialize;

pub use args::{
    ArgError, Args, Cap, Command, Encodings, Get, HostPort, Jobs, NodeUrl, Pack, PaymentTerms, Put,
    Range, Seconds, Shared, Tld, Unpack,
};
pub use error::{AnswerFault, ClientError, EXIT_HELP, Exit, TreeFault};
pub use name_args::{ChangeOptions, NameCommand};
pub use options::{Export, Import, Ls, Prefix, PrefixError};

use crate::fsck;
use download::Download;
use fetch::Origin;
use http::Http;
use kept::Kept;
use retry::{sleep, with_retries};
use stdout::{print, print_json};

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
        Command::Put(options) => many::put(shared, options, out, wait),
        Command::Pack(options) => pack::pack(shared, options, out, wait),
        Command::Unpack(options) => unpack::unpack(shared, options, out, wait),
        Command::Get(options) => get(shared, options, out, wait),
        Command::Stat { address } => {
            let http = Http::from_args(shared, &shared.node)?;
            let size = with_retries(wait, || http.stat(address))?;
            print_stat(out, address, size, shared.json)
        }
        Command::Fsck(options) => Ok(fsck::run(options, shared.json, shared.quiet, out)?),
        Command::Rm { addresses } => admin::rm(shared, addresses, out, wait),
        // There is no other way to scrub than now.
        Command::Scrub { now: _ } => admin::scrub(shared, out, wait),
        Command::Verify { addresses } => admin::verify(shared, addresses, out, wait),
        Command::Ls(options) => listing::ls(shared, options, out, wait),
        Command::Export(options) => export::export(shared, options, wait),
        Command::Import(options) => import::import(shared, options, wait),
        Command::Storage => admin::storage(shared, out, wait),
        Command::Name { command } => name::run(shared, command, out, wait),
    }
}

/// Fetches an object.
fn get(
    shared: &Shared,
    options: &Get,
    out: &mut dyn Write,
    wait: &mut dyn FnMut(&ClientError, Duration),
) -> Result<(), ClientError> {
    #[derive(Serialize)]
    struct Got<'a> {
        addr: &'a Address,
        name: &'a str,
        size: u64,
        verified: bool,
    }
    let named = options.output.as_deref().filter(|path| path.as_os_str() != "-");
    let (None, true) = (named, shared.json || options.go_on) else {
        let (verified, size) = fetch(shared, options, wait)?;
        if !verified && !shared.quiet {
            eprintln!("ronctl: range not verified by the client");
        }
        return match named {
            Some(path) if shared.json => {
                let name = &*path.to_string_lossy();
                print_json(out, &Got { addr: &options.address, name, size, verified })
            }
            _ => Ok(()),
        };
    };
    let reason = "--json and --continue need -o FILE: stdout has the object without".to_owned();
    Err(ClientError::Arguments { reason })
}

/// Fetches an object; returns whether it was verified, and how many bytes of it are there.
fn fetch(
    shared: &Shared,
    options: &Get,
    wait: &mut dyn FnMut(&ClientError, Duration),
) -> Result<(bool, u64), ClientError> {
    let (address, quiet) = (options.address, shared.quiet);
    let origin = Origin::from_args(shared, options.oap.as_ref(), options.name.as_deref())?;
    let fetcher = origin.fetcher();
    let Some(target) = options.output.as_deref().filter(|_| options.go_on) else {
        let mut download = Download::new(address, options.output.as_deref(), quiet);
        let range = options.range.as_ref();
        let verified = with_retries(wait, || fetcher.get(&address, range, &mut download))?;
        return Ok((verified, download.there()));
    };
    let mut anew = false;
    loop {
        let kept = Kept::open(target, anew, quiet)?;
        let range = kept.range();
        let mut download = Download::go_on(address, kept, target, quiet);
        let got = with_retries(wait, || fetcher.get(&address, range.as_ref(), &mut download));
        match got {
            // What was kept is longer than the object: it is of another one.
            Err(ClientError::Node { status: 416, .. }) if !anew && range.is_some() => anew = true,
            got => return got.map(|verified| (verified, download.there())),
        }
    }
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
    if json {
        return print_json(out, &Stat { addr: address, size });
    }
    print(out, format_args!("{address} {size}"))
}
