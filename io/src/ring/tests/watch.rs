//! What is seen of a driver from outside: what it does, and what holds it.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use super::*;
use crate::{lane::Receiver, watch::clock_ns, work::Work};

/// Long enough to be no stall on any machine.
const NEVER: Duration = Duration::from_secs(30);

/// What the machine is ordered to do.
enum Do {
    /// Block in `apply` for so long.
    Block(Duration),
    /// Block in `apply` until this has something to say, after telling that it does.
    BlockOn(mpsc::Sender<()>, mpsc::Receiver<()>),
    /// Have a thread do something; its end is an event.
    Run(mpsc::Sender<()>),
    Nothing(mpsc::Sender<()>),
    Stop,
}

struct Blocker {
    acts: Acts<Do>,
    ran: Option<mpsc::Sender<()>>,
}

impl Machine for Blocker {
    type Mail = Do;
    type Body = Slice;

    fn apply(&mut self, event: Event<'_, Do>, _now: Now) {
        match event {
            // This is the stall itself.
            Event::Mail(Do::Block(for_long)) => std::thread::sleep(for_long),
            Event::Mail(Do::BlockOn(blocked, until)) => {
                blocked.send(()).unwrap();
                until.recv_timeout(PATIENCE).unwrap();
            }
            Event::Mail(Do::Run(ran)) => {
                self.ran = Some(ran);
                let op = DiskOp::Run(Box::new(|| Ok(())));
                self.acts.push(Act::Disk { ticket: Ticket(1), op });
            }
            Event::Disk { .. } => self.ran.take().unwrap().send(()).unwrap(),
            Event::Mail(Do::Nothing(done)) => done.send(()).unwrap(),
            Event::Mail(Do::Stop) => self.acts.push(Act::Stopped),
            _ => {}
        }
    }

    fn acts(&mut self) -> &mut Acts<Do> {
        &mut self.acts
    }

    fn wake_at(&self) -> Option<u64> {
        Some(u64::MAX)
    }
}

struct Rig {
    orders: Sender<Do>,
    reports: Receiver<Report>,
    stats: Arc<Stats>,
    thread: JoinHandle<()>,
}

impl Rig {
    fn new(limit: Duration) -> Rig {
        let waker = Arc::new(Waker::new().unwrap());
        let (orders, from) = lane(8, &waker);
        let (to_control, reports) = lane(64, &Arc::new(Waker::new().unwrap()));
        let stats = Arc::new(Stats::default());
        stats.watch.set_limit(limit);
        let driver = Driver {
            core: None,
            name: "watched".into(),
            listeners: Vec::new(),
            connections_max: 1024,
            mailboxes: Mailboxes { waker, from: vec![from], to: vec![None], reports: to_control },
            stats: Arc::clone(&stats),
        };
        let make = || Ok(Blocker { acts: Acts::default(), ran: None });
        let thread = std::thread::spawn(move || driver.run(make).unwrap());
        Rig { orders, reports, stats, thread }
    }

    fn order(&self, order: Do) {
        assert!(self.orders.send(order).is_ok());
    }

    /// Has it done, and waits until it is.
    fn done(&self, order: impl FnOnce(mpsc::Sender<()>) -> Do) {
        let (done, is_done) = mpsc::channel();
        self.order(order(done));
        is_done.recv_timeout(PATIENCE).unwrap();
    }

    /// Stops it; yields the stalls that were reported.
    fn stop(self) -> (Arc<Stats>, Vec<Stall>) {
        self.order(Do::Stop);
        self.thread.join().unwrap();
        let mut stalls = Vec::new();
        while let Some(report) = self.reports.take() {
            match report {
                Report::Stalled { shard: ShardId(0), stall } => stalls.push(stall),
                other => panic!("{other:?}"),
            }
        }
        (self.stats, stalls)
    }
}

fn counted(stats: &Stats) -> u64 {
    Work::ALL.iter().map(|work| stats.watch.stalls(*work)).sum()
}

