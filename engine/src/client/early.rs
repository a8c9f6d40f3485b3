//! Answers that come before a request is complete.
//!
//! A node that refuses an upload says so at once and does not take the rest, so the next write
//! fails, and the reason waits to be read. ureq would report the write. Here a connection whose
//! writes fail pretends to take what is left, until the answer is asked for: if one came it is the
//! outcome of the request, and only without one is it the failure.
//!
//! Over TLS nothing can be read once a write has failed; there the refusals that a node makes by
//! the head of a request arrive, because large bodies wait for them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

/// Whether the node takes no more of the request in progress. Clones are of the same connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaf(Arc<AtomicBool>);

impl Deaf {
    /// What is written from now on goes nowhere.
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A new request begins.
    pub(super) fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<In: Transport> Connector<In> for Deaf {
    type Out = Patient<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Patient<In>>, Error> {
        Ok(chained.map(|inner| Patient { inner, deaf: self.clone(), failure: None }))
    }
}

/// A connection that is read although it cannot be written to any more.
#[derive(Debug)]
pub(super) struct Patient<T> {
    inner: T,
    deaf: Deaf,
    /// Why it cannot.
    failure: Option<Error>,
}

impl<T: Transport> Transport for Patient<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.failure.is_none()
            && let Err(error) = self.inner.transmit_output(amount, timeout)
        {
            self.failure = Some(error);
            self.deaf.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        match self.inner.await_input(timeout) {
            Ok(true) => Ok(true),
            other => self.failure.take().map_or(other, Err),
        }
    }

    fn is_open(&mut self) -> bool {
        self.failure.is_none() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
