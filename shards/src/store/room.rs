//! How much room a shard's volumes have, and whether objects are taken.
//!
//! The room of a volume is asked for when the store boots, after so many bytes written to it, and
//! every second while it is written to, has too little, or something was refused. In between, what
//! was written is taken off what was free. Nobody writes: nobody asks.
//!
//! This room refuses objects before the file system would. Where it is wrong, because somebody
//! else fills the disk, a write fails and the object is refused all the same.

use std::{cell::Cell, path::PathBuf};

use crate::{
    config::Config,
    limits::{ROOM_AFTER_NS, ROOM_WRITTEN_MAX},
};

/// The room on a shard's volumes.
#[derive(Debug)]
pub struct Room {
    reserve: u64,
    volumes: Vec<Volume>,
}

#[derive(Debug)]
struct Volume {
    path: PathBuf,
    /// Whether partitions of this shard lie on it and can be used.
    used: bool,
    /// As last told; everything before the first answer.
    free: u64,
    /// Since it was asked for last.
    written: u64,
    asked_ns: Option<u64>,
    asking: bool,
    full: bool,
    /// Something was refused since it was asked for last: what is free may be more by now.
    refused: Cell<bool>,
}

impl Room {
    /// The room of the volumes that a shard's partitions lie on.
    pub fn new(config: &Config) -> Room {
        let layout = &config.layout;
        let mut volumes: Vec<Volume> = layout.volumes.iter().cloned().map(Volume::new).collect();
        for partition in layout.partitions_of(config.shard) {
            volumes[layout.volume_number(partition)].used |= !layout.is_absent(partition);
        }
        Room { reserve: config.storage.reserve_bytes, volumes }
    }

    /// Whether `len` more bytes may be written to a volume.
    pub fn takes(&self, volume: usize, len: u64) -> bool {
        let Volume { free, written, refused, .. } = &self.volumes[volume];
        let takes = free.saturating_sub(*written) >= self.reserve.saturating_add(len);
        refused.set(refused.get() || !takes);
        takes
    }

    /// Bytes are being written to a volume.
    pub fn wrote(&mut self, volume: usize, len: u64) {
        self.volumes[volume].written += len;
    }

    /// A volume whose room is to be asked for now, if there is one, and where it is. The answer is
    /// for `told`.
    pub(super) fn ask(&mut self, now_ns: u64) -> Option<(u16, PathBuf)> {
        let due = |volume: &Volume| {
            let much = volume.written >= ROOM_WRITTEN_MAX && volume.used && !volume.asking;
            much || volume.due().is_some_and(|due| due <= now_ns)
        };
        let number = self.volumes.iter().position(due)?;
        let volume = &mut self.volumes[number];
        (volume.asking, volume.written, volume.asked_ns) = (true, 0, Some(now_ns));
        volume.refused.set(false);
        Some((number as u16, volume.path.clone()))
    }

    /// When `ask` has something to say although nothing happened.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.volumes.iter().filter_map(Volume::due).min()
    }

    /// A volume's room is known: `free` bytes; `None` if it cannot be asked for.
    pub(crate) fn told(&mut self, volume: u16, free: Option<u64>) -> Told {
        let known = &mut self.volumes[usize::from(volume)];
        known.asking = false;
        let Some(free) = free else { return Told::AsBefore };
        known.free = free;
        let was_full = std::mem::replace(&mut known.full, free < self.reserve);
        let path = known.path.display();
        match (was_full, known.full) {
            (false, true) => {
                let reserve = self.reserve;
                Told::Full(format!("{path} is full: {free} bytes are free, {reserve} are kept"))
            }
            (true, false) => Told::RoomAgain(format!("{path} has room again: {free} bytes")),
            _ => Told::AsBefore,
        }
    }

    /// Bytes free on the volume that has the least.
    pub(super) fn least_free(&self) -> u64 {
        let used = self.volumes.iter().filter(|volume| volume.used);
        used.map(|volume| volume.free).min().unwrap_or(0)
    }
}

/// What an answer changed, in words for the operator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    AsBefore,
    Full(String),
    RoomAgain(String),
}

impl Volume {
    fn new(path: PathBuf) -> Volume {
        Volume {
            path,
            used: false,
            free: u64::MAX,
            written: 0,
            asked_ns: None,
            asking: false,
            full: false,
            refused: Cell::new(false),
        }
    }

    fn due(&self) -> Option<u64> {
        let Some(asked_ns) = self.asked_ns else { return self.used.then_some(0) };
        let changes = self.full || self.refused.get() || self.written > 0;
        let wanted = self.used && !self.asking && changes;
        wanted.then_some(asked_ns + ROOM_AFTER_NS)
    }
}

#[cfg(test)]
mod tests {
    use ron_io::ports::ShardId;

    use super::*;
    use crate::store::layout::Layout;

    fn room(reserve: u64) -> Room {
        let mut config = Config::new(ShardId(0), Layout::single("/data".into(), 2, 1));
        config.storage.reserve_bytes = reserve;
        Room::new(&config)
    }

    #[test]
    fn what_is_free_above_the_reserve_may_be_written() {
        let mut room = room(1000);
        assert!(room.takes(0, 1 << 40), "before the first answer nothing is refused");
        assert_eq!(room.ask(5), Some((0, "/data".into())));
        assert_eq!(room.ask(5), None, "it is being asked for");
        assert_eq!(room.told(0, Some(1500)), Told::AsBefore);
        assert!(room.takes(0, 500) && !room.takes(0, 501));
        room.wrote(0, 1);
        assert!(room.takes(0, 499) && !room.takes(0, 500));
        assert!(!room.takes(0, u64::MAX));
    }

    #[test]
    fn a_refusal_makes_room_be_asked_for() {
        let mut room = room(1000);
        room.ask(0);
        room.told(0, Some(1100));
        assert!(!room.takes(0, 101));
        assert_eq!(room.wake_at(), Some(ROOM_AFTER_NS), "though it is not full");
        assert!(room.ask(ROOM_AFTER_NS).is_some());
        room.told(0, Some(2000));
        assert!(room.takes(0, 101));
        assert_eq!(room.wake_at(), None);
    }

    #[test]
    fn room_is_asked_for_while_it_changes_or_lacks() {
        let mut room = room(1000);
        room.ask(0);
        room.told(0, Some(2000));
        assert_eq!(room.wake_at(), None, "nobody writes");
        room.wrote(0, 1);
        assert_eq!(room.wake_at(), Some(ROOM_AFTER_NS));
        assert_eq!(room.ask(ROOM_AFTER_NS - 1), None);
        room.wrote(0, ROOM_WRITTEN_MAX);
        assert!(room.ask(1).is_some(), "so much was written that the time does not matter");
        assert!(matches!(room.told(0, Some(999)), Told::Full(_)));
        assert!(!room.takes(0, 0));
        assert_eq!(room.wake_at(), Some(1 + ROOM_AFTER_NS));
        assert!(room.ask(1 + ROOM_AFTER_NS).is_some());
        assert_eq!(room.told(0, None), Told::AsBefore);
        assert!(room.ask(1 + 2 * ROOM_AFTER_NS).is_some());
        assert!(matches!(room.told(0, Some(1000)), Told::RoomAgain(_)));
        assert_eq!((room.wake_at(), room.least_free()), (None, 1000));
    }
}
