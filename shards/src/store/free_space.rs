//! The free space of a shard's volumes, and whether objects are taken.
//!
//! Free space is an account. What is to be written is *promised* first, and refused where what is
//! free above the reserve, less all that is promised already, is not enough for it; when it is
//! written it is taken off what is free. The account of a volume is one for all shards of the
//! process, so that they do not promise the same bytes twice.
//!
//! ```text
//!   free, as last read ── written since ── promised ── reserve  =  what may be promised
//! ```
//!
//! The free space of a volume is asked for when the store boots, after so many bytes written to
//! it, and every second while it is written to, has too little, or something was refused. While
//! nobody writes, nobody asks.
//!
//! Objects are refused here before the file system would refuse them. Where the account is wrong,
//! because somebody else fills the disk, a write fails and the object is refused all the same.

use std::{cell::Cell, path::PathBuf};

use ron_io::ports::Space;

use super::{accounts::Accounts, notes::SpaceNote};
use crate::{
    config::Config,
    limits::{FREE_SPACE_AFTER_NS, FREE_SPACE_WRITTEN_MAX},
};

/// There is no space for what was asked: how much that was, and what may be written instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEnough {
    pub asked: u64,
    pub free: u64,
}

/// The free space on a shard's volumes.
#[derive(Debug)]
pub struct FreeSpace {
    reserve: u64,
    accounts: Accounts,
    volumes: Vec<Volume>,
}

#[derive(Debug)]
struct Volume {
    path: PathBuf,
    /// Whether partitions of this shard lie on it and can be used.
    used: bool,
    /// As last read; everything before the first answer.
    free: u64,
    /// What was written to it, by all shards, when that was asked; and when it is being asked.
    known: u64,
    asking_at: u64,
    asked_ns: Option<u64>,
    asking: bool,
    full: bool,
    /// Few more files can be made on it.
    few_inodes: bool,
    /// Something was refused since it was asked for last: what is free may be more by now.
    refused: Cell<bool>,
}

impl FreeSpace {
    /// The free space of the volumes that a shard's partitions lie on.
    pub fn new(config: &Config) -> FreeSpace {
        let layout = &config.layout;
        let mut volumes: Vec<Volume> = layout.volumes.iter().cloned().map(Volume::new).collect();
        for partition in layout.partitions_of(config.shard) {
            volumes[layout.volume_number(partition)].used |= !layout.is_absent(partition);
        }
        let (reserve, accounts) = (config.storage.reserve_bytes, config.accounts.clone());
        FreeSpace { reserve, accounts, volumes }
    }

    /// Whether space for `len` more bytes could be set aside now.
    ///
    /// # Errors
    /// There is not so much.
    pub fn check(&self, volume: usize, len: u64) -> Result<(), NotEnough> {
        self.check_beside(volume, self.promised(volume), len)
    }

    /// Sets space for `len` more bytes aside, until they are written or released.
    ///
    /// # Errors
    /// There is not so much.
    pub fn promise(&self, volume: usize, len: u64) -> Result<(), NotEnough> {
        self.accounts.of(volume).promise(len, |promised| self.check_beside(volume, promised, len))
    }

    /// Gives back what was promised and is not going to be written.
    pub fn release(&self, volume: usize, len: u64) {
        self.accounts.of(volume).release(len);
    }

    /// Bytes are being written to a volume, `promised` of them as was promised.
    pub fn wrote(&self, volume: usize, len: u64, promised: u64) {
        self.accounts.of(volume).wrote(len, promised);
    }

    /// Bytes promised on a volume and not written.
    pub fn promised(&self, volume: usize) -> u64 {
        self.accounts.of(volume).promised()
    }

    fn check_beside(&self, volume: usize, promised: u64, len: u64) -> Result<(), NotEnough> {
        let Volume { free, few_inodes, refused, .. } = &self.volumes[volume];
        let left = free.saturating_sub(self.written(volume)).saturating_sub(promised);
        let free = left.saturating_sub(self.reserve);
        // Below the reserve nothing may be written, not even nothing.
        if free >= len && left >= self.reserve && !few_inodes {
            return Ok(());
        }
        refused.set(true);
        Err(NotEnough { asked: len, free: if *few_inodes { 0 } else { free } })
    }

    /// Bytes written to a volume since its free space was asked for.
    fn written(&self, volume: usize) -> u64 {
        let written = self.accounts.of(volume).written();
        written - self.volumes[volume].known
    }

