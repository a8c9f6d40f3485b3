//! The lines before the entries: what a bundle says of itself.

use super::{
    error::ManifestError,
    names::MANIFEST_MAGIC,
    text::{Quoted, number, quoted},
};
use crate::limits::{MANIFEST_HEAD_LEN_MAX, PAYMENT_TEXT_LEN_MAX, TLD_LEN_MAX};

const ENTRIES: &[u8] = b"entries = [\n";

/// What stands before the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The suffix that the address is written with.
    pub tld: Option<String>,
    /// Entries, and bytes of all of them as they are, without copies.
    pub files: u64,
    pub bytes: u64,
    /// Under which licence the files are.
    pub license: Option<String>,
    pub payment: Option<Payment>,
}

/// The terms under which a bundle is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    pub required: bool,
    pub currency: String,
    pub price_model: String,
    pub price: String,
    pub wallet: String,
}

impl Payment {
    /// Bytes of memory that are kept besides the value itself.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.fields().iter().map(|(_, text)| text.len()).sum()
    }

    fn fields(&self) -> [(&'static str, &String); 4] {
        [
            ("currency", &self.currency),
            ("price_model", &self.price_model),
            ("price", &self.price),
            ("wallet", &self.wallet),
        ]
    }
}

impl Head {
    /// Adds all lines up to the first entry's.
    ///
    /// # Errors
    /// `Field` for a text that cannot stand there, `Head` when all of it is too long.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), ManifestError> {
        let start = out.len();
        out.extend_from_slice(MANIFEST_MAGIC);
        out.extend_from_slice(b"hash_algo = \"b3\"\n");
        if let Some(tld) = &self.tld {
            let is_tld =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if tld.is_empty() || tld.len() > TLD_LEN_MAX || !tld.bytes().all(is_tld) {
                let why = "is not 1 to 16 bytes of a-z, 0-9 and -";
                return Err(ManifestError::Field { field: "tld", why });
            }
            line("tld", tld, out)?;
        }
        for (name, value) in [("files", self.files), ("bytes", self.bytes)] {
            if value > i64::MAX as u64 {
                return Err(ManifestError::Field { field: name, why: "is more than 2^63 - 1" });
            }
            out.extend_from_slice(format!("{name} = {value}\n").as_bytes());
        }
        if let Some(license) = &self.license {
            line("license", license, out)?;
        }
        if let Some(payment) = &self.payment {
            out.extend_from_slice(b"payment = { required = ");
            out.extend_from_slice(payment.required.to_string().as_bytes());
            for (name, value) in payment.fields() {
                if value.len() > PAYMENT_TEXT_LEN_MAX {
                    let why = "is longer than 128 bytes";
                    return Err(ManifestError::Field { field: name, why });
                }
                out.extend_from_slice(b", ");
                field(name, value, out)?;
            }
            out.extend_from_slice(b" }\n");
        }
        out.extend_from_slice(ENTRIES);
        if out.len() - start > MANIFEST_HEAD_LEN_MAX {
            return Err(ManifestError::Head { max: MANIFEST_HEAD_LEN_MAX });
        }
        Ok(())
    }

    /// Reads the head at the start of a manifest; returns it and its length. The first
    /// `MANIFEST_HEAD_LEN_MAX` bytes of a manifest hold it.
    ///
    /// # Errors
    /// `NotABundle` when the text begins like none, `Head` when the head is anything but what
    /// `write` would have written.
    pub fn parse(bytes: &[u8]) -> Result<(Head, usize), ManifestError> {
        let bytes = &bytes[..bytes.len().min(MANIFEST_HEAD_LEN_MAX)];
        let rest = bytes.strip_prefix(MANIFEST_MAGIC).ok_or(ManifestError::NotABundle)?;
        let bad = ManifestError::Head { max: MANIFEST_HEAD_LEN_MAX };
        let Some((head, rest)) = parse_lines(rest) else { return Err(bad) };
        let len = bytes.len() - rest.len();
        // One spelling only, and only of what can be written.
        let mut written = Vec::with_capacity(len);
        match head.write(&mut written) {
            Ok(()) if written == bytes[..len] => Ok((head, len)),
            _ => Err(bad),
        }
    }
}

fn parse_lines(rest: &[u8]) -> Option<(Head, &[u8])> {
    let rest = rest.strip_prefix(b"hash_algo = \"b3\"\n")?;
    let (tld, rest) = read_line(b"tld = \"", rest)?;
    let (files, rest) = number(rest.strip_prefix(b"files = ")?)?;
    let (bytes, rest) = number(rest.strip_prefix(b"\nbytes = ")?)?;
    let (license, rest) = read_line(b"license = \"", rest.strip_prefix(b"\n")?)?;
    let (payment, rest) = read_payment(rest)?;
    Some((Head { tld, files, bytes, license, payment }, rest.strip_prefix(ENTRIES)?))
}

/// Reads a line that may be missing.
fn read_line<'a>(prefix: &[u8], rest: &'a [u8]) -> Option<(Option<String>, &'a [u8])> {
    let Some(behind) = rest.strip_prefix(prefix) else { return Some((None, rest)) };
    let Quoted { text, rest } = Quoted::read(behind)?;
    Some((Some(text), rest.strip_prefix(b"\n")?))
}

fn read_payment(rest: &[u8]) -> Option<(Option<Payment>, &[u8])> {
    let Some(rest) = rest.strip_prefix(b"payment = { required = ") else {
        return Some((None, rest));
    };
    let (required, mut rest) = match rest.strip_prefix(b"true") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b"false")?),
    };
    let mut payment = Payment { required, ..Payment::default() };
    for (name, place) in [
        ("currency", &mut payment.currency),
        ("price_model", &mut payment.price_model),
        ("price", &mut payment.price),
        ("wallet", &mut payment.wallet),
    ] {
        rest = rest.strip_prefix(b", ")?.strip_prefix(name.as_bytes())?;
        let Quoted { text, rest: behind } = Quoted::read(rest.strip_prefix(b" = \"")?)?;
        (*place, rest) = (text, behind);
    }
    Some((Some(payment), rest.strip_prefix(b" }\n")?))
}

fn line(name: &'static str, value: &str, out: &mut Vec<u8>) -> Result<(), ManifestError> {
    field(name, value, out)?;
    out.push(b'\n');
    Ok(())
}

fn field(name: &'static str, value: &str, out: &mut Vec<u8>) -> Result<(), ManifestError> {
    if value.chars().any(char::is_control) {
        return Err(ManifestError::Field { field: name, why: "has a control character" });
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b" = \"");
    quoted(value, out);
    Ok(())
}
