//! The disk acts of one shard that are in progress, in whatever order they will end.
//!
//! ```text
//!   submit ──► pending ──── perform ──► done ── tell ──► the shard
//!                  │                      │
//!                  └── the process ends ──┘   done, begun or never begun: nobody knows
//! ```
//!
//! The file an act is about is looked up when it is submitted, as the driver does, so that an act
//! and a later `Close` keep their order. All else may overtake.

use std::{collections::BTreeSet, io};

use super::{Chance, Disk, Injected, InodeId, files::Files};
use crate::{
    arena::{Block, Class},
    ports::{DiskDone, DiskOp, Part, Ticket},
};

/// How a process ends without having been asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed: what it wrote stays.
    Kill,
    /// The power fails: what was not synced may be lost.
    Power,
}

#[derive(Debug)]
struct Work {
    ticket: Ticket,
    op: DiskOp,
    inode: Option<InodeId>,
    not_before: u64,
}

/// The acts of one shard.
#[derive(Debug, Default)]
pub struct Queue {
    files: Files,
    work: Vec<Work>,
    done: Vec<Done>,
    troubles_delivered: u64,
    /// Files that were cut, and not synced since.
    cut: BTreeSet<InodeId>,
    /// Files whose last delivered read was spoilt.
    unread: BTreeSet<InodeId>,
}

#[derive(Debug)]
struct Done {
    ticket: Ticket,
    outcome: io::Result<DiskDone>,
    /// It failed or was short by the will of the simulation, or is the sync of a cut: who waits
    /// until a failure is made up for learns of it then.
    troubled: bool,
    /// The file that it read.
    scanned: Option<InodeId>,
}

impl Queue {
    /// Takes an act up. It is not performed before this time.
    ///
    /// # Panics
    /// If it is about a file that is not open.
    pub fn submit(&mut self, ticket: Ticket, op: DiskOp, not_before: u64) {
        let inode = self.files.submit(&op);
        self.work.push(Work { ticket, op, inode, not_before });
    }

    /// The file an act is about, if it is about an open one.
    ///
    /// # Panics
    /// If it is about one that is not open.
    pub fn inode_of(&self, op: &DiskOp) -> Option<InodeId> {
        self.files.inode_of(op)
    }

    /// Acts that were not performed.
    pub fn in_progress(&self) -> usize {
        self.work.len()
    }

    /// Acts that were performed, and not delivered.
    pub fn undelivered(&self) -> usize {
        self.done.len()
    }

