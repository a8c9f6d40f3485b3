//! The directories of a node, its volumes: who uses them, and how they are laid out.
//!
//! Opening them takes the lock of each, which keeps a second process out, and reads or makes each
//! `format.json`, which never changes afterwards (docs/STORAGE.md, "The data directory"). The
//! folders of partitions are made before it; one that is gone later is not made anew, because that
//! would be to forget what it held.
//!
//! ```text
//!   look at all ─► plan ─► make folders, lock ─► look again ─► plan ─► make what is new
//!                   │ refused: nothing was touched
//! ```
//!
//! A volume that cannot be used is absent while another can; one that is empty, foreign, or in the
//! wrong place is refused, because to go on would be to forget what it should hold.
//!
//! A crash while directories are made leaves empty ones, locks nobody holds, temporary files, or
//! some volumes made and none ever used: the next time they are made to the end.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use ron_shards::store::layout::{Layout, partition_name};

mod error;
mod file;
mod folders;
mod place;
mod volume;

pub use error::DataDirError;
pub use file::{FORMAT, Format, Repaired};
pub use place::{NodeId, Place};

use folders::{holds_something, make_dir, sync_dir};
use volume::{State, is_unusable, lock, lock_to_read};

/// The open volumes of a node. Nobody else can open them until this is dropped.
#[derive(Debug)]
pub struct DataDirs {
    paths: Vec<PathBuf>,
    partitions: u32,
    created: bool,
    absent: Vec<Absent>,
    lost: Vec<u16>,
    repaired: Vec<Repaired>,
    _locks: Vec<File>,
}

/// A volume that cannot be used.
#[derive(Debug)]
pub struct Absent {
    /// Its place among all, from 0.
    pub volume: u16,
    pub why: DataDirError,
}

/// Volumes of a node that is stopped, some or all of them, locked to be looked at.
#[derive(Debug)]
pub struct Stopped {
    /// By place; `None` for those that were not named.
    pub volumes: Vec<Option<PathBuf>>,
    pub partitions: u32,
    _locks: Vec<File>,
}

impl DataDirs {
    /// Opens the volumes at `paths`, at least one, in their order. Where nothing is, they are made
    /// with `partitions` partitions over all; existing ones keep the number they have.
    ///
    /// # Errors
    /// One is in use, unknown, damaged, empty where it should not be, in another's place, or holds
    /// something else; or none can be used.
    pub fn open(paths: &[PathBuf], partitions: u32) -> Result<DataDirs, DataDirError> {
        let states = paths.iter().map(|path| State::of(path)).collect::<Result<_, _>>()?;
        let lockings = Plan::of(paths, states)?.lock(paths)?;
        // What was seen before the locks were held may have changed meanwhile.
        let (mut locks, mut states) = (Vec::new(), Vec::new());
        for (path, locking) in paths.iter().zip(lockings) {
            states.push(match locking {
                Locking::Held(file) => {
                    locks.push(file);
                    State::of(path)?
                }
                Locking::Gone(why) => State::Unusable(why),
            });
        }
        let plan = Plan::of(paths, states)?;
        let created = plan.partitions.is_none();
        let partitions = plan.partitions.unwrap_or(partitions);
        plan.make(paths, partitions)?;
        let (paths, absent, lost, repaired) = (paths.to_vec(), plan.absent, Vec::new(), Vec::new());
        let mut opened =
            DataDirs { paths, partitions, created, absent, lost, repaired, _locks: locks };
        opened.look_for_partitions()?;
        opened.repair_formats();
        Ok(opened)
    }

    /// Sees to it that both files of every volume say what it is.
    fn repair_formats(&mut self) {
        for (at, path) in (0..).zip(&self.paths) {
            if self.absent.iter().all(|absent| absent.volume != at)
                && let Ok(Some(format)) = Format::read(path)
            {
                self.repaired.extend(format.repair(path));
            }
        }
    }

    /// Notes the folders of partitions that are gone. They were made before their volume said what
    /// it is, unless a hand or an older release wrote that: then they are made now, if the volume
    /// holds nothing of any.
    fn look_for_partitions(&mut self) -> Result<(), DataDirError> {
        for (at, path) in (0..).zip(&self.paths) {
            if self.absent.iter().any(|absent| absent.volume == at) {
                continue;
            }
            let volumes = self.paths.len();
            let folders = folders(path, self.partitions, usize::from(at), volumes);
            let (gone, there): (Vec<_>, Vec<_>) = folders.partition(|(_, folder)| is_gone(folder));
            let must_be_there =
                Format::is_sealed(path) || there.iter().any(|(_, folder)| holds_something(folder));
            let made = match must_be_there {
                true => Ok(gone.into_iter().map(|(number, _)| number).collect()),
                false => make_partitions(path, gone).map(|()| Vec::new()),
            };
            match made {
                Ok(lost) => self.lost.extend(lost),
                Err(why) if self.absent.len() + 1 < volumes && is_unusable(&why) => {
                    self.absent.push(Absent { volume: at, why });
                }
                Err(why) => return Err(why),
            }
        }
        self.absent.sort_unstable_by_key(|absent| absent.volume);
        self.lost.sort_unstable();
        Ok(())
    }

