//! What the workload in the guest says of itself, in the write log itself.
//!
//! Behind the file system the disk has some sectors that nobody else uses. Before a request, and
//! after its answer, its client writes a line of text there, past the cache of the kernel, and
//! waits for it. So a line lies in the log behind every write that its answer depended on, and a
//! cut that comes later comes after the answer. The lines need not be durable: that the log has
//! them is all that counts. They ask for no flush, which would make other writes durable too.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    str::SplitWhitespace,
};

use crate::log::{Entry, Log, SECTOR};

/// Bytes of the disk that the file system has. What follows is for marks.
pub(crate) const FILE_SYSTEM_LEN: u64 = 128 << 20;

const MAGIC: &str = "ron-mark";
const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o200_000 } else { 0o40_000 };

/// An object by what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) seed: u64,
    pub(crate) len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A request is about to be sent.
    Begun { put: bool, name: Name },
    /// It was answered, with success.
    Answered { put: bool, name: Name },
    /// A node was started, the how manieth.
    Start(u64),
}

impl fmt::Display for Mark {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, put, name) = match *self {
            Mark::Begun { put, name } => ("begun", put, name),
            Mark::Answered { put, name } => ("answered", put, name),
            Mark::Start(nth) => return write!(to, "{MAGIC} start {nth} "),
        };
        let request = if put { "put" } else { "delete" };
        write!(to, "{MAGIC} {phase} {request} {} {} ", name.seed, name.len)
    }
}

impl Mark {
    fn parse(text: &str) -> Option<Mark> {
        let mut words = text.split_whitespace();
        let number = |words: &mut SplitWhitespace<'_>| words.next()?.parse::<u64>().ok();
        (words.next()? == MAGIC).then_some(())?;
        let phase = words.next()?;
        if phase == "start" {
            return Some(Mark::Start(number(&mut words)?));
        }
        let put = words.next()? == "put";
        let name = Name { seed: number(&mut words)?, len: number(&mut words)? as usize };
        match phase {
            "begun" => Some(Mark::Begun { put, name }),
            "answered" => Some(Mark::Answered { put, name }),
            _ => None,
        }
    }
}

/// Where one client of the workload leaves its marks.
pub(crate) struct Marker {
    disk: File,
    at: u64,
}

impl Marker {
    pub(crate) fn new(disk: &Path, client: u64) -> io::Result<Marker> {
        let disk = OpenOptions::new().write(true).custom_flags(O_DIRECT).open(disk)?;
        Ok(Marker { disk, at: FILE_SYSTEM_LEN + client * SECTOR })
    }

    /// Returns when the disk has taken it.
    pub(crate) fn leave(&self, mark: Mark) {
        let sector = SECTOR as usize;
        let mut memory = vec![0; 2 * sector];
        // Direct I/O wants memory that is aligned as the disk is.
        let start = memory.as_ptr().align_offset(sector);
        let text = mark.to_string();
        memory[start..start + text.len()].copy_from_slice(text.as_bytes());
        let written = self.disk.write_all_at(&memory[start..start + sector], self.at);
        written.expect("the disk takes a mark");
    }
}

/// All marks of a log, each with the number of its entry. The kernel may make one write of the
/// marks that several clients leave at once, because their sectors are neighbours.
pub(crate) fn read(log: &Log) -> io::Result<Vec<(usize, Mark)>> {
    let mut marks = Vec::new();
    for (number, entry) in log.entries.iter().enumerate() {
        let &Entry::Write { sector, sectors, at } = entry else { continue };
        if sector * SECTOR < FILE_SYSTEM_LEN {
            continue;
        }
        for mark in log.data(at, sectors)?.chunks(SECTOR as usize) {
            let text = String::from_utf8_lossy(mark);
            marks.push((number, Mark::parse(&text).expect("nobody else writes there")));
        }
    }
    Ok(marks)
}

/// What an object must be after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// Its bytes are served.
    Be,
    /// 404.
    NotBe,
    /// Something that would change it was begun and not answered. It may be whole, or gone.
    BeEither,
}

/// What the answers before a cut promise of each object of the workload.
#[derive(Clone, Default)]
pub(crate) struct Promises(pub(crate) BTreeMap<Name, Must>);

impl Promises {
    /// Objects of marks to come must not be there yet.
    pub(crate) fn new(marks: &[(usize, Mark)]) -> Promises {
        let mut all = BTreeMap::new();
        for (_, mark) in marks {
            if let Mark::Begun { name, .. } = mark {
                all.insert(*name, Must::NotBe);
            }
        }
        Promises(all)
    }

    pub(crate) fn take(&mut self, mark: Mark) {
        let (name, must) = match mark {
            Mark::Begun { put, name } => {
                let already = if put { Must::Be } else { Must::NotBe };
                let was = self.0.get(&name).copied().unwrap_or(Must::NotBe);
                (name, if was == already { already } else { Must::BeEither })
            }
            Mark::Answered { put: true, name } => (name, Must::Be),
            Mark::Answered { put: false, name } => (name, Must::NotBe),
            Mark::Start(_) => return,
        };
        self.0.insert(name, must);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { seed: 7, len: 1_048_577 };

    #[test]
    fn marks_are_read_as_they_were_left() {
        for put in [true, false] {
            for mark in [Mark::Begun { put, name: NAME }, Mark::Answered { put, name: NAME }] {
                assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
            }
        }
        assert_eq!(Mark::parse(&Mark::Start(3).to_string()), Some(Mark::Start(3)));
        assert_eq!(Mark::parse("ron-mark begun put 7"), None);
    }

    #[test]
    fn an_answer_is_a_promise_until_its_opposite_is_begun() {
        let (begun, answered) =
            (|put| Mark::Begun { put, name: NAME }, |put| Mark::Answered { put, name: NAME });
        let mut promises = Promises::new(&[(0, begun(true))]);
        let mut after = |mark| {
            promises.take(mark);
            promises.0[&NAME]
        };
        assert_eq!(after(Mark::Start(1)), Must::NotBe);
        assert_eq!(after(begun(false)), Must::NotBe);
        assert_eq!(after(begun(true)), Must::BeEither);
        assert_eq!(after(answered(true)), Must::Be);
        assert_eq!(after(begun(true)), Must::Be);
        assert_eq!(after(begun(false)), Must::BeEither);
        // It was not answered, so nobody knows, whatever comes next.
        assert_eq!(after(begun(false)), Must::BeEither);
        assert_eq!(after(answered(false)), Must::NotBe);
    }
}
