//! Names: the table that the shards have, and how it changes.
//!
//! ```text
//!   PUT, DELETE ─► one change at a time ─► records: durable ─► next table ─► order to every shard
//!                                                                             │
//!        answer ◄── all shards have it, or do not say so in time ◄── reports ─┘
//! ```
//!
//! A change that began is made to its end, whether its client waits or not. A shard whose mailbox
//! is full is offered the newest table again until it takes it.

use std::{
    fmt,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use ron_codec::limits::NAME_PATH_LEN_MAX;
use ron_io::{
    names::{NAME_LEN, NameTable, TABLE_LEN},
    ports::Order,
    stats::{Phase, Stats},
};
use tokio::{
    sync::{self, Notify, Semaphore},
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    limits::{NAME_CHANGES_WAITING_MAX, NAME_TEXT_MEAN, NAMES_AGAIN, NAMES_ORDER_MAX},
    orders::Orders,
    records::{Change, Fault, Records, RecordsError, Wanted},
};

/// How many names there may be, and how much they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameLimits {
    pub max: usize,
    /// Bytes of the file that they are kept in.
    pub store_len: u64,
}

impl NameLimits {
    /// Most bytes of all paths together.
    fn text_len(&self) -> usize {
        self.max.saturating_mul(NAME_TEXT_MEAN).max(NAME_PATH_LEN_MAX)
    }

    /// Most bytes of memory of the names.
    pub fn memory_len(&self) -> u64 {
        let names = self.max.saturating_mul(NAME_LEN).saturating_add(self.text_len());
        // While a shard has not taken the newest table, the older one shares most of it.
        names.saturating_add(names / 8 + 2 * TABLE_LEN) as u64
    }
}

/// All names of a node.
pub struct NameStore {
    /// Why there are none, where they cannot be kept.
    records: Result<Arc<Records>, String>,
    limits: NameLimits,
    table: Mutex<Arc<NameTable>>,
    /// Held by the change that is being made.
    changing: sync::Mutex<()>,
    /// A permit for each change that is being made or waits for its turn.
    waiting: Arc<Semaphore>,
    /// There is another table.
    changed: Notify,
    /// A shard has taken a table.
    taken: Notify,
}

impl fmt::Debug for NameStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameStore({:?}, {:?})", self.table(), self.limits)
    }
}

/// Why a change is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unchanged {
    /// Names cannot be kept.
    Unusable(String),
    /// Too many changes wait for their turn.
    Busy,
    /// There are `names.max` names.
    TooMany(usize),
    /// The paths of all names are as long as they may be.
    TooLong(usize),
    Fault(Fault),
}

/// A change that was made, and whether every shard has it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) change: Change,
    pub(crate) served: bool,
}

impl NameStore {
    /// Opens the names in a data directory, which this process has locked.
    ///
    /// # Errors
    /// They cannot be read, are damaged, of a newer release, or more than there may be.
    pub fn open(data: &Path, limits: NameLimits) -> Result<NameStore, RecordsError> {
        let records = Records::open(data, limits.store_len)?;
        let (version, names) = records.load()?;
        let table = NameTable::new(version, names);
        let (len, text_len) = (table.len(), table.text_len());
        if len > limits.max || text_len > limits.text_len() {
            return Err(RecordsError::TooMany { len, text_len, max: limits.max });
        }
        Ok(NameStore::of(Ok(Arc::new(records)), limits, table))
    }

    /// No names, and why not: none can be looked up or changed.
    pub fn unusable(why: String) -> NameStore {
        let limits = NameLimits { max: 0, store_len: 0 };
        NameStore::of(Err(why), limits, NameTable::unknown())
    }

    fn of(
        records: Result<Arc<Records>, String>,
        limits: NameLimits,
        table: NameTable,
    ) -> NameStore {
        NameStore {
            records,
            limits,
            table: Mutex::new(Arc::new(table)),
            changing: sync::Mutex::default(),
            waiting: Arc::new(Semaphore::new(NAME_CHANGES_WAITING_MAX)),
            changed: Notify::default(),
            taken: Notify::default(),
        }
    }

