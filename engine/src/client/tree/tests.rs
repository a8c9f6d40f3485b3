//! Trees that are meant well, and others.

use std::{ffi::CString, io::Read, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn make(dir: &TempDir, path: &str) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, path.to_str().unwrap().len().to_string()).unwrap();
}

fn walk(dir: &TempDir, follow_links: bool) -> Walked {
    Tree::open(dir.path(), follow_links).unwrap().walk()
}

fn paths(walked: &Walked) -> Vec<&str> {
    walked.files.iter().map(|found| found.path.as_str()).collect()
}

/// The only fault, which names this path.
fn fault(walked: &Walked, dir: &TempDir, path: impl AsRef<Path>) -> TreeFault {
    let [ClientError::Tree { path: named, why }] = &walked.faults[..] else {
        panic!("{:?}", walked.faults);
    };
    assert_eq!(*named, dir.path().join(path));
    assert_eq!(walked.faults_len, 1);
    why.clone()
}

#[test]
fn files_are_sorted_by_the_bytes_of_their_paths() {
    let dir = dir();
    for path in ["b/x", "a", "b.txt", ".hidden/file", "b/a/z", "B", "ä", "b-"] {
        make(&dir, path);
    }
    fs::create_dir_all(dir.path().join("empty/within")).unwrap();
    let walked = walk(&dir, false);
    let sorted = [".hidden/file", "B", "a", "b-", "b.txt", "b/a/z", "b/x", "ä"];
    assert_eq!((paths(&walked), walked.faults_len), (sorted.to_vec(), 0));
    assert_eq!(walked.bytes(), 8 * 2);
}

#[test]
fn a_file_is_a_tree_of_one() {
    let dir = dir();
    make(&dir, "file");
    symlink("file", dir.path().join("link")).unwrap();
    for name in ["file", "link"] {
        let tree = Tree::open(&dir.path().join(name), false).unwrap();
        let walked = tree.walk();
        assert_eq!(paths(&walked), [name]);
        let mut text = String::new();
        tree.open_file(&walked.files[0]).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, walked.files[0].len);
    }
    for reserved in ["Manifest.toml", "payload.bin"] {
        make(&dir, reserved);
        let walked = Tree::open(&dir.path().join(reserved), false).unwrap().walk();
        assert_eq!(walked.faults_len, 1);
    }
    assert!(matches!(Tree::open(Path::new("/dev/null"), false), Err(ClientError::Tree { .. })));
    let missing = dir.path().join("none");
    assert!(matches!(Tree::open(&missing, false), Err(ClientError::File { .. })));
}

#[test]
fn links_are_refused_or_stay_inside() {
    let dir = dir();
    make(&dir, "a/file");
    symlink("a/file", dir.path().join("link")).unwrap();
    assert_eq!(fault(&walk(&dir, false), &dir, "link"), TreeFault::Link);
    symlink("../a", dir.path().join("a/back")).unwrap();
    let walked = walk(&dir, true);
    assert_eq!(fault(&walked, &dir, "a/back"), TreeFault::LinkLoop);
    assert_eq!(paths(&walked), ["a/file", "link"]);
    fs::remove_file(dir.path().join("a/back")).unwrap();
    fs::create_dir(dir.path().join("b")).unwrap();
    symlink("../a", dir.path().join("b/other")).unwrap();
    let tree = Tree::open(dir.path(), true).unwrap();
    let walked = tree.walk();
    assert_eq!((paths(&walked), walked.faults_len), (vec!["a/file", "b/other/file", "link"], 0));
    walked.files.iter().for_each(|found| drop(tree.open_file(found).unwrap()));
    for target in ["/etc/passwd", "../../..", "nowhere"] {
        let link = dir.path().join("b/out");
        symlink(target, &link).unwrap();
        assert_eq!(fault(&walk(&dir, true), &dir, "b/out"), TreeFault::LinkOut, "{target}");
        fs::remove_file(link).unwrap();
    }
    // Each directory has two links to the next: as many paths as anybody likes.
    symlink(".", dir.path().join("self")).unwrap();
    assert_eq!(fault(&walk(&dir, true), &dir, "self"), TreeFault::LinkLoop);
}

