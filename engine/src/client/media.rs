//! Media types of files, by their names, and which of them are worth an encoded copy.

use ron_codec::manifest::is_media_type;

/// What a file is whose name says nothing.
const UNKNOWN: &str = "application/octet-stream";

/// Types beside `text/*`, `*+json` and `*+xml` that shrink, as they have no compression within.
const SHRINKING: &[&str] = &[
    "application/javascript",
    "application/json",
    "application/json5",
    "application/rtf",
    "application/sql",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-sh",
    "application/xml",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/x-icon",
];

/// The media type of a file with this name. That of text names the charset when the file is UTF-8.
pub(super) fn media_type(name: &str, is_utf8: bool) -> String {
    let guess = mime_guess::from_path(name).first_raw().filter(|found| is_media_type(found));
    match guess {
        Some(found) if found.starts_with("text/") && is_utf8 => format!("{found}; charset=utf-8"),
        found => found.unwrap_or(UNKNOWN).to_owned(),
    }
}

/// Whether files of this type are worth an encoded copy.
pub(super) fn shrinks(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim_end();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || SHRINKING.contains(&essence)
}

/// Whether bytes that come in pieces are UTF-8.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character that goes on in the next piece.
    begun: Vec<u8>,
    broken: bool,
}

impl Utf8 {
    /// Takes the next piece.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !self.begun.is_empty() && !self.broken {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) => self.broken = error.error_len().is_some(),
            }
        }
        if self.broken {
            return;
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            self.broken = error.error_len().is_some();
            self.begun.extend_from_slice(&bytes[error.valid_up_to()..]);
        }
        if self.broken {
            self.begun = Vec::new();
        }
    }

    /// Whether all of it was.
    pub(super) fn is_whole(&self) -> bool {
        !self.broken && self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_their_types() {
        for (name, utf8, expected) in [
            ("index.html", true, "text/html; charset=utf-8"),
            ("a/latin.HTM", false, "text/html"),
            ("app.js", true, "text/javascript; charset=utf-8"),
            ("data.json", true, "application/json"),
            ("logo.svg", true, "image/svg+xml"),
            ("module.wasm", false, "application/wasm"),
            ("photo.jpeg", false, "image/jpeg"),
            ("font.woff2", false, "font/woff2"),
            (".hidden", true, UNKNOWN),
            ("README", true, UNKNOWN),
            ("strange.ending\u{e9}", true, UNKNOWN),
        ] {
            assert_eq!(media_type(name, utf8), expected, "{name}");
        }
    }

    #[test]
    fn what_is_compressed_already_is_left_alone() {
        for name in ["a.txt", "a.html", "a.css", "a.js", "a.json", "a.svg", "a.wasm", "a.ttf"] {
            assert!(shrinks(&media_type(name, true)), "{name}");
        }
        for name in ["a.png", "a.jpg", "a.woff2", "a.zip", "a.gz", "a.mp4", "a.pdf", "a", "a.webp"]
        {
            assert!(!shrinks(&media_type(name, true)), "{name}");
        }
    }

    proptest! {
        /// The slow twin sees all of it at once.
        #[test]
        fn cuts_mean_nothing_for_utf8(
            text in "\\PC{0,20}",
            at in 0..80_usize,
            byte: u8,
            cuts in prop::collection::vec(0..80_usize, 0..5),
        ) {
            for bytes in [text.clone().into_bytes(), {
                let mut bytes = text.into_bytes();
                if let Some(found) = bytes.get_mut(at) {
                    *found = byte;
                }
                bytes
            }] {
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
                cuts.sort_unstable();
                let (mut utf8, mut from) = (Utf8::default(), 0);
                for cut in cuts.into_iter().chain([bytes.len()]) {
                    utf8.update(&bytes[from..cut]);
                    from = cut;
                }
                prop_assert_eq!(utf8.is_whole(), std::str::from_utf8(&bytes).is_ok());
            }
        }
    }
}
