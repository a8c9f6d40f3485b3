//! What can go wrong between an operator and a node, and whose fault it is.
//!
//! Every failure has an exit code that a script can act on and one line for a person to read. What
//! a node says is not trusted: control characters in it never reach the terminal.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use ron_codec::{
    address::Address,
    error::{ErrorCode, ErrorReply},
    manifest::{ManifestError, PathFault},
    oap::{AnswerError, FrameError},
    outboard::OutboardError,
};
use thiserror::Error;

use crate::{archive::ArchiveError, fsck::FsckError, stopped::StoppedError};

/// Most characters of a node's message that are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A local file that cannot be read or written.
    Local = 1,
    /// Wrong arguments, or the node cannot be reached or trusted, or the connection was lost.
    Usage = 2,
    /// The node has no such object.
    NotFound = 3,
    /// The node will not do it, or not now.
    Refused = 4,
    /// Bytes do not hash to the address.
    Integrity = 5,
    /// Anything else the node said.
    Node = 6,
}

/// The exit codes as `--help` shows them.
pub const EXIT_HELP: &str = "\
Exit codes:
  0  done
  1  a local file that cannot be read or written
  2  wrong arguments, or the node cannot be reached or trusted, or the connection was lost
  3  not found
  4  refused: 401, 403, 413, 429, 503, 507
  5  integrity: bytes do not hash to the address, or the node says bad_digest or integrity
  6  any other error of the node";

