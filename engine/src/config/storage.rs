//! Where objects are kept, how many of them, and how they are looked after.

use std::{path::PathBuf, time::Duration};

use ron_control::NameLimits;

use super::{
    error::ConfigError,
    limits,
    settings::{Settings, spans},
    values,
};
use crate::machine::Machine;

/// How much is kept, and how it is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Most bytes of segments and object files of the node.
    pub max_bytes: Option<u64>,
    /// Bytes of memory that the index may take.
    pub index_len: u64,
    /// Bytes of each volume that are left free.
    pub reserve_bytes: u64,
    /// A segment is compacted when less than so many percent of it count; 0 for never.
    pub compact_below_percent: u8,
    /// Bytes a second that the scrub of all shards reads at most; 0 for no scrub.
    pub scrub_bytes_per_s: u64,
    /// From the end of one round of the scrub to the start of the next; zero: only when ordered.
    pub scrub_every: Duration,
}

impl Storage {
    /// Bytes a second of one of so many shards.
    pub fn scrub_bytes_per_s_of(&self, shards: usize) -> u64 {
        // A share of nothing would switch off what is only slow.
        self.scrub_bytes_per_s.div_ceil(shards as u64)
    }
}

impl Settings {
    /// The folders objects are kept in, in their order; at least one, and none twice.
    pub(super) fn data_dirs(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let (one, many) = ("data_dir", "data_dirs");
        let Some(given) = self.given(many) else {
            return Ok(vec![self.path(one)?.unwrap_or_else(|| "./ron-data".into())]);
        };
        self.only_one(one, many)?;
        let paths: Vec<PathBuf> =
            given.texts.iter().flat_map(|text| text.split(',')).map(PathBuf::from).collect();
        let mut unique = paths.clone();
        unique.sort_unstable();
        unique.dedup();
        let bad = |path: &PathBuf| path.as_os_str().as_encoded_bytes().contains(&0);
        let named = !paths.iter().any(|path| path.as_os_str().is_empty() || bad(path));
        if named && (1..=limits::VOLUMES_MAX).contains(&paths.len()) && unique.len() == paths.len()
        {
            return Ok(paths);
        }
        let max = limits::VOLUMES_MAX;
        Err(self.refuse(many, format!("1 to {max} paths without a comma in them, each once")))
    }

    /// Partitions of a new data directory: every shard and every volume must have some, and by
    /// default volumes have as many as each other.
    pub(super) fn partitions(&self, shards: usize, volumes: usize) -> Result<u32, ConfigError> {
        let (least, most) = (volumes as u64, u64::from(limits::PARTITIONS_MAX));
        let default = || (shards.min(limits::SHARDS_MAX)).next_multiple_of(volumes) as u64;
        let partitions = self.whole("partitions", least, most)?.unwrap_or_else(default);
        Ok(u32::try_from(partitions).unwrap_or(limits::PARTITIONS_MAX))
    }

    pub(super) fn storage(&self, machine: &Machine, shards: usize) -> Result<Storage, ConfigError> {
        let compact = self.whole("storage.compact_below", 0, limits::COMPACT_BELOW_MAX.into())?;
        let compact = compact.and_then(|percent| u8::try_from(percent).ok());
        let each = ron_shards::limits::SCRUB_BYTES_PER_S;
        let rate = self.size("storage.scrub_rate", 0, limits::SCRUB_RATE_MAX)?;
        Ok(Storage {
            max_bytes: self.size("storage.max_bytes", limits::MAX_BYTES_MIN, u64::MAX)?,
            index_len: self
                .size("storage.index_memory", limits::INDEX_LEN_MIN, u64::MAX)?
                .unwrap_or_else(|| {
                    (machine.memory_len / limits::INDEX_SHARE).max(limits::INDEX_LEN_MIN)
                }),
            reserve_bytes: self
                .size("storage.reserve", 0, u64::MAX)?
                .unwrap_or(ron_shards::limits::RESERVE_BYTES),
            compact_below_percent: compact.unwrap_or(ron_shards::limits::COMPACT_BELOW_PERCENT),
            scrub_bytes_per_s: rate.unwrap_or_else(|| each.saturating_mul(shards as u64)),
            scrub_every: self.scrub_every()?,
        })
    }

    /// How many names are kept.
    pub(super) fn names(&self) -> Result<NameLimits, ConfigError> {
        let max = self.whole("names.max", 0, limits::NAMED_MAX)?.unwrap_or(limits::NAMED_DEFAULT);
        let store = self.size("names.store", limits::NAME_STORE_MIN, limits::NAME_STORE_MAX)?;
        Ok(NameLimits {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            store_len: store.unwrap_or(limits::NAME_STORE_DEFAULT),
        })
    }

