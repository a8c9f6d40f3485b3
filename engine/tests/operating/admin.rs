//! The admin listener: health, readiness, metrics that move, version.

use std::process::Command;

use crate::common::{Data, addr_of, curl::Curl, http::Peer, oap::Oap, object};
use serde_json::json;

#[test]
fn health_readiness_and_version() {
    let data = Data::new();
    let node = data.start(1);
    let health = node.admin("/healthz");
    assert_eq!((health.status, &*health.body), (200, &b"ok"[..]));
    let ready = node.admin("/readyz");
    assert_eq!(ready.status, 200);
    for (key, value) in [
        ("ready", true),
        ("config", true),
        ("storage", true),
        ("listeners", true),
        ("control", true),
    ] {
        assert_eq!(ready.json()[key], value, "{key}");
    }
    let version = node.admin("/version").json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    // The tests are built where the node is: in a checkout, most often.
    let said =
        crate::common::run(Command::new(env!("CARGO_BIN_EXE_rond")).arg("--version"), b"").stdout;
    let commit = version["commit"].as_str().expect("it is text");
    let line = format!("rond {} ({commit})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&said), line);
    let in_git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    if in_git.is_ok_and(|out| out.status.success()) {
        assert_ne!(commit, "unknown");
    }
    let missing = node.admin("/nothing");
    assert_eq!((missing.status, &*missing.envelope()), (404, "not_found"));
    let mut peer = Peer::new(crate::common::connect(node.at("admin")));
    peer.send(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.response("POST").status, 405);
    // Content is not served here, nor metrics there.
    assert_eq!(node.admin(&format!("/o/{}", addr_of(b""))).status, 404);
    assert_eq!(Curl::http(&node).request("/metrics", &[]).status, 404);
    node.terminate();
}

#[test]
fn a_node_that_ends_is_not_ready() {
    let data = Data::new();
    let node = data.start(1);
    let peer = node.end_held_up();
    let ready = node.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!((&ready.json()["ready"], &ready.json()["control"]), (&json!(false), &json!(false)));
    let retry_after = ready.json()["retry_after"].as_u64().expect("seconds");
    assert_eq!(ready.field("retry-after"), Some(&*retry_after.to_string()));
    assert_eq!(node.admin("/healthz").status, 200);
    drop(peer);
    node.finish();
}

/// What must be there, whether or not anything happened yet.
const NAMES: [&str; 48] = [
    "ron_config_last_reload_success",
    "ron_config_last_reload_timestamp_seconds",
    "process_open_fds",
    "process_max_fds",
    "ron_bytes_in_total",
    "ron_bytes_out_total",
    "ron_inflight",
    "ron_connections",
    "ron_open_streams",
    "ron_rejected_total",
    "ron_reject_oversize_total",
    "ron_cache_hits_total",
    "ron_cache_misses_total",
    "ron_cache_bytes",
    "ron_not_modified_total",
    "ron_range_requests_total",
    "ron_verify_groups_total",
    "ron_lent_bytes_total",
    "ron_verify_sends_total",
    "ron_verify_send_failures_total",
    "ron_integrity_fail_total",
    "ron_bus_overflow_dropped_total",
    "ron_log_lines_dropped_total",
    "ron_shard_busy_ratio",
    "ron_shard_stall_seconds",
    "ron_mesh_hops_total",
    "ron_build_info",
    "ron_tls_certificate_not_after_seconds",
    "ron_requests_total",
    "ron_request_seconds_bucket",
    "ron_storage_segment_bytes",
    "ron_storage_segment_live_bytes",
    "ron_storage_segments",
    "ron_storage_file_bytes",
    "ron_storage_disk_free_bytes",
    "ron_storage_promised_bytes",
    "ron_deletes_total",
    "ron_compactions_total",
    "ron_compact_moved_bytes_total",
    "ron_compact_freed_bytes_total",
    "ron_scrub_bytes_total",
    "ron_scrub_objects_total",
    "ron_scrub_rounds_total",
    "ron_scrub_repaired_total",
    "ron_scrub_running",
    "ron_damaged_objects_total",
    "ron_partitions",
    "ron_objects",
];

/// Series that the node has are found by who looks for them.
#[test]
fn every_metric_is_in_the_operators_guide() {
    let data = Data::new();
    let node = data.start(1);
    let curl = Curl::https(&node);
    curl.store(&object(1, 100));
    let guide = include_str!("../../../docs/OPERATING.md");
    let page = node.admin("/metrics");
    let page = String::from_utf8(page.body).expect("metrics are text");
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut count = 0;
    for family in families {
        let (name, kind) = family.split_once(' ').expect("a name and a kind");
        let name = match kind {
            "counter" if !name.ends_with("_total") => format!("{name}_total"),
            "info" if !name.ends_with("_info") => format!("{name}_info"),
            _ => name.to_owned(),
        };
        let is_in = ['`', '{'].iter().any(|end| guide.contains(&format!("`{name}{end}")));
        assert!(is_in, "docs/OPERATING.md says nothing of {name}");
        count += 1;
    }
    assert!(count >= NAMES.len(), "{count} families");
    node.terminate();
}

#[test]
fn counters_count() {
    let data = Data::new();
    let node = data.start(1);
    let curl = Curl::http(&node);
    let object = object(1, 3 * 65_536);
    curl.store(&object);
    let before = node.metrics();
    NAMES.iter().for_each(|name| assert!(before.has(name), "{name} is missing"));
    assert_eq!(before.sum("ron_requests_total{proto=\"http\",op=\"put\",code=\"201\"}"), 1);
    assert_eq!((before.sum("ron_objects"), before.sum("ron_inflight")), (1, 0));
    assert!(before.sum("ron_bytes_in_total{proto=\"http\"}") > 3 * 65_536);
    let grown = |name: &str| node.metrics().sum(name) - before.sum(name);

    for _ in 0..10 {
        curl.check(&object);
    }
    let of_get = "ron_requests_total{proto=\"http\",op=\"get\",code=\"200\"}";
    assert_eq!(grown(of_get), 10);
    assert_eq!(grown("ron_request_seconds_count{proto=\"http\",op=\"get\"}"), 10);
    assert!(grown("ron_bytes_out_total{proto=\"http\"}") > 30 * 65_536);
    // Three groups are verified once, then found in memory.
    assert!(grown("ron_cache_hits_total") >= 27, "{} hits", grown("ron_cache_hits_total"));
    assert!(grown("ron_verify_groups_total") <= 3);
    assert!(node.metrics().sum("ron_cache_bytes") >= 3 * 65_536);

    curl.get(&object.addr, &["-r", "0-5"]);
    curl.get(&addr_of(b"none"), &[]);
    Curl::https(&node).check(&object);
    let mut oap = Oap::tls(&node);
    oap.hello();
    oap.check(&object);
    let mut open = Peer::new(node.connect());
    assert_eq!(open.get("/").status, 404);
    for (name, count) in [
        ("ron_range_requests_total", 1),
        ("ron_requests_total{proto=\"http\",op=\"get\",code=\"206\"}", 1),
        ("ron_requests_total{proto=\"http\",op=\"get\",code=\"404\"}", 2),
        ("ron_requests_total{proto=\"https\",op=\"get\",code=\"200\"}", 1),
        ("ron_requests_total{proto=\"oap\",op=\"hello\"", 1),
        ("ron_requests_total{proto=\"oap\",op=\"get\",code=\"0\"}", 1),
        ("ron_connections{proto=\"oap\"}", 1),
        ("ron_connections{proto=\"http\"}", 1),
    ] {
        assert_eq!(grown(name), count, "{name}");
    }
    drop((oap, open));
    node.terminate();
}

#[test]
fn both_forms_of_the_metrics() {
    let data = Data::new();
    let node = data.start(1);
    let url = format!("http://{}/metrics", node.at("admin"));
    let classic = crate::common::curl::curl(&[&url]);
    let kind = classic.field("content-type").expect("it has a type");
    assert!(kind.starts_with("text/plain"), "{kind}");
    let open = crate::common::curl::curl(&["-H", "Accept: application/openmetrics-text", &url]);
    let kind = open.field("content-type").expect("it has a type");
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(open.body.ends_with(b"# EOF\n"));
    // Each family has its help and its type once, and no family is written twice.
    let text = String::from_utf8(classic.body).expect("metrics are text");
    let mut families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert!(count > 20 && families.len() == count);
    node.terminate();
}
