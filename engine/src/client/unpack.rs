//! A bundle becomes files again.
//!
//! ```text
//!   manifest ─► hashed ─► read once: spelling, order, sums ─► read again: each entry
//!                                                               │
//!      its place ◄─ hashed ◄─ its object ◄─ fetched ◄───────────┘  or it is there already
//! ```
//!
//! The manifest may have been made by anyone, and be as long as any object: it is kept in a file
//! without a name, and read a line at a time.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use ron_codec::{
    address::Address,
    limits::{GROUP_LEN, MANIFEST_HEAD_LEN_MAX, MANIFEST_LINE_LEN_MAX},
    manifest::{Entry, Head, MANIFEST_MAGIC, ManifestError, Tally, is_end},
};
use serde::Serialize;

use super::{
    args::{Shared, Unpack},
    download::{Download, Expected},
    error::ClientError,
    fetch::{Fetcher, Origin},
    jobs,
    place::{Place, Slot},
    progress::{Batch, Progress, Show},
    retry::{sleep, with_retries},
    send::Wait,
    stdout::print_json,
};

/// What was unpacked, as it is printed.
#[derive(Clone, Debug, Serialize)]
struct Unpacked {
    addr: Address,
    /// Files, and bytes of all of them.
    files: u64,
    bytes: u64,
    /// Files that were fetched.
    fetched: u64,
    fetched_bytes: u64,
    /// Files that were there.
    kept: u64,
}

/// Makes the files of a bundle.
///
/// # Errors
///
/// Those of the connection, the node, the manifest and the directory.
pub(super) fn unpack(
    shared: &Shared,
    options: &Unpack,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let addr = options.address;
    let origin = Origin::from_args(shared, options.oap.as_ref(), options.name.as_deref())?;
    let mut manifest = fetch_manifest(&addr, &origin.fetcher(), wait)?;
    let tally = check(&addr, &mut manifest)?;
    let place = Place::open(&options.dir, options.go_on)?;
    let (files, bytes) = (tally.files(), tally.bytes());
    let mut unpacked = Unpacked { addr, files, bytes, fetched: 0, fetched_bytes: 0, kept: 0 };
    unpack_files(shared, options, (&origin, &place, manifest), &mut unpacked)?;
    place.finish()?;
    if shared.json {
        return print_json(out, &unpacked);
    }
    if !shared.quiet {
        use indicatif::HumanBytes as Size;
        let Unpacked { files, bytes, fetched, fetched_bytes, kept, .. } = unpacked;
        let (bytes, got) = (Size(bytes), Size(fetched_bytes));
        eprintln!("ronctl: {files} files, {bytes}; {fetched} fetched, {got}; {kept} already there");
    }
    Ok(())
}

/// Fetches the manifest into a file without a name. What does not begin as one is not fetched.
fn fetch_manifest(
    address: &Address,
    fetcher: &Fetcher<'_>,
    wait: Wait<'_>,
) -> Result<File, ClientError> {
    let file = tempfile::tempfile().map_err(temporary)?;
    let copy = file.try_clone().map_err(temporary)?;
    let (expected, show) = (Expected::Start(MANIFEST_MAGIC), Show::Alone { quiet: true });
    let mut download = Download::into_file(*address, copy, "manifest".into(), expected, show);
    with_retries(wait, || fetcher.get(address, None, &mut download))?;
    Ok(file)
}

fn temporary(source: io::Error) -> ClientError {
    ClientError::Standard { name: "temporary file", source }
}

/// Reads all of a manifest, and sees that it keeps the rules.
fn check(address: &Address, manifest: &mut File) -> Result<Tally, ClientError> {
    let broken = |source| ClientError::Manifest { address: *address, source };
    let (head, lines) = open(address, manifest)?;
    let mut tally = Tally::default();
    for entry in lines {
        tally.add(&entry?).map_err(broken)?;
    }
    tally.check(&head).map_err(broken)?;
    Ok(tally)
}

/// The head of a manifest, and its entries to come.
fn open<'a>(address: &Address, mut file: &'a File) -> Result<(Head, Lines<&'a File>), ClientError> {
    file.rewind().map_err(temporary)?;
    let mut start = Vec::new();
    file.take(MANIFEST_HEAD_LEN_MAX as u64).read_to_end(&mut start).map_err(temporary)?;
    let (head, len) = Head::parse(&start)
        .map_err(|source| ClientError::Manifest { address: *address, source })?;
    file.seek(SeekFrom::Start(len as u64)).map_err(temporary)?;
    Ok((head, Lines::new(*address, file)))
}

/// The entries of a manifest. Nothing follows an error.
struct Lines<R> {
    address: Address,
    reader: BufReader<R>,
    line: Vec<u8>,
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn new(address: Address, reader: R) -> Self {
        let reader = BufReader::with_capacity(GROUP_LEN, reader);
        Self { address, reader, line: Vec::new(), ended: false }
    }

