use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use ron_io::{
    lane::{Sender, lane},
    ports::{Severity, ShardId},
    stats::{Phase, Rejected},
};

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Node {
    control: Control,
    stats: Vec<Arc<Stats>>,
    reports: Sender<Report>,
    refusals: Arc<AtomicUsize>,
    /// Orders that were taken, with the shard that did.
    taken: mpsc::Receiver<(usize, Order)>,
}

const TOKEN: &str = "yes";

/// A control plane over shards that do nothing but take orders, after so many refusals.
fn node(shards: usize) -> Node {
    node_of(shards, Authority::default())
}

/// The same with a token.
fn guarded(shards: usize) -> Node {
    node_of(shards, Authority::new(&[TOKEN.to_owned()], true, &["ron.example".to_owned()]))
}

fn node_of(shards: usize, authority: Authority) -> Node {
    let stats: Vec<Arc<Stats>> = (0..shards).map(|_| Arc::default()).collect();
    stats.iter().for_each(|stats| stats.watch.set_limit(Duration::from_millis(20)));
    let bell = Arc::new(Bell::new().unwrap());
    let (reports, received) = lane(8, &bell);
    let refusals = Arc::new(AtomicUsize::new(0));
    let (take, taken) = mpsc::channel();
    let port = |shard: usize| {
        let (refusals, take) = (Arc::clone(&refusals), take.clone());
        let port = move |order: Order| {
            let refuse = |left: usize| left.checked_sub(1);
            if refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok() {
                return false;
            }
            take.send((shard, order)).is_ok()
        };
        Box::new(port) as OrderPort
    };
    let control = start(ControlConfig {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        stats: stats.clone(),
        reports: received,
        bell,
        orders: (0..shards).map(port).collect(),
        partitions: 4,
        authority,
        build: BuildInfo { version: "1.2.3", commit: "abc" },
        tls_not_after: None,
        signals: false,
    });
    Node { control: control.unwrap(), stats, reports, refusals, taken }
}

fn serving(shards: usize) -> Node {
    let node = node(shards);
    node.stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
    node
}

