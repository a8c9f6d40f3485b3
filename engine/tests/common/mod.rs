//! A node under test: the real binary, in a process of its own, on a directory of its own.
//!
//! Nothing here knows the node's code. A node is started on free ports, waited for by its ready
//! line, and always ended by the id that was kept of it. Every wait has an end, and what the node
//! wrote on standard error is shown when a test fails.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub mod curl;
pub mod disk;
pub mod flood;
pub mod http;
pub mod oap;
pub mod rude;

/// How long anything may take that is expected to happen at once on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * 1024;
/// Bytes that are verified together (docs/STORAGE.md, "Groups and outboards").
pub const GROUP: usize = 64 * KIB;

/// Some bytes and what they are called.
#[derive(Clone)]
pub struct Object {
    pub bytes: Vec<u8>,
    /// `b3:` and 64 digits.
    pub addr: String,
}

/// A small generator: its seed decides everything that follows.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// `len` bytes that follow from `seed`, and look like noise.
pub fn object(seed: u64, len: usize) -> Object {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(len as u64));
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.word().to_le_bytes());
    }
    bytes.truncate(len);
    named(bytes)
}

/// These bytes and what they are called.
pub fn named(bytes: Vec<u8>) -> Object {
    let addr = addr_of(&bytes);
    Object { bytes, addr }
}

pub fn addr_of(bytes: &[u8]) -> String {
    format!("b3:{}", blake3::hash(bytes).to_hex())
}

/// Fails without printing megabytes when two byte strings differ.
pub fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    if found != wanted {
        let at = found.iter().zip(wanted).position(|(a, b)| a != b);
        panic!(
            "{what}: {} bytes, wanted {}; they differ first at {:?}",
            found.len(),
            wanted.len(),
            at.unwrap_or(found.len().min(wanted.len()))
        );
    }
}

/// Ids of the cores that this process may run on.
pub fn cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let number = |text: &str| text.trim().parse::<usize>().expect("a core is a number");
    let parts = list.expect("every Linux lists the cores").trim().split(',');
    parts
        .flat_map(|part| match part.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(part)..=number(part),
        })
        .collect()
}

/// Says that a test is left out here, and why; also in the file that `SKIPPED_TESTS` names, because
/// what a test that passes says is not shown.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED: {test}: {why}");
    if let Some(path) = std::env::var_os("SKIPPED_TESTS") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let noted = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        noted.expect("the file of skipped tests can be written");
    }
}

/// One core, and two where there are two; says so where there are not.
pub fn one_and_two_cores() -> Vec<usize> {
    let counts = if cores().len() >= 2 { vec![1, 2] } else { vec![1] };
    if counts.len() == 1 {
        skipped("in part: two shards need two cores, and there is one");
    }
    counts
}

/// Whether two shards can run here; says so where they cannot.
pub fn has_two_cores() -> bool {
    let has = cores().len() >= 2;
    if !has {
        skipped("two shards need two cores, and there is one");
    }
    has
}

/// An address of this machine that is no loopback address, if it has one.
pub fn outer_address() -> Option<IpAddr> {
    let out = Command::new("hostname").arg("-I").output().ok()?;
    let first = String::from_utf8(out.stdout).ok()?;
    let address = first.split_whitespace().next()?.parse::<IpAddr>().ok()?;
    (!address.is_loopback() && address.is_ipv4()).then_some(address)
}

/// How a node is started.
pub struct Setup {
    cores: usize,
    args: Vec<String>,
    env: Vec<(String, String)>,
    data: PathBuf,
}

/// A data directory that outlives the nodes that use it, one after the other.
pub struct Data(TempDir);