#[test]
fn names_that_no_manifest_has() {
    for (name, why) in [
        (&b"new\nline"[..], TreeFault::Path(PathFault::Control)),
        (b"\x7f", TreeFault::Path(PathFault::Control)),
        (b"caf\xe9", TreeFault::NotUtf8),
        (b"Manifest.toml", TreeFault::Path(PathFault::Reserved)),
        (b"payload.bin", TreeFault::Path(PathFault::Reserved)),
    ] {
        let (dir, name) = (dir(), OsStr::from_bytes(name));
        fs::write(dir.path().join(name), b"").unwrap();
        make(&dir, "good");
        let walked = walk(&dir, false);
        assert_eq!(fault(&walked, &dir, name), why);
        assert_eq!(paths(&walked), ["good"]);
    }
    // Below the top, and of directories, they are names as any.
    let dir = dir();
    make(&dir, "Manifest.toml/payload.bin");
    assert_eq!(paths(&walk(&dir, false)), ["Manifest.toml/payload.bin"]);
}

#[test]
fn what_is_no_file_is_named() {
    let dir = dir();
    let fifo = CString::new(dir.path().join("fifo").into_os_string().into_encoded_bytes());
    rustix::fs::mkfifoat(CWD, fifo.unwrap(), Mode::RUSR).unwrap();
    assert_eq!(fault(&walk(&dir, false), &dir, "fifo"), TreeFault::Special("FIFO"));
    fs::remove_file(dir.path().join("fifo")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(fault(&walk(&dir, false), &dir, "socket"), TreeFault::Special("socket"));
}

#[test]
fn directories_without_end_end() {
    let dir = dir();
    let mut opened = openat(CWD, dir.path(), DIRECTORY, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..20 {
        rustix::fs::mkdirat(&opened, &name, Mode::RWXU).unwrap();
        opened = openat(&opened, &name, DIRECTORY, Mode::empty()).unwrap();
    }
    let walked = walk(&dir, false);
    let path = [name.as_str(); 6].join("/");
    assert_eq!(fault(&walked, &dir, path), TreeFault::Path(PathFault::TooLong));
    drop(opened);
    let dir = super::tests::dir();
    (0..10).for_each(|at| make(&dir, &format!("{at}/file")));
    let mut tree = Tree::open(dir.path(), false).unwrap();
    tree.entries_max = 20;
    assert_eq!(tree.walk().faults_len, 0);
    tree.entries_max = 19;
    assert_eq!(fault(&tree.walk(), &dir, ""), TreeFault::TooMany { max: 19 });
}

#[test]
fn many_faults_are_counted_and_some_are_kept() {
    let dir = dir();
    (0..50).for_each(|at| symlink("x", dir.path().join(at.to_string())).unwrap());
    let walked = walk(&dir, false);
    assert_eq!((walked.faults_len, walked.faults.len()), (50, FAULTS_KEPT_MAX));
}

/// Between the walk and the reading of a file somebody puts something else in its place.
#[test]
fn what_was_exchanged_is_not_opened() {
    let (dir, outside) = (dir(), super::tests::dir());
    make(&dir, "a/file");
    make(&outside, "file");
    let tree = Tree::open(dir.path(), true).unwrap();
    let found = tree.walk().files.remove(0);
    let file = dir.path().join("a/file");
    fs::remove_file(&file).unwrap();
    symlink(outside.path().join("file"), &file).unwrap();
    assert!(matches!(tree.open_file(&found), Err(ClientError::Changed { .. })));
    fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(CWD, &file, Mode::RUSR).unwrap();
    assert!(matches!(tree.open_file(&found), Err(ClientError::Changed { .. })));
    fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    symlink(outside.path(), dir.path().join("a")).unwrap();
    assert!(matches!(tree.open_file(&found), Err(ClientError::Changed { .. })));
}
