//! A node whose data directory lies on a disk that fails, and what it says of its storage.

use std::{
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::FaultyDisk;
use crate::common::{
    self, DEADLINE, Data, Node, Setup, clean_environment, connect, http::Peer, run,
};

/// A data directory on a faulty disk.
pub(crate) struct Rig {
    data: Data,
    pub(crate) disk: FaultyDisk,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Option<Rig> {
        FaultyDisk::new(seed).map(|disk| Rig { data: Data::new(), disk })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    pub(crate) fn setup(&self) -> Setup {
        let dir = self.dir();
        let dirs = ["--data-dirs", dir.to_str().expect("the path is text")];
        // The scrub comes when it is ordered.
        let scrub = ["--storage-scrub-every", "0", "--storage-scrub-rate", "1GiB"];
        self.data.setup().args(&dirs).args(&scrub)
    }

    pub(crate) fn start(&self, args: &[&str]) -> Node {
        self.setup().args(args).start()
    }

    pub(crate) fn one_partition(&self) -> Node {
        self.start(&["--partitions", "1"])
    }

    /// Files of the first partition whose names end so.
    pub(crate) fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut all = Vec::new();
        common::disk::files(&self.disk.below().join("data/p000"), &mut all);
        all.retain(|path| path.to_string_lossy().ends_with(ending));
        all
    }

    pub(crate) fn fsck(&self) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
        clean_environment(&mut command);
        let out = run(command.arg("fsck").arg(self.dir()), b"");
        (out.code, String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// Waits until the node reports this of its storage.
pub(crate) fn until(node: &Node, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let report = node.admin("/storage").json();
        if is_so(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{what}: {report}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many partitions are in a state, which the report, the metrics and `/readyz` agree on, and
/// `ronctl storage` with them. The report, `/readyz` and the log name the same reason for each.
pub(crate) fn partitions(node: &Node, state: &str, wanted: usize) {
    let of = |report: &Value| {
        let faults = report["partitions"].as_array().cloned().unwrap_or_default();
        faults.iter().filter(|fault| fault["state"] == state).count()
    };
    let report = until(node, state, |report| of(report) == wanted);
    for fault in report["partitions"].as_array().into_iter().flatten() {
        let reason = fault["reason"].as_str().expect("it has a reason");
        assert!(!reason.is_empty(), "{report}");
        let ready = node.admin("/readyz").json()["partitions"].to_string();
        assert!(ready.contains(&fault.to_string()), "{fault} is not in {ready}");
        node.wait_stderr(reason);
    }
    let metric = format!("ron_partitions{{state=\"{state}\"}}");
    assert_eq!(node.metrics().sum(&metric), wanted as u64);
    assert_eq!(of(&node.admin("/readyz").json()), wanted);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    let admin = format!("http://{}", node.at("admin"));
    let out = run(command.args(["--admin", &admin, "storage"]), b"");
    let said = String::from_utf8_lossy(&out.stdout);
    let words = format!("{wanted} {}", state.replace('_', "-"));
    assert!(wanted == 0 || said.contains(&words), "{words}: {said}");
}

pub(crate) fn scrub(node: &Node) {
    let rounds = node.metrics().sum("ron_scrub_rounds_total");
    let mut peer = Peer::new(connect(node.at("admin")));
    peer.send(b"POST /scrub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.response("POST").status, 202);
    let deadline = Instant::now() + DEADLINE;
    while node.metrics().sum("ron_scrub_rounds_total") == rounds {
        assert!(Instant::now() < deadline, "the scrub does not come to its end");
        thread::sleep(Duration::from_millis(20));
    }
}
