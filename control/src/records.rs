//! Control's own records: the names, and what became of them.
//!
//! They lie in one LMDB environment, `control/` of the first data directory, which this process
//! alone has open. Each change is one transaction, durable when it returns; a crash leaves all of
//! it or nothing. LMDB has no checksums, so each record has one, and all are checked at the start.
//! What lies there byte for byte is in docs/STORAGE.md, "Control's records".

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use heed::{
    CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls, types::Bytes,
};
use ron_codec::{
    address::{ADDRESS_LEN, Address},
    name::NamePath,
};

use crate::limits::NAME_CHANGES_KEPT;

/// The folder, and the file in it that the records are in.
const FOLDER: &str = "control";
const FILE: &str = "data.mdb";

/// The format that is written; what is newer is refused.
const FORMAT: u64 = 1;

/// Databases that the environment may have, those of later releases included.
const DATABASES_MAX: u32 = 16;

const CHECKSUM_LEN: usize = 16;
const META_FORMAT: &[u8] = b"format";
const META_VERSION: &[u8] = b"names_version";

type Table = Database<'static, Bytes, Bytes>;

/// The path of a name and its digest.
type Loaded = (String, [u8; ADDRESS_LEN]);

/// The open environment.
pub(crate) struct Records {
    env: Env<WithoutTls>,
    path: PathBuf,
    meta: Table,
    names: Table,
    log: Table,
}

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} has format {found}, and this release knows {FORMAT}: use the release that wrote it",
        path.display()
    )]
    Newer { path: PathBuf, found: u64 },
    #[error(
        "{} is damaged: {what}; bring back a copy, or move the folder away to start without names",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("there are {len} names of {text_len} bytes: names.max = {max} allows less")]
    TooMany { len: usize, text_len: usize, max: usize },
}

impl RecordsError {
    /// Whether all that is missing is space on the disk.
    pub fn is_no_space(&self) -> bool {
        matches!(self, RecordsError::Io { source, .. } if is_no_space(source))
    }
}

/// A name and what it was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) path: NamePath,
    pub(crate) address: Address,
    /// The version that the change made.
    pub(crate) version: u64,
    pub(crate) unix_ms: u64,
}

/// What a change expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Anything,
    Nothing,
    Something,
    Version(u64),
}

/// A change that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) path: NamePath,
    /// `None`: the name goes.
    pub(crate) address: Option<Address>,
    pub(crate) expected: Expected,
    pub(crate) unix_ms: u64,
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) unix_ms: u64,
    pub(crate) path: NamePath,
    pub(crate) before: Option<Address>,
    pub(crate) after: Option<Address>,
}

/// Why a record could not be read, or a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The name has this version, or there is none.
    Unexpected(Option<u64>),
    /// There is no such name to remove.
    NotFound,
    /// The records take as much space as they may.
    StoreFull,
    /// The disk has no space.
    DiskFull,
    Failed(String),
}

/// Some names in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) version: u64,
    pub(crate) records: Vec<Record>,
    /// Whether others follow.
    pub(crate) more: bool,
}

