use std::{fs, path::Path, sync::Arc};

use ron_codec::limits::DISK_BLOCK_LEN;

use super::*;

/// The segments that entries of these tests lie in.
fn segments() -> Vec<(u32, u64)> {
    (1..500).map(|segment| (segment, 1 << 20)).collect()
}

fn opened(dir: &Path) -> Opened {
    opened_among(dir, segments())
}

fn opened_among(dir: &Path, segments: Vec<(u32, u64)>) -> Opened {
    let slot = OpenSlot::default();
    let of = Of { partition: 0, partitions: 1, segments };
    open_job(dir.to_path_buf(), of, Arc::clone(&slot))().unwrap();
    slot.lock().unwrap().take().unwrap()
}

fn open(dir: &Path) -> Index {
    let opened = opened(dir);
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
    Index::new(opened)
}

fn entry(n: u64) -> Entry {
    let segment = 1 + (n % 400) as u32;
    let location = match n % 3 {
        0 => Location::File { segment },
        _ => Location::Segment { segment, offset: (n as u32).wrapping_mul(128) % (256 << 20) },
    };
    Entry { location, size: (n << 20).min(1 << 20), sequence: u64::MAX - n }
}

/// An object of 1000 bytes at the start of a segment.
fn place(segment: u32) -> Entry {
    Entry { location: Location::Segment { segment, offset: 0 }, size: 1000, sequence: 1 }
}

fn address(n: u64) -> Address {
    Address::of(&n.to_le_bytes())
}

const REACHED: (Position, u64) = (Position { segment: 7, offset: 4096 }, 99);

/// Runs a checkpoint to its end. How many jobs it took.
fn checkpoint(index: &mut Index, reached: (Position, u64)) -> usize {
    let mut jobs = 0;
    let mut job = Some(index.checkpoint(reached));
    while let Some(run) = job {
        run().unwrap();
        jobs += 1;
        job = index.written(true);
    }
    jobs
}

fn all(index: &Index) -> Vec<(Address, Entry)> {
    index.page(None, usize::MAX)
}

fn newest(dir: &Path) -> std::path::PathBuf {
    snapshot::path(dir, *snapshot::generations(dir).unwrap().last().unwrap())
}

#[test]
fn what_is_checkpointed_comes_back_and_the_rest_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir.path().join("index"));
    assert_eq!(opened(&dir.path().join("index")).reached, None);
    for n in 0..100 {
        index.insert(address(n), entry(n));
    }
    let job = index.checkpoint(REACHED);
    index.remove(address(5));
    index.insert(address(200), entry(200));
    job().unwrap();
    assert!(index.written(true).is_none());
    assert_eq!((index.get(&address(5)), index.totals().objects), (None, 100));
    drop(index);

    let opened = opened(&dir.path().join("index"));
    assert_eq!(opened.reached, Some(REACHED));
    let index = Index::new(opened);
    assert!((0..100).all(|n| index.get(&address(n)) == Some(entry(n))));
    assert_eq!((index.get(&address(200)), index.totals().objects), (None, 100));
}

#[test]
fn changes_are_appended_and_a_base_comes_when_they_outgrow_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    checkpoint(&mut index, REACHED);
    let mut n = 0;
    let mut files = BTreeSet::new();
    while files.len() < 3 {
        for _ in 0..20_000 {
            index.insert(address(n), entry(n));
            n += 1;
        }
        index.remove(address(n / 2));
        index.bury(3);
        checkpoint(&mut index, (REACHED.0, n));
        assert_eq!(index.changes(), 0);
        files.insert(newest(dir.path()));
        let again = open(dir.path());
        assert_eq!((again.totals(), again.live_bytes()), (index.totals(), index.live_bytes()));
        assert_eq!(again.tally_of(3), index.tally_of(3));
        assert_eq!(again.kept, index.kept);
        assert!(all(&again) == all(&index));
        assert!(fs::read_dir(dir.path()).unwrap().count() <= 2, "two are kept");
    }
    assert!(n > 2 * PART_SLOTS as u64, "a base takes several jobs");
}

