//! Putting several files: each is stored or fails for itself.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use ron_codec::address::Address;
use serde::Serialize;

use super::{
    args::{Put, Shared},
    error::{ClientError, Exit, Name},
    http::Contact,
    jobs,
    progress::{Batch, Progress, Show},
    retry::sleep,
    send::{Wait, store},
    source::Input,
    stdout::{print, print_json},
    tree::{Found, Tree},
};

/// What is printed of a file.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A file that is to be stored.
enum Item<'a> {
    Named(&'a Path),
    Below(&'a Tree, Found),
}

impl Item<'_> {
    fn name(&self) -> PathBuf {
        match self {
            Item::Named(path) => path.to_path_buf(),
            Item::Below(tree, found) => tree.shown(&found.path),
        }
    }

    fn open(&self) -> Result<Input, ClientError> {
        match self {
            Item::Named(path) => Input::open(path),
            Item::Below(tree, found) => {
                let file = tree.open_file(found)?;
                let path = self.name();
                let found = file.metadata();
                let len = found.map_err(|error| ClientError::file(&path, error))?.len();
                Ok(Input::File { file, path, len })
            }
        }
    }
}

/// Stores files, and prints a line for each.
///
/// # Errors
///
/// `NotStored` when some were not, and what keeps all of them from being stored. Of one file alone,
/// what kept that.
pub(super) fn put(
    shared: &Shared,
    options: &Put,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    if let ([path], false) = (&options.files[..], options.recursive) {
        let http = Contact::from_args(shared, &shared.node)?.http();
        let show = Show::Alone { quiet: shared.quiet };
        let (addr, size) = store(&http, Input::open(path)?, &show, wait)?;
        if !shared.json {
            return print(out, format_args!("{addr}"));
        }
        let name = &*path.to_string_lossy();
        return print_json(out, &Line { name, addr: Some(addr), size: Some(size), error: None });
    }
    let mut trees = Vec::new();
    for path in &options.files {
        let is_tree = options.recursive && path.is_dir();
        trees.push(if is_tree { Some(Tree::open(path, false)?) } else { None });
    }
    let mut outcome = Outcome { json: shared.json, out, failed: 0, of: 0, exit: Exit::Ok };
    let (mut items, mut bytes) = (Vec::new(), 0);
    for (path, tree) in options.files.iter().zip(&trees) {
        let Some(tree) = tree else {
            items.push(Item::Named(path));
            continue;
        };
        let walked = tree.walk();
        bytes += walked.bytes();
        outcome.lost(walked.faults_len, &walked.faults);
        items.extend(walked.files.into_iter().map(|found| Item::Below(tree, found)));
    }
    store_all(shared, options, items, bytes, &mut outcome)?;
    outcome.finish()
}

fn store_all(
    shared: &Shared,
    options: &Put,
    items: Vec<Item<'_>>,
    bytes: u64,
    outcome: &mut Outcome<'_>,
) -> Result<(), ClientError> {
    let contact = Contact::from_args(shared, &shared.node)?;
    let batch = Batch::default();
    // Each byte is hashed and sent.
    let mut progress = Progress::new("storing", Some(2 * bytes), shared.quiet);
    // Outcomes come in any order, and are printed in that of the arguments.
    let (mut early, mut next) = (BTreeMap::new(), 0);
    jobs::run(
        options.jobs.0,
        items.into_iter().enumerate(),
        (&batch, &mut progress),
        || (contact.http(), Show::Part(batch.clone()), sleep(shared.quiet)),
        |(http, show, wait), (at, item)| {
            let stored = item.open().and_then(|input| store(http, input, show, wait));
            (at, item.name(), stored)
        },
        |(at, name, stored)| {
            early.insert(at, (name, stored));
            while let Some((name, stored)) = early.remove(&next) {
                next += 1;
                outcome.add(&name, stored)?;
            }
            Ok(())
        },
    )
}

/// What came of all files.
struct Outcome<'a> {
    json: bool,
    out: &'a mut dyn Write,
    failed: usize,
    of: usize,
    /// Of the first failure.
    exit: Exit,
}

impl Outcome<'_> {
    /// Prints what came of a file. A failure that has nothing to do with it ends the command.
    fn add(
        &mut self,
        name: &Path,
        stored: Result<(Address, u64), ClientError>,
    ) -> Result<(), ClientError> {
        let text = &*name.to_string_lossy();
        match stored {
            Ok((addr, size)) => {
                self.of += 1;
                if self.json {
                    let line = Line { name: text, addr: Some(addr), size: Some(size), error: None };
                    return print_json(self.out, &line);
                }
                print(self.out, format_args!("{addr} {}", Name(name)))
            }
            Err(error) if is_of_all(&error) => Err(error),
            Err(error) => {
                let error = error.about(name);
                self.lost(1, std::slice::from_ref(&error));
                if self.json {
                    let error = Some(error.to_string());
                    let line = Line { name: text, addr: None, size: None, error };
                    return print_json(self.out, &line);
                }
                Ok(())
            }
        }
    }

    /// Counts files that were not stored, and says why of those with a reason.
    fn lost(&mut self, count: usize, reasons: &[ClientError]) {
        for reason in reasons {
            eprintln!("ronctl: {reason}");
            if self.exit == Exit::Ok {
                self.exit = reason.exit();
            }
        }
        self.failed += count;
        self.of += count;
    }

    fn finish(self) -> Result<(), ClientError> {
        match self {
            Outcome { failed: 0, .. } => Ok(()),
            Outcome { failed, of, exit, .. } => Err(ClientError::NotStored { failed, of, exit }),
        }
    }
}

/// Whether the next file would fail for the same reason.
fn is_of_all(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. } | ClientError::Untrusted { .. } | ClientError::Stopped
    )
}
