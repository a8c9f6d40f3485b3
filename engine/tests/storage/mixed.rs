//! Everything at once: a node is killed and ended, its disk fails and is full, and bits flip in
//! every file of its data directory, while clients store, read and delete.
//!
//! It takes a quarter of a minute, half an hour where it is asked for, or as long as
//! `RON_TORTURE_SECONDS` says. No start is refused, and no wrong byte comes. Nothing is lost or
//! undone whose own bytes are whole. Damage is reported, and a PUT of the bytes heals it.
//!
//! The disk is a FUSE file system, which needs root; others skip this.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{Dice, Node, Object, connect, http::Peer, timed};
use crate::faults::{
    Fault, Op, Rule,
    clients::{Counts, Damage, LastAnswer, World, may_be_file, nth_object},
    rig::{Rig, partitions, scrub},
};

const CLIENTS: u64 = 4;
const OBJECTS_EACH: u64 = 40;

/// How long the short form takes, and the long one.
const SHORT: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(30 * 60);

/// The bits that were flipped since all was made whole.
#[derive(Default)]
struct Flips {
    /// Objects that a file with a flipped bit says something of.
    touched: Mutex<BTreeSet<String>>,
    /// Segments with flipped bits: what is appended to them is touched, too.
    segments: Mutex<BTreeSet<PathBuf>>,
    disk_failed: AtomicBool,
}

impl Damage for Flips {
    fn excuses(&self, object: &Object) -> bool {
        // Where a part of a log was hit, a file may have come after its tombstone, and is kept.
        let is_kept = || {
            let segments = self.segments.lock().expect("nobody panics with it");
            may_be_file(object) && !segments.is_empty()
        };
        self.is_touched(object) || is_kept() || {
            // What was written behind a flipped bit meanwhile.
            self.look_again();
            self.is_touched(object)
        }
    }

    /// What is written anew may lie behind a flipped bit: all that was touched is made whole at
    /// once, later.
    fn over(&self, _: &Object) {}

    fn disk_failed(&self) -> bool {
        self.disk_failed.load(Ordering::Relaxed)
    }
}

impl Flips {
    fn is_touched(&self, object: &Object) -> bool {
        self.touched.lock().expect("nobody panics with it").contains(&object.addr)
    }

    /// Notes the objects that a file says something of, before one of its bits is flipped.
    fn touch(&self, path: &Path) {
        let name = path.file_stem().map_or("", |name| name.to_str().unwrap_or(""));
        let ending = path.extension().map_or("", |ending| ending.to_str().unwrap_or(""));
        let mut touched = self.touched.lock().expect("nobody panics with it");
        match ending {
            "obj" => drop(touched.insert(format!("b3:{name}"))),
            "seg" => {
                touched.extend(named_in(path));
                self.segments.lock().expect("nobody panics with it").insert(path.to_owned());
            }
            _ => {}
        }
    }

    fn look_again(&self) {
        let segments = self.segments.lock().expect("nobody panics with it");
        let named: Vec<String> = segments.iter().flat_map(|path| named_in(path)).collect();
        self.touched.lock().expect("nobody panics with it").extend(named);
    }

    fn clear(&self) {
        self.touched.lock().expect("nobody panics with it").clear();
        self.segments.lock().expect("nobody panics with it").clear();
    }
}

/// The addresses in the headers of a segment (docs/STORAGE.md, "Records"); none if it is gone.
fn named_in(segment: &Path) -> Vec<String> {
    let bytes = fs::read(segment).unwrap_or_default();
    let headers = bytes.chunks(128).filter(|at| at.starts_with(b"\xb3ronrec\n"));
    let digests = headers.filter_map(|header| header.get(16..48));
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    digests.map(|digest| format!("b3:{}", hex(digest))).collect()
}

/// Every file of the data directory, by the kind of file it is. Uploads are left out: their
/// objects are not known.
fn kinds(folder: &Path, kinds: &mut BTreeMap<String, Vec<PathBuf>>) {
    // Files come and go beside this while the node runs.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "tmp" {
            self::kinds(&path, kinds);
        } else if path.is_file() {
            let kind = path
                .extension()
                .filter(|ending| ["seg", "obj", "idx"].iter().any(|known| ending == known));
            let kind = kind.map_or(name, |ending| ending.to_string_lossy().into_owned());
            kinds.entry(kind).or_default().push(path);
        }
    }
}

/// What happened, by its name.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }
}

