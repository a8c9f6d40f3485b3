//! One GET or HEAD of a path of a bundle, until it is known what it leads to.
//!
//! ```text
//!   looking for the path ──found──► a GET of what it leads to
//!        │      └─ not there ──► looking for its index ──found──► 301 to the directory
//!        │                                └─ not there ──► 404
//!        └─ the object is no bundle: a GET of all of it, or 404
//! ```
//!
//! What a path led to is remembered for a moment, and then the GET begins at once.

use std::sync::Arc;

use ron_codec::{
    address::Address,
    http::{request::RequestHead, target},
    limits::{MANIFEST_PATH_LEN_MAX, NAME_PATH_LEN_MAX, TARGET_LEN_MAX},
    manifest::{INDEX_NAME, Payment},
};

use super::{
    accept::Accepted,
    get::{Get, Spare},
    goal::Goal,
    refusal::Refusal,
    request::{Request, Wanted},
    shown::{By, Shown},
    terms::Terms,
};
use crate::{
    flow::{Cx, Fault, Reply, StreamId},
    resolved::Target,
    session::lookup::{Lookup, Step},
};

/// Longest path that is looked up: a name, and a path of a bundle behind it.
const NAMED_LEN_MAX: usize = NAME_PATH_LEN_MAX + 1 + MANIFEST_PATH_LEN_MAX;

/// A request whose path is looked for.
#[derive(Debug)]
pub(super) struct Find {
    pub(super) request: Request,
    stream: StreamId,
    lookup: Lookup,
    terms: Terms,
    by: By,
    then: Then,
}

#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// The path itself is looked for; if it is not there, its index. `target` is where that is.
    File { target: Box<str> },
    /// The index of the directory at `target` is looked for, to send the client there.
    Directory { target: Box<str> },
    /// The index of a bundle whose name was asked for without a slash, to send the client to
    /// `target`; or all of the object if it is none.
    Root { target: Box<str> },
    /// The index of a directory: there is nothing else.
    Index,
    /// The index of the bundle, or all of the object if it is none.
    Whole,
    /// Whether it is a bundle.
    Manifest,
    /// All of the object; if it is a bundle, on its terms.
    Object,
}

/// What comes of a request at once.
// Boxing a GET would put an allocation on the path of every request.
#[allow(clippy::large_enum_variant)]
pub(super) enum Begun {
    Looking(Box<Find>),
    Get(Get),
    Refuse(Refusal),
}

/// Where a request stands after a step.
#[allow(clippy::large_enum_variant)] // As above.
#[derive(Debug)]
pub(super) enum Turn {
    Wait,
    /// It is known what is wanted.
    Get(Get),
    /// The client is to ask there.
    Redirect(Box<str>),
    Refuse(Refusal),
}

