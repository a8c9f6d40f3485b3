//! Settings that change while the node runs: certificates, write tokens and the log level.
//!
//! ```text
//!   SIGHUP ► read and check all ─► tokens to every shard ─► admin's tokens, certificate, log level
//!                  │ wrong                  │ a shard takes no orders
//!                  └────────► rejected: the settings in force stay, and the log says why
//! ```
//!
//! A new version is applied as a whole or not at all. Nothing that goes on is cut. What reads may
//! wait for a disk that does not answer: it has a thread of its own, for which neither the end of
//! the node waits nor, after some time, the next reload.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ron_io::ports::{Order, WriteTokens};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};

use crate::{
    admin::Admin,
    bus::KernelEvent,
    limits::{RELOAD_AGAIN, RELOAD_ORDER_MAX, RELOAD_READERS_MAX},
    logging,
};

mod state;

pub use state::ReloadState;

/// Reads the settings again and checks them as a whole, on a thread that may block.
pub type Reload = Arc<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// Settings that were read again and are right.
pub struct Reloaded {
    pub write_tokens: WriteTokens,
    /// One of [`logging::LEVELS`].
    pub log: String,
    /// When the certificate ends, in seconds since 1970.
    pub tls_not_after: Option<u64>,
    /// Puts the rest in force, which cannot fail: the certificate.
    pub commit: Box<dyn FnOnce() + Send>,
    /// What the operator should know, such as settings that wait for a restart.
    pub warnings: Vec<String>,
}

/// A thread that reads, counted as long as it does.
struct Reading(Arc<AtomicUsize>);

impl Reading {
    fn new(readers: &Arc<AtomicUsize>) -> Reading {
        readers.fetch_add(1, Ordering::Relaxed);
        Reading(Arc::clone(readers))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reloads whenever it is asked to, one time after another.
pub(crate) struct Reloader {
    pub(crate) reload: Reload,
    pub(crate) asked: Arc<Notify>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) state: Arc<ReloadState>,
    /// The tokens in force.
    pub(crate) write_tokens: WriteTokens,
    /// How long reading may take.
    pub(crate) read_max: Duration,
    /// Threads that read.
    pub(crate) readers: Arc<AtomicUsize>,
}

impl Reloader {
    pub(crate) async fn run(mut self) {
        let mut version = 1;
        loop {
            self.asked.notified().await;
            let outcome = self.once().await;
            self.state.attempted(outcome.is_ok());
            match outcome {
                Ok(warnings) => {
                    version += 1;
                    self.admin.kernel.announce(KernelEvent::ConfigUpdated { version });
                    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                }
                Err(reason) => {
                    tracing::error!(%reason, "reload rejected, the settings in force stay");
                }
            }
        }
    }

    async fn once(&mut self) -> Result<Vec<String>, String> {
        let Reloaded { write_tokens, log, tls_not_after, commit, warnings } = self.read().await?;
        self.order(&write_tokens).await?;
        logging::set_level(&log).map_err(|error| error.to_string())?;
        {
            let authority = &self.admin.authority;
            let mut authority = authority.write().unwrap_or_else(PoisonError::into_inner);
            *authority = authority.with_tokens(&write_tokens.0);
        }
        self.write_tokens = write_tokens;
        if let Some(not_after) = tls_not_after {
            self.state.renewed(not_after);
        }
        commit();
        Ok(warnings)
    }

    async fn read(&self) -> Result<Reloaded, String> {
        let reload = Arc::clone(&self.reload);
        let (done, outcome) = oneshot::channel();
        if self.readers.load(Ordering::Relaxed) >= RELOAD_READERS_MAX {
            return Err(format!("{RELOAD_READERS_MAX} earlier reloads still wait for their files"));
        }
        let reading = Reading::new(&self.readers);
        // Nobody waits for it any more when it cannot be sent.
        let read = move || {
            let _reading = reading;
            drop(done.send(reload()));
        };
        let reader = thread::Builder::new().name("ron-reload".to_owned()).spawn(read);
        reader.map_err(|error| format!("no thread can be started to read them: {error}"))?;
        let outcome = timeout(self.read_max, outcome).await;
        let outcome =
            outcome.map_err(|_| format!("they cannot be read within {:?}", self.read_max))?;
        outcome.map_err(|_| "the thread that reads them panicked".to_owned())?
    }

    /// Has every shard take these tokens, or none.
    async fn order(&self, tokens: &WriteTokens) -> Result<(), String> {
        let orders = &self.admin.kernel.orders;
        let order = Order::WriteTokens(tokens.clone());
        let until = Instant::now() + RELOAD_ORDER_MAX;
        let all: Vec<usize> = (0..orders.len()).collect();
        let mut left = all.clone();
        loop {
            left = orders.offer_to(&left, &order);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                break;
            }
            sleep(RELOAD_AGAIN).await;
        }
        let taken: Vec<usize> = all.into_iter().filter(|shard| !left.contains(shard)).collect();
        // They took an order a moment ago, and take this one as well.
        let stuck = orders.offer_to(&taken, &Order::WriteTokens(self.write_tokens.clone()));
        let reason =
            format!("shards {left:?} did not take a control command for {RELOAD_ORDER_MAX:?}");
        Err(if stuck.is_empty() { reason } else { format!("{reason}, shards {stuck:?} now") })
    }
}
