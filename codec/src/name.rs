//! Names: paths that an operator gives to bundles and objects.
//!
//! A name has one canonical text: a slash, then its segments with single slashes between them.
//! `/` alone, without a segment, is the root. What is read may leave out the first slash, double
//! any, or end with one; it is the same name. A segment may be what it may be in a manifest, so
//! that a name stays the same path in every URL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    limits::NAME_PATH_LEN_MAX,
    manifest::{PathFault, check_path},
};

/// The path of a name, in its canonical text.
///
/// ```
/// use ron_codec::name::NamePath;
///
/// let name: NamePath = "maps//tiles/".parse().unwrap();
/// assert_eq!(name.as_str(), "/maps/tiles");
/// assert_eq!(name, "/maps/tiles".parse().unwrap());
/// assert!("/maps/../tiles".parse::<NamePath>().is_err());
/// assert_eq!("".parse::<NamePath>().unwrap().as_str(), "/");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePath(String);

/// Why a text is not the path of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("is longer than {NAME_PATH_LEN_MAX} bytes")]
    TooLong,
    #[error("has a segment that is . or ..")]
    Dots,
    #[error("has a control character")]
    Control,
}

/// The segments of a path, however many slashes are between them.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

impl NamePath {
    /// The canonical text, at most [`NAME_PATH_LEN_MAX`] bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root, which stands before every path.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The text as it stands in the path of a URL (RFC 3986 §3.3).
    #[must_use]
    pub fn to_url_path(&self) -> String {
        percent_encode(&self.0)
    }
}

/// Encodes all bytes but those that a path in a URL has as they are, and slashes.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~:@!$&'()*+,;=".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl FromStr for NamePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<NamePath, NameError> {
        let mut path = String::with_capacity(text.len().min(NAME_PATH_LEN_MAX) + 1);
        for segment in segments(text) {
            if path.len() + 1 + segment.len() > NAME_PATH_LEN_MAX {
                return Err(NameError::TooLong);
            }
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() {
            return Ok(NamePath("/".to_owned()));
        }
        match check_path(&path[1..]) {
            // Names that bundles have for themselves are none of this name space.
            Ok(()) | Err(PathFault::Reserved) => Ok(NamePath(path)),
            Err(PathFault::Control) => Err(NameError::Control),
            Err(PathFault::TooLong) => Err(NameError::TooLong),
            // It was put together with single slashes, so what is left is dots.
            Err(PathFault::Dots | PathFault::Empty | PathFault::Slash) => Err(NameError::Dots),
        }
    }
}

impl TryFrom<String> for NamePath {
    type Error = NameError;

    fn try_from(text: String) -> Result<NamePath, NameError> {
        text.parse()
    }
}

impl From<NamePath> for String {
    fn from(name: NamePath) -> String {
        name.0
    }
}

impl fmt::Display for NamePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::target::percent_decode;

    fn read(text: &str) -> Result<String, NameError> {
        text.parse::<NamePath>().map(String::from)
    }

    #[test]
    fn every_spelling_of_a_name_is_one_text() {
        for text in ["a/b", "/a/b", "//a///b", "a/b/", "/a/b//"] {
            assert_eq!(read(text), Ok("/a/b".to_owned()), "{text}");
        }
        for text in ["", "/", "///"] {
            assert_eq!(read(text), Ok("/".to_owned()), "{text}");
            assert!(text.parse::<NamePath>().unwrap().is_root());
        }
        assert_eq!(read("Käse/a b?c#d%2F"), Ok("/Käse/a b?c#d%2F".to_owned()));
        assert_eq!(read("Manifest.toml"), Ok("/Manifest.toml".to_owned()));
    }

    #[test]
    fn what_is_no_name_says_why() {
        for text in [".", "a/..", "/../a", "a/./b"] {
            assert_eq!(read(text), Err(NameError::Dots), "{text}");
        }
        for text in ["a\nb", "\0", "a/\u{85}"] {
            assert_eq!(read(text), Err(NameError::Control), "{text:?}");
        }
        assert_eq!(read("a/...").as_deref(), Ok("/a/..."));
    }

    #[test]
    fn names_are_as_long_as_they_may_be() {
        let longest = "x".repeat(NAME_PATH_LEN_MAX - 1);
        assert_eq!(read(&longest).unwrap().len(), NAME_PATH_LEN_MAX);
        assert!(read(&format!("//{longest}/")).is_ok(), "slashes that go do not count");
        assert_eq!(read(&format!("{longest}x")), Err(NameError::TooLong));
        assert_eq!(read(&"x/".repeat(NAME_PATH_LEN_MAX)), Err(NameError::TooLong));
    }

    proptest! {
        #[test]
        fn every_text_is_a_name_or_an_error(text in "(/|\\.|a|ä|\\PC){0,40}") {
            let by_hand: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
            let is_name = !by_hand.iter().any(|part| *part == "." || *part == "..")
                && !text.chars().any(char::is_control);
            let name = text.parse::<NamePath>();
            prop_assert_eq!(name.is_ok(), is_name);
            if let Ok(name) = name {
                prop_assert_eq!(name.as_str(), format!("/{}", by_hand.join("/")));
                prop_assert_eq!(name.as_str().parse(), Ok(name.clone()));
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<NamePath>(&json).unwrap(), name);
            }
        }

        #[test]
        fn a_url_has_the_name(text in "(/|%|\\?|#|\\PC){0,40}") {
            let Ok(name) = text.parse::<NamePath>() else { return Ok(()) };
            let url = name.to_url_path();
            prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(!url.contains(['?', '#', '"', '<', '\\']));
            let mut decoded = vec![0; url.len()];
            let len = percent_decode(url.as_bytes(), &mut decoded).unwrap();
            prop_assert_eq!(&decoded[..len], name.as_str().as_bytes());
        }
    }
}
