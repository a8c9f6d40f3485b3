//! One operation on the bytes of an open file, from its submission to what came of it.
//!
//! Reads that begin on a page, as all groups of an object file do, go straight into their block,
//! and whole pages of blocks are written from where they lie. All else passes through a buffer,
//! because direct I/O moves whole sectors to and from aligned memory. Files without direct I/O are
//! treated alike.

use std::{io, os::fd::AsRawFd, sync::Arc};

use io_uring::{
    opcode, squeue,
    types::{Fd, FsyncFlags},
};

use super::{
    buffer::{Buffer, Spares},
    open::OpenFile,
};
use crate::{
    arena::BlockMut,
    limits::{DISK_OP_LEN_MAX, PAGE_LEN},
    ports::{DiskDone, Part, Ticket},
};

/// An operation in progress. Whatever the kernel reads or fills stays in here, unmoved, until the
/// operation has completed.
pub(super) struct Transfer {
    pub(super) ticket: Ticket,
    file: Arc<OpenFile>,
    work: Work,
}

enum Work {
    /// Into the block itself.
    Read {
        into: BlockMut,
        at: u64,
        len: usize,
    },
    /// Into a buffer, then the block.
    ReadAround {
        into: BlockMut,
        len: usize,
        span: Span,
    },
    /// Into a buffer, then memory of its own.
    Scan {
        len: usize,
        span: Span,
    },
    Write {
        at: u64,
        gather: Gather,
    },
    Sync,
}

/// Whole pages around bytes that are wanted: `skip` bytes of `buffer` come before them.
#[derive(Debug)]
struct Span {
    at: u64,
    skip: usize,
    /// Bytes to be read into the buffer.
    pages: usize,
    buffer: Buffer,
}

impl Span {
    fn around(at: u64, len: usize, spares: &mut Spares) -> Span {
        let skip = (at % PAGE_LEN as u64) as usize;
        let pages = (skip + len).next_multiple_of(PAGE_LEN);
        Span { at: at - skip as u64, skip, pages, buffer: spares.take(pages) }
    }

    fn entry(&mut self, fd: Fd) -> squeue::Entry {
        let start = self.buffer.bytes_mut()[..self.pages].as_mut_ptr();
        opcode::Read::new(fd, start, self.pages as u32).offset(self.at).build()
    }

    /// Of the `wanted` bytes, those that are there when `read` bytes were read.
    fn found(&self, read: usize, wanted: usize) -> &[u8] {
        let end = read.min(self.skip + wanted);
        &self.buffer.bytes()[self.skip.min(end)..end]
    }
}

/// The pieces of a write, in order: memory of blocks where it can be written from, and copies.
struct Gather {
    pieces: Vec<libc::iovec>,
    len: usize,
    /// Keeps the blocks whose memory is among the pieces.
    _parts: Vec<Part>,
    copies: Option<Buffer>,
}

impl Gather {
    fn new(parts: Vec<Part>, spares: &mut Spares) -> Gather {
        let len: usize = parts.iter().map(Part::len).sum();
        assert!(len <= DISK_OP_LEN_MAX && len.is_multiple_of(PAGE_LEN), "a write of {len} bytes");
        let lent: usize =
            lendable(&parts).filter(|(_, lend)| *lend).map(|(part, _)| part.len()).sum();
        let mut copies = (len > lent).then(|| spares.take(len - lent));
        let mut free = copies.as_mut().map_or(&mut [][..], |buffer| buffer.bytes_mut());
        let mut pieces: Vec<libc::iovec> = Vec::new();
        for (part, lend) in lendable(&parts) {
            let start = match part {
                Part::Block(slice) if lend => slice.bytes().as_ptr(),
                part => {
                    let (place, behind) = free.split_at_mut(part.len());
                    match part {
                        Part::Bytes(bytes) => place.copy_from_slice(bytes),
                        Part::Block(slice) => place.copy_from_slice(slice.bytes()),
                        Part::Zeros(_) => place.fill(0),
                    }
                    free = behind;
                    place.as_ptr()
                }
            };
            let iov_base = start.cast_mut().cast();
            match pieces.last_mut() {
                // What lies side by side is one piece.
                Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == iov_base => {
                    last.iov_len += part.len();
                }
                _ => pieces.push(libc::iovec { iov_base, iov_len: part.len() }),
            }
        }
        Gather { pieces, len, _parts: parts, copies }
    }

