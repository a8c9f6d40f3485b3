//! `ronctl fsck` on what a real node left: it finds what is damaged, and only that.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{
    Data, GROUP, KIB, MIB, Node, Object, assert_same, clean_environment, connect, curl::Curl,
    http::Peer, object, run,
};
use serde_json::Value;

/// Runs the check; its exit code, its findings, and its summary.
fn fsck(dirs: &[&Path], args: &[&str]) -> (i32, Vec<Value>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    let out = run(command.arg("fsck").args(dirs).args(args).arg("--json"), b"");
    let text = String::from_utf8(out.stdout).expect("it is text");
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let said = String::from_utf8_lossy(&out.stderr);
    if out.code == 2 {
        assert!(lines.is_empty(), "{text}");
        return (2, lines, Value::String(said.into_owned()));
    }
    let summary = lines.pop().expect("there is a summary")["summary"].clone();
    assert_eq!(said.contains(" damaged"), out.code == 1, "{said}");
    (out.code, lines, summary)
}

/// What was found, one word each, sorted.
fn kinds(findings: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> =
        findings.iter().map(|finding| finding["finding"].as_str().expect("a word")).collect();
    kinds.sort_unstable();
    kinds
}

fn objects() -> Vec<Object> {
    let lens = [0, 5, 4 * KIB, GROUP + 1, MIB, MIB + 1, 3 * MIB + 7, 900];
    (1..).zip(lens).map(|(seed, len)| object(seed, len)).collect()
}

/// Stored objects, and the folder of a node that has ended.
struct Stopped {
    data: Data,
    dir: PathBuf,
    objects: Vec<Object>,
}

impl Stopped {
    fn new() -> Stopped {
        let data = Data::new();
        let objects = objects();
        let node = data.setup().args(&["--partitions", "1"]).start();
        objects.iter().for_each(|object| Curl::http(&node).store(object));
        node.terminate();
        let dir = data.path().join("data");
        Stopped { data, dir, objects }
    }

    fn fsck(&self, args: &[&str]) -> (i32, Vec<Value>, Value) {
        fsck(&[&self.dir], args)
    }

    /// The one finding there must be.
    #[track_caller]
    fn one(&self, code: i32, kind: &str) -> Value {
        let (found, findings, _) = self.fsck(&[]);
        assert_eq!((found, kinds(&findings)), (code, vec![kind]), "{findings:?}");
        let severity = if code == 1 { "damage" } else { "note" };
        assert_eq!(findings[0]["severity"], severity);
        findings[0].clone()
    }

    fn segment(&self) -> PathBuf {
        self.dir.join("p000/segments/00000001.seg")
    }

    fn file(&self, object: &Object) -> PathBuf {
        let hex = &object.addr[3..];
        self.dir.join(format!("p000/objects/{}/{hex}.obj", &hex[..2]))
    }

    /// Where the bytes of an object begin in the segment.
    fn offset(&self, object: &Object) -> u64 {
        let bytes = fs::read(self.segment()).expect("it can be read");
        let at = (0..bytes.len()).step_by(128).find(|at| bytes[*at..].starts_with(&object.bytes));
        at.expect("it is there") as u64
    }

    fn start(&self) -> Node {
        self.data.start(1)
    }
}

fn check_all(node: &Node, objects: &[Object]) {
    let mut peer = Peer::new(node.connect());
    for object in objects {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200, "{} of {} bytes", object.addr, object.bytes.len());
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
}

/// Flips the lowest bit of a byte, and flips it back when dropped.
struct Flip(PathBuf, u64);

impl Flip {
    fn new(path: &Path, at: u64) -> Flip {
        flip(path, at);
        Flip(path.to_owned(), at)
    }
}

impl Drop for Flip {
    fn drop(&mut self) {
        flip(&self.0, self.1);
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the byte is there");
    byte[0] ^= 1;
    file.write_all_at(&byte, at).expect("the byte can be written");
}

#[test]
fn what_is_whole_is_clean_however_the_node_ended() {
    let stopped = Stopped::new();
    let (code, findings, summary) = stopped.fsck(&[]);
    assert_eq!((code, findings), (0, vec![]));
    let count = stopped.objects.len();
    assert_eq!((&summary["objects"], &summary["records"]), (&count.into(), &count.into()));
    let bytes: usize = stopped.objects.iter().map(|object| object.bytes.len()).sum();
    assert_eq!((&summary["object_bytes"], &summary["files"]), (&bytes.into(), &2.into()));
    // The text says the same.
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    let out = run(command.arg("fsck").arg(&stopped.dir), b"");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.code == 0 && said.contains("8 objects of 5.1 MiB; 0 damaged, 0 notes"), "{said}");

