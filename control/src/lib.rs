//! The control plane of a node: one ordinary thread beside the pinned shards.
//!
//! It answers the admin listener (health, readiness, metrics, storage, version, profiles), keeps
//! the names, listens
//! to what the shards report, watches that none hangs, catches the signals that end the node, and
//! passes orders on. Shards never wait for it, and no content passes through it.
//!
//! ```text
//!   shards ── reports ──► lane ──► control thread ──► health, log, bus
//!   shards ── counters ───────────────── read at each scrape
//!   main thread: wait() ◄── a signal, or a shard that crashed
//!                drain() ── orders ──► shards ◄── orders ── POST on the admin listener
//! ```

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, RwLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ron_codec::authority::Authority;
use ron_io::{
    lane::{Receiver, Waker},
    ports::{Order, Report, WriteTokens},
    stats::Stats,
};
use tokio::{
    io::unix::AsyncFd,
    runtime::{Builder, Runtime},
    sync::{Notify, oneshot},
};

mod admin;
mod build_info;
pub mod bus;
mod conn;
mod damage;
mod debug;
pub mod health;
mod kernel;
pub mod limits;
pub mod listing;
mod load;
mod log_queue;
pub mod logging;
pub mod metrics;
mod name_routes;
pub mod names;
mod notes;
mod orders;
mod process;
mod pump;
mod records;
mod refused;
mod reload;
mod respond;
mod routes;
mod sender;
pub mod signals;
mod stalls;
pub mod storage;
mod verifies;
mod waker;

pub use admin::{Ordered, Verdict, VerdictKind};
pub use build_info::BuildInfo;
pub use bus::{Bus, KernelEvent};
pub use debug::shards;
pub use health::HealthState;
pub use kernel::Ending;
pub use load::Clients;
pub use metrics::Metrics;
pub use name_routes::{Name, NameBody, NameChange, NameList, NameLog};
pub use names::{NameLimits, NameStore};
pub use orders::OrderPort;
pub use records::RecordsError;
pub use reload::{Reload, ReloadState, Reloaded};
pub use signals::wait_for_ctrl_c;
pub use storage::SetAside;

use crate::{
    admin::Admin,
    conn::{Client, Limited, Patience},
    debug::stuck,
    kernel::{Kernel, Milestone},
    reload::Reloader,
    signals::{Asked, Signals},
    storage::StorageState,
    waker::WakerFd,
};

