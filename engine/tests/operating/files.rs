//! A node under limits of the system: how many files it may have open, and how long they may be.

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use crate::common::{
    Data, KIB, MIB, Node, Setup, clean_environment,
    flood::Target,
    http::Peer,
    object,
    rude::{self, Door, Rude},
};

/// The command of a node that runs under this `ulimit`.
fn limited(setup: &Setup, ulimit: &str) -> Command {
    let inner = setup.command();
    let mut command = Command::new("sh");
    clean_environment(&mut command);
    command.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\""));
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// A node that may have 256 files and memory for as many uploads as that allows, measured.
fn target() -> Target {
    let data = Data::new();
    let setup = Target::setup(&data, 1, &["--cache", "64MiB"]);
    let node = Node::start(limited(&setup, "-n 256"));
    Target::on(data, node).warmed(80)
}

#[test]
fn more_connections_than_files_keep_nobody_from_admin_and_uploads() {
    ron_io::process::raise_file_limit().expect("the test may have as many files as it likes");
    let target = target();
    let node = &target.node;
    let said = node.wait_stderr("the limit of open files is 256");
    assert!(said.contains("LimitNOFILE="), "it says what to do: {said}");
    let mut old = Peer::new(node.connect());
    let ask = b"GET /o/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    old.send(ask);
    assert_eq!(old.response("GET").status, 405);

    // One that is refused before it runs again learns it as it connects.
    let at = node.at("http");
    let crowd: Vec<TcpStream> =
        (0..600).filter_map(|_| TcpStream::connect(at).ok().map(crate::common::timed)).collect();
    assert!(crowd.len() > 300, "{} connections", crowd.len());
    for mut peer in &crowd {
        // One that was refused already may be gone.
        let _ = std::io::Write::write_all(&mut peer, ask);
    }
    assert_eq!(node.admin("/healthz").status, 200);
    // New ones find no place; that of the measuring is kept.
    let during = target.measure("during");
    assert_eq!(during.kept.served, during.kept.times.len(), "{during}");
    for seed in 0..4 {
        let large = object(seed, 2 * MIB);
        let head =
            format!("PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 2 * MIB);
        old.send(head.as_bytes());
        old.send(&large.bytes);
        assert_eq!(old.response("PUT").status, 201, "upload {seed}");
        old.send(format!("GET /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", large.addr).as_bytes());
        let answer = old.response("GET");
        assert!(answer.status == 200 && answer.body == large.bytes, "download {seed}");
    }
    let metrics = node.metrics();
    // The crowd has one address, so what one peer may have comes first.
    let refused = |reason| metrics.sum(&format!("ron_rejected_total{{reason=\"{reason}\"}}"));
    assert!(refused("connections") + refused("peer_connections") > 0);
    let (open, limit) = (metrics.sum("process_open_fds"), metrics.sum("process_max_fds"));
    assert!(limit == 256 && open > 20 && open < 256, "{open} of {limit}");

    drop(crowd);
    // Places become free as the node notices it.
    let until = Instant::now() + crate::common::DEADLINE;
    loop {
        let mut peer = Peer::new(node.connect());
        if peer.try_send(ask) && peer.try_response("GET").is_some_and(|found| found.status == 405) {
            break;
        }
        assert!(Instant::now() < until, "the node takes no connections again");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(old);
    target.finish();
}

/// Begins so many uploads that each need a file of their own and are never whole. Returns those
/// that were not refused, and how many were.
fn unfinished_uploads(node: &Node, count: usize) -> (Vec<Rude>, usize) {
    // A few at a time: with 256 files a shard takes 18 connections, and closes idle ones where it
    // has no more than one left.
    const AT_ONCE: usize = 2;
    let head = "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n";
    let part = vec![7; MIB + MIB / 2];
    let (mut uploads, mut refused) = (Vec::new(), 0);
    let open = || node.metrics().sum("ron_connections");
    let others = open();
    for _ in 0..count / AT_ONCE {
        let mut peers = Rude::many(node, Door::Http, AT_ONCE, None);
        for peer in &mut peers {
            peer.send(head.as_bytes()).expect("a head fits");
        }
        rude::flood(&mut peers, &part, part.len());
        for mut peer in peers {
            let (said, _) = peer.read_within(KIB, Duration::from_millis(20));
            match said.starts_with(b"HTTP/1.1 503") {
                true => refused += 1,
                false => uploads.push(peer),
            }
        }
        // The node notices in its own time that those are gone, and until then they take places.
        let until = Instant::now() + crate::common::DEADLINE;
        while open() > others + uploads.len() as u64 {
            assert!(Instant::now() < until, "{} connections are open", open());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    (uploads, refused)
}

#[test]
fn more_uploads_than_files_take_none_from_others() {
    let target = target();
    let node = &target.node;
    let mut old = Peer::new(node.connect());
    let large: Vec<_> = (0..24).map(|seed| object(100 + seed, 2 * MIB)).collect();
    large.iter().for_each(|object| {
        assert_eq!(old.try_put(&object.addr, &object.bytes).expect("an answer").status, 201);
    });
    let (uploads, refused) = unfinished_uploads(node, 40);
    // An eighth of the limit or so is for uploads, and half of that for one address.
    let files = uploads.len();
    assert!((8..=12).contains(&files) && files + refused == 40, "{files} files, {refused} refused");
    target.measure("during").expect_served();
    let open = node.metrics().sum("process_open_fds");
    assert!(open < 256, "{open} files are open");
    assert_eq!(node.admin("/healthz").status, 200);
    for object in &large {
        let answer = old.get(&format!("/o/{}", object.addr));
        assert!(answer.status == 200 && answer.body == object.bytes);
    }
    let of_another = object(8, 2 * MIB);
    let file = target.data.path().join("of-another");
    std::fs::write(&file, &of_another.bytes).expect("it can be written");
    let out = Command::new("curl")
        .args(["-sS", "--interface", "127.0.0.2", "-o", "/dev/null", "-w", "%{http_code}", "-T"])
        .arg(&file)
        .arg(format!("http://{}/o/{}", node.at("http"), of_another.addr))
        .output()
        .expect("curl is there");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "201", "another address has the rest");
    // Those that leave give their places to others.
    drop(uploads);
    let until = Instant::now() + crate::common::DEADLINE;
    loop {
        let again = object(7, 2 * MIB);
        let answer = Peer::new(node.connect()).try_put(&again.addr, &again.bytes);
        match answer.expect("an answer").status {
            200 | 201 => break,
            503 => assert!(Instant::now() < until, "files of uploads are not given back"),
            other => panic!("{other}"),
        }
    }
    drop(old);
    target.finish();
}

#[test]
fn the_limit_is_raised_as_far_as_it_may_be() {
    let data = Data::new();
    let node = Node::start(limited(&data.setup(), "-Sn 64"));
    assert!(node.metrics().sum("process_max_fds") > 64);
    node.terminate();
}

#[test]
fn a_limit_that_is_too_low_is_named() {
    let data = Data::new();
    for limit in ["20", "60"] {
        let out = crate::common::run(&mut limited(&data.setup(), &format!("-n {limit}")), b"");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.code, 1, "{said}");
        assert!(said.contains(&format!("the limit of open files is {limit}, and ")), "{said}");
        assert!(said.contains("LimitNOFILE=") && !said.contains("panicked"), "{said}");
        assert!(!data.path().join("data").exists(), "nothing is made");
    }
}

/// A write beyond the limit is an error, and by default a signal too that ends the process.
#[test]
fn a_limit_on_the_length_of_files_refuses_uploads_and_ends_nothing() {
    let data = Data::new();
    let setup = data.setup().args(&["--partitions", "1"]);
    // In blocks of 512 bytes: 8 MiB.
    let node = Node::start(limited(&setup, "-f 16384"));
    let mut peer = Peer::new(node.connect());
    let mut put = |seed, len| {
        let object = object(seed, len);
        let answer = peer.try_put(&object.addr, &object.bytes).expect("the node answers");
        (answer.status, object)
    };
    let (status, first) = put(0, 1000);
    assert_eq!(status, 201);
    let large = (1..=40).map(|seed| put(seed, 300_000).0).filter(|status| *status != 201).count();
    let small = (41..=400).map(|seed| put(seed, 2_000).0).filter(|status| *status != 201).count();
    assert!(large > 0 && small > 0, "{large} and {small} were refused");
    assert_eq!(put(500, 9 * MIB).0, 507, "a file of its own cannot be that long either");
    let answer = Peer::new(node.connect()).get(&format!("/o/{}", first.addr));
    assert!(answer.status == 200 && answer.body == first.bytes);
    node.signal("TERM");
    let (code, said) = node.exit();
    assert!(code >= 0, "a signal ended it: {said}");
}
