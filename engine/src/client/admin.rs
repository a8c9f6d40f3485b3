//! Looking after what a node stores: delete, scrub, verify, report.
//!
//! Objects are deleted where they are served. All else is asked of the admin listener, by those
//! who may write.

use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ron_codec::address::Address;
use ron_control::{Ordered, Verdict, VerdictKind, storage::StorageReport};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    args::Shared,
    error::{AnswerFault, ClientError, Exit, Shown},
    http::Http,
    retry::{Wait, with_retries},
    stdout::{print, print_json},
    table,
};

/// How long the outcome of a verification may take: a little longer than a node waits for it.
const VERIFY_TIME_MAX: Duration = Duration::from_secs(11 * 60);

const _: () = assert!(VERIFY_TIME_MAX.as_secs() > ron_control::limits::VERIFY_MAX.as_secs());

/// Deletes objects one after the other and prints those that are gone. What fails for one object
/// is printed and does not keep the others; what fails for all of them ends the command.
pub(super) fn rm(
    shared: &Shared,
    addresses: &[Address],
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let http = Http::from_args(shared, &shared.node)?;
    let (mut failed, mut exit) = (0, Exit::NotFound);
    for address in addresses {
        match with_retries(wait, || http.delete(address)) {
            Ok(()) if shared.json => print_json(out, &json!({ "addr": address, "deleted": true }))?,
            Ok(()) => print(out, format_args!("{address}"))?,
            Err(error @ ClientError::Node { .. }) if addresses.len() > 1 => {
                eprintln!("ronctl: {address}: {error}");
                if shared.json {
                    let error = error.to_string();
                    let line = json!({ "addr": address, "deleted": false, "error": error });
                    print_json(out, &line)?;
                }
                failed += 1;
                // Anything else says more than that an object was not there.
                if exit == Exit::NotFound {
                    exit = error.exit();
                }
            }
            Err(error) => return Err(error),
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(ClientError::NotDeleted { failed, of: addresses.len(), exit }),
    }
}

/// Has every shard begin to scrub.
pub(super) fn scrub(
    shared: &Shared,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let http = Http::from_args(shared, &shared.admin)?;
    let json = with_retries(wait, || http.order("/scrub", shared.timeout.0))?;
    let Ordered { ordered } = read(&json)?;
    if shared.json {
        return print_json(out, &json!({ "ordered": ordered }));
    }
    print(out, format_args!("ordered from {ordered} shards; see ronctl storage"))
}

/// Verifies objects one after the other and prints what each is found to be.
pub(super) fn verify(
    shared: &Shared,
    addresses: &[Address],
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let http = Http::from_args(shared, &shared.admin)?;
    let patience = shared.timeout.0.max(VERIFY_TIME_MAX);
    let (mut damaged, mut missing, mut failed) = (0, 0, 0);
    for address in addresses {
        let path = format!("/verify/{address}");
        let json = with_retries(wait, || http.order(&path, patience))?;
        let verdict: Verdict = read(&json)?;
        if verdict.addr != *address {
            return Err(AnswerFault::Verdict.into());
        }
        if shared.json {
            print_json(out, &verdict)?;
        }
        let mut say = |line: std::fmt::Arguments<'_>| match shared.json {
            true => Ok(()),
            false => print(out, line),
        };
        let why = verdict.what.as_deref().unwrap_or("no reason was given");
        match verdict.outcome {
            VerdictKind::Whole => {
                let size = verdict.size.unwrap_or_default();
                say(format_args!("{address} whole {size}"))?;
            }
            VerdictKind::Missing => {
                missing += 1;
                say(format_args!("{address} missing"))?;
            }
            VerdictKind::Damaged => {
                damaged += 1;
                say(format_args!("{address} damaged: {}", Shown(why)))?;
            }
            VerdictKind::Failed => {
                failed += 1;
                say(format_args!("{address} failed: {}", Shown(why)))?;
            }
        }
    }
    match (damaged, missing, failed) {
        (0, 0, 0) => Ok(()),
        _ => Err(ClientError::NotWhole { damaged, missing, failed, of: addresses.len() }),
    }
}

/// Prints what a node stores.
pub(super) fn storage(
    shared: &Shared,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let http = Http::from_args(shared, &shared.admin)?;
    let json = with_retries(wait, || http.report("/storage"))?;
    let report: StorageReport = read(&json)?;
    if shared.json {
        // A newer node may say more than this version knows, and it is JSON: it was just read.
        return print(out, format_args!("{}", String::from_utf8_lossy(json.trim_ascii_end())));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print(out, format_args!("{}", table::storage(&report, now.as_secs())))
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(json).map_err(|_| AnswerFault::Json { len: json.len() }.into())
}
