//! The index: which objects there are, and where their bytes lie.
//!
//! The segments are the truth; this is a memory of them that can be made again. What was committed
//! since the last checkpoint lies in a table in memory, everything older in LMDB. A checkpoint
//! carries the table over, with the log position it reaches to, in one transaction on a thread
//! that may block. While it runs, the table it carries is frozen and a new one takes the changes:
//!
//! ```text
//!   get ──► active ──► frozen (a checkpoint runs) ──► LMDB
//! ```
//!
//! This room knows nothing of files of data: it believes the log, and the log's readers check it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Bound::{self, Unbounded},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls, types::Bytes};
use ron_codec::{
    address::Address,
    limits::RECORD_HEADER_LEN,
    record::{RecordError, RecordHeader},
};
use ron_io::ports::Job;
use thiserror::Error;

use crate::limits;

#[cfg(feature = "bench")]
pub mod bench;
mod view;

pub use view::View;

/// Layout of keys and values; another one is wiped and made again.
const INDEX_VERSION: u32 = 2;

/// Keys that are no object's, which are 32 bytes long: what the checkpoint says about itself, the
/// scrub's mark, and with a segment's number behind it what is known about that segment.
const META_KEY: &[u8] = b"meta";
const MARK_KEY: &[u8] = b"mark";
const SEGMENT_KEY: &[u8] = b"segment";

const META_LEN: usize = 48;
const ENTRY_LEN: usize = 24;
const TALLY_LEN: usize = 16;

/// Set in the number of the segment of an entry whose object has a file of its own.
const FILE_BIT: u32 = 1 << 31;

/// LMDB writes pages of 4 KiB, the first two of which say what is in the others.
const LMDB_PAGE_LEN: u64 = 4096;

/// A place in the log of a partition: everything before it is known. Segment 0 is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub segment: u32,
    pub offset: u64,
}

/// Where an object's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Segment {
        segment: u32,
        offset: u32,
    },
    /// In a file of its own. Its record in the log is in `segment`; 0: there is none.
    File {
        segment: u32,
    },
}

/// What counts in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Bytes of the records that an entry points to.
    pub(super) live: u64,
    /// Tombstones, whether they are still needed or not.
    pub(super) tombstones: u64,
}

/// What the index knows about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub location: Location,
    /// Bytes of the object.
    pub size: u64,
    /// Of its record in the log.
    pub sequence: u64,
}

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The log is known up to here.
    pub(super) position: Position,
    /// Highest sequence before the position.
    pub(super) sequence: u64,
    pub(super) totals: Totals,
}

/// What there is of all objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) objects: u64,
    /// Bytes of the objects themselves.
    pub(super) object_bytes: u64,
    /// Bytes of the files of those that have their own.
    pub(super) file_bytes: u64,
}

/// Why the index did not answer.
#[derive(Debug, Error)]
pub enum IndexError {
    #[error("index: {0}")]
    Lmdb(#[from] heed::Error),
    #[error("index entry of {len} bytes")]
    Entry { len: usize },
}

type Table = BTreeMap<Address, Option<Entry>>;

/// An index that was opened and not yet read.
#[derive(Debug)]
pub(super) struct Opened {
    store: Lmdb,
    /// `None`: nothing is known, the log must be read from its start.
    pub(super) meta: Option<Meta>,
    tallies: BTreeMap<u32, Tally>,
    mark: Vec<u8>,
    /// Why what was there had to be wiped.
    pub(super) wiped: Option<String>,
}

/// Where a job on another thread leaves what it opened.
pub(super) type Slot = Arc<Mutex<Option<Opened>>>;

#[derive(Clone, Debug)]
struct Lmdb {
    env: Env<WithoutTls>,
    entries: Database<'static, Bytes, Bytes>,
}

/// The index of one partition.
#[derive(Debug)]
pub(super) struct Index {
    store: Lmdb,
    active: Table,
    /// What a running checkpoint carries over.
    frozen: Option<Arc<Changes>>,
    totals: Totals,
    /// What counts in each segment, and which of them changed since the last checkpoint.
    tallies: BTreeMap<u32, Tally>,
    changed: BTreeSet<u32>,
    /// Sum of what is live in all segments.
    live: u64,
    mark: Vec<u8>,
}

/// What one checkpoint carries over.
#[derive(Debug)]
struct Changes {
    table: Table,
    /// `None`: the segment is gone.
    tallies: Vec<(u32, Option<Tally>)>,
    mark: Vec<u8>,
    meta: Option<Meta>,
}

impl Entry {
    /// The header that the object's record must have.
    ///
    /// # Errors
    /// `Size` if no record of the place can be that long: the entry is damaged.
    pub(super) fn header(&self, address: &Address) -> Result<RecordHeader, RecordError> {
        match self.location {
            Location::Segment { .. } => {
                RecordHeader::for_segment(*address, self.size, self.sequence)
            }
            Location::File { .. } => RecordHeader::for_file(*address, self.size, self.sequence),
        }
    }

