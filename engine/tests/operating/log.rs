//! The log, when standard error takes nothing of it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    thread,
    time::Instant,
};

use crate::common::{DEADLINE, Data, Node, curl::Curl, object};

/// A standard error that takes nothing more, and its other end.
fn full() -> (Stdio, UnixStream) {
    let (mut near, far) = UnixStream::pair().expect("there is a pair");
    near.set_nonblocking(true).expect("it can be set");
    for len in [4096, 1] {
        loop {
            match near.write(&vec![b'\n'; len]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    near.set_nonblocking(false).expect("it can be set");
    (Stdio::from(OwnedFd::from(near)), far)
}

/// Has the node read its settings again until this is true of its metrics.
fn reload_until(node: &Node, is_so: impl Fn(&crate::common::Metrics) -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so(&node.metrics()) {
        node.signal("HUP");
        assert!(Instant::now() < until, "the node does not reload");
    }
}

#[test]
fn who_reads_no_log_holds_up_nothing() {
    let data = Data::new();
    let file = data.path().join("ron.toml");
    fs::write(&file, "").expect("it can be written");
    let command = data.setup().args(&["--config", file.to_str().expect("UTF-8")]).command();
    let (stderr, mut log) = full();
    let node = Node::start_saying(command, stderr);
    // Each reload that is rejected says why, at length.
    fs::write(&file, format!("{} = 1\n", "x".repeat(60_000))).expect("it can be written");
    reload_until(&node, |metrics| metrics.sum("ron_log_lines_dropped_total") > 0);
    assert_eq!(node.admin("/healthz").status, 200);
    assert_eq!(node.metrics().sum("ron_config_last_reload_success"), 0);
    fs::write(&file, "").expect("it can be written");
    reload_until(&node, |metrics| metrics.sum("ron_config_last_reload_success") == 1);
    Curl::http(&node).store(&object(1, 1000));
    // Once somebody reads, all that waited comes, and that lines were lost.
    let reader = thread::spawn(move || {
        let mut said = String::new();
        log.read_to_string(&mut said).expect("it is text");
        said
    });
    node.terminate();
    let said = reader.join().expect("it does not panic");
    for wanted in ["reload rejected", "lines of the log were lost before this one", "stopped"] {
        assert!(said.contains(wanted), "{wanted}: {} bytes", said.len());
    }
}

#[test]
fn a_node_ends_though_nobody_reads_its_log() {
    let data = Data::new();
    let (stderr, log) = full();
    let node = Node::start_saying(data.setup().command(), stderr);
    node.terminate();
    drop(log);
}
