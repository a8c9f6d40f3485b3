//! What a GET or HEAD shows: which object, in which form, and how long its answer is good for.

use std::sync::Arc;

use ron_codec::{address::Address, http::response::ResponseHead, manifest::Payment};

use super::accept::Coding;
use crate::resolved::Target;

/// A representation, as the head of its answer describes it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// The object whose bytes are sent. Its digest is their strong tag.
    pub(super) address: Address,
    pub(super) coding: Coding,
    /// What is known of it; `None` of an object that was asked for by nothing but its address.
    pub(super) target: Option<Arc<Target>>,
    pub(super) by: By,
}

/// How a client came to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By an address, its own or that of a bundle: what it gets never changes.
    Address,
    /// By a name that is given to this bundle or object now, and may be to another later.
    Name(Address),
    /// As the manifest of a bundle that is given on these terms.
    Manifest(Option<Arc<Payment>>),
}

const IMMUTABLE: &str = "Cache-Control: public, max-age=31536000, immutable\r\n";
const SHORT_LIVED: &str = "Cache-Control: public, max-age=60\r\n";

/// What is known of the type of an object that was asked for by nothing but its address.
const BARE_TYPE: &str = "application/octet-stream";
const MANIFEST_TYPE: &str = "application/toml";

/// What every answer with content says.
const CONTENT_LINES: &str = "Accept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n";

/// What an object that was asked for by its address alone says in one piece.
const BARE_LINES: &str = "Cache-Control: public, max-age=31536000, immutable\r\n\
    Accept-Ranges: bytes\r\n\
    X-Content-Type-Options: nosniff\r\n";

/// What strangers stored runs in an origin of its own that nobody else has: its scripts reach
/// neither this node's other pages nor what the browser keeps for them.
const SANDBOX: &str =
    "Content-Security-Policy: sandbox allow-scripts allow-forms allow-popups allow-downloads\r\n";

const VARY: &str = "Vary: Accept-Encoding\r\n";

impl Shown {
    /// An object and nothing more.
    pub(super) fn bare(address: Address) -> Shown {
        Shown { address, coding: None, target: None, by: By::Address }
    }

    /// The manifest of a bundle.
    pub(super) fn manifest(bundle: Address, payment: Option<Arc<Payment>>) -> Shown {
        Shown { by: By::Manifest(payment), ..Shown::bare(bundle) }
    }

    /// The type of the content.
    pub(super) fn media_type(&self) -> &str {
        match (&self.target, &self.by) {
            (Some(target), _) => &target.content.mime,
            (None, By::Address | By::Name(_)) => BARE_TYPE,
            (None, By::Manifest(_)) => MANIFEST_TYPE,
        }
    }

    /// Adds what an answer with the representation says of it.
    pub(super) fn describe<'o>(&self, head: ResponseHead<'o>) -> ResponseHead<'o> {
        self.describe_but_type(head.field("Content-Type", self.media_type()))
    }

    /// The same without the type.
    pub(super) fn describe_but_type<'o>(&self, head: ResponseHead<'o>) -> ResponseHead<'o> {
        let head = match (&self.target, &self.by) {
            (None, By::Address) => head.lines(BARE_LINES),
            (None, By::Name(_)) => self.validity(head.lines(CONTENT_LINES)),
            (None, By::Manifest(payment)) => {
                terms(self.validity(head.lines(CONTENT_LINES)), payment.as_deref())
            }
            (Some(target), _) => {
                let head = self.validity(head.lines(CONTENT_LINES).lines(SANDBOX));
                let head = terms(head, target.payment.as_ref());
                match self.coding {
                    Some(encoded) => head.field("Content-Encoding", encoded.name()),
                    None => head,
                }
            }
        };
        head.etag(&self.address)
    }

    /// Adds what a 304 says of it.
    pub(super) fn describe_unchanged<'o>(&self, head: ResponseHead<'o>) -> ResponseHead<'o> {
        self.validity(head).etag(&self.address)
    }

    /// How long the answer is good for, and for which requests.
    fn validity<'o>(&self, head: ResponseHead<'o>) -> ResponseHead<'o> {
        let head = match &self.by {
            By::Address => head.lines(IMMUTABLE),
            By::Manifest(_) => head.lines(SHORT_LIVED),
            By::Name(address) => head.lines(SHORT_LIVED).field("X-Ron-Address", address.to_text()),
        };
        match &self.target {
            Some(target) if target.content.has_copies() => head.lines(VARY),
            _ => head,
        }
    }
}

/// Adds the terms of a bundle.
pub(super) fn terms<'o>(head: ResponseHead<'o>, payment: Option<&Payment>) -> ResponseHead<'o> {
    let Some(payment) = payment else { return head };
    head.field("X-Payment-Currency", &payment.currency)
        .field("X-Payment-Price-Model", &payment.price_model)
        .field("X-Payment-Price", &payment.price)
        .field("X-Payment-Wallet", &payment.wallet)
}
