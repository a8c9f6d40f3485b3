//! Encoded copies of a file: the same bytes, compressed once by the client that stores them.
//!
//! What a copy is depends on nothing but the bytes, the settings here and the version of the
//! encoder, so that the same file has the same copies, and they the same addresses. The encoders
//! get the file in blocks of one size, and learn its length beforehand; the one of brotli computes
//! with tables, not with the numbers of the processor. A copy is made in a file without a name.

use std::{
    fs::File,
    io::{self, Seek, Write},
    path::Path,
};

use brotli::{CompressorWriter, enc::BrotliEncoderParams};
use ron_codec::{address::Address, manifest::Stored, outboard::Hashing};
use zstd::zstd_safe::CParameter;

use super::{error::ClientError, progress::Progress, source::hash_and};

/// Files below this are sent in one packet, whatever is done to them.
pub(super) const ORIGINAL_LEN_MIN: u64 = 1024;

/// Most parts of a hundred of the original that a copy may have.
const PERCENT_MAX: u64 = 95;

/// 9 of 11: the last two steps save some percent more, and take twenty times as long.
const BROTLI_QUALITY: i32 = 9;

/// The window of brotli, as a power of two: 4 MiB, the largest that some decoders take.
const BROTLI_WINDOW_LOG: i32 = 22;

/// Longest length that brotli is given a hint of.
const BROTLI_HINT_MAX: usize = 1 << 30;

/// Bytes that the encoder of brotli gives on at once.
const BROTLI_BUFFER_LEN: usize = 64 * 1024;

/// 15 of 22: what the deployed tools use.
const ZSTD_LEVEL: i32 = 15;

/// The window of zstd: 8 MiB, the largest that browsers take (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;

/// An encoding of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Br,
    Zstd,
}

/// A file that is to have a copy.
#[derive(Clone, Copy)]
pub(super) struct Original<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) len: u64,
    pub(super) address: Address,
}

/// Writes the encoded copy of a file into `scratch`, over what is there. `None` when the copy would
/// not be smaller by enough to be worth it.
///
/// # Errors
///
/// When the file cannot be read, does not have the bytes any more that hash to its address, or the
/// copy cannot be written.
pub(super) fn encode(
    coding: Coding,
    original: Original<'_>,
    scratch: &mut File,
    progress: Progress,
) -> Result<Option<Stored>, ClientError> {
    let Original { file, path, len, address } = original;
    let mut sink = Sink::new(scratch, len * PERCENT_MAX / 100).map_err(temporary)?;
    let mut encoder = Encoder::new(coding, &mut sink, len).map_err(temporary)?;
    let mut encode = |bytes: &[u8]| encoder.write_all(bytes).map_err(temporary);
    let found = hash_and(file, path, len, progress, &mut encode);
    let ended = found.and_then(|found| encoder.finish().map_err(temporary).map(|()| found));
    if sink.is_full {
        return Ok(None);
    }
    if ended? != address {
        return Err(ClientError::Changed { path: path.to_path_buf() });
    }
    sink.finish().map(Some).map_err(temporary)
}

fn temporary(source: io::Error) -> ClientError {
    ClientError::Standard { name: "temporary file", source }
}

