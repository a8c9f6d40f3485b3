//! Where everything lies under the data directory, and which shard owns which part of it.
//!
//! This module only spells paths; it never looks whether they exist. The tree is chapter "The data
//! directory" of `docs/STORAGE.md`.

use std::path::{Path, PathBuf};

use ron_codec::address::Address;
use ron_io::ports::ShardId;

use crate::limits;

/// A data directory and who owns what of it.
///
/// Partition `p` lies on volume `p % volumes` and belongs to shard `p % shards`, so a directory may
/// be served by any number of shards up to the number of its partitions.
#[derive(Clone, Debug)]
pub struct Layout {
    /// At least one. Their number and order never change once partitions are made.
    pub volumes: Vec<PathBuf>,
    /// Volumes that cannot be used, by position: their partitions are absent.
    pub absent: Vec<u16>,
    /// Partitions whose folder is gone: they are absent, too.
    pub lost: Vec<u16>,
    /// 1 to 65 535.
    pub partitions: u16,
    /// 1 to `partitions`.
    pub shards: u16,
}

impl Layout {
    /// Everything in one folder.
    pub fn single(data_dir: PathBuf, partitions: u16, shards: u16) -> Layout {
        let (volumes, absent, lost) = (vec![data_dir], Vec::new(), Vec::new());
        Layout { volumes, absent, lost, partitions, shards }
    }

    /// The partition an object lies in, and the shard that owns it.
    #[inline]
    pub fn owner(&self, address: &Address) -> (u16, ShardId) {
        let partition = address.partition(self.partitions);
        (partition, ShardId(partition % self.shards))
    }

    /// The partitions of a shard, rising. The first has place 0 among them, and so on.
    pub fn partitions_of(&self, shard: ShardId) -> impl Iterator<Item = u16> + use<> {
        (shard.0..self.partitions).step_by(usize::from(self.shards))
    }

    /// The place of a partition among those of its shard.
    #[inline]
    pub fn place(&self, partition: u16) -> u16 {
        partition / self.shards
    }

    /// The volume a partition lies on.
    pub fn volume(&self, partition: u16) -> &Path {
        &self.volumes[self.volume_number(partition)]
    }

    /// Whether a partition's volume cannot be used, or its folder is gone.
    pub fn is_absent(&self, partition: u16) -> bool {
        let volume = self.volume_number(partition);
        self.absent.iter().any(|absent| usize::from(*absent) == volume) || self.is_lost(partition)
    }

    pub(super) fn is_lost(&self, partition: u16) -> bool {
        self.lost.contains(&partition)
    }

    /// The position of that volume.
    pub fn volume_number(&self, partition: u16) -> usize {
        usize::from(partition) % self.volumes.len()
    }

    pub fn partition_dir(&self, partition: u16) -> PathBuf {
        self.volume(partition).join(partition_name(partition))
    }

    pub fn segments_dir(&self, partition: u16) -> PathBuf {
        self.partition_dir(partition).join("segments")
    }

    /// A segment, by its number from 1.
    pub fn segment_path(&self, partition: u16, segment: u32) -> PathBuf {
        self.segments_dir(partition).join(format!("{segment:08}.seg"))
    }

    /// The mark of a segment with hidden records; no sequence of theirs is above this one. Older
    /// marks name none.
    pub fn hidden_path(&self, partition: u16, (segment, most): (u32, Option<u64>)) -> PathBuf {
        let most = most.map_or_else(String::new, |most| format!(".{most}"));
        self.segments_dir(partition).join(format!("{segment:08}{most}.hidden"))
    }

    /// Where the object files lie whose digest starts with this byte.
    pub fn objects_dir(&self, partition: u16, first: u8) -> PathBuf {
        self.partition_dir(partition).join("objects").join(format!("{first:02x}"))
    }

    pub fn object_path(&self, partition: u16, address: &Address) -> PathBuf {
        let [first, ..] = address.as_bytes();
        let hex = &address.to_string()[ron_codec::address::ADDRESS_PREFIX.len()..];
        self.objects_dir(partition, *first).join(format!("{hex}.obj"))
    }

    pub fn tmp_dir(&self, partition: u16) -> PathBuf {
        self.partition_dir(partition).join("tmp")
    }

    /// The `n`th upload of a shard in the process `boot_id`. Any partition will do: its owner
    /// sweeps those of other processes while it boots.
    pub fn tmp_path(&self, partition: u16, boot_id: u64, shard: ShardId, n: u64) -> PathBuf {
        self.tmp_dir(partition).join(format!("{}{}-{n}.tmp", upload_prefix(boot_id), shard.0))
    }

    pub fn index_dir(&self, partition: u16) -> PathBuf {
        self.partition_dir(partition).join("index")
    }
}

