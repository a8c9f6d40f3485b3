//! What the parts of the control plane share, and how an event reaches all of them.
//!
//! The kernel keeps state and passes events on. It takes no report and serves no request: `pump`
//! and `routes` do, on top of it.

use std::{
    sync::{Arc, mpsc},
    time::Instant,
};

use ron_io::stats::Stats;

use crate::{
    bus::{Bus, KernelEvent},
    debug::profile::Profiles,
    health::HealthState,
    listing::Lists,
    load::Clients,
    names::NameStore,
    notes::Notes,
    orders::{OrderPort, Orders},
    stalls::Stalls,
    storage::StorageState,
    verifies::Verifies,
};

/// Why the node should end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Somebody asked for it.
    Asked,
    /// A service ended that should not have.
    Crashed { service: String, reason: String },
    /// The event loop of a shard hangs, and will not end by itself.
    Hung { shard: usize },
    /// The control thread itself is gone.
    ControlLost,
}

/// What the thread that started the node waits for.
pub(crate) enum Milestone {
    /// One more service serves.
    Serving,
    Ending(Ending),
}

/// What the parts of the control plane share.
pub(crate) struct Kernel {
    pub(crate) stats: Vec<Arc<Stats>>,
    pub(crate) health: HealthState,
    pub(crate) storage: Arc<StorageState>,
    pub(crate) verifies: Verifies,
    pub(crate) lists: Lists,
    pub(crate) orders: Orders,
    pub(crate) names: Arc<NameStore>,
    pub(crate) profiles: Arc<Profiles>,
    pub(crate) stalls: Arc<Stalls>,
    pub(crate) notes: Notes,
    pub(crate) bus: Bus,
    milestones: mpsc::Sender<Milestone>,
}

impl Kernel {
    /// The kernel over these shards, and where its milestones arrive.
    pub(crate) fn new(
        stats: Vec<Arc<Stats>>,
        storage: StorageState,
        clients: Clients,
        orders: Vec<OrderPort>,
        names: Arc<NameStore>,
    ) -> (Kernel, mpsc::Receiver<Milestone>) {
        let (milestones, received) = mpsc::channel();
        let storage = Arc::new(storage);
        let kernel = Kernel {
            health: HealthState::new(stats.clone(), Arc::clone(&storage), clients),
            stats,
            storage,
            verifies: Verifies::default(),
            lists: Lists::default(),
            orders: Orders::new(orders),
            names,
            profiles: Arc::default(),
            stalls: Arc::default(),
            notes: Notes::new(Instant::now()),
            bus: Bus::default(),
            milestones,
        };
        (kernel, received)
    }

    /// Lets everyone know: health first, the log, who waits for the end, then the bus.
    pub(crate) fn announce(&self, event: KernelEvent) {
        self.health.apply(&event);
        log(&event);
        self.health.measure(Instant::now());
        let milestone = match &event {
            KernelEvent::Shutdown => Some(Milestone::Ending(Ending::Asked)),
            KernelEvent::ServiceCrashed { service, reason } => {
                let (service, reason) = (service.clone(), reason.clone());
                Some(Milestone::Ending(Ending::Crashed { service, reason }))
            }
            KernelEvent::Health { ok: true, .. } => Some(Milestone::Serving),
            KernelEvent::Health { ok: false, .. } | KernelEvent::ConfigUpdated { .. } => None,
        };
        if let Some(milestone) = milestone {
            // The only error is that the handle is gone, and with it the only waiter.
            let _ = self.milestones.send(milestone);
        }
        self.bus.publish(event);
    }

    /// Notifies the waiter of the end.
    pub(crate) fn end(&self, ending: Ending) {
        // The only error is that the handle is gone, and with it the only waiter.
        let _ = self.milestones.send(Milestone::Ending(ending));
    }
}

/// Writes an event to the log.
fn log(event: &KernelEvent) {
    match event {
        KernelEvent::Health { service, ok: true } => tracing::info!(%service, "serving"),
        KernelEvent::Health { service, ok: false } => tracing::info!(%service, "stopped"),
        KernelEvent::ConfigUpdated { version } => tracing::info!(version, "configuration accepted"),
        KernelEvent::ServiceCrashed { service, reason } => {
            tracing::error!(%service, %reason, "crashed");
        }
        KernelEvent::Shutdown => tracing::info!("shutting down"),
    }
}
