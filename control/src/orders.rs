//! The ports that orders leave through, one a shard, shared by all who give orders.

use std::sync::{Mutex, PoisonError};

use ron_io::ports::Order;

/// Leaves an order in a shard's mailbox; `false` when the mailbox is full. It must always have
/// space for one `Drain`, whatever was ordered before.
pub type OrderPort = Box<dyn Fn(Order) -> bool + Send>;

/// Ports in the order of the shards' numbers.
pub(crate) struct Orders(Mutex<Vec<OrderPort>>);

impl Orders {
    pub(crate) fn new(ports: Vec<OrderPort>) -> Orders {
        Orders(Mutex::new(ports))
    }

    /// Offers the order to every shard. Returns those whose mailbox was full.
    pub(crate) fn offer(&self, order: &Order) -> Vec<usize> {
        let ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = ports.iter().enumerate();
        offered.filter(|(_, port)| !port(order.clone())).map(|(shard, _)| shard).collect()
    }

    /// Offers the order to these shards. Returns those whose mailbox was full.
    pub(crate) fn offer_to(&self, shards: &[usize], order: &Order) -> Vec<usize> {
        let ports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shards.iter().copied().filter(|shard| !ports[*shard](order.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