/// Why a command failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A local file.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A local path that names no file of bytes.
    #[error("{}: is a directory", path.display())]
    Directory { path: PathBuf },
    /// The file ended before `len` bytes, its size when the command began.
    #[error("{}: shrank to {got} bytes of {len} while it was read", path.display())]
    Shrank { path: PathBuf, got: u64, len: u64 },
    /// The file was written while it was read.
    #[error("{}: changed while it was read", path.display())]
    Changed { path: PathBuf },
    /// Something in a tree that cannot be part of a bundle, or be stored as a file.
    #[error("{}: {why}", Name(path))]
    Tree { path: PathBuf, why: TreeFault },
    /// There is more than one such path, and each was printed already.
    #[error("{failed} paths cannot be taken")]
    TreeFaults { failed: usize },
    /// A directory that is to take a bundle and has something in it.
    #[error("{}: is not empty; --continue goes on with what is there", path.display())]
    NotEmpty { path: PathBuf },
    /// A partial file that another process has open.
    #[error("{}: another process writes to it", path.display())]
    InUse { path: PathBuf },
    /// It was not tried to the end, because something else failed.
    #[error("given up after another failure")]
    Stopped,
    /// A failure that has to do with one file of many.
    #[error("{}: {source}", Name(name.as_ref()))]
    About { name: String, source: Box<ClientError> },
    /// Bytes that are not text, and would go to a terminal.
    #[error(
        "the object is not text: name a file with -o FILE, or -o - for the terminal all the same"
    )]
    Terminal,
    /// Standard input or output; `name` is which.
    #[error("{name}: {source}")]
    Standard { name: &'static str, source: io::Error },
    /// TLS was asked for without anything to trust.
    #[error("this system trusts no certificates: TLS needs --ca FILE, the certificates to trust")]
    CaMissing,
    /// The file of `--ca` holds no certificate that can be used.
    #[error("{}: holds no usable certificate in PEM: {reason}", path.display())]
    Ca { path: PathBuf, reason: String },
    /// A host that cannot be in a certificate.
    #[error("{name:?} is not a server name")]
    ServerName { name: String },
    /// The request cannot be sent as it was asked for.
    #[error("request cannot be made: {reason}")]
    Request { reason: String },
    /// An object above the limit of every node.
    #[error("{0}")]
    Object(#[from] OutboardError),

    /// Arguments that do not go together, or have a value that cannot be.
    #[error("{reason}")]
    Arguments { reason: String },

    /// Nothing answered at the address.
    #[error("cannot reach {node}: {reason}")]
    Unreachable { node: String, reason: String },
    /// Something answered, and its certificate or its TLS is not acceptable.
    #[error("cannot trust {node}: {reason}")]
    Untrusted { node: String, reason: String },
    /// The connection broke after it was made; `got` bytes of the object had arrived.
    #[error("connection lost{}: {reason}", after(*got, *len))]
    Lost { got: u64, len: Option<u64>, reason: String },

    /// The node has no such object.
    #[error("{address}: not found")]
    NotFound { address: Address },

    /// The node's own error.
    #[error("{}", NodeLine { status: *status, reply })]
    Node {
        status: u16,
        reply: ErrorReply,
        /// How long the node asks to wait.
        retry_after: Option<Duration>,
        /// Whether part of the object had already been taken.
        begun: bool,
    },

    /// The bytes that arrived are not the object.
    #[error("integrity: the bytes hash to {found}, not to {expected}")]
    Digest { expected: Address, found: Address },
    /// The node says that it stored something else than was sent.
    #[error("integrity: {sent} was sent, and the node stored {stored}")]
    Stored { sent: Address, stored: Address },

    /// Not all of several objects could be deleted; `exit` is that of the gravest reason, and each
    /// was printed already.
    #[error("{failed} of {of} objects were not deleted")]
    NotDeleted { failed: usize, of: usize, exit: Exit },
    /// Not all of several files could be stored, and each failure was printed already.
    #[error("{failed} of {of} files were not stored")]
    NotStored { failed: usize, of: usize, exit: Exit },
    /// The object is no bundle, or its manifest breaks the rules.
    #[error("{address}: {source}")]
    Manifest { address: Address, source: ManifestError },
    /// A manifest gives an object another length than it has.
    #[error("the manifest says {said} bytes, the object has {found}")]
    EntryLen { said: u64, found: u64 },
    /// Not all objects are whole.
    #[error("of {of} objects, {damaged} damaged, {missing} missing, {failed} not verified")]
    NotWhole { damaged: usize, missing: usize, failed: usize, of: usize },

    /// Partitions that can be neither read nor written.
    #[error("partitions that are absent: {partitions:?}; what they hold is not listed")]
    Unlisted { partitions: Vec<u16> },

    /// An archive that cannot be written, or gone on with, where it was asked for.
    #[error(
        "an archive is not for a terminal: name a file with --out FILE, or send it to a program"
    )]
    ArchiveTerminal,
    #[error("{} is there: go on with it by --continue, or remove it", path.display())]
    ArchiveThere { path: PathBuf },
    #[error("{} is no file: only a file can be gone on with", path.display())]
    ArchiveStream { path: PathBuf },
    #[error("{} was begun with the prefix b3:{prefix}", path.display())]
    ArchivePrefix { path: PathBuf, prefix: String },
    /// An archive that cannot be read to its end.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Not all objects are in an archive; each was printed already.
    #[error("left out: {damaged} damaged objects, {absent} absent partitions")]
    NotExported { damaged: u64, absent: usize },
    /// Not all objects of an archive are stored; each was printed already.
    #[error(
        "not stored: {damaged} damaged, {refused} refused{}",
        if *complete { "" } else { "; the archive does not hold what its end says" }
    )]
    NotImported { damaged: u64, refused: u64, complete: bool },
    /// An object of a stopped node.
    #[error("it cannot be read: {reason}")]
    Unreadable { reason: String },
    /// The directories of a stopped node.
    #[error(transparent)]
    StoppedNode(#[from] StoppedError),

    /// What a stopped node keeps is damaged, or cannot be checked.
    #[error(transparent)]
    Fsck(#[from] FsckError),

    /// An answer that breaks the rules.
    #[error("answer not understood: {0}")]
    Answer(#[from] AnswerFault),
}

/// Why something in a tree is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TreeFault {
    #[error("is a symbolic link; --follow-links follows those that stay inside the tree")]
    Link,
    #[error("is a symbolic link that leads out of the tree, or nowhere")]
    LinkOut,
    #[error("is a symbolic link to a directory that it lies in")]
    LinkLoop,
    #[error("is a {0}")]
    Special(&'static str),
    #[error("has a name that is not UTF-8")]
    NotUtf8,
    #[error("cannot be in a bundle: its path {0}")]
    Path(#[from] PathFault),
    #[error("cannot be in a bundle: {0}")]
    Entry(ManifestError),
    #[error("has more than {max} files and directories")]
    TooMany { max: usize },
    #[error("is no directory")]
    NotDirectory,
    #[error("is there already, and no regular file")]
    NotFile,
    #[error("is where something else is already, of the bundle or not")]
    Taken,
    #[error("has the name of the folder that unpack uses for itself")]
    Own,
}

/// How an answer breaks the rules of its protocol, or does not fit the question.
#[derive(Debug, Error)]
pub enum AnswerFault {
    #[error("HTTP status {status}")]
    Status { status: u16 },
    #[error("the range was ignored")]
    RangeIgnored,
    #[error("Content-Range is {value:?}")]
    ContentRange { value: String },
    #[error("no Content-Length")]
    NoLength,
    #[error("content is encoded as {value:?}")]
    Encoded { value: String },
    #[error("{got} bytes of at most {max}")]
    Excess { got: u64, max: u64 },
    #[error("{got} bytes of {len}, and no more to come")]
    Short { got: u64, len: u64 },
    #[error("HTTP: {0}")]
    Http(String),
    #[error("JSON of {len} bytes")]
    Json { len: usize },
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Payload(#[from] AnswerError),
    /// A frame that no answer has at its place.
    #[error("unexpected frame, flags {flags:#06x}, code {code}, stream {corr_id}")]
    Unexpected { flags: u16, code: u16, corr_id: u64 },
    #[error("the description is of other bytes than were asked for")]
    Meta,
    #[error("the list of names does not go on where it ended")]
    Names,
    #[error("the outcome is of another object than was asked for")]
    Verdict,
    #[error("a page of other objects than were asked for")]
    Page,
    #[error("the object has {size} bytes, and was listed with {expected}")]
    Size { size: u64, expected: u64 },
}

impl ClientError {
    /// A failure of the file at `path`.
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_path_buf(), source }
    }

    /// The same, with the name of the file that it is about, where it does not name it itself.
    pub(super) fn about(self, path: &Path) -> Self {
        match self {
            Self::File { .. }
            | Self::Directory { .. }
            | Self::Shrank { .. }
            | Self::Changed { .. }
            | Self::Tree { .. }
            | Self::Standard { .. }
            | Self::Stopped
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::About { .. } => self,
            other => Self::About { name: path.display().to_string(), source: Box::new(other) },
        }
    }

    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::File { .. }
            | Self::Directory { .. }
            | Self::Shrank { .. }
            | Self::Changed { .. }
            | Self::Tree { .. }
            | Self::TreeFaults { .. }
            | Self::NotEmpty { .. }
            | Self::InUse { .. }
            | Self::Stopped
            | Self::Terminal
            | Self::Standard { .. }
            | Self::CaMissing
            | Self::Ca { .. }
            | Self::Object(_)
            | Self::ArchiveTerminal
            | Self::ArchiveThere { .. }
            | Self::ArchiveStream { .. }
            | Self::ArchivePrefix { .. }
            | Self::StoppedNode(_) => Exit::Local,
            Self::Archive(ArchiveError::Truncated { .. }) => Exit::Integrity,
            Self::Archive(_) => Exit::Local,
            Self::Unlisted { .. } | Self::NotExported { damaged: 0, .. } => Exit::Refused,
            Self::NotExported { .. } => Exit::Integrity,
            Self::NotImported { damaged: 0, complete: true, .. } => Exit::Node,
            Self::NotImported { .. } => Exit::Integrity,
            Self::About { source, .. } => source.exit(),
            Self::ServerName { .. }
            | Self::Arguments { .. }
            | Self::Request { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Lost { .. } => Exit::Usage,
            Self::NotFound { .. } => Exit::NotFound,
            Self::Node { status, reply, .. } => node_exit(*status, reply.known_code()),
            Self::Digest { .. } | Self::Stored { .. } | Self::Unreadable { .. } => Exit::Integrity,
            Self::NotDeleted { exit, .. } | Self::NotStored { exit, .. } => *exit,
            Self::Manifest { .. } | Self::EntryLen { .. } => Exit::Node,
            // `fsck` asks no node, and has exit codes of its own: 1 for damage, 2 for unchecked.
            Self::Fsck(FsckError::Damaged { .. }) => Exit::Local,
            Self::Fsck(_) => Exit::Usage,
            // What is damaged says most, and what is not known says more than what is gone.
            Self::NotWhole { damaged: 1.., .. } => Exit::Integrity,
            Self::NotWhole { failed: 1.., .. } => Exit::Node,
            Self::NotWhole { .. } => Exit::NotFound,
            Self::Answer(_) => Exit::Node,
        }
    }
}

/// The code says more than the status, when there is one that this version knows.
fn node_exit(status: u16, code: Option<ErrorCode>) -> Exit {
    if matches!(code, Some(ErrorCode::BadDigest | ErrorCode::Integrity)) {
        return Exit::Integrity;
    }
    match status {
        404 => Exit::NotFound,
        401 | 403 | 413 | 429 | 503 | 507 => Exit::Refused,
        _ => Exit::Node,
    }
}

fn after(got: u64, len: Option<u64>) -> String {
    match (got, len) {
        (0, None) => String::new(),
        (got, None) => format!(" after {got} bytes"),
        (got, Some(len)) => format!(" after {got} of {len} bytes"),
    }
}

/// An error of a node in one line: code, message, correlation id.
struct NodeLine<'a> {
    status: u16,
    reply: &'a ErrorReply,
}

