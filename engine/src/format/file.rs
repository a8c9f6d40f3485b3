//! `format.json`: what a directory says that it is. Written once, all of it or none, and a second
//! time as `format.copy.json`, which is used where the first is damaged.
//!
//! ```text
//! {"format":1,"partitions":N,"checksum":"…"}     a node with one directory
//! {"format":1,"partitions":N,"id":"…","volumes":V,"volume":K,"checksum":"…"}
//!                                                volume K of V of the node `id`
//! ```
//!
//! The checksum is the first 16 bytes of the BLAKE3-256 of the same text without it and without
//! the end of the line. A file without a checksum, of an older release or made by hand, is believed
//! where there is no copy.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    error::DataDirError,
    folders::{parent, refused, sync_dir},
    place::{NodeId, Place},
};
use crate::config::limits::{PARTITIONS_MAX, VOLUMES_MAX};

/// The format of data directories that this version reads and writes.
pub const FORMAT: u64 = 1;

pub(super) const FORMAT_FILE: &str = "format.json";
pub(super) const COPY_FILE: &str = "format.copy.json";
pub(super) const TEMPORARY_FILE: &str = "format.json.tmp";

/// Longest `format.json` that is read.
const FORMAT_LEN_MAX: u64 = 4096;

const CHECKSUM_LEN: usize = 16;

/// What a directory says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 1 to `PARTITIONS_MAX`, and at least one for each volume.
    pub partitions: u32,
    /// `None` for the only directory of a node.
    pub place: Option<Place>,
}

/// What is read first, whatever the format.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
    partitions: Option<u64>,
    id: Option<String>,
    volumes: Option<u64>,
    volume: Option<u64>,
    checksum: Option<String>,
}

