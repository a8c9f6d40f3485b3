//! One file on its way to a node: what the node has already is not sent.

use std::{fs::File, path::Path, time::Duration};

use ron_codec::address::Address;

use super::{
    error::ClientError,
    http::Http,
    progress::Show,
    retry::with_retries,
    source::{Input, Source, hash_file},
};

pub(super) type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// Single files longer than this are asked for before they are sent.
const ASK_FIRST_LEN: u64 = 32 * 1024 * 1024;

/// A file whose address is known.
#[derive(Clone, Copy)]
pub(super) struct Hashed<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) len: u64,
    pub(super) address: Address,
}

/// Whether the node has to be sent a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was.
    Whole,
    /// The node has it.
    Nothing,
}

/// Sends a file, unless the node has it. A node that knows its copy to be damaged does not say that
/// it has it, and takes it again.
///
/// # Errors
///
/// Those of the file, the connection and the node.
pub(super) fn ask_and_send(
    http: &Http,
    hashed: Hashed<'_>,
    show: &Show,
    wait: Wait<'_>,
) -> Result<Sent, ClientError> {
    if http.stat(&hashed.address).is_ok_and(|size| size == hashed.len) {
        show.skip(hashed.len);
        return Ok(Sent::Nothing);
    }
    send(http, hashed, show, wait).map(|()| Sent::Whole)
}

fn send(http: &Http, hashed: Hashed<'_>, show: &Show, wait: Wait<'_>) -> Result<(), ClientError> {
    let Hashed { file, path, len, address } = hashed;
    let stored = with_retries(wait, || {
        let progress = show.begin("sending", Some(len));
        http.put(Some(&address), &mut Source::file(file, path, len, address, progress)?)
    })?;
    if stored.addr == address {
        Ok(())
    } else {
        Err(ClientError::Stored { sent: address, stored: stored.addr })
    }
}

/// Stores what is opened, and returns its address and its length.
///
/// # Errors
///
/// Those of the input, the connection and the node.
pub(super) fn store(
    http: &Http,
    input: Input,
    show: &Show,
    wait: Wait<'_>,
) -> Result<(Address, u64), ClientError> {
    match input {
        Input::File { file, path, len } => {
            let (file, path) = (&file, path.as_path());
            let address = hash_file(file, path, len, show.begin("hashing", Some(len)))?;
            let hashed = Hashed { file, path, len, address };
            if len > ASK_FIRST_LEN {
                ask_and_send(http, hashed, show, wait)?;
            } else {
                send(http, hashed, show, wait)?;
            }
            Ok((address, len))
        }
        // A stream cannot be read twice, so it is sent once.
        Input::Stream { mut reader, path } => {
            let progress = show.begin("sending", None);
            let mut source = Source::stream(&mut *reader, &path, progress);
            let stored = http.put(None, &mut source)?;
            let (sent, len) = source.finish();
            if stored.addr == sent {
                Ok((sent, len))
            } else {
                Err(ClientError::Stored { sent, stored: stored.addr })
            }
        }
    }
}
