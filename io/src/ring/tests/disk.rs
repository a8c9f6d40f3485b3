//! The disk under a machine that follows a script, on real files.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    limits::{BACKGROUND_SCANS_MAX, DISK_OP_LEN_MAX, DISK_OPS_MAX, PAGE_LEN},
    ring::disk::Access,
};

/// How long an outcome may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

enum Order {
    Do(u64, DiskOp),
    Stop,
}

/// Performs what it is ordered to, and passes the outcomes on.
struct Runner {
    acts: Acts<Order>,
    told: mpsc::Sender<(u64, std::io::Result<DiskDone>)>,
}

impl Machine for Runner {
    type Mail = Order;
    type Body = Slice;

    fn apply(&mut self, event: Event<'_, Order>, _now: Now) {
        match event {
            Event::Mail(Order::Do(ticket, op)) => {
                self.acts.push(Act::Disk { ticket: Ticket(ticket), op });
            }
            Event::Mail(Order::Stop) => self.acts.push(Act::Stopped),
            Event::Disk { ticket, done } => self.told.send((ticket.0, done)).unwrap(),
            _ => {}
        }
    }

    fn acts(&mut self) -> &mut Acts<Order> {
        &mut self.acts
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }
}

struct Rig {
    orders: Sender<Order>,
    told: mpsc::Receiver<(u64, std::io::Result<DiskDone>)>,
    reports: crate::lane::Receiver<Report>,
    thread: JoinHandle<()>,
    tickets: u64,
    arena: Arena,
}

impl Rig {
    fn new(access: Access) -> Rig {
        let waker = Arc::new(Waker::new().unwrap());
        let (orders, from) = lane(2 * DISK_OPS_MAX, &waker);
        let (to_control, reports) = lane(64, &Arc::new(Waker::new().unwrap()));
        let (told, outcomes) = mpsc::channel();
        let driver = Driver {
            core: None,
            name: "disk".into(),
            listeners: Vec::new(),
            connections_max: 1024,
            mailboxes: Mailboxes { waker, from: vec![from], to: vec![None], reports: to_control },
            stats: Arc::new(Stats::default()),
        };
        let make = move || Ok(Runner { acts: Acts::default(), told });
        let thread = std::thread::spawn(move || driver.run_with(access, make).unwrap());
        let arena = Arena::new(1024).unwrap();
        Rig { orders, told: outcomes, reports, thread, tickets: 0, arena }
    }

    fn order(&mut self, op: DiskOp) -> u64 {
        self.tickets += 1;
        assert!(self.orders.send(Order::Do(self.tickets, op)).is_ok());
        self.tickets
    }