impl Data {
    pub fn new() -> Data {
        Data(tempfile::tempdir().expect("a directory can be made"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A node with one shard on this directory.
    pub fn setup(&self) -> Setup {
        Setup { cores: 1, args: Vec::new(), env: Vec::new(), data: self.path().join("data") }
    }

    /// Starts a node with so many shards on this directory.
    pub fn start(&self, shards: usize) -> Node {
        self.setup().shards(shards).start()
    }
}

impl Setup {
    pub fn shards(mut self, shards: usize) -> Setup {
        self.cores = shards;
        self
    }

    /// More arguments; they come last and therefore are not given by the harness itself.
    pub fn args(mut self, args: &[&str]) -> Setup {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, with free ports everywhere but where `args` says otherwise.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rond"));
        let cores: Vec<String> =
            cores().into_iter().take(self.cores).map(|core| core.to_string()).collect();
        assert_eq!(cores.len(), self.cores, "there is a core for each shard");
        if !self.args.iter().any(|arg| arg == "--data-dirs") {
            command.arg("--data-dir").arg(&self.data);
        }
        let defaults = [
            ("--http", "127.0.0.1:0"),
            ("--https", "127.0.0.1:0"),
            ("--oap", "127.0.0.1:0"),
            ("--oap-plain", "127.0.0.1:0"),
            ("--admin", "127.0.0.1:0"),
            ("--cores", &cores.join(",")),
            ("--cache", "64MiB"),
            // Tests that end a node often hold their connections open.
            ("--deadline-linger", "1"),
        ];
        for (flag, value) in defaults {
            let given = self.args.iter().any(|arg| arg == flag);
            if !given {
                command.args([flag, value]);
            }
        }
        clean_environment(&mut command);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the node and waits until it is ready.
    pub fn start(&self) -> Node {
        Node::start(self.command())
    }

    /// Runs a node that is expected to give up at once: its exit code and what it said.
    pub fn refused(&self) -> (i32, String) {
        self.start_or_end().err().expect("the node does not start")
    }

    /// Runs a node that may be ready or give up: then its exit code and what it said.
    pub fn start_or_end(&self) -> Result<Node, (i32, String)> {
        let (mut node, first) = Node::spawn(self.command());
        if let Some(line) = first {
            node.ready = serde_json::from_str(&line).expect("the ready line is JSON");
            return Ok(node);
        }
        let status = node.wait();
        Err((status.code().unwrap_or(-1), node.said.end()))
    }
}

/// Settings of the user who runs the tests are not settings of the tests.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("RON_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
}

/// A running node. It is killed when it is dropped.
pub struct Node {
    child: Child,
    ready: Value,
    /// Behind a lock only so that threads can share a node.
    stdout: Mutex<mpsc::Receiver<String>>,
    said: Arc<Said>,
    ended: bool,
}

/// What a process wrote on standard error so far.
#[derive(Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
    /// Nothing more will come.
    ended: AtomicBool,
}

impl Said {
    fn text(&self) -> String {
        self.text.lock().expect("the reader does not panic").clone()
    }

    /// Waits until this is true of the text, or nothing more comes.
    fn wait(&self, at_most: Duration, is_enough: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + at_most;
        let mut text = self.text.lock().expect("the reader does not panic");
        while !is_enough(&text) && !self.ended.load(Ordering::Acquire) {
            // The end is signalled without the lock, so it might be missed once.
            let step = Duration::from_millis(100);
            text = self.more.wait_timeout(text, step).expect("the reader does not panic").0;
            assert!(Instant::now() < until, "this is all that was said: {text}");
        }
        text.clone()
    }

    /// All of it, once the process has ended.
    fn end(&self) -> String {
        self.wait(DEADLINE, |_| false)
    }
}

impl Node {
    /// Starts a command that is a node, and waits until it is ready.
    pub fn start(command: Command) -> Node {
        Node::start_saying(command, Stdio::piped())
    }

    /// Starts a command that is a node whose standard error goes elsewhere, and waits until it is
    /// ready.
    pub fn start_saying(command: Command, stderr: Stdio) -> Node {
        let (mut node, first) = Node::spawn_saying(command, stderr);
        let line = first.expect("the node says that it is ready");
        node.ready = serde_json::from_str(&line).expect("the ready line is JSON");
        node
    }

    /// Starts a command and waits for its first line on standard output, or for its end.
    fn spawn(command: Command) -> (Node, Option<String>) {
        Node::spawn_saying(command, Stdio::piped())
    }

    fn spawn_saying(mut command: Command, stderr: Stdio) -> (Node, Option<String>) {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the node can be started");
        let (lines, stdout) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        let said = Arc::new(Said::default());
        let err = child.stderr.take().map(BufReader::new);
        let note = Arc::clone(&said);
        thread::spawn(move || {
            for line in err.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let mut text = note.text.lock().expect("no reader panics");
                text.push_str(&line);
                text.push('\n');
                note.more.notify_all();
            }
            note.ended.store(true, Ordering::Release);
            note.more.notify_all();
        });
        let first = stdout.recv_timeout(DEADLINE);
        let stdout = Mutex::new(stdout);
        let node = Node { child, ready: Value::Null, stdout, said, ended: false };
        match first {
            Ok(line) => (node, Some(line)),
            Err(mpsc::RecvTimeoutError::Disconnected) => (node, None),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node is neither ready nor ends"),
        }
    }

    /// The line on standard output.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where something is served, by its key in the ready line.
    pub fn at(&self, key: &str) -> SocketAddr {
        let address = self.ready[key].as_str().unwrap_or_else(|| panic!("{key} is off"));
        address.parse().unwrap_or_else(|error| panic!("{key} is {address}: {error}"))
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.at("http"))
    }

    pub fn https(&self) -> String {
        format!("https://{}", self.at("https"))
    }

