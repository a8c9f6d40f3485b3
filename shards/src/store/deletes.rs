//! Deletions, from the durable tombstone to the answer.
//!
//! ```text
//!   tombstone durable ──► cached groups forgotten ──► (file removed) ──► answered
//!    (index: gone)          a part of them a turn
//! ```
//!
//! An object is invisible from its tombstone's commit on, and the client is answered only when
//! no cache can show it any more. While a file is being removed, the same object may come again:
//! its new file waits with taking the place until the old one is gone, or it would be removed in
//! its stead. If that is deleted meanwhile, this second deletion begins when the first has ended.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
};

use ron_codec::{address::Address, outboard::group_count};
use ron_io::ports::{DiskDone, DiskOp};
use slab::Slab;

use super::{
    index::{Entry, Location},
    notes::Note,
    site::{Site, Tag},
};
use crate::{
    flow::{Asker, Cx, Fault, Reply},
    limits,
};

/// A finished upload that waits for the place of its object.
pub(super) type Adoption = (usize, PathBuf);

#[derive(Debug)]
struct Deletion {
    address: Address,
    askers: Vec<Asker>,
    /// Why its file goes although nobody deleted the object: it could not be stored.
    refused: Option<Fault>,
    has_file: bool,
    /// Groups of the object, and how many of them the cache has forgotten.
    groups: u64,
    forgotten: u64,
    adoptions: Vec<Adoption>,
    /// What was deleted again meanwhile, and who asked: that begins when this has ended.
    next: Option<(Entry, Vec<Asker>)>,
}

/// The deletions of one partition that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Deletes {
    in_progress: Slab<Deletion>,
    by_address: HashMap<Address, usize>,
    forgetting: VecDeque<usize>,
    /// Files whose removal is not over.
    removing: usize,
    /// Removals that failed, since the start.
    failed: u64,
    folders: Folders,
}

/// What is known of the folders of files, by the first byte of their objects.
#[derive(Debug)]
struct Folders([Folder; 256]);

#[derive(Clone, Copy, Debug, Default)]
struct Folder {
    /// Every file is gone for good that was removed from it. Otherwise a power cut may bring one
    /// back.
    sure: bool,
    /// It was looked for and was not there, and none was made since the start.
    absent: bool,
    made: bool,
}

impl Default for Folders {
    fn default() -> Self {
        Folders([Folder::default(); 256])
    }
}