#[test]
fn what_changes_while_a_base_is_written_is_in_it_or_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    let count = 3 * PART_SLOTS as u64;
    for n in 0..count {
        index.insert(address(n), entry(n));
    }
    let mut job = Some(index.checkpoint(REACHED));
    let mut step = 0;
    while let Some(run) = job {
        for n in (step * 500)..(step * 500 + 500) {
            index.remove(address(n));
            index.insert(address(count + n), entry(count + n));
        }
        step += 1;
        run().unwrap();
        job = index.written(true);
    }
    assert!(step >= 3, "{step} jobs");
    // Each object that did not change is in the base.
    let base = open(dir.path());
    for n in step * 500..count {
        assert_eq!(base.get(&address(n)), Some(entry(n)));
    }
    checkpoint(&mut index, REACHED);
    assert!(all(&open(dir.path())) == all(&index), "the changes are appended");
}

#[test]
fn a_checkpoint_that_fails_is_made_anew_with_all_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    for n in 0..100 {
        index.insert(address(n), entry(n));
        if n % 10 == 0 {
            // It is not run, and told to have failed; or run, and told the same.
            let job = index.checkpoint(REACHED);
            if n % 20 == 0 {
                job().unwrap();
            }
            assert!(index.written(false).is_none());
            assert_eq!(index.changes() as u64, n % 50 + 1);
        }
        if n % 50 == 49 {
            checkpoint(&mut index, REACHED);
            assert_eq!(index.changes(), 0);
            assert!(all(&open(dir.path())) == all(&index), "{n}");
        }
    }
}

#[test]
fn changes_are_appended_only_where_the_file_ends() {
    for (cut, more) in [(1, 0), (DISK_BLOCK_LEN, 0), (0, 1), (0, DISK_BLOCK_LEN)] {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(dir.path());
        for n in 0..300 {
            index.insert(address(n), entry(n));
        }
        checkpoint(&mut index, REACHED);
        let mut bytes = fs::read(newest(dir.path())).unwrap();
        bytes.truncate(bytes.len() - cut);
        bytes.resize(bytes.len() + more, 0);
        fs::write(newest(dir.path()), &bytes).unwrap();
        index.insert(address(300), entry(300));
        let error = index.checkpoint(REACHED)().unwrap_err();
        assert!(error.contains(&format!("has {} bytes, not", bytes.len())), "{error}");
        assert!(fs::read(newest(dir.path())).unwrap() == bytes, "nothing is written");
        // The next one is a file of its own, with all.
        index.written(false);
        checkpoint(&mut index, REACHED);
        assert!(all(&open(dir.path())) == all(&index));
    }
}

#[test]
fn a_base_that_is_out_of_order_is_not_believed() {
    let mut slots: Vec<Slot> = (0..200).map(|n| table::encode(&address(n), &entry(n))).collect();
    slots.sort_unstable_by_key(table::address);
    // As it was, with one twice, and with one that belongs far before.
    for (at, other) in [(8, 8), (8, 7), (150, 20)] {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = slots.clone();
        slots[at] = slots[other];
        let part = Part {
            dir: dir.path().to_path_buf(),
            generation: 1,
            number: 0,
            slots,
            before: 0,
            commit: Some(Commit {
                position: REACHED.0,
                sequence: REACHED.1,
                tombstones: Vec::new(),
                mark: Vec::new(),
                previous: 0,
            }),
        };
        part.write().unwrap();
        let opened = opened(dir.path());
        assert_eq!(opened.reached, (at == other).then_some(REACHED), "{other} at {at}");
        let told = opened.notes.iter().any(|note| note.contains("is out of order"));
        assert_eq!(told, at != other, "{:?}", opened.notes);
    }
}

