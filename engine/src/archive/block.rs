//! The header block of a tar member, as POSIX describes it under the name ustar.

use super::BLOCK_LEN;

/// Fields by offset and length.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const OWNER: (usize, usize) = (108, 8);
const GROUP: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const TIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const KIND: usize = 156;
const MAGIC: (usize, usize) = (257, 8);

const USTAR: &[u8; 8] = b"ustar\x0000";

/// Kinds of members.
pub(super) const REGULAR: u8 = b'0';
pub(super) const PAX: u8 = b'x';

/// Largest size that the header has digits for; above it pax has the size.
pub(super) const SIZE_MAX: u64 = 0o777_7777_7777;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) kind: u8,
}

impl Block {
    /// The header as it stands in an archive. No time and no owner are named, so that the same
    /// objects make the same archive.
    ///
    /// # Panics
    /// If the name or the size does not fit.
    pub(super) fn encode(&self) -> [u8; BLOCK_LEN] {
        assert!(self.name.len() <= NAME.1 && self.size <= SIZE_MAX, "{self:?}");
        let mut bytes = [0; BLOCK_LEN];
        bytes[..self.name.len()].copy_from_slice(self.name.as_bytes());
        put_octal(&mut bytes, MODE, 0o644);
        put_octal(&mut bytes, OWNER, 0);
        put_octal(&mut bytes, GROUP, 0);
        put_octal(&mut bytes, SIZE, self.size);
        put_octal(&mut bytes, TIME, 0);
        bytes[KIND] = self.kind;
        field_mut(&mut bytes, MAGIC).copy_from_slice(USTAR);
        let sum = format!("{:06o}\0 ", checksum(&bytes));
        field_mut(&mut bytes, CHECKSUM).copy_from_slice(sum.as_bytes());
        bytes
    }

    /// What a block says if it is the header of a member that an archive may have.
    pub(super) fn decode(bytes: &[u8; BLOCK_LEN]) -> Option<Block> {
        let is_ustar = field(bytes, MAGIC).starts_with(&USTAR[..5]);
        if !is_ustar || octal(field(bytes, CHECKSUM))? != checksum(bytes) {
            return None;
        }
        let kind = if bytes[KIND] == 0 { REGULAR } else { bytes[KIND] };
        Some(Block { name: name(bytes)?, size: octal(field(bytes, SIZE))?, kind })
    }
}

/// The name in a block that is perhaps a header and perhaps damaged.
pub(super) fn name(bytes: &[u8; BLOCK_LEN]) -> Option<String> {
    let name = field(bytes, NAME);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    String::from_utf8(name[..end].to_vec()).ok()
}

fn field(bytes: &[u8; BLOCK_LEN], (at, len): (usize, usize)) -> &[u8] {
    &bytes[at..at + len]
}

fn field_mut(bytes: &mut [u8; BLOCK_LEN], (at, len): (usize, usize)) -> &mut [u8] {
    &mut bytes[at..at + len]
}

/// Writes octal digits and a NUL over a whole field.
fn put_octal(bytes: &mut [u8; BLOCK_LEN], place: (usize, usize), value: u64) {
    let digits = format!("{value:0width$o}\0", width = place.1 - 1);
    field_mut(bytes, place).copy_from_slice(digits.as_bytes());
}

/// Reads octal digits with spaces before them, and spaces or NULs behind.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    let valid = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if valid { u64::from_str_radix(digits, 8).ok() } else { None }
}

/// The sum of all bytes, with spaces in the place of the sum.
fn checksum(bytes: &[u8; BLOCK_LEN]) -> u64 {
    let all: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = field(bytes, CHECKSUM).iter().map(|byte| u64::from(*byte)).sum();
    all - own + CHECKSUM.1 as u64 * u64::from(b' ')
}