impl Records {
    /// Opens the records in a data directory, and makes them where there are none. They may take
    /// `len_max` bytes.
    pub(crate) fn open(data: &Path, len_max: u64) -> Result<Records, RecordsError> {
        let path = data.join(FOLDER);
        let failed = |doing| {
            let path = path.clone();
            move |source| RecordsError::Io { doing, path, source }
        };
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("making")(error));
            }
            _ => {}
        }
        let env = open_env(&path, len_max).map_err(|error| unusable(&path, error))?;
        check_len(&env, &path)?;
        let (meta, names, log) = open_tables(&env, &path)?;
        for folder in [&path, data] {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(failed("syncing"))?;
        }
        Ok(Records { env, path, meta, names, log })
    }

    /// The version of the names, and all of them, checked.
    pub(crate) fn load(&self) -> Result<(u64, Vec<Loaded>), RecordsError> {
        let unusable = |error| unusable(&self.path, error);
        let damaged = |what| RecordsError::Damaged { path: self.path.clone(), what };
        let txn = self.env.read_txn().map_err(unusable)?;
        let version = self.version(&txn).map_err(|fault| damaged(fault.to_string()))?;
        let mut names = Vec::new();
        for item in self.names.iter(&txn).map_err(unusable)? {
            let (key, value) = item.map_err(unusable)?;
            let record = read_record(key, value).ok_or_else(|| damaged(no_checksum(key)))?;
            names.push((record.path.into(), *record.address.as_bytes()));
        }
        for item in self.log.iter(&txn).map_err(unusable)? {
            let (key, value) = item.map_err(unusable)?;
            read_change(key, value).ok_or_else(|| damaged(no_checksum(key)))?;
        }
        Ok((version, names))
    }

    /// The record of a name.
    pub(crate) fn get(&self, path: &NamePath) -> Result<Option<Record>, Fault> {
        let txn = self.env.read_txn()?;
        self.record(&txn, path)
    }

    /// Up to `most` names in their order: `prefix` itself and what is below it, from behind `after`
    /// on.
    pub(crate) fn list(
        &self,
        prefix: &NamePath,
        after: Option<&NamePath>,
        most: usize,
    ) -> Result<Listed, Fault> {
        let txn = self.env.read_txn()?;
        let mut listed = Listed { version: self.version(&txn)?, records: Vec::new(), more: false };
        if after.is_none_or(|after| after < prefix) {
            listed.records.extend(self.record(&txn, prefix)?);
        }
        let below = if prefix.is_root() { "/".to_owned() } else { format!("{prefix}/") };
        let start = after.map_or("", NamePath::as_str).max(&below).as_bytes();
        let range = (Bound::Excluded(start), Bound::Unbounded);
        for item in self.names.range(&txn, &range)? {
            let (key, value) = item?;
            if !key.starts_with(below.as_bytes()) {
                break;
            }
            if listed.records.len() >= most {
                listed.more = true;
                break;
            }
            let record = read_record(key, value).ok_or_else(|| Fault::Failed(no_checksum(key)))?;
            listed.records.push(record);
        }
        Ok(listed)
    }

    /// The last changes, up to so many, the oldest of them first.
    pub(crate) fn changes(&self, most: usize) -> Result<Vec<Change>, Fault> {
        let txn = self.env.read_txn()?;
        let mut changes = Vec::new();
        for item in self.log.rev_iter(&txn)?.take(most) {
            let (key, value) = item?;
            let change = read_change(key, value);
            changes.push(change.ok_or_else(|| Fault::Failed("a change is damaged".to_owned()))?);
        }
        changes.reverse();
        Ok(changes)
    }

    /// Makes a change. It is durable when this returns.
    pub(crate) fn change(&self, wanted: &Wanted) -> Result<Change, Fault> {
        match self.try_change(wanted) {
            // On a disk that is full, the write before the one that says so may end short.
            Err(Cause::Heed(heed::Error::Io(error)))
                if error.kind() != io::ErrorKind::StorageFull =>
            {
                self.try_change(wanted).map_err(Fault::from)
            }
            outcome => outcome.map_err(Fault::from),
        }
    }

    fn try_change(&self, wanted: &Wanted) -> Result<Change, Cause> {
        let Wanted { path, address, expected, unix_ms } = wanted;
        let mut txn = self.env.write_txn()?;
        let current = self.record(&txn, path)?;
        let found = current.as_ref().map(|record| record.version);
        let is_expected = match expected {
            Expected::Anything => true,
            Expected::Nothing => found.is_none(),
            Expected::Something => found.is_some(),
            Expected::Version(version) => found == Some(*version),
        };
        if !is_expected {
            return Err(Fault::Unexpected(found).into());
        }
        let change = Change {
            version: self.version(&txn)? + 1,
            unix_ms: *unix_ms,
            path: path.clone(),
            before: current.map(|record| record.address),
            after: *address,
        };
        if change.before.is_none() && change.after.is_none() {
            return Err(Fault::NotFound.into());
        }
        self.write(&mut txn, &change)?;
        txn.commit()?;
        Ok(change)
    }

    fn write(&self, txn: &mut RwTxn<'_>, change: &Change) -> heed::Result<()> {
        let key = change.path.as_str().as_bytes();
        match &change.after {
            Some(address) => {
                let (version, unix_ms) =
                    (change.version.to_le_bytes(), change.unix_ms.to_le_bytes());
                let value = [&version[..], &unix_ms, address.as_bytes()].concat();
                self.names.put(txn, key, &sealed(key, value))?;
            }
            None => {
                self.names.delete(txn, key)?;
            }
        }
        let version = change.version.to_be_bytes();
        self.log.put(txn, &version, &sealed(&version, write_change(change)))?;
        if let Some(oldest) = change.version.checked_sub(NAME_CHANGES_KEPT as u64) {
            self.log.delete(txn, &oldest.to_be_bytes())?;
        }
        let version = change.version.to_le_bytes().to_vec();
        self.meta.put(txn, META_VERSION, &sealed(META_VERSION, version))
    }

    fn record(
        &self,
        txn: &RoTxn<'_, WithoutTls>,
        path: &NamePath,
    ) -> Result<Option<Record>, Fault> {
        let key = path.as_str().as_bytes();
        let Some(value) = self.names.get(txn, key)? else { return Ok(None) };
        read_record(key, value).map(Some).ok_or_else(|| Fault::Failed(no_checksum(key)))
    }

    fn version(&self, txn: &RoTxn<'_, WithoutTls>) -> Result<u64, Fault> {
        let Some(value) = self.meta.get(txn, META_VERSION)? else {
            return match self.log.is_empty(txn)? {
                true => Ok(0),
                false => Err(Fault::Failed("the version of the names is gone".to_owned())),
            };
        };
        let version = unsealed(META_VERSION, value).and_then(|value| value.try_into().ok());
        let damaged = || Fault::Failed(no_checksum(META_VERSION));
        version.map(u64::from_le_bytes).ok_or_else(damaged)
    }
}