impl fmt::Display for NodeLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, reply } = self;
        if reply.code.is_empty() {
            write!(f, "status {status}")?;
        } else {
            write!(f, "{}", Shown(&reply.code))?;
        }
        if !reply.message.is_empty() {
            write!(f, ": {}", Shown(&reply.message))?;
        }
        if !reply.corr_id.is_empty() {
            write!(f, " (corr_id {})", Shown(&reply.corr_id))?;
        }
        Ok(())
    }
}

/// Text of a stranger, made harmless for a terminal and cut to `SHOWN_CHARS_MAX`.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars().take(SHOWN_CHARS_MAX) {
            let harmless = if is_unsafe(char) { char::REPLACEMENT_CHARACTER } else { char };
            fmt::Write::write_char(f, harmless)?;
        }
        Ok(())
    }
}

/// The path of a file, made harmless for a terminal and kept to one line.
pub(super) struct Name<'a>(pub(super) &'a Path);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string_lossy().chars() {
            let harmless = if is_unsafe(char) { char::REPLACEMENT_CHARACTER } else { char };
            fmt::Write::write_char(f, harmless)?;
        }
        Ok(())
    }
}

/// Control characters, and those that reorder a line.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: u16, code: &str) -> ClientError {
        let reply = ErrorReply {
            code: code.to_owned(),
            message: "why".to_owned(),
            retryable: false,
            corr_id: "c1".to_owned(),
        };
        ClientError::Node { status, reply, retry_after: None, begun: false }
    }

    fn not_whole(damaged: usize, missing: usize, failed: usize) -> ClientError {
        ClientError::NotWhole { damaged, missing, failed, of: 4 }
    }

    #[test]
    fn every_code_of_a_node_has_its_exit() {
        for code in ErrorCode::ALL {
            let want = match code.as_str() {
                "not_found" => 3,
                "unauthorized" | "forbidden" | "too_large" | "over_quota" | "overload"
                | "not_ready" | "draining" | "storage_full" => 4,
                "bad_digest" | "integrity" => 5,
                _ => 6,
            };
            assert_eq!(node(code.status(), code.as_str()).exit() as u8, want, "{code:?}");
        }
    }

    #[test]
    fn without_a_known_code_the_status_decides() {
        let cases =
            [(404, 3), (401, 4), (403, 4), (429, 4), (503, 4), (507, 4), (400, 6), (502, 6)];
        for (status, want) in cases {
            assert_eq!(node(status, "").exit() as u8, want);
            assert_eq!(node(status, "teapot").exit() as u8, want);
        }
    }

    #[test]
    fn local_remote_and_digest_failures_differ() {
        let (a, b) = (Address::of(b"a"), Address::of(b"b"));
        let text = String::new;
        let cases = [
            (ClientError::CaMissing, Exit::Local),
            (ClientError::Directory { path: "x".into() }, Exit::Local),
            (ClientError::Unreachable { node: text(), reason: text() }, Exit::Usage),
            (ClientError::Untrusted { node: text(), reason: text() }, Exit::Usage),
            (ClientError::Lost { got: 1, len: None, reason: text() }, Exit::Usage),
            (ClientError::Digest { expected: a, found: b }, Exit::Integrity),
            (ClientError::Stored { sent: a, stored: b }, Exit::Integrity),
            (AnswerFault::RangeIgnored.into(), Exit::Node),
            (not_whole(1, 1, 1), Exit::Integrity),
            (not_whole(0, 1, 1), Exit::Node),
            (not_whole(0, 1, 0), Exit::NotFound),
        ];
        for (error, want) in cases {
            assert_eq!(error.exit(), want, "{error}");
        }
    }

    #[test]
    fn a_node_error_is_one_line_with_its_code_message_and_id() {
        assert_eq!(node(404, "not_found").to_string(), "not_found: why (corr_id c1)");
        assert_eq!(node(404, "").to_string(), "status 404: why (corr_id c1)");
    }

    #[test]
    fn what_a_node_says_cannot_steer_the_terminal() {
        let message = format!("a\n\u{1b}[2J\u{202e}{}", "x".repeat(999));
        let reply = ErrorReply { code: "c".into(), message, ..ErrorReply::default() };
        let error = ClientError::Node { status: 500, reply, retry_after: None, begun: false };
        let line = error.to_string();
        assert!(line.starts_with("c: a\u{fffd}\u{fffd}[2J\u{fffd}xxx"), "{line}");
        assert_eq!(line.chars().count(), "c: ".len() + SHOWN_CHARS_MAX);
    }

    #[test]
    fn a_lost_connection_says_how_far_it_came() {
        let lost = |got, len| ClientError::Lost { got, len, reason: "reset".into() }.to_string();
        assert_eq!(lost(0, None), "connection lost: reset");
        assert_eq!(lost(3, None), "connection lost after 3 bytes: reset");
        assert_eq!(lost(0, Some(9)), "connection lost after 0 of 9 bytes: reset");
    }
}
