//! A file system that runs full: nothing is lost, nothing crashes, and it heals by itself.
//!
//! The file system is a small one of its own, which only root may mount; others skip this.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::common::{DEADLINE, KIB, MIB, Node, Object, assert_same, http::Peer, object};
use tempfile::TempDir;

/// Bytes of the file system.
const FS_LEN: usize = 96 * MIB;

/// Files and folders that a tmpfs may have.
const INODES: usize = 4000;

/// A mounted file system of its own, gone with this.
struct Mounted {
    dir: TempDir,
    mounted: bool,
}

impl Mounted {
    /// A small file system of this kind; `None`, which is said, where it cannot be had.
    fn new(kind: &str) -> Option<Mounted> {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let at = dir.path().join("mounted");
        fs::create_dir(&at).expect("a directory can be made");
        let size = format!("size={FS_LEN}");
        let mut mounted = Mounted { dir, mounted: false };
        let done = match kind {
            "tmpfs" => {
                let options = format!("{size},nr_inodes={INODES}");
                run("mount", &["-t", "tmpfs", "-o", &options, "none", text(&at)])
            }
            _ => {
                let image = mounted.dir.path().join("image");
                let file = fs::File::create(&image).expect("a file can be made");
                file.set_len(FS_LEN as u64).expect("it can be long");
                run("mkfs.ext4", &["-q", "-F", text(&image)])
                    && run("mount", &["-o", "loop", text(&image), text(&at)])
            }
        };
        if !done {
            crate::common::skipped(&format!("no {kind} can be mounted here"));
            return None;
        }
        mounted.mounted = true;
        Some(mounted)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            run("umount", &["-l", text(&self.path())]);
        }
    }
}

