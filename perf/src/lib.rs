//! Measuring the node from outside.
//!
//! The peer comparison is `perf/scripts/compare.sh`; `perf/README.md` says what it measures and how
//! to read it. Results are kept in `perf/results`.
