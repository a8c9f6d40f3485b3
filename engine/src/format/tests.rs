use std::io;

use super::*;

use file::{COPY_FILE, FORMAT_FILE, TEMPORARY_FILE};
use folders::refused;

/// Paths of so many directories that do not exist.
fn paths(root: &tempfile::TempDir, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| root.path().join(name)).collect()
}

fn open(paths: &[PathBuf]) -> Result<DataDirs, DataDirError> {
    DataDirs::open(paths, 4)
}

fn place(path: &Path) -> Place {
    Format::read(path).unwrap().unwrap().place.unwrap()
}

/// What a node leaves in a volume that it served.
fn serve(path: &Path) {
    fs::create_dir_all(path.join("p000/segments")).unwrap();
}

#[test]
fn a_directory_is_made_once_and_keeps_its_partitions() {
    let root = tempfile::tempdir().unwrap();
    let path = paths(&root, &["a/b/data"]);
    let made = DataDirs::open(&path, 3).unwrap();
    assert!(made.created() && made.partitions() == 3 && made.paths() == path);
    let text = fs::read_to_string(path[0].join(FORMAT_FILE)).unwrap();
    assert!(text.starts_with("{\"format\":1,\"partitions\":3,\"checksum\":\""), "{text}");
    drop(made);
    let again = DataDirs::open(&path, 7).unwrap();
    assert!(!again.created() && again.partitions() == 3);
    let second = DataDirs::open(&path, 3).unwrap_err();
    assert!(matches!(second, DataDirError::Locked { pid: Some(_), .. }));
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    serve(root.path());
    let error = open(&[root.path().to_owned()]).unwrap_err();
    assert!(matches!(&error, DataDirError::Foreign { entry, .. } if entry == "p000"));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing is made there");
}

#[test]
fn damage_is_no_reason_to_start_afresh() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(FORMAT_FILE), "{").unwrap();
    let error = open(&[root.path().to_owned()]).unwrap_err();
    assert!(matches!(error, DataDirError::Damaged { .. }));
    assert_eq!(fs::read_to_string(root.path().join(FORMAT_FILE)).unwrap(), "{");
}

#[test]
fn a_damaged_format_is_made_anew_from_its_copy() {
    let root = tempfile::tempdir().unwrap();
    let path = paths(&root, &["data"]);
    drop(DataDirs::open(&path, 3).unwrap());
    let format = path[0].join(FORMAT_FILE);
    let before = fs::read_to_string(&format).unwrap();
    fs::write(&format, before.replace("ns\":3", "ns\":7")).unwrap();
    let opened = DataDirs::open(&path, 3).unwrap();
    assert_eq!(opened.partitions(), 3);
    assert!(matches!(opened.repaired(), [one] if one.path == format && one.failed.is_none()));
    assert_eq!(fs::read_to_string(&format).unwrap(), before);
    drop(opened);
    assert!(DataDirs::open(&path, 3).unwrap().repaired().is_empty());
}

#[test]
fn a_file_in_the_way_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    fs::write(&path, "").unwrap();
    let said = open(std::slice::from_ref(&path)).unwrap_err().to_string();
    assert!(said.contains(&format!("{path:?}")), "{said}");
}

#[test]
fn volumes_say_which_they_are() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b", "c"]);
    let made = DataDirs::open(&all, 6).unwrap();
    assert!(made.created() && made.absent().is_empty() && made.first_present() == all[0]);
    let id = place(&all[0]).id;
    for (volume, path) in (0..).zip(&all) {
        assert_eq!(place(path), Place { id, volumes: 3, volume });
        assert!(matches!(lock(path), Err(DataDirError::Locked { .. })));
    }
    drop(made);
    let again = DataDirs::open(&all, 9).unwrap();
    assert!(!again.created() && again.partitions() == 6);
    let other = tempfile::tempdir().unwrap();
    let others = paths(&other, &["a", "b"]);
    drop(open(&others).unwrap());
    assert_ne!(place(&others[0]).id, id);
}