struct Torture<'a> {
    rig: &'a Rig,
    flips: &'a Flips,
    dice: Dice,
    tally: Tally,
    flipped: u64,
    /// Whether one of the two files that say what the directory is was hit since the last start:
    /// then the other is left alone.
    format_hit: bool,
}

impl Torture<'_> {
    /// One bit in a file of a kind, all kinds alike.
    fn flip_one(&mut self) {
        let mut kinds = BTreeMap::new();
        self::kinds(&self.rig.disk.below().join("data"), &mut kinds);
        let nth = self.dice.below(kinds.len() as u64) as usize;
        let Some((kind, paths)) = kinds.into_iter().nth(nth) else { return };
        let path = &paths[self.dice.below(paths.len() as u64) as usize];
        let len = fs::metadata(path).map_or(0, |data| data.len());
        let is_format = kind.starts_with("format");
        if len == 0 || (is_format && std::mem::replace(&mut self.format_hit, true)) {
            return;
        }
        self.flips.touch(path);
        let (at, bit) = (self.dice.below(len), self.dice.below(8) as u8);
        if self.rig.disk.flip(path, at, bit).is_ok() {
            self.tally.add(&format!("flips in {kind}"));
            self.flipped += 1;
        }
    }

    fn start(&mut self) -> Node {
        let shards = 1 + self.dice.below(crate::common::cores().len().min(2) as u64) as usize;
        let cache = ["16MiB", "64MiB"][self.dice.below(2) as usize];
        let args = ["--partitions", "4", "--cache", cache];
        self.format_hit = false;
        self.rig.setup().shards(shards).args(&args).start()
    }

    /// What the disk does while clients work.
    fn misfortune(&mut self) {
        let rule = |op, fault, one_in| Rule::always(op, fault).one_in(one_in);
        let (name, rule) = match self.dice.below(14) {
            0 => ("writes fail", rule(Op::Write, Fault::Error, 8)),
            1 => ("writes stop halfway", rule(Op::Write, Fault::Torn, 8)),
            2 => ("writes find no space", rule(Op::Write, Fault::Full, 4)),
            3 => ("syncs fail", rule(Op::Sync, Fault::Error, 10)),
            4 => ("syncs fail and are done", rule(Op::Sync, Fault::Torn, 10)),
            5 => ("folders are not synced", rule(Op::SyncDir, Fault::Error, 6)),
            6 => ("renames fail", rule(Op::Rename, Fault::Error, 3)),
            7 => ("files stay", rule(Op::Unlink, Fault::Error, 2)),
            8 => ("files are not made", rule(Op::Create, Fault::Error, 3)),
            9 => ("reads fail", rule(Op::Read, Fault::Error, 8)),
            10 => ("opens fail", rule(Op::Open, Fault::Error, 8)),
            11 => ("the disk is slow", rule(Op::Sync, Fault::Slow(Duration::from_millis(100)), 2)),
            12 => {
                self.rig.disk.fill();
                return self.tally.add("the disk is full");
            }
            _ => return self.tally.add("the disk is good"),
        };
        self.tally.add(name);
        self.rig.disk.fail(rule);
    }

    /// Clients work while things happen, and until the node has ended.
    fn suffer(&mut self, node: Node, world: &World<'_>, last: &mut [Vec<LastAnswer>]) {
        let (stop, at) = (AtomicBool::new(false), node.at("http"));
        let seed = self.dice.below(u64::MAX);
        self.flips.disk_failed.store(true, Ordering::Relaxed);
        thread::scope(|scope| {
            for (client, last) in (0..).zip(last) {
                let stop = &stop;
                scope.spawn(move || {
                    let mut dice = Dice(seed ^ client);
                    while !stop.load(Ordering::Relaxed)
                        && let Some(stream) = connect_if_there(at)
                    {
                        world.work((client, &mut dice), last, stream, stop);
                    }
                });
            }
            for _ in 0..1 + self.dice.below(3) {
                self.misfortune();
                // How long it lasts is what is being tried, not something that is waited for. In
                // some seconds a checkpoint is made.
                let longest = if self.dice.below(6) == 0 { 8000 } else { 1000 };
                thread::sleep(Duration::from_millis(100 + self.dice.below(longest)));
                if self.dice.below(2) == 0 {
                    self.flip_one();
                }
                if self.dice.below(2) == 0 {
                    self.rig.disk.heal();
                }
            }
            if self.dice.below(3) == 0 {
                self.rig.disk.heal();
                node.terminate();
                self.tally.add("stops");
            } else {
                node.kill();
                self.tally.add("kills");
            }
            stop.store(true, Ordering::Relaxed);
        });
        self.rig.disk.heal();
        self.flips.disk_failed.store(false, Ordering::Relaxed);
    }

    /// The scrub names what is damaged, and a PUT of what was touched heals it.
    fn make_whole(&mut self, node: &Node, last: &mut [Vec<LastAnswer>]) {
        scrub(node);
        self.flips.look_again();
        let report = node.admin("/storage").json();
        let listed = report["damage"]["objects"].as_array().expect("a list");
        let listed: BTreeSet<&str> =
            listed.iter().map(|object| object["addr"].as_str().expect("text")).collect();
        let mut peer = Peer::new(connect(node.at("http")));
        for (client, last) in (0..).zip(last) {
            for (nth, last) in (0..).zip(last) {
                let object = nth_object(client, nth);
                if !self.flips.is_touched(&object) {
                    assert!(!listed.contains(&*object.addr), "{} is not damaged", object.addr);
                    continue;
                }
                let was = peer.get(&format!("/o/{}", object.addr)).status;
                assert!(matches!(was, 200 | 404 | 502), "{was} for {}", object.addr);
                let reported = listed.contains(&*object.addr);
                assert_eq!(was == 502, reported, "{} is answered {was}", object.addr);
                self.tally.add(match (was, *last) {
                    (502, _) => "objects damaged and reported",
                    (404, LastAnswer::There) => "objects lost with their records",
                    (200, LastAnswer::Gone) => "objects back with their tombstones lost",
                    _ => "objects touched and as they were",
                });
                let put = peer.try_put(&object.addr, &object.bytes).expect("an answer").status;
                assert_eq!(put, if was == 200 { 200 } else { 201 }, "after {was}");
                *last = LastAnswer::There;
                assert_eq!(peer.get(&format!("/o/{}", object.addr)).status, 200);
            }
        }
        let left = node.admin("/storage").json()["damage"]["objects"].to_string();
        assert_eq!(left, "[]", "all of it is healed");
        self.flips.clear();
    }

    fn round(&mut self, world: &World<'_>, last: &mut [Vec<LastAnswer>]) -> [u64; 3] {
        let node = self.start();
        partitions(&node, "absent", 0);
        partitions(&node, "read_only", 0);
        let known = world.check_all(node.at("http"), last);
        self.make_whole(&node, last);
        self.suffer(node, world, last);
        for _ in 0..self.dice.below(4) {
            self.flip_one();
        }
        known
    }
}