    fn entry(&self, fd: Fd, at: u64) -> squeue::Entry {
        match &self.pieces[..] {
            [one] => {
                let start = one.iov_base.cast_const().cast();
                opcode::Write::new(fd, start, one.iov_len as u32).offset(at).build()
            }
            many => opcode::Writev::new(fd, many.as_ptr(), many.len() as u32).offset(at).build(),
        }
    }
}

/// The parts that are not empty, and whether each can be written from where it lies: whole pages of
/// a block, on a page of the file.
fn lendable(parts: &[Part]) -> impl Iterator<Item = (&Part, bool)> {
    let mut at = 0;
    parts.iter().filter(|part| !part.is_empty()).map(move |part| {
        let aligned = |n: usize| n.is_multiple_of(PAGE_LEN);
        let lend = match part {
            Part::Block(slice) => aligned(slice.bytes().as_ptr().addr()) && aligned(part.len()),
            Part::Bytes(_) | Part::Zeros(_) => false,
        };
        let here = at;
        at += part.len();
        (part, lend && aligned(here))
    })
}

impl Transfer {
    pub(super) fn read(
        ticket: Ticket,
        file: Arc<OpenFile>,
        (at, len): (u64, u32),
        into: BlockMut,
        spares: &mut Spares,
    ) -> Transfer {
        let len = len as usize;
        assert!(len <= into.len(), "{len} bytes into a block of {}", into.len());
        let work = if at.is_multiple_of(PAGE_LEN as u64) {
            Work::Read { into, at, len }
        } else {
            Work::ReadAround { into, len, span: Span::around(at, len, spares) }
        };
        Transfer { ticket, file, work }
    }

    pub(super) fn scan(
        ticket: Ticket,
        file: Arc<OpenFile>,
        (at, len): (u64, u32),
        spares: &mut Spares,
    ) -> Transfer {
        let len = len as usize;
        assert!(len <= DISK_OP_LEN_MAX);
        Transfer { ticket, file, work: Work::Scan { len, span: Span::around(at, len, spares) } }
    }

    pub(super) fn write(
        ticket: Ticket,
        file: Arc<OpenFile>,
        at: u64,
        parts: Vec<Part>,
        spares: &mut Spares,
    ) -> Transfer {
        Transfer { ticket, file, work: Work::Write { at, gather: Gather::new(parts, spares) } }
    }

    pub(super) fn sync(ticket: Ticket, file: Arc<OpenFile>) -> Transfer {
        Transfer { ticket, file, work: Work::Sync }
    }

