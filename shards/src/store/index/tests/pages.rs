//! What a page of a listing costs the shard that makes it.

use std::time::{Duration, Instant};

use super::*;

/// Far below the limit of an event loop stall, and far above what it takes.
const PAGE_TIME_MAX: Duration = Duration::from_millis(2);

#[test]
fn a_page_of_a_thousand_out_of_a_million_takes_no_time_of_note() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    for n in 0..1_000_000 {
        index.insert(address(n), entry(n));
    }
    let (mut best, mut after, mut seen) = (Duration::MAX, None, 0);
    for _ in 0..200 {
        let begun = Instant::now();
        let page = index.page(after.as_ref(), 1000);
        best = best.min(begun.elapsed());
        seen += page.len();
        after = page.last().map(|(address, _)| *address);
    }
    assert_eq!(seen, 200_000);
    eprintln!("a page takes {best:?}");
    assert!(best < PAGE_TIME_MAX, "{best:?}");
}
