use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use ron_io::{
    lane::{Sender, lane},
    ports::{Severity, ShardId},
    stats::Phase,
};

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct Node {
    control: Control,
    stats: Vec<Arc<Stats>>,
    reports: Sender<Report>,
    refusals: Arc<AtomicUsize>,
    /// A shard that takes no order.
    stuck: Arc<AtomicUsize>,
    /// Orders that were taken, with the shard that did.
    taken: mpsc::Receiver<(usize, Order)>,
    /// What the next reload reads.
    settings: Arc<Mutex<Result<String, String>>>,
    /// How often settings were put in force.
    committed: Arc<AtomicUsize>,
    /// Where the names lie.
    _data: tempfile::TempDir,
}

const TOKEN: &str = "yes";
const NAME_LIMITS: NameLimits = NameLimits { max: 100, store_len: 1024 * 1024 };
/// Bytes of free space that are set aside.
const SET_ASIDE: u64 = 77;

/// A control plane over shards that do nothing but take orders, after so many refusals.
fn node(shards: usize) -> Node {
    node_of(shards, Authority::default())
}

/// The same with a token.
fn guarded(shards: usize) -> Node {
    node_of(shards, Authority::new(&[TOKEN.to_owned()], true, &["ron.example".to_owned()]))
}

fn node_of(shards: usize, authority: Authority) -> Node {
    node_reading(shards, authority, SOON)
}

/// Reads these settings, and counts how often they are put in force.
fn reload_of(settings: Arc<Mutex<Result<String, String>>>, committed: Arc<AtomicUsize>) -> Reload {
    Arc::new(move || {
        let token = settings.lock().unwrap().clone()?;
        let count = Arc::clone(&committed);
        Ok(Reloaded {
            write_tokens: WriteTokens(Arc::new([token])),
            log: "info".to_owned(),
            tls_not_after: Some(1_900_000_000),
            commit: Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
            warnings: Vec::new(),
        })
    })
}

/// The same where reading the settings may take so long.
fn node_reading(shards: usize, authority: Authority, reload_read_max: Duration) -> Node {
    let stats: Vec<Arc<Stats>> = (0..shards).map(|_| Arc::default()).collect();
    stats.iter().for_each(|stats| stats.watch.set_limit(Duration::from_millis(20)));
    let waker = Arc::new(Waker::new().unwrap());
    let (reports, received) = lane(8, &waker);
    let refusals = Arc::new(AtomicUsize::new(0));
    let stuck = Arc::new(AtomicUsize::new(usize::MAX));
    let (take, taken) = mpsc::channel();
    let port = |shard: usize| {
        let (refusals, take) = (Arc::clone(&refusals), take.clone());
        let stuck = Arc::clone(&stuck);
        let port = move |order: Order| {
            let refuse = |left: usize| left.checked_sub(1);
            if refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok() {
                return false;
            }
            if stuck.load(Ordering::Relaxed) == shard {
                return false;
            }
            take.send((shard, order)).is_ok()
        };
        Box::new(port) as OrderPort
    };
    let settings = Arc::new(Mutex::new(Err("nothing to read".to_owned())));
    let committed = Arc::new(AtomicUsize::new(0));
    let reload = reload_of(Arc::clone(&settings), Arc::clone(&committed));
    let data = tempfile::tempdir().unwrap();
    let control = start(ControlConfig {
        clients: Clients::Direct,
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        stats: stats.clone(),
        reports: received,
        waker,
        orders: (0..shards).map(port).collect(),
        partitions: 4,
        authority,
        write_tokens: WriteTokens(Arc::new([TOKEN.to_owned()])),
        reload,
        reload_read_max,
        build: BuildInfo { version: "1.2.3", commit: "abc" },
        tls_not_after: None,
        hang_limit: Duration::ZERO,
        set_aside: SetAside::new(|| SET_ASIDE),
        scrubs: true,
        names: Arc::new(NameStore::open(data.path(), NAME_LIMITS).unwrap()),
        memory_bill: vec![("blocks", 7)],
        signals: false,
    });
    Node {
        control: control.unwrap(),
        stats,
        reports,
        refusals,
        stuck,
        taken,
        settings,
        committed,
        _data: data,
    }
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
    let in_body = body.get("retry_after").map(|seconds| seconds.to_string());
    assert_eq!(retry_after, in_body.as_deref(), "head and body say the same");
    assert_eq!(body["ready"], ready);
    assert_eq!(in_body.is_none(), ready);
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
    let peer = node.stats[1].peers.bucket(1);
    node.stats[1].turn_away(peer);
    let (is_ready, keys) = ready(&node);
    assert!(is_ready && keys.get("reasons").is_none(), "one request is no overload: {keys}");
    (0..1000).for_each(|_| node.stats[1].turn_away(peer));
    assert!(ready(&node).0, "one address is refused, and no other");
    for peer in 0..100 {
        node.stats[1].turn_away(node.stats[1].peers.bucket(peer));
    }
    let (is_ready, keys) = ready(&node);
    assert!(!is_ready && keys["overload"] == true && keys["retry_after"] == 10, "{keys}");
    assert_eq!(keys["reasons"], serde_json::json!(["overload"]));
    node.control.shutdown().unwrap();
}

