//! What is seen of the shards on the admin listener, and said of them in the log.

use std::{
    io,
    sync::{Mutex, OnceLock},
};

use ron_io::{
    ports::{Failure, Stall},
    stats::{Op, Proto},
    watch::clock_ns,
    work::Work,
};
use serde_json::{Value, json};

use super::*;
use crate::debug::stuck;

/// All that this process logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> &'static Log {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Log::default();
            let (into, json) = (log.clone(), tracing_subscriber::fmt().json());
            let json = json.flatten_event(true).with_writer(move || into.clone());
            json.try_init().unwrap();
            log
        })
    }

    /// The first line that has this, which is logged by another thread: looks until it is there.
    fn wait(&self, wanted: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some(line) = complete.into_iter().find(|line| line.contains(wanted)) {
                return serde_json::from_str(line).unwrap();
            }
            assert!(Instant::now() < deadline, "{wanted:?} is not in {text}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_stall_is_a_warning_in_the_log() {
    let (log, node) = (Log::start(), serving(2));
    let (held_ns, ran_ns, within_ns) = (52_500_000, 47_000_000, 97_000_000);
    let stall = Stall { work: Work::Disk, held_ns, ran_ns, within_ns, unreported: 4_711 };
    node.reports.send(Report::Stalled { shard: ShardId(1), stall }).unwrap();
    let line = log.wait("\"stalls\":4712");
    for (field, value) in [
        ("level", json!("WARN")),
        ("shard", json!(1)),
        ("what", json!("disk")),
        ("held_ms", json!(52.5)),
        ("ran_ms", json!(47.0)),
        ("within_ms", json!(97.0)),
        ("message", json!("event loop stalls")),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
}

#[test]
fn a_request_that_failed_has_a_line_in_the_log() {
    let (log, node) = (Log::start(), serving(2));
    for (status, reason, level) in [(500, "internal", "WARN"), (401, "unauthorized", "INFO")] {
        let corr_id = format!("failed-{status}");
        let failure = Box::new(Failure {
            proto: Proto::Http,
            op: Op::Put,
            status,
            reason,
            peer: "192.0.2.1:77".parse().unwrap(),
            corr_id: corr_id.clone(),
            unreported: 3,
        });
        node.reports.send(Report::Failed { shard: ShardId(1), failure }).unwrap();
        let line = log.wait(&corr_id);
        for (field, value) in [
            ("level", json!(level)),
            ("shard", json!(1)),
            ("proto", json!("http")),
            ("op", json!("put")),
            ("status", json!(status)),
            ("reason", json!(reason)),
            ("peer", json!("192.0.2.1:77")),
            ("corr_id", json!(corr_id)),
            ("unreported", json!(3)),
        ] {
            assert_eq!(line[field], value, "{field} of {line}");
        }
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn a_shard_that_hangs_is_an_error_in_the_log() {
    let (log, stats) = (Log::start(), Arc::new(Stats::default()));
    stats.watch.set_limit(Duration::from_millis(20));
    stats.watch.begin(Work::Ring);
    let (mut looks, begin) = (stuck::Looks::new(1), Instant::now());
    for seconds in 0..3 {
        let held = looks.look(&[Arc::clone(&stats)], begin + Duration::from_secs(seconds * 77));
        held.iter().for_each(stuck::log);
    }
    let line = log.wait("\"at_least_ms\":4000");
    assert_eq!((&line["level"], &line["what"]), (&json!("ERROR"), &json!("ring")), "{line}");
}

#[test]
fn a_shard_that_wakes_and_hangs_is_noticed_by_a_thread_that_slept() {
    let (log, node) = (Log::start(), serving(4));
    // The thread that answers this has looked at the shards before, and seen none awake.
    ask(&node, "GET /healthz", "");
    node.stats[3].watch.wake(clock_ns());
    let line = log.wait("\"shard\":3");
    assert_eq!((&line["level"], &line["what"]), (&json!("ERROR"), &json!("ring")), "{line}");
    assert!(line["at_least_ms"].as_u64() >= Some(20), "{line}");
}

#[test]
fn shards_are_shown_without_a_token_and_hold_nobody_up() {
    let node = serving(2);
    node.stats[1].watch.begin(Work::Mail);
    node.stats[1].watch.stalled(Work::Bytes);
    let (head, body) = ask(&node, "GET /debug/shards", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["shards"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["shards"][1]["doing"]["what"], "mail", "{body}");
    assert_eq!(body["shards"][1]["stalls"], json!({ "bytes": 1 }));
    assert_eq!(body["shards"][0].get("doing"), None);
    let (_, metrics) = ask(&node, "GET /metrics", "");
    let count = "ron_shard_stalls_total{shard=\"1\",what=\"bytes\"} 1\n";
    assert!(metrics.contains(count), "{metrics}");
}

#[test]
fn a_profile_wants_the_authority_of_an_order_and_a_thread() {
    let node = serving(1);
    let status = |query: &str, fields: &str| {
        let (head, _) = ask(&node, &format!("GET /debug/profile{query}"), fields);
        head["http/1.1 ".len()..][..3].to_owned()
    };
    assert_eq!(status("?seconds=0", "Origin: http://elsewhere\r\n"), "403");
    assert_eq!(status("?seconds=0", "Sec-Fetch-Site: same-site\r\n"), "403");
    assert_eq!(status("?seconds=0", "Authorization: Bearer no\r\n"), "401");
    assert_eq!(status("?seconds=0", ""), "400", "the query is looked at");
    assert_eq!(status("?seconds=1&shard=0", ""), "503", "the shard has no thread");
}