    /// All volumes, the absent ones too.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The first volume that is not absent.
    pub fn first_present(&self) -> &Path {
        let absent = |at: &usize| self.absent.iter().any(|gone| usize::from(gone.volume) == *at);
        let first = (0..self.paths.len()).find(|at| !absent(at)).unwrap_or(0);
        &self.paths[first]
    }

    /// The volumes that cannot be used, rising; never all.
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// The partitions whose folders are gone, rising, and where those were.
    pub fn lost(&self) -> impl Iterator<Item = (u16, PathBuf)> {
        let path = |number: u16| &self.paths[usize::from(number) % self.paths.len()];
        self.lost.iter().map(move |number| (*number, path(*number).join(partition_name(*number))))
    }

    /// Files that say what a volume is and were damaged or gone.
    pub fn repaired(&self) -> &[Repaired] {
        &self.repaired
    }

    /// Partitions of the node: 1 to `PARTITIONS_MAX`.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Whether this call of `open` made them.
    pub fn created(&self) -> bool {
        self.created
    }
}

impl Stopped {
    /// The layout of the node, with the volumes that were not named absent.
    pub fn layout(&self) -> Layout {
        let unnamed = |(volume, path): (u16, &Option<PathBuf>)| path.is_none().then_some(volume);
        Layout {
            absent: (0..).zip(&self.volumes).filter_map(unnamed).collect(),
            lost: Vec::new(),
            volumes: self.volumes.iter().map(|path| path.clone().unwrap_or_default()).collect(),
            partitions: self.partitions as u16,
            shards: 1,
        }
    }

    /// Takes the locks of some volumes of one node, in any order, and finds their places.
    ///
    /// # Errors
    /// One is in use, cannot be read, is of another version, is named twice, or belongs to
    /// another node than the first.
    pub fn open(paths: &[PathBuf]) -> Result<Stopped, DataDirError> {
        let formats = paths.iter().map(|path| made(path)).collect::<Result<Vec<Format>, _>>()?;
        let (partitions, node) = match formats.first() {
            Some(first) => (first.partitions, first.place),
            None => (0, None),
        };
        let count = node.map_or(1, |node| usize::from(node.volumes));
        let mut stopped = Stopped { volumes: vec![None; count], partitions, _locks: Vec::new() };
        for (path, format) in paths.iter().zip(formats) {
            let at = match (format.place, node) {
                (None, None) => Some(0),
                (Some(place), Some(node)) => {
                    let same = (place.id, place.volumes) == (node.id, node.volumes);
                    same.then_some(usize::from(place.volume))
                }
                _ => None,
            };
            let before = at.and_then(|at| stopped.volumes[at].clone());
            let Some(at) = at.filter(|_| {
                // Nodes with one directory have no name to tell them apart by.
                node.is_some() || before.as_ref().is_none_or(|before| is_same(before, path))
            }) else {
                return Err(of_another_node(path, format.place, node));
            };
            if let Some(first) = before {
                return Err(DataDirError::Twice { first, second: path.clone() });
            }
            check_same_partitions(path, format.partitions, partitions)?;
            stopped._locks.push(lock_to_read(path)?);
            stopped.volumes[at] = Some(path.clone());
        }
        Ok(stopped)
    }
}

/// What a volume says that must be there.
fn made(path: &Path) -> Result<Format, DataDirError> {
    match State::of(path)? {
        State::Made { format, .. } => Ok(format),
        State::Missing => Err(DataDirError::Missing { path: path.to_owned() }),
        State::Empty => Err(DataDirError::Nothing { path: path.to_owned() }),
        State::Unusable(why) => Err(why),
    }
}

fn of_another_node(path: &Path, found: Option<Place>, node: Option<Place>) -> DataDirError {
    let expected = node.map_or_else(
        || "nothing beside the only directory of a node".to_owned(),
        |node| format!("a volume of {} of the node {}", node.volumes, node.id),
    );
    DataDirError::Misplaced { path: path.to_owned(), found, expected }
}

/// What came of taking a lock.
#[derive(Debug)]
enum Locking {
    Held(File),
    Gone(DataDirError),
}

/// What opening comes to, if nothing changes meanwhile.
#[derive(Debug)]
struct Plan {
    /// What the volumes say; `None` if there are none yet.
    partitions: Option<u32>,
    id: Option<NodeId>,
    /// Places of the volumes that are still to be made, rising.
    make: Vec<usize>,
    absent: Vec<Absent>,
}