    /// The certificate to trust, in PEM.
    pub fn ca(&self) -> PathBuf {
        self.ready["ca"].as_str().expect("the node made a CA").into()
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.at("http"))
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.said.text()
    }

    /// Waits until standard error has this.
    pub fn wait_stderr(&self, wanted: &str) -> String {
        self.wait_stderr_for(wanted, DEADLINE)
    }

    /// Waits that long until standard error has this.
    pub fn wait_stderr_for(&self, wanted: &str, at_most: Duration) -> String {
        let text = self.said.wait(at_most, |text| text.contains(wanted));
        assert!(text.contains(wanted), "{wanted:?} was not said: {text}");
        text
    }

    /// An answer of the admin listener.
    pub fn admin(&self, path: &str) -> http::Response {
        let mut peer = http::Peer::new(connect(self.at("admin")));
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        peer.response("GET")
    }

    /// The metrics as they are now.
    pub fn metrics(&self) -> Metrics {
        let answer = self.admin("/metrics");
        assert_eq!(answer.status, 200);
        Metrics(String::from_utf8(answer.body).expect("metrics are text"))
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Asks the node to end, and expects that it does so in good order.
    pub fn terminate(self) {
        self.signal("TERM");
        self.finish();
    }

    /// Waits for the end of a node that was asked to end, and expects good order.
    pub fn finish(mut self) {
        let status = self.wait();
        assert!(status.success(), "the node ended with {status}");
    }

    /// Waits for the end of a node: its exit code, and all that it said.
    pub fn exit(mut self) -> (i32, String) {
        let status = self.wait();
        (status.code().unwrap_or(-1), self.said.end())
    }

    /// Ends the node at once.
    pub fn kill(mut self) {
        self.child.kill().expect("the node can be killed");
        self.wait();
    }

    /// Waits until standard output is closed, which happens when the process ends, and then for
    /// the process. Nothing may have been written after the ready line.
    fn wait(&mut self) -> ExitStatus {
        let stdout = self.stdout.get_mut().expect("nobody panicked with it");
        match stdout.recv_timeout(DEADLINE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            Ok(line) => panic!("a second line on stdout: {line}"),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node does not end"),
        }
        let status = self.child.wait().expect("the node is our child");
        self.ended = true;
        status
    }

    /// Asks the node to end, and holds it up with an answer that is not read: it drains until the
    /// peer is dropped.
    pub fn end_held_up(&self) -> http::Peer {
        let large = object(1, 64 * MIB);
        curl::Curl::http(self).store(&large);
        let mut peer = http::Peer::new(self.connect());
        peer.send(format!("GET /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", large.addr).as_bytes());
        assert_eq!(peer.try_head().expect("there is a head").status, 200);
        self.signal("TERM");
        self.wait_draining();
        peer
    }

    /// Waits until the node has begun to end: from then on it is not ready.
    pub fn wait_draining(&self) {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let Ok(stream) = TcpStream::connect(self.at("admin")) else { return };
            let mut peer = http::Peer::new(timed(stream));
            if !peer.try_send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n") {
                return;
            }
            match peer.try_response("GET") {
                Some(answer) if answer.status == 200 => {}
                _ => return,
            }
        }
        panic!("the node does not begin to end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself, which is then the failure that is being reported.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("---- standard error of the node ----\n{}----", self.said.text());
        }
    }
}

/// Sends a signal by name to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(sent.expect("there is a shell").success(), "{pid} can be sent {name}");
}

/// A connection on which every read and write has a timeout.
pub fn connect(to: SocketAddr) -> TcpStream {
    timed(TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}")))
}

/// The same from another address of this machine.
pub fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("there are sockets");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127/8 is this machine");
    socket.connect(&to.into()).unwrap_or_else(|error| panic!("{to}: {error}"));
    timed(socket.into())
}

/// A stream on which every read and write has a timeout.
pub fn timed(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("a time can be set");
    stream.set_write_timeout(Some(DEADLINE)).expect("a time can be set");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

/// What a command wrote, and how it ended.
pub struct Output {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command to its end with this input. It is killed if it takes too long.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut into = child.stdin.take().expect("stdin is a pipe");
    let out = collect(child.stdout.take().expect("stdout is a pipe"));
    let err = collect(child.stderr.take().expect("stderr is a pipe"));
    thread::scope(|scope| {
        // A command that ends early leaves the rest unread, which is no failure of its own.
        scope.spawn(move || drop(std::io::Write::write_all(&mut into, input)));
        let stdout = out.recv_timeout(DEADLINE);
        if stdout.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().expect("it is our child");
        let stderr = err.recv().expect("the reader sends once");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        let stdout = stdout.unwrap_or_else(|_| panic!("{command:?} does not end: {said}"));
        Output { code: status.code().unwrap_or(-1), stdout, stderr }
    })
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is.
        let _ = from.read_to_end(&mut bytes);
        sender.send(bytes)
    });
    receiver
}

/// One scrape of `/metrics`.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the samples whose name and labels start with this.
    pub fn sum(&self, start: &str) -> u64 {
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(start)?;
            let whole = start.contains('{') || rest.starts_with([' ', '{']);
            let value = rest.rsplit(' ').next()?;
            whole.then(|| value.parse::<f64>().expect("a sample is a number") as u64)
        });
        samples.sum()
    }

    /// Whether there is a sample with this name.
    pub fn has(&self, name: &str) -> bool {
        let is =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        self.0.lines().any(is)
    }
}
