//! Which images a cut can leave, and how they are made out of a write log.
//!
//! What was flushed is there. Of every later write any sectors may be there, whatever came before
//! or after it: a disk writes what its cache holds in the order it likes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
};

use crate::{
    common::Dice,
    log::{Entry, Log, SECTOR},
    marks::FILE_SYSTEM_LEN,
};

/// What became of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unflushed {
    /// There are none: the cut comes right behind a flush.
    Nothing,
    Lost,
    Kept,
    /// Only the last of them is there.
    LastKept,
    /// Each is there or not.
    SomeKept,
    /// Of each any sectors are there.
    Torn,
    /// Of each any sectors are there, and where several wrote the same, any of them was the last.
    TornAndReordered,
}

/// One cut: what was completed before it, and what it left of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its number and the seed of the run make it again.
    pub(crate) number: u64,
    /// Entries that were completed.
    pub(crate) end: usize,
    /// Entries up to the last flush among them.
    pub(crate) flushed: usize,
    pub(crate) unflushed: Unflushed,
    dice: u64,
}

/// The places where a log can be cut.
pub(crate) struct Places {
    /// The entry behind each flush.
    behind_flushes: Vec<usize>,
    /// From the entry behind a flush to the next flush, where the file system is written between.
    gaps: Vec<(usize, usize)>,
}

fn is_of_file_system(entry: &Entry) -> bool {
    matches!(entry, Entry::Write { sector, .. } if sector * SECTOR < FILE_SYSTEM_LEN)
}

impl Places {
    pub(crate) fn new(entries: &[Entry]) -> Places {
        let flushes = entries.iter().enumerate().filter(|(_, entry)| **entry == Entry::Flush);
        let behind_flushes: Vec<usize> = flushes.map(|(number, _)| number + 1).collect();
        let starts = std::iter::once(0).chain(behind_flushes.iter().copied());
        let ends = behind_flushes.iter().map(|behind| behind - 1).chain([entries.len()]);
        let gaps = starts.zip(ends);
        let gaps = gaps.filter(|(start, end)| entries[*start..*end].iter().any(is_of_file_system));
        Places { gaps: gaps.collect(), behind_flushes }
    }

    pub(crate) fn flushes(&self) -> usize {
        self.behind_flushes.len()
    }

    /// Every second cut comes right behind a flush, and they take all flushes in turn, in large
    /// strides. The others come anywhere between two flushes.
    pub(crate) fn cut(&self, seed: u64, number: u64) -> Cut {
        let mut dice = Dice(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(number));
        if number.is_multiple_of(2) {
            let count = self.behind_flushes.len() as u64;
            let nth = (number / 2 * stride(count) + seed) % count;
            let end = self.behind_flushes[nth as usize];
            return Cut { number, end, flushed: end, unflushed: Unflushed::Nothing, dice: 0 };
        }
        let (start, end) = self.gaps[dice.below(self.gaps.len() as u64) as usize];
        let end = start + 1 + dice.below((end - start) as u64) as usize;
        let unflushed = match dice.below(8) {
            0 => Unflushed::Lost,
            1 => Unflushed::Kept,
            2 => Unflushed::LastKept,
            3 | 4 => Unflushed::SomeKept,
            5 | 6 => Unflushed::Torn,
            _ => Unflushed::TornAndReordered,
        };
        Cut { number, end, flushed: start, unflushed, dice: dice.below(u64::MAX) }
    }

    /// The same cut on a disk that did not do the last flushes: what they made durable is lost.
    pub(crate) fn lied_to(&self, cut: Cut, flushes: usize) -> Cut {
        let before = self.behind_flushes.partition_point(|behind| *behind <= cut.flushed);
        let flushed = before.checked_sub(flushes + 1).map_or(0, |nth| self.behind_flushes[nth]);
        Cut { flushed, unflushed: Unflushed::Lost, ..cut }
    }
}