    let node = stopped.start();
    let more = object(99, 70_000);
    Curl::http(&node).store(&more);
    let (code, _, said) = stopped.fsck(&[]);
    let pid = node.pid().to_string();
    assert!(code == 2 && said.as_str().expect("text").contains(&pid), "in use: {said}");
    for gone in [&stopped.objects[3], &stopped.objects[6]] {
        let deleted = Curl::http(&node).get(&gone.addr, &["-X", "DELETE"]);
        assert_eq!(deleted.status, 204, "{}", deleted.heads);
    }
    node.kill();
    let (code, findings, summary) = stopped.fsck(&[]);
    assert_eq!(code, 0, "what the index has yet to learn is no damage: {findings:?}");
    // The file of what was deleted may be there still.
    assert!(kinds(&findings).iter().all(|kind| *kind == "orphan"), "{findings:?}");
    assert_eq!((&summary["objects"], &summary["files"]), (&(count - 1).into(), &1.into()));
    stopped.start().terminate();
    assert_eq!(stopped.fsck(&[]).0, 0);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let stopped = Stopped::new();
    let [_, small, _, _, mib, file, large, last] = &stopped.objects[..] else {
        panic!("there are 8")
    };
    for (object, at) in [(small, 4), (mib, 9 * GROUP as u64), (last, 899)] {
        let start = stopped.offset(object);
        let _flip = Flip::new(&stopped.segment(), start + at);
        let finding = stopped.one(1, "record");
        assert_eq!(
            (&finding["addr"], &finding["offset"]),
            (&Value::from(&*object.addr), &(start - 128).into())
        );
    }
    let outboard = stopped.offset(mib) + MIB as u64;
    {
        let _flip = Flip::new(&stopped.segment(), outboard + 40);
        assert_eq!(stopped.one(1, "record")["addr"], *mib.addr);
    }
    for (object, at, kind, offset) in [
        (large, 4096 + 5 * GROUP + 1, "groups", Some(4096 + 5 * GROUP)),
        (file, 4096, "groups", Some(4096)),
        (large, (4096 + 3 * MIB + 7).next_multiple_of(4096) + 9, "outboard", None),
        (large, 20, "file_header", Some(0)),
    ] {
        let _flip = Flip::new(&stopped.file(object), at as u64);
        let finding = stopped.one(1, kind);
        assert_eq!(finding["addr"], *object.addr);
        assert!(offset.is_none_or(|offset| finding["offset"] == offset), "{finding}");
    }
    assert_eq!(stopped.fsck(&[]).0, 0, "all bits are back");
}

#[test]
fn a_header_that_rots_hides_nothing_that_the_index_knows() {
    let stopped = Stopped::new();
    let [_, _, third, ..] = &stopped.objects[..] else { panic!("there are 8") };
    let header = stopped.offset(third) - 128;
    let flip = Flip::new(&stopped.segment(), header + 30);
    let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
    assert_eq!(code, 1);
    let end =
        findings.iter().find(|finding| finding["finding"] == "log_ends").expect("it is reported");
    assert_eq!(end["offset"], header);
    // The object whose header it was cannot be distinguished from one that never was.
    let wrong = findings.iter().find(|finding| finding["finding"] == "index_wrong");
    assert_eq!(wrong.expect("it is reported")["addr"], *third.addr);
    let only = findings.iter().filter(|finding| finding["finding"] == "index_only");
    assert!(only.count() >= 2, "what is behind is whole: {findings:?}");
    assert!(kinds(&findings).contains(&"index_kept"), "{findings:?}");
    drop(flip);
    assert_eq!(stopped.fsck(&[]).0, 0, "the index is still there");
}

/// Without an index the next start takes the last batch for one that a crash has torn.
#[test]
fn data_that_rot_in_the_last_batch_cost_nobody_else_a_rebuild() {
    let stopped = Stopped::new();
    let rotten = &stopped.objects[4];
    let _flip = Flip::new(&stopped.segment(), stopped.offset(rotten) + 7);
    let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
    assert_eq!((code, kinds(&findings)), (1, vec!["index_kept", "record"]), "{findings:?}");
    let node = stopped.start();
    let whole: Vec<Object> =
        stopped.objects.iter().filter(|object| object.addr != rotten.addr).cloned().collect();
    check_all(&node, &whole);
    let answer = Peer::new(node.connect()).get(&format!("/o/{}", rotten.addr));
    assert_eq!(answer.status, 502);
    node.terminate();
}

