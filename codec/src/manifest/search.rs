//! Finding one entry of a manifest by reading few of its groups.
//!
//! ```text
//!  Head ──group 0──► Halving ──the group it begins in──► Line ──► Found
//!    │                  │  ▲                               │  ▲
//!    │                  └──┘ another group                 └──┘ its line ends in the next group
//!    └─ not a bundle    (each halves what is left)
//! ```
//!
//! The caller reads the group it is asked for, has it verified, and gives it. A manifest may have
//! been made by anyone: one whose lines are not sorted as they should be has entries that are not
//! found, and costs no more than another.

use std::cmp::Ordering;

use super::{
    entry::{Entry, PATH},
    error::ManifestError,
    head::{Head, Payment},
    text::compare,
};
use crate::limits::{GROUP_LEN, MANIFEST_HEAD_LEN_MAX, MANIFEST_LINE_LEN_MAX};

// Every group but the last has the whole path of the first line that begins in it.
const _: () = assert!(MANIFEST_HEAD_LEN_MAX + 2 * MANIFEST_LINE_LEN_MAX < GROUP_LEN);

#[cfg(test)]
thread_local! {
    /// Lines that were looked at, for a test of what a search costs.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The search for one path in one manifest.
#[derive(Clone, Debug)]
pub struct Search {
    path: Box<str>,
    /// The group that the line begins in, if there is one, is one of `low..high`.
    low: u64,
    high: u64,
    groups: u64,
    payment: Option<Payment>,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Halving,
    /// The line, if there is one, begins so, and goes on in group `high`.
    Line(Vec<u8>),
}

/// What a search wants next, or has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Give it this group.
    Read(u64),
    Found(Entry),
    /// The manifest has no such path.
    Missing,
}

impl Search {
    /// Begins to look for `path` in a manifest of `size` bytes. It wants group 0 first.
    #[must_use]
    pub fn new(path: &str, size: u64) -> Search {
        let groups = size.div_ceil(GROUP_LEN as u64);
        Search {
            path: path.into(),
            low: 0,
            high: groups,
            groups,
            payment: None,
            state: State::Head,
        }
    }

    /// What is looked for.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The terms of the bundle, once its first group was read.
    #[must_use]
    pub const fn payment(&self) -> Option<&Payment> {
        self.payment.as_ref()
    }

    /// Bytes of memory that are kept besides the value itself.
    #[must_use]
    pub fn heap(&self) -> usize {
        let line = match &self.state {
            State::Line(begun) => begun.capacity(),
            State::Head | State::Halving => 0,
        };
        self.path.len() + line + self.payment.as_ref().map_or(0, Payment::heap)
    }

    /// Takes the group it asked for, number `index`.
    ///
    /// # Errors
    /// When the text is no manifest, or a line is not spelled as it should be.
    pub fn on_group(&mut self, index: u64, group: &[u8]) -> Result<Next, ManifestError> {
        match std::mem::replace(&mut self.state, State::Halving) {
            State::Head => {
                self.payment = Head::parse(group)?.0.payment;
                self.halve(index, group)
            }
            State::Halving => {
                let first = first_line(index, group).map(|at| self.look(index, &group[at..]));
                match first {
                    Some(Seen::Less | Seen::Equal | Seen::Cut) => self.low = index,
                    Some(Seen::Greater | Seen::NoEntry) | None => self.high = index,
                }
                self.halve(index, group)
            }
            State::Line(mut line) => {
                let end = memchr::memchr(b'\n', group).map_or(group.len(), |end| end + 1);
                line.extend_from_slice(&group[..end.min(MANIFEST_LINE_LEN_MAX)]);
                self.take(&line)
            }
        }
    }

    /// Asks for the group in the middle of what is left, or looks into the one that is left.
    fn halve(&mut self, index: u64, group: &[u8]) -> Result<Next, ManifestError> {
        if self.high - self.low > 1 {
            return Ok(Next::Read(self.low.midpoint(self.high)));
        }
        if self.low != index {
            return Ok(Next::Read(self.low));
        }
        let first = first_line(index, group).unwrap_or(group.len());
        let line = match self.look(index, &group[first..]) {
            Seen::Less | Seen::Equal | Seen::Cut => &group[self.candidate(index, group, first)..],
            // It comes before the first entry, or there is none.
            Seen::Greater | Seen::NoEntry => return Ok(Next::Missing),
        };
        match memchr::memchr(b'\n', line) {
            Some(end) => self.take(&line[..=end]),
            None if line.len() < MANIFEST_LINE_LEN_MAX && index + 1 < self.groups => {
                self.state = State::Line(line.to_vec());
                Ok(Next::Read(index + 1))
            }
            None => Err(ManifestError::Line { max: MANIFEST_LINE_LEN_MAX }),
        }
    }

    /// Where the line begins in a group that is the one, or may be because its path ends in the
    /// next group. If there is none: where one begins that comes before. That at `low` is no
    /// greater.
    fn candidate(&self, index: u64, group: &[u8], mut low: usize) -> usize {
        let (mut high, mut cut) = (group.len(), None);
        loop {
            let middle = low.midpoint(high);
            let Some(end) = memchr::memchr(b'\n', &group[middle..high]) else {
                // No line begins behind the middle.
                if middle == low {
                    break;
                }
                high = middle;
                continue;
            };
            let at = middle + end + 1;
            match self.look(index, &group[at..]) {
                Seen::Equal => return at,
                Seen::Less => low = at,
                Seen::Cut => (high, cut) = (middle.min(at - 1), Some(at)),
                Seen::Greater | Seen::NoEntry => high = middle.min(at - 1),
            }
        }
        match self.look(index, &group[low..]) {
            Seen::Equal => low,
            _ => cut.unwrap_or(low),
        }
    }

    /// A whole line, which is the entry if there is one.
    fn take(&self, line: &[u8]) -> Result<Next, ManifestError> {
        let Some(quoted) = line.strip_prefix(PATH) else { return Ok(Next::Missing) };
        match compare(quoted, self.path.as_bytes()) {
            Some(Ordering::Equal) => Entry::parse(line).map(Next::Found),
            _ => Ok(Next::Missing),
        }
    }

    /// What begins here, in what is left of group `index`.
    fn look(&self, index: u64, bytes: &[u8]) -> Seen {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let Some(quoted) = bytes.strip_prefix(PATH) else {
            // Or begins with the next group.
            let is_cut = PATH.starts_with(bytes) && index + 1 < self.groups;
            return if is_cut { Seen::Cut } else { Seen::NoEntry };
        };
        match compare(quoted, self.path.as_bytes()) {
            Some(Ordering::Less) => Seen::Less,
            Some(Ordering::Equal) => Seen::Equal,
            Some(Ordering::Greater) => Seen::Greater,
            None => Seen::Cut,
        }
    }
}

/// How the path of a line compares with the one that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Less,
    Equal,
    Greater,
    /// It is not all there, and so far it is the same.
    Cut,
    /// There is no line of an entry.
    NoEntry,
}

/// Where the first line of an entry begins in a group, unless none does.
fn first_line(index: u64, group: &[u8]) -> Option<usize> {
    if index == 0 {
        return Head::parse(group).ok().map(|(_, len)| len);
    }
    memchr::memchr(b'\n', group).map(|end| end + 1)
}