#[allow(unsafe_code)]
fn open_env(path: &Path, len_max: u64) -> heed::Result<Env<WithoutTls>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    // LMDB wants whole pages.
    let len = usize::try_from(len_max).unwrap_or(usize::MAX) & !0xffff;
    options.map_size(len).max_dbs(DATABASES_MAX);
    // SAFETY: nobody else changes the file while it is mapped: the data directory is locked by this
    // process for as long as it runs, and in it this is the only place that opens the file. Its
    // lock file is LMDB's own and left alone. That the file is as long as its pages say is checked
    // before any of them is read.
    unsafe { options.open(path) }
}

/// A file that is shorter than its pages say would end the process when it is read.
fn check_len(env: &Env<WithoutTls>, path: &Path) -> Result<(), RecordsError> {
    let page_len = u64::from(env.unnamed_database_stat().page_size);
    let expected = (env.info().last_page_number as u64 + 1).saturating_mul(page_len);
    let found = env.real_disk_size().map_err(|error| unusable(path, error))?;
    if found >= expected {
        return Ok(());
    }
    let what = format!("{FILE} has {found} bytes, not {expected}");
    Err(RecordsError::Damaged { path: path.to_owned(), what })
}

fn open_tables(env: &Env<WithoutTls>, path: &Path) -> Result<(Table, Table, Table), RecordsError> {
    let opened = env.write_txn().and_then(|txn| {
        env.create_databases_and_commit(txn, |opener, txn| {
            let meta: Database<'_, Bytes, Bytes> = opener.create_database(txn, Some("meta"))?;
            match meta.get(txn, META_FORMAT)?.map(|value| unsealed(META_FORMAT, value)) {
                Some(Some(value)) if value == FORMAT.to_le_bytes() => {}
                Some(value) => {
                    let found = value.and_then(|value| value.try_into().ok());
                    return Ok(CommitOrAbort::Abort(found.map(u64::from_le_bytes)));
                }
                None => {
                    let value = sealed(META_FORMAT, FORMAT.to_le_bytes().to_vec());
                    meta.put(txn, META_FORMAT, &value)?;
                }
            }
            let names = opener.create_database(txn, Some("names"))?;
            let log = opener.create_database(txn, Some("name_log"))?;
            heed::Result::Ok(CommitOrAbort::Commit([meta, names, log]))
        })
    });
    match opened.map_err(|error| unusable(path, error))? {
        CommitOrAbort::Commit([meta, names, log]) => Ok((meta, names, log)),
        CommitOrAbort::Abort(Some(found)) => {
            Err(RecordsError::Newer { path: path.to_owned(), found })
        }
        CommitOrAbort::Abort(None) => {
            let what = no_checksum(META_FORMAT);
            Err(RecordsError::Damaged { path: path.to_owned(), what })
        }
    }
}