impl Plan {
    /// # Errors
    /// Why these cannot be the volumes of one node.
    fn of(paths: &[PathBuf], states: Vec<State>) -> Result<Plan, DataDirError> {
        let made = states.iter().find_map(|state| match state {
            State::Made { format, .. } => Some(format),
            _ => None,
        });
        let used = states.iter().any(|state| matches!(state, State::Made { used: true, .. }));
        let id = made.and_then(|format| format.place).map(|place| place.id);
        let partitions = made.map(|format| format.partitions);
        let mut plan = Plan { partitions, id, make: Vec::new(), absent: Vec::new() };
        for (volume, (state, path)) in (0..).zip(states.iter().zip(paths)) {
            if let State::Made { format, .. } = state {
                check_place(path, format, id, volume, paths.len() as u16)?;
                check_same_partitions(path, format.partitions, partitions.unwrap_or(0))?;
            }
        }
        for (at, (state, path)) in states.into_iter().zip(paths).enumerate() {
            let (volume, volumes) = (at as u16, paths.len() as u16);
            let why = match (state, id) {
                (State::Made { .. }, _) => continue,
                (State::Empty, Some(id)) if used => {
                    let expected = Place { id, volumes, volume };
                    return Err(DataDirError::Emptied { path: path.clone(), expected });
                }
                (State::Missing, Some(_)) => DataDirError::Missing { path: path.clone() },
                (State::Missing | State::Empty, _) => {
                    plan.make.push(at);
                    continue;
                }
                (State::Unusable(why), None) => return Err(why),
                (State::Unusable(why), Some(_)) => why,
            };
            plan.absent.push(Absent { volume, why });
        }
        Ok(plan)
    }

    /// Takes the locks of all volumes that are not absent, and makes folders for those there are
    /// to be. One that cannot be locked because of its disk is absent too.
    fn lock(self, paths: &[PathBuf]) -> Result<Vec<Locking>, DataDirError> {
        let Plan { partitions, make, absent, .. } = self;
        let mut absent = absent.into_iter().peekable();
        let mut lockings = Vec::with_capacity(paths.len());
        for (at, path) in paths.iter().enumerate() {
            if let Some(gone) = absent.next_if(|absent| usize::from(absent.volume) == at) {
                lockings.push(Locking::Gone(gone.why));
                continue;
            }
            if make.contains(&at) {
                make_dir(path)?;
            }
            if let Some(first) = paths[..at].iter().find(|first| is_same(first, path)) {
                let (first, second) = (first.clone(), path.clone());
                return Err(DataDirError::Twice { first, second });
            }
            lockings.push(match lock(path) {
                Ok(file) => Locking::Held(file),
                Err(why) if partitions.is_some() && is_unusable(&why) => Locking::Gone(why),
                Err(why) => return Err(why),
            });
        }
        Ok(lockings)
    }

    /// Makes the volumes that are still to be made.
    fn make(&self, paths: &[PathBuf], partitions: u32) -> Result<(), DataDirError> {
        if self.make.is_empty() {
            return Ok(());
        }
        let id = self.id.map_or_else(NodeId::random, Ok)?;
        let volumes = paths.len() as u16;
        for at in &self.make {
            let place = Place { id, volumes, volume: *at as u16 };
            let place = (volumes > 1).then_some(place);
            let folders = folders(&paths[*at], partitions, *at, paths.len());
            make_partitions(&paths[*at], folders)?;
            Format { partitions, place }.create(&paths[*at])?;
        }
        Ok(())
    }
}

/// Whether a volume is the one that belongs there; `id` is that of the first that was found.
fn check_place(
    path: &Path,
    format: &Format,
    id: Option<NodeId>,
    volume: u16,
    volumes: u16,
) -> Result<(), DataDirError> {
    let found = format.place;
    let fits = match found {
        None => volumes == 1,
        Some(place) => id.is_some_and(|id| place == Place { id, volumes, volume }),
    };
    if fits {
        return Ok(());
    }
    let expected = match id {
        _ if volumes == 1 => "the only directory of a node".to_owned(),
        None => format!("volume {volume} of {volumes} (counted from 0) of a node"),
        Some(id) => Place { id, volumes, volume }.to_string(),
    };
    Err(DataDirError::Misplaced { path: path.to_owned(), found, expected })
}

fn check_same_partitions(path: &Path, found: u32, others: u32) -> Result<(), DataDirError> {
    if found == others {
        return Ok(());
    }
    let path = path.join(file::FORMAT_FILE);
    let reason = format!("it says {found} partitions, and another volume of the node {others}");
    Err(DataDirError::Damaged { path, reason })
}

/// The folders of the partitions on the volume at `at` among `volumes`, with their numbers.
fn folders(
    volume: &Path,
    partitions: u32,
    at: usize,
    volumes: usize,
) -> impl Iterator<Item = (u16, PathBuf)> {
    let numbers = (0..partitions as u16).skip(at).step_by(volumes);
    numbers.map(|number| (number, volume.join(partition_name(number))))
}

/// Makes folders of partitions on a volume, durably. Those that a crash left are there already.
fn make_partitions(
    volume: &Path,
    folders: impl IntoIterator<Item = (u16, PathBuf)>,
) -> Result<(), DataDirError> {
    for (_, folder) in folders {
        make_dir(&folder)?;
    }
    sync_dir(volume)
}

/// Whether nothing has this name. What cannot be looked at is there.
fn is_gone(folder: &Path) -> bool {
    folder.try_exists().is_ok_and(|there| !there)
}

/// Whether two paths lead to one directory. What cannot be looked at is not the same.
fn is_same(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    number(one).is_some_and(|one| number(other) == Some(one))
}

#[cfg(test)]
mod tests;
