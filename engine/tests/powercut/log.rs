//! The log of a `blklogwrites` disk: every write and flush of a guest, in the order in which QEMU
//! completed them.
//!
//! The format is that of dm-log-writes (`drivers/md/dm-log-writes.c` of Linux), all little-endian:
//! a super block of one sector, then entries. An entry is one sector that starts with its header,
//! followed by the sectors that it wrote, but for a discard, which brings none.
//!
//! ```text
//! super block:  magic u64 | version u64 | entries u64 | bytes of a sector u32
//! entry:        sector u64 | sectors u64 | flags u64 | length of a text u64
//! ```

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
pub(crate) const SECTOR: u64 = 512;

const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// One request of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// So many sectors from this one on; their bytes are in the log from `at` on.
    Write { sector: u64, sectors: u64, at: u64 },
    /// Everything that was completed before is durable.
    Flush,
    /// Those sectors may hold anything from now on. Nothing here asks for it, so nothing is done.
    Discard,
}

/// A log that was read, its data still in the file.
pub(crate) struct Log {
    file: File,
    pub(crate) entries: Vec<Entry>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_le_bytes(word)
}

impl Log {
    /// Reads the headers of all entries that the super block speaks for.
    pub(crate) fn open(path: &Path) -> io::Result<Log> {
        let file = File::open(path)?;
        let mut block = [0; SECTOR as usize];
        file.read_exact_at(&mut block, 0)?;
        assert_eq!(word(&block, 0), MAGIC, "{} is a write log", path.display());
        assert_eq!(word(&block, 8), VERSION, "its version is known");
        assert_eq!(word(&block, 24) as u32, SECTOR as u32, "its sectors have 512 bytes");
        let count = word(&block, 16);
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..count {
            file.read_exact_at(&mut block, at)?;
            let (sector, sectors, flags) = (word(&block, 0), word(&block, 8), word(&block, 16));
            at += SECTOR;
            entries.push(match flags {
                0 => Entry::Write { sector, sectors, at },
                FLUSH => Entry::Flush,
                DISCARD => Entry::Discard,
                _ => panic!("entry {} has the flags {flags:#x}", entries.len()),
            });
            if flags == 0 {
                at += sectors * SECTOR;
            }
        }
        Ok(Log { file, entries })
    }

    /// The bytes that an entry wrote.
    pub(crate) fn data(&self, at: u64, sectors: u64) -> io::Result<Vec<u8>> {
        let mut data = vec![0; (sectors * SECTOR) as usize];
        self.file.read_exact_at(&mut data, at)?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(words: [u64; 4]) -> Vec<u8> {
        let mut sector: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        sector.resize(SECTOR as usize, 0);
        sector
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let mut bytes = header([MAGIC, VERSION, 4, SECTOR]);
        bytes.extend(header([8, 2, 0, 0]));
        bytes.extend([7; 2 * SECTOR as usize]);
        bytes.extend(header([0, 0, FLUSH, 0]));
        bytes.extend(header([100, 50, DISCARD, 0]));
        bytes.extend(header([3, 1, 0, 0]));
        bytes.extend([9; SECTOR as usize]);
        // Behind the last flush there may be more, for which the super block does not speak.
        bytes.extend([0xff; 100]);
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        std::fs::write(file.path(), &bytes).expect("it can be written");
        let log = Log::open(file.path()).expect("it is a log");
        let write = |sector, sectors, at| Entry::Write { sector, sectors, at: at * SECTOR };
        let wanted = [write(8, 2, 2), Entry::Flush, Entry::Discard, write(3, 1, 7)];
        assert_eq!(log.entries, wanted);
        assert_eq!(log.data(7 * SECTOR, 1).expect("it is there"), [9; SECTOR as usize]);
    }
}
