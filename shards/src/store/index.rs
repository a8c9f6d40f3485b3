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
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, RwTxn, WithoutTls, types::Bytes};
use ron_codec::{
    address::Address,
    record::{RecordError, RecordHeader},
};
use ron_io::ports::Job;
use thiserror::Error;

use crate::limits;

/// Layout of keys and values; another one is wiped and made again.
const INDEX_VERSION: u32 = 1;

/// The key of the one entry that is no object's: objects' keys are 32 bytes long.
const META_KEY: &[u8] = b"meta";

const META_LEN: usize = 40;
const ENTRY_LEN: usize = 24;

/// LMDB writes pages of 4 KiB, the first two of which say what is in the others.
const LMDB_PAGE_LEN: u64 = 4096;

/// A place in the log of a partition: everything before it is known. Segment 0 is before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

/// Where an object's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Segment { segment: u32, offset: u32 },
    File,
}

/// What the index knows about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) location: Location,
    /// Bytes of the object.
    pub(super) size: u64,
    /// Of its record in the log.
    pub(super) sequence: u64,
}

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    /// The log is known up to here.
    pub(super) position: Position,
    /// Highest sequence before the position.
    pub(super) sequence: u64,
    pub(super) objects: u64,
    pub(super) object_bytes: u64,
}

/// Why the index did not answer.
#[derive(Debug, Error)]
pub(super) enum IndexError {
    #[error("index: {0}")]
    Lmdb(#[from] heed::Error),
    #[error("index entry of {len} bytes instead of {ENTRY_LEN}")]
    Entry { len: usize },
}

type Table = BTreeMap<Address, Option<Entry>>;

/// An index that was opened and not yet read.
#[derive(Debug)]
pub(super) struct Opened {
    store: Lmdb,
    /// `None`: nothing is known, the log must be read from its start.
    pub(super) meta: Option<Meta>,
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
    frozen: Option<Arc<Table>>,
    objects: u64,
    object_bytes: u64,
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
            Location::File => RecordHeader::for_file(*address, self.size, self.sequence),
        }
    }

    /// Where the record starts in its file.
    pub(super) fn base(&self) -> u64 {
        match self.location {
            Location::Segment { offset, .. } => u64::from(offset),
            Location::File => 0,
        }
    }

    fn encode(&self) -> [u8; ENTRY_LEN] {
        let (segment, offset) = match self.location {
            Location::Segment { segment, offset } => (segment, offset),
            Location::File => (0, 0),
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
        let location = match segment {
            0 => Location::File,
            _ => Location::Segment { segment, offset },
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
        bytes[24..32].copy_from_slice(&self.objects.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.object_bytes.to_le_bytes());
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
            objects: u64::from_le_bytes(array(bytes, 24)),
            object_bytes: u64::from_le_bytes(array(bytes, 32)),
        };
        (u32::from_le_bytes(array(bytes, 0)) == INDEX_VERSION).then_some(meta)
    }
}

impl Index {
    pub(super) fn new(opened: Opened) -> Index {
        let Meta { objects, object_bytes, .. } = opened.meta.unwrap_or_default();
        Index { store: opened.store, active: Table::new(), frozen: None, objects, object_bytes }
    }

    /// What is known about an object, if it is there.
    ///
    /// # Errors
    /// What LMDB answered.
    pub(super) fn get(&self, address: &Address) -> Result<Option<Entry>, IndexError> {
        let frozen = || self.frozen.as_ref().and_then(|table| table.get(address));
        if let Some(known) = self.active.get(address).or_else(frozen) {
            return Ok(*known);
        }
        let txn = self.store.env.read_txn()?;
        self.store.entries.get(&txn, address.as_bytes())?.map(Entry::decode).transpose()
    }

