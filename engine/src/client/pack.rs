//! A directory or a file becomes a bundle.
//!
//! ```text
//!   walk ─► sorted files ─► each: hash ─► ask, send ─► copies: encode ─► ask, send ─► entry
//!                                                                                      │
//!   the bundle's address ◄─ ask, send ◄─ manifest, in the order of the paths ◄─────────┘
//! ```
//!
//! The manifest is sent last: what it lists is stored by then. No file is held in memory; copies
//! and the manifest are made in files without a name, which the end of the process removes.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use ron_codec::{
    address::Address,
    limits::GROUP_LEN,
    manifest::{Content, Entry, Head, Payment, Stored, write_end},
};
use serde::Serialize;

use super::{
    args::{Encodings, Pack, PaymentTerms, Shared},
    copies::{Coding, ORIGINAL_LEN_MIN, Original, encode},
    error::{ClientError, TreeFault},
    http::{Contact, Http},
    jobs,
    media::{Utf8, media_type, shrinks},
    progress::{Batch, Progress, Show},
    retry::sleep,
    send::{Hashed, Sent, Wait, ask_and_send},
    source::{Stamp, hash_and, hash_file},
    stdout::{print, print_json},
    tree::{Found, Tree, Walked},
};

/// What was packed, as it is printed.
#[derive(Clone, Debug, Default, Serialize)]
struct Packed {
    #[serde(skip_serializing_if = "Option::is_none")]
    addr: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tld: Option<String>,
    /// Files, and bytes of all of them.
    files: u64,
    bytes: u64,
    /// Encoded copies, and bytes of all of them.
    copies: u64,
    copy_bytes: u64,
    /// Objects that were sent: files, copies, and the manifest.
    sent: u64,
    sent_bytes: u64,
    /// Objects that the node had.
    there: u64,
}

impl Packed {
    fn count(&mut self, sent: Option<Sent>, bytes: u64) {
        match sent {
            Some(Sent::Whole) => {
                self.sent += 1;
                self.sent_bytes += bytes;
            }
            Some(Sent::Nothing) => self.there += 1,
            // Nobody was asked.
            None => {}
        }
    }
}

/// Packs what the options name, and prints the address of the bundle.
///
/// # Errors
///
/// Those of the files, the connection and the node. Nothing is sent when something in the tree
/// cannot be packed.
pub(super) fn pack(
    shared: &Shared,
    options: &Pack,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let mut head = Head {
        tld: options.tld.as_ref().map(|tld| tld.0.clone()),
        license: options.license.clone(),
        payment: payment(&options.payment),
        ..Head::default()
    };
    // What cannot stand there is said before anything is read.
    write_head(&head, &mut Vec::new())?;
    let tree = Tree::open(&options.path, options.follow_links)?;
    let walked = tree.walk();
    check_faults(&walked)?;
    let contact = match options.dry_run {
        false => Some(Contact::from_args(shared, &shared.node)?),
        true => None,
    };
    let mut packed = Packed { tld: head.tld.clone(), ..Packed::default() };
    let entries = pack_files(shared, options, (&tree, &walked), contact.as_ref(), &mut packed)?;
    (head.files, head.bytes) = (packed.files, packed.bytes);
    let http = contact.map(|contact| contact.http());
    let address = send_manifest(http.as_ref(), &head, &entries, &mut packed, wait)?;
    packed.addr = Some(address);
    if shared.json {
        return print_json(out, &packed);
    }
    if !shared.quiet {
        say(&packed);
    }
    match &head.tld {
        Some(tld) => print(out, format_args!("{address}.{tld}")),
        None => print(out, format_args!("{address}")),
    }
}

fn payment(terms: &PaymentTerms) -> Option<Payment> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    (*terms != PaymentTerms::default()).then(|| Payment {
        required: terms.required,
        currency: text(&terms.currency),
        price_model: text(&terms.price_model),
        price: text(&terms.price),
        wallet: text(&terms.wallet),
    })
}

fn write_head(head: &Head, out: &mut Vec<u8>) -> Result<(), ClientError> {
    head.write(out).map_err(|error| ClientError::Arguments { reason: error.to_string() })
}

fn check_faults(walked: &Walked) -> Result<(), ClientError> {
    let failed = walked.faults_len;
    if failed == 0 {
        return Ok(());
    }
    for fault in &walked.faults {
        eprintln!("ronctl: {fault}");
    }
    Err(ClientError::TreeFaults { failed })
}

/// One line on stderr.
fn say(packed: &Packed) {
    use indicatif::HumanBytes as Size;
    let Packed { files, bytes, copies, copy_bytes, sent, sent_bytes, there, .. } = packed;
    eprintln!(
        "ronctl: {files} files, {}; {copies} encoded copies, {}; {sent} objects sent, {}; {there} \
         already there",
        Size(*bytes),
        Size(*copy_bytes),
        Size(*sent_bytes)
    );
}