/// A base of some blocks, three appends behind it, and what the index was after each.
fn history(dir: &Path) -> Vec<(u64, Vec<(Address, Entry)>)> {
    let mut index = open(dir);
    let mut states = Vec::new();
    for round in 0..4u64 {
        for n in 0..200 {
            index.insert(address(1000 * round + n), entry(1000 * round + n));
        }
        index.remove(address(7 + round));
        index.bury(2);
        checkpoint(&mut index, (REACHED.0, round));
        let len = fs::metadata(newest(dir)).unwrap().len();
        states.push((len, all(&index)));
    }
    states
}

#[test]
fn a_flip_or_a_cut_anywhere_costs_only_what_is_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let states = history(dir.path());
    let (whole, path) = (fs::read(newest(dir.path())).unwrap(), newest(dir.path()));
    assert_eq!(whole.len() as u64, states[3].0);
    let block = DISK_BLOCK_LEN as u64;
    for at in (0..whole.len() as u64).step_by(DISK_BLOCK_LEN) {
        // Each byte of a head, and some of the rest.
        let inside = (0..40).chain((40..block).step_by(397));
        let flips = inside.map(|offset| (at + offset, false));
        for (at, cut) in flips.chain([(at, true), (at + 1, true), (at + 4095, true)]) {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(at as usize);
            } else {
                bytes[at as usize] ^= 1 << (at % 8);
            }
            fs::write(&path, &bytes).unwrap();
            let opened = opened(dir.path());
            // What is cut between frames is an append that never was.
            let wanted = states.iter().rev().find(|(len, _)| *len <= at / block * block);
            let between = cut && states.iter().any(|(len, _)| *len == at);
            assert_eq!(opened.notes.is_empty(), between, "{at} {cut}: {:?}", opened.notes);
            assert_eq!(opened.file.is_some(), between, "nothing is appended behind damage");
            let found = opened.reached;
            let sequence = |len| states.iter().position(|(l, _)| *l == len).unwrap() as u64;
            assert_eq!(found, wanted.map(|(len, _)| (REACHED.0, sequence(*len))), "{at} {cut}");
            let index = Index::new(opened);
            assert!(all(&index) == wanted.map_or(Vec::new(), |(_, state)| state.clone()));
        }
    }
    fs::write(&path, &whole).unwrap();
    assert!(all(&open(dir.path())) == states[3].1);
}

#[test]
fn after_damage_the_snapshot_before_is_used_and_a_new_one_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    for n in 0..300 {
        index.insert(address(n), entry(n));
    }
    checkpoint(&mut index, REACHED);
    let first = all(&index);
    index.insert(address(300), entry(300));
    drop(index.checkpoint(REACHED));
    index.written(false);
    checkpoint(&mut index, REACHED);
    let second = newest(dir.path());
    let mut bytes = fs::read(&second).unwrap();
    bytes[5000] ^= 4;
    fs::write(&second, bytes).unwrap();

    let opened = opened(dir.path());
    assert!(opened.notes[0].contains("does not match its checksum"), "{:?}", opened.notes);
    assert_eq!(opened.reached, Some(REACHED));
    let mut index = Index::new(opened);
    assert!(all(&index) == first);
    assert!(index.wants_base());
    index.insert(address(301), entry(301));
    checkpoint(&mut index, REACHED);
    assert!(!second.exists(), "what is damaged goes");
    assert!(all(&open(dir.path())) == all(&index));
}