    /// What to submit. The transfer must be kept, in any place, until that has completed.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let fd = Fd(self.file.as_raw_fd());
        let entry = match &mut self.work {
            Work::Read { into, at, len } => {
                let pages = into.pages_mut(*len);
                opcode::Read::new(fd, pages.as_mut_ptr(), pages.len() as u32).offset(*at).build()
            }
            Work::ReadAround { span, .. } | Work::Scan { span, .. } => span.entry(fd),
            Work::Write { at, gather } => gather.entry(fd, *at),
            Work::Sync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        };
        match self.file.holds_up {
            // A thread of the kernel waits instead of the loop.
            true => entry.flags(squeue::Flags::ASYNC),
            false => entry,
        }
    }

    /// What came of it, by what the kernel answered.
    pub(super) fn finish(self, result: i32, spares: &mut Spares) -> io::Result<DiskDone> {
        let moved = match usize::try_from(result) {
            Ok(moved) => Ok(moved),
            Err(_) => Err(io::Error::from_raw_os_error(result.saturating_neg())),
        };
        match self.work {
            Work::Read { into, len, .. } => match moved? {
                read if read >= len => Ok(DiskDone::Read(into.freeze(len))),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
            Work::ReadAround { mut into, len, span } => {
                let done = moved.and_then(|read| match span.found(read, len) {
                    found if found.len() == len => {
                        into.bytes_mut()[..len].copy_from_slice(found);
                        Ok(DiskDone::Read(into.freeze(len)))
                    }
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                });
                spares.put(span.buffer);
                done
            }
            Work::Scan { len, span } => {
                let done = moved.map(|read| DiskDone::Scanned(span.found(read, len).to_vec()));
                spares.put(span.buffer);
                done
            }
            Work::Write { gather, .. } => {
                let len = gather.len;
                if let Some(copies) = gather.copies {
                    spares.put(copies);
                }
                match moved? {
                    written if written == len => Ok(DiskDone::Done),
                    // A short write is how a file system says that it just became full.
                    _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                }
            }
            Work::Sync => moved.map(|_| DiskDone::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{arena::Arena, ports::Slice};

    #[derive(Clone, Debug)]
    enum Piece {
        Bytes(usize),
        Zeros(usize),
        /// Bytes of a block from a start.
        Block(usize, usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let len = prop_oneof![0..3usize, Just(PAGE_LEN), 1..3 * PAGE_LEN];
        prop_oneof![
            len.clone().prop_map(Piece::Bytes),
            len.clone().prop_map(Piece::Zeros),
            (prop_oneof![Just(0), Just(PAGE_LEN), 0..100usize], len)
                .prop_map(|(start, len)| Piece::Block(start, len)),
            Just(Piece::Block(0, 65536)),
        ]
    }

    fn part(piece: &Piece, arena: &mut Arena) -> Part {
        match *piece {
            Piece::Bytes(len) => Part::Bytes((0..len).map(|n| (n % 251) as u8 + 1).collect()),
            Piece::Zeros(len) => Part::Zeros(len),
            Piece::Block(start, len) => {
                let mut block = arena.alloc(65536).unwrap();
                block.bytes_mut().iter_mut().enumerate().for_each(|(n, b)| *b = (n % 241) as u8);
                let end = (start + len).min(65536);
                let block = block.freeze(65536);
                Part::Block(Slice::part(block, start..end))
            }
        }
    }

    fn plain(parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Bytes(more) => bytes.extend_from_slice(more),
                Part::Block(slice) => bytes.extend_from_slice(slice.bytes()),
                Part::Zeros(len) => bytes.extend(std::iter::repeat_n(0, *len)),
            }
        }
        bytes
    }

    proptest! {
        /// Whatever the parts, the pieces are them in order, and each is fit for direct I/O.
        #[test]
        fn a_gathered_write_is_its_parts(pieces in prop::collection::vec(piece(), 1..12)) {
            let mut arena = Arena::new(16).unwrap();
            let mut parts: Vec<Part> = pieces.iter().map(|one| part(one, &mut arena)).collect();
            let len: usize = parts.iter().map(Part::len).sum();
            parts.push(Part::Zeros(len.next_multiple_of(PAGE_LEN) - len));
            let expected = plain(&parts);
            let gather = Gather::new(parts, &mut Spares::default());
            let mut found = Vec::new();
            for piece in &gather.pieces {
                prop_assert!(piece.iov_base.addr().is_multiple_of(PAGE_LEN));
                prop_assert!(piece.iov_len > 0 && piece.iov_len.is_multiple_of(PAGE_LEN));
                // SAFETY: the gather holds what its pieces point at.
                found.extend_from_slice(unsafe {
                    std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
                });
            }
            prop_assert_eq!(gather.len, found.len());
            prop_assert_eq!(found, expected);
        }

        /// A span covers what is wanted, in whole pages, and finds of it what was read.
        #[test]
        fn a_span_finds_what_is_there(
            at in 0u64..20_000,
            len in 0usize..20_000,
            file in 0usize..40_000,
        ) {
            let bytes: Vec<u8> = (0..file).map(|n| (n % 253) as u8).collect();
            let mut span = Span::around(at, len, &mut Spares::default());
            prop_assert!(span.at.is_multiple_of(PAGE_LEN as u64) && span.at <= at);
            prop_assert!(span.pages.is_multiple_of(PAGE_LEN) && span.pages >= span.skip + len);
            let start = (span.at as usize).min(file);
            let read = &bytes[start..(start + span.pages).min(file)];
            span.buffer.bytes_mut()[..read.len()].copy_from_slice(read);
            let at = (at as usize).min(file);
            prop_assert_eq!(span.found(read.len(), len), &bytes[at..(at + len).min(file)]);
        }
    }

    #[test]
    fn whole_blocks_are_written_from_where_they_lie() {
        let mut arena = Arena::new(16).unwrap();
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..4 {
            parts.push(part(&Piece::Block(0, 65536), &mut arena));
        }
        let gather = Gather::new(parts, &mut Spares::default());
        assert!(gather.copies.is_none(), "nothing was copied");
        assert_eq!(gather.len, 4 * 65536);
        assert_eq!(gather.pieces.len(), 1, "blocks side by side are one piece");
    }
}