    fn outcome(&self) -> (u64, std::io::Result<DiskDone>) {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Performs an operation while nothing else is in progress.
    fn run(&mut self, op: DiskOp) -> std::io::Result<DiskDone> {
        let ticket = self.order(op);
        let (told, done) = self.outcome();
        assert_eq!(told, ticket);
        done
    }

    fn open(&mut self, file: u32, path: &Path, how: OpenHow) -> u64 {
        let op = DiskOp::Open { file: FileId(file), path: path.to_path_buf(), how };
        match self.run(op).unwrap() {
            DiskDone::Opened { len } => len,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, file: u32, at: u64, parts: Vec<Part>) {
        let done = self.run(DiskOp::Write { file: FileId(file), at, parts });
        assert!(matches!(done, Ok(DiskDone::Done)), "{done:?}");
    }

    fn read(&mut self, file: u32, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let into = self.arena.alloc(len).unwrap();
        let op = DiskOp::Read { file: FileId(file), at, len: len as u32, into };
        self.run(op).map(|done| match done {
            DiskDone::Read(block) => block.bytes().to_vec(),
            other => panic!("{other:?}"),
        })
    }

    fn scan(&mut self, file: u32, at: u64, len: usize, urgency: Urgency) -> Vec<u8> {
        let op = DiskOp::Scan { file: FileId(file), at, len: len as u32, urgency };
        match self.run(op).unwrap() {
            DiskDone::Scanned(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn block(&mut self, bytes: &[u8]) -> Slice {
        let mut block = self.arena.alloc(bytes.len()).unwrap();
        block.bytes_mut().copy_from_slice(bytes);
        Slice::whole(block.freeze(bytes.len()))
    }

    fn notes(&mut self) -> Vec<(Severity, String)> {
        let mut notes = Vec::new();
        while let Some(report) = self.reports.take() {
            match report {
                Report::Note { severity, message, .. } => notes.push((severity, message)),
                other => panic!("{other:?}"),
            }
        }
        notes
    }

    fn stop(mut self) -> Vec<(Severity, String)> {
        assert!(self.orders.send(Order::Stop).is_ok());
        while !self.thread.is_finished() {
            // Outcomes of operations that the test did not wait for.
            let _ = self.told.recv_timeout(PATIENCE);
        }
        let notes = self.notes();
        self.thread.join().unwrap();
        notes
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ n >> 7 ^ n >> 15) as u8).collect()
}

/// Writes, reads and lengths of one file, in all alignments.
fn round_trip(rig: &mut Rig, folder: &Path) {
    let path = folder.join("round-trip");
    assert_eq!(rig.open(1, &path, OpenHow::CreateNew), 0);
    let again = DiskOp::Open { file: FileId(2), path: path.clone(), how: OpenHow::CreateNew };
    assert_eq!(rig.run(again).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let source = pattern(3 * 65536);
    let blocks = [&source[..65536], &source[65536..2 * 65536]].map(|bytes| rig.block(bytes));
    let mut parts: Vec<Part> = blocks.map(Part::Block).into();
    parts.push(Part::Bytes(source[2 * 65536..][..5000].to_vec()));
    parts.push(Part::Zeros(8192 - 5000));
    rig.write(1, 4096, parts);
    assert!(matches!(rig.run(DiskOp::Sync { file: FileId(1) }), Ok(DiskDone::Done)));
    let mut whole = vec![0; 4096];
    whole.extend_from_slice(&source[..2 * 65536 + 5000]);
    whole.resize(4096 + 2 * 65536 + 8192, 0);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    for (at, len) in [(0, 4096), (4096, 65536), (4096, 1), (4097, 65536), (100_000, 5000)] {
        assert_eq!(rig.read(1, at, len).unwrap(), whole[at as usize..][..len], "{at} {len}");
        for urgency in [Urgency::Foreground, Urgency::Background] {
            let found = rig.scan(1, at, len, urgency);
            assert_eq!(found, whole[at as usize..][..len], "{at} {len} {urgency:?}");
        }
    }
    let end = whole.len();
    for urgency in [Urgency::Foreground, Urgency::Background] {
        assert_eq!(rig.scan(1, end as u64 - 10, 5000, urgency), whole[end - 10..]);
        assert!(rig.scan(1, end as u64 + 1, 5000, urgency).is_empty());
    }
    for at in [end as u64 - 4096, end as u64 - 4095, end as u64] {
        let short = rig.read(1, at, 4097).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof, "{at}");
    }
    for len in [8192, 3 << 20, 128 * 33] {
        let done = rig.run(DiskOp::Truncate { file: FileId(1), len });
        assert!(matches!(done, Ok(DiskDone::Done)), "{done:?}");
        whole.resize(len as usize, 0);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
        let tail = (len as usize).min(100);
        assert_eq!(rig.read(1, len - tail as u64, tail).unwrap(), whole[len as usize - tail..]);
    }
    assert!(matches!(rig.run(DiskOp::Close { file: FileId(1) }), Ok(DiskDone::Done)));
    assert_eq!(rig.open(1, &path, OpenHow::Read), 128 * 33);
    assert!(matches!(rig.run(DiskOp::Close { file: FileId(1) }), Ok(DiskDone::Done)));
}

#[test]
fn files_are_written_and_read_in_all_alignments() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    round_trip(&mut rig, folder.path());
    rig.stop();
}

#[test]
fn without_direct_io_all_works_and_the_operator_is_told_once() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Buffered);
    round_trip(&mut rig, folder.path());
    rig.open(8, &folder.path().join("another"), OpenHow::CreateNew);
    let notes = rig.stop();
    assert_eq!(notes.len(), 1, "{notes:?}");
    let (severity, message) = &notes[0];
    assert_eq!(*severity, Severity::Warn);
    assert!(message.contains("page cache"), "{message}");
    assert!(message.contains(&folder.path().display().to_string()), "{message}");
}

#[test]
fn a_file_system_in_memory_is_one_without_direct_io() {
    // Where there is none, nothing can be shown.
    let Ok(folder) = TempDir::new_in("/dev/shm") else { return };
    let mut rig = Rig::new(Access::Direct);
    round_trip(&mut rig, folder.path());
    assert_eq!(rig.stop().len(), 1);
}

#[test]
fn what_is_in_progress_on_a_closed_file_is_finished_and_its_name_is_free() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    let bytes = pattern(1 << 20);
    for round in 0..5 {
        let path = folder.path().join(format!("file-{round}"));
        rig.open(3, &path, OpenHow::CreateNew);
        let file = FileId(3);
        let parts = vec![Part::Bytes(bytes.clone())];
        let mut expected = vec![rig.order(DiskOp::Write { file, at: 0, parts })];
        expected.push(rig.order(DiskOp::Sync { file }));
        for urgency in [Urgency::Background, Urgency::Foreground, Urgency::Background] {
            expected.push(rig.order(DiskOp::Scan { file, at: 0, len: 1, urgency }));
        }
        let closed = rig.order(DiskOp::Close { file });
        expected.push(closed);
        let late = rig.order(DiskOp::Sync { file });
        expected.push(late);
        let mut told = Vec::new();
        for _ in 0..expected.len() {
            let (ticket, done) = rig.outcome();
            assert_eq!(done.is_err(), ticket == late, "{ticket}: {done:?}");
            told.push(ticket);
        }
        assert_eq!(told.iter().rfind(|ticket| **ticket != late), Some(&closed), "{told:?}");
        told.sort_unstable();
        assert_eq!(told, expected);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    rig.stop();
}

#[test]
fn operations_on_files_that_are_not_open_fail_each_alone() {
    let mut rig = Rig::new(Access::Direct);
    let file = FileId(9);
    let into = rig.arena.alloc(1).unwrap();
    for op in [
        DiskOp::Close { file },
        DiskOp::Read { file, at: 0, len: 1, into },
        DiskOp::Scan { file, at: 0, len: 1, urgency: Urgency::Foreground },
        DiskOp::Scan { file, at: 0, len: 1, urgency: Urgency::Background },
        DiskOp::Write { file, at: 0, parts: Vec::new() },
        DiskOp::Sync { file },
        DiskOp::Truncate { file, len: 0 },
    ] {
        let shown = format!("{op:?}");
        assert_eq!(rig.run(op).unwrap_err().kind(), std::io::ErrorKind::NotFound, "{shown}");
    }
    rig.stop();
}

#[test]
fn names_are_made_moved_listed_and_removed() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    let done = |done: std::io::Result<DiskDone>| assert!(matches!(done, Ok(DiskDone::Done)));
    let deep = folder.path().join("a/b/c");
    for _ in 0..2 {
        done(rig.run(DiskOp::MakeDir { path: deep.clone() }));
    }
    let (from, to) = (folder.path().join("from"), deep.join("to"));
    rig.open(1, &from, OpenHow::CreateNew);
    done(rig.run(DiskOp::Close { file: FileId(1) }));
    done(rig.run(DiskOp::Rename { from: from.clone(), to: to.clone() }));
    let listed = rig.run(DiskOp::List { path: deep.clone() }).unwrap();
    assert!(matches!(listed, DiskDone::Listed(found) if found == [("to".to_string(), 0)]));
    for durable in [true, false, true] {
        done(rig.run(DiskOp::Remove { path: to.clone(), durable }));
        assert!(!to.exists(), "and the second time it is no error");
    }
    let blocked = rig.run(DiskOp::Remove { path: from.join("below"), durable: true });
    assert!(blocked.is_ok(), "what is below nothing is not there: {blocked:?}");
    assert!(rig.run(DiskOp::Remove { path: deep, durable: true }).is_err(), "it is a folder");
    rig.stop();
}