#[derive(Serialize)]
struct Written {
    format: u64,
    partitions: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

/// One of the two files, read.
struct Said {
    format: Format,
    checked: bool,
}

/// A file that said something else than its directory is, or nothing, and was written anew.
#[derive(Debug)]
pub struct Repaired {
    pub path: PathBuf,
    /// Why it could not be written.
    pub failed: Option<DataDirError>,
}

impl Format {
    /// What the directory `dir` says; `None` if it says nothing.
    ///
    /// # Errors
    /// One is of another format; or neither can be read and is whole: what is wrong with the first
    /// that is there.
    pub(super) fn read(dir: &Path) -> Result<Option<Format>, DataDirError> {
        let both = [FORMAT_FILE, COPY_FILE].map(|name| Format::read_one(&dir.join(name)));
        let copied = !matches!(both[1], Ok(None));
        // A newer release may have ended when it had written one of the two.
        if let [Err(newer @ DataDirError::UnknownFormat { sealed: true, .. }), _]
        | [_, Err(newer @ DataDirError::UnknownFormat { sealed: true, .. })] = both
        {
            return Err(newer);
        }
        let mut wrong = None;
        for (read, name) in both.into_iter().zip([FORMAT_FILE, COPY_FILE]) {
            match read {
                Ok(Some(read)) if read.checked || !copied => return Ok(Some(read.format)),
                Ok(Some(_)) => {
                    let reason = format!("it has no checksum, and {COPY_FILE} is there");
                    wrong = wrong.or(Some(DataDirError::Damaged { path: dir.join(name), reason }));
                }
                Ok(None) => {}
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        wrong.map_or(Ok(None), Err)
    }

    /// Whether a node of this format has written one of the two files of `dir`, and not a hand or
    /// an older release, which write no checksum.
    pub(super) fn is_sealed(dir: &Path) -> bool {
        let checked = |name| {
            Format::read_one(&dir.join(name))
                .is_ok_and(|read| read.is_some_and(|said| said.checked))
        };
        [FORMAT_FILE, COPY_FILE].into_iter().any(checked)
    }

    fn read_one(path: &Path) -> Result<Option<Said>, DataDirError> {
        // To open anything else might wait without an end.
        if fs::metadata(path).is_ok_and(|facts| !facts.is_file()) {
            let reason = "it is no file".to_owned();
            return Err(DataDirError::Damaged { path: path.to_owned(), reason });
        }
        match File::open(path) {
            Ok(file) => Format::read_from(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("open", path)(error)),
        }
    }

    fn read_from(path: &Path, file: File) -> Result<Said, DataDirError> {
        let mut text = Vec::new();
        file.take(FORMAT_LEN_MAX + 1).read_to_end(&mut text).map_err(refused("read", path))?;
        let damaged = |reason: String| DataDirError::Damaged { path: path.to_owned(), reason };
        if text.len() as u64 > FORMAT_LEN_MAX {
            return Err(damaged(format!("it is longer than {FORMAT_LEN_MAX} bytes")));
        }
        let read: AnyFormat =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if read.format != FORMAT {
            let (path, found) = (parent(path).to_owned(), read.format);
            let sealed = read.checksum.is_some_and(|checksum| is_seal(&checksum, &text));
            return Err(DataDirError::UnknownFormat { path, found, known: FORMAT, sealed });
        }
        let partitions =
            read.partitions.ok_or_else(|| damaged("it names no partitions".to_owned()))?;
        let partitions = check_partitions(path, partitions)?;
        let place = match (&read.id, read.volumes, read.volume) {
            (None, None, None) => None,
            (Some(id), Some(volumes), Some(volume)) => {
                let most = partitions.min(VOLUMES_MAX as u32);
                let whole = (2..=u64::from(most)).contains(&volumes) && volume < volumes;
                let id = NodeId::parse(id).filter(|_| whole);
                let id = id.ok_or_else(|| {
                    damaged(format!("there is no volume {volume} of {volumes} of a node {id:?}"))
                })?;
                Some(Place { id, volumes: volumes as u16, volume: volume as u16 })
            }
            _ => {
                let reason = "id, volumes and volume belong together, and some are missing";
                return Err(damaged(reason.to_owned()));
            }
        };
        let format = Format { partitions, place };
        if read.checksum.as_ref().is_some_and(|found| *found != format.checksum()) {
            return Err(damaged("its checksum is of something else".to_owned()));
        }
        Ok(Said { format, checked: read.checksum.is_some() })
    }

    /// Its text without the checksum, and with this one.
    fn written(&self, checksum: Option<String>) -> String {
        let place = self.place;
        let written = Written {
            format: FORMAT,
            partitions: self.partitions,
            id: place.map(|place| place.id.to_string()),
            volumes: place.map(|place| place.volumes),
            volume: place.map(|place| place.volume),
            checksum,
        };
        serde_json::to_string(&written).expect("numbers and text can be written")
    }

    fn checksum(&self) -> String {
        let hash = blake3::hash(self.written(None).as_bytes());
        hash.to_hex().as_str()[..2 * CHECKSUM_LEN].to_owned()
    }

    /// Writes both files into `dir`: after a crash each is there as a whole or not at all.
    ///
    /// # Errors
    /// What the system refused, or a number of partitions that is not allowed.
    pub(super) fn create(&self, dir: &Path) -> Result<(), DataDirError> {
        check_partitions(&dir.join(FORMAT_FILE), self.partitions.into())?;
        [FORMAT_FILE, COPY_FILE].iter().try_for_each(|name| self.write(dir, name))
    }

    fn write(&self, dir: &Path, name: &str) -> Result<(), DataDirError> {
        let (temporary, path) = (dir.join(TEMPORARY_FILE), dir.join(name));
        let write = || {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{}", self.written(Some(self.checksum())))?;
            file.sync_all()
        };
        write().map_err(refused("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(refused("create", &path))?;
        sync_dir(dir)
    }

    /// Writes those of the two files of `dir` anew that do not say this, with a checksum. Returns
    /// those that were damaged or gone, and not only of an older release.
    pub(super) fn repair(&self, dir: &Path) -> Vec<Repaired> {
        let read = |name: &str| Format::read_one(&dir.join(name));
        let is_good = |name: &str| {
            read(name)
                .is_ok_and(|read| read.is_some_and(|read| read.checked && read.format == *self))
        };
        let good = [FORMAT_FILE, COPY_FILE].map(is_good);
        let older = good == [false; 2];
        let bad = [FORMAT_FILE, COPY_FILE].into_iter().zip(good).filter(|(_, good)| !good);
        let write = |(name, _): (&str, bool)| {
            let failed = self.write(dir, name).err();
            (failed.is_some() || !older).then(|| Repaired { path: dir.join(name), failed })
        };
        bad.filter_map(write).collect()
    }
}

/// Whether a text, of whatever format, has the checksum that it names.
fn is_seal(checksum: &str, text: &[u8]) -> bool {
    let field = format!(",\"checksum\":\"{checksum}\"");
    let text = String::from_utf8_lossy(text);
    let hash = blake3::hash(text.trim_end().replacen(&field, "", 1).as_bytes());
    hash.to_hex()[..2 * CHECKSUM_LEN] == *checksum
}

fn check_partitions(path: &Path, found: u64) -> Result<u32, DataDirError> {
    let allowed = u32::try_from(found).ok().filter(|n| (1..=PARTITIONS_MAX).contains(n));
    let max = PARTITIONS_MAX;
    allowed.ok_or_else(|| DataDirError::Partitions { path: path.to_owned(), found, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Format>, DataDirError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FORMAT_FILE), text).unwrap();
        let read = Format::read(dir.path());
        assert_eq!(fs::read_to_string(dir.path().join(FORMAT_FILE)).unwrap(), text);
        read
    }

    fn created(format: &Format) -> String {
        let dir = tempfile::tempdir().unwrap();
        format.create(dir.path()).unwrap();
        assert!(!dir.path().join(TEMPORARY_FILE).exists());
        assert_eq!(Format::read(dir.path()).unwrap().as_ref(), Some(format));
        let text = fs::read_to_string(dir.path().join(FORMAT_FILE)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(COPY_FILE)).unwrap(), text);
        text
    }

    /// The text with the checksum of STORAGE.md.
    fn checked(text: &str) -> String {
        let checksum = &blake3::hash(text.as_bytes()).to_hex()[..32];
        format!("{},\"checksum\":\"{checksum}\"}}\n", text.strip_suffix('}').unwrap())
    }

    #[test]
    fn what_is_written_is_documented_and_read_again() {
        let single = Format { partitions: 3, place: None };
        assert_eq!(created(&single), checked("{\"format\":1,\"partitions\":3}"));
        let id = NodeId(*b"0123456789abcde\xff");
        let volume = Format { partitions: 6, place: Some(Place { id, volumes: 2, volume: 1 }) };
        let hex = "303132333435363738396162636465ff";
        let text = format!(
            "{{\"format\":1,\"partitions\":6,\"id\":\"{hex}\",\"volumes\":2,\"volume\":1}}"
        );
        assert_eq!(created(&volume), checked(&text));
    }

    /// Every bit of either file, and either file gone.
    #[test]
    fn what_is_damaged_is_read_from_its_copy_and_written_anew() {
        let id = NodeId(*b"0123456789abcde\xff");
        let format = Format { partitions: 6, place: Some(Place { id, volumes: 2, volume: 1 }) };
        let dir = tempfile::tempdir().unwrap();
        format.create(dir.path()).unwrap();
        let whole = fs::read(dir.path().join(FORMAT_FILE)).unwrap();
        let names = [FORMAT_FILE, COPY_FILE];
        assert!(format.repair(dir.path()).is_empty(), "nothing is wrong");
        for (name, other) in [(names[0], names[1]), (names[1], names[0])] {
            let path = dir.path().join(name);
            for bit in 0..=whole.len() * 8 {
                let mut flipped = whole.clone();
                match flipped.get_mut(bit / 8) {
                    Some(byte) => {
                        *byte ^= 1 << (bit % 8);
                        fs::write(&path, &flipped).unwrap();
                    }
                    None => fs::remove_file(&path).unwrap(),
                }
                let read = Format::read(dir.path());
                assert!(matches!(read, Ok(Some(read)) if read == format), "{name} {bit}: {read:?}");
                // To write is slow: each is written anew for one bit of every other byte.
                if bit % 16 != 0 && bit < whole.len() * 8 {
                    fs::write(&path, &whole).unwrap();
                    continue;
                }
                for repaired in format.repair(dir.path()) {
                    let good = repaired.path == path && repaired.failed.is_none();
                    assert!(good, "{bit}: {repaired:?}");
                }
                for name in [name, other] {
                    let text = fs::read(dir.path().join(name)).unwrap();
                    let good = Format::read_one(&dir.path().join(name)).unwrap().unwrap();
                    assert!(good.checked && good.format == format, "{name} {bit}: {text:?}");
                }
                fs::write(&path, &whole).unwrap();
            }
        }
        names.iter().for_each(|name| fs::write(dir.path().join(name), "{").unwrap());
        assert!(matches!(Format::read(dir.path()), Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn a_file_without_a_checksum_is_believed_alone_and_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let [path, copy] = [FORMAT_FILE, COPY_FILE].map(|name| dir.path().join(name));
        fs::write(&path, "{\"format\":1,\"partitions\":7}\n").unwrap();
        let format = Format::read(dir.path()).unwrap().unwrap();
        assert!(format.repair(dir.path()).is_empty(), "an older release is no damage");
        let written = fs::read_to_string(&copy).unwrap();
        assert_eq!(written, checked("{\"format\":1,\"partitions\":7}"));
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        // Beside a copy it is one whose checksum was lost.
        fs::write(&path, "{\"format\":1,\"partitions\":5}\n").unwrap();
        assert_eq!(Format::read(dir.path()).unwrap(), Some(format));
        fs::write(&copy, "").unwrap();
        let wrong = Format::read(dir.path()).unwrap_err().to_string();
        assert!(wrong.contains("no checksum"), "{wrong}");
    }

    #[test]
    fn nothing_is_said_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Format::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn other_formats_are_refused_with_both_numbers() {
        let said = read(r#"{"format":2,"shape":"other"}"#).unwrap_err().to_string();
        assert!(said.contains("format 2") && said.contains("format 1"), "{said}");
    }

    #[test]
    fn damage_is_reported() {
        for text in ["", "{", "[]", r#"{"format":"1"}"#, r#"{"format":1}"#, "{\"partitions\":1}"] {
            assert!(matches!(read(text), Err(DataDirError::Damaged { .. })), "{text}");
        }
        let long = " ".repeat(FORMAT_LEN_MAX as usize + 1);
        assert!(matches!(read(&long), Err(DataDirError::Damaged { .. })));
    }

    #[test]
    fn partitions_have_bounds_and_unknown_fields_none() {
        for (partitions, good) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let text = format!(r#"{{"format":1,"partitions":{partitions},"node":"x"}}"#);
            assert_eq!(read(&text).is_ok(), good, "{partitions} read");
            let dir = tempfile::tempdir().unwrap();
            let made = Format { partitions, place: None }.create(dir.path());
            assert_eq!(made.is_ok(), good, "{partitions} made");
        }
    }

    #[test]
    fn places_are_whole_and_possible() {
        let id = "\"id\":\"00112233445566778899aabbccddeeff\"";
        for (fields, good) in [
            (format!("{id},\"volumes\":2,\"volume\":0"), true),
            (format!("{id},\"volumes\":3,\"volume\":2"), true),
            (format!("{id},\"volumes\":2,\"volume\":2"), false),
            (format!("{id},\"volumes\":1,\"volume\":0"), false),
            (format!("{id},\"volumes\":4,\"volume\":0"), false),
            (format!("{id},\"volumes\":2"), false),
            (id.to_owned(), false),
            ("\"volumes\":2,\"volume\":0".to_owned(), false),
            (id.replace("ff", "fg") + ",\"volumes\":2,\"volume\":0", false),
            (id.replace("00", "") + ",\"volumes\":2,\"volume\":0", false),
        ] {
            let read = read(&format!("{{\"format\":1,\"partitions\":3,{fields}}}"));
            assert_eq!(read.is_ok(), good, "{fields}: {read:?}");
        }
        let many = VOLUMES_MAX as u64 + 1;
        let text = format!("{{\"format\":1,\"partitions\":99,{id},\"volumes\":{many},");
        assert!(read(&(text + "\"volume\":0}")).is_err());
    }
}
