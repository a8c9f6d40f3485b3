//! Files under `objects/` that nothing stands for: what a removal that failed, or a crash between a
//! rename and its record, has left.
//!
//! ```text
//!   folder 0 ──► names that the index does not know ──► (made durable) ──► folder 1 …
//! ```
//!
//! Who looks decides what becomes of them: compaction, before it drops the tombstone of such a
//! file, and the scrub, after it has read what the log says.

use std::{collections::BTreeSet, io};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, DiskOp};

use super::{
    deletes::Deletes,
    index::{Index, Location},
    layout::{copy_address, object_address},
    log::Log,
    site::{Site, Tag},
};
use crate::{
    flow::{Cx, Waiter},
    limits::ORPHANS_MAX,
};

/// What is known of the objects of a partition while its folders are looked through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) log: &'a Log,
    pub(super) index: &'a Index,
    pub(super) deletes: &'a Deletes,
}

impl Known<'_> {
    /// Whether a file of this name stands for no object, and nobody is about to give or take it
    /// that name. The record of one may lie behind the end of a log that could not be cut.
    pub(super) fn is_orphan(&self, address: &Address) -> bool {
        let has_file = self
            .index
            .get(address)
            .is_some_and(|entry| matches!(entry.location, Location::File { .. }));
        let is_moving = self.log.is_storing(address) || self.deletes.is_in_progress(address);
        !has_file && !is_moving && !self.log.is_broken()
    }
}

/// What became known of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    Durable(u8),
    Absent(u8),
}

impl Learnt {
    pub(super) fn note(self, deletes: &mut Deletes) {
        match self {
            Learnt::Durable(folder) => deletes.made_durable(folder),
            Learnt::Absent(folder) => deletes.set_absent(folder),
        }
    }
}

/// A look through all folders that may be there.
#[derive(Debug)]
pub(super) struct Search {
    next: u16,
    /// Whether the names of folder `next` are taken, and it is being made durable.
    listed: bool,
    orphans: BTreeSet<Address>,
    /// More were found than are remembered.
    cut: bool,
    failed_before: u64,
}

impl Search {
    pub(super) fn new(deletes: &Deletes) -> Search {
        let failed_before = deletes.failed();
        Search { next: 0, listed: false, orphans: BTreeSet::new(), cut: false, failed_before }
    }

    /// `Deletes::failed` when it began. When that has changed, a file may stay that was being
    /// removed while its folder was listed, and was not taken for an orphan.
    pub(super) fn failed_before(&self) -> u64 {
        self.failed_before
    }

    /// Starts the next act; no other may be in progress. `false` if there is none left.
    pub(super) fn go(&mut self, deletes: &Deletes, site: Site, tag: Tag, cx: &mut Cx<'_>) -> bool {
        let known = |next: &u16| u8::try_from(*next).is_ok_and(|folder| deletes.is_absent(folder));
        while known(&self.next) {
            self.next += 1;
        }
        let Ok(folder) = u8::try_from(self.next) else { return false };
        let path = cx.config.layout.objects_dir(site.number, folder);
        let op = if self.listed {
            // No file has this name: what is wanted is that the folder becomes durable.
            DiskOp::Remove { path: path.join("none"), durable: true }
        } else {
            DiskOp::List { path }
        };
        site.disk(cx, tag, op);
        true
    }

    /// Its act is complete. Returns what became known of a folder by it.
    ///
    /// # Errors
    /// What the disk answered: the search has ended.
    pub(super) fn on_disk(
        &mut self,
        done: io::Result<DiskDone>,
        known: Known<'_>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> io::Result<Option<Learnt>> {
        match done {
            Ok(DiskDone::Listed(names)) => {
                for (name, _) in names {
                    let part = copy_address(&name).filter(|part| !known.log.is_storing(part));
                    if part.is_some() {
                        // A copy from another volume that a crash cut short.
                        let folder = cx.config.layout.objects_dir(site.number, self.next as u8);
                        let op = DiskOp::Remove { path: folder.join(&name), durable: false };
                        cx.disk(Waiter::Nobody, op);
                    }
                    let Some(address) = object_address(&name) else { continue };
                    let ours = cx.config.layout.owner(&address).0 == site.number;
                    if ours && known.is_orphan(&address) {
                        self.take(address);
                    }
                }
                self.listed = known.deletes.is_unsure(self.next as u8);
                self.next += u16::from(!self.listed);
            }
            Ok(_) => {
                let durable = self.next as u8;
                (self.next, self.listed) = (self.next + 1, false);
                return Ok(Some(Learnt::Durable(durable)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let absent = self.next as u8;
                self.next += 1;
                return Ok(Some(Learnt::Absent(absent)));
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn take(&mut self, address: Address) {
        if self.orphans.len() < ORPHANS_MAX {
            self.orphans.insert(address);
        } else {
            self.cut = true;
        }
    }

    /// What was found, and whether there is more.
    pub(super) fn found(self) -> (BTreeSet<Address>, bool) {
        (self.orphans, self.cut)
    }
}