    fn read(&mut self) -> Result<Option<Entry>, ClientError> {
        let broken = |source| ClientError::Manifest { address: self.address, source };
        self.line.clear();
        let mut limited = (&mut self.reader).take(MANIFEST_LINE_LEN_MAX as u64 + 1);
        limited.read_until(b'\n', &mut self.line).map_err(temporary)?;
        if !is_end(&self.line) {
            return Entry::parse(&self.line).map(Some).map_err(broken);
        }
        match self.reader.fill_buf().map_err(temporary)? {
            [] => Ok(None),
            _ => Err(broken(ManifestError::Line { max: MANIFEST_LINE_LEN_MAX })),
        }
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<Entry, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read();
        self.ended = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

/// Whether a file was fetched, and its length.
type Outcome = Result<(bool, u64), ClientError>;

fn unpack_files(
    shared: &Shared,
    options: &Unpack,
    (origin, place, manifest): (&Origin<'_>, &Place, File),
    unpacked: &mut Unpacked,
) -> Result<(), ClientError> {
    let (_, lines) = open(&options.address, &manifest)?;
    let (batch, number) = (Batch::default(), AtomicU64::new(0));
    let mut progress = Progress::new("unpacking", Some(unpacked.bytes), shared.quiet);
    jobs::run(
        options.jobs.0,
        lines,
        (&batch, &mut progress),
        || (origin.fetcher(), sleep(shared.quiet)),
        |(fetcher, wait), entry| {
            let entry = entry?;
            let number = number.fetch_add(1, Ordering::Relaxed);
            unpack_entry(place, fetcher, (&entry, number), &batch, wait)
                .map_err(|error| error.about(&place.shown(&entry.path)))
        },
        |outcome: Outcome| {
            let (is_fetched, len) = outcome?;
            if is_fetched {
                unpacked.fetched += 1;
                unpacked.fetched_bytes += len;
            } else {
                unpacked.kept += 1;
            }
            Ok(())
        },
    )
}

fn unpack_entry(
    place: &Place,
    fetcher: &Fetcher<'_>,
    (entry, number): (&Entry, u64),
    batch: &Batch,
    wait: Wait<'_>,
) -> Outcome {
    let stored = entry.content.identity;
    let known = (&stored.address, stored.bytes);
    // What is there and wrong is fetched, and would count twice.
    let Some(slot) = place.slot(&entry.path, known, batch.aside().part())? else {
        batch.add(stored.bytes);
        return Ok((false, stored.bytes));
    };
    let fetched = fetch(&slot, fetcher, (entry, number), batch, wait);
    if fetched.is_err() {
        slot.give_up(number);
    }
    fetched.map(|()| (true, stored.bytes))
}

fn fetch(
    slot: &Slot<'_>,
    fetcher: &Fetcher<'_>,
    (entry, number): (&Entry, u64),
    batch: &Batch,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let stored = entry.content.identity;
    let (file, expected) = (slot.begin(number)?, Expected::Len(stored.bytes));
    let (shown, show) = (slot.shown(), Show::Part(batch.clone()));
    let mut download = Download::into_file(stored.address, file, shown, expected, show);
    with_retries(wait, || fetcher.get(&stored.address, None, &mut download))?;
    slot.finish(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Vec<u8> {
        let stored = ron_codec::manifest::Stored { address: Address::of(b"x"), bytes: 1 };
        let mime = "text/plain".to_owned();
        let content = ron_codec::manifest::Content { identity: stored, mime, br: None, zstd: None };
        let mut line = Vec::new();
        Entry { path: path.to_owned(), content }.write(&mut line).unwrap();
        line
    }

    fn checked(head: &Head, lines: &[&[u8]]) -> Result<Tally, ClientError> {
        let mut text = Vec::new();
        head.write(&mut text).unwrap();
        text.extend(lines.concat());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&text).unwrap();
        check(&Address::of(&text), &mut file)
    }

    #[test]
    fn a_manifest_is_read_to_its_end_before_anything_is_made_of_it() {
        let (a, b, end) = (entry("a"), entry("b/c"), b"]\n".as_slice());
        let head = Head { files: 2, bytes: 2, ..Head::default() };
        let tally = checked(&head, &[&a, &b, end]).unwrap();
        assert_eq!((tally.files(), tally.bytes()), (2, 2));
        checked(&Head::default(), &[end]).unwrap();
        let long = vec![b' '; 2 * MANIFEST_LINE_LEN_MAX];
        for (lines, why) in [
            (&[&a[..], end][..], "the head says 2 files"),
            (&[&b, &a, end], "does not come after"),
            (&[&a, &a, end], "does not come after"),
            (&[&a, &b], "not spelled as an entry"),
            (&[&a, &b, end, &a], "not spelled as an entry"),
            (&[&a, &b, end, b" "], "not spelled as an entry"),
            (&[&a, &long, end], "not spelled as an entry"),
            (&[&a[..a.len() - 1]], "not spelled as an entry"),
        ] {
            let error = checked(&head, lines).unwrap_err();
            assert!(matches!(error, ClientError::Manifest { .. }));
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
