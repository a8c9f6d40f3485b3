use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use ron_io::stats::Phase;

use super::*;

fn node() -> (Vec<Arc<Stats>>, Metrics) {
    let stats: Vec<Arc<Stats>> = vec![Arc::default(), Arc::default()];
    let build = BuildInfo { version: "1.2.3", commit: "abc" };
    let reload = Arc::new(ReloadState::new(Some(1_900_000_000)));
    let metrics = Metrics::new(stats.clone(), Bus::default(), build, reload);
    (stats, metrics)
}

fn busy_node() -> (Vec<Arc<Stats>>, Metrics) {
    let (stats, metrics) = node();
    let peer = |stats: &Stats| stats.peers.bucket(1);
    stats[0].request(peer(&stats[0]), (Proto::Http, Op::Get), 200, 9_000);
    stats[1].request(peer(&stats[1]), (Proto::Http, Op::Get), 200, 2_000_000_000);
    stats[1].request(peer(&stats[1]), (Proto::Oap, Op::Has), 418, 60_000_000_000);
    stats[0].reject(Rejected::Draining);
    stats[1].cache_hits.add(41);
    stats[0].cache_hits.add(1);
    stats[0].bytes_out[Proto::Https as usize].add(70);
    stats[1].stall_max_ns.set(1_500_000);
    stats[1].watch.stalled(Work::Disk);
    stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
    stats[1].segment_live_bytes.set(900);
    stats[0].disk_free_bytes.set(5000);
    stats[1].disk_free_bytes.set(4000);
    stats[0].partitions_read_only.set(1);
    stats[1].partitions_read_only.set(2);
    stats[1].scrub_running.set(1);
    stats[0].scrub_finished_unix_s.set(1_800_000_000);
    stats[1].scrub_finished_unix_s.set(1_700_000_000);
    stats[1].deletes.add(5);
    (stats, metrics)
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn shards_are_added_up_under_the_documented_names() {
    let (_, metrics) = busy_node();
    for form in [Form::Classic, Form::Open] {
        let text = metrics.render(form).unwrap();
        let samples = samples(&text);
        let expected = [
            (r#"ron_requests_total{proto="http",op="get",code="200"}"#, 2.0),
            (r#"ron_requests_total{proto="oap",op="has",code="other"}"#, 1.0),
            (r#"ron_rejected_total{reason="draining"}"#, 1.0),
            ("ron_cache_hits_total", 42.0),
            (r#"ron_bytes_out_total{proto="https"}"#, 70.0),
            (r#"ron_connections{proto="oap"}"#, 0.0),
            (r#"ron_shard_stall_seconds{shard="1"}"#, 0.0015),
            (r#"ron_shard_stalls_total{shard="1",what="disk"}"#, 1.0),
            (r#"ron_build_info{version="1.2.3",commit="abc"}"#, 1.0),
            ("ron_tls_certificate_not_after_seconds", 1.9e9),
            ("ron_bus_overflow_dropped_total", 0.0),
            (r#"ron_request_seconds_count{proto="http",op="get"}"#, 2.0),
            (r#"ron_request_seconds_sum{proto="http",op="get"}"#, 2.000009),
            ("ron_objects", 0.0),
            ("ron_storage_segment_live_bytes", 900.0),
            ("ron_storage_disk_free_bytes", 4000.0),
            (r#"ron_partitions{state="read_only"}"#, 3.0),
            (r#"ron_partitions{state="full"}"#, 0.0),
            ("ron_scrub_running", 1.0),
            ("ron_scrub_finished_timestamp_seconds", 1.7e9),
            ("ron_deletes_total", 5.0),
        ];
        for (name, value) in expected {
            assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
        }
        let absent = r#"op="put""#;
        assert!(!text.contains(absent), "what never happened is not there");
        assert_eq!(text.matches("ron_shard_stalls_total{").count(), 1, "no more do other stalls");
        let buckets = text.lines().filter(|line| line.contains("_bucket{"));
        let buckets: Vec<&str> = buckets.filter(|line| line.contains(r#"proto="http""#)).collect();
        assert_eq!(buckets.len(), SECONDS_BUCKETS_US.len() + 1);
        assert!(
            buckets[0].ends_with(" 1") && buckets[0].contains(r#"le="0.00001""#),
            "{buckets:?}"
        );
        assert!(buckets.last().unwrap().ends_with(r#"} 2"#), "cumulative");
    }
}

#[test]
fn what_is_not_known_is_absent() {
    let (stats, metrics) = node();
    stats[0].set_phase(Phase::Serving);
    stats[0].scrub_finished_unix_s.set(1_800_000_000);
    let text = metrics.render(Form::Classic).unwrap();
    assert!(!text.contains("ron_storage_disk_free_bytes"), "a shard has not asked yet");
    assert!(!text.contains("ron_scrub_finished"), "a shard has finished none");
    assert!(text.contains("\nron_scrub_rounds_total 0\n"));
    stats[1].set_phase(Phase::Serving);
    stats[1].scrub_finished_unix_s.set(1);
    let text = metrics.render(Form::Classic).unwrap();
    assert_eq!(samples(&text)["ron_scrub_finished_timestamp_seconds"], 1.0);
    assert_eq!(samples(&text)["ron_storage_disk_free_bytes"], 0.0);
}

#[test]
fn every_family_is_described_as_its_form_wants() {
    let (_, metrics) = busy_node();
    let classic = metrics.render(Form::Classic).unwrap();
    assert!(classic.contains("# TYPE ron_requests_total counter\n"));
    assert!(classic.contains("# TYPE ron_build_info gauge\n"));
    assert!(!classic.contains("# EOF"));
    let open = metrics.render(Form::Open).unwrap();
    assert!(open.contains("# TYPE ron_requests counter\n"));
    assert!(open.contains("# TYPE ron_build info\n"));
    assert!(open.ends_with("# EOF\n"));
    for text in [classic, open] {
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("# HELP ron_"), count("# TYPE ron_"));
        assert!(!text.contains("_total_total"));
    }
}

#[test]
fn the_busy_ratio_is_that_since_the_last_scrape() {
    let (stats, metrics) = node();
    let ratio = || {
        let text = metrics.render(Form::Classic).unwrap();
        samples(&text)[r#"ron_shard_busy_ratio{shard="0"}"#]
    };
    assert_eq!(ratio(), 0.0, "no time has passed");
    stats[0].busy_ns.add(300);
    stats[0].idle_ns.add(100);
    assert_eq!(ratio(), 0.75);
    stats[0].idle_ns.add(100);
    assert_eq!(ratio(), 0.0);
    assert_eq!(ratio(), 0.0);
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    assert_eq!(Form::accepted(Some(prometheus)), Form::Open);
    assert_eq!(Form::accepted(Some("Application/OpenMetrics-Text")), Form::Open);
    for classic in [
        None,
        Some(""),
        Some("*/*"),
        Some("text/plain"),
        Some("application/openmetrics-text;q=0"),
        Some("application/openmetrics-text;q=0.4, text/plain;q=0.5"),
        Some("application/openmetrics-text;q=x"),
    ] {
        assert_eq!(Form::accepted(classic), Form::Classic, "{classic:?}");
    }
}

/// The reference checker, where it is installed.
#[test]
fn promtool_has_no_complaint() {
    let (_, metrics) = busy_node();
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut promtool) = command.stderr(Stdio::piped()).spawn() else {
        return;
    };
    let text = metrics.render(Form::Classic).unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
