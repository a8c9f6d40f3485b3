//! Response heads: status line, fields, the date.
//!
//! A head is appended to a buffer the caller keeps and reuses, so nothing is allocated once that
//! buffer has grown. Answers to HTTP/1.0 clients have the same status line (RFC 9112 §2.3). The
//! module does not know which fields an answer needs; it only makes sure that no value can end its
//! line.

use super::etag::etag;
use super::range::ByteRange;
use super::request::Version;
use crate::address::Address;

/// Bytes of an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const HTTP_DATE_LEN: usize = 29;

/// The last second of the year 9999: a fixdate has four digits for the year.
const HTTP_DATE_SECS_MAX: u64 = 253_402_300_799;

const SECS_PER_DAY: u64 = 86_400;

/// A head in the making. `new`, then fields in any order, then `end`; the body follows.
#[must_use = "a head without `end` is cut short"]
pub struct ResponseHead<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ResponseHead<'o> {
    /// Appends the status line. A status without a reason here gets an empty one.
    ///
    /// # Panics
    ///
    /// When `status` has not three digits, which is our own mistake.
    pub fn new(out: &'o mut Vec<u8>, status: u16) -> Self {
        assert!((100..=999).contains(&status), "status {status} has not three digits");
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(out, u64::from(status));
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        Self { out }
    }

    /// Appends `name: value`. A control byte in the value becomes a space.
    pub fn field(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.name(name);
        let start = self.out.len();
        self.out.extend_from_slice(value.as_ref());
        let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
        for byte in &mut self.out[start..] {
            if control(byte) {
                *byte = b' ';
            }
        }
        self.line_end()
    }

    /// Appends lines that never change, each with its line end: the cheap way for constants.
    pub fn lines(self, lines: &'static str) -> Self {
        debug_assert!(lines.ends_with("\r\n") && !lines.contains("\r\n\r\n"), "{lines:?}");
        self.out.extend_from_slice(lines.as_bytes());
        self
    }

    /// Appends `name: number`.
    pub fn number(mut self, name: &'static str, number: u64) -> Self {
        self.name(name);
        push_number(self.out, number);
        self.line_end()
    }

    /// Appends the strong tag of the representation whose digest is `address`.
    pub fn etag(mut self, address: &Address) -> Self {
        self.name("ETag");
        self.out.extend_from_slice(&etag(address));
        self.line_end()
    }

    /// Appends the `Content-Range` of a 206: `range` of a representation of `size` bytes.
    pub fn content_range(self, range: ByteRange, size: u64) -> Self {
        assert!(
            range.start < range.end_exclusive && range.end_exclusive <= size,
            "{range:?} of {size} bytes"
        );
        self.out.extend_from_slice(b"Content-Range: bytes ");
        push_number(self.out, range.start);
        self.out.push(b'-');
        push_number(self.out, range.end_exclusive - 1);
        self.out.push(b'/');
        push_number(self.out, size);
        self.line_end()
    }

    /// Appends the `Content-Range` of a 416.
    pub fn content_range_unsatisfied(self, size: u64) -> Self {
        self.out.extend_from_slice(b"Content-Range: bytes */");
        push_number(self.out, size);
        self.line_end()
    }

    /// Appends what tells a client of `version` whether the connection persists; nothing where
    /// that is the default.
    pub fn connection(self, version: Version, keep_alive: bool) -> Self {
        match (version, keep_alive) {
            (Version::Http11, true) | (Version::Http10, false) => self,
            (Version::Http11, false) => self.lines("Connection: close\r\n"),
            (Version::Http10, true) => self.lines("Connection: keep-alive\r\n"),
        }
    }

    /// Appends the blank line.
    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn name(&mut self, name: &'static str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
    }

    fn line_end(self) -> Self {
        self.out.extend_from_slice(b"\r\n");
        self
    }
}

/// The reason phrase of a status that is answered here, else the empty one.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// The date of the current second, written once a second and copied otherwise.
#[derive(Debug, Clone)]
pub struct DateCache {
    unix_secs: u64,
    text: [u8; HTTP_DATE_LEN],
}

impl DateCache {
    /// A cache that holds the date of `unix_secs`.
    #[must_use]
    pub fn new(unix_secs: u64) -> Self {
        let mut text = [0; HTTP_DATE_LEN];
        write_http_date(unix_secs, &mut text);
        Self { unix_secs, text }
    }

    /// The date of `unix_secs`.
    pub fn at(&mut self, unix_secs: u64) -> &[u8; HTTP_DATE_LEN] {
        if unix_secs != self.unix_secs {
            *self = Self::new(unix_secs);
        }
        &self.text
    }
}

/// Writes `unix_secs` (seconds since 1970-01-01 UTC) as an IMF-fixdate (RFC 9110 §5.6.7). Times
/// beyond the year 9999 are written as its last second.
pub fn write_http_date(unix_secs: u64, out: &mut [u8; HTTP_DATE_LEN]) {
    const WEEKDAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let secs = unix_secs.min(HTTP_DATE_SECS_MAX);
    let (days, second_of_day) = (secs / SECS_PER_DAY, secs % SECS_PER_DAY);
    let (year, month, day) = civil_date(days);
    out.copy_from_slice(b"Thu, 01 Jan 1970 00:00:00 GMT");
    out[..3].copy_from_slice(WEEKDAYS[(days % 7) as usize]);
    put_two_digits(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    put_two_digits(&mut out[12..14], year / 100);
    put_two_digits(&mut out[14..16], year % 100);
    put_two_digits(&mut out[17..19], second_of_day / 3600);
    put_two_digits(&mut out[20..22], second_of_day / 60 % 60);
    put_two_digits(&mut out[23..25], second_of_day % 60);
}

/// Year, month 1–12 and day 1–31 of the day that many days after 1970-01-01.
///
/// Years are counted from March here, so that the leap day is the last of its year and the days
/// before a month follow one line, `(153 × month + 2) / 5`.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_0000_03_01: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097; // 400 years.
    let days = days + DAYS_FROM_0000_03_01;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let january_or_february = month_from_march >= 10;
    let month = if january_or_february { month_from_march - 9 } else { month_from_march + 3 };
    (400 * era + year_of_era + u64::from(january_or_february), month, day)
}