/// Looks for `goal` in the bundle; what it leads to may be known already.
pub(super) fn begin(
    request: Request,
    stream: StreamId,
    (bundle, goal): (Address, Goal<'_>),
    head: &RequestHead<'_>,
    cx: &mut Cx<'_>,
) -> Begun {
    let mut decoded = [0; MANIFEST_PATH_LEN_MAX + INDEX_NAME.len()];
    let Some((path, then)) = aim(goal, head.target, &mut decoded) else {
        return Begun::Refuse(Refusal::NoEntry);
    };
    look(request, stream, (bundle, path, then, By::Address), head, cx)
}

/// Looks for what a raw path is the name of, or for a path behind that name.
pub(super) fn begin_named(
    request: Request,
    stream: StreamId,
    raw: &str,
    head: &RequestHead<'_>,
    cx: &mut Cx<'_>,
) -> Begun {
    if !cx.names.is_known() {
        return Begun::Refuse(Fault::Absent.into());
    }
    let mut decoded = [0; NAMED_LEN_MAX];
    let Some(path) = target::decode_path(raw, &mut decoded) else {
        return Begun::Refuse(Refusal::NoName);
    };
    let Some(found) = cx.names.resolve(path) else { return Begun::Refuse(Refusal::NoName) };
    let (address, rest) = (found.address, found.rest);
    let is_directory = path.is_empty() || path.ends_with('/');
    let (path, then) = match (rest.is_empty(), is_directory) {
        (true, true) => (INDEX_NAME.to_owned(), Then::Whole),
        (true, false) => (INDEX_NAME.to_owned(), Then::Root { target: with_slash(head.target) }),
        (false, true) => (format!("{rest}{INDEX_NAME}"), Then::Index),
        (false, false) => (rest.to_owned(), Then::File { target: with_slash(head.target) }),
    };
    look(request, stream, (address, &path, then, By::Name(address)), head, cx)
}

fn look(
    request: Request,
    stream: StreamId,
    (bundle, path, then, by): (Address, &str, Then, By),
    head: &RequestHead<'_>,
    cx: &mut Cx<'_>,
) -> Begun {
    let leads_there = !matches!(then, Then::Root { .. });
    if let Some(target) = cx.resolved.get(&bundle, path, cx.now.mono_ns).filter(|_| leads_there) {
        let target = Arc::clone(target);
        if let Some(refusal) = unpaid(target.payment.as_ref(), cx) {
            return Begun::Refuse(refusal);
        }
        let accepted = Accepted::new(head.accept_encoding);
        return Begun::Get(get(request, stream, (&target, &by), accepted, head, cx));
    }
    let lookup = Lookup::begin(stream, bundle, path, cx);
    Begun::Looking(Box::new(Find { request, stream, lookup, terms: Terms::new(head), by, then }))
}

/// A target as that of a directory.
fn with_slash(target: &str) -> Box<str> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    format!("{path}/{query}").into()
}

/// The path to look for first, and what its absence means. `None` if there can be none such.
fn aim<'o>(goal: Goal<'_>, whole: &str, decoded: &'o mut [u8]) -> Option<(&'o str, Then)> {
    let raw = match goal {
        Goal::Path(raw) => raw,
        Goal::Index | Goal::Manifest | Goal::Object => "",
    };
    let len = target::decode_path(raw, &mut decoded[..MANIFEST_PATH_LEN_MAX])?.len();
    let is_directory = len == 0 || decoded[len - 1] == b'/';
    let then = match goal {
        Goal::Manifest => return Some(("", Then::Manifest)),
        Goal::Object => return Some(("", Then::Object)),
        Goal::Index => Then::Whole,
        Goal::Path(_) if is_directory => Then::Index,
        Goal::Path(_) => Then::File { target: with_slash(whole) },
    };
    let end = if is_directory { len + INDEX_NAME.len() } else { len };
    decoded[len..end].copy_from_slice(&INDEX_NAME.as_bytes()[..end - len]);
    Some((std::str::from_utf8(&decoded[..end]).ok()?, then))
}

/// Why it is not given, if the terms of its bundle are kept here and ask for payment.
fn unpaid(payment: Option<&Payment>, cx: &Cx<'_>) -> Option<Refusal> {
    let payment = payment.filter(|payment| payment.required && cx.config.enforce_payments)?;
    Some(Refusal::Unpaid(Arc::new(payment.clone())))
}

/// Asks for the form of the content that the client likes best.
fn get(
    request: Request,
    stream: StreamId,
    (target, by): (&Arc<Target>, &By),
    accepted: Accepted,
    head: &RequestHead<'_>,
    cx: &mut Cx<'_>,
) -> Get {
    let shown = |coding, address| {
        let target = Some(Arc::clone(target));
        Shown { address, coding, target, by: by.clone() }
    };
    let identity = shown(None, target.content.identity.address);
    let wanted = Wanted::new(head, &identity.address);
    // A body of several parts is no longer encoded as its parts are.
    let several = head.range.is_some_and(|range| range.contains(&b','));
    match accepted.choose(&target.content) {
        Some((coding @ Some(_), form)) if !several || !accepted.takes_identity() => {
            let mut head = *head;
            head.accept_encoding = Default::default();
            head.range = head.range.filter(|_| !several);
            let spare = Some(Box::new(Spare { shown: identity, wanted }));
            let wanted = Wanted::new(&head, &form.address);
            Get::begin(request, stream, shown(coding, form.address), (wanted, spare), cx)
        }
        _ => Get::begin(request, stream, identity, (wanted, None), cx),
    }
}

