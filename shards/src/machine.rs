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

use std::{fmt::Debug, io, ops::ControlFlow};

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

    /// Leads from whatever state it is in to another that needs nothing of it.
    ///
    /// # Panics
    /// As `take`.
    #[track_caller]
    pub(crate) fn go(&mut self, event: &'static str, next: S) {
        self.take(event);
        self.put(next);
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

    /// Takes the end of what is ready.
    ///
    /// # Panics
    /// As `take_ready`.
    #[track_caller]
    pub(crate) fn into_ready(mut self, event: &'static str) -> R {
        let ready = self.take_ready(event);
        self.end();
        ready
    }

    /// Takes the end of what waits.
    ///
    /// # Panics
    /// As `take_waiting`.
    #[track_caller]
    pub(crate) fn into_waiting(mut self, event: &'static str) -> W {
        let waiting = self.take_waiting(event);
        self.end();
        waiting
    }

    /// The answer to an act leads on, or to the end of the machine with what it came to.
    ///
    /// # Panics
    /// As `put`.
    #[track_caller]
    pub(crate) fn answered<E>(&mut self, next: ControlFlow<E, R>) -> Option<E> {
        match next {
            ControlFlow::Continue(ready) => {
                self.put(Turn::Ready(ready));
                None
            }
            ControlFlow::Break(end) => {
                self.end();
                Some(end)
            }
        }
    }
}

/// What the answer to an act of the disk is called as an event.
pub(crate) fn answer_name<T>(done: &io::Result<T>) -> &'static str {
    if done.is_ok() { "done" } else { "failed" }
}
