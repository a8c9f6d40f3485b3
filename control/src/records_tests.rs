use super::*;

const MIB: u64 = 1024 * 1024;

fn path(text: &str) -> NamePath {
    text.parse().unwrap()
}

fn address(seed: u8) -> Address {
    Address::from_bytes([seed; ADDRESS_LEN])
}

fn wanted(text: &str, seed: Option<u8>, expected: Expected) -> Wanted {
    Wanted { path: path(text), address: seed.map(address), expected, unix_ms: 5 }
}

fn set(records: &Records, text: &str, seed: u8) -> u64 {
    records.change(&wanted(text, Some(seed), Expected::Anything)).unwrap().version
}

fn paths(listed: &Listed) -> Vec<&str> {
    listed.records.iter().map(|record| record.path.as_str()).collect()
}

#[test]
fn what_was_changed_is_there_after_opening_again() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    assert_eq!(records.load().unwrap(), (0, Vec::new()));
    assert_eq!(set(&records, "/a", 1), 1);
    assert_eq!(set(&records, "/", 2), 2);
    let gone = records.change(&wanted("a", None, Expected::Version(1))).unwrap();
    assert_eq!((gone.version, gone.before, gone.after), (3, Some(address(1)), None));
    drop(records);
    let records = Records::open(data.path(), MIB).unwrap();
    assert_eq!(records.load().unwrap(), (3, vec![("/".to_owned(), [2; ADDRESS_LEN])]));
    let changes = records.changes(10).unwrap();
    assert_eq!(changes.last(), Some(&gone));
    assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(records.changes(1).unwrap(), [gone]);
}

#[test]
fn a_change_is_made_only_where_it_finds_what_it_expects() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    let outcome =
        |seed, expected| records.change(&wanted("/a", seed, expected)).map(|change| change.version);
    assert_eq!(outcome(None, Expected::Anything), Err(Fault::NotFound));
    assert_eq!(outcome(Some(1), Expected::Something), Err(Fault::Unexpected(None)));
    assert_eq!(outcome(Some(1), Expected::Version(0)), Err(Fault::Unexpected(None)));
    assert_eq!(outcome(Some(1), Expected::Nothing), Ok(1));
    assert_eq!(outcome(Some(1), Expected::Nothing), Err(Fault::Unexpected(Some(1))));
    assert_eq!(set(&records, "/b", 1), 2);
    assert_eq!(outcome(Some(2), Expected::Version(2)), Err(Fault::Unexpected(Some(1))));
    assert_eq!(outcome(Some(2), Expected::Version(1)), Ok(3));
    assert_eq!(outcome(None, Expected::Something), Ok(4));
    assert_eq!(records.load().unwrap().0, 4, "what was refused is no version");
}

#[test]
fn names_are_listed_below_a_prefix_and_page_by_page() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    for text in ["/tiles/2", "/tiles", "/tiles-x", "/tiles/1/a", "/", "/tilesz", "/z"] {
        set(&records, text, 1);
    }
    let list = |prefix, after: Option<&str>, most| {
        records.list(&path(prefix), after.map(path).as_ref(), most).unwrap()
    };
    let all = list("/", None, 10);
    let sorted = ["/", "/tiles", "/tiles-x", "/tiles/1/a", "/tiles/2", "/tilesz", "/z"];
    assert_eq!((paths(&all), all.more, all.version), (sorted.to_vec(), false, 7));
    let tiles = list("tiles/", None, 10);
    assert_eq!(paths(&tiles), ["/tiles", "/tiles/1/a", "/tiles/2"]);
    assert_eq!(paths(&list("/tiles", Some("/tiles/1/a"), 10)), ["/tiles/2"]);
    assert_eq!(paths(&list("/tiles", Some("/z"), 10)), [""; 0]);
    for prefix in ["/", "/tiles"] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = list(prefix, after.as_deref(), 1);
            paged.extend(paths(&page).into_iter().map(str::to_owned));
            if !page.more {
                break;
            }
            after = paged.last().cloned();
        }
        assert_eq!(paged, paths(&list(prefix, None, 10)), "{prefix}");
    }
}

#[test]
fn the_longest_path_is_a_key() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    let longest = format!("/{}", "x".repeat(ron_codec::limits::NAME_PATH_LEN_MAX - 1));
    set(&records, &longest, 7);
    assert_eq!(records.get(&path(&longest)).unwrap().unwrap().address, address(7));
}