#[test]
fn load_is_measured_though_nobody_asks() {
    let node = serving(1);
    // The thread that looks may sleep already.
    node.stats[0].watch.wake(ron_io::watch::clock_ns());
    let until = Instant::now() + 2 * SOON;
    while node.control.health().looks_kept() < 2 {
        assert!(Instant::now() < until, "{} looks", node.control.health().looks_kept());
        std::thread::sleep(Duration::from_millis(20));
    }
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
    assert_eq!(body, "{\"version\":\"1.2.3\",\"commit\":\"abc\"}\n");
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
                    other => panic!("nothing was received: {other:?}"),
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

/// What the metrics say of reloads: whether the last one was applied, and until when the
/// certificate is good.
fn reloads(node: &Node) -> (bool, bool) {
    let (_, text) = ask(node, "GET /metrics", "");
    let has = |line: &str| text.lines().any(|found| found == line);
    assert!(text.contains("\nron_config_last_reload_timestamp_seconds 1"), "{text}");
    let renewed = has("ron_tls_certificate_not_after_seconds 1900000000");
    (has("ron_config_last_reload_success 1"), renewed)
}

/// The next version of the configuration that is announced.
fn next_version(events: &mut bus::Subscription) -> u64 {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    waiting.block_on(async {
        loop {
            match tokio::time::timeout(SOON, events.next()).await {
                Ok(Some(KernelEvent::ConfigUpdated { version })) => return version,
                Ok(Some(_)) => {}
                other => panic!("nothing was received: {other:?}"),
            }
        }
    })
}

/// Waits until this is what the metrics say of reloads.
fn wait_reloads(node: &Node, wanted: (bool, bool)) {
    let until = Instant::now() + SOON;
    while reloads(node) != wanted {
        assert!(Instant::now() < until, "{:?}", reloads(node));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn settings_are_reloaded_as_a_whole() {
    let node = guarded(2);
    node.stats.iter().for_each(|stats| stats.set_phase(Phase::Serving));
    let order = |token: &str| {
        let fields = format!("Authorization: Bearer {token}\r\n");
        let (head, _) = ask(&node, "POST /scrub", &fields);
        head.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    wait_reloads(&node, (true, false));
    assert_eq!((order(TOKEN), order("new")), (202, 401));
    for _ in 0..2 {
        assert!(matches!(node.taken.recv_timeout(SOON).unwrap(), (_, Order::Scrub)));
    }
    let mut events = node.control.bus().subscribe();
    *node.settings.lock().unwrap() = Ok("new".to_owned());
    // A mailbox that is full for a moment holds nothing up.
    node.refusals.store(3, Ordering::Relaxed);
    node.control.reload();
    let version = std::iter::repeat_with(|| next_version(&mut events)).find(|at| *at > 1);
    assert_eq!(version, Some(2));
    let tokens = Order::WriteTokens(WriteTokens(Arc::new(["new".to_owned()])));
    let mut shards: Vec<usize> = (0..2)
        .map(|_| {
            let (shard, order) = node.taken.recv_timeout(SOON).unwrap();
            assert_eq!(format!("{order:?}"), format!("{tokens:?}"), "and no token is shown");
            let Order::WriteTokens(tokens) = order else { panic!("{order:?}") };
            assert_eq!(&*tokens.0, ["new"]);
            shard
        })
        .collect();
    shards.sort_unstable();
    assert_eq!(shards, [0, 1]);
    assert_eq!(reloads(&node), (true, true));
    assert_eq!((order(TOKEN), order("new")), (401, 202));
    assert_eq!(node.committed.load(Ordering::Relaxed), 1);
}

/// Whether this process has a thread that reads settings.
fn is_reading() -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == "ron-reload")
}

#[test]
fn settings_that_cannot_be_read_to_their_end_hold_up_nothing() {
    let node = serving(1);
    let settings = Arc::clone(&node.settings);
    let held = settings.lock().unwrap();
    node.control.reload();
    let until = Instant::now() + SOON;
    while !is_reading() {
        assert!(Instant::now() < until, "nobody reads");
        thread::yield_now();
    }
    let (head, _) = ask(&node, "GET /healthz", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (ended, end) = mpsc::channel();
    let control = node.control;
    thread::spawn(move || ended.send(control.shutdown().is_ok()));
    assert_eq!(end.recv_timeout(SOON), Ok(true));
    drop(held);
}

#[test]
fn a_reload_that_takes_too_long_is_rejected_and_the_next_one_is_not() {
    let node = node_reading(1, Authority::default(), Duration::from_millis(20));
    *node.settings.lock().unwrap() = Ok("new".to_owned());
    let settings = Arc::clone(&node.settings);
    let held = settings.lock().unwrap();
    node.control.reload();
    wait_reloads(&node, (false, false));
    drop(held);
    let until = Instant::now() + SOON;
    while reloads(&node) != (true, true) {
        assert!(Instant::now() < until, "{:?}", reloads(&node));
        node.control.reload();
        thread::yield_now();
    }
    assert!(node.committed.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_reload_that_panics_is_rejected_and_the_next_one_is_not() {
    let node = serving(1);
    let settings = Arc::clone(&node.settings);
    let poison = thread::spawn(move || {
        let _held = settings.lock().unwrap();
        panic!("who takes the lock now panics as well");
    });
    assert!(poison.join().is_err());
    node.control.reload();
    wait_reloads(&node, (false, false));
    node.settings.clear_poison();
    *node.settings.lock().unwrap() = Ok("new".to_owned());
    node.control.reload();
    wait_reloads(&node, (true, true));
}

#[test]
fn settings_that_are_wrong_or_not_taken_change_nothing() {
    let node = serving(2);
    node.control.reload();
    wait_reloads(&node, (false, false));
    *node.settings.lock().unwrap() = Ok("new".to_owned());
    node.control.reload();
    wait_reloads(&node, (true, true));
    let taken = |count: usize| -> Vec<String> {
        let token = |order| match order {
            Order::WriteTokens(tokens) => tokens.0[0].clone(),
            other => panic!("{other:?}"),
        };
        (0..count).map(|_| token(node.taken.recv_timeout(SOON).unwrap().1)).collect()
    };
    assert_eq!(taken(2), ["new", "new"]);
    // One shard takes orders, the other none until the reload has given up.
    *node.settings.lock().unwrap() = Ok("never".to_owned());
    node.stuck.store(1, Ordering::Relaxed);
    node.control.reload();
    wait_reloads(&node, (false, true));
    assert_eq!(taken(2), ["never", "new"], "the shard that took them has the old ones again");
    assert!(node.taken.try_recv().is_err());
    assert_eq!(node.committed.load(Ordering::Relaxed), 1);
}

mod debug;
mod names;
mod storage;
