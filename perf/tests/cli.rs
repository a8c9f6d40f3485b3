//! The program as scripts use it: what it prints where, and how it exits.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

fn perf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ron-perf")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `ron-perf respond`, which ends when its input does.
struct Responder {
    child: Child,
    node: String,
}

impl Responder {
    fn start(body: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ron-perf"))
            .args(["respond", "--listen", "127.0.0.1:0", "--body", body])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().trim();
        Self { node: format!("http://{address}"), child }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

fn load(node: &str, rest: &[&str]) -> Output {
    let common = ["load", "--node", node, "--seconds", "0.2", "--warmup", "0"];
    perf(&[&common[..], rest].concat())
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn results_are_written_and_compared() {
    let temp = tempfile::tempdir().unwrap();
    let (a, b) = (temp.path().join("a.json"), temp.path().join("b.json"));
    let responder = Responder::start("4KiB");
    let pid = responder.child.id().to_string();
    let rest = ["--objects", "4KiB", "--verify", "1", "--commit", "c0ffee", "--server-pid", &pid];
    let run = load(&responder.node, &[&rest[..], &["--json", a.to_str().unwrap()]].concat());
    assert!(run.status.success(), "{run:?}");
    assert!(text(&run.stdout).contains("requests/s") && run.stderr.is_empty(), "{run:?}");
    let first = document(&a);
    assert_eq!((&first["commit"], &first["version"]), (&"c0ffee".into(), &1.into()));
    assert!(first["rps"].as_f64() > Some(0.0) && first["rps_per_cpu"].as_f64() > Some(0.0));
    let run = load(&responder.node, &["--objects", "4KiB", "--connections", "3", "--json", "-"]);
    let second: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(second["errors_total"] == 0 && text(&run.stderr).contains("requests/s"), "{run:?}");
    fs::write(&b, &run.stdout).unwrap();
    responder.end();
    let compared = perf(&["compare", a.to_str().unwrap(), b.to_str().unwrap()]);
    let table = text(&compared.stdout);
    assert!(table.contains("config.connections differs: 16 and 3"), "{table}");
    assert!(table.contains("commit differs"), "{table}");
}

#[test]
fn the_exit_status_says_what_happened() {
    let responder = Responder::start("4KiB");
    // Every body is shorter than the object that was asked for.
    let run = load(&responder.node, &["--objects", "8KiB"]);
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    assert!(text(&run.stdout).contains("short"), "{run:?}");
    let run = load(&responder.node, &["--objects", "4KiB", "--range", "8KiB"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let run = load(&responder.node, &["--objects", "nothing"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    let gone = responder.node.clone();
    responder.end();
    let run = load(&gone, &["--objects", "4KiB"]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert_eq!(perf(&["compare", "/nowhere/a", "/nowhere/b"]).status.code(), Some(1));
}

#[test]
fn files_are_written_for_other_servers() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_str().unwrap();
    let run = perf(&["files", "--dir", dir, "--objects", "4KiB:3,16:2"]);
    assert_eq!(text(&run.stdout), "5 files\n");
    assert_eq!(fs::read_dir(temp.path().join("o")).unwrap().count(), 5);
}
