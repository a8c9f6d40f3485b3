//! The objects of a stopped node, read from its directories by the holder of their locks.
//!
//! ```text
//!   lock ─► for each partition: index as it was saved ─► log behind it ─► objects by address
//! ```
//!
//! What the index and the log say is believed for where to look, and for nothing else: who reads an
//! object hashes it. Nothing is changed. A partition is looked at at a time, and takes memory for
//! each of its objects: about 100 bytes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
};

use ron_codec::{
    address::Address,
    record::{RecordError, RecordHeader, RecordKind},
};
use ron_shards::store::{
    audit::{Entry, Found, Location, Next, Position, View, Walk, segment_number},
    layout::Layout,
};
use thiserror::Error;

use crate::format::{DataDirError, Stopped};

/// Why the objects of a partition cannot be named.
#[derive(Debug, Error)]
pub enum StoppedError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} has records of version {version}, from a newer ron", path.display())]
    TooNew { path: PathBuf, version: u16 },
}

/// The directories of a stopped node, locked.
#[derive(Debug)]
pub struct StoppedNode {
    layout: Layout,
    _stopped: Stopped,
}

/// An object of a partition, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub address: Address,
    pub size: u64,
    partition: u16,
    entry: Entry,
}

/// What is known of an object: its sequence, and where it lies unless it was deleted.
#[derive(Debug, Default)]
struct Known {
    objects: BTreeMap<Address, (u64, Option<Entry>)>,
    /// The highest sequence that the saved index knows.
    saved: Option<u64>,
}

impl StoppedNode {
    /// Locks the directories of a node, all of them or some.
    ///
    /// # Errors
    /// They are in use, or no data directories.
    pub fn open(dirs: &[PathBuf]) -> Result<StoppedNode, StoppedError> {
        let stopped = Stopped::open(dirs)?;
        let layout = stopped.layout();
        Ok(StoppedNode { layout, _stopped: stopped })
    }

    /// The partitions, rising: in their order, addresses rise too.
    pub fn partitions(&self) -> impl Iterator<Item = u16> {
        0..self.layout.partitions
    }

    /// Whether a partition cannot be read: its directory was not named, or its folder is gone.
    #[must_use]
    pub fn is_absent(&self, partition: u16) -> bool {
        self.layout.is_absent(partition) || !self.layout.partition_dir(partition).is_dir()
    }

    /// The objects of a partition, by rising address.
    ///
    /// # Errors
    /// The log cannot be read, or is of a newer release.
    pub fn objects(&self, partition: u16) -> Result<Vec<Stored>, StoppedError> {
        // Without an index that can be used the log says it all.
        let view = View::open(&self.layout.index_dir(partition)).ok().flatten();
        let reached = view.as_ref().map_or_else(Position::default, View::position);
        let entries = view.as_ref().into_iter().flat_map(View::entries);
        let objects = entries.map(|(address, entry)| (address, (entry.sequence, Some(entry))));
        let objects = objects.collect();
        let mut known = Known { objects, saved: view.as_ref().map(View::sequence) };
        drop(view);
        for segment in self.segments(partition)? {
            if segment >= reached.segment {
                let from = if segment == reached.segment { reached.offset } else { 0 };
                self.walk(partition, segment, from, &mut known)?;
            }
        }
        let stored = known.objects.into_iter().filter_map(|(address, (_, entry))| {
            entry.map(|entry| Stored { address, size: entry.size, partition, entry })
        });
        Ok(stored.collect())
    }

    /// Opens the bytes of an object: `size` of them, unless something is lost.
    ///
    /// # Errors
    /// The file is not there, or cannot be read.
    pub fn read(&self, stored: &Stored) -> io::Result<impl Read + use<>> {
        let Stored { address, size, partition, entry } = *stored;
        let sequence = entry.sequence;
        let (path, base, header) = match entry.location {
            Location::Segment { segment, offset } => {
                let path = self.layout.segment_path(partition, segment);
                (path, u64::from(offset), RecordHeader::for_segment(address, size, sequence))
            }
            Location::File { .. } => {
                let path = self.layout.object_path(partition, &address);
                (path, 0, RecordHeader::for_file(address, size, sequence))
            }
        };
        let header = header.map_err(|error: RecordError| io::Error::other(error.to_string()))?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(base + u64::from(header.data_offset())))?;
        Ok(file.take(size))
    }

    fn segments(&self, partition: u16) -> Result<Vec<u32>, StoppedError> {
        let path = self.layout.segments_dir(partition);
        let failed = |source| StoppedError::File { path: path.clone(), source };
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            segments.extend(name.to_str().and_then(segment_number));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Takes up what the records of a segment say from an offset on.
    fn walk(
        &self,
        partition: u16,
        segment: u32,
        from: u64,
        known: &mut Known,
    ) -> Result<(), StoppedError> {
        let path = self.layout.segment_path(partition, segment);
        let failed = |source| StoppedError::File { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        // Behind the checkpoint the last batch may be torn, so all is hashed there.
        let mut walk = Walk::new(from.min(len), len, from);
        let mut next = walk.start();
        let mut bytes = Vec::new();
        loop {
            for found in walk.take() {
                self.take(partition, segment, &found, known);
            }
            let Next::Read { at, len } = next else { return Ok(()) };
            bytes.clear();
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
            file.by_ref().take(len.into()).read_to_end(&mut bytes).map_err(failed)?;
            next = walk
                .feed(&bytes)
                .map_err(|version| StoppedError::TooNew { path: path.clone(), version })?;
        }
    }

    /// Takes up a record, as a start of the node would: the highest sequence counts.
    fn take(&self, partition: u16, segment: u32, found: &Found, known: &mut Known) {
        let Found { kind, digest, size, sequence, offset, damaged, .. } = *found;
        let location = match kind {
            RecordKind::Object => u32::try_from(offset)
                .map(|offset| Some(Location::Segment { segment, offset }))
                .unwrap_or_default(),
            RecordKind::File => Some(Location::File { segment }),
            RecordKind::Tombstone => None,
            _ => return,
        };
        if self.layout.owner(&digest).0 != partition {
            return;
        }
        let entry = location.map(|location| Entry { location, size, sequence });
        let is_saved = known.saved.is_some_and(|saved| sequence <= saved);
        match known.objects.get_mut(&digest) {
            Some((latest, _)) if *latest > sequence => {}
            // An older copy that is whole is better than one that is not.
            Some((_, Some(_))) if damaged => {}
            // The index took it up by the name of its file, and knew the tombstone.
            Some((_, Some(Entry { location: Location::File { segment: 0 }, .. })))
                if is_saved && entry.is_none() => {}
            Some(latest) => *latest = (sequence, entry),
            // A copy of a record that was deleted before the index was saved.
            None if is_saved => {}
            None => drop(known.objects.insert(digest, (sequence, entry))),
        }
    }
}