    /// The object is there now. This always succeeds, because what is durable must get into the
    /// next checkpoint; if LMDB cannot be read, only the counts may become wrong.
    pub(super) fn insert(&mut self, address: Address, entry: Entry) {
        let before = self.get(&address).ok().flatten();
        self.active.insert(address, Some(entry));
        self.object_bytes += entry.size;
        match before {
            Some(before) => self.object_bytes = self.object_bytes.saturating_sub(before.size),
            None => self.objects += 1,
        }
    }

    /// The object is no longer there.
    pub(super) fn remove(&mut self, address: Address) {
        if let Some(before) = self.get(&address).ok().flatten() {
            self.objects = self.objects.saturating_sub(1);
            self.object_bytes = self.object_bytes.saturating_sub(before.size);
        }
        self.active.insert(address, None);
    }

    /// Objects there are, and their bytes.
    pub(super) fn objects(&self) -> (u64, u64) {
        (self.objects, self.object_bytes)
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
        let table = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(Arc::clone(&table));
        let (objects, object_bytes) = self.objects();
        let meta =
            reached.map(|(position, sequence)| Meta { position, sequence, objects, object_bytes });
        let store = self.store.clone();
        Box::new(move || store.write(&table, meta).map_err(|error| error.to_string()))
    }

    /// The checkpoint is durable, or failed: then its changes wait for the next.
    pub(super) fn checkpointed(&mut self, durable: bool) {
        let frozen = self.frozen.take().expect("a checkpoint was running");
        if !durable {
            for (address, change) in frozen.iter() {
                self.active.entry(*address).or_insert(*change);
            }
        }
    }
}

impl Lmdb {
    fn write(&self, table: &Table, meta: Option<Meta>) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        for (address, change) in table {
            self.put(&mut txn, address, change.as_ref())?;
        }
        if let Some(meta) = meta {
            self.entries.put(&mut txn, META_KEY, &meta.encode())?;
        }
        txn.commit()
    }

    fn put(&self, txn: &mut RwTxn<'_>, key: &Address, change: Option<&Entry>) -> heed::Result<()> {
        match change {
            Some(entry) => self.entries.put(txn, key.as_bytes(), &entry.encode()),
            None => self.entries.delete(txn, key.as_bytes()).map(drop),
        }
    }

    fn meta(&self) -> heed::Result<Option<Meta>> {
        let txn = self.env.read_txn()?;
        Ok(self.entries.get(&txn, META_KEY)?.and_then(Meta::decode))
    }

    fn is_empty(&self) -> heed::Result<bool> {
        let txn = self.env.read_txn()?;
        self.entries.is_empty(&txn)
    }
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
            Ok((store, meta)) if meta.is_some() || store.is_empty()? => {
                return Ok(Opened { store, meta, wiped: None });
            }
            Ok(_) => "the index is incomplete".to_string(),
            Err(error) => format!("the index is damaged: {error}"),
        },
    };
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (store, meta) = open_there(dir)?;
    Ok(Opened { store, meta, wiped: Some(reason) })
}

fn open_there(dir: &Path) -> Result<(Lmdb, Option<Meta>), heed::Error> {
    fs::create_dir_all(dir)?;
    let data = dir.join("data.mdb");
    let len = fs::metadata(&data).map_or(0, |data| data.len());
    // LMDB trusts its file: reading a page beyond the end of a shortened one kills the process.
    if !len.is_multiple_of(LMDB_PAGE_LEN) || len == LMDB_PAGE_LEN {
        return Err(heed::Error::Mdb(heed::MdbError::Invalid));
    }
    let env = open_env(dir)?;
    if len > 0 && (env.info().last_page_number as u64 + 1) * LMDB_PAGE_LEN > len {
        return Err(heed::Error::Mdb(heed::MdbError::Corrupted));
    }
    let txn = env.write_txn()?;
    let entries = env
        .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            opener.create_database::<Bytes, Bytes>(txn, None).map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    let store = Lmdb { env, entries };
    let meta = store.meta()?;
    Ok((store, meta))
}