/// A connection to a node that may be gone.
fn connect_if_there(at: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect(at).ok().map(timed)
}

fn torture(seed: u64, time: Duration) {
    let Some(rig) = Rig::new(seed) else { return };
    let seconds = std::env::var("RON_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + seconds.map_or(time, Duration::from_secs);
    let (counts, flips) = (Counts::default(), Flips::default());
    let world = World { counts: &counts, damage: &flips, clients: CLIENTS, objects: OBJECTS_EACH };
    let mut last = vec![vec![LastAnswer::Gone; OBJECTS_EACH as usize]; CLIENTS as usize];
    let (dice, tally) = (Dice(seed), Tally::default());
    let mut torture =
        Torture { rig: &rig, flips: &flips, dice, tally, flipped: 0, format_hit: false };
    let mut known = [0; 3];
    while Instant::now() < until {
        known = torture.round(&world, &mut last);
    }
    let node = torture.start();
    world.check_all(node.at("http"), &last);
    torture.make_whole(&node, &mut last);
    node.terminate();
    for (what, times) in &torture.tally.0 {
        eprintln!("{times:8} {what}");
    }
    eprintln!("{known:?} there, gone, unknown before the last round; {counts:?}");
    let of = |what: &str| torture.tally.0.get(what).copied().unwrap_or(0);
    assert!(of("kills") + of("stops") > 0 && torture.flipped > 0);
    assert!(counts.whole.load(Ordering::Relaxed) > 100);
}

#[test]
fn misfortunes_of_every_kind_together_lose_only_what_they_hit() {
    torture(1, SHORT);
}

#[test]
#[ignore = "takes half an hour"]
fn half_an_hour_of_misfortunes_loses_only_what_they_hit() {
    let seed = std::env::var("RON_TORTURE_SEED").ok().and_then(|text| text.parse().ok());
    torture(seed.unwrap_or(2), LONG);
}
