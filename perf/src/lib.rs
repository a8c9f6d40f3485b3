//! Measuring from outside, over sockets.
//!
//! [`load`] is a load generator for any HTTP/1.1 server and for OAP/1; [`respond`] is a server that
//! does next to nothing, which shows what the generator itself can do; [`pauses`] is what the
//! machine does to all of them; [`compare`] puts two results side by side. [`storage`] stores and
//! fetches objects once each, for the disk's sake. All of them use the [`objects`] of a seed, which
//! [`files`] writes for other servers. The program is `ron-perf`; `perf/README.md` says how to use
//! it and how to read what it prints.
//!
//! The scripts in `perf/scripts` measure servers against each other with it; results are kept in
//! `perf/results`.

pub mod compare;
pub mod cpu;
pub mod files;
pub mod host;
pub mod load;
pub mod objects;
pub mod pauses;
pub mod respond;
pub mod storage;
