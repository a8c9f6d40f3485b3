//! `format.json`: what a directory says that it is. Written once, all of it or none.
//!
//! ```text
//! {"format":1,"partitions":N}                                    a node with one directory
//! {"format":1,"partitions":N,"id":"…","volumes":V,"volume":K}    volume K of V of the node `id`
//! ```

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{DataDirError, FORMAT, parent, refused, sync_dir};
use crate::{
    config::limits::{PARTITIONS_MAX, VOLUMES_MAX},
    random::{self, NoRandom},
};

pub(super) const FORMAT_FILE: &str = "format.json";
pub(super) const TEMPORARY_FILE: &str = "format.json.tmp";

/// Longest `format.json` that is read.
const FORMAT_LEN_MAX: u64 = 4096;

const ID_LEN: usize = 16;

/// What all volumes of a node have in common, and no other node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeId([u8; ID_LEN]);

/// Which of how many volumes of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: NodeId,
    /// 2 to `VOLUMES_MAX`.
    pub volumes: u16,
    /// Counted from 0.
    pub volume: u16,
}

/// What a directory says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 1 to `PARTITIONS_MAX`, and at least one for each volume.
    pub partitions: u32,
    /// `None` for the only directory of a node.
    pub place: Option<Place>,
}

impl NodeId {
    pub(super) fn random() -> Result<NodeId, NoRandom> {
        random::bytes().map(NodeId)
    }

    fn parse(hex: &str) -> Option<NodeId> {
        let digits: Option<Vec<u8>> = hex
            .bytes()
            .map(|byte| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            })
            .collect();
        let (pairs, []) = digits.as_ref()?.as_chunks::<2>() else { return None };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().map(NodeId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { id, volumes, volume } = self;
        write!(f, "volume {volume} of {volumes} (counted from 0) of the node {id}")
    }
}

/// What is read first, whatever the format.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
    partitions: Option<u64>,
    id: Option<String>,
    volumes: Option<u64>,
    volume: Option<u64>,
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
}

impl Format {
    /// What the directory `dir` says; `None` if it says nothing.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or of another format.
    pub(super) fn read(dir: &Path) -> Result<Option<Format>, DataDirError> {
        let path = dir.join(FORMAT_FILE);
        match File::open(&path) {
            Ok(file) => Format::read_from(&path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("open", &path)(error)),
        }
    }

    fn read_from(path: &Path, file: File) -> Result<Format, DataDirError> {
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
            return Err(DataDirError::UnknownFormat { path, found, known: FORMAT });
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
        Ok(Format { partitions, place })
    }

    /// Writes the file into `dir`: all of it or none of it is there after a crash.
    ///
    /// # Errors
    /// What the system refused, or a number of partitions that is not allowed.
    pub(super) fn create(&self, dir: &Path) -> Result<(), DataDirError> {
        let path = dir.join(FORMAT_FILE);
        let partitions = check_partitions(&path, self.partitions.into())?;
        let place = self.place;
        let written = Written {
            format: FORMAT,
            partitions,
            id: place.map(|place| place.id.to_string()),
            volumes: place.map(|place| place.volumes),
            volume: place.map(|place| place.volume),
        };
        let temporary = dir.join(TEMPORARY_FILE);
        let write = || {
            let mut text = serde_json::to_vec(&written)?;
            text.push(b'\n');
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(refused("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(refused("create", &path))?;
        sync_dir(dir)
    }
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

    fn written(format: &Format) -> String {
        let dir = tempfile::tempdir().unwrap();
        format.create(dir.path()).unwrap();
        assert!(!dir.path().join(TEMPORARY_FILE).exists());
        assert_eq!(Format::read(dir.path()).unwrap().as_ref(), Some(format));
        fs::read_to_string(dir.path().join(FORMAT_FILE)).unwrap()
    }

    #[test]
    fn what_is_written_is_documented_and_read_again() {
        let single = Format { partitions: 3, place: None };
        assert_eq!(written(&single), "{\"format\":1,\"partitions\":3}\n");
        let id = NodeId(*b"0123456789abcde\xff");
        let volume = Format { partitions: 6, place: Some(Place { id, volumes: 2, volume: 1 }) };
        let hex = "303132333435363738396162636465ff";
        let text = format!(
            "{{\"format\":1,\"partitions\":6,\"id\":\"{hex}\",\"volumes\":2,\"volume\":1}}\n"
        );
        assert_eq!(written(&volume), text);
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
    fn damage_is_told() {
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
