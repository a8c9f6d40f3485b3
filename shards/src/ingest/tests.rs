use std::{collections::BTreeMap, path::PathBuf};

use proptest::prelude::*;
use ron_io::{
    arena::{BlockMut, Owner},
    limits::PAGE_LEN,
    ports::{ConnId, FileId, ShardId},
};

use super::*;
use crate::{flow::FileUse, store::FreeSpace, testing::Bench};

mod memory;
mod space;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const EDGES: [u64; 10] = [
    0,
    1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    MIB - 1,
    MIB,
    MIB + 1,
    MIB + 64 * KIB,
    3 * MIB + 5,
];

/// Blocks of the arena: the share of uploads is more than one of them may hold.
const BLOCKS: usize = 200;

fn source(size: u64) -> Vec<u8> {
    (0..size).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// What a power cut would leave.
    durable: Vec<u8>,
}

/// A disk that performs what is pending in any order.
#[derive(Default)]
struct Disk {
    files: BTreeMap<PathBuf, File>,
    open: BTreeMap<u32, PathBuf>,
    in_progress: Vec<(Ticket, DiskOp)>,
    /// Fails the open, write or sync that comes after so many others.
    fault: Option<(usize, io::ErrorKind)>,
}

impl Disk {
    fn collect(&mut self, bench: &mut Bench) {
        while let Some(act) = bench.acts.pop() {
            match act {
                Act::Disk { ticket, op } => {
                    // The driver looks files up when an act starts, and this one may start now.
                    if let DiskOp::Close { file } | DiskOp::Write { file, .. } = &op {
                        assert!(self.open.contains_key(&file.0), "{op:?} of no open file");
                    }
                    self.in_progress.push((ticket, op));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Performs one of the pending acts. What comes after a close of the same file waits for it.
    fn perform(&mut self, which: usize) -> (Ticket, io::Result<DiskDone>) {
        let held = |op: &DiskOp| matches!(op, DiskOp::Close { .. });
        let first_close = self.in_progress.iter().position(|(_, op)| held(op));
        let free = first_close.map_or(self.in_progress.len(), |at| at.max(1));
        let (ticket, op) = self.in_progress.remove(which % free);
        let counts = !matches!(op, DiskOp::Close { .. } | DiskOp::Remove { .. });
        if let Some((0, kind)) = self.fault.filter(|_| counts) {
            self.fault = None;
            if let DiskOp::Open { path, .. } = op {
                // It was created, and could not be made durable.
                self.files.insert(path, File::default());
            }
            return (ticket, Err(kind.into()));
        }
        self.fault = self.fault.map(|(left, kind)| (left - usize::from(counts), kind));
        (ticket, Ok(self.run(op)))
    }

    fn run(&mut self, op: DiskOp) -> DiskDone {
        match op {
            DiskOp::Open { file, path, how } => {
                assert_eq!(how, OpenHow::CreateNew);
                assert!(self.files.insert(path.clone(), File::default()).is_none());
                assert!(self.open.insert(file.0, path).is_none(), "{file:?} is open");
                return DiskDone::Opened { len: 0 };
            }
            DiskOp::Write { file, at, parts } => {
                let len: usize = parts.iter().map(Part::len).sum();
                assert!(len.is_multiple_of(PAGE_LEN) && at.is_multiple_of(PAGE_LEN as u64));
                assert!(len > 0 && len <= DISK_OP_LEN_MAX);
                let bytes = &mut self.files.get_mut(&self.open[&file.0]).unwrap().bytes;
                let mut at = at as usize;
                bytes.resize(bytes.len().max(at + len), 0xEE);
                for part in &parts {
                    match part {
                        Part::Bytes(from) => bytes[at..][..from.len()].copy_from_slice(from),
                        Part::Block(from) => {
                            bytes[at..][..from.len()].copy_from_slice(from.bytes());
                        }
                        Part::Zeros(len) => bytes[at..][..*len].fill(0),
                    }
                    at += part.len();
                }
            }
            DiskOp::Sync { file } => {
                let file = self.files.get_mut(&self.open[&file.0]).unwrap();
                file.durable = file.bytes.clone();
            }
            DiskOp::Close { file } => {
                self.open.remove(&file.0).expect("only open files are closed");
            }
            DiskOp::Remove { path, .. } => {
                self.files.remove(&path);
            }
            other => panic!("{other:?}"),
        }
        DiskDone::Done
    }
}

/// An upload with all that surrounds it.
struct Case {
    bench: Bench,
    disk: Disk,
    ingest: Ingest,
    data: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Case {
    fn new(size: u64, announce: bool, expect: bool) -> Case {
        let (mut bench, data) = (Bench::new(BLOCKS), source(size));
        let expected = expect.then(|| Address::of(&data));
        let len = announce.then_some(size);
        let ingest =
            Ingest::new(Bench::STREAM, Bench::PEER, expected, len, &mut bench.cx()).unwrap();
        Case { bench, disk: Disk::default(), ingest, data, sent: 0, ended: false }
    }

    /// The next thing that can happen: bytes, their end, or the completion of a disk act. `None`
    /// when nothing is left to happen, or the upload has failed.
    fn step(&mut self, choice: usize, chunk: usize) -> Option<Progress> {
        let wants = self.ingest.wants_more();
        let busy = !self.disk.in_progress.is_empty();
        // The owner does not know the object, and says so sooner or later.
        let asked = matches!(self.bench.asks.front(), Some((_, Ask::Whole { .. })));
        if asked && (!wants || self.ended || choice.is_multiple_of(5)) {
            self.answer_open(Reply::Missing);
        } else if wants && !self.ended && (!busy || choice.is_multiple_of(3)) {
            if self.sent == self.data.len() {
                self.ended = true;
                self.ingest.finish(&mut self.bench.cx()).unwrap();
            } else {
                let end = self.data.len().min(self.sent + chunk);
                let offered = &self.data[self.sent..end];
                let taken = self.ingest.push(offered, &mut self.bench.cx()).unwrap();
                assert!(taken == offered.len() || !self.ingest.wants_more());
                self.sent += taken;
            }
        } else if busy {
            let (ticket, done) = self.disk.perform(choice / 3);
            match self.bench.tickets.redeem(ticket) {
                Waiter::Stream { stream, tag } => {
                    assert_eq!(stream, Bench::STREAM);
                    let progress = self.ingest.on_disk(tag, done, &mut self.bench.cx());
                    self.disk.collect(&mut self.bench);
                    return Some(progress);
                }
                Waiter::Discard { file, upload } => {
                    discard(file, upload, done, &mut self.bench.cx());
                }
                Waiter::Nobody => {}
                other => panic!("{other:?}"),
            }
        } else {
            return None;
        }
        self.disk.collect(&mut self.bench);
        let filling = usize::from(self.ingest.filling.is_some());
        let held = self.ingest.groups.len() + self.ingest.lent() + filling;
        assert!(held <= INGEST_BLOCKS_MAX, "{held} blocks");
        Some(Progress::Going)
    }

    /// The owner says whether it has the object.
    fn answer_open(&mut self, reply: Reply) -> Outcome {
        let (stream, ask) = self.bench.asks.pop_front().expect("the owner is asked");
        let expected = self.ingest.expected.expect("only a known address is asked for");
        assert!(matches!(ask, Ask::Whole { address } if address == expected));
        assert_eq!(stream, Bench::STREAM);
        let outcome = self.ingest.on_reply(reply, &mut self.bench.cx());
        self.disk.collect(&mut self.bench);
        outcome
    }

    fn run(&mut self, choices: &mut impl Iterator<Item = usize>, chunk: usize) -> Progress {
        while let Some(progress) = self.step(choices.next().unwrap(), chunk) {
            if progress != Progress::Going {
                return progress;
            }
        }
        Progress::Going
    }

    /// Performs what is left, in the order in which it was asked for.
    fn drain(&mut self) {
        while !self.disk.in_progress.is_empty() {
            let (ticket, done) = self.disk.perform(0);
            match self.bench.tickets.redeem(ticket) {
                Waiter::Stream { tag, .. } => {
                    let progress = self.ingest.on_disk(tag, done, &mut self.bench.cx());
                    assert_eq!(progress, Progress::Going, "it was notified already");
                }
                Waiter::Discard { file, upload } => {
                    discard(file, upload, done, &mut self.bench.cx());
                }
                _ => {}
            }
            self.disk.collect(&mut self.bench);
        }
    }

    /// Checks that nothing is left open, pending, or in memory, and no file but `kept`.
    fn check_clean(&mut self, kept: Option<&PathBuf>) {
        assert!(self.disk.open.is_empty() && self.disk.in_progress.is_empty());
        assert_eq!(self.bench.tickets.in_progress(), 0);
        assert_eq!(self.bench.tickets.file(), FileId(0), "the names of files are free");
        assert_eq!(
            self.disk.files.keys().collect::<Vec<_>>(),
            kept.into_iter().collect::<Vec<_>>()
        );
        let all: Vec<_> = (0..BLOCKS).map(|_| self.bench.memory.alloc(BLOCK_LEN)).collect();
        assert!(all.iter().all(Option::is_some), "blocks are missing");
    }

    /// Checks what the owner was asked, answers it, and checks the outcome.
    fn conclude(mut self) {
        let size = self.data.len() as u64;
        let address = Address::of(&self.data);
        let (stream, ask) = self.bench.asks.pop_front().expect("the owner is asked");
        assert!(stream == Bench::STREAM && self.bench.asks.is_empty());
        let kept = match ask {
            Ask::Put { address: to, size: len, outboard, blocks } => {
                assert!(size <= MIB);
                assert_eq!((to, len), (address, size));
                outboard.verify_root(&address).unwrap();
                let got: Vec<u8> = blocks.iter().flat_map(|b| b.bytes()).copied().collect();
                assert!(got == self.data);
                let footprint = blocks.last().map_or(0, Block::footprint);
                let last = blocks.last().map_or(0, Block::len);
                assert_eq!(footprint, if last == 0 { 0 } else { Class::holding(last).bytes() });
                assert!(self.disk.files.is_empty());
                None
            }
            Ask::Adopt { address: to, size: len, path } => {
                assert!(size > MIB);
                assert_eq!((to, len), (address, size));
                let durable = self.disk.files[&path].durable.clone();
                check_record(&durable, &self.data);
                Some(path)
            }
            other => panic!("{other:?}"),
        };
        self.drain();
        let done = self.ingest.on_reply(Reply::Stored { new: true }, &mut self.bench.cx());
        assert_eq!(done, Outcome::Done { address, size, new: true });
        self.check_clean(kept.as_ref());
    }
}

/// Reads a record file as the store does, and compares every byte.
fn check_record(file: &[u8], data: &[u8]) {
    let header = RecordHeader::decode(file).unwrap();
    assert_eq!((header.digest(), header.size()), (Address::of(data), data.len() as u64));
    assert_eq!((header.place(), header.record_len()), (RecordPlace::File, file.len() as u64));
    let outboard = &file[header.outboard_offset() as usize..][..header.outboard_len() as usize];
    let outboard = Outboard::from_bytes(outboard, header.size()).unwrap();
    outboard.verify_root(&header.digest()).unwrap();
    let stored = &file[header.data_offset() as usize..][..data.len()];
    for (index, group) in stored.chunks(GROUP_LEN).enumerate() {
        outboard.verify_group(&header.digest(), index as u64, group).unwrap();
    }
    assert!(stored == data);
    // What fills the parts up is zero.
    let mut rest = file.to_vec();
    rest[..ron_codec::limits::RECORD_HEADER_LEN].fill(0);
    rest[header.data_offset() as usize..][..data.len()].fill(0);
    rest[header.outboard_offset() as usize..][..header.outboard_len() as usize].fill(0);
    assert!(rest.iter().all(|byte| *byte == 0));
}

fn choices(seed: u64) -> impl Iterator<Item = usize> {
    let mut numbers = ron_io::splitmix::SplitMix64::new(seed);
    std::iter::repeat_with(move || (numbers.next_u64() >> 8) as usize)
}

#[test]
fn sizes_at_all_edges_become_objects() {
    for size in EDGES {
        for (seed, (announce, expect)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let mut case = Case::new(size, announce, expect);
            let progress = case.run(&mut choices(seed as u64), 50_000);
            assert_eq!(progress, Progress::Going, "size {size}");
            case.conclude();
        }
    }
}

#[test]
fn uploads_have_only_so_many_files() {
    let mut case = Case::new(4 * MIB, true, false);
    case.bench.config.upload_files_max = 1;
    let begin = |case: &mut Case| {
        let mut other =
            Ingest::new(Bench::STREAM, Bench::PEER, None, Some(4 * MIB), &mut case.bench.cx())?;
        other.push(&case.data[..70_000], &mut case.bench.cx())?;
        case.disk.collect(&mut case.bench);
        Ok(other)
    };
    case.ingest.push(&case.data[..70_000], &mut case.bench.cx()).unwrap();
    case.disk.collect(&mut case.bench);
    let busy = IngestError::Failed(Fault::Busy);
    assert_eq!(begin(&mut case).err(), Some(busy));
    case.ingest.abort(&mut case.bench.cx());
    case.disk.collect(&mut case.bench);
    assert_eq!(begin(&mut case).err(), Some(busy), "it is not closed yet");
    case.drain();
    assert_eq!(case.bench.tickets.open_files(FileUse::Upload), 0);
    begin(&mut case).unwrap().abort(&mut case.bench.cx());
    case.disk.collect(&mut case.bench);
    case.drain();
    case.check_clean(None);
}

#[test]
fn one_peer_has_half_of_the_files_of_uploads_at_most() {
    let mut bench = Bench::new(BLOCKS);
    bench.config.upload_files_max = 4;
    let (data, mut number) = (source(70_000), 0);
    let mut begin = |last| {
        number += 1;
        let stream = StreamId { stream: number, ..Bench::STREAM };
        let peer = Peer::of([10, 0, 0, last].into());
        let mut ingest = Ingest::new(stream, peer, None, Some(4 * MIB), &mut bench.cx())?;
        ingest.push(&data, &mut bench.cx()).map(|_| ingest)
    };
    let _held = [begin(1).unwrap(), begin(1).unwrap()];
    let many = IngestError::Failed(Fault::PeerUploads);
    assert_eq!(begin(1).err(), Some(many), "it has as many as are left");
    let _of_another = begin(2).unwrap();
    assert_eq!(begin(2).err(), Some(many));
    let _of_a_newcomer = begin(3).unwrap();
    assert_eq!(begin(4).err(), Some(IngestError::Failed(Fault::Busy)), "all are taken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_of_completions_makes_the_same_record(
        size in 0..3 * MIB,
        chunk in prop_oneof![1000usize..20_000, 1usize..2_000_000],
        announce: bool,
        seed: u64,
    ) {
        let mut case = Case::new(size, announce, false);
        prop_assert_eq!(case.run(&mut choices(seed), chunk), Progress::Going);
        case.conclude();
    }

    /// Whatever is in progress when the client vanishes, nothing is left of it.
    #[test]
    fn abort_leaves_nothing(steps in 0usize..60, announce: bool, seed: u64) {
        let mut case = Case::new(2 * MIB + 5, announce, false);
        let mut order = choices(seed);
        let over = (0..steps).any(|_| case.step(order.next().unwrap(), 100_000).is_none());
        let handed_over = case.bench.asks.pop_front().map(|(_, ask)| match ask {
            Ask::Adopt { path, .. } => path,
            other => panic!("{other:?}"),
        });
        prop_assert!(!over || handed_over.is_some());
        case.ingest.abort(&mut case.bench.cx());
        case.ingest.abort(&mut case.bench.cx());
        prop_assert!(!case.ingest.wants_more());
        case.disk.collect(&mut case.bench);
        case.drain();
        // A file that was handed over is the owner's, who needs it.
        case.check_clean(handed_over.as_ref());
    }

    /// Whichever act fails, the session is notified once, and nothing is left.
    #[test]
    fn a_failing_disk_leaves_nothing(
        nth in 0usize..14,
        full: bool,
        seed: u64,
    ) {
        let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        let mut case = Case::new(2 * MIB + 5, true, true);
        case.disk.fault = Some((nth, kind));
        let progress = case.run(&mut choices(seed), 100_000);
        if case.bench.asks.is_empty() {
            let fault = if full { Fault::Full } else { Fault::Disk };
            prop_assert_eq!(progress, Progress::Failed(fault));
            let again = case.ingest.push(b"x", &mut case.bench.cx());
            prop_assert_eq!(again, Err(IngestError::Failed(fault)));
            case.drain();
            case.check_clean(None);
        } else {
            case.disk.fault = None;
            case.conclude();
        }
    }
}

#[test]
fn each_state_is_aborted_with_a_removal() {
    let mut seen = Vec::new();
    for steps in 0..80 {
        let mut case = Case::new(MIB + 70_000, true, false);
        let mut order = choices(9);
        for _ in 0..steps {
            case.step(order.next().unwrap(), 100_000);
        }
        let name = format!("{:?}", case.ingest.machine.get());
        let name = name.split([' ', '(']).next().unwrap().to_string();
        if matches!(name.as_str(), "Buffering" | "Adopting") {
            continue;
        }
        case.ingest.abort(&mut case.bench.cx());
        case.disk.collect(&mut case.bench);
        let mut removed = false;
        while !case.disk.in_progress.is_empty() {
            removed |= matches!(case.disk.in_progress[0].1, DiskOp::Remove { .. });
            let (ticket, done) = case.disk.perform(0);
            if let Waiter::Discard { file, upload } = case.bench.tickets.redeem(ticket) {
                discard(file, upload, done, &mut case.bench.cx());
            }
            case.disk.collect(&mut case.bench);
        }
        assert!(removed, "{name}");
        case.check_clean(None);
        seen.push(name);
    }
    for state in ["Opening", "Writing", "WritingHeader", "Syncing"] {
        assert!(seen.iter().any(|name| name == state), "{state} was not reached: {seen:?}");
    }
}

#[test]
fn lengths_and_digests_are_held_to_their_word() {
    let mut bench = Bench::new(BLOCKS);
    bench.config.object_len_max = 200_000;
    let max = 200_000;
    let new = |len, expected, bench: &mut Bench| {
        Ingest::new(Bench::STREAM, Bench::PEER, expected, len, &mut bench.cx())
    };
    assert_eq!(
        new(Some(max + 1), None, &mut bench).unwrap_err(),
        IngestError::TooLarge { len: max + 1, max }
    );
    assert!(new(Some(max), None, &mut bench).is_ok());
    let data = source(max + 1);
    let mut unknown = new(None, None, &mut bench).unwrap();
    assert_eq!(unknown.push(&data[..max as usize], &mut bench.cx()), Ok(max as usize));
    let error = unknown.push(&data[..1], &mut bench.cx());
    assert_eq!(error, Err(IngestError::TooLarge { len: max + 1, max }));

    let mut ten = new(Some(10), None, &mut bench).unwrap();
    assert_eq!(ten.push(&data[..9], &mut bench.cx()), Ok(9));
    let error = ten.push(&data[..2], &mut bench.cx());
    assert_eq!(error, Err(IngestError::Excess { len: 11, announced: 10 }));
    assert!(!ten.wants_more());

    let mut ten = new(Some(10), None, &mut bench).unwrap();
    ten.push(&data[..9], &mut bench.cx()).unwrap();
    let error = ten.finish(&mut bench.cx());
    assert_eq!(error, Err(IngestError::Truncated { len: 9, announced: 10 }));

    let mut other = new(None, Some(Address::of(b"other")), &mut bench).unwrap();
    other.push(&data[..9], &mut bench.cx()).unwrap();
    let found = Address::of(&data[..9]);
    assert_eq!(other.finish(&mut bench.cx()), Err(IngestError::BadDigest { found }));
    assert!(bench.asks.is_empty());
}

#[test]
fn a_long_upload_for_another_address_leaves_no_file() {
    let mut case = Case::new(2 * MIB, true, false);
    case.ingest.expected = Some(Address::of(b"other"));
    let mut order = choices(1);
    while case.sent < case.data.len() {
        case.step(order.next().unwrap(), 100_000);
    }
    let found = Address::of(&case.data);
    let error = case.ingest.finish(&mut case.bench.cx());
    assert_eq!(error, Err(IngestError::BadDigest { found }));
    case.disk.collect(&mut case.bench);
    case.drain();
    case.check_clean(None);
}

#[test]
fn without_memory_an_upload_waits_for_its_own_writes_or_fails() {
    let mut case = Case::new(2 * MIB, true, false);
    let held: Vec<_> = (0..BLOCKS - 4).map(|_| case.bench.memory.alloc(BLOCK_LEN)).collect();
    // Four blocks are left: they fill, and the file is being opened.
    assert_eq!(case.ingest.push(&case.data, &mut case.bench.cx()), Ok(4 * BLOCK_LEN));
    assert!(!case.ingest.wants_more());
    case.sent = 4 * BLOCK_LEN;
    case.disk.collect(&mut case.bench);
    assert_eq!(case.run(&mut choices(2), 100_000), Progress::Going);
    drop(held);
    case.conclude();

    let mut case = Case::new(2 * MIB, true, false);
    let held: Vec<_> = (0..BLOCKS - 1).map(|_| case.bench.memory.alloc(BLOCK_LEN)).collect();
    // One block is left; while nothing is on its way to the disk nobody would ever go on.
    assert_eq!(case.ingest.push(&case.data[..9], &mut case.bench.cx()), Ok(9));
    let mut small =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(5), &mut case.bench.cx()).unwrap();
    assert_eq!(small.push(b"hello", &mut case.bench.cx()), Ok(0));
    assert!(!small.wants_more());
    // There is a block again, in time.
    drop(held);
    case.bench.now.mono_ns = UPLOAD_WAIT_NS - 1;
    assert_eq!(case.bench.memory.next_upload(case.bench.now.mono_ns), Some(Bench::STREAM));
    assert_eq!(small.on_memory(&mut case.bench.cx()), Progress::Going);
    assert_eq!(small.push(b"hello", &mut case.bench.cx()), Ok(5));
    assert_eq!(case.bench.memory.uploads_waiting(), 0);
}

/// Where an upload of 2 MiB is written.
fn folder_of(case: &mut Case) -> PathBuf {
    while case.disk.files.is_empty() {
        case.step(0, 100_000);
        case.step(1, 100_000);
    }
    case.disk.files.keys().next().unwrap().parent().unwrap().to_path_buf()
}

#[test]
fn uploads_are_written_where_they_will_be_kept_or_in_a_partition_of_this_shard() {
    let mut case = Case::new(2 * MIB, true, true);
    let folder = folder_of(&mut case);
    let layout = &case.bench.config.layout;
    let (owner, _) = layout.owner(&Address::of(&case.data));
    assert_eq!(folder, layout.tmp_dir(owner));

    let mut case = Case::new(2 * MIB, true, false);
    assert_eq!(case.bench.config.shard, ShardId(1));
    assert_eq!(folder_of(&mut case), case.bench.config.layout.tmp_dir(1));
}

#[test]
fn a_long_object_that_is_there_is_hashed_and_not_written() {
    let size = 5 * MIB + 7;
    let there = || Reply::Opened { size, first: None };
    // Answered before, in the middle of, and after the body.
    for early in [1, 20, 1000] {
        let mut case = Case::new(size, true, true);
        let mut sent = 0;
        while case.sent < case.data.len() && sent < early {
            let end = case.data.len().min(case.sent + 100_000);
            case.sent +=
                case.ingest.push(&case.data[case.sent..end], &mut case.bench.cx()).unwrap();
            sent += 1;
            if !case.ingest.wants_more() {
                break;
            }
        }
        assert_eq!(case.answer_open(there()), Outcome::Going, "{early}");
        while case.sent < case.data.len() {
            assert!(case.ingest.wants_more(), "nothing holds it up");
            let end = case.data.len().min(case.sent + 100_000);
            case.sent +=
                case.ingest.push(&case.data[case.sent..end], &mut case.bench.cx()).unwrap();
        }
        case.ingest.finish(&mut case.bench.cx()).unwrap();
        let address = Address::of(&case.data);
        assert_eq!(case.answer_open(there()), Outcome::Done { address, size, new: false });
        case.check_clean(None);
    }
}

#[test]
fn a_long_object_that_is_deleted_while_it_comes_again_is_not_acknowledged() {
    let size = MIB + 1;
    let mut case = Case::new(size, true, true);
    let first = case.ingest.push(&case.data[..200_000], &mut case.bench.cx()).unwrap();
    case.answer_open(Reply::Opened { size, first: None });
    let rest = case.data[first..].to_vec();
    assert_eq!(case.ingest.push(&rest, &mut case.bench.cx()).unwrap(), rest.len());
    case.ingest.finish(&mut case.bench.cx()).unwrap();
    assert_eq!(case.answer_open(Reply::Missing), Outcome::Failed(Fault::Raced));
    case.check_clean(None);
    // Other bytes under the address of one that is there are refused as ever.
    let mut case = Case::new(size, true, true);
    case.data[5] ^= 1;
    let taken = case.ingest.push(&case.data[..200_000], &mut case.bench.cx()).unwrap();
    case.data[5] ^= 1;
    case.answer_open(Reply::Opened { size, first: None });
    let rest = case.data[taken..].to_vec();
    case.ingest.push(&rest, &mut case.bench.cx()).unwrap();
    let error = case.ingest.finish(&mut case.bench.cx()).unwrap_err();
    assert!(matches!(error, IngestError::BadDigest { .. }), "{error:?}");
    case.check_clean(None);
}

#[test]
fn a_long_object_that_is_damaged_where_it_is_is_written_again() {
    let size = MIB + 1;
    let mut case = Case::new(size, true, true);
    let taken = case.ingest.push(&case.data[..200_000], &mut case.bench.cx()).unwrap();
    assert_eq!(case.answer_open(Reply::Failed(Fault::Integrity)), Outcome::Going);
    let rest = case.data[taken..].to_vec();
    case.ingest.push(&rest, &mut case.bench.cx()).unwrap();
    case.disk.collect(&mut case.bench);
    let opens = |op: &DiskOp| matches!(op, DiskOp::Open { .. });
    assert!(case.disk.in_progress.iter().any(|(_, op)| opens(op)), "its bytes go to the disk");
    // Found damaged only when all has come: its bytes were dropped.
    let mut case = Case::new(size, true, true);
    let first = case.ingest.push(&case.data[..200_000], &mut case.bench.cx()).unwrap();
    case.answer_open(Reply::Opened { size, first: None });
    let rest = case.data[first..].to_vec();
    case.ingest.push(&rest, &mut case.bench.cx()).unwrap();
    case.ingest.finish(&mut case.bench.cx()).unwrap();
    let damaged = Reply::Failed(Fault::Integrity);
    assert_eq!(case.answer_open(damaged), Outcome::Failed(Fault::Raced));
    case.check_clean(None);
}

#[test]
fn nothing_is_written_on_an_absent_volume() {
    // Partitions 0 to 3, one a volume; this shard has 1 and 3.
    let over = |absent: &[u16], expect| {
        let mut case = Case::new(2 * MIB, true, expect);
        let layout = &mut case.bench.config.layout;
        layout.volumes = (0..4).map(|volume| format!("/volume{volume}").into()).collect();
        layout.absent = absent.to_vec();
        case.bench.free_space = FreeSpace::new(&case.bench.config);
        case
    };
    assert_eq!(folder_of(&mut over(&[1], false)), PathBuf::from("/volume3/p003/tmp"));
    assert_eq!(folder_of(&mut over(&[0, 1, 3], false)), PathBuf::from("/volume2/p002/tmp"));
    let owner = over(&[], true).bench.config.layout.owner(&Address::of(&source(2 * MIB))).0;
    for (absent, expect) in [(&[0, 1, 2, 3][..], false), (&[owner], true)] {
        let mut case = over(absent, expect);
        let pushed = case.ingest.push(&case.data, &mut case.bench.cx());
        if expect {
            assert_eq!(case.answer_open(Reply::Missing), Outcome::Failed(Fault::Disk));
        } else {
            assert_eq!(pushed, Err(IngestError::Failed(Fault::Disk)));
        }
        case.disk.collect(&mut case.bench);
        case.check_clean(None);
    }
    let others: Vec<u16> = (0..4).filter(|volume| *volume != owner).collect();
    let mut case = over(&others, true);
    assert_eq!(folder_of(&mut case), case.bench.config.layout.tmp_dir(owner));
}

#[test]
fn a_late_completion_of_a_gone_upload_changes_nothing() {
    let stream = StreamId { conn: ConnId { slot: 0, generation: 0 }, stream: 0 };
    let mut bench = Bench::new(1);
    let mut ingest = Ingest::new(stream, Bench::PEER, None, None, &mut bench.cx()).unwrap();
    ingest.abort(&mut bench.cx());
    let done = Ok(DiskDone::Done);
    assert_eq!(ingest.on_disk(7, done, &mut bench.cx()), Progress::Going);
    assert!(bench.acts.is_empty());
}
