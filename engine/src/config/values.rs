//! How the values of settings are spelled: sizes, seconds, lists of numbers, addresses, tokens.
//!
//! Every parser takes text from outside and answers `None` for what it does not know; which
//! setting it was for, and what would have been allowed, is for the caller to say.

use std::{net::SocketAddr, time::Duration};

use super::limits::{CORE_ID_MAX, NAME_LEN_MAX, TOKEN_LEN_MAX};

/// Units of sizes, by what they are called in lower case.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Bytes: a whole number and a unit, such as `512MiB`, `64 kB` or `4096`.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A size as people read it: `1.5 GiB`.
pub fn human_size(len: u64) -> String {
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter().peekable();
    let mut value = len as f64;
    // Half a tenth below the next unit would be written as that many of this one.
    while value >= 1023.95 && units.len() > 1 {
        units.next();
        value /= 1024.0;
    }
    let unit = units.next().unwrap_or("B");
    let value = format!("{value:.1}");
    format!("{} {unit}", value.strip_suffix(".0").unwrap_or(&value))
}

/// Seconds, fractions allowed: `30`, `0.25`. Plain decimals only, so neither `inf` nor `1e9`.
pub fn seconds(text: &str) -> Option<Duration> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = plain.then(|| text.parse::<f64>().ok()).flatten()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Numbers and ranges, such as `0,2-5`: ascending and each once, whatever the order given.
/// A number twice, one above `CORE_ID_MAX` and an empty list are refused.
pub fn number_list(text: &str) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let text = text.trim();
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<usize>().ok()).flatten()?;
        (number <= CORE_ID_MAX).then_some(number)
    };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => numbers.push(number(part)?),
            Some((first, last)) => {
                let range = number(first)?..=number(last)?;
                if range.is_empty() {
                    return None;
                }
                numbers.extend(range);
            }
        }
        if numbers.len() > CORE_ID_MAX + 1 {
            return None;
        }
    }
    numbers.sort_unstable();
    let unique = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    unique.then_some(numbers)
}

/// An address to listen on: an IP address and a port, such as `127.0.0.1:9080` or `[::1]:0`.
pub fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// Whether this is the name of a host as a `Host` field has it, without port and final dot.
pub fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    name.len() <= NAME_LEN_MAX && name.split('.').all(is_label)
}

/// Whether a token may stand in `Authorization: Bearer …` (RFC 6750 §2.1, `b64token`).
pub fn is_token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && token.len() <= TOKEN_LEN_MAX && body.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, len) in [
            ("0", 0),
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("64kB", 64_000),
            ("1GB", 1_000_000_000),
            ("7b", 7),
            ("18446744073709551615", u64::MAX),
            ("16777215TiB", 16_777_215 << 40),
        ] {
            assert_eq!(size(text), Some(len), "{text}");
        }
        for text in
            ["", "MiB", "-1", "1.5GiB", "5 M", "5m", "1e3", "+5", "5MiB ", "16777216TiB", "५"]
        {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_for_people() {
        for (len, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (6 << 30, "6 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(human_size(len), text);
        }
    }

    #[test]
    fn seconds_may_have_fractions() {
        assert_eq!(seconds("30"), Some(Duration::from_secs(30)));
        assert_eq!(seconds("0.25"), Some(Duration::from_millis(250)));
        for text in ["", ".", "-1", "1e3", "inf", "NaN", "1s", "1.2.3", "99999999999999999999999"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn lists_hold_numbers_and_ranges() {
        assert_eq!(number_list("0"), Some(vec![0]));
        assert_eq!(number_list("3,0-1"), Some(vec![0, 1, 3]));
        assert_eq!(number_list("0, 2 - 2"), Some(vec![0, 2]));
        assert_eq!(number_list(&CORE_ID_MAX.to_string()), Some(vec![CORE_ID_MAX]));
        let beyond = (CORE_ID_MAX + 1).to_string();
        for text in ["", ",", "0,", "a", "3-1", "0,0", "0-2,1", "+1", "1-", "-1", beyond.as_str()] {
            assert_eq!(number_list(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_those_of_hosts() {
        let longest = ["x".repeat(61).as_str(); 4].join(".") + ".xxxxx";
        assert_eq!(longest.len(), NAME_LEN_MAX);
        for name in ["ron", "cdn.example", "a-b.c_d.1", "xn--nxasmq6b", longest.as_str()] {
            assert!(is_host_name(name), "{name}");
        }
        let (label, longer) = ("x".repeat(64), longest.clone() + "x");
        for name in ["", ".", "a.", ".a", "a..b", "a:80", "a b", "é", "*", "[::1]", &label, &longer]
        {
            assert!(!is_host_name(name), "{name:?}");
        }
    }

    #[test]
    fn tokens_are_those_that_a_header_can_carry() {
        let longest = "x".repeat(TOKEN_LEN_MAX);
        assert!(is_token("a") && is_token("aZ09-._~+/==") && is_token(&longest));
        let longer = longest.clone() + "x";
        for token in ["", "=", "a=b", "a b", "a,b", "é", "a\r", longer.as_str()] {
            assert!(!is_token(token), "{token:?}");
        }
    }
}