fn run(command: &str, args: &[&str]) -> bool {
    Command::new(command).args(args).output().is_ok_and(|output| output.status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn start(at: &Path, reserve: &str) -> Node {
    let data = crate::common::Data::new();
    let dir = at.join("data");
    let args = ["--data-dirs", text(&dir), "--storage-reserve", reserve];
    data.setup().args(&args).start()
}

fn put(node: &Node, object: &Object) -> u16 {
    let answer = Peer::new(node.connect()).try_put(&object.addr, &object.bytes);
    // A long object is refused before all of it came. Who only writes until then may find the
    // connection closed instead of the answer.
    answer.map_or(507, |answer| answer.status)
}

fn delete(node: &Node, object: &Object) -> u16 {
    let mut peer = Peer::new(node.connect());
    peer.send(format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", object.addr).as_bytes());
    peer.response("DELETE").status
}

fn check(node: &Node, objects: &[Object]) {
    let mut peer = Peer::new(node.connect());
    for object in objects {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200, "{} bytes", object.bytes.len());
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
}

/// Stores objects of every kind until one is refused for want of space. Returns those stored.
fn fill(node: &Node, first_seed: u64) -> Vec<Object> {
    let sizes = [300 * KIB, MIB, 3 * MIB, 5000, 700 * KIB, 70 * KIB];
    let mut stored = Vec::new();
    for seed in first_seed..first_seed + 1000 {
        let object = object(seed, sizes[seed as usize % sizes.len()]);
        match put(node, &object) {
            201 => stored.push(object),
            507 => return stored,
            status => panic!("{status} after {} objects", stored.len()),
        }
    }
    panic!("{} objects fit", stored.len());
}

/// Stores an object as soon as there is space for it.
fn put_when_possible(node: &Node, object: &Object) {
    let until = Instant::now() + DEADLINE;
    while put(node, object) != 201 {
        assert!(Instant::now() < until, "there is space, and it is not used");
    }
}

/// The reserve keeps space for deletions, and what they free is used again.
fn deletes_free_space(at: &Path) {
    let node = start(at, "16MiB");
    let mut stored = fill(&node, 1);
    check(&node, &stored);
    for object in stored.drain(4..) {
        assert_eq!(delete(&node, &object), 204);
    }
    let more: Vec<Object> = (0..20).map(|seed| object(5000 + seed, 2 * MIB)).collect();
    more.iter().for_each(|object| put_when_possible(&node, object));
    check(&node, &stored);
    check(&node, &more);
    node.terminate();
    let node = start(at, "16MiB");
    check(&node, &stored);
    check(&node, &more);
    for object in stored.iter().chain(&more) {
        assert_eq!(delete(&node, object), 204);
    }
    node.terminate();
}

/// Somebody else takes the last byte, and gives it back.
fn others_fill_the_disk(at: &Path) {
    let node = start(at, "0");
    let stored: Vec<Object> = (0..12).map(|seed| object(9000 + seed, 1 + 500 * KIB)).collect();
    stored.iter().for_each(|object| put_when_possible(&node, object));
    let filler = at.join("filler");
    let mut file = fs::File::create(&filler).expect("a file can be made");
    let chunk = vec![1; MIB];
    while file.write_all(&chunk).and_then(|()| file.sync_data()).is_ok() {}
    while file.write_all(&chunk[..KIB]).is_ok() {}
    let (small, large) = (object(1, 4000), object(2, 4 * MIB));
    let more = object(3, 900 * KIB);
    for object in [&more, &large, &small, &more] {
        let status = put(&node, object);
        // A small one may still find its place in a block that is there.
        assert!(status == 507 || (status == 201 && object.bytes.len() < 5000), "{status}");
    }
    check(&node, &stored);
    drop(file);
    fs::remove_file(&filler).expect("the file is there");
    put_when_possible(&node, &more);
    put_when_possible(&node, &large);
    check(&node, &stored);
    node.kill();
    let node = start(at, "0");
    check(&node, &stored);
    check(&node, &[more, large]);
    node.terminate();
}

fn on(kind: &str) {
    if let Some(mounted) = Mounted::new(kind) {
        deletes_free_space(&mounted.path());
        others_fill_the_disk(&mounted.path());
    }
}

#[test]
fn a_full_ext4_loses_nothing_and_recovers() {
    on("ext4");
}

#[test]
fn a_full_tmpfs_loses_nothing_and_recovers() {
    on("tmpfs");
}

/// Somebody else makes so many files that few more can be made, though there is space for bytes.
#[test]
fn without_inodes_objects_are_refused_and_deletions_go_on() {
    let Some(mounted) = Mounted::new("tmpfs") else { return };
    let at = mounted.path();
    let node = start(&at, "1MiB");
    let stored: Vec<Object> = (0..4).map(|seed| object(seed, MIB + 5)).collect();
    stored.iter().for_each(|object| assert_eq!(put(&node, object), 201));
    let fillers = at.join("fillers");
    fs::create_dir(&fillers).expect("a folder can be made");
    let free = || {
        let facts = Command::new("stat").args(["-f", "-c", "%d", text(&at)]).output();
        let facts = String::from_utf8(facts.expect("stat is there").stdout).expect("text");
        facts.trim().parse::<usize>().expect("a number")
    };
    for nth in 0..free() - INODES / 16 + 10 {
        fs::File::create(fillers.join(nth.to_string())).expect("a file can be made");
    }
    let until = Instant::now() + DEADLINE;
    let mut more = Vec::new();
    for seed in 100.. {
        let object = object(seed, 9000);
        match put(&node, &object) {
            201 => more.push(object),
            status => {
                assert_eq!(status, 507);
                break;
            }
        }
        assert!(Instant::now() < until, "few inodes are free, and objects are taken");
    }
    node.wait_stderr("few of its inodes are free");
    assert_eq!(delete(&node, &stored[0]), 204);
    check(&node, &stored[1..]);
    check(&node, &more);
    // What is left is enough for a checkpoint, and for the next process.
    node.terminate();
    let node = start(&at, "1MiB");
    assert_eq!(node.metrics().sum("ron_partitions{state=\"read_only\"}"), 0);
    check(&node, &more);
    fs::remove_dir_all(&fillers).expect("it can be removed");
    put_when_possible(&node, &stored[0]);
    check(&node, &stored);
    node.terminate();
}