/// Sends a request and returns head and body of the answer.
fn ask(node: &Node, request_line: &str, fields: &str) -> (String, String) {
    let mut stream = TcpStream::connect(node.control.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head =
        format!("{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    answer(stream)
}

/// Reads the answer to the last request of a connection.
fn answer(mut stream: TcpStream) -> (String, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn ready(node: &Node) -> (bool, serde_json::Value) {
    let (head, body) = ask(node, "GET /readyz", "");
    let ready = head.starts_with("http/1.1 200");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let told = body.get("retry_after").map(|seconds| seconds.to_string());
    assert_eq!(retry_after, told.as_deref(), "head and body say the same");
    assert_eq!(body["ready"], ready);
    assert_eq!(told.is_none(), ready);
    (ready, body)
}

#[test]
fn a_node_is_alive_before_it_is_ready() {
    let node = node(2);
    let (head, body) = ask(&node, "GET /healthz", "");
    assert!(head.starts_with("http/1.1 200") && body == "ok", "{head}");
    node.stats[0].set_phase(Phase::Serving);
    // The thread accepts its configuration before it serves the first connection.
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready);
    for (key, expected) in
        [("config", true), ("storage", false), ("listeners", false), ("control", true)]
    {
        assert_eq!(keys[key], expected, "{key}");
    }
    node.stats[1].set_phase(Phase::Serving);
    let (is_ready, keys) = ready(&node);
    assert!(is_ready && keys["overload"] == false, "{keys}");
    node.stats[1].reject(Rejected::Overload);
    let (is_ready, keys) = ready(&node);
    assert!(is_ready && keys.get("reasons").is_none(), "one request is no overload: {keys}");
    for _ in 0..1000 {
        node.stats[1].reject(Rejected::Overload);
    }
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready && keys["overload"] == true && keys["retry_after"] == 10, "{keys}");
    assert_eq!(keys["reasons"], serde_json::json!(["overload"]));
    node.control.shutdown().unwrap();
}

#[test]
fn metrics_come_in_the_form_asked_for() {
    let node = serving(1);
    let (head, body) = ask(&node, "GET /metrics", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nron_inflight 0\n"));
    let open = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let (head, body) = ask(&node, "GET /metrics", open);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let (head, body) = ask(&node, "HEAD /metrics", "");
    assert!(head.starts_with("http/1.1 200") && body.is_empty(), "{head}");
}

#[test]
fn what_is_not_there_is_refused_with_the_envelope() {
    let node = serving(1);
    let (head, body) = ask(&node, "GET /admin/reload?x=1", "X-Corr-Id: mine-1\r\n");
    assert!(head.starts_with("http/1.1 404"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("x-corr-id: mine-1"), "{head}");
    let envelope: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(envelope["code"], "not_found");
    assert_eq!(envelope["retryable"], false);
    assert_eq!(envelope["corr_id"], "mine-1");
    let (head, body) = ask(&node, "DELETE /readyz", "Content-Length: 0\r\n");
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get,head"), "{head}");
    let envelope: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(envelope["code"], "method_not_allowed");
    assert_eq!(envelope["corr_id"].as_str().unwrap().len(), 26, "a new id is made");
    let (_, body) = ask(&node, "GET /version", "");
    assert_eq!(body, r#"{"version":"1.2.3","commit":"abc"}"#);
}

#[test]
fn reports_become_events_and_wake_the_sleeping_thread() {
    let node = serving(2);
    let mut events = node.control.bus().subscribe();
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut next = || {
        waiting.block_on(async {
            loop {
                match tokio::time::timeout(SOON, events.next()).await {
                    Ok(Some(KernelEvent::ConfigUpdated { .. })) => {}
                    Ok(Some(event)) => return event,
                    other => panic!("nothing was heard: {other:?}"),
                }
            }
        })
    };
    for round in 0..50 {
        let shard = ShardId(round % 2);
        let message = "hello".to_owned();
        node.reports.send(Report::Note { shard, severity: Severity::Info, message }).unwrap();
        node.reports.send(Report::Ready { shard }).unwrap();
        let service = format!("shard-{}", round % 2);
        assert_eq!(next(), KernelEvent::Health { service, ok: true });
    }
    assert_eq!(node.control.wait_for(Duration::ZERO), None);
    node.reports.send(Report::Stopped { shard: ShardId(1), reason: None }).unwrap();
    assert!(matches!(next(), KernelEvent::ServiceCrashed { service, .. } if service == "shard-1"));
    let ending = node.control.wait_for(SOON);
    assert!(matches!(ending, Some(Ending::Crashed { service, .. }) if service == "shard-1"));
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready && keys["storage"] == false, "{keys}");
}

#[test]
fn a_drain_reaches_every_shard_and_its_end_is_no_crash() {
    let node = serving(2);
    node.control.drain(Duration::from_millis(1500)).unwrap();
    let mut drained = [node.taken.recv().unwrap(), node.taken.recv().unwrap()];
    drained.sort_unstable_by_key(|(shard, _)| *shard);
    assert!(
        matches!(
            drained,
            [(0, Order::Drain { within_ms: 1500 }), (1, Order::Drain { within_ms: 1500 })]
        ),
        "{drained:?}"
    );
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready && keys["control"] == false, "{keys}");
    let mut events = node.control.bus().subscribe();
    for shard in 0..2 {
        node.reports.send(Report::Stopped { shard: ShardId(shard), reason: None }).unwrap();
    }
    assert_eq!(node.control.wait_for(Duration::from_millis(50)), None);
    node.control.shutdown().unwrap();
    for shard in 0..2 {
        let service = format!("shard-{shard}");
        assert_eq!(events.try_next(), Some(KernelEvent::Health { service, ok: false }));
    }
}

#[test]
fn a_full_mailbox_is_named() {
    let node = serving(2);
    node.refusals.store(usize::MAX, Ordering::Relaxed);
    let refused = node.control.drain(SOON);
    assert_eq!(refused, Err(NotTaken { shards: vec![0, 1] }));
}

#[test]
fn idle_connections_never_shut_the_listener() {
    let node = serving(1);
    // Some say nothing, some are in the middle of a head, some were answered and kept.
    let idle: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(node.control.addr()).unwrap();
            let said: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /healthz HTTP/1.1\r\nHo",
                _ => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            };
            // The first ones may be closed already.
            let _ = stream.write_all(said);
            stream
        })
        .collect();
    let start = Instant::now();
    let (head, body) = ask(&node, "GET /healthz", "");
    assert!(head.starts_with("http/1.1 200") && body == "ok", "{head}");
    assert!(start.elapsed() < limits::IDLE_MAX / 2, "{:?}", start.elapsed());
    drop(idle);
}

#[test]
fn the_end_does_not_wait_for_idle_connections() {
    let node = serving(1);
    let mut idle = TcpStream::connect(node.control.addr()).unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).unwrap(), 0);
    let mut halfway = TcpStream::connect(node.control.addr()).unwrap();
    halfway.write_all(b"GET /healthz HT").unwrap();
    let start = Instant::now();
    node.control.shutdown().unwrap();
    assert!(start.elapsed() < limits::SHUTDOWN_MAX * 2);
}

#[test]
fn an_announced_shutdown_ends_the_wait() {
    let node = serving(1);
    node.control.announce(KernelEvent::Shutdown);
    assert_eq!(node.control.wait(), Ending::Asked);
}

mod debug;
mod storage;