impl Deletes {
    /// Whether nothing is in progress.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_progress.is_empty()
    }

    /// Whether `step` has something to do.
    pub(super) fn is_forgetting(&self) -> bool {
        !self.forgetting.is_empty()
    }

    /// Whether a file is there whose object is gone: a checkpoint now would let a boot miss it.
    pub(super) fn owes_removal(&self) -> bool {
        self.removing > 0
    }

    /// Counts the removals that failed: their files may be there.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Whether a removal from a folder may not be durable.
    pub(super) fn is_unsure(&self, folder: u8) -> bool {
        !self.folders.0[usize::from(folder)].sure
    }

    /// A folder was made durable.
    pub(super) fn made_durable(&mut self, folder: u8) {
        self.folders.0[usize::from(folder)].sure = true;
    }

    /// Whether a folder is known not to be there.
    pub(super) fn is_absent(&self, folder: u8) -> bool {
        let Folder { absent, made, .. } = self.folders.0[usize::from(folder)];
        absent && !made
    }

    /// A folder was looked for in vain.
    pub(super) fn set_absent(&mut self, folder: u8) {
        self.folders.0[usize::from(folder)].absent = true;
    }

    /// A folder is being made, if it is not there.
    pub(super) fn makes(&mut self, folder: u8) {
        self.folders.0[usize::from(folder)].made = true;
    }

    /// The tombstone of an object is durable, which was `before`.
    pub(super) fn begin(&mut self, address: Address, before: &Entry, askers: Vec<Asker>) {
        if let Some(slot) = self.by_address.get(&address) {
            // It was stored again before the first deletion was answered, or was there beside a
            // file that stood for nothing.
            let (last, all) = self.in_progress[*slot].next.get_or_insert((*before, Vec::new()));
            if matches!(before.location, Location::File { .. }) {
                *last = *before;
            }
            return all.extend(askers);
        }
        let has_file = matches!(before.location, Location::File { .. });
        let (groups, refused) = (group_count(before.size), None);
        self.insert(Deletion {
            address,
            askers,
            refused,
            has_file,
            groups,
            forgotten: 0,
            adoptions: Vec::new(),
            next: None,
        });
    }

    /// Whether a deletion of the object, or the removal of its file, is not over.
    pub(super) fn is_in_progress(&self, address: &Address) -> bool {
        self.by_address.contains_key(address)
    }

    /// Whether a file of this name is being removed that stands for no object.
    pub(super) fn is_taking_back(&self, address: &Address) -> bool {
        let slot = self.by_address.get(address);
        slot.is_some_and(|slot| self.in_progress[*slot].refused.is_some())
    }

    /// A file stands for no object: an upload has its place and could not be recorded, or a record
    /// in the log took its place. It is removed, then `askers` are answered.
    pub(super) fn take_back(&mut self, address: Address, askers: Vec<Asker>, fault: Fault) {
        self.insert(Deletion {
            address,
            askers,
            refused: Some(fault),
            has_file: true,
            groups: 0,
            forgotten: 0,
            adoptions: Vec::new(),
            next: None,
        });
    }

    fn insert(&mut self, deletion: Deletion) {
        let address = deletion.address;
        self.removing += usize::from(deletion.has_file);
        let slot = self.in_progress.insert(deletion);
        let before = self.by_address.insert(address, slot);
        assert!(before.is_none(), "{address} is stored while it is deleted");
        self.forgetting.push_back(slot);
    }

    /// Lets the cache forget some more groups, and removes the files of those that are forgotten.
    pub(super) fn step(&mut self, site: Site, cx: &mut Cx<'_>) {
        let mut left = limits::FORGET_TURN_MAX;
        while let Some(slot) = self.forgetting.front().copied() {
            let deletion = &mut self.in_progress[slot];
            let end = deletion.groups.min(deletion.forgotten + left);
            for index in deletion.forgotten..end {
                cx.memory.forget(&deletion.address, index);
            }
            left -= end - deletion.forgotten;
            deletion.forgotten = end;
            if end < deletion.groups {
                return;
            }
            self.forgetting.pop_front();
            if self.in_progress[slot].has_file {
                let path =
                    cx.config.layout.object_path(site.number, &self.in_progress[slot].address);
                site.disk(cx, Tag::Delete { slot }, DiskOp::Remove { path, durable: true });
            } else {
                let _ = self.finish(slot, cx);
            }
        }
    }

    /// A file is gone, or cannot be removed. Returns the uploads that waited for its place.
    pub(super) fn on_removed(
        &mut self,
        slot: usize,
        done: io::Result<DiskDone>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> (Address, Vec<Adoption>) {
        self.removing -= 1;
        if let Err(error) = done {
            // The tombstone is durable: whatever becomes of the file, the object is gone.
            let address = self.in_progress[slot].address;
            self.failed += 1;
            self.folders.0[usize::from(address.as_bytes()[0])].sure = false;
            let note = match self.in_progress[slot].refused {
                Some(_) => Note::RefusedFileStays { address, error: &error },
                None => Note::DeletedFileStays { address, error: &error },
            };
            site.note(cx, &note);
        }
        self.finish(slot, cx)
    }

    /// Puts a finished upload off while the file of the same object is being removed. Gives it
    /// back if none is.
    pub(super) fn defer(&mut self, address: &Address, adoption: Adoption) -> Option<Adoption> {
        match self.by_address.get(address) {
            Some(slot) if self.in_progress[*slot].has_file => {
                self.in_progress[*slot].adoptions.push(adoption);
                None
            }
            _ => Some(adoption),
        }
    }

    fn finish(&mut self, slot: usize, cx: &mut Cx<'_>) -> (Address, Vec<Adoption>) {
        let ended = self.in_progress.remove(slot);
        let Deletion { address, askers, refused, mut adoptions, next, .. } = ended;
        self.by_address.remove(&address);
        cx.stats.deletes.add(u64::from(refused.is_none()));
        for asker in askers {
            let reply = refused.map_or(Reply::Deleted, Reply::Failed);
            cx.replies.push_back((asker, reply));
        }
        if let Some((before, askers)) = next {
            self.begin(address, &before, askers);
            let begun = &mut self.in_progress[self.by_address[&address]];
            if begun.has_file {
                begun.adoptions = std::mem::take(&mut adoptions);
            }
        }
        (address, adoptions)
    }
}