/// A step through `count` places that meets all of them.
fn stride(count: u64) -> u64 {
    let coprime = |step: &u64| {
        let (mut a, mut b) = (*step, count);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (count * 618 / 1000 + 1..).find(coprime).expect("there is a coprime above any number")
}

/// The unflushed writes that a cut left, in the order in which they reached the disk; of each the
/// entry and the sectors of it that are there.
pub(crate) fn left(entries: &[Entry], cut: &Cut) -> Vec<(usize, Vec<u64>)> {
    let mut dice = Dice(cut.dice);
    let unflushed = (cut.flushed..cut.end).filter(|number| is_of_file_system(&entries[*number]));
    let mut unflushed: Vec<usize> = unflushed.collect();
    if cut.unflushed == Unflushed::TornAndReordered {
        for nth in (1..unflushed.len()).rev() {
            unflushed.swap(nth, dice.below(nth as u64 + 1) as usize);
        }
    }
    let last = unflushed.last().copied();
    let mut sectors_of = |number: usize| {
        let Entry::Write { sectors, .. } = entries[number] else { return Vec::new() };
        let all = 0..sectors;
        match cut.unflushed {
            Unflushed::Nothing | Unflushed::Lost => Vec::new(),
            Unflushed::Kept => all.collect(),
            Unflushed::LastKept => all.filter(|_| Some(number) == last).collect(),
            Unflushed::SomeKept if dice.coin() => all.collect(),
            Unflushed::SomeKept => Vec::new(),
            Unflushed::Torn | Unflushed::TornAndReordered => match dice.below(4) {
                0 => all.collect(),
                1 => Vec::new(),
                // A part that ends somewhere, as a disk writes them, or any of them.
                2 => (0..dice.below(sectors + 1)).collect(),
                _ => all.filter(|_| dice.coin()).collect(),
            },
        }
    };
    unflushed.into_iter().map(|number| (number, sectors_of(number))).collect()
}

/// A disk on which a log is played forward.
pub(crate) struct Disk {
    file: File,
    played: usize,
}

impl Disk {
    pub(crate) fn open(path: &Path) -> io::Result<Disk> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Disk { file, played: 0 })
    }

    /// Writes what the log has up to this entry.
    pub(crate) fn play(&mut self, log: &Log, end: usize) -> io::Result<()> {
        assert!(self.played <= end, "cuts are taken in the order of the log");
        for entry in &log.entries[self.played..end] {
            if let Entry::Write { sector, sectors, at } = *entry
                && is_of_file_system(entry)
            {
                self.file.write_all_at(&log.data(at, sectors)?, sector * SECTOR)?;
            }
        }
        self.played = end;
        Ok(())
    }

    /// Writes what a cut left of the writes behind the last flush.
    pub(crate) fn cut(&self, log: &Log, cut: &Cut) -> io::Result<()> {
        for (number, there) in left(&log.entries, cut) {
            let Entry::Write { sector, sectors, at } = log.entries[number] else { continue };
            let data = log.data(at, sectors)?;
            for nth in there {
                let bytes = &data[(nth * SECTOR) as usize..][..SECTOR as usize];
                self.file.write_all_at(bytes, (sector + nth) * SECTOR)?;
            }
        }
        Ok(())
    }
}

/// Copies a disk without its holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(status.expect("there is a cp").success(), "a disk can be copied");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two writes, a flush, and again; behind the last flush a mark and a write.
    fn entries() -> Vec<Entry> {
        let write = |sector| Entry::Write { sector, sectors: 8, at: 0 };
        let mark = Entry::Write { sector: FILE_SYSTEM_LEN / SECTOR, sectors: 1, at: 0 };
        let mut entries = Vec::new();
        for nth in 0..5 {
            entries.extend([write(nth), write(nth), mark, Entry::Flush, Entry::Flush]);
        }
        entries.extend([mark, write(9)]);
        entries
    }

    #[test]
    fn every_flush_is_cut_behind_once_before_one_is_again() {
        let places = Places::new(&entries());
        assert_eq!((places.flushes(), places.gaps.len()), (10, 6));
        for seed in 0..3 {
            let ends: BTreeSet<usize> = (0..10).map(|n| places.cut(seed, 2 * n).end).collect();
            assert_eq!(ends.len(), 10);
        }
    }

    #[test]
    fn nothing_that_was_flushed_is_touched_and_nothing_is_left_that_came_later() {
        let entries = entries();
        let places = Places::new(&entries);
        let (mut kinds, mut torn) = (BTreeSet::new(), 0);
        for number in 0..2000 {
            let cut = places.cut(1, number);
            assert_eq!(cut, places.cut(1, number), "a number and a seed make it again");
            let last_flush = entries[..cut.end].iter().rposition(|entry| *entry == Entry::Flush);
            assert_eq!(cut.flushed, last_flush.map_or(0, |flush| flush + 1));
            for (entry, sectors) in left(&entries, &cut) {
                assert!(
                    (cut.flushed..cut.end).contains(&entry) && is_of_file_system(&entries[entry])
                );
                assert!(sectors.iter().all(|sector| *sector < 8));
                torn += u32::from(!sectors.is_empty() && sectors.len() < 8);
            }
            kinds.insert(format!("{:?}", cut.unflushed));
        }
        assert_eq!(kinds.len(), 7, "{kinds:?}");
        assert!(torn > 100, "{torn}");
    }

    #[test]
    fn a_disk_that_lies_loses_what_it_said_was_flushed() {
        let places = Places::new(&entries());
        let cut = (0..).map(|number| places.cut(1, number)).find(|cut| cut.flushed == 15);
        let cut = places.lied_to(cut.expect("one comes behind the sixth flush"), 3);
        assert_eq!((cut.flushed, cut.unflushed), (9, Unflushed::Lost));
    }
}