#[test]
fn volumes_keep_their_order_and_number() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    let other = paths(&root, &["x", "y"]);
    drop(open(&other).unwrap());
    let single = paths(&root, &["single"]);
    drop(open(&single).unwrap());
    let [a, b, x, y] = [&all[0], &all[1], &other[0], &other[1]].map(Clone::clone);
    let s = single[0].clone();
    let new = root.path().join("new");
    for (named, wrong) in [
        (vec![b.clone(), a.clone()], &b),
        (vec![a.clone(), y.clone()], &y),
        (vec![a.clone(), x.clone()], &x),
        (vec![a.clone()], &a),
        (vec![b.clone()], &b),
        (vec![a.clone(), b.clone(), new.clone()], &a),
        (vec![a.clone(), s.clone()], &s),
        (vec![s.clone(), new.clone()], &s),
    ] {
        let error = open(&named).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, DataDirError::Misplaced { .. }), "{named:?}: {said}");
        assert!(said.starts_with(&format!("{wrong:?} is ")), "{named:?}: {said}");
        assert!(!new.exists(), "nothing is made");
    }
    let said = open(&[b, a]).unwrap_err().to_string();
    assert!(said.contains("is volume 1 of 2") && said.contains("volume 0 of 2"), "{said}");
}

#[test]
fn a_missing_volume_is_absent_and_an_empty_one_refused() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b", "c"]);
    drop(open(&all).unwrap());
    all.iter().for_each(|path| serve(path));
    let id = place(&all[0]).id;
    fs::remove_dir_all(&all[0]).unwrap();
    let opened = open(&all).unwrap();
    assert_eq!(opened.absent().len(), 1);
    assert_eq!((opened.absent()[0].volume, opened.first_present()), (0, all[1].as_path()));
    assert!(matches!(opened.absent()[0].why, DataDirError::Missing { .. }));
    assert!(!all[0].exists(), "nothing is made where a disk should be");
    drop(opened);

    fs::create_dir(&all[0]).unwrap();
    let error = open(&all).unwrap_err();
    let expected = Place { id, volumes: 3, volume: 0 };
    assert!(matches!(&error, DataDirError::Emptied { expected: e, .. } if *e == expected));
    assert!(error.to_string().contains("mount"), "{error}");
    assert_eq!(fs::read_dir(&all[0]).unwrap().count(), 0, "not even a lock is made");
}

#[test]
fn a_volume_that_cannot_be_listed_or_locked_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    all.iter().for_each(|path| serve(path));
    // A lock that is a directory cannot be opened for writing, even by root.
    fs::remove_file(all[1].join("lock")).unwrap();
    fs::create_dir(all[1].join("lock")).unwrap();
    let opened = open(&all).unwrap();
    assert_eq!(opened.absent()[0].volume, 1);
    assert!(matches!(opened.absent()[0].why, DataDirError::Io { .. }));
    drop(opened);
    // The only one is not given up so easily.
    let single = paths(&root, &["single"]);
    fs::create_dir_all(single[0].join("lock")).unwrap();
    assert!(matches!(open(&single), Err(DataDirError::Io { .. })));
    let error = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    let states = vec![State::Unusable(refused("list", &single[0])(error))];
    assert!(matches!(Plan::of(&single, states), Err(DataDirError::Io { .. })));
}

#[test]
fn the_folder_of_a_partition_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    let folders = [all[0].join("p000"), all[1].join("p001"), all[0].join("p002")];
    assert!(folders.iter().all(|folder| folder.is_dir()) && !all[0].join("p001").exists());
    // One that is gone is not made anew, whether others hold something, nothing, or are gone too.
    fs::create_dir(folders[2].join("segments")).unwrap();
    fs::remove_dir(&folders[0]).unwrap();
    fs::remove_dir(&folders[1]).unwrap();
    fs::remove_dir(all[1].join("p003")).unwrap();
    for _ in 0..2 {
        let opened = open(&all).unwrap();
        let lost: Vec<_> = opened.lost().map(|(number, _)| number).collect();
        assert_eq!(lost, [0, 1, 3]);
        assert!(!folders[0].exists() && !folders[1].exists());
    }
    fs::create_dir(&folders[0]).unwrap();
    assert_eq!(open(&all).unwrap().lost().count(), 2, "the loss is accepted");
}

/// An empty disk that is to take the place of one that is lost, as the operator's guide says.
#[test]
fn a_volume_that_is_described_by_hand_is_made_to_the_end() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    serve(&all[0]);
    let text = fs::read_to_string(all[1].join(FORMAT_FILE)).unwrap();
    fs::remove_dir_all(&all[1]).unwrap();
    fs::create_dir(&all[1]).unwrap();
    let without = format!("{}}}", text.split(",\"checksum\"").next().unwrap());
    fs::write(all[1].join(FORMAT_FILE), without).unwrap();
    assert_eq!(open(&all).unwrap().lost().count(), 0);
    assert!(all[1].join("p001").is_dir());
    fs::remove_dir(all[1].join("p001")).unwrap();
    assert_eq!(open(&all).unwrap().lost().count(), 1, "from now on it is the node's");
}