    /// The segment that holds the entry's record in the log, 0 for none, and that record's length.
    fn in_log(&self) -> (u32, u64) {
        let unit = Address::from_bytes([0; 32]);
        match self.location {
            Location::Segment { segment, .. } => {
                (segment, self.header(&unit).map_or(0, |header| header.record_len()))
            }
            Location::File { segment } => (segment, RECORD_HEADER_LEN as u64),
        }
    }

    /// Bytes of the object's own file, if it has one.
    pub(super) fn file_len(&self) -> u64 {
        let unit = Address::from_bytes([0; 32]);
        match self.location {
            Location::Segment { .. } => 0,
            Location::File { .. } => self.header(&unit).map_or(0, |header| header.record_len()),
        }
    }

    /// Where the record starts in its file.
    pub(super) fn base(&self) -> u64 {
        match self.location {
            Location::Segment { offset, .. } => u64::from(offset),
            Location::File { .. } => 0,
        }
    }

    fn encode(&self) -> [u8; ENTRY_LEN] {
        let (segment, offset) = match self.location {
            Location::Segment { segment, offset } => (segment, offset),
            Location::File { segment } => (FILE_BIT | segment, 0),
        };
        let mut bytes = [0; ENTRY_LEN];
        bytes[0..4].copy_from_slice(&segment.to_le_bytes());
        bytes[4..8].copy_from_slice(&offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Entry, IndexError> {
        let bytes: &[u8; ENTRY_LEN] =
            bytes.try_into().map_err(|_| IndexError::Entry { len: bytes.len() })?;
        let segment = u32::from_le_bytes(array(bytes, 0));
        let offset = u32::from_le_bytes(array(bytes, 4));
        let location = match segment & FILE_BIT {
            0 => Location::Segment { segment, offset },
            _ => Location::File { segment: segment & !FILE_BIT },
        };
        let (size, sequence) = (array(bytes, 8), array(bytes, 16));
        let (size, sequence) = (u64::from_le_bytes(size), u64::from_le_bytes(sequence));
        Ok(Entry { location, size, sequence })
    }
}

impl Meta {
    fn encode(&self) -> [u8; META_LEN] {
        let mut bytes = [0; META_LEN];
        bytes[0..4].copy_from_slice(&INDEX_VERSION.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.position.segment.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.totals.objects.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.totals.object_bytes.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.totals.file_bytes.to_le_bytes());
        bytes
    }

    /// `None` for another version.
    fn decode(bytes: &[u8]) -> Option<Meta> {
        let bytes: &[u8; META_LEN] = bytes.try_into().ok()?;
        let position = Position {
            segment: u32::from_le_bytes(array(bytes, 4)),
            offset: u64::from_le_bytes(array(bytes, 8)),
        };
        let meta = Meta {
            position,
            sequence: u64::from_le_bytes(array(bytes, 16)),
            totals: Totals {
                objects: u64::from_le_bytes(array(bytes, 24)),
                object_bytes: u64::from_le_bytes(array(bytes, 32)),
                file_bytes: u64::from_le_bytes(array(bytes, 40)),
            },
        };
        (u32::from_le_bytes(array(bytes, 0)) == INDEX_VERSION).then_some(meta)
    }
}

impl Tally {
    fn encode(self) -> [u8; TALLY_LEN] {
        let mut bytes = [0; TALLY_LEN];
        bytes[0..8].copy_from_slice(&self.live.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tombstones.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Tally> {
        let bytes: &[u8; TALLY_LEN] = bytes.try_into().ok()?;
        let live = u64::from_le_bytes(array(bytes, 0));
        Some(Tally { live, tombstones: u64::from_le_bytes(array(bytes, 8)) })
    }
}

impl Index {
    pub(super) fn new(opened: Opened) -> Index {
        Index {
            store: opened.store,
            active: Table::new(),
            frozen: None,
            totals: opened.meta.unwrap_or_default().totals,
            live: opened.tallies.values().map(|tally| tally.live).sum(),
            tallies: opened.tallies,
            changed: BTreeSet::new(),
            mark: opened.mark,
        }
    }

    /// What is known about an object, if it is there.
    ///
    /// # Errors
    /// What LMDB answered.
    pub(super) fn get(&self, address: &Address) -> Result<Option<Entry>, IndexError> {
        let frozen = || self.frozen.as_ref().and_then(|changes| changes.table.get(address));
        if let Some(known) = self.active.get(address).or_else(frozen) {
            return Ok(*known);
        }
        let txn = self.store.env.read_txn()?;
        self.store.entries.get(&txn, address.as_bytes())?.map(Entry::decode).transpose()
    }

    /// Up to `max` entries behind `after`, in the order of their addresses. Fewer only at the end.
    ///
    /// # Errors
    /// What LMDB answered.
    pub(super) fn page(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<(Address, Entry)>, IndexError> {
        let mut page = Vec::with_capacity(max);
        let mut start = after.map_or(Unbounded, |address| Bound::Excluded(*address));
        loop {
            let changed = self.changed_from(start, max);
            self.merge((start, changed.1), changed.0, max, &mut page)?;
            match changed.1 {
                Some(end) if page.len() < max => start = Bound::Included(end),
                _ => return Ok(page),
            }
        }
    }

    /// The first changes from `start` on, and where they end if there are more: of either table no
    /// more than `max` are looked at.
    fn changed_from(&self, start: Bound<Address>, max: usize) -> (Table, Option<Address>) {
        let tables = [Some(&self.active), self.frozen.as_ref().map(|changes| &changes.table)];
        let mut changed = Table::new();
        let mut end: Option<Address> = None;
        // The newest change of an address decides.
        for table in tables.into_iter().flatten() {
            let mut changes = table.range((start, Unbounded));
            for (address, change) in changes.by_ref().take(max) {
                changed.entry(*address).or_insert(*change);
            }
            let next = changes.next().map(|(address, _)| *address);
            end = [end, next].into_iter().flatten().min();
        }
        if let Some(end) = end {
            drop(changed.split_off(&end));
        }
        (changed, end)
    }

    /// Adds what is stored in a range to the page, with the changes in it, up to `max` in all.
    fn merge(
        &self,
        (start, end): (Bound<Address>, Option<Address>),
        changed: Table,
        max: usize,
        page: &mut Vec<(Address, Entry)>,
    ) -> Result<(), IndexError> {
        let txn = self.store.env.read_txn()?;
        let range = (start.as_ref().map(|start| &start.as_bytes()[..]), Unbounded);
        let mut stored = self.store.entries.range(&txn, &range)?.filter_map(|pair| match pair {
            // Other keys are no object's.
            Ok((key, value)) => <[u8; 32]>::try_from(key)
                .ok()
                .map(|key| Entry::decode(value).map(|entry| (Address::from_bytes(key), entry))),
            Err(error) => Some(Err(error.into())),
        });
        let mut changed = changed.into_iter().peekable();
        let mut old = stored.next().transpose()?;
        while page.len() < max {
            old = old.filter(|(address, _)| end.is_none_or(|end| *address < end));
            let next_change = changed.peek().map(|(address, _)| *address);
            match (next_change, old) {
                (None, None) => break,
                (Some(new), Some((address, _))) if address < new => page.extend(old),
                (None, Some(_)) => page.extend(old),
                (Some(new), _) => {
                    let change =
                        changed.next().and_then(|(address, entry)| Some((address, entry?)));
                    page.extend(change);
                    if old.is_none_or(|(address, _)| address > new) {
                        continue;
                    }
                }
            }
            old = stored.next().transpose()?;
        }
        Ok(())
    }

    /// The object is there now. This always succeeds, because what is durable must get into the
    /// next checkpoint; if LMDB cannot be read, only the counts may become wrong.
    pub(super) fn insert(&mut self, address: Address, entry: Entry) {
        self.uncount(&address);
        self.active.insert(address, Some(entry));
        self.totals.objects += 1;
        self.totals.object_bytes += entry.size;
        self.totals.file_bytes += entry.file_len();
        let (segment, len) = entry.in_log();
        self.tally(segment, |tally| tally.live += len);
    }

    /// The object is no longer there.
    pub(super) fn remove(&mut self, address: Address) {
        self.uncount(&address);
        self.active.insert(address, None);
    }

    /// A tombstone is in a segment now.
    pub(super) fn bury(&mut self, segment: u32) {
        self.tally(segment, |tally| tally.tombstones += 1);
    }

    /// A segment is gone, with all that was in it.
    pub(super) fn forget_segment(&mut self, segment: u32) {
        self.live -= self.tallies.remove(&segment).map_or(0, |tally| tally.live);
        self.changed.insert(segment);
    }

    /// What counts in a segment.
    pub(super) fn tally_of(&self, segment: u32) -> Tally {
        self.tallies.get(&segment).copied().unwrap_or_default()
    }

    /// Bytes of all records in segments that count.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// What the scrub left here last; empty before the first time.
    pub(super) fn mark(&self) -> &[u8] {
        &self.mark
    }

    /// Leaves something to be found after a restart, once the next checkpoint took it up.
    pub(super) fn set_mark(&mut self, mark: Vec<u8>) {
        self.mark = mark;
    }

    /// Changes that no checkpoint has taken up.
    pub(super) fn changes(&self) -> usize {
        self.active.len()
    }

    /// Whether a checkpoint runs.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes the changes and returns the job that carries them over. With a log position the
    /// checkpoint is complete; without, a rebuild goes on and is begun anew after a crash.
    ///
    /// # Panics
    /// If a checkpoint runs.
    pub(super) fn checkpoint(&mut self, reached: Option<(Position, u64)>) -> Job {
        assert!(self.frozen.is_none(), "one checkpoint at a time");
        let totals = self.totals;
        let tallies = std::mem::take(&mut self.changed).into_iter();
        let changes = Arc::new(Changes {
            table: std::mem::take(&mut self.active),
            tallies: tallies
                .map(|segment| (segment, self.tallies.get(&segment).copied()))
                .collect(),
            mark: self.mark.clone(),
            meta: reached.map(|(position, sequence)| Meta { position, sequence, totals }),
        });
        self.frozen = Some(Arc::clone(&changes));
        let store = self.store.clone();
        Box::new(move || store.write(&changes).map_err(|error| error.to_string()))
    }

    /// The checkpoint is durable, or failed: then its changes wait for the next.
    pub(super) fn checkpointed(&mut self, durable: bool) {
        let frozen = self.frozen.take().expect("a checkpoint was running");
        if !durable {
            for (address, change) in &frozen.table {
                self.active.entry(*address).or_insert(*change);
            }
            self.changed.extend(frozen.tallies.iter().map(|(segment, _)| segment));
        }
    }

    /// Takes what is known about an object out of the counts.
    fn uncount(&mut self, address: &Address) {
        let Some(before) = self.get(address).ok().flatten() else { return };
        let totals = &mut self.totals;
        totals.objects = totals.objects.saturating_sub(1);
        totals.object_bytes = totals.object_bytes.saturating_sub(before.size);
        totals.file_bytes = totals.file_bytes.saturating_sub(before.file_len());
        let (segment, len) = before.in_log();
        self.tally(segment, |tally| tally.live = tally.live.saturating_sub(len));
    }

    fn tally(&mut self, segment: u32, change: impl FnOnce(&mut Tally)) {
        if segment > 0 {
            let tally = self.tallies.entry(segment).or_default();
            let before = tally.live;
            change(tally);
            self.live = self.live + tally.live - before;
            self.changed.insert(segment);
        }
    }
}

impl Lmdb {
    fn write(&self, changes: &Changes) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        for (address, change) in &changes.table {
            match change {
                Some(entry) => {
                    self.entries.put(&mut txn, address.as_bytes(), &entry.encode())?;
                }
                None => drop(self.entries.delete(&mut txn, address.as_bytes())?),
            }
        }
        for (segment, tally) in &changes.tallies {
            let key = segment_key(*segment);
            match tally {
                Some(tally) => self.entries.put(&mut txn, &key, &tally.encode())?,
                None => drop(self.entries.delete(&mut txn, &key)?),
            }
        }
        self.entries.put(&mut txn, MARK_KEY, &changes.mark)?;
        if let Some(meta) = &changes.meta {
            self.entries.put(&mut txn, META_KEY, &meta.encode())?;
        }
        txn.commit()
    }

    /// All that is known beside the objects; `meta` is `None` if the index is of no use.
    fn open(self) -> heed::Result<Opened> {
        let txn = self.env.read_txn()?;
        let meta = self.entries.get(&txn, META_KEY)?.and_then(Meta::decode);
        let mark = self.entries.get(&txn, MARK_KEY)?.unwrap_or_default().to_vec();
        let mut tallies = BTreeMap::new();
        for pair in self.entries.prefix_iter(&txn, SEGMENT_KEY)? {
            let (key, value) = pair?;
            let number = key.get(SEGMENT_KEY.len()..).and_then(|number| number.try_into().ok());
            // An object's key may begin so too, but is longer.
            if let (Some(number), Some(tally)) = (number, Tally::decode(value)) {
                tallies.insert(u32::from_be_bytes(number), tally);
            }
        }
        drop(txn);
        Ok(Opened { store: self, meta, tallies, mark, wiped: None })
    }

    fn is_empty(&self) -> heed::Result<bool> {
        let txn = self.env.read_txn()?;
        self.entries.is_empty(&txn)
    }
}

fn segment_key(segment: u32) -> [u8; SEGMENT_KEY.len() + 4] {
    let mut key = [0; SEGMENT_KEY.len() + 4];
    key[..SEGMENT_KEY.len()].copy_from_slice(SEGMENT_KEY);
    key[SEGMENT_KEY.len()..].copy_from_slice(&segment.to_be_bytes());
    key
}

/// The job that opens the index in `dir` and leaves it in `slot`. With `wipe`, and when what is
/// there is damaged or incomplete, an empty one is made in its place.
pub(super) fn open_job(dir: PathBuf, wipe: Option<String>, slot: Slot) -> Job {
    Box::new(move || {
        let opened = open(&dir, wipe).map_err(|error| format!("{}: {error}", dir.display()))?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(())
    })
}

fn open(dir: &Path, wipe: Option<String>) -> Result<Opened, heed::Error> {
    let reason = match wipe {
        Some(reason) => reason,
        None => match open_there(dir) {
            Ok(opened) if opened.meta.is_some() || opened.store.is_empty()? => return Ok(opened),
            Ok(_) => "the index is incomplete".to_string(),
            Err(error) => format!("the index is damaged: {error}"),
        },
    };
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(Opened { wiped: Some(reason), ..open_there(dir)? })
}

fn open_there(dir: &Path) -> Result<Opened, heed::Error> {
    fs::create_dir_all(dir)?;
    let env = open_whole(dir, EnvFlags::empty())?;
    let txn = env.write_txn()?;
    let entries = env
        .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Lmdb { env, entries }.open()
}

/// Opens the environment in a folder that is there, unless its file was cut.
fn open_whole(dir: &Path, flags: EnvFlags) -> heed::Result<Env<WithoutTls>> {
    let data = dir.join("data.mdb");
    let len = fs::metadata(&data).map_or(0, |data| data.len());
    // LMDB trusts its file: reading a page beyond the end of a shortened one kills the process.
    if !len.is_multiple_of(LMDB_PAGE_LEN) || len == LMDB_PAGE_LEN {
        return Err(heed::Error::Mdb(heed::MdbError::Invalid));
    }
    let env = open_env(dir, flags)?;
    if len > 0 && (env.info().last_page_number as u64 + 1) * LMDB_PAGE_LEN > len {
        return Err(heed::Error::Mdb(heed::MdbError::Corrupted));
    }
    Ok(env)
}

#[allow(unsafe_code)]
fn open_env(dir: &Path, flags: EnvFlags) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(limits::INDEX_MAP_LEN);
    // SAFETY: the file is mapped, so nobody else may change it. The data directory is locked by
    // this process, the folder belongs to one partition and so to one shard, and nothing but LMDB
    // writes in it while the environment is open: it is wiped only after its last handle is gone.
    // The flags are none, or those of an environment that is only read.
    unsafe { options.flags(flags).open(dir) }
}

/// The `N` bytes from `at`, which the callers' fixed offsets keep within `bytes`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

#[cfg(test)]
mod tests;