    /// A volume whose free space is to be asked for now, if there is one, and where it is. The
    /// answer is for `update`.
    pub(super) fn ask(&mut self, now_ns: u64) -> Option<(u16, PathBuf)> {
        let due = |number: &usize| {
            let (volume, written) = (&self.volumes[*number], self.written(*number));
            let much = written >= FREE_SPACE_WRITTEN_MAX && volume.used && !volume.asking;
            much || volume.due(written).is_some_and(|due| due <= now_ns)
        };
        let number = (0..self.volumes.len()).find(due)?;
        let written = self.accounts.of(number).written();
        let volume = &mut self.volumes[number];
        (volume.asking, volume.asking_at, volume.asked_ns) = (true, written, Some(now_ns));
        volume.refused.set(false);
        Some((number as u16, volume.path.clone()))
    }

    /// When `ask` has something to say although nothing happened.
    pub(super) fn wake_at(&self) -> Option<u64> {
        let numbers = 0..self.volumes.len();
        numbers.filter_map(|number| self.volumes[number].due(self.written(number))).min()
    }

    /// A volume's free space is known; `None` if it cannot be asked for.
    pub(crate) fn update(&mut self, volume: u16, space: Option<Space>) -> Update {
        let known = &mut self.volumes[usize::from(volume)];
        known.asking = false;
        let Some(Space { free, few_inodes, .. }) = space else { return Update::AsBefore };
        (known.free, known.known, known.few_inodes) = (free, known.asking_at, few_inodes);
        let full = free < self.reserve || few_inodes;
        let was_full = std::mem::replace(&mut known.full, full);
        let (path, reserve) = (&known.path, self.reserve);
        let volume = || path.clone();
        match (was_full, known.full) {
            (false, true) if few_inodes => {
                Update::Changed(SpaceNote::FewInodes { volume: volume() })
            }
            (false, true) => Update::Changed(SpaceNote::Full { volume: volume(), free, reserve }),
            (true, false) => Update::Changed(SpaceNote::Recovered { volume: volume(), free }),
            _ => Update::AsBefore,
        }
    }

    /// Bytes free on the volume that has the least.
    pub(super) fn least_free(&self) -> u64 {
        let used = self.volumes.iter().filter(|volume| volume.used);
        used.map(|volume| volume.free).min().unwrap_or(0)
    }
}

/// What an answer changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Update {
    AsBefore,
    /// The operator is to know of it.
    Changed(SpaceNote),
}

impl Volume {
    fn new(path: PathBuf) -> Volume {
        Volume {
            path,
            used: false,
            free: u64::MAX,
            known: 0,
            asking_at: 0,
            asked_ns: None,
            asking: false,
            full: false,
            few_inodes: false,
            refused: Cell::new(false),
        }
    }

    /// When its free space is to be asked for, `written` bytes since the last time.
    fn due(&self, written: u64) -> Option<u64> {
        let Some(asked_ns) = self.asked_ns else { return self.used.then_some(0) };
        let changes = self.full || self.refused.get() || written > 0;
        let wanted = self.used && !self.asking && changes;
        wanted.then_some(asked_ns + FREE_SPACE_AFTER_NS)
    }
}

#[cfg(test)]
mod tests {
    use ron_io::ports::ShardId;

    use super::*;
    use crate::store::layout::Layout;

    fn space(reserve: u64) -> FreeSpace {
        let mut config = Config::new(ShardId(0), Layout::single("/data".into(), 2, 1));
        config.storage.reserve_bytes = reserve;
        FreeSpace::new(&config)
    }

    fn free(free: u64) -> Option<Space> {
        Some(Space { free, total: u64::MAX, few_inodes: false })
    }

    #[test]
    fn few_inodes_are_no_space() {
        let mut space = space(1000);
        space.ask(0);
        let few = Space { free: 1 << 40, total: 1 << 40, few_inodes: true };
        assert!(matches!(space.update(0, Some(few)), Update::Changed(SpaceNote::FewInodes { .. })));
        assert_eq!(space.promise(0, 0), Err(NotEnough { asked: 0, free: 0 }));
        assert_eq!(space.wake_at(), Some(FREE_SPACE_AFTER_NS), "it is looked at again");
        space.ask(FREE_SPACE_AFTER_NS);
        assert!(matches!(
            space.update(0, free(5000)),
            Update::Changed(SpaceNote::Recovered { .. })
        ));
        assert_eq!(space.promise(0, 100), Ok(()));
    }