#[test]
fn a_directory_of_a_newer_release_is_refused_though_its_copy_is_older() {
    let root = tempfile::tempdir().unwrap();
    let path = paths(&root, &["data"]);
    drop(open(&path).unwrap());
    for (newer, older) in [(FORMAT_FILE, COPY_FILE), (COPY_FILE, FORMAT_FILE)] {
        let [newer, older] = [newer, older].map(|name| path[0].join(name));
        let before = fs::read(&newer).unwrap();
        let mut text = "{\"format\":2,\"parts\":[4]}".to_owned();
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.insert_str(text.len() - 1, &format!(",\"checksum\":\"{}\"", &hash[..32]));
        fs::write(&newer, format!("{text}\n")).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::UnknownFormat { found: 2, .. }), "{refused}");
        assert!(fs::read_to_string(&newer).unwrap().starts_with(&text), "it is left as it is");
        assert_eq!(fs::read(&older).unwrap(), before);
        fs::write(&newer, before).unwrap();
    }
}

#[test]
fn volumes_are_made_to_the_end() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    let id = place(&all[0]).id;
    // As after a crash while the second was being made: folders of partitions come after all.
    for (volume, folder) in [(0, "p000"), (0, "p002"), (1, "p001"), (1, "p003")] {
        fs::remove_dir(all[volume].join(folder)).unwrap();
    }
    fs::rename(all[1].join(FORMAT_FILE), all[1].join(TEMPORARY_FILE)).unwrap();
    drop(open(&all).unwrap());
    assert_eq!(place(&all[1]), Place { id, volumes: 2, volume: 1 });
}

#[test]
fn one_directory_is_not_two_volumes() {
    let root = tempfile::tempdir().unwrap();
    let named = [root.path().join("a"), root.path().join("a/.")];
    assert!(matches!(open(&named), Err(DataDirError::Twice { .. })));
}

#[test]
fn all_volumes_are_locked() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b"]);
    drop(open(&all).unwrap());
    let held = lock(&all[1]).unwrap();
    assert!(matches!(open(&all), Err(DataDirError::Locked { path, .. }) if path == all[1]));
    drop(held);
    assert!(open(&all).is_ok());
}

#[test]
fn a_stopped_node_is_looked_at_in_any_order() {
    let root = tempfile::tempdir().unwrap();
    let all = paths(&root, &["a", "b", "c"]);
    let running = open(&all).unwrap();
    assert!(matches!(Stopped::open(&all), Err(DataDirError::Locked { .. })));
    drop(running);
    let named = [all[2].clone(), all[0].clone()];
    let stopped = Stopped::open(&named).unwrap();
    assert_eq!(stopped.volumes, [Some(all[0].clone()), None, Some(all[2].clone())]);
    assert_eq!(stopped.partitions, 4);
    assert!(matches!(open(&all), Err(DataDirError::Locked { .. })));
    drop(stopped);
    let twice = [all[2].clone(), all[2].clone()];
    assert!(matches!(Stopped::open(&twice), Err(DataDirError::Twice { .. })));

    let single = paths(&root, &["s", "t"]);
    single.iter().for_each(|path| drop(open(std::slice::from_ref(path)).unwrap()));
    assert_eq!(Stopped::open(&single[..1]).unwrap().volumes, [Some(single[0].clone())]);
    let same = [single[0].clone(), single[0].clone()];
    assert!(matches!(Stopped::open(&same), Err(DataDirError::Twice { .. })));
    for mixed in [[&all[0], &single[0]], [&single[0], &all[0]], [&single[0], &single[1]]] {
        let error = Stopped::open(&mixed.map(Clone::clone)).unwrap_err();
        assert!(matches!(error, DataDirError::Misplaced { .. }), "{mixed:?}: {error}");
    }
    let none = [root.path().join("none")];
    assert!(matches!(Stopped::open(&none), Err(DataDirError::Missing { .. })));
    fs::create_dir(&none[0]).unwrap();
    assert!(matches!(Stopped::open(&none), Err(DataDirError::Nothing { .. })));
    assert_eq!(fs::read_dir(&none[0]).unwrap().count(), 0, "nothing is made there");
}
