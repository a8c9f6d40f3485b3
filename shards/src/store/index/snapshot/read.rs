//! Reading a snapshot, as far as its frames are whole.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{
    BATCH_BLOCKS, BLOCK_LEN, BLOCK_SLOTS, BLOCK_TALLIES, BODY_LEN, COMMIT_LEN, Commit, HEAD_LEN,
    MAGIC, SLOTS, TALLIES, TALLY_LEN, checksum, path,
};
use crate::store::index::{
    entry::{Position, array},
    table::{SLOT_LEN, Slot, Table},
};

/// What a file holds.
#[derive(Debug)]
pub(in crate::store::index) struct Loaded {
    pub(in crate::store::index) generation: u32,
    pub(in crate::store::index) table: Table,
    /// The last commit, with the tombstones of all segments.
    pub(in crate::store::index) commit: Commit,
    /// Blocks of the base, and of all whole frames.
    pub(in crate::store::index) base_blocks: u32,
    pub(in crate::store::index) blocks: u32,
    /// What ends the file before its end: an append that a crash tore, or damage.
    pub(in crate::store::index) torn: Option<Unusable>,
}

/// Why a snapshot, or a frame of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The disk does not give it, and might another time.
    #[error(transparent)]
    Unread(#[from] io::Error),
    #[error("it is empty")]
    Empty,
    #[error("block {block} is cut")]
    Cut { block: u32 },
    #[error("block {block} does not match its checksum")]
    Checksum { block: u32 },
    #[error("block {block} is of another file or version")]
    Foreign { block: u32 },
    #[error("block {block} is of no known kind")]
    Kind { block: u32 },
    #[error("block {block} is out of order")]
    Order { block: u32 },
    #[error("block {block} ends another frame")]
    Frame { block: u32 },
    /// In the middle of a frame.
    #[error("it ends at block {block}")]
    Ends { block: u32 },
    /// No log has such a place.
    #[error("it knows the log to {0:?}")]
    Reaches(Position),
    #[error("it is stale and knows the log to {0:?}")]
    StaleReaches(Position),
    #[error("it is stale and names files that the log does not")]
    StaleFiles,
}

/// A file on its way into memory.
struct Reader {
    file: File,
    generation: u32,
    number: u32,
    /// What was read, and where the next block lies in it.
    bytes: Vec<u8>,
    at: usize,
}

/// What a block holds.
struct Block<'a> {
    kind: u8,
    count: usize,
    body: &'a [u8],
}

impl Reader {
    /// The next block; `None` at the end.
    fn next(&mut self) -> Result<Option<Block<'_>>, Unusable> {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
            let most = (BATCH_BLOCKS * BLOCK_LEN) as u64;
            (&mut self.file).take(most).read_to_end(&mut self.bytes)?;
        }
        let number = self.number;
        let block = &self.bytes[self.at..];
        if block.is_empty() {
            return Ok(None);
        }
        let Some(block) = block.get(..BLOCK_LEN) else {
            return Err(Unusable::Cut { block: number });
        };
        if block[..16] != checksum(block) {
            return Err(Unusable::Checksum { block: number });
        }
        let head: [u32; 3] = [16, 24, 28].map(|at| u32::from_le_bytes(array(block, at)));
        if head != [u32::from_le_bytes(MAGIC), self.generation, number] {
            return Err(Unusable::Foreign { block: number });
        }
        self.at += BLOCK_LEN;
        self.number += 1;
        let count = usize::from(u16::from_le_bytes(array(block, 22)));
        let most = [0, BLOCK_SLOTS, BLOCK_TALLIES, BODY_LEN - COMMIT_LEN];
        match most.get(usize::from(block[20])) {
            Some(most) if count <= *most => {}
            _ => return Err(Unusable::Kind { block: number }),
        }
        Ok(Some(Block { kind: block[20], count, body: &block[HEAD_LEN..] }))
    }

    /// The next frame; its slots are passed on in their order. `None` at the end.
    fn frame(&mut self, mut slot: impl FnMut(Slot) -> bool) -> Result<Option<Commit>, Unusable> {
        let (first, mut slots) = (self.number, 0);
        let mut tombstones = Vec::new();
        loop {
            let number = self.number;
            let Some(Block { kind, count, body }) = self.next()? else {
                let cut = number > first;
                return if cut { Err(Unusable::Ends { block: number }) } else { Ok(None) };
            };
            match kind {
                SLOTS => {
                    for bytes in body.chunks_exact(SLOT_LEN).take(count) {
                        if !slot(array(bytes, 0)) {
                            return Err(Unusable::Order { block: number });
                        }
                    }
                    slots += count as u64;
                }
                TALLIES => {
                    let tallies = body.chunks_exact(TALLY_LEN).take(count);
                    tombstones.extend(tallies.map(|tally| {
                        let (segment, count) = (array(tally, 0), array(tally, 4));
                        (u32::from_le_bytes(segment), u64::from_le_bytes(count))
                    }));
                }
                _ => {
                    let word = |at| u32::from_le_bytes(array(body, at));
                    let long = |at| u64::from_le_bytes(array(body, at));
                    if (long(20), word(28) as usize) != (slots, tombstones.len()) {
                        return Err(Unusable::Frame { block: number });
                    }
                    return Ok(Some(Commit {
                        position: Position { segment: word(0), offset: long(4) },
                        sequence: long(12),
                        tombstones,
                        mark: body[COMMIT_LEN..][..count].to_vec(),
                        previous: word(32),
                    }));
                }
            }
        }
    }
}

/// Reads a snapshot as far as its frames are whole.
///
/// # Errors
/// Why not even the base is.
pub(in crate::store::index) fn load(dir: &Path, generation: u32) -> Result<Loaded, Unusable> {
    let file = File::open(path(dir, generation))?;
    let mut reader = Reader { file, generation, number: 0, bytes: Vec::new(), at: 0 };
    let mut table = Table::new();
    let base = reader.frame(|slot| table.push(slot))?;
    let mut commit = base.ok_or(Unusable::Empty)?;
    let base_blocks = reader.number;
    let mut tombstones: BTreeMap<u32, u64> = commit.tombstones.iter().copied().collect();
    let mut changes: Vec<Slot> = Vec::new();
    let (blocks, torn) = loop {
        let blocks = reader.number;
        let frame = reader.frame(|slot| {
            changes.push(slot);
            true
        });
        match frame {
            Ok(None) => break (blocks, None),
            Err(why) => break (blocks, Some(why)),
            Ok(Some(next)) => {
                tombstones.extend(next.tombstones.iter().copied());
                commit = Commit { previous: commit.previous, ..next };
            }
        }
        for slot in changes.drain(..) {
            table.put(slot);
        }
    };
    tombstones.retain(|_, count| *count > 0);
    commit.tombstones = tombstones.into_iter().collect();
    Ok(Loaded { generation, table, commit, base_blocks, blocks, torn })
}