    /// The blocks that these acts hold: those to be written, and those that were read.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        let writes = self.work.iter().filter_map(|work| match &work.op {
            DiskOp::Write { parts, .. } => Some(parts),
            _ => None,
        });
        let written = writes.flatten().filter_map(|part| match part {
            Part::Block(slice) => Some(&slice.block),
            Part::Bytes(_) | Part::Zeros(_) => None,
        });
        let read = self.done.iter().filter_map(|done| match &done.outcome {
            Ok(DiskDone::Read(block)) => Some(block),
            _ => None,
        });
        written.chain(read)
    }

    /// Bytes of memory that is being read into.
    pub fn reading_len(&self) -> usize {
        let reads = self.work.iter().filter_map(|work| match &work.op {
            DiskOp::Read { into, .. } => Some(Class::holding(into.len()).bytes()),
            _ => None,
        });
        reads.sum()
    }

    /// Acts that may be performed at this time.
    pub fn ready(&self, now: u64) -> usize {
        self.work.iter().filter(|work| work.not_before <= now).count()
    }

    /// When the next act may be performed.
    pub fn next_at(&self) -> Option<u64> {
        self.work.iter().map(|work| work.not_before).min()
    }

    /// The disk is slow no more.
    pub fn hurry(&mut self) {
        self.work.iter_mut().for_each(|work| work.not_before = 0);
    }

    /// Performs one of the acts that may be performed at this time. Tells what it was, if that
    /// is wanted.
    ///
    /// # Panics
    /// If there is none.
    pub fn perform(
        &mut self,
        now: u64,
        disk: &mut Disk,
        chance: &mut Chance,
        told: bool,
    ) -> String {
        let nth = chance.below(self.ready(now));
        let ready = (0..self.work.len()).filter(|at| self.work[*at].not_before <= now);
        let at = ready.take(nth + 1).last().expect("an act is ready");
        let Work { ticket, op, inode, .. } = self.work.remove(at);
        let mut what = if told { format!("{op:?}") } else { String::new() };
        let before = disk.injected;
        let scanned = inode.filter(|_| matches!(op, DiskOp::Scan { .. }));
        let is_sync = matches!(op, DiskOp::Sync { .. });
        if matches!(op, DiskOp::Truncate { .. }) {
            self.cut.extend(inode);
        }
        let closes = inode.filter(|_| matches!(op, DiskOp::Close { .. }));
        let outcome = self.files.perform(op, inode, disk);
        let Injected { errors, short_reads, .. } = disk.injected;
        let spoilt = (errors, short_reads) != (before.errors, before.short_reads);
        let made_up = is_sync && inode.is_some_and(|inode| self.cut.remove(&inode));
        let troubled = spoilt || made_up;
        if let (true, Err(error)) = (told, &outcome) {
            what += &format!(" fails: {error}");
        }
        if let Some(id) = closes {
            disk.closed(id);
        }
        self.done.push(Done { ticket, outcome, troubled, scanned });
        what
    }

    /// One of the outcomes that were not delivered.
    ///
    /// # Panics
    /// If there is none.
    pub fn tell(&mut self, chance: &mut Chance) -> (Ticket, io::Result<DiskDone>) {
        let at = chance.below(self.done.len());
        let Done { ticket, outcome, troubled, scanned } = self.done.remove(at);
        // Two reads make one answer: the second is as good as failed.
        let second = !troubled && scanned.is_some_and(|inode| self.unread.remove(&inode));
        self.unread.extend(scanned.filter(|_| troubled));
        self.troubles_delivered += u64::from(troubled || second);
        (ticket, outcome)
    }

    /// How many spoilt outcomes were delivered since the last call.
    pub fn take_troubles(&mut self) -> u64 {
        std::mem::take(&mut self.troubles_delivered)
    }

    /// The process ends in the midst of its acts: each is done, begun, or never begun.
    pub fn abandon(mut self, disk: &mut Disk, chance: &mut Chance) {
        let weather = std::mem::take(&mut disk.weather);
        for Work { op, inode, .. } in std::mem::take(&mut self.work) {
            match chance.below(3) {
                0 => drop(self.files.perform(op, inode, disk)),
                1 => disk.half_perform(op, inode),
                _ => {}
            }
        }
        disk.weather = weather;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{FileId, OpenHow};

    const FILE: FileId = FileId(3);

    fn run_all(queue: &mut Queue, disk: &mut Disk, chance: &mut Chance) -> Vec<Ticket> {
        let mut told = Vec::new();
        while queue.in_progress() > 0 {
            queue.perform(u64::MAX, disk, chance, false);
        }
        while queue.undelivered() > 0 {
            let (ticket, outcome) = queue.tell(chance);
            outcome.unwrap();
            told.push(ticket);
        }
        told
    }

    fn opened(chance: &mut Chance) -> (Queue, Disk) {
        let mut disk = Disk::new(&["/".into()], chance.fork());
        let mut queue = Queue::default();
        queue.submit(Ticket(0), DiskOp::MakeDir { path: "/a".into() }, 0);
        run_all(&mut queue, &mut disk, chance);
        let op = DiskOp::Open { file: FILE, path: "/a/b".into(), how: OpenHow::CreateNew };
        queue.submit(Ticket(1), op, 0);
        run_all(&mut queue, &mut disk, chance);
        (queue, disk)
    }

    fn write(at: u64) -> DiskOp {
        DiskOp::Write { file: FILE, at, parts: vec![Part::Zeros(4096)] }
    }

    #[test]
    fn acts_end_in_any_order_and_each_once() {
        let mut orders = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let mut chance = Chance::new(seed);
            let (mut queue, mut disk) = opened(&mut chance);
            (0..3).for_each(|n| queue.submit(Ticket(n), write(n * 4096), 0));
            queue.submit(Ticket(3), DiskOp::Close { file: FILE }, 0);
            let mut told: Vec<u64> =
                run_all(&mut queue, &mut disk, &mut chance).iter().map(|t| t.0).collect();
            orders.insert(told.clone());
            told.sort_unstable();
            assert_eq!(told, [0, 1, 2, 3]);
            assert_eq!(disk.opened(), 0);
        }
        assert!(orders.len() > 5, "{orders:?}");
    }

    #[test]
    fn slow_acts_wait_for_their_time() {
        let mut chance = Chance::new(1);
        let (mut queue, mut disk) = opened(&mut chance);
        queue.submit(Ticket(0), write(0), 100);
        queue.submit(Ticket(1), write(4096), 50);
        assert_eq!((queue.ready(49), queue.ready(50), queue.next_at()), (0, 1, Some(50)));
        assert!(queue.perform(50, &mut disk, &mut chance, true).starts_with("Write"));
        assert_eq!(queue.tell(&mut chance).0, Ticket(1));
        queue.hurry();
        assert_eq!(queue.ready(0), 1);
    }

    #[test]
    #[should_panic(expected = "not open")]
    fn a_closed_file_is_not_written() {
        let mut chance = Chance::new(1);
        let (mut queue, _) = opened(&mut chance);
        queue.submit(Ticket(0), DiskOp::Close { file: FILE }, 0);
        queue.submit(Ticket(1), write(0), 0);
    }
}