#[test]
fn a_stale_snapshot_names_nothing_in_segments_that_are_gone() {
    let place = |segment| Entry {
        location: Location::Segment { segment, offset: 0 },
        size: 1000,
        sequence: 1,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    index.insert(address(1), place(3));
    index.insert(address(2), place(7));
    checkpoint(&mut index, REACHED);
    index.remove(address(1));
    checkpoint(&mut index, REACHED);
    let file = newest(dir.path());
    let len = fs::metadata(&file).unwrap().len();
    let without = || segments().into_iter().filter(|(segment, _)| *segment != 3).collect();
    // A segment that is lost, and a whole snapshot: what was in it is answered for.
    let whole = opened_among(dir.path(), without());
    assert_eq!(whole.totals.objects, 1);
    fs::File::options().write(true).open(&file).unwrap().set_len(len - 1).unwrap();
    let stale = opened_among(dir.path(), without());
    assert!(stale.notes.iter().any(|note| note.contains("1 entries")), "{:?}", stale.notes);
    let index = Index::new(stale);
    assert_eq!(all(&index), [(address(2), place(7))]);
    assert_eq!(index.live_bytes(), 1152);
}

#[test]
fn a_stale_snapshot_with_files_that_the_log_does_not_name_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    let location = Location::File { segment: 0 };
    index.insert(address(1), Entry { location, size: 2 << 20, sequence: 0 });
    checkpoint(&mut index, REACHED);
    assert_eq!(open(dir.path()).totals().objects, 1);
    let first = newest(dir.path());
    drop(index.checkpoint(REACHED));
    index.written(false);
    checkpoint(&mut index, REACHED);
    fs::remove_file(newest(dir.path())).unwrap();
    assert!(first.exists());
    assert_eq!(opened(dir.path()).reached, Some(REACHED), "nothing tells that one was lost");
    let len = fs::metadata(&first).unwrap().len();
    fs::write(&first, [fs::read(&first).unwrap(), vec![0; 100]].concat()).unwrap();
    assert!(fs::metadata(&first).unwrap().len() > len);
    assert_eq!(opened(dir.path()).reached, None);
}

#[test]
fn a_log_that_is_shorter_than_its_snapshot_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    index.insert(address(1), Entry { sequence: 120, ..place(7) });
    index.insert(address(2), place(9));
    checkpoint(&mut index, REACHED);
    let both = vec![(7, 4096), (9, 4096)];
    let whole = opened_among(dir.path(), both.clone());
    assert_eq!((whole.reached, whole.lost.len()), (Some(REACHED), 0), "{:?}", whole.losses);
    for (segments, lost) in [
        (vec![], vec![7, 9]),
        (vec![(6, 4096)], vec![7, 9]),
        (vec![(7, 4095), (9, 4096)], vec![7]),
        (vec![(7, 4096), (9, 1151)], vec![9]),
    ] {
        let opened = opened_among(dir.path(), segments.clone());
        assert_eq!(opened.reached, Some(REACHED), "{segments:?}");
        assert_eq!(opened.lost.iter().copied().collect::<Vec<_>>(), lost, "{segments:?}");
        assert_eq!(opened.losses.len(), lost.len(), "{:?}", opened.losses);
        assert_eq!((opened.highest, opened.totals.objects), ((9, 120), 2));
    }
    // What is stale may name what was compacted away, and the log is read instead.
    let file = newest(dir.path());
    fs::write(&file, [fs::read(&file).unwrap(), vec![0; 100]].concat()).unwrap();
    assert_eq!(opened_among(dir.path(), both).reached, Some(REACHED));
    assert_eq!(opened_among(dir.path(), vec![(9, 4096)]).reached, None);
}

#[test]
fn a_snapshot_of_another_partition_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    let one = (0..).map(address).find(|address| address.partition(2) == 1).unwrap();
    let zero = (0..).map(address).find(|address| address.partition(2) == 0).unwrap();
    index.insert(one, place(3));
    checkpoint(&mut index, REACHED);
    let of = |partition| {
        let slot = OpenSlot::default();
        let of = Of { partition, partitions: 2, segments: segments() };
        open_job(dir.path().to_path_buf(), of, Arc::clone(&slot))().unwrap();
        slot.lock().unwrap().take().unwrap()
    };
    assert_eq!((of(0).foreign, of(1).foreign), (Some(1), None));
    index.insert(zero, place(3));
    checkpoint(&mut index, REACHED);
    // Not all of it: there is something to serve, and something wrong.
    for partition in 0..2 {
        let opened = of(partition);
        assert_eq!((opened.foreign, opened.losses.len()), (None, 1));
        assert!(opened.losses[0].contains("other partitions"), "{:?}", opened.losses);
    }
}

