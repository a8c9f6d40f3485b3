//! Micro-benchmarks, a file per subject in `benches/`. Each stands beside its physical limit,
//! measured in the same run: `cargo bench -p ron-bench`.
