//! Entries: one line for each file of a bundle.

use super::{
    error::{ManifestError, PathFault},
    names::{MANIFEST_NAME, PAYLOAD_NAME},
    text::{Quoted, number, quoted},
};
use crate::{
    address::{ADDRESS_TEXT_LEN, Address},
    limits::{MANIFEST_LINE_LEN_MAX, MANIFEST_PATH_LEN_MAX, MEDIA_TYPE_LEN_MAX},
};

/// How every line of an entry begins.
pub(super) const PATH: &[u8] = b"  { path = \"";
const ADDRESS: &[u8] = b", address = \"";
const BYTES: &[u8] = b", bytes = ";
const MIME: &[u8] = b", mime = \"";
const BR: &[u8] = b", br = { address = \"";
const ZSTD: &[u8] = b", zstd = { address = \"";
const COPY_END: &[u8] = b" }";
const LINE_END: &[u8] = b" },\n";

// The longest line: all of its text may be escaped, which doubles it.
const _: () = assert!(
    2 * (MANIFEST_PATH_LEN_MAX + MEDIA_TYPE_LEN_MAX) + 3 * (ADDRESS_TEXT_LEN + 64)
        < MANIFEST_LINE_LEN_MAX
);

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, with single slashes; see [`check_path`].
    pub path: String,
    pub content: Content,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The bytes as they are.
    pub identity: Stored,
    /// A media type, as `Content-Type` has it.
    pub mime: String,
    /// Encoded copies of the same bytes.
    pub br: Option<Stored>,
    pub zstd: Option<Stored>,
}

impl Content {
    /// Whether there is anything but the identity form.
    #[must_use]
    pub const fn has_copies(&self) -> bool {
        self.br.is_some() || self.zstd.is_some()
    }
}

/// An object and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub address: Address,
    pub bytes: u64,
}

/// Checks that a path can stand in a manifest: what is left of it in a URL or on a disk is the
/// same path, below the same directory.
///
/// # Errors
/// What is wrong with it.
pub fn check_path(path: &str) -> Result<(), PathFault> {
    if path.is_empty() {
        return Err(PathFault::Empty);
    }
    if path.len() > MANIFEST_PATH_LEN_MAX {
        return Err(PathFault::TooLong);
    }
    if path.chars().any(char::is_control) {
        return Err(PathFault::Control);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(PathFault::Slash),
            "." | ".." => return Err(PathFault::Dots),
            _ => {}
        }
    }
    if path == MANIFEST_NAME || path == PAYLOAD_NAME {
        return Err(PathFault::Reserved);
    }
    Ok(())
}

/// Whether text can stand as a media type.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    let visible = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    visible && text.len() <= MEDIA_TYPE_LEN_MAX && text.trim() == text && text.contains('/')
}

impl Entry {
    /// Adds the entry's line.
    ///
    /// # Errors
    /// `Path` and `Field` when the path or the media type cannot stand in a manifest.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), ManifestError> {
        let Entry { path, content: Content { identity, mime, br, zstd } } = self;
        check_path(path).map_err(|why| ManifestError::Path { path: path.clone(), why })?;
        if !is_media_type(mime) {
            return Err(ManifestError::Field { field: "mime", why: "is no media type" });
        }
        out.extend_from_slice(PATH);
        quoted(path, out);
        out.extend_from_slice(ADDRESS);
        identity.write(out);
        out.extend_from_slice(MIME);
        quoted(mime, out);
        for (prefix, copy) in [(BR, br), (ZSTD, zstd)] {
            if let Some(copy) = copy {
                out.extend_from_slice(prefix);
                copy.write(out);
                out.extend_from_slice(COPY_END);
            }
        }
        out.extend_from_slice(LINE_END);
        Ok(())
    }

    /// Reads the line of an entry, its end included.
    ///
    /// # Errors
    /// `Line` and `Path` when it is anything but what `write` would have written.
    pub fn parse(line: &[u8]) -> Result<Entry, ManifestError> {
        const BAD: ManifestError = ManifestError::Line { max: MANIFEST_LINE_LEN_MAX };
        if line.len() > MANIFEST_LINE_LEN_MAX {
            return Err(BAD);
        }
        let entry = parse_line(line).ok_or(BAD)?;
        match check_path(&entry.path) {
            Ok(()) if is_media_type(&entry.content.mime) => Ok(entry),
            Ok(()) => Err(BAD),
            Err(why) => Err(ManifestError::Path { path: entry.path, why }),
        }
    }
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let Quoted { text: path, rest } = Quoted::read(line.strip_prefix(PATH)?)?;
    let (identity, rest) = Stored::read(rest.strip_prefix(ADDRESS)?)?;
    let Quoted { text: mime, rest } = Quoted::read(rest.strip_prefix(MIME)?)?;
    let (br, rest) = read_copy(BR, rest)?;
    let (zstd, rest) = read_copy(ZSTD, rest)?;
    (rest == LINE_END).then_some(Entry { path, content: Content { identity, mime, br, zstd } })
}

fn read_copy<'a>(prefix: &[u8], rest: &'a [u8]) -> Option<(Option<Stored>, &'a [u8])> {
    let Some(behind) = rest.strip_prefix(prefix) else { return Some((None, rest)) };
    let (stored, rest) = Stored::read(behind)?;
    Some((Some(stored), rest.strip_prefix(COPY_END)?))
}

impl Stored {
    /// Adds the address, its closing quote, and the length.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.address.to_text());
        out.push(b'"');
        out.extend_from_slice(BYTES);
        out.extend_from_slice(itoa::Buffer::new().format(self.bytes).as_bytes());
    }

    /// Reads what `write` wrote; returns it and what stands behind it.
    fn read(bytes: &[u8]) -> Option<(Stored, &[u8])> {
        let (text, rest) = bytes.split_at_checked(ADDRESS_TEXT_LEN)?;
        let address: Address = std::str::from_utf8(text).ok()?.parse().ok()?;
        // An address has a short spelling too, of another length.
        let rest = rest.strip_prefix(b"\"")?.strip_prefix(BYTES)?;
        let (bytes, rest) = number(rest)?;
        Some((Stored { address, bytes }, rest))
    }
}
