//! Signals that do not end a node, and settings that change while it runs.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use crate::common::{DEADLINE, Data, MIB, Node, assert_same, curl::Curl, http::Peer, object, run};

/// A certificate for this machine that signs itself, and its key, in files.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

/// Writes a new certificate and its key to `cert.pem` and `key.pem`, and a copy of the certificate
/// to a name of its own, which is returned to be trusted.
fn renew(pair: &Pair, name: &str) -> PathBuf {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    let own = pair.cert.with_file_name(name);
    for (path, text) in [
        (&pair.cert, made.cert.pem()),
        (&pair.key, made.signing_key.serialize_pem()),
        (&own, made.cert.pem()),
    ] {
        fs::write(path, text).expect("it can be written");
    }
    own
}

fn pair(data: &Data) -> Pair {
    Pair { cert: data.path().join("cert.pem"), key: data.path().join("key.pem") }
}

/// Starts a node that reads its settings from a file.
fn start(data: &Data, settings: &str) -> (Node, PathBuf) {
    let file = data.path().join("ron.toml");
    fs::write(&file, settings).expect("it can be written");
    let node = data.setup().args(&["--config", file.to_str().expect("UTF-8")]).start();
    (node, file)
}

/// Whether a new handshake shows the certificate in this file.
fn shows(node: &Node, cert: &Path) -> bool {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-verify_return_error", "-connect"]);
    command.arg(node.at("https").to_string()).arg("-CAfile").arg(cert);
    run(&mut command, b"").code == 0
}

