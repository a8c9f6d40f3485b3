//! An answer while it arrives, in either protocol.

use super::{
    fault::Odd,
    http::HttpAnswer,
    oap::OapAnswer,
    reply::{Body, Reply},
};

/// What is understood of an answer so far.
#[derive(Debug)]
pub(super) enum Answer {
    Http(HttpAnswer),
    Oap(OapAnswer),
}

impl Answer {
    /// Whether any byte of it has arrived.
    pub(super) fn has_begun(&self) -> bool {
        match self {
            Self::Http(answer) => answer.has_begun(),
            Self::Oap(answer) => answer.has_begun(),
        }
    }

    /// Takes bytes off the front of `input`; all of them, unless the answer is complete.
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        body: &mut Body<'_>,
    ) -> Result<Option<Reply>, Odd> {
        match self {
            Self::Http(answer) => answer.feed(input, body),
            Self::Oap(answer) => answer.feed(input, body),
        }
    }
}