/// Stores all files and their copies; returns their entries, in the order of their paths.
fn pack_files(
    shared: &Shared,
    options: &Pack,
    (tree, walked): (&Tree, &Walked),
    contact: Option<&Contact<'_>>,
    packed: &mut Packed,
) -> Result<Vec<Entry>, ClientError> {
    let batch = Batch::default();
    // Each byte is hashed and sent.
    let mut progress = Progress::new("packing", Some(2 * walked.bytes()), shared.quiet);
    let mut entries = vec![None; walked.files.len()];
    let begin = || Packer {
        tree,
        http: contact.map(Contact::http),
        encodings: options.encodings,
        scratch: None,
        batch: &batch,
        quiet: shared.quiet,
    };
    jobs::run(
        options.jobs.0,
        walked.files.iter().enumerate(),
        (&batch, &mut progress),
        begin,
        |packer, (at, found)| (at, packer.pack(found)),
        |(at, outcome)| {
            let (entry, objects) =
                outcome.map_err(|error| error.about(&tree.shown(&walked.files[at].path)))?;
            for (index, (sent, bytes)) in objects.into_iter().enumerate() {
                packed.count(sent, bytes);
                if index > 0 {
                    packed.copies += 1;
                    packed.copy_bytes += bytes;
                }
            }
            packed.files += 1;
            packed.bytes += entry.content.identity.bytes;
            entries[at] = Some(entry);
            Ok(())
        },
    )?;
    // Every one is there: an outcome that was missing would have been an error.
    Ok(entries.into_iter().flatten().collect())
}

/// An object of a file: whether it was sent, if anybody was asked, and its length.
type Object = (Option<Sent>, u64);

/// What a thread packs with.
struct Packer<'a> {
    tree: &'a Tree,
    /// Nobody on a dry run.
    http: Option<Http>,
    encodings: Encodings,
    /// Copies are made here, one after the other.
    scratch: Option<File>,
    batch: &'a Batch,
    quiet: bool,
}

impl Packer<'_> {
    /// Stores a file and its copies. The objects begin with the file itself.
    fn pack(&mut self, found: &Found) -> Result<(Entry, Vec<Object>), ClientError> {
        let file = self.tree.open_file(found)?;
        let path = &*self.tree.shown(&found.path);
        let stamp = || Stamp::of(&file).map_err(|error| ClientError::file(path, error));
        let before = stamp()?;
        let (len, mut utf8) = (before.len(), Utf8::default());
        let address = hash_and(&file, path, len, self.batch.part(), &mut |bytes| {
            utf8.update(bytes);
            Ok(())
        })?;
        if stamp()? != before {
            return Err(ClientError::Changed { path: path.to_path_buf() });
        }
        let mime = media_type(&found.path, utf8.is_whole());
        let hashed = Hashed { file: &file, path, len, address };
        let mut objects = vec![(self.send(hashed, &Show::Part(self.batch.clone()))?, len)];
        let (mut br, mut zstd) = (None, None);
        if len >= ORIGINAL_LEN_MIN && shrinks(&mime) {
            let original = Original { file: &file, path, len, address };
            if self.encodings.br {
                br = self.copy(Coding::Br, original, &mut objects)?;
            }
            if self.encodings.zstd {
                zstd = self.copy(Coding::Zstd, original, &mut objects)?;
            }
        }
        let identity = Stored { address, bytes: len };
        let content = Content { identity, mime, br, zstd };
        Ok((Entry { path: found.path.clone(), content }, objects))
    }

    /// Makes a copy of a file, and stores it, if it is worth it.
    fn copy(
        &mut self,
        coding: Coding,
        original: Original<'_>,
        objects: &mut Vec<Object>,
    ) -> Result<Option<Stored>, ClientError> {
        let mut scratch = self.scratch.take().map_or_else(temporary, Ok)?;
        // Its bytes were counted already; only an end of the batch concerns it.
        let aside = self.batch.aside();
        let copy = encode(coding, original, &mut scratch, aside.part())?;
        if let Some(Stored { address, bytes }) = copy {
            let hashed = Hashed { file: &scratch, path: original.path, len: bytes, address };
            objects.push((self.send(hashed, &Show::Part(aside))?, bytes));
        }
        self.scratch = Some(scratch);
        Ok(copy)
    }

    fn send(&self, hashed: Hashed<'_>, show: &Show) -> Result<Option<Sent>, ClientError> {
        let Some(http) = &self.http else {
            show.skip(hashed.len);
            return Ok(None);
        };
        ask_and_send(http, hashed, show, &mut sleep(self.quiet)).map(Some)
    }
}

/// A file without a name, in the folder for such.
fn temporary() -> Result<File, ClientError> {
    tempfile::tempfile().map_err(|source| ClientError::Standard { name: "temporary file", source })
}

/// Writes the manifest, and stores it; returns its address.
fn send_manifest(
    http: Option<&Http>,
    head: &Head,
    entries: &[Entry],
    packed: &mut Packed,
    wait: Wait<'_>,
) -> Result<Address, ClientError> {
    let failed = |source| ClientError::Standard { name: "temporary file", source };
    let mut line = Vec::new();
    write_head(head, &mut line)?;
    let mut writer = BufWriter::with_capacity(GROUP_LEN, temporary()?);
    let mut len = 0;
    let mut put = |line: &mut Vec<u8>| {
        len += line.len() as u64;
        writer.write_all(line).map(|()| line.clear()).map_err(failed)
    };
    put(&mut line)?;
    for entry in entries {
        entry.write(&mut line).map_err(|error| ClientError::Tree {
            path: Path::new(&entry.path).to_path_buf(),
            why: TreeFault::Entry(error),
        })?;
        put(&mut line)?;
    }
    write_end(&mut line);
    put(&mut line)?;
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    let (path, show) = (Path::new("manifest"), Show::Alone { quiet: true });
    let address = hash_file(&file, path, len, show.begin("hashing", None))?;
    if let Some(http) = http {
        let sent = ask_and_send(http, Hashed { file: &file, path, len, address }, &show, wait)?;
        packed.count(Some(sent), len);
    }
    Ok(address)
}
