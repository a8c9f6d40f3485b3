//! The place where a state machine keeps its state while no step of it runs.
//!
//! ```text
//!            take(event)                      put(next)
//!   state ───────────────► step(state) ─────────────────► state
//!                               │  keep(state)              ▲
//!                               ├───────────────────────────┘ the event is none for this state
//!                               └── end() ──► nothing is left
//! ```
//!
//! A step consumes the old state and makes the next one, so it cannot use what the old one held,
//! and cannot forget to say what comes next: a state that was taken and not put back is found at
//! the next use.
//!
//! A machine whose acts are answered one at a time is a [`Turn`]: it is ready for its next act, or
//! waits for the answer to one. Its steps are then two total functions, one of what is ready and
//! one of what waits. An answer to a machine that waits for nothing is our own mistake, and this
//! module is where it is found.
//!
//! Tests collect the transitions that happened, by their names; a node does not.

#![allow(dead_code, unused_imports)] // Until each machine is kept in one.

use std::fmt::Debug;

#[cfg(test)]
mod record;

#[cfg(test)]
pub(crate) use record::take_transitions;

/// A state that is taken for each step and put back after it.
#[derive(Debug)]
pub(crate) struct Machine<S> {
    state: Option<S>,
    #[cfg(test)]
    record: record::Record,
}

impl<S: Debug> Machine<S> {
    /// A machine in its first state. Its name is the one that tests print.
    pub(crate) fn new(name: &'static str, state: S) -> Machine<S> {
        let _ = name;
        Machine {
            state: Some(state),
            #[cfg(test)]
            record: record::Record::new(name),
        }
    }

    /// The present state.
    ///
    /// # Panics
    /// If it was taken and not put back, or the machine has ended.
    #[track_caller]
    pub(crate) fn get(&self) -> &S {
        self.state.as_ref().expect("the state was put back")
    }

    /// The present state, for a change that leads to no other state.
    ///
    /// # Panics
    /// As `get`.
    #[track_caller]
    pub(crate) fn get_mut(&mut self) -> &mut S {
        self.state.as_mut().expect("the state was put back")
    }

    /// Takes the state for the step that an event causes.
    ///
    /// # Panics
    /// As `get`.
    #[track_caller]
    pub(crate) fn take(&mut self, event: &'static str) -> S {
        let Some(state) = self.state.take() else { panic!("no state was put back before {event}") };
        #[cfg(test)]
        self.record.taken(&state, event);
        state
    }

    /// The state that the step leads to. It may be the same as before.
    ///
    /// # Panics
    /// If none was taken.
    #[track_caller]
    pub(crate) fn put(&mut self, state: S) {
        #[cfg(test)]
        self.record.put(&state);
        self.restore(state);
    }

    /// Puts back a state that the event does not change.
    ///
    /// # Panics
    /// As `put`.
    #[track_caller]
    pub(crate) fn keep(&mut self, state: S) {
        #[cfg(test)]
        self.record.forget();
        self.restore(state);
    }

    /// The step leads to no state: the machine is used no more.
    ///
    /// # Panics
    /// As `put`.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        assert!(self.state.is_none(), "a state was taken before the end");
        #[cfg(test)]
        self.record.end();
    }

    #[track_caller]
    fn restore(&mut self, state: S) {
        assert!(self.state.is_none(), "{state:?} is put beside a state");
        self.state = Some(state);
    }
}

/// The state of a machine that has one act in progress at most.
#[derive(Debug)]
pub(crate) enum Turn<R, W> {
    /// It can start its next act.
    Ready(R),
    /// An act is in progress, and its answer leads on.
    Waiting(W),
}

impl<R: Debug, W: Debug> Machine<Turn<R, W>> {
    /// Whether an act is in progress.
    #[track_caller]
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.get(), Turn::Waiting(_))
    }

    /// What is ready, if no act is in progress.
    #[track_caller]
    pub(crate) fn ready(&self) -> Option<&R> {
        match self.get() {
            Turn::Ready(ready) => Some(ready),
            Turn::Waiting(_) => None,
        }
    }

    /// Takes what is ready, to start an act.
    ///
    /// # Panics
    /// As `take`, and if an act is in progress.
    #[track_caller]
    pub(crate) fn take_ready(&mut self, event: &'static str) -> R {
        match self.take(event) {
            Turn::Ready(ready) => ready,
            Turn::Waiting(waiting) => panic!("{event} while an act is in progress: {waiting:?}"),
        }
    }

    /// Takes what waits, to answer it.
    ///
    /// # Panics
    /// As `take`, and if no act is in progress.
    #[track_caller]
    pub(crate) fn take_waiting(&mut self, event: &'static str) -> W {
        match self.take(event) {
            Turn::Waiting(waiting) => waiting,
            Turn::Ready(ready) => panic!("{event} while no act is in progress: {ready:?}"),
        }
    }
}