#[test]
fn the_last_changes_are_kept_and_no_others() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), 4 * MIB).unwrap();
    let mut last = 0;
    for at in 0..NAME_CHANGES_KEPT + 20 {
        last = set(&records, "/a", at as u8);
    }
    let changes = records.changes(usize::MAX).unwrap();
    assert_eq!(changes.len(), NAME_CHANGES_KEPT);
    assert_eq!((changes[0].version, changes.last().unwrap().version), (21, last));
}

#[test]
fn a_store_that_is_full_says_so_and_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    let mut at = 0;
    let fault = loop {
        let text = format!("/{}/{at}", "x".repeat(900));
        match records.change(&wanted(&text, Some(1), Expected::Anything)) {
            Ok(_) => at += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault, Fault::StoreFull);
    assert!(at > 100, "{at} names fit a mebibyte");
    let (version, names) = records.load().unwrap();
    assert_eq!((version, names.len()), (at, at as usize), "what was refused left nothing");
    drop(records);
    let records = Records::open(data.path(), 2 * MIB).unwrap();
    assert_eq!(set(&records, "/more", 1), at + 1);
}

/// Changes bytes of the file where they are found, all of them.
fn replace(data: &Path, from: &[u8], to: &[u8]) {
    let file = data.join(FOLDER).join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[*at..*at + to.len()].copy_from_slice(to));
    fs::write(&file, bytes).unwrap();
}

fn opened(data: &Path) -> Result<(u64, usize), RecordsError> {
    let (version, names) = Records::open(data, MIB)?.load()?;
    Ok((version, names.len()))
}

#[test]
fn damage_is_found_at_the_start() {
    for (from, to) in [
        (&[0x77; ADDRESS_LEN][..], &[0x76][..]),
        (b"/somewhere", b"/somewhera"),
        (b"names_version", b"names_versiom"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let records = Records::open(data.path(), MIB).unwrap();
        set(&records, "/somewhere", 0x77);
        drop(records);
        assert_eq!(opened(data.path()).unwrap(), (1, 1));
        replace(data.path(), from, to);
        let found = opened(data.path());
        if from == b"names_version" {
            // A version that is gone would be given again.
            assert!(matches!(found, Err(RecordsError::Damaged { .. })), "{found:?}");
        } else {
            let error = found.unwrap_err().to_string();
            assert!(error.contains("does not match its checksum"), "{error}");
        }
    }
}

#[test]
fn damage_of_the_log_is_found_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    set(&records, "/somewhere", 0x77);
    set(&records, "/somewhere", 0x78);
    drop(records);
    assert_eq!(opened(data.path()).unwrap(), (2, 1));
    // Only the log knows what the name was given to before.
    replace(data.path(), &[0x77; ADDRESS_LEN], &[0x76]);
    let error = opened(data.path()).unwrap_err().to_string();
    assert!(error.contains("does not match its checksum"), "{error}");
}

#[test]
fn a_file_that_was_cut_or_is_another_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let records = Records::open(data.path(), MIB).unwrap();
    for at in 0..50 {
        set(&records, &format!("/{}/{at}", "x".repeat(500)), 1);
    }
    drop(records);
    let file = data.path().join(FOLDER).join(FILE);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..(whole.len() / 2) & !4095]).unwrap();
    let error = opened(data.path()).unwrap_err().to_string();
    assert!(error.contains("is damaged: data.mdb has"), "{error}");
    fs::write(&file, [7; 16384]).unwrap();
    let error = opened(data.path()).unwrap_err();
    assert!(matches!(error, RecordsError::Damaged { .. }), "{error}");
    fs::write(&file, &whole).unwrap();
    assert_eq!(opened(data.path()).unwrap(), (50, 50));
}

#[test]
fn a_newer_format_is_refused() {
    let data = tempfile::tempdir().unwrap();
    drop(Records::open(data.path(), MIB).unwrap());
    let value = |format: u64| sealed(META_FORMAT, format.to_le_bytes().to_vec());
    replace(data.path(), &value(FORMAT), &value(FORMAT + 1));
    let error = opened(data.path()).unwrap_err().to_string();
    assert!(error.contains("has format 2, and this release knows 1"), "{error}");
}
