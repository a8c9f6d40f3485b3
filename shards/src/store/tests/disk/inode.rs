//! A file of the disk twin: what a reader sees, and what a crash would leave.

use std::collections::BTreeMap;

use ron_io::splitmix::SplitMix64;

/// What a disk keeps or loses whole.
const SECTOR_LEN: usize = 512;

#[derive(Clone, Debug)]
enum Unsynced {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    pub(super) synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// What the disk has in place of sectors that a sync which failed was to bring there: they are
    /// read as they were written, and no later sync writes them.
    forgotten: BTreeMap<usize, Vec<u8>>,
}

impl Inode {
    /// A file whose bytes are all on the disk.
    pub(super) fn durable(bytes: Vec<u8>) -> Inode {
        Inode { seen: bytes.clone(), synced: bytes, ..Inode::default() }
    }

    pub(super) fn write(&mut self, at: usize, bytes: Vec<u8>) {
        let covered = at / SECTOR_LEN..(at + bytes.len()) / SECTOR_LEN;
        self.forgotten.retain(|sector, _| !covered.contains(sector));
        apply(&mut self.seen, at, &bytes);
        self.unsynced.push(Unsynced::Write { at, bytes });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.seen.resize(len, 0);
        self.forgotten.retain(|sector, _| sector * SECTOR_LEN < len);
        self.unsynced.push(Unsynced::Length(len));
    }

    pub(super) fn sync(&mut self) {
        self.synced.clone_from(&self.seen);
        for (sector, bytes) in &self.forgotten {
            apply(&mut self.synced, sector * SECTOR_LEN, bytes);
        }
        self.unsynced.clear();
    }

    /// What was written is forgotten, or with `all` has come to the disk before the failure.
    pub(super) fn fail_sync(&mut self, all: bool) {
        for change in &self.unsynced {
            let Unsynced::Write { at, bytes } = change else { continue };
            if all {
                apply(&mut self.synced, *at, bytes);
                continue;
            }
            for sector in at / SECTOR_LEN..(at + bytes.len()) / SECTOR_LEN {
                let from = (sector * SECTOR_LEN).min(self.synced.len());
                let to = (from + SECTOR_LEN).min(self.synced.len());
                let mut old = self.synced[from..to].to_vec();
                old.resize(SECTOR_LEN, 0);
                self.forgotten.entry(sector).or_insert(old);
            }
        }
        self.unsynced.retain(|change| !matches!(change, Unsynced::Write { .. }));
    }

    pub(super) fn crash(&mut self, entropy: &mut SplitMix64) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Unsynced::Length(len) if entropy.next_u64() & 1 == 0 => self.synced.resize(len, 0),
                Unsynced::Length(_) => {}
                Unsynced::Write { at, bytes } => {
                    // Most crashes take all or nothing of most writes; the rest are torn.
                    let keep = entropy.next_u64() % 5;
                    for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
                        if keep == 0 || (keep > 1 && entropy.next_u64() & 1 == 0) {
                            apply(&mut self.synced, at + nth * SECTOR_LEN, sector);
                        }
                    }
                }
            }
        }
        self.forgotten.clear();
        self.seen.clone_from(&self.synced);
    }
}

fn apply(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[at..end].copy_from_slice(bytes);
}
