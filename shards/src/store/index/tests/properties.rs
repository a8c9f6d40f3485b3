//! The index against a plain map, and against any bytes.

use super::*;

/// All entries, in pages of `max`.
fn pages(index: &Index, max: usize) -> Vec<(Address, Entry)> {
    let mut all: Vec<(Address, Entry)> = Vec::new();
    loop {
        let page = index.page(all.last().map(|(address, _)| address), max);
        assert!(page.len() <= max);
        let end = page.len() < max;
        all.extend(page);
        if end {
            return all;
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]

    /// Changes at random, some of them carried over and some on their way, against a plain map;
    /// and what a start finds, against the map as it was at the last durable checkpoint.
    #[test]
    fn pages_and_counts_are_those_of_a_map(
        changes in proptest::collection::vec((0u64..60, 0u8..8), 0..200),
        max in 1usize..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(dir.path());
        let mut twin: BTreeMap<Address, Entry> = BTreeMap::new();
        let mut job = None;
        let (mut durable, mut frozen) = (None, twin.clone());
        for (n, what) in changes {
            match what {
                0 if job.is_none() => {
                    job = Some(index.checkpoint(REACHED));
                    frozen = twin.clone();
                }
                1 if job.is_some() => {
                    let done = n % 3 > 0;
                    if done {
                        job.take().unwrap()().unwrap();
                        durable = Some(frozen.clone());
                    }
                    job = None;
                    proptest::prop_assert!(index.written(done).is_none());
                }
                2 | 3 => {
                    index.remove(address(n));
                    twin.remove(&address(n));
                }
                _ => {
                    index.insert(address(n), entry(n));
                    twin.insert(address(n), entry(n));
                }
            }
        }
        let expected: Vec<(Address, Entry)> = twin.into_iter().collect();
        proptest::prop_assert_eq!(pages(&index, max), expected.clone());
        let totals = index.totals();
        proptest::prop_assert_eq!(totals.objects, expected.len() as u64);
        let size = |(_, entry): &(Address, Entry)| entry.size;
        proptest::prop_assert_eq!(totals.object_bytes, expected.iter().map(size).sum::<u64>());
        let live = |(_, entry): &(Address, Entry)| entry.in_log().1;
        proptest::prop_assert_eq!(index.live_bytes(), expected.iter().map(live).sum::<u64>());
        let found = opened(dir.path());
        proptest::prop_assert_eq!(found.reached.is_some(), durable.is_some());
        let durable: Vec<(Address, Entry)> = durable.unwrap_or_default().into_iter().collect();
        proptest::prop_assert_eq!(all(&Index::new(found)), durable);
    }

    /// Any bytes whatever are a snapshot, or are not believed.
    #[test]
    fn any_bytes_are_opened(bytes in proptest::collection::vec(0u8.., 0..9000)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(snapshot::path(dir.path(), 1), bytes).unwrap();
        proptest::prop_assert_eq!(opened(dir.path()).reached, None);
    }
}
