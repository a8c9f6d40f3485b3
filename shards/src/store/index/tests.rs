use super::*;

fn opened(dir: &Path) -> Opened {
    let slot = Slot::default();
    open_job(dir.to_path_buf(), None, Arc::clone(&slot))().unwrap();
    slot.lock().unwrap().take().unwrap()
}

fn entry(n: u64) -> Entry {
    let location = match n % 3 {
        0 => Location::File { segment: n as u32 },
        _ => Location::Segment { segment: n as u32, offset: u32::MAX - n as u32 },
    };
    Entry { location, size: (n << 20).min(1 << 20), sequence: u64::MAX - n }
}

fn address(n: u64) -> Address {
    Address::of(&n.to_le_bytes())
}

#[test]
fn what_is_checkpointed_comes_back_and_the_rest_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let reached = Position { segment: 7, offset: 4096 };
    let mut index = Index::new(opened(dir.path()));
    for n in 0..100 {
        index.insert(address(n), entry(n));
    }
    let job = index.checkpoint(Some((reached, 99)));
    assert_eq!(index.get(&address(5)).unwrap(), Some(entry(5)), "frozen is seen");
    index.remove(address(5));
    index.insert(address(200), entry(200));
    assert_eq!(index.get(&address(5)).unwrap(), None, "active hides frozen");
    job().unwrap();
    index.checkpointed(true);
    assert_eq!(index.get(&address(5)).unwrap(), None, "active hides what is stored");
    assert_eq!(index.totals().objects, 100);
    drop(index);

    let opened = opened(dir.path());
    let meta = opened.meta.unwrap();
    assert_eq!((meta.position, meta.sequence, meta.totals.objects), (reached, 99, 100));
    let index = Index::new(opened);
    for n in 0..100 {
        assert_eq!(index.get(&address(n)).unwrap(), Some(entry(n)));
    }
    assert_eq!(index.get(&address(200)).unwrap(), None);
}

#[test]
fn a_failed_checkpoint_loses_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::new(opened(dir.path()));
    index.insert(address(1), entry(1));
    index.insert(address(2), entry(2));
    drop(index.checkpoint(None));
    index.remove(address(1));
    index.checkpointed(false);
    assert_eq!(index.get(&address(1)).unwrap(), None);
    assert_eq!(index.get(&address(2)).unwrap(), Some(entry(2)));
    assert_eq!(index.changes(), 2);
}

#[test]
fn damaged_and_incomplete_files_are_wiped() {
    for damage in ["short", "odd", "garbage", "incomplete"] {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(opened(dir.path()));
        for n in 0..1000 {
            index.insert(address(n), entry(n));
        }
        let complete = (damage != "incomplete").then_some((Position::default(), 1));
        index.checkpoint(complete)().unwrap();
        index.checkpointed(true);
        drop(index);
        let data = dir.path().join("data.mdb");
        let len = fs::metadata(&data).unwrap().len();
        match damage {
            "short" => {
                fs::File::options().write(true).open(&data).unwrap().set_len(len / 8192 * 4096)
            }
            "odd" => fs::File::options().write(true).open(&data).unwrap().set_len(len - 1),
            "garbage" => fs::write(&data, vec![0xa5; len as usize]),
            _ => Ok(()),
        }
        .unwrap();
        let opened = opened(dir.path());
        assert!(opened.wiped.is_some() && opened.meta.is_none(), "{damage}");
        assert_eq!(Index::new(opened).get(&address(1)).unwrap(), None);
    }
}

/// All entries, in pages of `max`.
fn pages(index: &Index, max: usize) -> Vec<(Address, Entry)> {
    let mut all: Vec<(Address, Entry)> = Vec::new();
    loop {
        let page = index.page(all.last().map(|(address, _)| address), max).unwrap();
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

    /// Changes at random, some of them carried over and some on their way, against a plain map.
    #[test]
    fn pages_and_counts_are_those_of_a_map(
        changes in proptest::collection::vec((0u64..60, 0u8..8), 0..200),
        max in 1usize..20,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(opened(dir.path()));
        let mut twin: Table = Table::new();
        let mut job = None;
        for (n, what) in changes {
            match what {
                0 if job.is_none() => job = Some(index.checkpoint(Some((Position::default(), 1)))),
                1 if job.is_some() => {
                    let durable = n % 3 > 0;
                    if durable {
                        job.take().unwrap()().unwrap();
                    }
                    job = None;
                    index.checkpointed(durable);
                }
                2 | 3 => {
                    index.remove(address(n));
                    twin.remove(&address(n));
                }
                _ => {
                    index.insert(address(n), entry(n));
                    twin.insert(address(n), Some(entry(n)));
                }
            }
        }
        let expected: Vec<(Address, Entry)> =
            twin.iter().filter_map(|(address, entry)| Some((*address, (*entry)?))).collect();
        proptest::prop_assert_eq!(pages(&index, max), expected.clone());
        let totals = index.totals();
        proptest::prop_assert_eq!(totals.objects, expected.len() as u64);
        let size = |(_, entry): &(Address, Entry)| entry.size;
        proptest::prop_assert_eq!(totals.object_bytes, expected.iter().map(size).sum::<u64>());
        let live = |(_, entry): &(Address, Entry)| entry.in_log().1;
        let in_segments = expected.iter().filter(|(_, entry)| entry.in_log().0 > 0);
        proptest::prop_assert_eq!(index.live_bytes(), in_segments.map(live).sum::<u64>());
    }
}

#[test]
fn tallies_and_the_mark_come_back_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = Index::new(opened(dir.path()));
    let place = |segment| Entry {
        location: Location::Segment { segment, offset: 0 },
        size: 1000,
        sequence: 1,
    };
    index.insert(address(1), place(3));
    index.insert(address(2), place(3));
    index.insert(address(3), place(4));
    index.insert(address(2), place(4));
    index.bury(3);
    index.set_mark(b"here".to_vec());
    let (three, four) = (index.tally_of(3), index.tally_of(4));
    assert_eq!((three.live, three.tombstones), (1152, 1));
    assert_eq!((four.live, four.tombstones), (2 * 1152, 0));
    index.checkpoint(Some((Position::default(), 1)))().unwrap();
    index.checkpointed(true);
    index.remove(address(1));
    index.forget_segment(3);
    assert_eq!(index.live_bytes(), four.live);
    drop(index);
    let index = Index::new(opened(dir.path()));
    assert_eq!((index.tally_of(3), index.tally_of(4)), (three, four));
    assert_eq!((index.mark(), index.live_bytes()), (&b"here"[..], three.live + four.live));
}