#[test]
fn the_room_of_a_file_system_is_told() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    let path = folder.path().to_path_buf();
    match rig.run(DiskOp::Space { path: path.clone() }).unwrap() {
        DiskDone::Space(space) => {
            assert!(space.free <= space.total && space.total > 0, "{space:?}");
        }
        other => panic!("{other:?}"),
    }
    let missing = rig.run(DiskOp::Space { path: path.join("missing") }).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    rig.stop();
}

#[test]
fn reads_nobody_waits_for_come_after_those_somebody_does() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    rig.open(1, &folder.path().join("file"), OpenHow::CreateNew);
    rig.write(1, 0, vec![Part::Bytes(pattern(DISK_OP_LEN_MAX))]);
    let file = FileId(1);
    let len = DISK_OP_LEN_MAX as u32;
    let background = DISK_OPS_MAX / 4;
    for _ in 0..background {
        rig.order(DiskOp::Scan { file, at: 0, len, urgency: Urgency::Background });
    }
    let urgent = rig.order(DiskOp::Scan { file, at: 0, len: 1, urgency: Urgency::Foreground });
    let mut before = 0;
    let mut all = Vec::new();
    for _ in 0..=background {
        let (ticket, done) = rig.outcome();
        assert!(matches!(done, Ok(DiskDone::Scanned(_))), "{done:?}");
        before += usize::from(ticket != urgent && !all.contains(&urgent));
        all.push(ticket);
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), background + 1, "each is answered once");
    assert!(before <= 4 * BACKGROUND_SCANS_MAX, "{before} came before the urgent one");
    rig.stop();
}

