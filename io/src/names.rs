//! What paths are names of: a table that control makes and every shard looks into.
//!
//! A table never changes. A change makes the next one, which shares all with it but the bucket that
//! the name is in, so that a change among a million names copies a thousandth of them. A path is
//! looked up by hashing it from its start: at the end of each segment the hash of that prefix is
//! looked for, and the last that is found is the longest.
//!
//! ```text
//!   table ─► 1024 buckets, by the first bits of the hash
//!              └─ hashes, ascending │ digests │ ends │ text: the paths, one behind the other
//! ```

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use crate::limits::{NAME_BUCKETS, NAME_PATH_LEN_MAX};

/// The digest of a name's bundle or object.
pub type Digest = [u8; 32];

/// Bytes of memory of a name beside its path: hash, digest, end.
pub const NAME_LEN: usize = size_of::<u64>() + size_of::<Digest>() + size_of::<u32>();

/// Bytes of memory of a table without names.
pub const TABLE_LEN: usize =
    NAME_BUCKETS * (size_of::<Arc<Bucket>>() + size_of::<Bucket>() + 2 * size_of::<usize>());

/// Bits of a hash that choose the bucket.
const BUCKET_BITS: u32 = NAME_BUCKETS.trailing_zeros();

/// All names of one version.
#[derive(Clone)]
pub struct NameTable {
    version: u64,
    /// Whether the names are known at all.
    known: bool,
    len: usize,
    text_len: usize,
    /// Keyed at random, so that nobody can choose names that share a bucket.
    keys: RandomState,
    buckets: Box<[Arc<Bucket>]>,
}

/// The names whose hashes begin with the same bits, in the order of their hashes.
#[derive(Clone, Default)]
struct Bucket {
    hashes: Box<[u64]>,
    digests: Box<[Digest]>,
    /// Where the path of each ends in the text; it begins where that before it ends.
    ends: Box<[u32]>,
    /// Paths without slashes at their ends, and single ones within.
    text: Box<str>,
}

/// The longest name that a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub digest: Digest,
    /// Bytes of the path that are the name.
    pub prefix_len: usize,
    /// What is behind it, without the slashes between the two.
    pub rest: &'a str,
}

impl NameTable {
    /// The table of these names. Each occurs once.
    pub fn new<P: AsRef<str>>(
        version: u64,
        names: impl IntoIterator<Item = (P, Digest)>,
    ) -> NameTable {
        let keys = RandomState::new();
        let mut lists: Vec<Vec<(u64, P, Digest)>> = Vec::new();
        lists.resize_with(NAME_BUCKETS, Vec::new);
        for (path, digest) in names {
            let hash = hash(&keys, path.as_ref());
            lists[bucket_of(hash)].push((hash, path, digest));
        }
        let buckets: Box<[Arc<Bucket>]> = lists
            .into_iter()
            .map(|mut list| {
                list.sort_unstable_by_key(|(hash, _, _)| *hash);
                let names = list.iter().map(|(hash, path, digest)| (*hash, path.as_ref(), *digest));
                Arc::new(Bucket::new(names))
            })
            .collect();
        let len = buckets.iter().map(|bucket| bucket.hashes.len()).sum();
        let text_len = buckets.iter().map(|bucket| bucket.text.len()).sum();
        NameTable { version, known: true, len, text_len, keys, buckets }
    }

    /// A table for a node whose names cannot be read: no path is known to be a name, nor to be
    /// none.
    pub fn unknown() -> NameTable {
        NameTable { known: false, ..NameTable::default() }
    }

