//! The files a partition has open: segments and object files, some idle ones kept for the next.
//!
//! A file in use is never closed. Of the idle ones the least recently used goes when there are too
//! many, or when a read needs a descriptor and the shard has none left for reads. The segment that
//! is being written is in use by the log.

use std::{collections::HashMap, io};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, DiskOp, FileId, OpenHow};
use slab::Slab;

use super::site::{Site, Tag};
use crate::flow::Cx;

/// A file of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FileKey {
    Segment(u32),
    Object(Address),
}

#[derive(Debug)]
struct Open {
    key: FileKey,
    file: FileId,
    /// Who waits for it to be opened, by the waiter's own number; `None` once it is open.
    waiting: Option<Vec<usize>>,
    /// Who uses it now.
    users: u32,
    /// When it was last asked for, counted in askings.
    used: u64,
    /// Its name is gone, or another file's: it is closed when nobody uses it.
    gone: bool,
}

/// The open files of one partition.
#[derive(Debug)]
pub(super) struct Files {
    open: Slab<Open>,
    by_key: HashMap<FileKey, usize>,
    askings: u64,
    idle_max: usize,
    /// How many are gone and still in use.
    gone: usize,
}

/// The answer to `Files::ask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The slot of a file that is open.
    Open(usize),
    /// It is being opened now, and the waiter will be among those of its `Arrival`.
    Opening,
    /// The shard has too many files open for reads: ask again.
    Later,
}

/// What became of an opening.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: FileKey,
    pub(super) waiting: Vec<usize>,
    pub(super) outcome: io::Result<()>,
}

impl Files {
    pub(super) fn new(idle_max: usize) -> Files {
        let (open, by_key) = (Slab::new(), HashMap::new());
        Files { open, by_key, askings: 0, idle_max, gone: 0 }
    }

    /// Asks for a file to be read.
    pub(super) fn ask(
        &mut self,
        key: FileKey,
        waiter: usize,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Asked {
        self.askings += 1;
        if let Some(slot) = self.by_key.get(&key) {
            let open = &mut self.open[*slot];
            open.used = self.askings;
            let Some(waiting) = &mut open.waiting else { return Asked::Open(*slot) };
            waiting.push(waiter);
            return Asked::Opening;
        }
        while self.open.len() >= self.idle_max && self.close_oldest(cx) {}
        let file = cx.tickets.read_file(cx.config.read_files_max);
        let Some(file) = file else { return Asked::Later };
        let waiting = Some(vec![waiter]);
        let slot = self.open.insert(Open {
            key,
            file,
            waiting,
            users: 0,
            used: self.askings,
            gone: false,
        });
        self.by_key.insert(key, slot);
        let path = match key {
            FileKey::Segment(segment) => cx.config.layout.segment_path(site.number, segment),
            FileKey::Object(address) => cx.config.layout.object_path(site.number, &address),
        };
        site.disk(cx, Tag::File { slot }, DiskOp::Open { file, path, how: OpenHow::Read });
        Asked::Opening
    }

    /// An opening has ended. The slot of one that failed is forgotten.
    pub(super) fn on_opened(
        &mut self,
        slot: usize,
        done: io::Result<DiskDone>,
        cx: &mut Cx<'_>,
    ) -> Arrival {
        let open = &mut self.open[slot];
        let waiting = open.waiting.take().expect("a file is opened once");
        let key = open.key;
        let outcome = match done {
            Ok(_) => Ok(()),
            Err(error) => {
                cx.tickets.forget_file(open.file);
                self.drop_slot(slot);
                Err(error)
            }
        };
        Arrival { key, waiting, outcome }
    }

    /// Takes up a file that the caller opened and uses.
    pub(super) fn insert(&mut self, key: FileKey, file: FileId) -> usize {
        self.askings += 1;
        let slot = self.open.insert(Open {
            key,
            file,
            waiting: None,
            users: 1,
            used: self.askings,
            gone: false,
        });
        let before = self.by_key.insert(key, slot);
        assert!(before.is_none(), "{key:?} is open twice");
        slot
    }

    pub(super) fn id(&self, slot: usize) -> FileId {
        self.open[slot].file
    }

    /// The caller uses the file until it calls `release`.
    pub(super) fn hold(&mut self, slot: usize) -> FileId {
        self.open[slot].users += 1;
        self.open[slot].file
    }

    pub(super) fn release(&mut self, slot: usize) {
        let users = &mut self.open[slot].users;
        *users = users.checked_sub(1).expect("a file is released as often as it was held");
    }

    /// Closes every file. None may be in use.
    pub(super) fn close_all(&mut self, cx: &mut Cx<'_>) {
        for open in self.open.drain() {
            assert!(open.users == 0 && open.waiting.is_none(), "{:?} is in use", open.key);
            cx.close_file(open.file);
        }
        self.by_key.clear();
        self.gone = 0;
    }

    /// The file of this name is gone, or is another one now: who asks from now on gets what there
    /// is then, and this one is closed as soon as nobody uses it.
    pub(super) fn forget(&mut self, key: FileKey, cx: &mut Cx<'_>) {
        let Some(slot) = self.by_key.remove(&key) else { return };
        self.open[slot].gone = true;
        self.gone += 1;
        self.close_gone(cx);
    }

    /// Closes files that are gone and were in use when that was found out.
    pub(super) fn close_gone(&mut self, cx: &mut Cx<'_>) {
        while self.gone > 0 {
            let has_ended = |open: &Open| open.gone && open.users == 0 && open.waiting.is_none();
            let Some((slot, _)) = self.open.iter().find(|(_, open)| has_ended(open)) else {
                return;
            };
            let open = self.drop_slot(slot);
            cx.close_file(open.file);
        }
    }

    fn drop_slot(&mut self, slot: usize) -> Open {
        let open = self.open.remove(slot);
        if open.gone {
            self.gone -= 1;
        } else {
            self.by_key.remove(&open.key);
        }
        open
    }

    /// Closes the file that nobody uses and nobody used for longest. False when all are in use.
    pub(super) fn close_oldest(&mut self, cx: &mut Cx<'_>) -> bool {
        let idle = self.open.iter().filter(|(_, open)| open.users == 0 && open.waiting.is_none());
        let Some((slot, _)) = idle.min_by_key(|(_, open)| open.used) else { return false };
        let open = self.drop_slot(slot);
        cx.close_file(open.file);
        true
    }
}
