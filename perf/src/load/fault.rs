//! How a peer may fail to answer: what it may send that is no answer, and why a connection is of no
//! more use.

use std::io;

use thiserror::Error;

/// Why what a peer sent is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Odd {
    #[error("a head of more than {max} bytes")]
    HeadTooLong { max: usize },
    #[error("no head of HTTP/1.1: {reason}")]
    Head { reason: httparse::Error },
    #[error("a body without Content-Length")]
    NoLength,
    #[error("a Content-Length that is no length, or two")]
    Length,
    #[error("a body in chunks, which are not understood here")]
    Chunked,
    #[error("a status of {status} that nobody asked for")]
    Interim { status: u16 },
    #[error("bytes that nobody asked for")]
    Surplus,
    #[error("no frame of OAP/1: {reason}")]
    Frame { reason: ron_codec::oap::FrameError },
    #[error("a frame that does not belong there (flags {flags:#x}, stream {corr_id})")]
    Stream { flags: u16, corr_id: u64 },
    #[error("an answer in JSON of more than {max} bytes")]
    JsonTooLong { max: usize },
    #[error("an answer in JSON that is not understood")]
    Json,
}

impl Odd {
    /// What it is counted as.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::HeadTooLong { .. } => "head_too_long",
            Self::Head { .. } => "head",
            Self::NoLength => "no_length",
            Self::Length => "length",
            Self::Chunked => "chunked",
            Self::Interim { .. } => "interim",
            Self::Surplus => "surplus",
            Self::Frame { .. } => "frame",
            Self::Stream { .. } => "stream",
            Self::JsonTooLong { .. } => "json_too_long",
            Self::Json => "json",
        }
    }
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("connecting: {0}")]
    Connect(io::Error),
    #[error("connecting: {0}")]
    Handshake(rustls::Error),
    #[error("talking: {0}")]
    Io(#[from] io::Error),
    #[error("talking: {0}")]
    Tls(rustls::Error),
    #[error("the peer closed the connection before it answered")]
    Closed,
    #[error("the peer closed the connection within an answer")]
    Short,
    #[error("the answer has {0}")]
    Odd(#[from] Odd),
    #[error("the peer was silent for too long")]
    Timeout,
    /// The peer closed a connection on which nothing was asked, as it may.
    #[error("the peer closed an idle connection")]
    Idle,
}