    /// The names of this moment.
    pub fn table(&self) -> Arc<NameTable> {
        Arc::clone(&self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks into the records, on a thread that may block.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Records) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Unchanged> {
        let records = self.records()?;
        let looked = spawn_blocking(move || look(&records)).await;
        looked.map_err(panicked)?.map_err(Unchanged::Fault)
    }

    /// Makes a change, and waits until every shard has it, for some time. `stats` are the shards'.
    pub(crate) async fn change(
        self: &Arc<Self>,
        wanted: Wanted,
        stats: Vec<Arc<Stats>>,
    ) -> Result<Made, Unchanged> {
        let waiting = Arc::clone(&self.waiting);
        let permit = waiting.try_acquire_owned().map_err(|_| Unchanged::Busy)?;
        let store = Arc::clone(self);
        // A task of its own ends well also when its client is gone.
        let made = tokio::spawn(async move {
            let _permit = permit;
            store.make(wanted, &stats).await
        });
        made.await.map_err(panicked)?
    }

    async fn make(&self, wanted: Wanted, stats: &[Arc<Stats>]) -> Result<Made, Unchanged> {
        let changing = self.changing.lock().await;
        let (records, table) = (self.records()?, self.table());
        self.check_limits(&table, &wanted)?;
        let changed = spawn_blocking(move || records.change(&wanted)).await;
        let change = changed.map_err(panicked)?.map_err(Unchanged::Fault)?;
        let digest = change.after.map(|address| *address.as_bytes());
        let next = table.with(change.version, change.path.as_str(), digest);
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.changed.notify_one();
        // The next change need not wait for the shards as well.
        drop(changing);
        let served = self.wait_taken(change.version, stats).await;
        Ok(Made { change, served })
    }

    fn records(&self) -> Result<Arc<Records>, Unchanged> {
        self.records.as_ref().map(Arc::clone).map_err(|why| Unchanged::Unusable(why.clone()))
    }

    fn check_limits(&self, table: &NameTable, wanted: &Wanted) -> Result<(), Unchanged> {
        let path = wanted.path.as_str();
        if wanted.address.is_none() || table.get(path).is_some() {
            return Ok(());
        }
        if table.len() >= self.limits.max {
            return Err(Unchanged::TooMany(self.limits.max));
        }
        // The table keeps no first slash.
        if table.text_len() + path.len() - 1 > self.limits.text_len() {
            return Err(Unchanged::TooLong(self.limits.text_len()));
        }
        Ok(())
    }

    /// A shard said that it has other names.
    pub(crate) fn note_taken(&self) {
        self.taken.notify_waiters();
    }

    /// Waits until every shard that runs has this version. `false` when one does not say so in
    /// time; it gets it later.
    async fn wait_taken(&self, version: u64, stats: &[Arc<Stats>]) -> bool {
        let until = Instant::now() + NAMES_ORDER_MAX;
        let has = |stats: &Arc<Stats>| {
            stats.names_version.get() >= version
                || matches!(stats.phase(), Phase::Stopped | Phase::Failed)
        };
        loop {
            let mut taken = pin!(self.taken.notified());
            // What is reported from here on counts, also before it is waited for.
            taken.as_mut().enable();
            if stats.iter().all(has) {
                return true;
            }
            if timeout_at(until, taken).await.is_err() {
                return stats.iter().all(has);
            }
        }
    }

    /// Gives every new table to all shards, until it is dropped.
    pub(crate) async fn publish(&self, orders: &Orders) {
        loop {
            self.changed.notified().await;
            let mut left: Vec<usize> = (0..orders.len()).collect();
            loop {
                left = orders.offer_to(&left, &Order::Names(self.table()));
                if left.is_empty() {
                    break;
                }
                // Nobody says when there is space in a mailbox.
                sleep(NAMES_AGAIN).await;
            }
        }
    }
}

fn panicked(_: tokio::task::JoinError) -> Unchanged {
    Unchanged::Fault(Fault::Failed("the thread that does it panicked".to_owned()))
}
