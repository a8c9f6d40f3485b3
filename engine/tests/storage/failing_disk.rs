//! A disk that fails beneath a node that runs: nothing acknowledged is lost, no wrong byte comes,
//! the node says what state it is in, and goes on as docs/STORAGE.md says.
//!
//! The disk is a FUSE file system, which needs root; others skip this.

use std::{
    fs,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::common::{DEADLINE, Dice, KIB, MIB, Node, Object, assert_same, http::Peer, object};
use crate::faults::{
    Fault, FaultyDisk, OPS_ALL, Op, Rule,
    clients::{Counts, Damage, LastAnswer, World},
    rig::{Rig, partitions, scrub},
};
use serde_json::Value;

fn put(node: &Node, object: &Object) -> u16 {
    let answer = Peer::new(node.connect()).try_put(&object.addr, &object.bytes);
    // A long object that fails early is answered before all of it came.
    answer.map_or(0, |answer| answer.status)
}

fn delete(node: &Node, object: &Object) -> u16 {
    let mut peer = Peer::new(node.connect());
    peer.send(format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", object.addr).as_bytes());
    peer.response("DELETE").status
}

fn get(node: &Node, object: &Object) -> u16 {
    let answer = Peer::new(node.connect()).get(&format!("/o/{}", object.addr));
    if answer.status == 200 {
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
    answer.status
}

/// Whether the disk has failed since the node was started; nothing is ever flipped.
struct Failing(AtomicBool);

impl Damage for Failing {
    fn excuses(&self, _: &Object) -> bool {
        false
    }

    fn over(&self, _: &Object) {}

    fn disk_failed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

const CLIENTS: u64 = 4;
const OBJECTS_EACH: u64 = 30;
/// Faults of a kind that must have happened before the next kind.
const HITS: u64 = 4;

/// One kind of misfortune after the other: the operation, and the fault.
fn misfortunes() -> Vec<Rule> {
    let often = |op, fault, one_in| Rule::always(op, fault).one_in(one_in);
    vec![
        often(Op::Write, Fault::Error, 8).on(".seg"),
        often(Op::Write, Fault::Torn, 8),
        often(Op::Write, Fault::Full, 8),
        often(Op::Sync, Fault::Torn, 10),
        often(Op::SyncDir, Fault::Error, 10),
        often(Op::Rename, Fault::Error, 3),
        often(Op::Rename, Fault::Torn, 3),
        often(Op::Unlink, Fault::Error, 2),
        often(Op::Create, Fault::Error, 3),
        often(Op::Read, Fault::Error, 8),
        often(Op::Open, Fault::Error, 8),
    ]
}

/// Lets clients at the node while this happens, until it happened often enough.
fn suffer(
    node: &Node,
    disk: &FaultyDisk,
    world: &World<'_>,
    last: &mut [Vec<LastAnswer>],
    rule: &Rule,
) {
    let stop = AtomicBool::new(false);
    let before = disk.hits(rule.op);
    thread::scope(|scope| {
        for (client, last) in (0..).zip(last) {
            let stop = &stop;
            scope.spawn(move || {
                let mut dice = Dice(client + before * 100);
                while !stop.load(Ordering::Relaxed) {
                    world.work((client, &mut dice), last, node.connect(), stop);
                }
            });
        }
        disk.fail(rule.clone());
        let deadline = Instant::now() + DEADLINE;
        while disk.hits(rule.op) < before + HITS && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            // A partition that takes nothing any more has no more misfortunes of most kinds.
            if node.metrics().sum("ron_partitions{state=\"read_only\"}") > 0 {
                break;
            }
        }
        disk.heal();
        stop.store(true, Ordering::Relaxed);
    });
    assert!(disk.hits(rule.op) > before, "{rule:?} never happened");
}

#[test]
fn errors_of_every_kind_come_and_go_and_lose_nothing() {
    let Some(rig) = Rig::new(7) else { return };
    let (counts, failing) = (Counts::default(), Failing(AtomicBool::new(false)));
    let world =
        World { counts: &counts, damage: &failing, clients: CLIENTS, objects: OBJECTS_EACH };
    let mut last = vec![vec![LastAnswer::Gone; OBJECTS_EACH as usize]; CLIENTS as usize];
    let args = ["--partitions", "2", "--cache", "16MiB"];
    let mut known = [0; 3];
    for (nth, rule) in misfortunes().iter().enumerate() {
        let node = rig.start(&args);
        partitions(&node, "absent", 0);
        partitions(&node, "read_only", 0);
        known = world.check_all(node.at("http"), &last);
        failing.0.store(true, Ordering::Relaxed);
        suffer(&node, &rig.disk, &world, &mut last, rule);
        // What an error made doubtful is read again, and all is as it was.
        scrub(&node);
        failing.0.store(false, Ordering::Relaxed);
        world.check_all(node.at("http"), &last);
        if nth % 2 == 0 { node.kill() } else { node.terminate() }
    }
    let node = rig.start(&args);
    world.check_all(node.at("http"), &last);
    node.terminate();
    let (code, said) = rig.fsck();
    assert_eq!(code, 0, "{said}");
    eprintln!("{known:?} there, gone, unknown; {counts:?}");
    assert!(known[0] > 10 && known[1] > 5, "{known:?}");
    let refused = [Op::Write, Op::Sync, Op::Rename, Op::Read].map(|op| rig.disk.hits(op));
    assert!(refused.iter().all(|hits| *hits > 0), "{refused:?}");
}

#[test]
fn a_batch_whose_sync_fails_is_refused_and_the_next_goes_elsewhere() {
    let Some(rig) = Rig::new(1) else { return };
    let node = rig.one_partition();
    let all: Vec<Object> = (1..=3).map(|seed| object(seed, 5000)).collect();
    assert_eq!(put(&node, &all[0]), 201);
    rig.disk.fail(Rule::always(Op::Sync, Fault::Error).on(".seg").times(1));
    assert_eq!(put(&node, &all[1]), 500);
    assert_eq!(get(&node, &all[1]), 404);
    assert_eq!(put(&node, &all[2]), 201);
    assert_eq!(rig.files(".seg").len(), 2, "the segment is not written again");
    partitions(&node, "read_only", 0);
    node.kill();
    let node = rig.one_partition();
    assert_eq!(all.iter().map(|object| get(&node, object)).collect::<Vec<_>>(), [200, 404, 200]);
    assert_eq!(put(&node, &all[1]), 201);
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

#[test]
fn a_segment_that_cannot_be_cut_makes_the_partition_read_only_until_a_restart() {
    let Some(rig) = Rig::new(2) else { return };
    let node = rig.one_partition();
    let all: Vec<Object> = (1..=3).map(|seed| object(seed, 5000)).collect();
    assert_eq!(put(&node, &all[0]), 201);
    rig.disk.fail(Rule::always(Op::Sync, Fault::Error).on(".seg"));
    assert_eq!(put(&node, &all[1]), 500);
    partitions(&node, "read_only", 1);
    rig.disk.heal();
    let ready = node.admin("/readyz");
    assert_eq!((ready.status, &ready.json()["storage"]), (503, &Value::Bool(false)));
    assert_eq!((put(&node, &all[2]), delete(&node, &all[0])), (500, 500));
    assert_eq!((get(&node, &all[0]), get(&node, &all[1])), (200, 404));
    node.terminate();
    let node = rig.one_partition();
    partitions(&node, "read_only", 0);
    assert_eq!((get(&node, &all[0]), put(&node, &all[2])), (200, 201));
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

#[test]
fn a_partition_whose_index_cannot_be_saved_comes_back_by_itself() {
    let Some(rig) = Rig::new(3) else { return };
    let node = rig.one_partition();
    rig.disk.fail(Rule::always(Op::Write, Fault::Full).on("/index/"));
    let all: Vec<Object> = (1..=2).map(|seed| object(seed, 5000)).collect();
    assert_eq!(put(&node, &all[0]), 201);
    partitions(&node, "read_only", 1);
    assert_eq!((put(&node, &all[1]), get(&node, &all[0])), (500, 200));
    rig.disk.heal();
    partitions(&node, "read_only", 0);
    assert_eq!((put(&node, &all[1]), get(&node, &all[0])), (201, 200));
    node.kill();
    let node = rig.one_partition();
    all.iter().for_each(|object| assert_eq!(get(&node, object), 200));
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

#[test]
fn files_that_cannot_be_renamed_or_removed_show_nothing_that_is_not_there() {
    let Some(rig) = Rig::new(4) else { return };
    let node = rig.one_partition();
    let (kept, large) = (object(1, MIB + 5), object(2, 3 * MIB));
    assert_eq!(put(&node, &kept), 201);
    rig.disk.fail(Rule::always(Op::Rename, Fault::Error).on(".obj"));
    assert_eq!((put(&node, &large), get(&node, &large)), (500, 404));
    assert_eq!(rig.files(".obj").len(), 1);
    rig.disk.heal();
    assert_eq!((put(&node, &large), get(&node, &large)), (201, 200));
    rig.disk.fail(Rule::always(Op::Unlink, Fault::Error).on(".obj"));
    assert_eq!((delete(&node, &large), get(&node, &large)), (204, 404));
    node.kill();
    let node = rig.one_partition();
    assert_eq!((get(&node, &kept), get(&node, &large)), (200, 404));
    assert_eq!(rig.files(".obj").len(), 2);
    rig.disk.heal();
    scrub(&node);
    // The scrub asks for the removal and does not wait for it.
    let until = Instant::now() + DEADLINE;
    while rig.files(".obj").len() > 1 {
        assert!(Instant::now() < until, "the scrub removes what nobody needs");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((get(&node, &kept), get(&node, &large)), (200, 404));
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

/// Objects of the two partitions, with those of the first in front.
fn by_partition() -> [Vec<Object>; 2] {
    let all = (1..40).map(|seed| object(seed, 3000));
    // The first hexadecimal digit of the address is behind `b3:`.
    let (first, second) = all.partition(|object| object.addr.as_bytes()[3] < b'8');
    [first, second]
}

#[test]
fn a_log_that_cannot_be_read_at_the_start_is_absent_and_is_not_cut() {
    let Some(rig) = Rig::new(5) else { return };
    let node = rig.start(&["--partitions", "2"]);
    node.terminate();
    let node = rig.start(&["--partitions", "2"]);
    let [first, second] = by_partition();
    first.iter().chain(&second).for_each(|object| assert_eq!(put(&node, object), 201));
    node.kill();
    let segment = rig.files(".seg").remove(0);
    let before = fs::read(&segment).expect("it can be read");
    rig.disk.fail(Rule::always(Op::Read, Fault::Error).on("p000/segments"));
    let node = rig.start(&["--partitions", "2"]);
    partitions(&node, "absent", 1);
    assert_eq!(node.admin("/readyz").status, 200, "the other serves");
    assert!(first.iter().all(|object| get(&node, object) == 503));
    assert!(second.iter().all(|object| get(&node, object) == 200));
    assert_eq!(put(&node, &first[0]), 503);
    assert_eq!(fs::read(&segment).expect("it can be read"), before, "nothing was cut");
    node.terminate();
    rig.disk.heal();
    let node = rig.start(&["--partitions", "2"]);
    partitions(&node, "absent", 0);
    assert!(first.iter().chain(&second).all(|object| get(&node, object) == 200));
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

/// So late is everything on the slow disk.
const LATE: Duration = Duration::from_secs(2);
/// What is in memory comes long before that, also on a machine that is busy.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[test]
fn a_slow_disk_holds_up_only_what_needs_it() {
    let Some(rig) = Rig::new(6) else { return };
    let node = rig.one_partition();
    let (hot, cold) = (object(1, 100 * KIB), object(2, 100 * KIB));
    assert_eq!((put(&node, &hot), put(&node, &cold)), (201, 201));
    node.terminate();
    let node = rig.start(&["--partitions", "1", "--deadline-head", "1", "--deadline-idle", "60"]);
    assert_eq!(get(&node, &hot), 200);
    for op in [Op::Read, Op::Write, Op::Sync] {
        rig.disk.fail(Rule::always(op, Fault::Slow(LATE)));
    }
    thread::scope(|scope| {
        let new = object(3, 100 * KIB);
        let node = &node;
        let reads = scope.spawn(move || (Instant::now(), get(node, &cold)));
        let writes = scope.spawn(move || (Instant::now(), put(node, &new)));
        let mut slowest = Duration::ZERO;
        while !(reads.is_finished() && writes.is_finished()) {
            let begun = Instant::now();
            assert_eq!(get(node, &hot), 200);
            assert_eq!(node.admin("/healthz").status, 200);
            slowest = slowest.max(begun.elapsed());
        }
        assert!(slowest < AT_ONCE, "{slowest:?} for what is in memory");
        for (late, wanted) in [(reads, 200), (writes, 201)] {
            let (begun, status) = late.join().expect("it does not panic");
            assert_eq!(status, wanted);
            assert!(begun.elapsed() >= LATE, "the disk was slow");
        }
    });
    // A deadline ends a connection that sends no head, whatever the disk does.
    let missing = object(4, 100);
    let waiting = thread::scope(|scope| {
        let node = &node;
        let write = scope.spawn(move || put(node, &missing));
        let mut silent = Peer::new(node.connect());
        silent.send(b"GET /o/");
        let begun = Instant::now();
        assert_eq!(silent.response("GET").status, 408);
        let waited = begun.elapsed();
        assert_eq!(write.join().expect("it does not panic"), 201);
        waited
    });
    assert!(waiting < Duration::from_secs(1) + AT_ONCE, "{waiting:?}");
    rig.disk.heal();
    node.terminate();
    assert_eq!(rig.fsck().0, 0);
}

/// Whatever fails of a disk while the node starts on it, behind a write that was cut off: it serves
/// what it can, or ends and says why; and once the disk is sound, all is as it was.
#[test]
fn a_disk_that_fails_at_the_start_loses_and_undoes_nothing() {
    let Some(rig) = Rig::new(9) else { return };
    let (large, gone) = (object(1, 2 * MIB), object(2, 2 * MIB));
    let setup = rig.setup().args(&["--partitions", "1"]);
    let node = setup.start();
    assert_eq!((put(&node, &large), put(&node, &gone), delete(&node, &gone)), (201, 201, 204));
    node.terminate();
    let (mut stored, mut ended) = (vec![large], 0);
    for op in OPS_ALL {
        for part in ["", "p000", ".seg", "/index/", ".obj", "/tls/"] {
            let last = rig.files(".seg").into_iter().max().expect("there is a segment");
            let mut last =
                fs::OpenOptions::new().append(true).open(last).expect("it can be written");
            last.write_all(&[7; 5000]).expect("it can be written");
            rig.disk.fail(Rule::always(op, Fault::Error).on(part));
            match setup.start_or_end() {
                Ok(node) => {
                    let found = get(&node, &stored[0]);
                    assert!([200, 500, 503].contains(&found), "{op:?} {part}: {found}");
                    let found = get(&node, &gone);
                    assert!([404, 503].contains(&found), "{op:?} {part}: {found}");
                    node.kill();
                }
                Err((code, said)) => {
                    assert_eq!(code, 1, "{op:?} {part}: {said}");
                    assert!(said.contains("rond: ") && said.contains("os error 5"), "{said}");
                    ended += 1;
                }
            }
            rig.disk.heal();
            let node = setup.start();
            let new = object(100 + stored.len() as u64, 5000);
            assert_eq!(put(&node, &new), 201);
            stored.push(new);
            assert!(stored.iter().all(|object| get(&node, object) == 200), "{op:?} {part}");
            assert_eq!(get(&node, &gone), 404, "{op:?} {part}");
            node.kill();
        }
    }
    assert!((1..40).contains(&ended), "{ended} of 60 starts ended");
    assert_eq!(rig.fsck().0, 0);
}
