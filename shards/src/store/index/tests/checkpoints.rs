//! What checkpoints write comes back, whether it is a base or behind one, and whatever failed.

use ron_io::ports::JobError;

use super::*;

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
        index.count_tombstone(3);
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
            // It is reported as failed, whether it was run or not.
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
        let found = bytes.len() as u64;
        assert!(matches!(error, JobError::Length { found: is, .. } if is == found), "{error}");
        assert!(fs::read(newest(dir.path())).unwrap() == bytes, "nothing is written");
        // The next one is a file of its own, with all.
        index.written(false);
        checkpoint(&mut index, REACHED);
        assert!(all(&open(dir.path())) == all(&index));
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
    index.count_tombstone(3);
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