fn put_two_digits(place: &mut [u8], number: u64) {
    place[0] = b'0' + (number / 10) as u8;
    place[1] = b'0' + (number % 10) as u8;
}

/// Appends a number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(ResponseHead<'_>) -> ResponseHead<'_>) -> String {
        let mut out = Vec::new();
        write(ResponseHead::new(&mut out, 200)).end();
        let text = String::from_utf8(out).unwrap();
        let body = text.strip_prefix("HTTP/1.1 200 OK\r\n").unwrap();
        body.strip_suffix("\r\n").unwrap().to_owned()
    }

    fn date(unix_secs: u64) -> String {
        let mut out = [0; HTTP_DATE_LEN];
        write_http_date(unix_secs, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_whole_head() {
        let mut out = b"before".to_vec();
        ResponseHead::new(&mut out, 206)
            .etag(&Address::from_bytes([0x0f; 32]))
            .content_range(ByteRange { start: 0, end_exclusive: 10 }, 11)
            .number("Content-Length", 10)
            .field("Content-Type", "text/plain")
            .lines("A: b\r\nC: d\r\n")
            .connection(Version::Http11, false)
            .end();
        let expected = format!(
            "beforeHTTP/1.1 206 Partial Content\r\nETag: \"b3:{}\"\r\n\
             Content-Range: bytes 0-9/11\r\nContent-Length: 10\r\n\
             Content-Type: text/plain\r\nA: b\r\nC: d\r\nConnection: close\r\n\r\n",
            "0f".repeat(32)
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn numbers_and_ranges_at_their_edges() {
        assert_eq!(written(|head| head.number("N", 0)), "N: 0\r\n");
        assert_eq!(written(|head| head.number("N", u64::MAX)), format!("N: {}\r\n", u64::MAX));
        let last = ByteRange { start: u64::MAX - 1, end_exclusive: u64::MAX };
        assert_eq!(
            written(|head| head.content_range(last, u64::MAX)),
            format!("Content-Range: bytes {0}-{0}/{1}\r\n", u64::MAX - 1, u64::MAX)
        );
        assert_eq!(
            written(|head| head.content_range_unsatisfied(0)),
            "Content-Range: bytes */0\r\n"
        );
    }

    #[test]
    fn persistence_is_said_only_where_it_is_not_the_default() {
        let connection = |version, keep| written(|head| head.connection(version, keep));
        assert_eq!(connection(Version::Http11, true), "");
        assert_eq!(connection(Version::Http11, false), "Connection: close\r\n");
        assert_eq!(connection(Version::Http10, true), "Connection: keep-alive\r\n");
        assert_eq!(connection(Version::Http10, false), "");
    }

    #[test]
    fn every_status_has_its_reason() {
        for status in [
            100, 200, 201, 204, 206, 301, 304, 400, 401, 402, 403, 404, 405, 406, 408, 409, 412,
            413, 414, 416, 417, 429, 431, 500, 501, 502, 503, 504, 505, 507,
        ] {
            let mut out = Vec::new();
            ResponseHead::new(&mut out, status).end();
            let line = format!("HTTP/1.1 {status} {}\r\n\r\n", reason(status));
            assert!(!reason(status).is_empty());
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
        for code in crate::error::ErrorCode::ALL {
            assert!(!reason(code.status()).is_empty(), "{code:?}");
        }
    }

    #[test]
    fn known_dates() {
        for (unix_secs, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (HTTP_DATE_SECS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(date(unix_secs), expected);
        }
    }

    #[test]
    fn every_day_up_to_2500_is_what_counting_says() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0.. {
            assert_eq!(civil_date(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let month_len = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > month_len {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            if year > 2500 {
                break;
            }
        }
    }

    #[test]
    fn the_cache_follows_the_clock_in_both_directions() {
        let mut cache = DateCache::new(5);
        for unix_secs in [5, 5, 6, 1_000_000_000, 4] {
            assert_eq!(cache.at(unix_secs), date(unix_secs).as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_value_ends_its_line(value: Vec<u8>) {
            let mut out = Vec::new();
            ResponseHead::new(&mut out, 200).field("X", &value).end();
            let line = out.strip_prefix(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
            let line = line.strip_suffix(b"\r\n\r\n").unwrap();
            prop_assert_eq!(line.len(), value.len());
            for (written, given) in line.iter().zip(&value) {
                let harmless = !given.is_ascii_control() || *given == b'\t';
                prop_assert_eq!(*written, if harmless { *given } else { b' ' });
            }
        }

        #[test]
        fn the_time_of_day_and_the_weekday_are_what_counting_says(unix_secs in 0..1u64 << 37) {
            let text = date(unix_secs);
            let (days, second) = (unix_secs / 86_400, unix_secs % 86_400);
            let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
            prop_assert_eq!(&text[17..25], clock);
            let weekday = (0..days % 7).fold("Thu", |day, _| match day {
                "Thu" => "Fri",
                "Fri" => "Sat",
                "Sat" => "Sun",
                "Sun" => "Mon",
                "Mon" => "Tue",
                "Tue" => "Wed",
                _ => "Thu",
            });
            prop_assert_eq!(&text[..3], weekday);
        }
    }
}
