//! The log, when standard error takes nothing of it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    pty::{self, OpenptFlags},
    termios::{self, Action},
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

/// A terminal whose output is stopped.
struct Terminal {
    _near: OwnedFd,
    far: OwnedFd,
}

impl Terminal {
    fn stopped() -> Terminal {
        let near = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is one");
        pty::grantpt(&near).expect("it can be granted");
        pty::unlockpt(&near).expect("it can be unlocked");
        let name = pty::ptsname(&near, Vec::new()).expect("it has a name");
        let path = Path::new(OsStr::from_bytes(name.as_bytes()));
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(OpenptFlags::NOCTTY.bits() as i32);
        let far = options.open(path).expect("it is there");
        termios::tcflow(&far, Action::OOff).expect("it can be stopped");
        Terminal { _near: near, far: far.into() }
    }

    fn stderr(&self) -> Stdio {
        Stdio::from(self.far.try_clone().expect("it can be named twice"))
    }
}

/// Whether a process ends.
fn ended(child: &mut Child) -> bool {
    let until = Instant::now() + DEADLINE;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > until {
            child.kill().expect("it can be killed");
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
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

/// A terminal whose output is stopped, as with Ctrl-S, and a ready line that nobody reads.
#[test]
fn a_node_ends_though_its_terminal_is_stopped_and_nobody_reads_its_ready_line() {
    let data = Data::new();
    let terminal = Terminal::stopped();
    let node = Node::start_saying(data.setup().command(), terminal.stderr());
    node.terminate();
    drop(terminal);

    let data = Data::new();
    let (stdout, _unread) = full();
    let mut command = data.setup().command();
    let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("stderr is a pipe")).lines();
    let ready = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"ready\"")));
    assert!(ready.is_some(), "it serves");
    let kill = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    assert!(kill.expect("kill can be run").success());
    let reader = thread::spawn(move || said.count());
    assert!(ended(&mut child), "it does not wait for standard output");
    reader.join().expect("it does not panic");
}

#[test]
fn a_node_ends_though_nobody_reads_its_log() {
    let data = Data::new();
    let (stderr, log) = full();
    let node = Node::start_saying(data.setup().command(), stderr);
    node.terminate();
    drop(log);
}