#[test]
fn the_index_of_an_older_release_is_made_anew_and_then_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
    index.insert(address(1), entry(1));
    checkpoint(&mut index, REACHED);
    for name in ["data.mdb", "lock.mdb"] {
        fs::write(dir.path().join(name), [7; 8192]).unwrap();
    }
    // An older release ran on it meanwhile, so that the snapshots say what was.
    let opened = opened(dir.path());
    assert_eq!(opened.reached, None);
    assert!(opened.notes[0].contains("older release"), "{:?}", opened.notes);
    assert!(View::open(dir.path()).unwrap().is_none());
    let mut index = Index::new(opened);
    index.insert(address(2), entry(2));
    let job = index.checkpoint(REACHED);
    assert!(dir.path().join("data.mdb").exists(), "until the snapshot is durable");
    job().unwrap();
    index.written(true);
    assert!(!dir.path().join("data.mdb").exists() && !dir.path().join("lock.mdb").exists());
    assert_eq!(all(&open(dir.path())), [(address(2), entry(2))]);
}

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

#[test]
fn tallies_and_the_mark_come_back_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(dir.path());
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
    checkpoint(&mut index, REACHED);
    let again = open(dir.path());
    assert_eq!((again.tally_of(3), again.tally_of(4)), (three, four));
    assert_eq!((again.mark(), again.live_bytes()), (&b"here"[..], three.live + four.live));
    index.remove(address(1));
    index.forget_segment(3);
    assert_eq!(index.live_bytes(), four.live);
    index.set_mark(b"there".to_vec());
    checkpoint(&mut index, REACHED);
    let again = open(dir.path());
    assert_eq!((again.tally_of(3), again.mark()), (Tally::default(), &b"there"[..]));
}

#[test]
fn a_view_sees_the_last_checkpoint_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(View::open(&dir.path().join("none")).unwrap().is_none());
    assert!(!dir.path().join("none").exists());
    let states = history(dir.path());
    let path = newest(dir.path());
    let whole = fs::read(&path).unwrap();
    let view = View::open(dir.path()).unwrap().unwrap();
    assert_eq!((view.position(), view.torn()), (REACHED.0, None));
    assert!(view.entries().collect::<Vec<_>>() == states[3].1);
    assert!(fs::read(&path).unwrap() == whole);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let view = View::open(dir.path()).unwrap().unwrap();
    assert!(view.torn().unwrap().contains("is cut"), "{:?}", view.torn());
    assert!(view.entries().collect::<Vec<_>>() == states[2].1);
    fs::write(&path, &whole[..4000]).unwrap();
    let error = View::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("block 0 is cut"), "{error}");
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing can be renamed over a folder that is not empty.
    let taken = dir.path().join("00000001.idx");
    fs::create_dir_all(taken.join("in the way")).unwrap();
    let mut index = open(dir.path());
    index.serve();
    index.insert(Address::of(b"one"), entry(1));
    let mut job = Some(index.checkpoint((Position { segment: 1, offset: 4096 }, 7)));
    let mut outcome = Ok(());
    while let Some(next) = job.take() {
        outcome = next();
        job = index.written(outcome.is_ok());
    }
    assert!(outcome.is_err());
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(dir.path()), ["00000001.idx"]);
    // What a process left that was killed while it wrote is removed by the next.
    fs::remove_dir_all(&taken).unwrap();
    fs::write(dir.path().join("00000009.tmp"), b"part").unwrap();
    fs::write(dir.path().join("mine.tmp"), b"another's").unwrap();
    open(dir.path());
    assert_eq!(names(dir.path()), ["mine.tmp"]);
}