enum Encoder<'a, 'b> {
    Br(Box<CompressorWriter<&'a mut Sink<'b>>>),
    Zstd(zstd::Encoder<'static, &'a mut Sink<'b>>),
}

impl<'a, 'b> Encoder<'a, 'b> {
    fn new(coding: Coding, sink: &'a mut Sink<'b>, len: u64) -> io::Result<Self> {
        Ok(match coding {
            Coding::Br => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW_LOG,
                    size_hint: usize::try_from(len).unwrap_or(usize::MAX).min(BROTLI_HINT_MAX),
                    ..BrotliEncoderParams::default()
                };
                let writer = CompressorWriter::with_params(sink, BROTLI_BUFFER_LEN, &params);
                Self::Br(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::Encoder::new(sink, ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
                encoder.set_pledged_src_size(Some(len))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Br(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            // What fails at the end is with the sink: brotli keeps it to itself.
            Self::Br(encoder) => {
                encoder.into_inner();
                Ok(())
            }
            Self::Zstd(encoder) => encoder.finish().map(drop),
        }
    }
}

/// Takes a copy as long as it is short enough.
struct Sink<'a> {
    file: &'a mut File,
    hashing: Hashing,
    len_max: u64,
    is_full: bool,
    fault: Option<io::Error>,
}

impl<'a> Sink<'a> {
    fn new(file: &'a mut File, len_max: u64) -> io::Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        Ok(Self { file, hashing: Hashing::new(), len_max, is_full: false, fault: None })
    }

    fn finish(self) -> io::Result<Stored> {
        let hashed = self.hashing.finish();
        let stored = Stored { address: hashed.address, bytes: hashed.size };
        self.fault.map_or(Ok(stored), Err)
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full |= self.hashing.size() + bytes.len() as u64 > self.len_max;
        if self.is_full || self.fault.is_some() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.file.write_all(bytes);
        let hashed = written.and_then(|()| self.hashing.update(bytes).map_err(io::Error::other));
        match hashed {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.fault = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Cursor, Read},
    };

    use super::*;

    /// Text that shrinks, always the same.
    fn text(len: usize) -> Vec<u8> {
        let words = ["bundle ", "manifest ", "entry ", "copy ", "of the ", "node\n"];
        let mut number = 1_u32;
        let mut text = Vec::new();
        while text.len() < len {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.extend_from_slice(words[(number >> 24) as usize % words.len()].as_bytes());
        }
        text.truncate(len);
        text
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// The copy of these bytes, and what is known of it.
    fn copy(coding: Coding, bytes: &[u8]) -> Result<Option<(Stored, Vec<u8>)>, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("original");
        fs::write(&path, bytes).unwrap();
        copy_of(coding, &path, Address::of(bytes))
    }

    fn copy_of(
        coding: Coding,
        path: &Path,
        address: Address,
    ) -> Result<Option<(Stored, Vec<u8>)>, ClientError> {
        let file = File::open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let mut scratch = tempfile::tempfile().unwrap();
        scratch.write_all(&[b'?'; 10_000]).unwrap();
        let progress = Progress::new("test", None, true);
        let original = Original { file: &file, path, len, address };
        let Some(stored) = encode(coding, original, &mut scratch, progress)? else {
            return Ok(None);
        };
        let mut copy = Vec::new();
        scratch.rewind().unwrap();
        scratch.read_to_end(&mut copy).unwrap();
        Ok(Some((stored, copy)))
    }

    fn decode(coding: Coding, copy: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match coding {
            Coding::Br => {
                brotli::Decompressor::new(Cursor::new(copy), 4096).read_to_end(&mut bytes)
            }
            Coding::Zstd => zstd::Decoder::new(Cursor::new(copy)).unwrap().read_to_end(&mut bytes),
        }
        .unwrap();
        bytes
    }

    #[test]
    fn copies_decode_to_the_original_and_are_what_is_said_of_them() {
        for coding in [Coding::Br, Coding::Zstd] {
            for len in [1024, 65_536, 300_000, 1_500_000] {
                let original = text(len);
                let (stored, copied) = copy(coding, &original).unwrap().unwrap();
                assert_eq!(stored.address, Address::of(&copied));
                assert_eq!(stored.bytes, copied.len() as u64);
                assert!(copied.len() < len / 2, "{coding:?}: {} of {len}", copied.len());
                assert!(decode(coding, &copied) == original, "{coding:?}, {len} bytes");
            }
        }
    }

    #[test]
    fn a_copy_that_saves_too_little_is_none() {
        for coding in [Coding::Br, Coding::Zstd] {
            assert!(copy(coding, &noise(400_000)).unwrap().is_none());
            // Of what is saved, 4 parts of a hundred are not enough, and 6 are.
            for (zeros, is_kept) in [(4_000, false), (6_000, true)] {
                let mut bytes = noise(100_000);
                bytes[..zeros].fill(0);
                assert_eq!(copy(coding, &bytes).unwrap().is_some(), is_kept, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_what_it_was_has_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("original");
        fs::write(&path, text(5000)).unwrap();
        for coding in [Coding::Br, Coding::Zstd] {
            let changed = copy_of(coding, &path, Address::of(b"before"));
            assert!(matches!(changed, Err(ClientError::Changed { .. })), "{changed:?}");
        }
    }

    /// The addresses of bundles depend on it: an encoder that makes other bytes is news to all who
    /// pack, and belongs into the changelog.
    #[test]
    fn the_encoders_make_the_bytes_they_always_made() {
        const BR: &str = "b3:8751ca2ec7bb9800b9723b0e38d1b0e15b67d25fd6b39085af8f08964cfea9a9";
        const ZSTD: &str = "b3:688b49c547c0d93fad01952c624ded7950b489088cb2b3c36273e38e728e05a2";
        let golden = [(Coding::Br, BR, 17_741), (Coding::Zstd, ZSTD, 15_870)];
        for (coding, address, len) in golden {
            let (stored, _) = copy(coding, &text(200_000)).unwrap().unwrap();
            assert_eq!((stored.address.to_string().as_str(), stored.bytes), (address, len));
        }
    }
}