/// What the folder of a partition is called.
pub fn partition_name(partition: u16) -> String {
    format!("p{partition:03}")
}

/// How the names of uploads begin in the process `boot_id`.
pub(super) fn upload_prefix(boot_id: u64) -> String {
    format!("{boot_id:016x}-")
}

/// The number of a segment file, or `None` for a name that no segment has.
pub fn segment_number(name: &str) -> Option<u32> {
    numbered(name, ".seg")
}

/// The number of a snapshot of the index, or `None` for a name that none has.
pub(super) fn snapshot_number(name: &str) -> Option<u32> {
    numbered(name, ".idx")
}

/// The number of the segment that a mark is of, or `None` for a name that no mark has.
pub fn hidden_number(name: &str) -> Option<u32> {
    hidden_mark(name).map(|(segment, _)| segment)
}

/// The same, with the sequence that nothing hidden is above, if the mark names it.
pub(super) fn hidden_mark(name: &str) -> Option<(u32, Option<u64>)> {
    let mark = name.strip_suffix(".hidden")?;
    match mark.split_once('.') {
        None => numbered(name, ".hidden").map(|segment| (segment, None)),
        Some((segment, most)) => {
            let segment = numbered(&format!("{segment}.hidden"), ".hidden")?;
            let parsed: u64 = most.parse().ok()?;
            // One that no log reaches says nothing.
            let known = (parsed <= limits::SEQUENCE_MAX).then_some(parsed);
            (format!("{parsed}") == most).then_some((segment, known))
        }
    }
}

fn numbered(name: &str, ending: &str) -> Option<u32> {
    let digits = name.strip_suffix(ending)?;
    let number = digits.parse().ok()?;
    let is_ours = (1..=limits::FILE_NUMBER_MAX).contains(&number);
    (is_ours && format!("{number:08}") == digits).then_some(number)
}

/// The object in a file, or `None` for a name that no object file has.
pub fn object_address(name: &str) -> Option<Address> {
    let hex = name.strip_suffix(".obj")?;
    if hex.contains(':') { None } else { hex.parse().ok() }
}

/// The object that a file is an unfinished copy of, or `None` for other names.
pub(super) fn copy_address(name: &str) -> Option<Address> {
    let hex = name.strip_suffix(".part")?;
    if hex.contains(':') { None } else { hex.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::single("/data".into(), 7, 3)
    }

    #[test]
    fn every_partition_has_one_owner_and_one_place() {
        let layout = layout();
        let mut owned: Vec<u16> = Vec::new();
        for shard in 0..layout.shards {
            for (place, partition) in layout.partitions_of(ShardId(shard)).enumerate() {
                assert_eq!(usize::from(layout.place(partition)), place);
                assert_eq!(partition % layout.shards, shard);
                owned.push(partition);
            }
        }
        owned.sort_unstable();
        assert_eq!(owned, (0..7).collect::<Vec<_>>());
        let empty = Address::of(b"");
        assert_eq!(layout.owner(&empty), (4, ShardId(1)), "pinned by docs/STORAGE.md");
    }

    #[test]
    fn paths_are_spelled_as_documented() {
        let layout = layout();
        let empty = Address::of(b"");
        let text = |path: PathBuf| path.to_str().unwrap().to_string();
        assert_eq!(text(layout.segment_path(3, 1)), "/data/p003/segments/00000001.seg");
        let upload = text(layout.tmp_path(3, 0xab, ShardId(2), 9));
        assert_eq!(upload, "/data/p003/tmp/00000000000000ab-2-9.tmp");
        let object = text(layout.object_path(0, &empty));
        assert!(object.starts_with("/data/p000/objects/af/af1349b9f5"), "{object}");
        let name = object.rsplit('/').next().unwrap();
        assert_eq!(object_address(name), Some(empty));
    }

    #[test]
    fn foreign_names_are_no_segments_or_objects() {
        assert_eq!(segment_number("00000001.seg"), Some(1));
        assert_eq!(segment_number("123456789.seg"), Some(123_456_789));
        for name in ["", ".seg", "1.seg", "00000000.seg", "+0000001.seg", "00000001.tmp", "x"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
        assert_eq!(segment_number("99999999999.seg"), None);
        // One more than the highest that counts is a number, too.
        let most = u32::MAX / 4;
        assert_eq!(segment_number(&format!("{most}.seg")), Some(most));
        assert_eq!(segment_number(&format!("{}.seg", most + 1)), None);
        assert_eq!(snapshot_number(&format!("{}.idx", u32::MAX)), None);
        assert_eq!(object_address("b3:00.obj"), None);
        assert_eq!(object_address(&format!("b3:{}.obj", "0".repeat(64))), None);
        assert!(object_address(&format!("{}.obj", "0".repeat(64))).is_some());
    }
}