    fn scrub_every(&self) -> Result<Duration, ConfigError> {
        const KEY: &str = "storage.scrub_every";
        const DEFAULT: Duration = Duration::from_millis(ron_shards::limits::SCRUB_EVERY_MS);
        let Some(text) = self.text(KEY) else { return Ok(DEFAULT) };
        let range = limits::SCRUB_EVERY_MIN..=limits::SCRUB_EVERY_MAX;
        let every = values::duration(text);
        let every = every.filter(|every| every.is_zero() || range.contains(every));
        every.ok_or_else(|| {
            self.refuse(KEY, format!("{}, or 0 for only when ordered", spans(&range)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, tests::load};

    fn error(args: &[&str], env: &[(&str, &str)], file: &str) -> String {
        load(args, env, file).unwrap_err().to_string()
    }

    fn paths(config: &Config) -> Vec<&str> {
        config.data_dirs.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn volumes_are_lists_in_every_layer() {
        let flags = ["--data-dirs", "/b", "--data-dirs", "/a,/c"];
        assert_eq!(paths(&load(&flags, &[], "").unwrap()), ["/b", "/a", "/c"]);
        let env = [("RON_DATA_DIRS", "/b,/a")];
        assert_eq!(paths(&load(&[], &env, "").unwrap()), ["/b", "/a"]);
        let file = "data_dirs = ['/b', '/a']";
        assert_eq!(paths(&load(&[], &[], file).unwrap()), ["/b", "/a"]);
        let one = load(&["--data-dir", "/a,b"], &[], "").unwrap();
        assert_eq!(paths(&one), ["/a,b"], "one directory may have a comma in its name");
    }

    #[test]
    fn volumes_that_cannot_be_are_refused() {
        for value in ["", "/a,", ",/a", "/a,/b,/a"] {
            let error = error(&[&format!("--data-dirs={value}")], &[], "");
            assert!(error.starts_with("data_dirs = ") && error.contains("64"), "{error}");
        }
        assert!(error(&[], &[], "data_dirs = []").starts_with("data_dirs = "));
        let list = |n: usize| (0..n).map(|n| format!("/{n}")).collect::<Vec<_>>().join(",");
        let most = load(&[], &[("RON_DATA_DIRS", &list(limits::VOLUMES_MAX))], "").unwrap();
        assert_eq!(most.data_dirs.len(), limits::VOLUMES_MAX);
        let more = list(limits::VOLUMES_MAX + 1);
        assert!(load(&[], &[("RON_DATA_DIRS", &more)], "").is_err());
    }

    #[test]
    fn one_directory_and_many_are_not_given_together() {
        let said = error(&["--data-dir=/a"], &[], "data_dirs = ['/b', '/c']");
        assert!(said.starts_with("data_dir (flag) and data_dirs (file) are both set"), "{said}");
    }

    #[test]
    fn new_directories_have_partitions_for_every_volume_and_shard() {
        let partitions = |args: &[&str]| load(args, &[], "").unwrap().partitions;
        assert_eq!(partitions(&["--data-dirs=/a,/b"]), 6, "five cores, two volumes");
        assert_eq!(partitions(&["--data-dirs=/a,/b,/c,/d,/e,/f,/g"]), 7);
        assert_eq!(partitions(&["--data-dirs=/a,/b", "--partitions=2"]), 2);
        let said = error(&["--data-dirs=/a,/b,/c", "--partitions=2"], &[], "");
        assert_eq!(said, "partitions = \"2\" (flag); allowed: a whole number, 3 to 1024");
    }

    #[test]
    fn storage_has_the_defaults_of_the_store() {
        let storage = load(&[], &[], "").unwrap().storage;
        let shards = ron_shards::config::Storage::default();
        assert_eq!((storage.max_bytes, storage.reserve_bytes), (None, shards.reserve_bytes));
        assert_eq!(storage.index_len, (1000 << 20) / 8, "an eighth of the memory");
        assert_eq!(storage.compact_below_percent, shards.compact_below_percent);
        assert_eq!(storage.scrub_bytes_per_s, 5 * shards.scrub_bytes_per_s, "for five shards");
        assert_eq!(storage.scrub_bytes_per_s_of(5), shards.scrub_bytes_per_s);
        assert_eq!(storage.scrub_every.as_millis(), u128::from(shards.scrub_every_ms));
    }

    #[test]
    fn storage_is_a_table_of_the_file() {
        let file = "[storage]\nmax_bytes = '1TiB'\nindex_memory = '3GiB'\nreserve = 0\n\
                    compact_below = 0\n\
                    scrub_rate = 3\nscrub_every = 0\n";
        let storage = load(&[], &[], file).unwrap().storage;
        assert_eq!((storage.max_bytes, storage.reserve_bytes), (Some(1 << 40), 0));
        assert_eq!(storage.index_len, 3 << 30);
        assert_eq!((storage.compact_below_percent, storage.scrub_every), (0, Duration::ZERO));
        assert_eq!(storage.scrub_bytes_per_s_of(5), 1, "slow, and not off");
        let off = load(&["--storage-scrub-rate=0"], &[], file).unwrap().storage;
        assert_eq!(off.scrub_bytes_per_s_of(5), 0);
        assert!(error(&[], &[], "[storage]\nmax = 1").contains("\"storage.max\""));
        assert!(error(&[], &[], "[storage]\nreserve = [1]").contains("storage.reserve: a value"));
    }

    #[test]
    fn storage_has_limits() {
        for (flag, key, value) in [
            ("--storage-max-bytes", "storage.max_bytes", "1023KiB"),
            ("--storage-max-bytes", "storage.max_bytes", "much"),
            ("--storage-reserve", "storage.reserve", "-1"),
            ("--storage-compact-below", "storage.compact_below", "91"),
            ("--storage-compact-below", "storage.compact_below", "50%"),
            ("--storage-scrub-rate", "storage.scrub_rate", "2TiB"),
            ("--storage-scrub-every", "storage.scrub_every", "0.0001"),
            ("--storage-scrub-every", "storage.scrub_every", "315360001"),
            ("--storage-scrub-every", "storage.scrub_every", "weekly"),
        ] {
            let error = error(&[&format!("{flag}={value}")], &[], "");
            let start = format!("{key} = {value:?} (flag); allowed: ");
            assert!(error.starts_with(&start) && error.len() > start.len(), "{error}");
        }
        for flag in [
            "--storage-max-bytes=1MiB",
            "--storage-compact-below=90",
            "--storage-scrub-rate=1TiB",
            "--storage-scrub-every=315360000",
            "--storage-scrub-every=0.001",
        ] {
            assert!(load(&[flag], &[], "").is_ok(), "{flag}");
        }
    }
}