/// Where the tombstone is lost, only the index knows that an object was deleted.
#[test]
fn a_rebuild_that_would_undo_a_deletion_is_refused() {
    let stopped = Stopped::new();
    let deleted = &stopped.objects[2];
    let node = stopped.start();
    let mut peer = Peer::new(node.connect());
    peer.send(format!("DELETE /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", deleted.addr).as_bytes());
    assert_eq!(peer.response("DELETE").status, 204);
    node.terminate();
    fs::remove_file(stopped.segment().with_file_name("00000002.seg")).expect("it is there");
    let rebuild = || {
        let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
        let lost = findings.iter().find(|found| found["finding"] == "tombstone_lost");
        assert_eq!(lost.expect("it is reported")["addr"], *deleted.addr);
        assert!(kinds(&findings).contains(&"index_kept"), "{findings:?}");
        code
    };
    assert_eq!(rebuild(), 1, "the end of the log is lost");
    for (store, status) in [(&stopped.objects[7], 200), (deleted, 404)] {
        let node = stopped.start();
        let mut peer = Peer::new(node.connect());
        assert_eq!(peer.get(&format!("/o/{}", store.addr)).status, status);
        Curl::http(&node).store(&object(70 + u64::from(status), 900));
        node.terminate();
        assert_eq!(rebuild(), 0, "the log goes on");
    }
}

/// A segment that is longer than any, as an error of a file system or a hand leaves it.
#[test]
fn a_segment_that_is_too_long_keeps_no_node_from_starting() {
    let stopped = Stopped::new();
    let path = stopped.segment().with_file_name("00000007.seg");
    let file = fs::File::create(&path).expect("it can be made");
    file.set_len(300 * MIB as u64).expect("it can be long");
    let batch = fs::read(stopped.segment()).expect("it can be read");
    file.write_all_at(&batch[..GROUP], 290 * MIB as u64).expect("it can be written");
    for rebuilt in [false, true] {
        if rebuilt {
            fs::remove_dir_all(stopped.dir.join("p000/index")).expect("it is there");
        }
        let node = stopped.start();
        check_all(&node, &stopped.objects);
        Curl::http(&node).store(&object(81, 900));
        node.terminate();
    }
}

