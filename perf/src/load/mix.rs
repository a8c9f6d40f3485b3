//! What is asked next: which object, all of it or a range, or that a new one be stored.
//!
//! A mix is made of dice with a seed: the same options give the same requests on each thread. It
//! knows nothing of protocols.

use std::{
    ops::Range,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, SeedableRng, distr::Distribution, rngs::SmallRng};
use rand_distr::Zipf;
use ron_codec::address::Address;

use super::options::{Options, Popularity};
use crate::objects::{Class, ObjectsError, Stamp, classes, stamp};

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Fetch the one path of the run.
    Fetch,
    /// Fetch a whole object.
    Get,
    /// Fetch `len` bytes of an object, from `first` on.
    Range { first: u64, len: u64 },
    /// Store an object.
    Put,
    /// Ask whether an object is there.
    Has,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) op: Op,
    /// Index of the object's class; without meaning for [`Op::Fetch`].
    pub(super) class: usize,
    pub(super) stamp: Stamp,
    /// `None` when the path of [`Op::Fetch`] names no object.
    pub(super) address: Option<Address>,
    /// Whether the bytes of the answer are checked.
    pub(super) verify: bool,
}

/// What a run asks for.
#[derive(Debug)]
pub(super) struct Corpus {
    pub(super) classes: Vec<Class>,
    /// The one path, when there is one.
    pub(super) path: Option<String>,
    path_address: Option<Address>,
    seed: u64,
}

impl Corpus {
    /// What `options` name.
    ///
    /// # Errors
    /// When there are no such objects.
    pub(super) fn new(options: &Options) -> Result<Self, ObjectsError> {
        Ok(Self {
            classes: classes(&options.objects, options.seed)?,
            path_address: options.path.as_deref().and_then(path_address),
            path: options.path.clone(),
            seed: options.seed,
        })
    }

    /// The request about object `number` of `class`.
    pub(super) fn job(&self, op: Op, class: usize, number: usize, verify: bool) -> Job {
        let address = self.classes[class].addresses[number];
        let stamp = stamp(self.seed, number as u64);
        Job { op, class, stamp, address: Some(address), verify }
    }

    fn fetch(&self, verify: bool) -> Job {
        let address = self.path_address;
        let verify = verify && address.is_some();
        Job { op: Op::Fetch, class: 0, stamp: Stamp::default(), address, verify }
    }

    /// Bytes that the body of a good answer has, where the request alone says it.
    pub(super) fn answer_len(&self, job: &Job) -> Option<u64> {
        match job.op {
            Op::Get => Some(self.classes[job.class].spec.size as u64),
            Op::Range { len, .. } => Some(len),
            Op::Fetch | Op::Put | Op::Has => None,
        }
    }
}

/// The object that a path such as `/o/b3:…` names.
pub(super) fn path_address(path: &str) -> Option<Address> {
    Address::parse_route_segment(path.strip_prefix("/o/")?).ok()
}

/// How the next object of a class is found.
#[derive(Debug)]
enum Draw {
    Uniform,
    Zipf(Zipf<f64>),
    Sequential { next: usize },
}

/// An endless row of requests.
#[derive(Debug)]
pub(super) struct Mix<'a> {
    corpus: &'a Corpus,
    dice: SmallRng,
    draws: Vec<Draw>,
    /// Sums of the weights up to each class, of 1 in all.
    sums: Vec<f64>,
    range: Option<u64>,
    range_share: f64,
    put_share: f64,
    verify: f64,
    /// Distinguishes the new objects of this run from those of all others.
    nonce: u64,
    /// Numbers of the new objects of this thread.
    fresh: Range<u64>,
}

