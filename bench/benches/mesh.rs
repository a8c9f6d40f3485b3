//! The mailboxes between shards: leaving and taking a message, and the way there and back.
//!
//! A hop between two threads that are awake is bounded by what a cache line takes from core to
//! core, which two counters show; one to a sleeper and back by the kernel, which a pair of pipes
//! shows. With fewer than two cores to itself the first of these measures the scheduler.

use std::{
    collections::VecDeque,
    hint::{black_box, spin_loop},
    io::{Read, Write, pipe},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use ron_bench::{address, brief};
use ron_codec::address::Address;
use ron_io::{
    lane::{Receiver, Sender, Waker, lane},
    ports::{ConnId, ShardId},
};
use ron_shards::{
    flow::{Ask, Asker, Mail, Place, Reply, StreamId},
    limits::MESH_ASKS_MAX,
};

/// Messages left before any is taken.
const MESSAGES: usize = 64;

/// Looks at a lane before the thread lets another one run.
const SPINS_MAX: u32 = 10_000;

const STREAM: StreamId = StreamId { conn: ConnId { slot: 1, generation: 1 }, stream: 1 };

fn ask(address: Address) -> Mail {
    let from = Asker { shard: ShardId(0), stream: STREAM, peer: None, place: Place::Read };
    Mail::Ask { from, ask: Ask::Open { address, first: Some(0) } }
}

fn reply() -> Mail {
    Mail::Reply { from: ShardId(1), to: STREAM, place: Place::Read, reply: Reply::Missing }
}

/// The last message: the other side ends.
fn last() -> Mail {
    Mail::Drained { from: ShardId(0) }
}

/// One end of a pair of lanes.
struct End {
    to: Sender<Mail>,
    from: Receiver<Mail>,
    waker: Arc<Waker>,
}

fn ends() -> (End, End) {
    let waker = || Arc::new(Waker::new().expect("there are descriptors"));
    let (near, far) = (waker(), waker());
    let (to_far, from_near) = lane(MESH_ASKS_MAX, &far);
    let (to_near, from_far) = lane(MESH_ASKS_MAX, &near);
    (
        End { to: to_far, from: from_far, waker: near },
        End { to: to_near, from: from_near, waker: far },
    )
}

/// Looks until there is something.
fn spin<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let mut spins = 0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        spins += 1;
        if spins % SPINS_MAX == 0 {
            thread::yield_now();
        }
        spin_loop();
    }
}

impl End {
    fn send(&self, mail: Mail) {
        self.to.send(mail).expect("the lane holds all that is sent");
    }

    /// Answers until the last message, taking each with `take`.
    fn answer(&self, mut take: impl FnMut(&End) -> Mail) {
        while let Mail::Ask { .. } = black_box(take(self)) {
            self.send(reply());
        }
    }
}

/// Sleeps on a waker, as the driver does when it has nothing to do.
struct Sleeper {
    poll: Poll,
    events: Events,
}

impl Sleeper {
    fn new(waker: &Waker) -> Sleeper {
        let poll = Poll::new().expect("there are descriptors");
        // One event for each wake-up, so that the waker need not be read.
        let registered =
            poll.registry().register(&mut SourceFd(&waker.eventfd()), Token(0), Interest::READABLE);
        registered.expect("a waker can be waited for");
        Sleeper { poll, events: Events::with_capacity(1) }
    }

    fn take(&mut self, end: &End) -> Mail {
        loop {
            if let Some(mail) = end.from.take() {
                return mail;
            }
            end.waker.prepare_park();
            if end.from.is_empty() {
                self.poll.poll(&mut self.events, None).expect("waiting works");
            }
            end.waker.unpark();
        }
    }
}

fn one_thread(c: &mut Criterion) {
    let address = address(1, 1);
    let mut bench = c.benchmark_group("mailbox, one thread");
    bench.throughput(Throughput::Elements(MESSAGES as u64));
    let mut queue = VecDeque::with_capacity(MESSAGES);
    bench.bench_function("limit: VecDeque", |b| {
        b.iter(|| {
            (0..MESSAGES).for_each(|_| queue.push_back(ask(black_box(address))));
            while let Some(mail) = queue.pop_front() {
                black_box(mail);
            }
        });
    });
    let queue = ArrayQueue::new(MESSAGES);
    bench.bench_function("beside: ArrayQueue without a waker", |b| {
        b.iter(|| {
            (0..MESSAGES).for_each(|_| drop(black_box(queue.push(ask(black_box(address))))));
            while let Some(mail) = queue.pop() {
                black_box(mail);
            }
        });
    });
    let waker = Arc::new(Waker::new().expect("there are descriptors"));
    let (sender, receiver) = lane(MESSAGES, &waker);
    bench.bench_function("lane", |b| {
        b.iter(|| {
            (0..MESSAGES).for_each(|_| drop(black_box(sender.send(ask(black_box(address))))));
            while let Some(mail) = receiver.take() {
                black_box(mail);
            }
        });
    });
    bench.finish();
}

fn awake(c: &mut Criterion) {
    let mut bench = c.benchmark_group("there and back, both awake");
    bench.throughput(Throughput::Elements(1));
    // The other thread repeats what this one counts; the greatest number ends it.
    let (there, back) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen < u64::MAX {
                seen = spin(|| Some(there.load(Ordering::Acquire)).filter(|now| *now != seen));
                back.store(seen, Ordering::Release);
            }
        });
        let mut n = 0;
        bench.bench_function("limit: two counters", |b| {
            b.iter(|| {
                n += 1;
                there.store(n, Ordering::Release);
                spin(|| (back.load(Ordering::Acquire) == n).then_some(()));
            });
        });
        there.store(u64::MAX, Ordering::Release);
    });
    let address = address(1, 1);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| far.answer(|end| spin(|| end.from.take())));
        bench.bench_function("lanes", |b| {
            b.iter(|| {
                near.send(ask(black_box(address)));
                spin(|| near.from.take())
            });
        });
        near.send(last());
    });
    bench.finish();
}

fn asleep(c: &mut Criterion) {
    let mut bench = c.benchmark_group("there and back, both asleep");
    bench.throughput(Throughput::Elements(1));
    let (mut from_near, mut to_far) = pipe().expect("there are descriptors");
    let (mut from_far, mut to_near) = pipe().expect("there are descriptors");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while from_near.read_exact(&mut byte).is_ok() && to_near.write_all(&byte).is_ok() {}
        });
        let mut byte = [1];
        bench.bench_function("limit: two pipes", |b| {
            b.iter(|| {
                to_far.write_all(&byte).expect("the other side reads");
                from_far.read_exact(&mut byte).expect("the other side writes");
            });
        });
        drop(to_far);
    });
    let address = address(1, 1);
    let (near, far) = ends();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sleeper = Sleeper::new(&far.waker);
            far.answer(|end| sleeper.take(end));
        });
        let mut sleeper = Sleeper::new(&near.waker);
        bench.bench_function("lanes and wakers", |b| {
            b.iter(|| {
                near.send(ask(black_box(address)));
                sleeper.take(&near)
            });
        });
        near.send(last());
    });
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = one_thread, awake, asleep }
criterion_main!(benches);
