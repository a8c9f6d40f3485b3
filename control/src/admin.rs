//! What the routes of the admin listener answer from, and the orders that they take.
//!
//! Orders are taken from those who may write to the node (`sender`), and refused once the node is
//! shutting down. Of HTTP this module knows nothing but the connection that waits.

use std::sync::{Arc, RwLock};

use ron_codec::{address::Address, authority::Authority};
use ron_io::ports::{Order, VerifyOutcome};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    build_info::BuildInfo,
    conn::Client,
    kernel::Kernel,
    limits::{LIST_MAX, VERIFY_MAX},
    listing::{ListAsk, ObjectsPage},
    metrics::Metrics,
    refused::Refused,
};

/// What the routes answer from.
pub(crate) struct Admin {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) metrics: Metrics,
    pub(crate) build: BuildInfo,
    /// Whether the shards scrub.
    pub(crate) scrubs: bool,
    pub(crate) authority: RwLock<Authority>,
}

/// What `POST /scrub` answers: how many shards got the order to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    pub ordered: usize,
}

/// What `POST /verify/<addr>` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub addr: Address,
    pub outcome: VerdictKind,
    /// Bytes of an object that is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What is wrong with it, or why that could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}

/// What an object was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    Whole,
    Missing,
    Damaged,
    Failed,
}

impl Verdict {
    fn new(addr: Address, outcome: VerifyOutcome) -> Verdict {
        let (outcome, size, what) = match outcome {
            VerifyOutcome::Whole { size } => (VerdictKind::Whole, Some(size), None),
            VerifyOutcome::Missing => (VerdictKind::Missing, None, None),
            VerifyOutcome::Damaged { what } => (VerdictKind::Damaged, None, Some(what)),
            VerifyOutcome::Failed { what } => (VerdictKind::Failed, None, Some(what)),
        };
        Verdict { addr, outcome, size, what }
    }
}

impl Admin {
    /// Whether orders are taken now; whether their sender may give them was checked before.
    pub(crate) fn takes_orders(&self) -> Result<(), Refused> {
        if self.kernel.health.leaving() { Err(Refused::Draining) } else { Ok(()) }
    }

    /// Gives an order to all shards and returns how many they are. When it is refused some may
    /// have taken it all the same: giving one of these orders again does no harm.
    fn give(&self, order: &Order) -> Result<usize, Refused> {
        let orders = &self.kernel.orders;
        if orders.offer(order).is_empty() { Ok(orders.len()) } else { Err(Refused::Mailbox) }
    }

    /// Has every shard begin to scrub; returns how many they are.
    pub(crate) fn scrub(&self) -> Result<usize, Refused> {
        if self.scrubs { self.give(&Order::Scrub) } else { Err(Refused::NoScrub) }
    }

    /// Has the owner of an object read it again, and waits for what comes of it.
    pub(crate) async fn verify(&self, addr: Address, client: &Client) -> Result<Verdict, Refused> {
        let mut verification = self.kernel.verifies.begin(addr).ok_or(Refused::TooMany)?;
        self.give(&Order::Verify { id: verification.id(), digest: *addr.as_bytes() })?;
        let _waiting = client.wait();
        match timeout(VERIFY_MAX, verification.outcome()).await {
            Ok(Some(outcome)) => Ok(Verdict::new(addr, outcome)),
            Ok(None) => Err(Refused::Draining),
            Err(_) => Err(Refused::Late),
        }
    }

    /// Has every shard list what it has of a page, and puts the page together.
    pub(crate) async fn list(
        &self,
        ask: &ListAsk,
        client: &Client,
    ) -> Result<ObjectsPage, Refused> {
        let Some(range) = ask.range() else { return Ok(ObjectsPage::default()) };
        let shards = self.kernel.orders.len();
        let mut listing = self.kernel.lists.begin(shards).ok_or(Refused::TooManyLists)?;
        self.give(&Order::List { id: listing.id(), range })?;
        let _waiting = client.wait();
        match timeout(LIST_MAX, listing.outcome()).await {
            Ok(Some(Some(pages))) => Ok(ObjectsPage::of(pages, ask.limit)),
            Ok(Some(None)) => Err(Refused::NotReady),
            Ok(None) => Err(Refused::Draining),
            Err(_) => Err(Refused::Late),
        }
    }
}
