//! How the values of settings are spelled: sizes, durations, lists of numbers, addresses, tokens.
//!
//! Every parser takes text from outside and answers `None` for what it does not know; which
//! setting it was for, and what would have been allowed, is for the caller to say.

use std::{net::SocketAddr, time::Duration};

use super::limits::{CORE_ID_MAX, NAME_LEN_MAX, TOKEN_LEN_MAX};

/// Units of sizes, by what they are called in lower case. A letter alone is the binary unit, as it
/// is for systemd and nginx.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// Units of durations in seconds. There are no months: they would be taken for minutes.
const TIMES: [(&str, f64); 13] = [
    ("", 1.0),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("sec", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("day", 86_400.0),
    ("days", 86_400.0),
    ("w", 604_800.0),
];

/// Bytes: a whole number and a unit, such as `512MiB`, `64 kB`, `1G` or `4096`.
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

/// A number and a unit, such as `15s`, `250ms`, `1.5 h` or `1w`; without a unit it is seconds.
/// Plain decimals only, so neither `inf` nor `1e9`.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let (_, seconds) = TIMES.iter().find(|(name, _)| *name == unit.trim_start())?;
    if unit.ends_with(' ') {
        return None;
    }
    let number = number.parse::<f64>().ok()?;
    // Rounded, because a millisecond is no sum of halves, and 1 ms must not be less than 1 ms.
    let nanos = (number * seconds * 1e9).round();
    // Above this not every number is a float; it is some 100 days.
    const EXACT: f64 = (1u64 << 53) as f64;
    if nanos < EXACT {
        return Some(Duration::from_nanos(nanos as u64));
    }
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// A duration as people read it, in its largest whole unit: `1ms`, `90s`, `7d`.
pub fn human_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, len) in
        [("d", 86_400_000_000_000u128), ("h", 3_600_000_000_000), ("s", 1_000_000_000)]
    {
        if nanos > 0 && nanos.is_multiple_of(len) {
            return format!("{}{unit}", nanos / len);
        }
    }
    format!("{}ms", duration.as_secs_f64() * 1000.0)
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
            ("1G", 1 << 30),
            ("64 k", 64 << 10),
            ("5m", 5 << 20),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Some(len), "{text}");
        }
        for text in
            ["", "MiB", "-1", "1.5GiB", "5 X", "5mm", "1e3", "+5", "5MiB ", "16777216TiB", "५"]
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
    fn durations_have_units_and_fractions() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("30", ms(30_000)),
            ("0.25", ms(250)),
            ("15s", ms(15_000)),
            ("250ms", ms(250)),
            ("1ms", ms(1)),
            ("0.001", ms(1)),
            ("500us", Duration::from_micros(500)),
            ("2min", ms(120_000)),
            ("2m", ms(120_000)),
            ("1.5 h", ms(5_400_000)),
            ("7 days", ms(604_800_000)),
            ("1w", ms(604_800_000)),
            ("315360000", ms(315_360_000_000)),
            ("3650d", ms(315_360_000_000)),
            ("0s", ms(0)),
        ] {
            assert_eq!(duration(text), Some(expected), "{text}");
        }
        for text in [
            "",
            ".",
            "-1",
            "1e3",
            "inf",
            "NaN",
            "s",
            "1.2.3",
            "1 ",
            "1s ",
            "1S",
            "1month",
            "1h30m",
            "99999999999999999999999",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_for_people() {
        for text in ["1ms", "20ms", "1s", "90s", "1h", "7d", "0.5ms"] {
            assert_eq!(human_duration(duration(text).unwrap()), text);
        }
        assert_eq!(human_duration(Duration::ZERO), "0ms");
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
