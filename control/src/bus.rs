//! What happens in the node, sent to all subscribers.
//!
//! The bus is bounded: a publisher never waits, and a subscriber that falls more than
//! [`BUS_LEN_MAX`] events behind misses the oldest. How many were missed is counted. Nothing that
//! must not be lost depends on the bus alone.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::broadcast;

use crate::limits::BUS_LEN_MAX;

/// Something that happened in the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A service began to serve, or ended in good order.
    Health { service: String, ok: bool },
    /// A configuration was accepted as a whole.
    ConfigUpdated { version: u64 },
    /// A service ended that should not have.
    ServiceCrashed { service: String, reason: String },
    /// The node was asked to end.
    Shutdown,
}

/// The publishing end; clones are the same bus.
///
/// ```
/// use ron_control::{Bus, KernelEvent};
///
/// let bus = Bus::default();
/// let mut events = bus.subscribe();
/// bus.publish(KernelEvent::ConfigUpdated { version: 2 });
/// assert_eq!(events.try_next(), Some(KernelEvent::ConfigUpdated { version: 2 }));
/// assert_eq!(events.try_next(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    sender: broadcast::Sender<KernelEvent>,
    missed: Arc<AtomicU64>,
}

impl Default for Bus {
    fn default() -> Self {
        Bus { sender: broadcast::Sender::new(BUS_LEN_MAX), missed: Arc::default() }
    }
}

impl Bus {
    /// Notifies all subscribers. It is no error when there is none.
    pub fn publish(&self, event: KernelEvent) {
        // The only error is that nobody listens.
        let _ = self.sender.send(event);
    }

    /// A subscription to everything published from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription { receiver: self.sender.subscribe(), missed: Arc::clone(&self.missed) }
    }

    /// Events that slow subscribers missed so far.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<KernelEvent>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// The next event; `None` when the bus is gone.
    pub async fn next(&mut self) -> Option<KernelEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(count)) => self.count(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<KernelEvent> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(count)) => self.count(count),
                Err(_) => return None,
            }
        }
    }

    fn count(&self, missed: u64) {
        self.missed.fetch_add(missed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_hears_every_event_in_order() {
        let bus = Bus::default();
        bus.publish(KernelEvent::Shutdown);
        let mut subscriptions = [bus.subscribe(), bus.subscribe()];
        bus.publish(KernelEvent::ConfigUpdated { version: 1 });
        bus.publish(KernelEvent::ConfigUpdated { version: 2 });
        for subscription in &mut subscriptions {
            let versions = [subscription.try_next(), subscription.try_next()];
            let expected = [1, 2].map(|version| Some(KernelEvent::ConfigUpdated { version }));
            assert_eq!(versions, expected, "what was published before is not received");
            assert_eq!(subscription.try_next(), None);
        }
        assert_eq!(bus.missed(), 0);
    }

    #[test]
    fn what_a_slow_subscriber_misses_is_counted() {
        let bus = Bus::default();
        let mut slow = bus.subscribe();
        let published = BUS_LEN_MAX as u64 + 3;
        for version in 0..published {
            bus.publish(KernelEvent::ConfigUpdated { version });
        }
        assert_eq!(slow.try_next(), Some(KernelEvent::ConfigUpdated { version: 3 }));
        assert_eq!(bus.missed(), 3);
    }
}