/// What the library says, as of the whole environment.
fn unusable(path: &Path, error: heed::Error) -> RecordsError {
    let path = path.to_owned();
    match error {
        heed::Error::Io(source) => RecordsError::Io { doing: "opening", path, source },
        other => RecordsError::Damaged { path, what: other.to_string() },
    }
}

fn no_checksum(key: &[u8]) -> String {
    format!("the record of {:?} does not match its checksum", String::from_utf8_lossy(key))
}

/// A value with the checksum of its key and itself.
fn sealed(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value);
    value.extend_from_slice(&sum);
    value
}

/// The value, if its checksum fits.
fn unsealed<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = value.split_at_checked(value.len().checked_sub(CHECKSUM_LEN)?)?;
    (checksum(key, value) == sum).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_LEN] {
    let len = (key.len() as u64).to_le_bytes();
    let digest = Address::of(&[&len[..], key, value].concat());
    std::array::from_fn(|at| digest.as_bytes()[at])
}

fn read_record(key: &[u8], value: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(key).ok()?;
    let path: NamePath = text.parse().ok().filter(|path: &NamePath| path.as_str() == text)?;
    let (version, rest) = take_u64(unsealed(key, value)?)?;
    let (unix_ms, rest) = take_u64(rest)?;
    let address = Address::from_bytes(rest.try_into().ok()?);
    Some(Record { path, address, version, unix_ms })
}

fn write_change(change: &Change) -> Vec<u8> {
    let mut value = change.unix_ms.to_le_bytes().to_vec();
    for address in [&change.before, &change.after] {
        value.push(u8::from(address.is_some()));
        let digest = address.as_ref().map_or([0; ADDRESS_LEN], |address| *address.as_bytes());
        value.extend_from_slice(&digest);
    }
    value.extend_from_slice(change.path.as_str().as_bytes());
    value
}

fn read_change(key: &[u8], value: &[u8]) -> Option<Change> {
    let (unix_ms, rest) = take_u64(unsealed(key, value)?)?;
    let (before, rest) = take_address(rest)?;
    let (after, rest) = take_address(rest)?;
    let path = std::str::from_utf8(rest).ok()?.parse().ok()?;
    let version = u64::from_be_bytes(key.try_into().ok()?);
    Some(Change { version, unix_ms, path, before, after })
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn take_address(bytes: &[u8]) -> Option<(Option<Address>, &[u8])> {
    let ([is_there], rest) = bytes.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    Some(((*is_there == 1).then(|| Address::from_bytes(*digest)), rest))
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What ends a transaction: the library, or what was found.
enum Cause {
    Heed(heed::Error),
    Fault(Fault),
}

impl From<heed::Error> for Cause {
    fn from(error: heed::Error) -> Cause {
        Cause::Heed(error)
    }
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Cause {
        Cause::Fault(fault)
    }
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Fault {
        match cause {
            Cause::Heed(error) => error.into(),
            Cause::Fault(fault) => fault,
        }
    }
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Fault {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Fault::StoreFull,
            heed::Error::Io(error) if is_no_space(&error) => Fault::DiskFull,
            other => Fault::Failed(other.to_string()),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Unexpected(Some(version)) => write!(f, "the name is at version {version}"),
            Fault::Unexpected(None) | Fault::NotFound => f.write_str("there is no such name"),
            Fault::StoreFull => f.write_str("the names take as much space as names.store allows"),
            Fault::DiskFull => f.write_str("the disk of the first data directory is full"),
            Fault::Failed(what) => write!(f, "the names cannot be read or written: {what}"),
        }
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