/// Asks for the free space of a folder again and again, and gets no other event.
struct Asking {
    acts: Acts<Order>,
    path: std::path::PathBuf,
    left: u32,
}

impl Machine for Asking {
    type Mail = Order;
    type Body = Slice;

    fn apply(&mut self, event: Event<'_, Order>, _now: Now) {
        if let Event::Disk { done, .. } = event {
            done.unwrap();
        }
        self.acts.push(match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Act::Disk { ticket: Ticket(0), op: DiskOp::Space { path: self.path.clone() } }
            }
            None => Act::Stopped,
        });
    }

    fn acts(&mut self) -> &mut Acts<Order> {
        &mut self.acts
    }

    fn wake_at(&self) -> Option<u64> {
        None
    }
}

#[test]
fn the_disk_works_on_for_as_long_as_no_socket_has_anything_to_say() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_path_buf();
    // The executor counts references to a task in 15 bits.
    let asking = Asking { acts: Acts::default(), path, left: 40_000 };
    let (to_control, _reports) = lane(64, &Arc::new(Waker::new().unwrap()));
    let waker = Arc::new(Waker::new().unwrap());
    let driver = Driver {
        core: None,
        name: "asking".into(),
        listeners: Vec::new(),
        connections_max: 1024,
        mailboxes: Mailboxes { waker, from: Vec::new(), to: vec![None], reports: to_control },
        stats: Arc::new(Stats::default()),
    };
    driver.run(move || Ok(asking)).unwrap();
}

