//! Measuring the node from outside.
//!
//! The peer comparison is `perf/scripts/compare.sh` and the comparison with the bare disk
//! `perf/scripts/storage.sh`; `perf/README.md` says what they measure and how to read it. Results
//! are kept in `perf/results`. The load of the latter is `ron-perf`, which is in [`storage`].

pub mod storage;