#[test]
fn a_shard_that_wakes_wakes_its_watcher() {
    let rig = Rig::new(NEVER);
    let waker = Arc::new(Waker::new().unwrap());
    rig.stats.watch.set_watcher(Arc::clone(&waker));
    rig.done(Do::Nothing);
    let deadline = Instant::now() + PATIENCE;
    while rig.stats.watch.doing().is_some() {
        assert!(Instant::now() < deadline, "it does not come to rest");
        std::thread::yield_now();
    }
    waker.prepare_park();
    rig.done(Do::Nothing);
    let mut poll = libc::pollfd { fd: waker.eventfd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 1);
    rig.stop();
}

#[test]
fn a_planted_stall_is_reported_with_what_it_was_and_how_long() {
    // A busy machine may hold any thread for some milliseconds.
    let rig = Rig::new(Duration::from_millis(300));
    rig.done(Do::Nothing);
    rig.order(Do::Block(Duration::from_millis(400)));
    // The turn that was held has ended when another one has begun.
    rig.done(Do::Nothing);
    rig.done(Do::Run);
    let (stats, stalls) = rig.stop();
    let mail: Vec<&Stall> = stalls.iter().filter(|stall| stall.work == Work::Mail).collect();
    assert_eq!((mail.len(), stats.watch.stalls(Work::Mail) >= 1), (1, true), "{stalls:?}");
    // The pace of the counter is learnt, so that some of it may be missing.
    assert!(mail[0].held_ns > 390_000_000 && mail[0].held_ns < 30_000_000_000, "{mail:?}");
    assert!(mail[0].ran_ns < mail[0].held_ns, "it slept: {mail:?}");
    let slowest = stats.watch.slowest(clock_ns()).unwrap();
    assert!(slowest.work == Work::Mail && slowest.held_ns > 390_000_000, "{slowest:?}");
}

#[test]
fn without_a_stall_nothing_is_reported() {
    let rig = Rig::new(NEVER);
    for _ in 0..1000 {
        rig.done(Do::Nothing);
        rig.done(Do::Run);
    }
    rig.order(Do::Block(Duration::from_millis(30)));
    rig.done(Do::Nothing);
    let (stats, stalls) = rig.stop();
    assert_eq!((stalls, counted(&stats)), (Vec::new(), 0));
    assert!(stats.watch.turns.get() > 1000 && stats.watch.ring.enters.get() > 1000);
}

#[test]
fn with_no_limit_nothing_is_a_stall() {
    let rig = Rig::new(Duration::ZERO);
    rig.order(Do::Block(Duration::from_millis(50)));
    rig.done(Do::Nothing);
    let (stats, stalls) = rig.stop();
    assert_eq!((stalls, counted(&stats)), (Vec::new(), 0));
    assert_eq!(stats.watch.slowest(clock_ns()).unwrap().work, Work::Mail);
}

#[test]
fn a_shard_that_hangs_is_seen_while_it_does() {
    let rig = Rig::new(NEVER);
    let (blocked, is_blocked) = mpsc::channel();
    let (release, until) = mpsc::channel();
    rig.order(Do::BlockOn(blocked, until));
    is_blocked.recv_timeout(PATIENCE).unwrap();
    let doing = rig.stats.watch.doing().unwrap();
    assert_eq!(doing.work, Work::Mail);
    assert!(doing.turn_began_ns > 0 && doing.turn_began_ns <= clock_ns());
    // What piles up meanwhile is seen as well.
    let (done, is_done) = mpsc::channel();
    rig.order(Do::Nothing(done));
    assert_eq!(rig.stats.watch.lanes(), [1]);
    assert_eq!(rig.stats.watch.doing(), Some(doing));
    release.send(()).unwrap();
    is_done.recv_timeout(PATIENCE).unwrap();
    assert_ne!(rig.stats.watch.doing(), Some(doing));
    assert_eq!(rig.stop().1, []);
}
