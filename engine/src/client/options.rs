//! The options of the commands that are about many objects: ls, export and import.

use std::{path::PathBuf, str::FromStr};

use ron_codec::address::{ADDRESS_HEX_LEN, ADDRESS_PREFIX};
use thiserror::Error;

/// Most requests of an export or an import at once.
const JOBS_MAX: u16 = 64;

/// What to list, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Ls {
    /// Only objects whose address begins so: hex digits, with or without b3: before them.
    #[arg(value_name = "PREFIX", default_value = "b3:")]
    pub prefix: Prefix,
    /// Print sizes too, and what is known to be damaged.
    #[arg(long, short, conflicts_with = "json")]
    pub long: bool,
    /// Print so many objects at most.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// What to export, and from where to where.
#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// The file to write, which must not be there yet; - is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
    /// Go on with a file that an export has left incomplete: what it holds is checked first.
    #[arg(long = "continue")]
    pub go_on: bool,
    /// Only objects whose address begins so: hex digits, with or without b3: before them.
    #[arg(long, value_name = "PREFIX", default_value = "b3:")]
    pub prefix: Prefix,
    /// Read the data directories of a stopped node, all of them or some, instead of asking one.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// How many small objects are fetched at once.
    #[arg(long, value_name = "N", default_value = "4", value_parser = jobs())]
    pub jobs: u16,
}

/// What to import.
#[derive(Clone, Debug, clap::Args)]
pub struct Import {
    /// The archive; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// How many small objects are sent at once.
    #[arg(long, value_name = "N", default_value = "4", value_parser = jobs())]
    pub jobs: u16,
}

fn jobs() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(JOBS_MAX))
}

/// How addresses begin: hex digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// The digits, without `b3:`.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whether the address whose digits these are begins so.
    #[must_use]
    pub fn is_of(&self, digits: &[u8]) -> bool {
        digits.starts_with(self.0.as_bytes())
    }
}

/// A text is no prefix of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected up to 64 lowercase hex digits, with or without b3: before them")]
pub struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let digits = text.strip_prefix(ADDRESS_PREFIX).unwrap_or(text);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let valid = digits.len() <= ADDRESS_HEX_LEN && digits.bytes().all(is_hex);
        if valid { Ok(Self(digits.to_owned())) } else { Err(PrefixError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_hex_digits() {
        for (text, digits) in [("", ""), ("b3:", ""), ("b3:0a", "0a"), ("b3", "b3"), ("fff", "fff")]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().digits(), digits, "{text}");
        }
        assert!("a".repeat(64).parse::<Prefix>().is_ok());
        for wrong in ["b3:b3:", "A", "0x", " ", &"a".repeat(65)] {
            assert_eq!(wrong.parse::<Prefix>(), Err(PrefixError), "{wrong}");
        }
        let prefix: Prefix = "b3:ab".parse().unwrap();
        assert!(prefix.is_of(b"abc") && !prefix.is_of(b"aab"));
    }
}
