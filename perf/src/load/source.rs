//! Where a thread's requests come from: an endless mix, or a list of objects to be stored.

use std::collections::VecDeque;

use ron_codec::address::Address;
use thiserror::Error;

use super::mix::{Corpus, Job, Mix, Op};

/// What a thread asks for.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Mix(Mix<'a>),
    Store(Store<'a>),
}

impl Source<'_> {
    /// The next request; `None` when there is none for now.
    pub(super) fn next(&mut self) -> Option<Job> {
        match self {
            Self::Mix(mix) => Some(mix.next()),
            Self::Store(store) => store.next(),
        }
    }

    /// Takes notice of an answer. Whether this status is what was wanted.
    pub(super) fn answered(&mut self, job: &Job, status: u16) -> bool {
        if let Self::Store(store) = self {
            return store.answered(job, status);
        }
        match job.op {
            Op::Fetch | Op::Get | Op::Has => status == 200,
            Op::Range { .. } => status == 206,
            // A new object cannot be there already.
            Op::Put => status == 201,
        }
    }

    /// Whether everything was asked, so that only answers are missing.
    pub(super) fn is_exhausted(&self) -> bool {
        match self {
            Self::Mix(_) => false,
            Self::Store(store) => store.is_exhausted(),
        }
    }
}

/// Why objects were not stored before a run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    #[error("the server answered {status} when asked for {address}")]
    Has { address: Address, status: u16 },
    #[error("the server answered {status} when {address} was to be stored")]
    Put { address: Address, status: u16 },
    #[error("storing objects: {reason}")]
    Fault { reason: String },
}

/// Every object of a corpus: asked for, and stored when it is not there.
#[derive(Debug)]
pub(super) struct Store<'a> {
    corpus: &'a Corpus,
    class: usize,
    number: usize,
    missing: VecDeque<Job>,
    pub(super) stored: u64,
    pub(super) error: Option<StoreError>,
}

impl<'a> Store<'a> {
    pub(super) fn new(corpus: &'a Corpus) -> Self {
        Self { corpus, class: 0, number: 0, missing: VecDeque::new(), stored: 0, error: None }
    }

    fn next(&mut self) -> Option<Job> {
        if self.error.is_some() {
            return None;
        }
        // What is missing first, so that the list of it stays as short as there are connections.
        if let Some(job) = self.missing.pop_front() {
            return Some(job);
        }
        while self.number == self.corpus.classes.get(self.class)?.addresses.len() {
            (self.class, self.number) = (self.class + 1, 0);
        }
        let job = self.corpus.job(Op::Has, self.class, self.number, false);
        self.number += 1;
        Some(job)
    }

    fn answered(&mut self, job: &Job, status: u16) -> bool {
        let address = job.address.unwrap_or(Address::from_bytes([0; 32]));
        let error = match (job.op, status) {
            (Op::Has, 200) => return true,
            (Op::Has, 404) => {
                self.missing.push_back(Job { op: Op::Put, ..*job });
                return true;
            }
            (Op::Put, 200 | 201) => {
                self.stored += 1;
                return true;
            }
            (Op::Put, _) => StoreError::Put { address, status },
            (Op::Has | Op::Fetch | Op::Get | Op::Range { .. }, _) => {
                StoreError::Has { address, status }
            }
        };
        self.error.get_or_insert(error);
        false
    }

    /// Gives up.
    pub(super) fn fail(&mut self, reason: String) {
        self.error.get_or_insert(StoreError::Fault { reason });
    }

    fn is_exhausted(&self) -> bool {
        self.error.is_some()
            || (self.missing.is_empty() && {
                let mut rest = self.corpus.classes.iter().skip(self.class);
                let here = rest.next().map_or(0, |class| class.addresses.len());
                self.number == here && rest.next().is_none()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{options::tests::options, reply::tests::corpus},
        *,
    };

    #[test]
    fn what_is_not_there_is_stored() {
        let corpus = corpus(100);
        let mut source = Source::Store(Store::new(&corpus));
        assert!(!source.is_exhausted());
        let has = source.next().unwrap();
        assert_eq!(has.op, Op::Has);
        assert!(source.next().is_none() && source.is_exhausted());
        assert!(source.answered(&has, 404) && !source.is_exhausted());
        let put = source.next().unwrap();
        assert_eq!((put.op, put.address), (Op::Put, has.address));
        assert!(source.answered(&put, 201) && source.is_exhausted());
    }

    #[test]
    fn refusals_end_the_storing() {
        let corpus = corpus(100);
        let mut source = Source::Store(Store::new(&corpus));
        let has = source.next().unwrap();
        assert!(!source.answered(&has, 500));
        assert!(source.next().is_none() && source.is_exhausted());
        let Source::Store(store) = source else { unreachable!() };
        let address = has.address.unwrap();
        assert_eq!(store.error, Some(StoreError::Has { address, status: 500 }));
    }

    #[test]
    fn a_run_wants_the_status_of_its_question() {
        let corpus = corpus(100);
        let options = options("--node http://a --objects 100");
        let mut source = Source::Mix(Mix::new(&corpus, &options, 0, 1));
        for (op, status) in [
            (Op::Get, 200),
            (Op::Range { first: 0, len: 1 }, 206),
            (Op::Put, 201),
            (Op::Fetch, 200),
        ] {
            let job = corpus.job(op, 0, 0, false);
            for other in [200, 201, 206, 404, 503] {
                assert_eq!(source.answered(&job, other), other == status, "{op:?} {other}");
            }
        }
    }
}