    /// The next table, in which this path is the name of `digest`, or of nothing.
    #[must_use]
    pub fn with(&self, version: u64, path: &str, digest: Option<Digest>) -> NameTable {
        let hash = hash(&self.keys, path);
        let at = bucket_of(hash);
        let old = &self.buckets[at];
        let others = old.all().filter(|(_, known, _)| !is_same(known, path));
        let mut names: Vec<(u64, &str, Digest)> = others.collect();
        let canonical = canonical(path);
        if let Some(digest) = digest {
            let place = names.partition_point(|(known, _, _)| *known < hash);
            names.insert(place, (hash, &canonical, digest));
        }
        let new = Bucket::new(names.into_iter());
        let mut next = self.clone();
        next.version = version;
        next.len = next.len - old.hashes.len() + new.hashes.len();
        next.text_len = next.text_len - old.text.len() + new.text.len();
        next.buckets[at] = Arc::new(new);
        next
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the names are known. If not, the table has none.
    pub fn is_known(&self) -> bool {
        self.known
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all paths together, each without its first slash.
    pub fn text_len(&self) -> usize {
        self.text_len
    }

    /// Bytes of memory that it takes.
    pub fn memory_len(&self) -> usize {
        TABLE_LEN + self.len * NAME_LEN + self.text_len
    }

    /// What exactly this path is the name of.
    pub fn get(&self, path: &str) -> Option<Digest> {
        self.find(hash(&self.keys, path), path)
    }

    /// The longest name that this path begins with, if it ends where a segment does. The path is
    /// decoded; slashes that are missing at its start or doubled do not matter. Nothing is
    /// allocated, and no more of the path is read than a name can be long.
    pub fn resolve<'a>(&self, path: &'a str) -> Option<Found<'a>> {
        if self.is_empty() {
            return None;
        }
        let mut hasher = self.keys.build_hasher();
        let mut best = self.find(hasher.finish(), "").map(|digest| (digest, 0));
        let mut len = 0;
        for (start, end) in segments(path) {
            len += 1 + end - start;
            if len > NAME_PATH_LEN_MAX {
                break;
            }
            add_segment(&mut hasher, start, end, path);
            if let Some(digest) = self.find(hasher.finish(), &path[..end]) {
                best = Some((digest, end));
            }
        }
        let (digest, prefix_len) = best?;
        let rest = path[prefix_len..].trim_start_matches('/');
        Some(Found { digest, prefix_len, rest })
    }

    fn find(&self, hash: u64, path: &str) -> Option<Digest> {
        let bucket = &self.buckets[bucket_of(hash)];
        let first = bucket.hashes.partition_point(|known| *known < hash);
        let same = bucket.hashes[first..].iter().take_while(|known| **known == hash);
        let mut at = (first..).zip(same).map(|(at, _)| at);
        at.find(|at| is_same(bucket.path(*at), path)).map(|at| bucket.digests[at])
    }
}

impl Default for NameTable {
    /// No names, at version 0.
    fn default() -> NameTable {
        let empty = Arc::new(Bucket::default());
        NameTable {
            version: 0,
            known: true,
            len: 0,
            text_len: 0,
            keys: RandomState::new(),
            buckets: vec![empty; NAME_BUCKETS].into(),
        }
    }
}

impl fmt::Debug for NameTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameTable(version {}, {} names)", self.version, self.len)
    }
}

impl Bucket {
    /// The bucket of these names, in the order of their hashes.
    fn new<'a>(names: impl Iterator<Item = (u64, &'a str, Digest)>) -> Bucket {
        let (mut hashes, mut digests, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut text = String::new();
        for (hash, path, digest) in names {
            for segment in path.split('/').filter(|segment| !segment.is_empty()) {
                if ends.last().map_or(0, |end| *end as usize) < text.len() {
                    text.push('/');
                }
                text.push_str(segment);
            }
            hashes.push(hash);
            digests.push(digest);
            ends.push(u32::try_from(text.len()).expect("the paths of a bucket fit 4 GiB"));
        }
        Bucket {
            hashes: hashes.into(),
            digests: digests.into(),
            ends: ends.into(),
            text: text.into(),
        }
    }

    fn path(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[at] as usize]
    }

    fn all(&self) -> impl Iterator<Item = (u64, &str, Digest)> {
        let names = self.hashes.iter().zip(&self.digests).enumerate();
        names.map(|(at, (hash, digest))| (*hash, self.path(at), *digest))
    }
}