#[test]
fn more_operations_than_may_be_in_progress_wait_their_turn() {
    let folder = TempDir::new().unwrap();
    let mut rig = Rig::new(Access::Direct);
    rig.open(1, &folder.path().join("file"), OpenHow::CreateNew);
    let bytes = pattern(PAGE_LEN);
    rig.write(1, 0, vec![Part::Bytes(bytes.clone())]);
    let begun = Instant::now();
    let count = 2 * DISK_OPS_MAX - 2;
    let first = rig.tickets + 1;
    for _ in 0..count {
        let into = rig.arena.alloc(100).unwrap();
        rig.order(DiskOp::Read { file: FileId(1), at: 7, len: 100, into });
    }
    let mut tickets: Vec<u64> = (0..count)
        .map(|_| match rig.outcome() {
            (ticket, Ok(DiskDone::Read(block))) if *block.bytes() == bytes[7..107] => ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    tickets.sort_unstable();
    assert!(tickets.iter().copied().eq(first..first + count as u64));
    assert!(begun.elapsed() < PATIENCE);
    rig.stop();
}

/// One step of a comparison with a file in memory.
#[derive(Clone, Debug)]
enum Step {
    Write { page: u64, pages: usize, block: bool, seed: u8 },
    Read { at: u64, len: usize },
    Scan { at: u64, len: usize, background: bool },
    Truncate { len: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..40, 1usize..20, any::<bool>(), any::<u8>())
            .prop_map(|(page, pages, block, seed)| Step::Write { page, pages, block, seed }),
        (0u64..200_000, 1usize..=65536).prop_map(|(at, len)| Step::Read { at, len }),
        (0u64..200_000, 0usize..100_000, any::<bool>())
            .prop_map(|(at, len, background)| Step::Scan { at, len, background }),
        prop_oneof![0u64..250_000, (0u64..60).prop_map(|page| page * 4096)]
            .prop_map(|len| Step::Truncate { len }),
    ]
}

fn compare(rig: &mut Rig, twin: &mut Vec<u8>, step: &Step) {
    match *step {
        Step::Write { page, pages, block, seed } => {
            let bytes: Vec<u8> = pattern(pages * PAGE_LEN).iter().map(|b| b ^ seed).collect();
            let mut parts = Vec::new();
            for piece in bytes.chunks(65536) {
                parts.push(match block {
                    true => Part::Block(rig.block(piece)),
                    false => Part::Bytes(piece.to_vec()),
                });
            }
            let at = page as usize * PAGE_LEN;
            rig.write(1, at as u64, parts);
            twin.resize(twin.len().max(at + bytes.len()), 0);
            twin[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Step::Read { at, len } => match twin.get(at as usize..at as usize + len) {
            Some(expected) => assert_eq!(rig.read(1, at, len).unwrap(), expected),
            None => assert!(rig.read(1, at, len).is_err()),
        },
        Step::Scan { at, len, background } => {
            let urgency = if background { Urgency::Background } else { Urgency::Foreground };
            let start = (at as usize).min(twin.len());
            let end = (start + len).min(twin.len());
            assert_eq!(rig.scan(1, at, len, urgency), &twin[start..end]);
        }
        Step::Truncate { len } => {
            rig.run(DiskOp::Truncate { file: FileId(1), len }).unwrap();
            twin.resize(len as usize, 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is done to a file, it is what a vector of bytes would be.
    #[test]
    fn a_file_is_a_vector_of_bytes(
        steps in prop::collection::vec(step(), 1..25),
        buffered: bool,
    ) {
        let folder = TempDir::new().unwrap();
        let mut rig = Rig::new(if buffered { Access::Buffered } else { Access::Direct });
        rig.open(1, &folder.path().join("file"), OpenHow::CreateNew);
        let mut twin = Vec::new();
        for step in &steps {
            compare(&mut rig, &mut twin, step);
        }
        rig.stop();
    }
}

#[test]
fn copies_to_another_file_system_hold_up_nothing_else() {
    const COPIES: usize = 8;
    const LEN: u64 = 16 << 20;
    let (Ok(here), there) = (TempDir::new_in("/dev/shm"), TempDir::new().unwrap()) else { return };
    let device = |folder: &TempDir| std::fs::metadata(folder.path()).unwrap().dev();
    if device(&here) == device(&there) {
        return;
    }
    let mut rig = Rig::new(Access::Direct);
    let path = |folder: &TempDir, n: usize| folder.path().join(n.to_string());
    for n in 0..COPIES {
        std::fs::File::create(path(&here, n)).unwrap().set_len(LEN).unwrap();
    }
    let copies: Vec<u64> = (0..COPIES)
        .map(|n| rig.order(DiskOp::Rename { from: path(&here, n), to: path(&there, n) }))
        .collect();
    // The others are on their way when one is done.
    let mut told = vec![rig.outcome().0];
    let op = DiskOp::Open { file: FileId(1), path: path(&there, 99), how: OpenHow::CreateNew };
    let open = rig.order(op);
    for _ in 0..COPIES {
        let (ticket, done) = rig.outcome();
        assert!(done.is_ok(), "{done:?}");
        told.push(ticket);
    }
    let opened = told.iter().position(|ticket| *ticket == open).unwrap();
    assert!(opened < COPIES / 2, "the file was opened behind {opened} copies");
    told.remove(opened);
    told.sort_unstable();
    assert_eq!(told, copies);
    for n in 0..COPIES {
        assert_eq!(std::fs::metadata(path(&there, n)).unwrap().len(), LEN);
        assert!(!path(&here, n).exists());
    }
    rig.stop();
}
