//! What a path of a bundle leads to, asked of the owner of its manifest group by group.
//!
//! ```text
//!   begin ──► Opening ──first group──► Searching ──► an entry, or none
//!                │                      │     ▲
//!                │                      └─────┘ another group
//!                └─ missing, failed, not a bundle
//! ```
//!
//! The groups are those of an object like any other: verified, cached, and held only while they are
//! looked at. Where the path leads is for the session to use.

use std::sync::Arc;

use ron_codec::{
    address::Address,
    manifest::{
        Entry, MANIFEST_MAGIC, ManifestError, Payment,
        search::{Next, Search},
    },
};

use crate::{
    flow::{Ask, Cx, Fault, Reply, StreamId, Verified},
    resolved::Target,
};

/// A search in progress.
#[derive(Debug)]
pub(super) struct Lookup {
    stream: StreamId,
    bundle: Address,
    path: Box<str>,
    /// Bytes of the manifest; `None` until it is opened.
    size: Option<u64>,
    search: Option<Search>,
    /// The group that was asked for.
    asked: Option<u64>,
}

/// Where a search stands after a step.
#[derive(Debug)]
pub(super) enum Step {
    Wait,
    Found(Arc<Target>),
    /// The bundle has no such path.
    NoEntry,
    /// The object is no bundle.
    NotABundle,
    /// The object is not there.
    Missing,
    Failed(Fault),
}

impl Lookup {
    /// Opens the bundle, to look for a path in it.
    pub(super) fn begin(stream: StreamId, bundle: Address, path: &str, cx: &mut Cx<'_>) -> Lookup {
        cx.asks.push_back((stream, Ask::Open { address: bundle, first: Some(0) }));
        let path = path.into();
        Lookup { stream, bundle, path, size: None, search: None, asked: Some(0) }
    }

    /// Looks for another path in the same bundle, which was open.
    pub(super) fn again(&mut self, path: &str, cx: &mut Cx<'_>) {
        self.path = path.into();
        self.search = self.size.map(|size| Search::new(path, size));
        self.ask(0, cx);
    }

    pub(super) fn bundle(&self) -> Address {
        self.bundle
    }

    /// The terms of the bundle, once it was looked into.
    pub(super) fn payment(&self) -> Option<&Payment> {
        self.search.as_ref()?.payment()
    }

    /// What is looked for.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The store answered.
    pub(super) fn on_reply(&mut self, reply: Reply, cx: &mut Cx<'_>) -> Step {
        if matches!(reply, Reply::MemoryPressure) {
            return Step::Wait;
        }
        self.asked = None;
        match reply {
            Reply::Opened { size, first: Some(first) } => {
                if !first.body(0, first.len()).bytes().starts_with(MANIFEST_MAGIC) {
                    return Step::NotABundle;
                }
                self.size = Some(size);
                self.search = Some(Search::new(&self.path, size));
                self.on_group(&first, cx)
            }
            // It is empty.
            Reply::Opened { first: None, .. } => Step::NotABundle,
            Reply::Group(group) => self.on_group(&group, cx),
            Reply::Missing => Step::Missing,
            Reply::Failed(fault) => Step::Failed(fault),
            Reply::Late { .. } => Step::Failed(Fault::Busy),
            Reply::MemoryPressure | Reply::Stored { .. } | Reply::Deleted => Step::Wait,
        }
    }

    fn on_group(&mut self, group: &Verified, cx: &mut Cx<'_>) -> Step {
        let Some(search) = &mut self.search else { return Step::NotABundle };
        match search.on_group(group.index(), group.block().bytes()) {
            Ok(Next::Read(index)) => {
                self.ask(index, cx);
                Step::Wait
            }
            Ok(Next::Found(Entry { content, .. })) => {
                let payment = search.payment().cloned();
                Step::Found(Arc::new(Target { content, payment }))
            }
            Ok(Next::Missing) => Step::NoEntry,
            Err(ManifestError::NotABundle | ManifestError::Head { .. }) => Step::NotABundle,
            Err(_) => Step::NoEntry,
        }
    }

    fn ask(&mut self, index: u64, cx: &mut Cx<'_>) {
        self.asked = Some(index);
        let ask = Ask::Group { address: self.bundle, index, begins: true, ahead: false };
        cx.asks.push_back((self.stream, ask));
    }

    /// Nothing more is wanted of the store.
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>) {
        if let Some(index) = self.asked.take() {
            cx.asks.push_back((self.stream, Ask::Cancel { address: self.bundle, index }));
        }
    }

    /// Bytes of memory that are kept besides the value itself.
    pub(super) fn heap(&self) -> usize {
        self.path.len() + self.search.as_ref().map_or(0, Search::heap)
    }
}
