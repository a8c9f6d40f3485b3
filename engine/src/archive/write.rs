//! Writing an archive, member by member.

use std::io::{self, Write};

use ron_codec::address::Address;

use super::{
    BLOCK_LEN, END_NAME, HEAD_NAME, Member, Tally,
    block::{Block, REGULAR, SIZE_MAX},
    head_text, pax,
};

const ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// An archive that is being written: `begin`, then for each object `object`, its bytes with `body`
/// and `close`; at last `end`.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes that were written.
    at: u64,
    tally: Tally,
    last: Option<Address>,
    /// Bytes of the object at hand that are still to come.
    left: u64,
}

/// A place to which an archive can be cut back.
#[derive(Clone, Debug)]
pub struct Mark {
    pub at: u64,
    tally: Tally,
    last: Option<Address>,
}

impl Mark {
    pub(super) fn new(at: u64, tally: Tally, last: Option<Address>) -> Mark {
        Mark { at, tally, last }
    }

    /// The last object before it.
    #[must_use]
    pub fn last(&self) -> Option<Address> {
        self.last
    }

    #[must_use]
    pub fn objects(&self) -> u64 {
        self.tally.objects
    }
}

impl<W: Write> Writer<W> {
    /// Begins an archive of the objects whose addresses begin with these hex digits.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, prefix: &str) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, at: 0, tally: Tally::default(), last: None, left: 0 };
        writer.text(HEAD_NAME, &head_text(prefix))?;
        Ok(writer)
    }

    /// Goes on with an archive: `out` has all up to `mark`, and is to get what follows.
    pub fn go_on(out: W, mark: Mark) -> Writer<W> {
        let Mark { at, tally, last } = mark;
        Writer { out, at, tally, last, left: 0 }
    }

    /// The place that was reached, between two objects.
    pub fn mark(&self) -> Mark {
        assert_eq!(self.left, 0, "an object is complete");
        Mark::new(self.at, self.tally.clone(), self.last)
    }

    /// What was written is as it was at `mark`: the caller has cut `out` back.
    pub fn cut_back(&mut self, mark: Mark) {
        (self.at, self.tally, self.last, self.left) = (mark.at, mark.tally, mark.last, 0);
    }

    /// Begins an object.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// # Panics
    /// If the one before is not complete, or its address not lower.
    pub fn object(&mut self, member: &Member) -> io::Result<()> {
        let Member { address, size, fields } = member;
        assert_eq!(self.left, 0, "the object before is complete");
        assert!(self.last.is_none_or(|last| last < *address), "{address} is in its order");
        if let Some((block, text)) = pax::header(*size, fields) {
            self.write(&block.encode())?;
            self.write(text.as_bytes())?;
            self.pad(block.size)?;
        }
        let in_header = if *size > SIZE_MAX { 0 } else { *size };
        let block = Block { name: address.to_string(), size: in_header, kind: REGULAR };
        self.write(&block.encode())?;
        self.tally.add(address, *size);
        self.last = Some(*address);
        self.left = *size;
        Ok(())
    }

    /// The next bytes of the object.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// # Panics
    /// If they are more than were announced.
    pub fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes.len() as u64).expect("no more than announced");
        self.write(bytes)
    }

    /// The object ends. What is missing of it is filled with zeros: who reads the archive finds it
    /// damaged.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn close(&mut self, member: &Member) -> io::Result<()> {
        while self.left > 0 {
            let len = self.left.min(BLOCK_LEN as u64);
            self.body(&ZEROS[..len as usize])?;
        }
        self.pad(member.size)
    }

    /// Ends the archive, and returns what it holds.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(mut self) -> io::Result<(W, Tally)> {
        self.text(END_NAME, &self.tally.text())?;
        self.write(&ZEROS)?;
        self.write(&ZEROS)?;
        self.out.flush()?;
        Ok((self.out, self.tally))
    }

    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// A member with a short text.
    fn text(&mut self, name: &str, text: &str) -> io::Result<()> {
        let block = Block { name: name.to_owned(), size: text.len() as u64, kind: REGULAR };
        self.write(&block.encode())?;
        self.write(text.as_bytes())?;
        self.pad(block.size)
    }

    /// Fills the last block of a member of so many bytes.
    fn pad(&mut self, len: u64) -> io::Result<()> {
        let beyond = (len % BLOCK_LEN as u64) as usize;
        self.write(if beyond == 0 { &[] } else { &ZEROS[beyond..] })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}