impl Find {
    pub(super) fn on_reply(&mut self, reply: Reply, cx: &mut Cx<'_>) -> Turn {
        match self.lookup.on_reply(reply, cx) {
            Step::Wait => Turn::Wait,
            Step::Found(target) => self.found(&target, cx),
            Step::NoEntry => self.no_entry(cx),
            Step::NotABundle => match self.then {
                Then::Whole | Then::Root { .. } | Then::Object => {
                    let by = self.by.clone();
                    let shown = Shown { by, ..Shown::bare(self.lookup.bundle()) };
                    Turn::Get(self.whole(shown, cx))
                }
                _ => Turn::Refuse(Refusal::NoEntry),
            },
            Step::Missing => Turn::Refuse(Refusal::NoObject),
            // Another part of it may be whole.
            Step::Failed(Fault::Integrity)
                if matches!(self.then, Then::Whole | Then::Root { .. }) =>
            {
                let shown = Shown { by: self.by.clone(), ..Shown::bare(self.lookup.bundle()) };
                Turn::Get(self.whole(shown, cx))
            }
            Step::Failed(fault) => Turn::Refuse(fault.into()),
        }
    }

    fn found(&mut self, found: &Arc<Target>, cx: &mut Cx<'_>) -> Turn {
        if let Some(refusal) = unpaid(found.payment.as_ref(), cx) {
            return Turn::Refuse(refusal);
        }
        if let Then::Directory { target } | Then::Root { target } = &mut self.then {
            return Turn::Redirect(std::mem::take(target));
        }
        let (bundle, path) = (self.lookup.bundle(), self.lookup.path());
        cx.resolved.keep(bundle, path, Arc::clone(found), cx.now.mono_ns);
        let (request, stream, accepted) = (self.request, self.stream, self.terms.accepted);
        Turn::Get(get(request, stream, (found, &self.by), accepted, &self.terms.head(), cx))
    }

    fn no_entry(&mut self, cx: &mut Cx<'_>) -> Turn {
        match &mut self.then {
            Then::Manifest => match unpaid(self.lookup.payment(), cx) {
                Some(refusal) => Turn::Refuse(refusal),
                None => {
                    let payment = self.lookup.payment().cloned().map(Arc::new);
                    Turn::Get(self.whole(Shown::manifest(self.lookup.bundle(), payment), cx))
                }
            },
            Then::Object => match unpaid(self.lookup.payment(), cx) {
                Some(refusal) => Turn::Refuse(refusal),
                None => Turn::Get(self.whole(Shown::bare(self.lookup.bundle()), cx)),
            },
            Then::File { target } => {
                let target = std::mem::take(target);
                let index = format!("{}/{INDEX_NAME}", self.lookup.path());
                self.then = Then::Directory { target };
                self.lookup.again(&index, cx);
                Turn::Wait
            }
            Then::Directory { .. } | Then::Root { .. } | Then::Index | Then::Whole => {
                Turn::Refuse(Refusal::NoEntry)
            }
        }
    }

    /// A GET of the object that was looked into.
    fn whole(&self, shown: Shown, cx: &mut Cx<'_>) -> Get {
        let wanted = Wanted::new(&self.terms.head(), &shown.address);
        Get::begin(self.request, self.stream, shown, (wanted, None), cx)
    }

    /// What the name is given to that the path begins with.
    pub(super) fn named(&self) -> Option<Address> {
        match self.by {
            By::Name(address) => Some(address),
            By::Address | By::Manifest(_) => None,
        }
    }

    /// Ends what was not brought to its end.
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>) {
        self.lookup.cancel(cx);
    }

    /// Bytes of memory that are kept for it.
    pub(super) fn held(&self) -> usize {
        let target = match &self.then {
            Then::File { target } | Then::Directory { target } | Then::Root { target } => {
                target.len()
            }
            Then::Index | Then::Whole | Then::Manifest | Then::Object => 0,
        };
        size_of::<Find>() + self.lookup.heap() + self.terms.heap() + target
    }
}

// A redirect is a target and a slash.
const _: () = assert!(TARGET_LEN_MAX < ron_codec::limits::HEAD_LEN_MAX);
