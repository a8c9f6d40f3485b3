//! A disk that fails when a test says so: a FUSE file system that passes everything on to a
//! folder, served by the test's own process, with faults in between.
//!
//! It needs `/dev/fuse` and root, who mounts without a helper; where either is missing there is
//! none, and that is said.

#![allow(dead_code)]

pub(crate) mod clients;
mod passing;
pub(crate) mod rig;

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fuser::{BackgroundSession, Config, MountOption};
use passing::Passing;
use tempfile::TempDir;

use crate::common::Dice;

/// Requests that the file system serves at once: so many may be slow.
const THREADS: usize = 24;

/// What the node asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Read,
    Write,
    Sync,
    /// A folder is synced.
    SyncDir,
    Truncate,
    Create,
    Open,
    Rename,
    Unlink,
    List,
}

pub(crate) const OPS_ALL: [Op; 10] = [
    Op::Read,
    Op::Write,
    Op::Sync,
    Op::SyncDir,
    Op::Truncate,
    Op::Create,
    Op::Open,
    Op::Rename,
    Op::Unlink,
    Op::List,
];
pub(crate) const OPS: usize = OPS_ALL.len();

/// What becomes of it. A read that brings fewer bytes is not among them: to the kernel that is the
/// end of the file, and it makes up the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done, and fails with EIO.
    Error,
    /// It is not done, and fails with ENOSPC.
    Full,
    /// Of a write the first half reaches the file, of anything else all is done; then EIO.
    Torn,
    /// It is done so much later.
    Slow(Duration),
}

/// When a fault happens.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) op: Op,
    /// What is in the path of the file or folder that it happens to.
    pub(crate) part: &'static str,
    pub(crate) fault: Fault,
    /// Once in so many times, by chance.
    pub(crate) one_in: u64,
    /// So often it does not happen first.
    pub(crate) after: u64,
    /// So often it happens at most.
    pub(crate) times: u64,
}

impl Rule {
    /// Always, on every file.
    pub(crate) fn always(op: Op, fault: Fault) -> Rule {
        Rule { op, part: "", fault, one_in: 1, after: 0, times: u64::MAX }
    }

    pub(crate) fn on(self, part: &'static str) -> Rule {
        Rule { part, ..self }
    }

    pub(crate) fn one_in(self, one_in: u64) -> Rule {
        Rule { one_in, ..self }
    }

    pub(crate) fn after(self, after: u64) -> Rule {
        Rule { after, ..self }
    }

    pub(crate) fn times(self, times: u64) -> Rule {
        Rule { times, ..self }
    }
}

#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    dice: Dice,
}

/// The faults of a file system, shared between the test and the threads that serve it.
#[derive(Debug)]
struct Faults {
    rules: Mutex<Rules>,
    /// How often a fault happened, by operation.
    hits: [AtomicU64; OPS],
    /// Held for writing while bits are flipped: no write may come in between.
    quiet: RwLock<()>,
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().expect("nobody panics with it")
    }

    /// What becomes of this one. Waits here if it is a slow one.
    fn of(&self, op: Op, path: &Path) -> Option<Fault> {
        let fault = self.rules().draw(op, path)?;
        self.hits[op as usize].fetch_add(1, Ordering::Relaxed);
        match fault {
            Fault::Slow(time) => {
                std::thread::sleep(time);
                None
            }
            fault => Some(fault),
        }
    }

    fn is_full(&self) -> bool {
        self.rules().rules.iter().any(|rule| rule.fault == Fault::Full)
    }
}

impl Rules {
    fn draw(&mut self, op: Op, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        for rule in &mut self.rules {
            if rule.op != op || !path.contains(rule.part) || rule.times == 0 {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
            } else if self.dice.below(rule.one_in) == 0 {
                rule.times -= 1;
                return Some(rule.fault);
            }
        }
        None
    }
}

/// A disk of its own, mounted until this is dropped.
pub(crate) struct FaultyDisk {
    faults: Arc<Faults>,
    session: Option<BackgroundSession>,
    dir: TempDir,
}

impl FaultyDisk {
    /// A disk without faults, whose chances this seed decides. `None`, which is said, where there
    /// can be none.
    pub(crate) fn new(seed: u64) -> Option<FaultyDisk> {
        let dir = tempfile::tempdir().expect("a directory can be made");
        for name in ["below", "disk"] {
            fs::create_dir(dir.path().join(name)).expect("a directory can be made");
        }
        let faults = Arc::new(Faults {
            rules: Mutex::new(Rules { rules: Vec::new(), dice: Dice(seed) }),
            hits: Default::default(),
            quiet: RwLock::default(),
        });
        let passing = Passing::new(dir.path().join("below"), Arc::clone(&faults));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("ron-faults".into()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        match fuser::spawn_mount(passing, dir.path().join("disk"), &config) {
            Ok(session) => Some(FaultyDisk { faults, session: Some(session), dir }),
            Err(error) => {
                crate::common::skipped(&format!(
                    "no FUSE file system can be mounted here: {error}"
                ));
                None
            }
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// The folder behind it, in which nothing fails.
    pub(crate) fn below(&self) -> PathBuf {
        self.dir.path().join("below")
    }

    /// From now on this happens, too.
    pub(crate) fn fail(&self, rule: Rule) {
        self.faults.rules().rules.push(rule);
    }

    /// There is no space any more: writes fail, and the disk says that nothing is free.
    pub(crate) fn fill(&self) {
        for op in [Op::Write, Op::Create] {
            self.fail(Rule::always(op, Fault::Full));
        }
    }

    /// From now on nothing fails.
    pub(crate) fn heal(&self) {
        self.faults.rules().rules.clear();
    }

    /// How often faults of this operation happened.
    pub(crate) fn hits(&self, op: Op) -> u64 {
        self.faults.hits[op as usize].load(Ordering::Relaxed)
    }

    /// Flips a bit of a file below, even while it is in use; no write comes in between. Returns
    /// the byte as it is then; an error where the file is gone or shorter.
    pub(crate) fn flip(&self, path: &Path, at: u64, bit: u8) -> io::Result<u8> {
        let _quiet = self.faults.quiet.write().expect("nobody panics with it");
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at)?;
        Ok(byte[0])
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.heal();
        let session = self.session.take().expect("it is there until now");
        if let Err(error) = session.umount_and_join() {
            eprintln!("the faulty disk cannot be unmounted: {error}");
        }
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("what was on the disk is kept in {:?}", self.below());
        }
    }
}
