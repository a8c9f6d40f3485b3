//! What is asked of a partition: objects and groups of them, to be read, stored and deleted.

use std::{io, path::PathBuf};

use ron_codec::{address::Address, limits::GROUP_LEN, outboard::group_count};
use ron_io::ports::DiskOp;

use super::Partition;
use crate::{
    flow::{Asker, Cx, Fault, Reply, Waiter},
    store::{
        damage,
        flaw::{Flaw, Wrong},
        index::{Entry, Location},
        log::{Append, What},
        notes::Note,
        reads::Wanting,
    },
};

impl Partition {
    pub(super) fn open(
        &mut self,
        asker: Asker,
        address: Address,
        first: Option<u64>,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let Some(entry) = self.index.get(&address) else { return Some(Reply::Missing) };
        if self.is_lost(&entry) {
            damage::report_read(&address, &Flaw::Wrong(Wrong::LogGone), cx);
            return Some(Reply::Failed(Fault::Integrity));
        }
        match first {
            Some(byte) if byte < entry.size => {
                cx.stats.cache_misses.add(1);
                let wanting = Wanting::open(asker);
                let group = (address, byte / GROUP_LEN as u64, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            _ => Some(Reply::Opened { size: entry.size, first: None }),
        }
    }

    pub(super) fn group(
        &mut self,
        wanting: Wanting,
        address: Address,
        index: u64,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        match self.index.get(&address) {
            Some(entry) if index < group_count(entry.size) => {
                cx.stats.cache_misses.add(1);
                let group = (address, index, entry);
                self.reads.want(group, wanting, &mut self.files, self.site, cx);
                None
            }
            _ => Some(Reply::Missing),
        }
    }

    /// Keeps an object; `upload` is the file it came in, if it is to lie in one.
    pub(super) fn put(
        &mut self,
        asker: Asker,
        address: Address,
        size: u64,
        what: What,
        upload: Option<PathBuf>,
        cx: &mut Cx<'_>,
    ) -> Option<Reply> {
        let reply = if self.log.join(&address, asker) {
            None
        } else {
            match self.index.get(&address) {
                Some(known) if !cx.damage.doubts(&address) && !self.is_lost(&known) => {
                    Some(Reply::Stored { new: false })
                }
                // A file that is stored anew must not be taken for the one that is removed.
                Some(_)
                    if self.log.is_deleting(&address) || self.deletes.is_in_progress(&address) =>
                {
                    Some(Reply::Failed(Fault::Busy))
                }
                _ if self.takes_nothing() => Some(Reply::Failed(Fault::Disk)),
                _ if self.refuses(upload.is_none(), size, cx) => Some(Reply::Failed(Fault::Full)),
                // What is damaged is stored anew: who brings its bytes heals it.
                _ => {
                    let promised = self.to_be_written(upload.as_ref(), size, cx);
                    let append = Append { address, size, what, promised, askers: vec![asker] };
                    match self.take_up(append, cx) {
                        Ok(append) => {
                            self.begin(append, address, upload, cx);
                            return None;
                        }
                        Err(fault) => Some(Reply::Failed(fault)),
                    }
                }
            }
        };
        if let Some(path) = upload {
            cx.disk(Waiter::Nobody, DiskOp::Remove { path, durable: false });
        }
        reply
    }

    /// Sets space for an append aside and takes it up.
    fn take_up(&mut self, append: Append, cx: &mut Cx<'_>) -> Result<usize, Fault> {
        let promised = append.promised;
        cx.free_space.promise(self.volume, promised).map_err(|_| Fault::Full)?;
        self.log.register(append).ok_or_else(|| {
            cx.free_space.release(self.volume, promised);
            Fault::Busy
        })
    }

    /// Bytes that an object is still to take on this volume: an upload to it has written its own.
    pub(super) fn to_be_written(&self, upload: Option<&PathBuf>, size: u64, cx: &Cx<'_>) -> u64 {
        let volume = cx.config.layout.volume(self.site.number);
        if upload.is_some_and(|path| path.starts_with(volume)) { 0 } else { size }
    }

    pub(super) fn delete(&mut self, asker: Asker, address: Address) -> Option<Reply> {
        if self.log.join_delete(&address, asker) {
            return None;
        }
        match self.index.get(&address) {
            // What is not there may come back with a record that could not be cut off.
            known if self.log.is_broken() || (self.takes_nothing() && known.is_some()) => {
                Some(Reply::Failed(Fault::Disk))
            }
            None => Some(Reply::Missing),
            // It was damaged and is being stored anew: its new file must not go with the old one.
            Some(_) if self.log.is_storing(&address) || self.deletes.is_taking_back(&address) => {
                Some(Reply::Failed(Fault::Busy))
            }
            Some(_) => {
                let (size, what, askers) = (0, What::Tombstone, vec![asker]);
                let append = Append { address, size, what, promised: 0, askers };
                let taken = self.log.register(append).map(|append| self.log.enqueue(append));
                taken.is_none().then_some(Reply::Failed(Fault::Busy))
            }
        }
    }

    pub(super) fn begin(
        &mut self,
        append: usize,
        address: Address,
        upload: Option<PathBuf>,
        cx: &mut Cx<'_>,
    ) {
        let Some(path) = upload else { return self.log.enqueue(append) };
        self.deletes.makes(address.as_bytes()[0]);
        if let Some((append, path)) = self.deletes.defer(&address, (append, path)) {
            self.objects.adopt(append, address, path, self.site, cx);
        }
    }

    pub(super) fn on_adopted(&mut self, append: usize, outcome: io::Result<()>, cx: &mut Cx<'_>) {
        match outcome {
            Ok(()) => self.log.enqueue(append),
            Err(error) => {
                let append = self.log.withdraw(append);
                let address = append.address;
                self.site.note(cx, &Note::NotAdopted { address, error: &error });
                self.not_stored(append, Fault::of_disk(&error), true, cx);
            }
        }
    }

    /// Whether the part of the log is gone that had the object.
    pub(super) fn is_lost(&self, entry: &Entry) -> bool {
        let in_segment = matches!(entry.location, Location::Segment { .. });
        in_segment && self.log.is_lossy() && self.log.lacks(entry)
    }
}
