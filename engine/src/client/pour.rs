//! Moving bytes from a reader to who takes them, and whose fault it is when that fails.

use std::io::{self, Read};

use super::error::ClientError;

/// Bytes that are moved at once.
const PIECE_LEN: usize = 256 * 1024;

/// Why not all was moved.
#[derive(Debug)]
pub(super) enum Unpoured {
    Read(io::Error),
    Taken(ClientError),
}

/// Moves all that `from` yields.
pub(super) fn pour(
    from: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<(), Unpoured> {
    let mut piece = vec![0; PIECE_LEN];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(len) => take(&piece[..len]).map_err(Unpoured::Taken)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unpoured::Read(error)),
        }
    }
}