/// The segment that holds the objects grows: they are served as long as there is an index, which
/// nothing here takes away.
#[test]
fn a_segment_that_grew_too_long_costs_nothing_that_the_index_knows() {
    let stopped = Stopped::new();
    let file = OpenOptions::new().write(true).open(stopped.segment()).expect("it is there");
    file.set_len(300 * MIB as u64).expect("it can be long");
    for _ in 0..3 {
        let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
        assert_eq!(code, 1);
        assert!(kinds(&findings).contains(&"log_ends"), "{findings:?}");
        assert!(kinds(&findings).contains(&"index_kept"), "{findings:?}");
        let node = stopped.start();
        check_all(&node, &stopped.objects);
        // A round of the scrub leaves its mark in the index, though nothing was written.
        let mut admin = Peer::new(connect(node.at("admin")));
        admin.send(b"POST /scrub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(admin.response("POST").status, 202);
        node.wait_stderr("a round finished");
        node.terminate();
    }
}

#[test]
fn what_a_crash_leaves_is_noted_and_is_no_damage() {
    let stopped = Stopped::new();
    let large = &stopped.objects[6];
    let stranger = object(77, 3);
    let orphan = stopped.file(&stranger);
    fs::create_dir_all(orphan.parent().expect("it has a folder")).expect("it can be made");
    fs::copy(stopped.file(large), &orphan).expect("it can be copied");
    assert_eq!(stopped.one(0, "orphan")["addr"], *stranger.addr);
    fs::remove_file(&orphan).expect("it is there");

    let upload = stopped.dir.join("p000/tmp/0000000000000001-0-1.tmp");
    fs::write(&upload, "half").expect("it can be written");
    assert_eq!(stopped.one(0, "upload")["file"], *upload.to_str().expect("UTF-8"));
    fs::remove_file(&upload).expect("it is there");

    let mut segment = OpenOptions::new().append(true).open(stopped.segment()).expect("it is there");
    let end = segment.metadata().expect("it is a file").len();
    segment.write_all(&[0xa5; 4096]).expect("it can be written");
    assert_eq!(stopped.one(0, "torn_end")["offset"], end);
    let node = stopped.start();
    check_all(&node, &stopped.objects);
    node.terminate();
    assert_eq!(stopped.fsck(&[]).1, Vec::<Value>::new());
}

/// However much lies behind a damaged header, and whether there is an index or not: a start keeps
/// it, and what comes back when the header does is all of it.
#[test]
fn a_start_keeps_what_a_damaged_header_hides() {
    let data = Data::new();
    let objects: Vec<Object> = (0..20).map(|seed| object(seed, 300_000)).collect();
    let node = data.setup().args(&["--partitions", "1"]).start();
    objects.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let stopped = Stopped { dir: data.path().join("data"), data, objects };
    let (segment, index) = (stopped.segment(), stopped.dir.join("p000/index"));
    let entries = || fs::read_dir(stopped.dir.join("p000/segments")).expect("it is there");
    let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").path();
    let marked = || entries().any(|entry| path(entry).extension().is_some_and(|e| e == "hidden"));
    let len = || fs::metadata(&segment).expect("it is there").len();
    let before = len();
    let flip = Flip::new(&segment, stopped.offset(&stopped.objects[1]) - 128 + 30);
    fs::remove_dir_all(&index).expect("it is there");
    let (code, findings, _) = stopped.fsck(&[]);
    assert_eq!((code, kinds(&findings)), (1, vec!["log_ends", "no_index"]));
    let node = stopped.start();
    node.wait_stderr("is damaged at");
    let mut peer = Peer::new(node.connect());
    let status = |peer: &mut Peer, at: usize| peer.get(&format!("/o/{}", stopped.objects[at].addr));
    assert_eq!((status(&mut peer, 0).status, status(&mut peer, 9).status), (200, 404));
    let more = object(99, 5000);
    Curl::http(&node).store(&more);
    node.terminate();
    assert_eq!((len(), marked()), (before, true), "nothing is cut off");
    drop(flip);
    fs::remove_dir_all(&index).expect("it is there");
    let node = stopped.start();
    check_all(&node, &stopped.objects);
    check_all(&node, &[more]);
    node.terminate();
    assert!(!marked() && stopped.fsck(&[]).0 == 0);
}

#[test]
fn a_file_that_is_missing_or_cut_is_damage() {
    let stopped = Stopped::new();
    let (file, large) = (&stopped.objects[5], &stopped.objects[6]);
    let path = stopped.file(large);
    fs::rename(&path, stopped.dir.join("aside")).expect("it can be moved");
    assert_eq!(stopped.one(1, "no_file")["addr"], *large.addr);
    fs::copy(stopped.file(file), &path).expect("it can be copied");
    assert_eq!(stopped.one(1, "file_header")["addr"], *large.addr);
    fs::rename(stopped.dir.join("aside"), &path).expect("it can be moved");
    let cut = OpenOptions::new().write(true).open(&path).expect("it is there");
    cut.set_len(MIB as u64).expect("it can be cut");
    assert_eq!(stopped.one(1, "file_length")["addr"], *large.addr);
    // A pipe is not opened, which would wait without an end.
    fs::remove_file(&path).expect("it is there");
    let made = Command::new("mkfifo").arg(&path).status().expect("every Linux has it");
    assert!(made.success());
    let segment = stopped.segment().with_file_name("00000009.seg");
    assert!(Command::new("mkfifo").arg(&segment).status().expect("every Linux has it").success());
    let (code, findings, _) = stopped.fsck(&[]);
    let wanted = vec!["foreign", "foreign", "no_file"];
    assert_eq!((code, kinds(&findings)), (1, wanted), "{findings:?}");
}

#[test]
fn what_lies_behind_an_object_is_no_damage_as_the_node_serves_it() {
    let stopped = Stopped::new();
    let large = &stopped.objects[6];
    let mut file = OpenOptions::new().append(true).open(stopped.file(large)).expect("it is there");
    file.write_all(b"!").expect("it can be longer");
    assert_eq!(stopped.one(0, "trailing")["addr"], *large.addr);
    let node = stopped.start();
    check_all(&node, std::slice::from_ref(large));
    node.terminate();
}

/// The scrub frees no file that another partition would own.
#[test]
fn a_file_of_another_partition_is_no_orphan() {
    let data = Data::new();
    let node = data.setup().args(&["--partitions", "2"]).start();
    let large = object(7, 2 * MIB);
    Curl::http(&node).store(&large);
    node.terminate();
    let dir = data.path().join("data");
    let hex = &large.addr[3..];
    let place = |at: u8| dir.join(format!("p00{at}/objects/{}/{hex}.obj", &hex[..2]));
    let (from, to) = if place(0).exists() { (place(0), place(1)) } else { (place(1), place(0)) };
    fs::create_dir_all(to.parent().expect("it has a folder")).expect("it can be made");
    fs::copy(from, to).expect("it can be copied");
    let (code, findings, _) = fsck(&[&dir], &[]);
    assert_eq!((code, kinds(&findings)), (1, vec!["partition"]), "{findings:?}");
}

#[test]
fn the_index_is_checked_and_can_be_made_again() {
    let stopped = Stopped::new();
    let index = stopped.dir.join("p000/index");
    let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
    assert_eq!((code, kinds(&findings)), (0, vec!["index_removed"]));
    assert!(!index.exists());
    stopped.one(0, "no_index");
    let node = stopped.start();
    check_all(&node, &stopped.objects);
    node.terminate();
    assert_eq!(stopped.fsck(&[]).1, Vec::<Value>::new());

    for entry in fs::read_dir(&index).expect("it is there") {
        let data = entry.expect("an entry").path();
        let len = fs::metadata(&data).expect("it is there").len();
        fs::write(&data, vec![0xa5; len as usize]).expect("it can be written");
    }
    stopped.one(1, "index_damaged");
    let (code, findings, _) = stopped.fsck(&["--rebuild-index"]);
    assert_eq!((code, kinds(&findings)), (1, vec!["index_damaged", "index_removed"]));
    assert_eq!(stopped.fsck(&["--rebuild-index"]).0, 0);
    let node = stopped.start();
    check_all(&node, &stopped.objects);
    node.terminate();
}

#[test]
fn an_index_of_another_log_is_found_out() {
    let stopped = Stopped::new();
    let other = Data::new();
    let node = other.setup().args(&["--partitions", "1"]).start();
    Curl::http(&node).store(&object(50, 9000));
    Curl::http(&node).store(&stopped.objects[2]);
    node.terminate();
    let index = stopped.dir.join("p000/index");
    fs::remove_dir_all(&index).expect("it is there");
    fs::create_dir(&index).expect("it can be made");
    for entry in fs::read_dir(other.path().join("data/p000/index")).expect("it is there") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), index.join(entry.file_name())).expect("it can be copied");
    }
    let (code, findings, _) = stopped.fsck(&[]);
    assert_eq!(code, 1);
    assert!(kinds(&findings).contains(&"index_wrong"), "{findings:?}");
}

