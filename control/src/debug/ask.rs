//! What somebody wants of a profile: the query of its route.

use std::time::Duration;

use crate::limits::{PROFILE_HZ_ALL, PROFILE_HZ_MAX, PROFILE_S, PROFILE_S_MAX};

/// A profile that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) seconds: u64,
    /// Samples for each second that a thread works.
    pub(crate) hz: u32,
    /// One shard's thread; all threads without one.
    pub(crate) shard: Option<usize>,
    pub(crate) form: Form,
}

/// How a profile is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Svg,
    /// A line a stack: functions from the outermost on between semicolons, then the count.
    Folded,
}

/// What is wrong with a query, by the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("{field}: allowed: a whole number, {min} to {max}")]
    Number { field: &'static str, min: u64, max: u64 },
    #[error("format: allowed: svg or folded")]
    Form,
    #[error("there is no field but seconds, shard, hz and format, and each is given once")]
    Field,
}

impl Ask {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Parses the query, in a node of so many shards.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub(crate) fn parse(query: &str, shards: usize) -> Result<Ask, Wrong> {
        let [mut seconds, mut hz, mut shard, mut form] = [None; 4];
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let place = match name {
                "seconds" => &mut seconds,
                "hz" => &mut hz,
                "shard" => &mut shard,
                "format" => &mut form,
                _ => return Err(Wrong::Field),
            };
            if place.replace(value).is_some() {
                return Err(Wrong::Field);
            }
        }
        let last_shard = (shards as u64).saturating_sub(1);
        let hz = number("hz", hz, 1, u64::from(PROFILE_HZ_MAX))?;
        let seconds = number("seconds", seconds, 1, PROFILE_S_MAX)?;
        let shard = number("shard", shard, 0, last_shard)?.map(|shard| shard as usize);
        // One thread is looked at closely.
        let usual = if shard.is_some() { PROFILE_HZ_MAX } else { PROFILE_HZ_ALL };
        Ok(Ask {
            seconds: seconds.unwrap_or(PROFILE_S),
            hz: hz.and_then(|hz| u32::try_from(hz).ok()).unwrap_or(usual),
            shard,
            form: match form {
                None | Some("svg") => Form::Svg,
                Some("folded") => Form::Folded,
                Some(_) => return Err(Wrong::Form),
            },
        })
    }
}

fn number(
    field: &'static str,
    text: Option<&str>,
    min: u64,
    max: u64,
) -> Result<Option<u64>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    let number = number.filter(|number| (min..=max).contains(number));
    number.map(Some).ok_or(Wrong::Number { field, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_any_order_and_have_defaults() {
        let ask = Ask { seconds: PROFILE_S, hz: PROFILE_HZ_ALL, shard: None, form: Form::Svg };
        assert_eq!(Ask::parse("", 1), Ok(ask));
        let full = Ask { seconds: 60, hz: 999, shard: Some(1), form: Form::Folded };
        assert_eq!(Ask::parse("format=folded&shard=1&hz=999&seconds=60", 2), Ok(full));
        let one = Ask { hz: PROFILE_HZ_MAX, shard: Some(0), ..ask };
        assert_eq!(Ask::parse("shard=0", 1), Ok(one));
        assert_eq!(Ask::parse("&seconds=1&format=svg&", 1), Ok(Ask { seconds: 1, ..ask }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (field, bad, good) in [
            ("seconds", vec!["0", "61", "", "-1", "1.5", "+1", "99999999999999999999"], "60"),
            ("hz", vec!["0", "1000", "x"], "1"),
            ("shard", vec!["2", "a", ""], "0"),
            ("format", vec!["", "png"], "svg"),
        ] {
            for value in bad {
                let wrong = Ask::parse(&format!("{field}={value}"), 2).unwrap_err().to_string();
                assert!(wrong.starts_with(&format!("{field}: allowed: ")), "{value}: {wrong}");
            }
            assert!(Ask::parse(&format!("{field}={good}"), 2).is_ok());
        }
        for query in ["second=1", "seconds=1&seconds=1", "=1", "seconds%3D1"] {
            assert_eq!(Ask::parse(query, 1), Err(Wrong::Field), "{query}");
        }
    }
}