/// What the control plane is given. Shards are in the order of their numbers.
pub struct ControlConfig {
    /// The admin listener, bound and listening.
    pub listener: TcpListener,
    pub stats: Vec<Arc<Stats>>,
    /// Whether clients are distinguished by their addresses.
    pub clients: Clients,
    /// What the shards report, and the waker of that lane.
    pub reports: Receiver<Report>,
    pub waker: Arc<Waker>,
    pub orders: Vec<OrderPort>,
    /// Partitions of all shards together.
    pub partitions: u16,
    /// Who may give orders over the admin listener, and look at what it shows.
    pub authority: Authority,
    /// The write tokens of it: those in force until a reload replaces them.
    pub write_tokens: WriteTokens,
    /// Reads the settings again, at a SIGHUP.
    pub reload: Reload,
    /// How long that may take.
    pub reload_read_max: Duration,
    pub build: BuildInfo,
    /// When the serving certificate ends, in seconds since 1970.
    pub tls_not_after: Option<u64>,
    /// How long a turn of a shard's event loop may last before the node ends; zero for no limit.
    pub hang_limit: Duration,
    /// The free space that is set aside on the volumes.
    pub set_aside: SetAside,
    /// Whether the shards scrub. Where they do not, an order to is refused.
    pub scrubs: bool,
    /// The names, which the shards begin with as well.
    pub names: Arc<NameStore>,
    /// What the node may take of memory: what for, and how many bytes.
    pub memory_bill: Vec<(&'static str, u64)>,
    /// Whether SIGINT and SIGTERM end the node in good order from now on, SIGHUP has it read its
    /// settings again, and SIGUSR1 and SIGUSR2 do nothing.
    pub signals: bool,
}

/// Why the control plane did not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error("the admin listener cannot be used: {0}")]
    Listener(#[source] io::Error),
    #[error("the shards' reports cannot be waited for: {0}")]
    Waker(#[source] io::Error),
    #[error("signals cannot be caught: {0}")]
    Signals(#[source] io::Error),
    #[error("the control thread panicked")]
    Panicked,
}

/// Shards that did not get an order, because their mailboxes are full.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("shards {shards:?} did not take a control command: their mailboxes are full")]
pub struct NotTaken {
    pub shards: Vec<usize>,
}

/// What an admin connection may take.
const PATIENCE: Patience = Patience { idle: limits::IDLE_MAX, ask: limits::ASK_MAX };

/// The running control plane. When it is dropped, its thread ends by itself.
pub struct Control {
    addr: SocketAddr,
    kernel: Arc<Kernel>,
    milestones: mpsc::Receiver<Milestone>,
    reload: Arc<Notify>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Starts the control plane. Its thread has the CPU affinity of the caller.
///
/// # Errors
/// What the system refused; nothing is left running then.
pub fn start(config: ControlConfig) -> Result<Control, ControlError> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
    let entered = runtime.enter();
    let sources = Sources::register(config.listener, config.waker, &config.stats, config.signals)?;
    drop(entered);
    let addr = sources.listener.local_addr().map_err(ControlError::Listener)?;
    let storage =
        StorageState::new(config.stats.clone(), config.partitions, config.set_aside.clone());
    let (kernel, milestones) =
        Kernel::new(config.stats.clone(), storage, config.clients, config.orders, config.names);
    let kernel = Arc::new(kernel);
    let reloads = Arc::new(ReloadState::new(config.tls_not_after));
    let admin = Arc::new(Admin {
        kernel: Arc::clone(&kernel),
        metrics: Metrics::new(config.stats, kernel.bus.clone(), config.build, Arc::clone(&reloads))
            .with_bill(config.memory_bill)
            .with_set_aside(config.set_aside)
            .with_names(Arc::clone(&kernel.names)),
        build: config.build,
        scrubs: config.scrubs,
        authority: RwLock::new(config.authority),
    });
    let asked = Arc::new(Notify::new());
    let reloader = Reloader {
        reload: config.reload,
        asked: Arc::clone(&asked),
        admin: Arc::clone(&admin),
        state: reloads,
        write_tokens: config.write_tokens,
        read_max: config.reload_read_max,
        readers: Arc::default(),
    };
    let (stop, stopped) = oneshot::channel();
    let plane = Plane {
        sources,
        reports: Arc::new(config.reports),
        hang_limit: config.hang_limit,
        reloader,
        admin,
        stopped,
    };
    let thread = thread::Builder::new()
        .name("ron-control".to_owned())
        .spawn(move || {
            plane.run(&runtime);
            // A disk that does not answer does not keep the process.
            runtime.shutdown_timeout(limits::SHUTDOWN_MAX);
        })
        .map_err(ControlError::Thread)?;
    Ok(Control { addr, kernel, milestones, reload: asked, stop, thread })
}

impl Control {
    /// Where the admin listener listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What happens in the node, to subscribe to or to publish on.
    pub fn bus(&self) -> &Bus {
        &self.kernel.bus
    }

    pub fn health(&self) -> &HealthState {
        &self.kernel.health
    }

    /// Announces an event as if a service had: health, log and `wait` take note of it.
    pub fn announce(&self, event: KernelEvent) {
        self.kernel.announce(event);
    }

    /// Has the settings read again, as SIGHUP does.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Sleeps until `services` services have come to serve.
    ///
    /// # Errors
    /// Why the node should end, when that comes first.
    pub fn wait_serving(&self, services: usize) -> Result<(), Ending> {
        for _ in 0..services {
            match self.milestones.recv() {
                Ok(Milestone::Serving) => {}
                Ok(Milestone::Ending(ending)) => return Err(ending),
                Err(_) => return Err(Ending::ControlLost),
            }
        }
        Ok(())
    }

    /// Sleeps until the node should end. Each later call waits for the next reason.
    pub fn wait(&self) -> Ending {
        loop {
            match self.milestones.recv() {
                Ok(Milestone::Serving) => {}
                Ok(Milestone::Ending(ending)) => return ending,
                Err(_) => return Ending::ControlLost,
            }
        }
    }

    /// As `wait`, but gives up when nothing at all has happened for `at_most`.
    pub fn wait_for(&self, at_most: Duration) -> Option<Ending> {
        loop {
            match self.milestones.recv_timeout(at_most) {
                Ok(Milestone::Serving) => {}
                Ok(Milestone::Ending(ending)) => return Some(ending),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => return Some(Ending::ControlLost),
            }
        }
    }

    /// Makes the node unready and orders every shard to finish what it has within `within`.
    ///
    /// # Errors
    /// The shards that did not get the order, because their mailboxes are full; the others have it.
    pub fn drain(&self, within: Duration) -> Result<(), NotTaken> {
        self.kernel.health.leave();
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let shards = self.kernel.orders.offer(&Order::Drain { within_ms });
        if shards.is_empty() { Ok(()) } else { Err(NotTaken { shards }) }
    }

    /// A shard whose event loop is stalled now.
    pub fn stalled(&self) -> Option<usize> {
        self.kernel.health.stalled().first().copied()
    }

    /// Ends the thread: reports that are there are still received, answers in progress are finished
    /// within [`limits::SHUTDOWN_MAX`].
    ///
    /// # Errors
    /// The thread had panicked.
    pub fn shutdown(self) -> Result<(), ControlError> {
        // The only error is that the thread has ended already.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| ControlError::Panicked)
    }
}

/// What the thread sleeps on.
struct Sources {
    listener: tokio::net::TcpListener,
    /// The waker of the reports' lane.
    waker: AsyncFd<WakerFd>,
    /// Used by shards that wake.
    woken: AsyncFd<WakerFd>,
    signals: Option<Signals>,
}

impl Sources {
    /// Registers them with the reactor. Must be called inside a tokio runtime.
    fn register(
        listener: TcpListener,
        waker: Arc<Waker>,
        stats: &[Arc<Stats>],
        signals: bool,
    ) -> Result<Sources, ControlError> {
        listener.set_nonblocking(true).map_err(ControlError::Listener)?;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(ControlError::Listener)?;
        let waker = waker::watch(waker).map_err(ControlError::Waker)?;
        let woken = stuck::watch(stats).map_err(ControlError::Waker)?;
        let signals = match signals {
            true => Some(Signals::install().map_err(ControlError::Signals)?),
            false => None,
        };
        Ok(Sources { listener, waker, woken, signals })
    }
}

/// All that moves to the thread.
struct Plane {
    sources: Sources,
    reports: Arc<Receiver<Report>>,
    hang_limit: Duration,
    reloader: Reloader,
    admin: Arc<Admin>,
    stopped: oneshot::Receiver<()>,
}

impl Plane {
    fn run(self, runtime: &Runtime) {
        let _guard = LostGuard(Arc::clone(&self.admin.kernel));
        runtime.block_on(self.serve());
    }

    async fn serve(self) {
        let Sources { listener, waker, woken, signals } = self.sources;
        let kernel = Arc::clone(&self.admin.kernel);
        kernel.announce(KernelEvent::ConfigUpdated { version: 1 });
        let pump = pump::run(Arc::clone(&self.reports), waker, Arc::clone(&kernel));
        let pump = tokio::spawn(pump);
        let watch = stuck::run(woken, self.hang_limit, Arc::clone(&kernel));
        let watch = tokio::spawn(watch);
        if let Some(signals) = signals {
            let reload = Arc::clone(&self.reloader.asked);
            tokio::spawn(announce_signals(signals, reload, Arc::clone(&kernel)));
        }
        tokio::spawn(self.reloader.run());
        let publisher = Arc::clone(&kernel);
        tokio::spawn(async move { publisher.names.publish(&publisher.orders).await });
        let (finish, finished) = oneshot::channel::<()>();
        let listener = Limited::new(listener, limits::CONNECTIONS_MAX, PATIENCE);
        let routes = routes::routes(self.admin).into_make_service_with_connect_info::<Client>();
        let server = axum::serve(listener, routes);
        let server = server.with_graceful_shutdown(async move {
            let _ = finished.await;
        });
        let server = tokio::spawn(server.into_future());
        // An error means that the handle was dropped: the same wish.
        let _ = self.stopped.await;
        drop(finish);
        // The shards have ended: what was asked of them has no answer.
        kernel.verifies.give_up();
        kernel.lists.give_up();
        kernel.profiles.end();
        watch.abort();
        if tokio::time::timeout(limits::SHUTDOWN_MAX, server).await.is_err() {
            tracing::warn!("admin connections were cut");
        }
        pump.abort();
        let _ = pump.await;
        pump::drain(&self.reports, &kernel, usize::MAX);
    }
}

/// Notifies the waiting thread when the control thread unwinds.
struct LostGuard(Arc<Kernel>);

impl Drop for LostGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Ending::ControlLost);
        }
    }
}

/// Every signal that asks for the end does, so that a second one can hasten it.
async fn announce_signals(mut signals: Signals, reload: Arc<Notify>, kernel: Arc<Kernel>) {
    loop {
        let asked = signals.next().await;
        let signal = asked.name();
        match asked {
            Asked::Interrupt | Asked::Terminate => {
                tracing::info!(signal, "draining");
                kernel.announce(KernelEvent::Shutdown);
            }
            Asked::HangUp => {
                tracing::info!(signal, "reloading");
                reload.notify_one();
            }
            Asked::User1 | Asked::User2 => tracing::info!(signal, "ignored"),
        }
    }
}

#[cfg(test)]
mod tests;