/// Where the segments of a path are.
fn segments(path: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    path.split('/').filter_map(move |segment| {
        let (start, end) = (at, at + segment.len());
        at = end + 1;
        (start < end).then_some((start, end))
    })
}

/// Hashes one more segment, with a slash before it.
fn add_segment(hasher: &mut impl Hasher, start: usize, end: usize, path: &str) {
    hasher.write_u8(b'/');
    hasher.write(&path.as_bytes()[start..end]);
}

fn hash(keys: &RandomState, path: &str) -> u64 {
    let mut hasher = keys.build_hasher();
    segments(path).for_each(|(start, end)| add_segment(&mut hasher, start, end, path));
    hasher.finish()
}

/// Whether two paths have the same segments.
fn is_same(one: &str, other: &str) -> bool {
    let texts = |path| segments(path).map(move |(start, end): (usize, usize)| start..end);
    one == other || texts(one).map(|at| &one[at]).eq(texts(other).map(|at| &other[at]))
}

/// A path with single slashes within, and none at its ends.
fn canonical(path: &str) -> String {
    let parts: Vec<&str> = segments(path).map(|(start, end)| &path[start..end]).collect();
    parts.join("/")
}

fn bucket_of(hash: u64) -> usize {
    (hash >> (u64::BITS - BUCKET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn digest(seed: u8) -> Digest {
        [seed; 32]
    }

    fn table(names: &[(&str, u8)]) -> NameTable {
        NameTable::new(7, names.iter().map(|(path, seed)| (*path, digest(*seed))))
    }

    /// The digest's seed, how long the name is in the path, and the rest.
    fn resolved<'a>(table: &NameTable, path: &'a str) -> Option<(u8, usize, &'a str)> {
        table.resolve(path).map(|found| (found.digest[0], found.prefix_len, found.rest))
    }

    /// The slow twin: every name is tried, segment by segment.
    fn slow<'a>(names: &BTreeMap<String, u8>, path: &'a str) -> Option<(u8, usize, &'a str)> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let parts_of = |name: &str| -> Vec<String> {
            name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let fits = |name: &str| {
            let name = parts_of(name);
            name.len() <= parts.len() && name.iter().zip(&parts).all(|(a, b)| a == b)
        };
        let longest = names.iter().filter(|(name, _)| fits(name));
        let (name, seed) = longest.max_by_key(|(name, _)| parts_of(name).len())?;
        let mut left = path;
        for part in parts_of(name) {
            left = left.trim_start_matches('/').strip_prefix(part.as_str()).unwrap();
        }
        Some((*seed, path.len() - left.len(), left.trim_start_matches('/')))
    }

    #[test]
    fn the_longest_name_that_ends_with_a_segment_counts() {
        let table = table(&[("/tiles", 1), ("/tiles/12/a", 2), ("/", 3), ("/til", 4)]);
        for (path, expected) in [
            ("/tiles", (1, 6, "")),
            ("/tiles/", (1, 6, "")),
            ("tiles/12/654.webp", (1, 5, "12/654.webp")),
            ("//tiles///12//a//b", (2, 15, "b")),
            ("/tilesx/12", (3, 0, "tilesx/12")),
            ("/til/es", (4, 4, "es")),
            ("", (3, 0, "")),
            ("/tiles/../til", (1, 6, "../til")),
        ] {
            assert_eq!(resolved(&table, path), Some(expected), "{path}");
        }
        let rootless = table.with(8, "/", None);
        assert_eq!(resolved(&rootless, "/tilesx"), None);
        assert_eq!(resolved(&NameTable::default(), "/tiles"), None);
    }

    #[test]
    fn no_more_of_a_path_is_read_than_a_name_can_be_long() {
        let longest = format!("/{}", "x".repeat(NAME_PATH_LEN_MAX - 1));
        let table = table(&[(&longest, 1), ("/x", 2)]);
        assert_eq!(resolved(&table, &longest), Some((1, NAME_PATH_LEN_MAX, "")));
        assert_eq!(resolved(&table, &format!("{longest}/y")), Some((1, NAME_PATH_LEN_MAX, "y")));
        let far = "/x".repeat(4000);
        assert_eq!(resolved(&table, &far), Some((2, 2, &far[3..])));
    }

    #[test]
    fn a_change_makes_another_table_and_shares_the_rest() {
        let names: Vec<String> = (0..5000).map(|at| format!("/a/{at}")).collect();
        let old = NameTable::new(1, names.iter().map(|name| (name, digest(1))));
        let new = old.with(2, "a//17/", Some(digest(9)));
        assert_eq!((old.len(), new.len(), old.version(), new.version()), (5000, 5000, 1, 2));
        assert_eq!((old.get("/a/17"), new.get("/a/17")), (Some(digest(1)), Some(digest(9))));
        let shared = old.buckets.iter().zip(&new.buckets).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), NAME_BUCKETS - 1);
        let gone = new.with(3, "/a/17", None);
        assert_eq!((gone.len(), gone.get("/a/17")), (4999, None));
        assert_eq!(gone.with(4, "/a/17", None).len(), 4999, "what is no name stays none");
        assert_eq!(gone.text_len(), old.text_len() - "a/17".len());
    }

    #[test]
    fn a_million_names_take_what_they_are_said_to_take() {
        let names = (0..1_000_000).map(|at| (format!("/site/{at:06}/index.html"), digest(1)));
        let table = NameTable::new(1, names);
        assert_eq!(table.memory_len(), TABLE_LEN + 1_000_000 * (44 + 22));
        let heap: usize = table
            .buckets
            .iter()
            .map(|bucket| {
                size_of_val(&*bucket.hashes)
                    + size_of_val(&*bucket.digests)
                    + size_of_val(&*bucket.ends)
                    + bucket.text.len()
            })
            .sum();
        assert_eq!(heap + TABLE_LEN, table.memory_len());
        // Bits of a hash that is keyed well: no bucket is far from the mean.
        let largest = table.buckets.iter().map(|bucket| bucket.hashes.len()).max();
        assert!(largest < Some(2 * 1_000_000 / NAME_BUCKETS), "{largest:?}");
        assert_eq!(resolved(&table, "/site/999999/index.html/x"), Some((1, 23, "x")));
    }

    #[test]
    fn names_that_are_not_known_are_not_none() {
        assert!(NameTable::default().is_known() && !NameTable::unknown().is_known());
        assert_eq!(NameTable::unknown().len(), 0);
    }

    proptest! {
        #[test]
        fn resolving_is_what_its_slow_twin_finds(
            names in prop::collection::btree_map("(/?[ab]|//ä){0,4}", any::<u8>(), 0..12),
            changes in prop::collection::vec(("(/[ab]|/ä){0,4}", any::<Option<u8>>()), 0..8),
            paths in prop::collection::vec("(/|[ab]|ä|\\.){0,12}", 1..20),
        ) {
            let mut known: BTreeMap<String, u8> = BTreeMap::new();
            names.iter().for_each(|(path, seed)| {
                known.insert(canonical(path), *seed);
            });
            let all = known.iter().map(|(path, seed)| (path, digest(*seed)));
            let mut table = NameTable::new(0, all);
            for (version, (path, seed)) in (1..).zip(&changes) {
                table = table.with(version, path, seed.map(digest));
                match seed {
                    Some(seed) => known.insert(canonical(path), *seed),
                    None => known.remove(&canonical(path)),
                };
            }
            prop_assert_eq!(table.len(), known.len());
            prop_assert_eq!(table.text_len(), known.keys().map(String::len).sum::<usize>());
            for path in &paths {
                prop_assert_eq!(resolved(&table, path), slow(&known, path), "{}", path);
                let exact = known.get(&canonical(path)).map(|seed| digest(*seed));
                prop_assert_eq!(table.get(path), exact);
            }
        }
    }
}
