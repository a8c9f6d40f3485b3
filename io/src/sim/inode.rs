//! The bytes of one file: what a reader sees, and what of it would outlive a failure of power.

use super::Chance;

/// What a disk keeps or loses whole.
pub(super) const SECTOR_LEN: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

/// A change that was not synced, or whose sync failed. Then a later sync does not carry it either,
/// because the kernel forgot that it had not reached the disk.
#[derive(Clone, Debug)]
struct Unsynced {
    change: Change,
    forgotten: bool,
}

/// A file without its names.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Descriptors of it.
    pub(super) opened: u32,
}

impl Inode {
    pub(super) fn write(&mut self, at: usize, bytes: Vec<u8>) {
        apply(&mut self.seen, at, &bytes);
        self.changed(Change::Write { at, bytes });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.seen.resize(len, 0);
        self.changed(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        let mut forgotten: Vec<Unsynced> = Vec::new();
        for unsynced in std::mem::take(&mut self.unsynced) {
            if unsynced.forgotten {
                forgotten.push(unsynced);
                continue;
            }
            // What was forgotten before is covered or cut off by what is durable now.
            let gone = match &unsynced.change {
                Change::Write { at, bytes } => *at..*at + bytes.len(),
                Change::Length(len) => *len..usize::MAX,
            };
            forgotten.retain(|before| match &before.change {
                Change::Write { at, bytes } => at + bytes.len() <= gone.start || *at >= gone.end,
                Change::Length(_) => false,
            });
            make(&unsynced.change, &mut self.synced);
        }
        self.unsynced = forgotten;
    }

    /// A sync failed: nobody knows what reached the disk, and nobody will try again.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.iter_mut().for_each(|unsynced| unsynced.forgotten = true);
    }

    /// The power fails: each unsynced change is there, or not, or there in part.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        for Unsynced { change, .. } in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Length(_) if chance.toss() => make(&change, &mut self.synced),
                Change::Length(_) => {}
                Change::Write { at, bytes } => {
                    // Many crashes take all or nothing of a write; the rest are torn.
                    let keep = chance.below(5);
                    for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
                        if keep == 0 || (keep > 1 && chance.toss()) {
                            apply(&mut self.synced, at + nth * SECTOR_LEN, sector);
                        }
                    }
                }
            }
        }
        self.seen.clone_from(&self.synced);
        self.opened = 0;
    }

    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Changes a stored bit behind everyone's back.
    pub(super) fn flip(&mut self, at: usize, bit: u32) {
        self.alter(|bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        });
    }

    /// Changes stored bytes behind everyone's back.
    pub(super) fn alter(&mut self, change: impl Fn(&mut Vec<u8>)) {
        change(&mut self.seen);
        change(&mut self.synced);
    }

    fn changed(&mut self, change: Change) {
        self.unsynced.push(Unsynced { change, forgotten: false });
    }
}

fn make(change: &Change, to: &mut Vec<u8>) {
    match change {
        Change::Write { at, bytes } => apply(to, *at, bytes),
        Change::Length(len) => to.resize(*len, 0),
    }
}

fn apply(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[at..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file of these changes holds after each of many crashes.
    fn crashed(make: impl Fn(&mut Inode)) -> Vec<Vec<u8>> {
        let crash = |seed| {
            let mut inode = Inode::default();
            make(&mut inode);
            inode.crash(&mut Chance::new(seed));
            inode.seen
        };
        (0..200).map(crash).collect()
    }

    #[test]
    fn what_is_synced_stays() {
        let all = crashed(|inode| {
            inode.write(0, vec![1; 4096]);
            inode.sync();
            inode.write(4096, vec![2; 4096]);
        });
        assert!(all.iter().all(|bytes| bytes[..4096] == [1; 4096]));
        let lens: Vec<usize> = all.iter().map(Vec::len).collect();
        assert!(lens.contains(&4096) && lens.contains(&8192), "lost, and kept");
        let torn = |bytes: &Vec<u8>| {
            let written = bytes[4096..].iter().filter(|byte| **byte == 2).count();
            written > 0 && written < 4096 && written.is_multiple_of(SECTOR_LEN)
        };
        assert!(all.iter().any(torn), "and torn at sectors");
    }

    #[test]
    fn a_failed_sync_is_not_repaired_by_another() {
        let all = crashed(|inode| {
            inode.write(0, vec![1; 512]);
            inode.fail_sync();
            inode.write(512, vec![2; 512]);
            inode.sync();
        });
        let lost = |bytes: &Vec<u8>| bytes[..512] == [0; 512];
        assert!(all.iter().any(lost) && !all.iter().all(lost));
        assert!(all.iter().all(|bytes| bytes[512..] == [2; 512]));
    }

    #[test]
    fn a_synced_cut_ends_what_was_forgotten() {
        let all = crashed(|inode| {
            inode.write(0, vec![1; 512]);
            inode.sync();
            inode.write(512, vec![2; 512]);
            inode.fail_sync();
            inode.set_len(512);
            inode.sync();
        });
        assert!(all.iter().all(|bytes| *bytes == [1; 512]));
    }

    #[test]
    fn a_flipped_bit_outlives_a_crash() {
        let all = crashed(|inode| {
            inode.write(0, vec![0; 512]);
            inode.sync();
            inode.flip(7, 3);
            inode.flip(512, 0);
        });
        assert!(all.iter().all(|bytes| bytes[7] == 8 && bytes.len() == 512));
    }
}