impl<'a> Mix<'a> {
    /// The requests of thread `thread` of `threads`.
    pub(super) fn new(corpus: &'a Corpus, options: &Options, thread: u32, threads: u32) -> Self {
        let total: f64 = corpus.classes.iter().map(|class| class.spec.weight).sum();
        let sums = corpus.classes.iter().scan(0.0, |sum, class| {
            *sum += class.spec.weight / total;
            Some(*sum)
        });
        let draw = |class: &Class| match options.popularity {
            Popularity::Uniform => Draw::Uniform,
            // The count is at least 1 and the exponent not negative, so there is such a draw.
            Popularity::Zipf(exponent) => {
                Zipf::new(class.spec.count as f64, exponent).map_or(Draw::Uniform, Draw::Zipf)
            }
            Popularity::Sequential => {
                let share = u64::from(thread) * class.spec.count / u64::from(threads);
                Draw::Sequential { next: share as usize }
            }
        };
        let apart = u64::from(thread) << 32;
        Self {
            corpus,
            dice: SmallRng::seed_from_u64(options.seed.wrapping_add(apart)),
            draws: corpus.classes.iter().map(draw).collect(),
            sums: sums.collect(),
            range: options.range.map(|len| len as u64),
            range_share: options.range_share,
            put_share: options.put_share,
            verify: options.verify,
            nonce: nonce(),
            fresh: apart..u64::MAX,
        }
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Job {
        let verify = self.verify > 0.0 && self.dice.random::<f64>() < self.verify;
        if self.corpus.path.is_some() {
            return self.corpus.fetch(verify);
        }
        let class = self.class();
        if self.put_share > 0.0 && self.dice.random::<f64>() < self.put_share {
            return self.put(class);
        }
        let number = self.number(class);
        let op = match self.range {
            Some(len)
                if self.range_share >= 1.0 || self.dice.random::<f64>() < self.range_share =>
            {
                let places = self.corpus.classes[class].spec.size as u64 / len;
                Op::Range { first: self.dice.random_range(0..places.max(1)) * len, len }
            }
            _ => Op::Get,
        };
        self.corpus.job(op, class, number, verify)
    }

    fn class(&mut self) -> usize {
        let last = self.sums.len() - 1;
        if last == 0 {
            return 0;
        }
        let at = self.dice.random::<f64>();
        // The sums may end a little below 1.
        self.sums.partition_point(|sum| *sum <= at).min(last)
    }

    fn number(&mut self, class: usize) -> usize {
        let count = self.corpus.classes[class].addresses.len();
        match &mut self.draws[class] {
            Draw::Uniform if count == 1 => 0,
            Draw::Uniform => self.dice.random_range(0..count),
            // Ranks are whole numbers from 1 to the count.
            Draw::Zipf(zipf) => (zipf.sample(&mut self.dice) as usize).clamp(1, count) - 1,
            Draw::Sequential { next } => {
                let number = *next % count;
                *next = number + 1;
                number
            }
        }
    }

    fn put(&mut self, class: usize) -> Job {
        let number = self.fresh.next().unwrap_or_default();
        let stamp = stamp(self.nonce, number);
        let address = Some(self.corpus.classes[class].family.address(&stamp));
        Job { op: Op::Put, class, stamp, address, verify: false }
    }
}

/// A number that no other run has, as far as clocks and processes go.
fn nonce() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // The low half of the nanoseconds is what differs.
    now.as_nanos() as u64 ^ u64::from(std::process::id()) << 48
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::load::options::tests;

    fn options(arguments: &str) -> Options {
        tests::options(&format!("--node http://a {arguments}"))
    }

    /// How often each object was asked for in `draws` requests.
    fn counts(arguments: &str, draws: u32) -> Vec<u32> {
        let options = options(arguments);
        let corpus = Corpus::new(&options).unwrap();
        let mut mix = Mix::new(&corpus, &options, 0, 1);
        let class = &corpus.classes[0];
        let mut counts = vec![0; class.addresses.len()];
        for _ in 0..draws {
            let job = mix.next();
            let number = u64::from_le_bytes(job.stamp[8..].try_into().unwrap()) as usize;
            assert_eq!(job.address, Some(class.addresses[number]));
            counts[number] += 1;
        }
        counts
    }

    /// Six standard deviations of a count with this expectation, and one for rounding.
    fn near(count: u32, expected: f64) -> bool {
        (f64::from(count) - expected).abs() <= 6.0 * expected.sqrt() + 1.0
    }

