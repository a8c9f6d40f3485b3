//! The objects that clients know: the same in every run, of every shape that matters.

use std::{collections::BTreeMap, sync::OnceLock};

use ron_codec::{address::Address, limits::GROUP_LEN, record::RecordHeader};
use ron_io::sim::Chance;

/// Bytes of the objects: none, one and many groups, about every limit, in segments and in files.
const LENS: [usize; 40] = [
    0, 1, 2, 100, 500, 900, 1000, 2000, 3000, 3967, 3968, 3969, 4096, 4097, 5000, 8192, 10_000,
    16_383, 16_384, 16_385, 20_000, 40_000, 65_535, 65_536, 65_537, 70_000, 100_000, 131_072,
    131_073, 200_000, 262_144, 300_000, 524_288, 1_048_575, 1_048_576, 1_048_577, 1_100_000,
    1_114_112, 1_500_000, 2_621_441,
];

/// The object that has no bytes.
pub const EMPTY: ObjectId = 0;
const _: () = assert!(LENS[EMPTY] == 0);

/// Objects whose bytes look like records of a log.
const MIMICS: usize = 3;

/// An object, by its number among all.
pub type ObjectId = usize;

pub struct Object {
    pub bytes: Vec<u8>,
    pub address: Address,
}

impl Object {
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it may be stored in a file of its own: what is too long for a segment, and what is
    /// longer than a group and came when memory was short.
    pub fn may_be_file(&self) -> bool {
        self.bytes.len() > GROUP_LEN
    }
}

/// All objects, made once.
pub fn all() -> &'static [Object] {
    static OBJECTS: OnceLock<Vec<Object>> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        let mut chance = Chance::new(0);
        let random = LENS.iter().map(|len| random(*len, &mut chance)).collect::<Vec<_>>();
        let mimics = (0..MIMICS).map(|nth| mimic(nth, &random[nth + 3])).collect::<Vec<_>>();
        let object = |bytes: Vec<u8>| Object { address: Address::of(&bytes), bytes };
        random.into_iter().chain(mimics).map(object).collect()
    })
}

/// The object of an address, if it is one of these.
pub fn find(address: &Address) -> Option<ObjectId> {
    static PLACES: OnceLock<BTreeMap<[u8; 32], ObjectId>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        let numbered = all().iter().enumerate();
        numbered.map(|(id, object)| (*object.address.as_bytes(), id)).collect()
    });
    places.get(address.as_bytes()).copied()
}

fn random(len: usize, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&chance.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Record headers, one behind another, of an object and of pads: a reader that searched a log for
/// records, or lost its place, would find them.
fn mimic(nth: usize, other: &[u8]) -> Vec<u8> {
    let size = other.len() as u64;
    let header = RecordHeader::for_segment(Address::of(other), size, u64::MAX >> 1);
    let mut bytes = header.map(|header| header.encode().to_vec()).unwrap_or_default();
    bytes.extend_from_slice(other);
    bytes.resize(bytes.len().next_multiple_of(128), 0);
    while bytes.len() < 4096 << (2 * nth) {
        bytes.extend_from_slice(&RecordHeader::pad(128).encode());
        bytes.extend_from_slice(&RecordHeader::tombstone(Address::of(other), u64::MAX).encode());
    }
    bytes
}
