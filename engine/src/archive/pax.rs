//! Pax headers: what of an object has no place in the header of its member.
//!
//! The fields of an object are extended attributes, in the form that GNU tar uses, so that
//! `tar --xattrs` extracts them. The member's name has the check of its text, because a tar header
//! checks nothing but itself.

use super::{
    Fields,
    block::{Block, PAX, SIZE_MAX},
};

const FOLDER: &str = "PaxHeaders/";
const SIZE: &str = "size";
const MEDIA_TYPE: &str = "SCHILY.xattr.user.mime_type";
const DISPOSITION: &str = "SCHILY.xattr.user.content_disposition";

/// What a pax header says of the object behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) size: Option<u64>,
    pub(super) fields: Fields,
}

/// The header block and the text of the pax header that an object needs, if it needs one.
pub(super) fn header(size: u64, fields: &Fields) -> Option<(Block, String)> {
    let mut text = String::new();
    if size > SIZE_MAX {
        text += &record(SIZE, &size.to_string());
    }
    if let Some(media_type) = &fields.media_type {
        text += &record(MEDIA_TYPE, media_type);
    }
    if let Some(disposition) = &fields.disposition {
        text += &record(DISPOSITION, disposition);
    }
    let block = Block { name: name(&text), size: text.len() as u64, kind: PAX };
    (!text.is_empty()).then_some((block, text))
}

/// What the text of a pax header says; `None`: it is not what was written under this name.
pub(super) fn parse(named: &str, text: &str) -> Option<Pax> {
    if named != name(text) {
        return None;
    }
    let mut pax = Pax::default();
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, _) = rest.split_once(' ')?;
        let len: usize = digits.parse().ok()?;
        let record = rest.get(..len)?;
        rest = &rest[len..];
        let (key, value) = record.get(digits.len() + 1..)?.strip_suffix('\n')?.split_once('=')?;
        match key {
            SIZE => pax.size = Some(value.parse().ok()?),
            MEDIA_TYPE => pax.fields.media_type = Some(value.to_owned()),
            DISPOSITION => pax.fields.disposition = Some(value.to_owned()),
            // A later release may say more.
            _ => {}
        }
    }
    Some(pax)
}

/// Whether a pax header may have this name.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(FOLDER)
}

/// The first 16 bytes of the BLAKE3-256 of the text, in hexadecimal.
fn name(text: &str) -> String {
    format!("{FOLDER}{}", &blake3::hash(text.as_bytes()).to_hex()[..32])
}

/// `<length> <key>=<value>` and the end of the line, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let bare = key.len() + value.len() + 3;
    let mut len = bare + 1;
    while bare + len.to_string().len() != len {
        len = bare + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}