    #[test]
    fn zipf_is_as_computed() {
        for exponent in [0.0, 0.8, 1.0, 1.5] {
            let counts = counts(&format!("--objects 16:50 --popularity zipf:{exponent}"), 100_000);
            let weight = |rank: usize| (rank as f64).powf(-exponent);
            let total: f64 = (1..=50).map(weight).sum();
            for (index, count) in counts.iter().enumerate() {
                let expected = 100_000.0 * weight(index + 1) / total;
                assert!(near(*count, expected), "{exponent}: {index} {count} not {expected}");
            }
        }
    }

    #[test]
    fn uniform_is_even_and_sequential_in_order() {
        for count in counts("--objects 16:10", 100_000) {
            assert!(near(count, 10_000.0), "{count}");
        }
        assert_eq!(counts("--objects 16:3 --popularity sequential", 8), [3, 3, 2]);
    }

    #[test]
    fn classes_are_drawn_by_weight() {
        let options = options("--objects 16:1,17:1:2,18:1:0.5 --put-share 0.25 --verify 0.5");
        let corpus = Corpus::new(&options).unwrap();
        let mut mix = Mix::new(&corpus, &options, 0, 1);
        let (mut of, mut puts, mut checked) = ([0; 3], 0, 0);
        for _ in 0..70_000 {
            let job = mix.next();
            of[job.class] += 1;
            puts += u32::from(job.op == Op::Put);
            checked += u32::from(job.verify);
        }
        assert!(near(of[0], 20_000.0) && near(of[1], 40_000.0) && near(of[2], 10_000.0), "{of:?}");
        assert!(near(puts, 17_500.0) && near(checked, 26_250.0), "{puts} {checked}");
    }

    #[test]
    fn ranges_are_aligned_and_inside() {
        let options = options("--objects 100 --range 30 --range-share 0.5");
        let corpus = Corpus::new(&options).unwrap();
        let mut mix = Mix::new(&corpus, &options, 0, 1);
        let mut firsts = [0; 3];
        for _ in 0..30_000 {
            let job = mix.next();
            match job.op {
                Op::Range { first, len: 30 } => firsts[first as usize / 30] += 1,
                Op::Get => assert_eq!(corpus.answer_len(&job), Some(100)),
                op => panic!("{op:?}"),
            }
        }
        assert!(firsts.iter().all(|count| near(*count, 5000.0)), "{firsts:?}");
    }

    #[test]
    fn new_objects_are_new_on_every_thread() {
        let options = options("--objects 2000:1 --put-share 1");
        let corpus = Corpus::new(&options).unwrap();
        let mut seen = HashSet::new();
        for thread in 0..2 {
            let mut mix = Mix::new(&corpus, &options, thread, 2);
            for _ in 0..100 {
                let job = mix.next();
                let whole = [&job.stamp[..], corpus.classes[0].family.rest()].concat();
                assert_eq!(job.address, Some(Address::of(&whole)));
                assert!(seen.insert(job.address));
            }
        }
    }

    #[test]
    fn a_seed_decides_and_threads_differ() {
        let options = options("--objects 16:1000000 --seed 3");
        let corpus = Corpus::new(&options).unwrap();
        let row = |thread| {
            let mut mix = Mix::new(&corpus, &options, thread, 2);
            (0..20).map(|_| mix.next().stamp).collect::<Vec<_>>()
        };
        assert_eq!(row(0), row(0));
        assert_ne!(row(0), row(1));
    }

    #[test]
    fn a_path_of_an_object_can_be_checked() {
        let address = Address::of(b"");
        assert_eq!(path_address(&format!("/o/{address}.txt")), Some(address));
        assert_eq!(path_address("/o/b3:00"), None);
        assert_eq!(path_address("/index.html"), None);
        let options = options("--path /index.html --verify 1");
        let corpus = Corpus::new(&options).unwrap();
        let job = Mix::new(&corpus, &options, 0, 1).next();
        assert!(job.op == Op::Fetch && !job.verify && job.address.is_none());
    }
}
