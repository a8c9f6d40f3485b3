//! Reading an archive as a stream, and going on behind what is damaged.
//!
//! ```text
//!   head ─► object, object, … ─► end ─► zeros, or another archive ─► the end of the stream
//!             └─ a header that is none: blocks are passed until one is
//! ```
//!
//! Headers are checked here and the bytes of objects are not: who reads them hashes them. A header
//! that is found after damage may be one inside of an object; its object is checked as any other.

use std::io::{self, Read};

use ron_codec::{address::Address, limits::OBJECT_LEN_MAX};

use super::{
    ArchiveError, BLOCK_LEN, END_NAME, HEAD_NAME, Member, TEXT_LEN_MAX, Tally,
    block::{self, Block, PAX, REGULAR},
    parse_head,
    pax::{self, Pax},
    write::Mark,
};

/// What comes next in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An object, whose bytes are to be read from the reader.
    Object(Member),
    /// Something that cannot be used, and the object that it is of, where that is known.
    Damaged { at: u64, address: Option<Address>, what: &'static str },
    /// The archive is complete; the end does or does not say the same as what was read.
    End { matches: bool },
}

/// An archive that is being read. Reading from it yields the bytes of the object found last.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    at: u64,
    /// Bytes of the member at hand, and of zeros behind them.
    left: u64,
    padding: u64,
    prefix: String,
    tally: Tally,
    last: Option<Address>,
    /// What a pax header says of the object that follows.
    pax: Option<Pax>,
    /// Whether the text of that header was damaged.
    pax_damaged: bool,
    /// A header that was read already.
    pushed: Option<Block>,
    /// Whether the end of the archive was found.
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read, and reads the head.
    ///
    /// # Errors
    /// It is no archive, or one of another version, or cannot be read.
    pub fn begin(input: R) -> Result<Reader<R>, ArchiveError> {
        let mut reader = Reader {
            input,
            at: 0,
            left: 0,
            padding: 0,
            prefix: String::new(),
            tally: Tally::default(),
            last: None,
            pax: None,
            pax_damaged: false,
            pushed: None,
            ended: false,
        };
        let block = reader.block()?.as_ref().and_then(Block::decode);
        let block = block.filter(|block| block.name == HEAD_NAME && block.kind == REGULAR);
        reader.head(&block.ok_or(ArchiveError::NoArchive)?)?;
        Ok(reader)
    }

    /// The hex digits that all addresses begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the archive was read to.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Objects that were found since the last head.
    pub fn objects(&self) -> u64 {
        self.tally.objects
    }

    /// What is next. The rest of the object before is passed over. `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream ends before the archive does, or cannot be read.
    pub fn find_next(&mut self) -> Result<Option<Found>, ArchiveError> {
        self.pass()?;
        loop {
            if let Some(block) = self.pushed.take() {
                let begin = self.at - BLOCK_LEN as u64;
                match self.member(&block, begin)? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            }
            let begin = self.at;
            let Some(bytes) = self.block()? else {
                return if self.ended { Ok(None) } else { Err(self.truncated()) };
            };
            // Zeros are between archives, and nothing else is.
            if self.ended && bytes == [0; BLOCK_LEN] {
                continue;
            }
            match Block::decode(&bytes).filter(is_ours) {
                Some(block) => self.pushed = Some(block),
                None => return self.resync(begin, &bytes).map(Some),
            }
        }
    }

    /// Where a writer may go on: behind the object found last.
    ///
    /// # Errors
    /// Those of `find_next`.
    pub fn mark(&mut self) -> Result<Mark, ArchiveError> {
        self.pass()?;
        Ok(Mark::new(self.at, self.tally.clone(), self.last))
    }

    /// Takes up a member; `None` when it says something of the next.
    fn member(&mut self, block: &Block, begin: u64) -> Result<Option<Found>, ArchiveError> {
        match block.kind {
            PAX => {
                let text = self.text(block)?;
                self.pax = text.and_then(|text| pax::parse(&block.name, &text));
                self.pax_damaged = self.pax.is_none();
                return Ok(None);
            }
            _ if block.name == HEAD_NAME => {
                // Another archive follows.
                self.head(block)?;
                return Ok(None);
            }
            _ if block.name == END_NAME => {
                let matches = self.text(block)?.is_some_and(|text| text == self.tally.text());
                self.ended = true;
                return Ok(Some(Found::End { matches }));
            }
            _ => {}
        }
        let (pax, damaged) = (self.pax.take().unwrap_or_default(), self.pax_damaged);
        self.pax_damaged = false;
        let address: Address = block.name.parse().map_err(|_| ArchiveError::NoArchive)?;
        let size = pax.size.unwrap_or(block.size);
        self.ended = false;
        self.tally.add(&address, size);
        self.last = Some(address);
        let damage = |what| Ok(Some(Found::Damaged { at: begin, address: Some(address), what }));
        if size > OBJECT_LEN_MAX {
            return damage("it is longer than any object");
        }
        self.take(size);
        if damaged {
            return damage("its pax header is damaged");
        }
        Ok(Some(Found::Object(Member { address, size, fields: pax.fields })))
    }

    /// Passes blocks until a header comes, which is next then.
    fn resync(&mut self, begin: u64, bytes: &[u8; BLOCK_LEN]) -> Result<Found, ArchiveError> {
        let address = block::name(bytes).and_then(|name| name.parse().ok());
        (self.pax, self.pax_damaged) = (None, false);
        let damaged = Found::Damaged { at: begin, address, what: "its header is damaged" };
        // Not the end of the archive, whatever was found before.
        self.ended = false;
        loop {
            let Some(bytes) = self.block()? else { return Ok(damaged) };
            if let Some(block) = Block::decode(&bytes).filter(is_ours) {
                self.pushed = Some(block);
                return Ok(damaged);
            }
        }
    }

    fn head(&mut self, block: &Block) -> Result<(), ArchiveError> {
        let text = self.text(block)?.ok_or(ArchiveError::NoArchive)?;
        self.prefix = parse_head(&text)?;
        (self.tally, self.last, self.ended) = (Tally::default(), None, false);
        Ok(())
    }

    /// The text of a member; `None` if it is too long, or no text.
    fn text(&mut self, block: &Block) -> Result<Option<String>, ArchiveError> {
        self.take(block.size);
        if block.size > TEXT_LEN_MAX {
            self.pass()?;
            return Ok(None);
        }
        let mut bytes = vec![0; block.size as usize];
        self.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        self.pass()?;
        Ok(String::from_utf8(bytes).ok())
    }

    /// A member of so many bytes begins.
    fn take(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK_LEN as u64) - size;
    }

    /// Passes over what is left of the member at hand.
    fn pass(&mut self) -> Result<(), ArchiveError> {
        let left = self.left + self.padding;
        let passed = io::copy(&mut self.input.by_ref().take(left), &mut io::sink())?;
        self.at += passed;
        (self.left, self.padding) = (0, 0);
        if passed < left { Err(self.truncated()) } else { Ok(()) }
    }

    /// The next block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_LEN]>, ArchiveError> {
        let mut bytes = [0; BLOCK_LEN];
        let mut got = 0;
        while got < BLOCK_LEN {
            match self.input.read(&mut bytes[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(self.truncated()),
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK_LEN as u64;
        Ok(Some(bytes))
    }

    fn truncated(&self) -> ArchiveError {
        ArchiveError::Truncated { at: self.at, objects: self.tally.objects }
    }

    /// What a failure to read the member at hand means.
    pub fn failed(&self, error: io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => error.into(),
        }
    }
}

impl<R: Read> Read for Reader<R> {
    /// The bytes of the object at hand. A stream that ends before them is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..len])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// Whether an archive of objects may have such a member.
fn is_ours(block: &Block) -> bool {
    match block.kind {
        PAX => pax::is_name(&block.name) && block.size <= TEXT_LEN_MAX,
        REGULAR => {
            [HEAD_NAME, END_NAME].contains(&&*block.name) || block.name.parse::<Address>().is_ok()
        }
        _ => false,
    }
}
