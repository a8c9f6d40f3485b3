//! Accepting when descriptors run out. The limit is that of a process, so the test runs itself in a
//! process of its own.

use std::{collections::VecDeque, fs::File, process::Command};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::limits::ACCEPTS_MAX;

/// The test, and what is set in the process that has few descriptors.
const NAME: &str = "accepting_goes_on_by_itself_whatever_freed_a_descriptor";
const LIMITED: &str = "RON_TEST_FEW_DESCRIPTORS";

#[test]
fn accepting_goes_on_by_itself_whatever_freed_a_descriptor() {
    if std::env::var_os(LIMITED).is_some() {
        return run_out();
    }
    let own = std::env::current_exe().unwrap();
    // A connection takes two: the last descriptor is a client's or the node's.
    for files in [95, 96] {
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).arg(&own).env(LIMITED, "1");
        command
            .args(["--exact", &format!("{}::{NAME}", module_path!().split_once("::").unwrap().1)]);
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
    }
}

/// However many come at once, they take no more descriptors than they may.
#[test]
fn connections_beyond_the_most_wait_in_the_kernel() {
    const MOST: usize = 4;
    let node = start_for(MOST, None, Arc::default());
    let ring = &node.stats.watch.ring;
    let mut clients: VecDeque<TcpStream> =
        (0..100).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    while let Some(mut client) = clients.pop_front() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"echo in\n").unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"in");
        let open = ring.conns.get() as usize;
        assert!(open < MOST + ACCEPTS_MAX as usize, "{open} connections are open");
        assert!(ring.accept_paused.get() == 0 && ring.accept_failures.get() == 0);
        // Has the node drop this connection, so that another one can be accepted.
        client.write_all(b"drop\n").unwrap();
    }
    node.stop();
}

fn run_out() {
    let node = start();
    let ring = &node.stats.watch.ring;
    // Descriptors that are no connection's, one for a client that comes late, and then as many
    // connections as there can be.
    let mut others: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let mut clients = Vec::new();
    let is_paused = || ring.accept_paused.get() > 0;
    while !is_paused()
        && let Ok(client) = TcpStream::connect(node.address)
    {
        clients.push(client);
        wait("it is accepted", || ring.conns.get() == clients.len() as u64 || is_paused());
    }
    late.connect(&node.address.into()).unwrap();
    let mut last = TcpStream::from(late);
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    last.write_all(b"echo in\n").unwrap();
    wait("accepting fails", is_paused);
    assert!(ring.accept_failures.get() > 0);
    // The last may have been accepted before. Then nobody waits, and accepting goes on all the
    // same.
    others.clear();
    let mut answer = [0; 2];
    last.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"in");
    wait("accepting goes on", || !is_paused());
    drop(clients);
    node.stop();
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