#[allow(unsafe_code)]
fn open_env(dir: &Path) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(limits::INDEX_MAP_LEN);
    // SAFETY: the file is mapped, so nobody else may change it. The data directory is locked by
    // this process, the folder belongs to one partition and so to one shard, and nothing but LMDB
    // writes in it while the environment is open: it is wiped only after its last handle is gone.
    unsafe { options.open(dir) }
}

/// The `N` bytes from `at`, which the callers' fixed offsets keep within `bytes`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: &Path) -> Opened {
        let slot = Slot::default();
        open_job(dir.to_path_buf(), None, Arc::clone(&slot))().unwrap();
        slot.lock().unwrap().take().unwrap()
    }

    fn entry(n: u64) -> Entry {
        let location = match n % 3 {
            0 => Location::File,
            _ => Location::Segment { segment: n as u32, offset: u32::MAX - n as u32 },
        };
        Entry { location, size: n << 30, sequence: u64::MAX - n }
    }

    fn address(n: u64) -> Address {
        Address::of(&n.to_le_bytes())
    }

    #[test]
    fn what_is_checkpointed_comes_back_and_the_rest_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let reached = Position { segment: 7, offset: 4096 };
        let mut index = Index::new(opened(dir.path()));
        for n in 0..100 {
            index.insert(address(n), entry(n));
        }
        let job = index.checkpoint(Some((reached, 99)));
        assert_eq!(index.get(&address(5)).unwrap(), Some(entry(5)), "frozen is seen");
        index.remove(address(5));
        index.insert(address(200), entry(200));
        assert_eq!(index.get(&address(5)).unwrap(), None, "active hides frozen");
        job().unwrap();
        index.checkpointed(true);
        assert_eq!(index.get(&address(5)).unwrap(), None, "active hides what is stored");
        assert_eq!(index.objects().0, 100);
        drop(index);

        let opened = opened(dir.path());
        let meta = opened.meta.unwrap();
        assert_eq!((meta.position, meta.sequence, meta.objects), (reached, 99, 100));
        let index = Index::new(opened);
        for n in 0..100 {
            assert_eq!(index.get(&address(n)).unwrap(), Some(entry(n)));
        }
        assert_eq!(index.get(&address(200)).unwrap(), None);
    }

    #[test]
    fn a_failed_checkpoint_loses_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(opened(dir.path()));
        index.insert(address(1), entry(1));
        index.insert(address(2), entry(2));
        drop(index.checkpoint(None));
        index.remove(address(1));
        index.checkpointed(false);
        assert_eq!(index.get(&address(1)).unwrap(), None);
        assert_eq!(index.get(&address(2)).unwrap(), Some(entry(2)));
        assert_eq!(index.changes(), 2);
    }

    #[test]
    fn damaged_and_incomplete_files_are_wiped() {
        for damage in ["short", "odd", "garbage", "incomplete"] {
            let dir = tempfile::tempdir().unwrap();
            let mut index = Index::new(opened(dir.path()));
            for n in 0..1000 {
                index.insert(address(n), entry(n));
            }
            let complete = (damage != "incomplete").then_some((Position::default(), 1));
            index.checkpoint(complete)().unwrap();
            index.checkpointed(true);
            drop(index);
            let data = dir.path().join("data.mdb");
            let len = fs::metadata(&data).unwrap().len();
            match damage {
                "short" => {
                    fs::File::options().write(true).open(&data).unwrap().set_len(len / 8192 * 4096)
                }
                "odd" => fs::File::options().write(true).open(&data).unwrap().set_len(len - 1),
                "garbage" => fs::write(&data, vec![0xa5; len as usize]),
                _ => Ok(()),
            }
            .unwrap();
            let opened = opened(dir.path());
            assert!(opened.wiped.is_some() && opened.meta.is_none(), "{damage}");
            assert_eq!(Index::new(opened).get(&address(1)).unwrap(), None);
        }
    }
}