#[test]
fn volumes_are_checked_together_or_alone() {
    let data = Data::new();
    let dirs = [data.path().join("a"), data.path().join("b")];
    let names = dirs.each_ref().map(|dir| dir.to_str().expect("UTF-8"));
    let args = ["--data-dirs", names[0], "--data-dirs", names[1]];
    let node = data.setup().args(&args).start();
    let all: Vec<Object> = (0..40).map(|seed| object(seed, 3000)).collect();
    all.iter().for_each(|object| Curl::http(&node).store(object));
    node.terminate();
    let count = |dirs: &[&Path]| {
        let (code, findings, summary) = fsck(dirs, &[]);
        assert_eq!((code, findings), (0, vec![]));
        summary["objects"].as_u64().expect("a number")
    };
    let (a, b) = (count(&[&dirs[0]]), count(&[&dirs[1]]));
    assert!(a > 0 && b > 0 && a + b == 40, "{a} and {b}");
    assert_eq!(count(&[&dirs[1], &dirs[0]]), 40);
    let (code, _, said) = fsck(&[&dirs[0], &dirs[0]], &[]);
    assert!(code == 2 && said.as_str().expect("text").contains("same"), "{said}");
}

#[test]
fn what_is_no_data_directory_cannot_be_checked() {
    let data = Data::new();
    let none = data.path().join("none");
    for (dirs, args) in [
        (vec![none.as_path()], &[][..]),
        (vec![data.path()], &[]),
        (vec![], &[]),
        (vec![data.path()], &["--rebuild"]),
    ] {
        assert_eq!(fsck(&dirs, args).0, 2, "{dirs:?} {args:?}");
    }
    fs::write(data.path().join("format.json"), "{\"format\":9}").expect("it can be written");
    let (code, _, said) = fsck(&[data.path()], &[]);
    assert!(code == 2 && said.as_str().expect("text").contains("format 9"), "{said}");
}
