//! What an answer comes to: its status, and whether its bytes are those that were asked for. How it
//! is written in a protocol is not known here.

use std::mem;

use ron_codec::address::Address;

use super::mix::{Corpus, Job, Op};
use crate::objects::{STAMP_LEN, Stamp};

/// A complete answer. Its bytes went to the [`Body`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// As HTTP has them; those of OAP/1 are translated.
    pub(super) status: u16,
    /// Whether the peer will close the connection.
    pub(super) close: bool,
}

/// The bytes of a body: counted, and checked where that is wanted.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) seen: u64,
    check: Check<'a>,
    hasher: blake3::Hasher,
}

#[derive(Debug)]
enum Check<'a> {
    None,
    Hash {
        address: Address,
    },
    /// The bytes are compared with those of the object from `at` on.
    Compare {
        stamp: Stamp,
        rest: &'a [u8],
        at: usize,
        same: bool,
    },
}

impl<'a> Body<'a> {
    pub(super) fn new() -> Self {
        Self { seen: 0, check: Check::None, hasher: blake3::Hasher::new() }
    }

    /// Prepares for the answer to `job`.
    pub(super) fn begin(&mut self, job: &Job, corpus: &'a Corpus) {
        self.seen = 0;
        self.check = match (job.op, job.address) {
            (Op::Get | Op::Fetch, Some(address)) if job.verify => {
                self.hasher.reset();
                Check::Hash { address }
            }
            (Op::Range { first, .. }, _) if job.verify => {
                let rest = corpus.classes[job.class].family.rest();
                // A range lies within its object, whose length is a usize.
                Check::Compare { stamp: job.stamp, rest, at: first as usize, same: true }
            }
            _ => Check::None,
        };
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        match &mut self.check {
            Check::None => {}
            Check::Hash { .. } => {
                self.hasher.update(bytes);
            }
            Check::Compare { stamp, rest, at, same } => {
                let in_stamp = stamp.get(*at..).unwrap_or_default();
                let (head, tail) = bytes.split_at(bytes.len().min(in_stamp.len()));
                let from = (*at + head.len()).saturating_sub(STAMP_LEN);
                let expected = rest.get(from..).and_then(|rest| rest.get(..tail.len()));
                *same &= in_stamp.starts_with(head) && expected == Some(tail);
                *at += bytes.len();
            }
        }
    }

    /// Whether the bytes are those they should be, as far as they were to be checked.
    pub(super) fn finish(&mut self) -> bool {
        match mem::replace(&mut self.check, Check::None) {
            Check::None => true,
            Check::Hash { address } => *self.hasher.finalize().as_bytes() == *address.as_bytes(),
            Check::Compare { same, .. } => same,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::load::options::tests::options;

    /// One object of this length.
    pub(in crate::load) fn corpus(size: usize) -> Corpus {
        Corpus::new(&options(&format!("--node http://a --objects {size}"))).unwrap()
    }

    pub(in crate::load) fn object(corpus: &Corpus) -> Vec<u8> {
        let job = corpus.job(Op::Get, 0, 0, false);
        [&job.stamp[..], corpus.classes[0].family.rest()].concat()
    }

    #[test]
    fn bodies_are_compared_with_their_address() {
        let corpus = corpus(5000);
        let object = object(&corpus);
        let mut body = Body::new();
        for spoiled in [None, Some(0), Some(2500), Some(4999)] {
            let mut bytes = object.clone();
            if let Some(at) = spoiled {
                bytes[at] ^= 1;
            }
            for verify in [false, true] {
                body.begin(&corpus.job(Op::Get, 0, 0, verify), &corpus);
                bytes.chunks(999).for_each(|bytes| body.take(bytes));
                assert_eq!(body.seen, 5000);
                assert_eq!(body.finish(), !verify || spoiled.is_none(), "{spoiled:?} {verify}");
            }
        }
        // One byte less is another object.
        body.begin(&corpus.job(Op::Get, 0, 0, true), &corpus);
        body.take(&object[..4999]);
        assert!(!body.finish());
    }

    #[test]
    fn ranges_are_compared_with_what_they_must_be() {
        let corpus = corpus(100);
        let object = object(&corpus);
        let mut body = Body::new();
        for (first, len) in [(0, 100), (0, 16), (8, 16), (15, 1), (16, 16), (17, 83), (99, 1)] {
            let range = Op::Range { first: first as u64, len: len as u64 };
            for step in [1, 7, 100] {
                body.begin(&corpus.job(range, 0, 0, true), &corpus);
                object[first..first + len].chunks(step).for_each(|bytes| body.take(bytes));
                assert!(body.finish(), "{first} {len} {step}");
            }
            for spoiled in [0, len / 2, len - 1] {
                let mut bytes = object[first..first + len].to_vec();
                bytes[spoiled] ^= 1;
                body.begin(&corpus.job(range, 0, 0, true), &corpus);
                body.take(&bytes);
                assert!(!body.finish(), "{first} {len} {spoiled}");
            }
        }
        // More than the object has is wrong, not a panic.
        body.begin(&corpus.job(Op::Range { first: 90, len: 10 }, 0, 0, true), &corpus);
        body.take(&object);
        assert!(!body.finish());
    }
}