/// Sends SIGHUP and waits for the outcome: whether the settings were put in force.
fn reload(node: &Node) -> bool {
    let before = node.stderr().lines().count();
    node.signal("HUP");
    let until = Instant::now() + DEADLINE;
    loop {
        let said = node.stderr();
        let has = |what: &str| said.lines().skip(before).any(|line| line.contains(what));
        if has("reload rejected") {
            return false;
        }
        if has("configuration accepted") {
            return true;
        }
        assert!(Instant::now() < until, "neither: {said}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A GET over TLS that is not read yet.
fn slow_get(node: &Node, ca: &Path, addr: &str) -> (Child, ChildStdout) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect"]);
    command.arg(node.at("https").to_string()).arg("-CAfile").arg(ca);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl can be started");
    let head = format!("GET /o/{addr} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let stdin = child.stdin.as_mut().expect("stdin is a pipe");
    stdin.write_all(head.as_bytes()).expect("openssl takes it");
    let stdout = child.stdout.take().expect("stdout is a pipe");
    (child, stdout)
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let data = Data::new();
    let pair = pair(&data);
    let old = renew(&pair, "old.pem");
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let (node, _) = start(&data, &format!("tls_cert = '{cert}'\ntls_key = '{key}'\n"));
    let large = object(1, 48 * MIB);
    Curl::http(&node).store(&large);
    assert!(shows(&node, &old));
    let (mut child, mut stdout) = slow_get(&node, &old, &large.addr);
    let mut answer = vec![0; 1000];
    stdout.read_exact(&mut answer).expect("the answer begins");

    let new = renew(&pair, "new.pem");
    assert!(shows(&node, &old), "files alone change nothing");
    assert!(reload(&node));
    assert!(shows(&node, &new) && !shows(&node, &old));
    // Signed by itself for as long as rcgen likes: until the year 4096.
    let metrics = node.metrics();
    assert!(metrics.sum("ron_tls_certificate_not_after_seconds") > 60_000_000_000);
    assert_eq!(metrics.sum("ron_config_last_reload_success"), 1);

    stdout.read_to_end(&mut answer).expect("the answer goes on");
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("there is a head");
    assert_same(&answer[head + 4..], &large.bytes, "what was in progress when it changed");
    node.terminate();
}

#[test]
fn settings_with_a_mistake_are_rejected_as_a_whole() {
    let data = Data::new();
    let pair = pair(&data);
    let old = renew(&pair, "old.pem");
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let settings = format!("tls_cert = '{cert}'\ntls_key = '{key}'\n");
    let (node, file) = start(&data, &settings);
    let applied = |node: &Node| {
        let metrics = node.metrics();
        assert!(metrics.sum("ron_config_last_reload_timestamp_seconds") > 1_700_000_000);
        metrics.sum("ron_config_last_reload_success") == 1
    };
    assert!(applied(&node));
    let good_key = fs::read(&pair.key).expect("it is there");

    // The key of another certificate, and at the same time a level that would silence the log.
    let other = data.path().join("other");
    fs::create_dir(&other).expect("it can be made");
    let other = Pair { cert: other.join("cert.pem"), key: other.join("key.pem") };
    renew(&other, "own.pem");
    fs::copy(&other.key, &pair.key).expect("it can be copied");
    fs::write(&file, format!("{settings}log = 'error'\n")).expect("it can be written");
    assert!(!reload(&node) && !applied(&node) && shows(&node, &old));
    let said = node.stderr();
    assert!(said.contains(&format!("tls_key {key} does not belong to tls_cert {cert}")), "{said}");

    for (text, reason) in [("nothing of the kind", "key.pem"), ("", "key.pem")] {
        fs::write(&pair.key, text).expect("it can be written");
        assert!(!reload(&node) && shows(&node, &old));
        assert!(node.stderr().contains(reason));
    }
    fs::write(&pair.key, &good_key).expect("it can be written");
    fs::write(&file, format!("{settings}htpp = 1\n")).expect("it can be written");
    assert!(!reload(&node) && node.stderr().contains("htpp"));

    fs::write(&file, format!("{settings}connections_max = 77\n")).expect("it can be written");
    assert!(reload(&node) && applied(&node));
    node.wait_stderr("wait for a restart have changed: connections_max");
    assert_eq!(Curl::http(&node).put_sized(b"bytes", &[]).status, 201);
    node.terminate();
}

#[test]
fn the_log_has_another_level_from_then_on() {
    let data = Data::new();
    let (node, file) = start(&data, "log = 'error'\n");
    node.signal("USR1");
    fs::write(&file, "log = 'info'\n").expect("it can be written");
    assert!(reload(&node), "it is said at the new level");
    assert!(!node.stderr().contains("SIGUSR1"), "{}", node.stderr());
    node.signal("USR2");
    node.wait_stderr("SIGUSR2");
    node.terminate();
}

#[test]
fn a_token_that_is_taken_away_no_longer_writes() {
    let data = Data::new();
    let (node, file) = start(&data, "write_tokens = ['one', 'two']\n");
    let put = |token: &str, seed: u64| {
        let auth = format!("Authorization: Bearer {token}");
        Curl::http(&node).put_sized(&object(seed, 100).bytes, &["-H", &auth]).status
    };
    let scrub = |token: &str| {
        let url = format!("http://{}/scrub", node.at("admin"));
        let auth = format!("Authorization: Bearer {token}");
        crate::common::curl::curl(&["-X", "POST", "-H", &auth, &url]).status
    };
    let mut kept = Peer::new(node.connect());
    let mut put_on_kept = |token: &str, bytes: &[u8]| {
        let (addr, len) = (crate::common::addr_of(bytes), bytes.len());
        let head =
            format!("PUT /o/{addr} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n");
        kept.send(format!("{head}Authorization: Bearer {token}\r\n\r\n").as_bytes());
        kept.send(bytes);
        kept.response("PUT").status
    };
    assert_eq!((put("one", 1), put("two", 2), put("three", 3)), (201, 201, 401));
    assert_eq!(put_on_kept("one", b"before"), 201);
    assert_eq!((scrub("one"), scrub("three")), (202, 401));
    fs::write(&file, "write_tokens = ['two', 'three']\n").expect("it can be written");
    assert!(reload(&node));
    assert_eq!((put("one", 4), put("two", 5), put("three", 6)), (401, 201, 201));
    // A connection from before that is judged by the new ones, too.
    assert_eq!((put_on_kept("three", b"new"), put_on_kept("one", b"old")), (201, 401));
    assert_eq!((scrub("one"), scrub("three")), (401, 202));
    // The last ones go, and from now on requests of this machine may write.
    const OPEN: &str = "no write token is configured any more";
    assert!(!node.stderr().contains(OPEN));
    fs::write(&file, "").expect("it can be written");
    assert!(reload(&node));
    node.wait_stderr(OPEN);
    Curl::http(&node).store(&object(7, 100));
    assert!(!node.stderr().contains("three"), "a token is never shown");
    node.terminate();
}

#[test]
fn no_signal_but_those_that_ask_for_it_ends_a_node() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 100_000);
    Curl::http(&node).store(&object);
    for name in ["HUP", "USR1", "USR2", "PIPE", "HUP"] {
        node.signal(name);
        Curl::http(&node).check(&object);
    }
    for name in ["SIGHUP", "SIGUSR1", "SIGUSR2"] {
        node.wait_stderr(name);
    }
    node.wait_stderr("configuration accepted");
    assert!(shows(&node, &node.ca()), "the development CA signed another leaf");
    node.terminate();
}

/// A node that has all its settings but for what a test must have from a file.
fn start_by_file(data: &Data, settings: &str) -> (Node, PathBuf) {
    let file = data.path().join("ron.toml");
    fs::write(&file, settings).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rond"));
    crate::common::clean_environment(&mut command);
    command.arg("--data-dir").arg(data.path().join("data")).arg("--config").arg(&file);
    command.args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"]);
    (Node::start(command), file)
}

#[test]
fn what_a_start_would_refuse_a_reload_refuses() {
    let data = Data::new();
    let (node, file) = start_by_file(&data, "oap = 'off'\ncache = '16MiB'\n");
    let [one, other] = ["one", "other"].map(|name| {
        let folder = data.path().join(name);
        fs::create_dir(&folder).expect("it can be made");
        let pair = Pair { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        renew(&pair, "own.pem");
        pair
    });
    let (cert, key) = (one.cert.display(), other.key.display());
    for (settings, said) in [
        ("cache = '16MiB'\nconnection_buffers = '512GiB'\n".to_owned(), "do not fit this machine"),
        (
            format!("https = '127.0.0.1:0'\ntls_cert = '{cert}'\ntls_key = '{key}'\n"),
            "does not belong to tls_cert",
        ),
    ] {
        fs::write(&file, format!("oap = 'off'\nwrite_tokens = ['new']\n{settings}"))
            .expect("it can be written");
        assert!(!reload(&node), "{settings}");
        node.wait_stderr(said);
        let without_token = Curl::http(&node).put_sized(settings.as_bytes(), &[]);
        assert_eq!(without_token.status, 201, "all is as it was");
    }
    node.terminate();
}

#[test]
fn a_listener_that_waits_for_a_restart_to_go_shows_what_it_has_shown() {
    let data = Data::new();
    let pair = pair(&data);
    let own = renew(&pair, "own.pem");
    let (cert, key) = (pair.cert.display(), pair.key.display());
    let tls = format!("https = '127.0.0.1:0'\ntls_cert = '{cert}'\ntls_key = '{key}'\n");
    let (node, file) = start_by_file(&data, &format!("oap = 'off'\n{tls}"));
    let ends = || node.metrics().sum("ron_tls_certificate_not_after_seconds");
    let before = ends();
    assert!(shows(&node, &own));
    fs::write(&file, "oap = 'off'\n").expect("it can be written");
    assert!(reload(&node));
    node.wait_stderr("wait for a restart have changed: https");
    assert!(shows(&node, &own) && ends() == before);
    node.terminate();
}

/// What nobody writes to, and is read for as long as somebody might.
fn fifo(data: &Data, name: &str) -> PathBuf {
    let path = data.path().join(name);
    let made = run(Command::new("mkfifo").arg(&path), b"");
    assert_eq!(made.code, 0, "{}", String::from_utf8_lossy(&made.stderr));
    path
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let data = Data::new();
    let pair = pair(&data);
    let (node, file) = start(&data, "");
    let fifo = fifo(&data, "fifo");
    let (cert, key) = (fifo.display(), pair.key.display());
    let settings = format!("tls_cert = '{cert}'\ntls_key = '{key}'\n");
    fs::write(&file, &settings).expect("it can be written");
    assert!(!reload(&node));
    let said = node.stderr();
    let wanted = format!("tls_cert: cannot read {cert}: it is no regular file");
    assert!(said.contains(&wanted), "{said}");
    fs::remove_file(&file).expect("it is there");
    fs::rename(&fifo, &file).expect("it is there");
    assert!(!reload(&node));
    let said = node.wait_stderr("cannot be read: it is no regular file");
    assert!(said.contains("ron.toml"), "{said}");
    node.terminate();
    let (code, said) = data.setup().args(&["--config", file.to_str().expect("UTF-8")]).refused();
    assert!(code == 2 && said.contains("it is no regular file"), "{code} {said}");
}

#[test]
fn a_development_ca_that_is_made_anew_comes_with_a_warning() {
    const WARNING: &str = "the development CA was made anew";
    let data = Data::new();
    let (node, file) = start(&data, "");
    let folder = node.ca().parent().expect("a file is in a folder").to_path_buf();
    assert!(!node.stderr().contains(WARNING));
    let warnings = |node: &Node| node.stderr().matches(WARNING).count();
    for (at, gone) in ["ca.key", "ca.pem"].into_iter().enumerate() {
        fs::remove_file(folder.join(gone)).expect("it is there");
        assert!(reload(&node));
        node.wait_stderr(&format!("{gone} is not there"));
        assert_eq!(warnings(&node), at + 1);
    }
    fs::write(folder.join("ca.key"), "junk").expect("it can be written");
    assert!(reload(&node));
    node.wait_stderr("ca.key cannot be used");
    fs::remove_dir_all(&folder).expect("it is there");
    assert!(reload(&node));
    node.wait_stderr("holds no CA");
    assert!(reload(&node));
    assert_eq!(warnings(&node), 4, "a reload that makes none warns of none");
    node.terminate();
    // A start warns of it as well.
    let args = ["--config", file.to_str().expect("UTF-8")];
    fs::remove_file(folder.join("ca.key")).expect("it is there");
    let node = data.setup().args(&args).start();
    node.wait_stderr("ca.key is not there");
    node.terminate();
    fs::remove_dir_all(&folder).expect("it is there");
    let node = data.setup().args(&args).start();
    node.wait_stderr("holds no CA");
    node.terminate();
}
