//! What a start believes of the snapshots that it finds.

use super::*;

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
        let told = opened
            .notes
            .iter()
            .any(|note| matches!(note, Finding::Unusable { why: Unusable::Order { .. }, .. }));
        assert_eq!(told, at != other, "{:?}", opened.notes);
    }
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
    assert!(
        opened.notes[0].to_string().contains("does not match its checksum"),
        "{:?}",
        opened.notes
    );
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
    assert!(
        stale.notes.iter().any(|note| matches!(note, Finding::Dropped { entries: 1 })),
        "{:?}",
        stale.notes
    );
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
        assert!(
            matches!(opened.losses[0], Loss::Strangers { objects: 1, .. }),
            "{:?}",
            opened.losses
        );
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
    assert!(matches!(opened.notes[0], Finding::OlderRelease), "{:?}", opened.notes);
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

#[test]
fn a_view_sees_the_last_checkpoint_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(View::open(&dir.path().join("none")).unwrap().is_none());
    assert!(!dir.path().join("none").exists());
    let states = history(dir.path());
    let path = newest(dir.path());
    let whole = fs::read(&path).unwrap();
    let view = View::open(dir.path()).unwrap().unwrap();
    assert!(view.position() == REACHED.0 && view.torn().is_none());
    assert!(view.entries().collect::<Vec<_>>() == states[3].1);
    assert!(fs::read(&path).unwrap() == whole);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let view = View::open(dir.path()).unwrap().unwrap();
    assert!(matches!(view.torn(), Some(Unusable::Cut { .. })), "{:?}", view.torn());
    assert!(view.entries().collect::<Vec<_>>() == states[2].1);
    fs::write(&path, &whole[..4000]).unwrap();
    let error = View::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("block 0 is cut"), "{error}");
}