    #[test]
    fn what_is_free_above_the_reserve_may_be_written() {
        let mut space = space(1000);
        assert!(space.check(0, 1 << 40).is_ok(), "before the first answer nothing is refused");
        assert_eq!(space.ask(5), Some((0, "/data".into())));
        assert_eq!(space.ask(5), None, "it is being asked for");
        assert_eq!(space.update(0, free(1500)), Update::AsBefore);
        assert!(space.check(0, 500).is_ok() && space.check(0, 501).is_err());
        space.wrote(0, 1, 0);
        assert!(space.check(0, 499).is_ok() && space.check(0, 500).is_err());
        assert!(space.check(0, u64::MAX).is_err());
    }

    #[test]
    fn a_refusal_makes_room_be_asked_for() {
        let mut space = space(1000);
        space.ask(0);
        space.update(0, free(1100));
        assert!(space.check(0, 101).is_err());
        assert_eq!(space.wake_at(), Some(1_000_000_000), "every second, though it is not full");
        assert!(space.ask(FREE_SPACE_AFTER_NS).is_some());
        space.update(0, free(2000));
        assert!(space.check(0, 101).is_ok());
        assert_eq!(space.wake_at(), None);
    }

    #[test]
    fn room_is_asked_for_while_it_changes_or_lacks() {
        let mut space = space(1000);
        space.ask(0);
        space.update(0, free(2000));
        assert_eq!(space.wake_at(), None, "nobody writes");
        space.wrote(0, 1, 0);
        assert_eq!(space.wake_at(), Some(FREE_SPACE_AFTER_NS));
        assert_eq!(space.ask(FREE_SPACE_AFTER_NS - 1), None);
        space.wrote(0, FREE_SPACE_WRITTEN_MAX, 0);
        assert!(space.ask(1).is_some(), "so much was written that the time does not matter");
        assert!(matches!(space.update(0, free(999)), Update::Changed(SpaceNote::Full { .. })));
        assert!(space.check(0, 0).is_err());
        assert_eq!(space.wake_at(), Some(1 + FREE_SPACE_AFTER_NS));
        assert!(space.ask(1 + FREE_SPACE_AFTER_NS).is_some());
        assert_eq!(space.update(0, None), Update::AsBefore);
        assert!(space.ask(1 + 2 * FREE_SPACE_AFTER_NS).is_some());
        assert!(matches!(
            space.update(0, free(1000)),
            Update::Changed(SpaceNote::Recovered { .. })
        ));
        assert_eq!((space.wake_at(), space.least_free()), (None, 1000));
    }

    #[test]
    fn what_is_promised_is_promised_once_to_all() {
        let mut config = Config::new(ShardId(0), Layout::single("/data".into(), 2, 2));
        config.storage.reserve_bytes = 1000;
        let mut spaces = [FreeSpace::new(&config), FreeSpace::new(&config)];
        for space in &mut spaces {
            space.ask(0);
            space.update(0, free(2000));
        }
        assert_eq!(spaces[0].promise(0, 600), Ok(()));
        assert_eq!(spaces[1].promise(0, 600), Err(NotEnough { asked: 600, free: 400 }));
        assert_eq!(spaces[1].promise(0, 400), Ok(()));
        assert!(spaces[0].check(0, 1).is_err() && spaces[0].check(0, 0).is_ok());
        assert_eq!(spaces[0].check(0, 1), Err(NotEnough { asked: 1, free: 0 }));
        assert_eq!(config.accounts.promised(), 1000, "to look sets nothing aside");
        // What is written is no longer promised, and not free for the one who did not write it.
        spaces[0].wrote(0, 600, 600);
        assert!(spaces[1].check(0, 1).is_err());
        spaces[0].release(0, 400);
        assert_eq!(config.accounts.promised(), 0, "either may give it back");
        assert!(spaces[0].check(0, 400).is_ok() && spaces[0].check(0, 401).is_err());
        assert_eq!(spaces[0].promised(0), 0);
        // Asked for anew it is in what is free.
        spaces[0].ask(FREE_SPACE_AFTER_NS).unwrap();
        spaces[1].wrote(0, 50, 0);
        spaces[0].update(0, free(1400));
        assert!(spaces[0].check(0, 350).is_ok() && spaces[0].check(0, 351).is_err());
    }

    #[test]
    #[should_panic(expected = "are released")]
    fn more_cannot_be_released_than_is_promised() {
        let space = space(0);
        space.promise(0, 5).unwrap();
        space.release(0, 6);
    }
}
