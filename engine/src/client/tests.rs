//! Commands from their arguments to their exit code, against nodes that answer by script.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use ron_codec::{
    address::Address,
    oap::{Flags, GetRequest, StorageRequest, Window, write_meta},
};
use tempfile::TempDir;

use super::{
    retry::RETRIES_MAX,
    source::Source,
    testing::{OapNode, frame, http_answer, http_node},
    *,
};

mod admin;
mod archives;

const BYTES: &[u8] = b"the bytes of an object";

/// What came of a command.
struct Outcome {
    result: Result<(), ClientError>,
    out: String,
    waits: Vec<Duration>,
}

impl Outcome {
    fn exit(&self) -> u8 {
        self.result.as_ref().map_or_else(|error| error.exit() as u8, |()| 0)
    }
}

/// Runs `ronctl -q` with `arguments`, without really waiting.
fn ronctl(arguments: &[&str]) -> Outcome {
    let args = ["ronctl", "-q"].iter().chain(arguments);
    let args = Args::try_parse_from(args).unwrap_or_else(|error| panic!("{error}"));
    let (mut out, mut waits) = (Vec::new(), Vec::new());
    let result = execute(&args, &mut out, &mut |_, pause| waits.push(pause));
    Outcome { result, out: String::from_utf8(out).unwrap(), waits }
}

fn dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    (dir, path)
}

fn files(dir: &TempDir) -> usize {
    fs::read_dir(dir.path()).unwrap().count()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Gets the object of `BYTES` from a node with these answers, to a file; yields that file's bytes.
fn get_http(answers: Vec<Vec<u8>>, more: &[&str]) -> (Outcome, Option<Vec<u8>>) {
    let (dir, path) = dir();
    let (url, node) = http_node(answers);
    let address = Address::of(BYTES).to_string();
    let mut args = vec!["--node", &url, "get", &address, "-o", text(&path)];
    args.extend(more);
    let outcome = ronctl(&args);
    assert!(node.join().is_ok());
    let got = fs::read(&path).ok();
    assert_eq!(files(&dir), usize::from(got.is_some()), "nothing else is left behind");
    (outcome, got)
}

fn error_answer(status: &str, code: &str, fields: &str) -> Vec<u8> {
    let json = format!(r#"{{"code":"{code}","message":"m","retryable":true,"corr_id":"c7"}}"#);
    http_answer(status, fields, json.as_bytes())
}

#[test]
fn a_whole_object_is_fetched_and_verified() {
    let (outcome, got) = get_http(vec![http_answer("200 OK", "", BYTES)], &[]);
    outcome.result.unwrap();
    assert_eq!(got.as_deref(), Some(BYTES));
}

#[test]
fn wrong_bytes_exit_with_5_and_leave_no_file() {
    let mut wrong = BYTES.to_vec();
    wrong[3] ^= 1;
    let (outcome, got) = get_http(vec![http_answer("200 OK", "", &wrong)], &[]);
    assert_eq!((outcome.exit(), got), (5, None));
    assert!(matches!(outcome.result, Err(ClientError::Digest { .. })));
}

#[test]
fn a_body_that_is_cut_short_is_a_lost_connection() {
    let mut answer = http_answer("200 OK", "", BYTES);
    answer.truncate(answer.len() - 1);
    let (outcome, got) = get_http(vec![answer], &[]);
    assert_eq!((outcome.exit(), got), (2, None));
    let lost = outcome.result.unwrap_err();
    assert!(matches!(lost, ClientError::Lost { got: 21, len: Some(22), .. }), "{lost:?}");
}

#[test]
fn a_missing_object_exits_with_3_and_says_what_the_node_said() {
    let (outcome, got) = get_http(vec![error_answer("404 Not Found", "not_found", "")], &[]);
    assert_eq!((outcome.exit(), got), (3, None));
    assert_eq!(outcome.result.unwrap_err().to_string(), "not_found: m (corr_id c7)");
}

#[test]
fn a_node_that_asks_for_patience_is_asked_again() {
    let busy = error_answer("503 Service Unavailable", "overload", "Retry-After: 2\r\n");
    let (outcome, got) = get_http(vec![busy, http_answer("200 OK", "", BYTES)], &[]);
    outcome.result.unwrap();
    assert_eq!(got.as_deref(), Some(BYTES));
    let [wait] = outcome.waits[..] else { panic!("{:?}", outcome.waits) };
    assert!((2.0..=2.5).contains(&wait.as_secs_f64()), "{wait:?}");
}

#[test]
fn patience_ends() {
    let busy = error_answer("429 Too Many Requests", "over_quota", "Retry-After: 9999\r\n");
    let (outcome, _) = get_http(vec![busy; RETRIES_MAX as usize + 1], &[]);
    assert_eq!(outcome.exit(), 4);
    assert_eq!(outcome.waits, [Duration::from_secs(30); RETRIES_MAX as usize]);
}

#[test]
fn other_errors_are_final() {
    let cases = [
        ("401 Unauthorized", "unauthorized", 4),
        ("502 Bad Gateway", "integrity", 5),
        ("500 Internal Server Error", "internal", 6),
        ("416 Range Not Satisfiable", "range_not_satisfiable", 6),
    ];
    for (status, code, exit) in cases {
        let (outcome, _) = get_http(vec![error_answer(status, code, "")], &[]);
        assert_eq!(outcome.exit(), exit, "{status}");
        assert_eq!(outcome.waits.len(), 0);
    }
    let moved = http_answer("302 Found", "Location: http://127.0.0.1:1/\r\n", b"");
    assert_eq!(get_http(vec![moved], &[]).0.exit(), 6);
    let encoded = http_answer("200 OK", "Content-Encoding: br\r\n", BYTES);
    assert_eq!(get_http(vec![encoded], &[]).0.exit(), 6);
}

#[test]
fn a_range_is_checked_against_the_question() {
    let part = |range: &str| {
        let fields = format!("Content-Range: bytes {range}\r\n");
        http_answer("206 Partial Content", &fields, &BYTES[4..9])
    };
    let (outcome, got) = get_http(vec![part("4-8/22")], &["--range", "4-8"]);
    outcome.result.unwrap();
    assert_eq!(got.as_deref(), Some(&BYTES[4..9]));
    // A range may be cut at the end of the object, and nowhere else.
    assert_eq!(get_http(vec![part("4-8/9")], &["--range", "4-99"]).0.exit(), 0);
    for wrong in ["4-9/22", "5-9/22", "4-7/22", "4-8/8", "8-4/22", "4-8", "x"] {
        let (outcome, got) = get_http(vec![part(wrong)], &["--range", "4-8"]);
        assert_eq!((outcome.exit(), got), (6, None), "{wrong}");
    }
    let (outcome, _) = get_http(vec![http_answer("200 OK", "", BYTES)], &["--range", "4-8"]);
    assert!(matches!(outcome.result, Err(ClientError::Answer(AnswerFault::RangeIgnored))));
}

#[test]
fn a_range_of_everything_is_verified() {
    for (bytes, exit) in [(BYTES, 0), (&[b'?'; 22][..], 5)] {
        let fields = "Content-Range: bytes 0-21/22\r\n";
        let answer = http_answer("206 Partial Content", fields, bytes);
        assert_eq!(get_http(vec![answer], &["--range", "0-"]).0.exit(), exit);
    }
}

#[test]
fn a_node_that_is_not_there_exits_with_2_after_the_retries() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (url, address) = (format!("http://{closed}"), Address::of(BYTES).to_string());
    let outcome = ronctl(&["--node", &url, "stat", &address]);
    assert_eq!((outcome.exit(), outcome.waits.len()), (2, RETRIES_MAX as usize));
}

#[test]
fn stat_prints_address_and_size() {
    let address = Address::of(BYTES).to_string();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\nConnection: close\r\n\r\n".to_vec();
    let (url, node) = http_node(vec![answer.clone(), answer]);
    let outcome = ronctl(&["--node", &url, "stat", &address]);
    assert_eq!(outcome.out, format!("{address} 22\n"));
    let outcome = ronctl(&["--node", &url, "stat", &address, "--json"]);
    assert_eq!(outcome.out, format!("{{\"addr\":\"{address}\",\"size\":22}}\n"));
    let asked = node.join().unwrap();
    assert!(asked[0].starts_with(format!("HEAD /o/{address} HTTP/1.1\r\n").as_bytes()));

    let missing = b"HTTP/1.1 404 Not Found\r\nX-Corr-Id: c9\r\nContent-Length: 99\r\n\r\n".to_vec();
    let (url, node) = http_node(vec![missing]);
    let outcome = ronctl(&["--node", &url, "stat", &address]);
    assert_eq!(outcome.exit(), 3);
    assert_eq!(outcome.result.unwrap_err().to_string(), format!("{address}: not found"));
    assert!(node.join().is_ok());
}

/// The answer to HEAD has no body that could say why; `ronctl` asks for the first byte then.
#[test]
fn stat_of_what_is_damaged_exits_with_5() {
    let address = Address::of(BYTES).to_string();
    let head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 99\r\nConnection: close\r\n\r\n";
    let because = error_answer("502 Bad Gateway", "integrity", "");
    let (url, node) = http_node(vec![head.to_vec(), because]);
    let outcome = ronctl(&["--node", &url, "stat", &address]);
    assert_eq!(outcome.exit(), 5);
    let line = outcome.result.unwrap_err().to_string();
    assert!(line.starts_with("integrity: "), "{line}");
    let asked = node.join().unwrap();
    assert!(asked[1].starts_with(format!("GET /o/{address} HTTP/1.1\r\n").as_bytes()));
    // What stands between says 502, too, and knows no objects.
    let (url, node) = http_node(vec![head.to_vec(), head.to_vec()]);
    assert_eq!(ronctl(&["--node", &url, "stat", &address]).exit(), 6);
    assert!(node.join().is_ok());
}

fn stored(bytes: &[u8]) -> Vec<u8> {
    let address = Address::of(bytes);
    let json = format!(r#"{{"addr":"{address}","size":{}}}"#, bytes.len());
    http_answer("201 Created", "Location: /o/x\r\n", json.as_bytes())
}

#[test]
fn a_file_is_put_under_its_address() {
    let long: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
    for bytes in [&b""[..], BYTES, &long] {
        let (_dir, path) = dir();
        fs::write(&path, bytes).unwrap();
        // The first try is turned away, so the file is read again.
        let busy = error_answer("503 Service Unavailable", "not_ready", "");
        let (url, node) = http_node(vec![busy, stored(bytes)]);
        let outcome = ronctl(&["--node", &url, "--cap", "tok", "put", text(&path)]);
        let address = Address::of(bytes).to_string();
        outcome.result.unwrap();
        assert_eq!(outcome.out, format!("{address}\n"));
        assert_eq!(outcome.waits.len(), 1);
        let asked = &node.join().unwrap()[1];
        assert!(asked.starts_with(format!("PUT /o/{address} HTTP/1.1\r\n").as_bytes()));
        assert!(asked.ends_with(bytes));
        let head = String::from_utf8_lossy(&asked[..asked.len() - bytes.len()]).to_lowercase();
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", bytes.len())), "{head}");
        assert!(head.contains("\r\nauthorization: bearer tok\r\n"), "{head}");
        assert_eq!(head.contains("\r\nexpect:"), bytes.len() > 1 << 20, "{head}");
    }
}

#[test]
fn a_long_file_that_is_there_is_not_sent() {
    const LEN: u64 = 33 << 20;
    let (_dir, path) = dir();
    fs::File::create(&path).unwrap().set_len(LEN).unwrap();
    let there = format!("HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n").into_bytes();
    let (url, node) = http_node(vec![there]);
    let outcome = ronctl(&["--node", &url, "put", text(&path)]);
    outcome.result.unwrap();
    let address = outcome.out.trim_end();
    let asked = node.join().unwrap();
    assert!(asked[0].starts_with(format!("HEAD /o/{address} HTTP/1.1\r\n").as_bytes()));
}

/// The answer to an upload that is given up after a few of its bytes.
#[test]
fn the_answer_of_a_node_that_takes_no_more_arrives() {
    use std::io::{Read, Write};
    let (_dir, path) = dir();
    fs::write(&path, vec![7; 32 * 1024 * 1024]).unwrap();
    for announced in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut some = vec![0; 64 * 1024];
            assert!(socket.read(&mut some).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            socket.read_exact(&mut some).unwrap();
            // What came and was not read makes the end of the connection a reset.
            let answer = error_answer("507 Insufficient Storage", "storage_full", "");
            socket.write_all(&answer).unwrap();
        });
        let outcome = if announced {
            ronctl(&["--node", &url, "put", text(&path)])
        } else {
            let file = fs::File::open(&path).unwrap();
            let http = Http::from_args(
                &Args::parse_from(["ronctl", "--node", &url, "put", "-"]).shared,
                &url.parse().unwrap(),
            )
            .unwrap();
            let mut reader = file;
            let progress = progress::Progress::new("test", None, true);
            let result = http.put(None, &mut Source::stream(&mut reader, &path, progress));
            Outcome { result: result.map(drop), out: String::new(), waits: Vec::new() }
        };
        assert!(node.join().is_ok());
        assert_eq!(outcome.exit(), 4, "{:?}", outcome.result);
        assert!(outcome.result.unwrap_err().to_string().contains("storage_full"));
    }
}

#[test]
fn a_put_that_comes_to_another_address_exits_with_5() {
    let (_dir, path) = dir();
    fs::write(&path, BYTES).unwrap();
    for answer in [stored(b"other"), error_answer("400 Bad Request", "bad_digest", "")] {
        let (url, node) = http_node(vec![answer]);
        let outcome = ronctl(&["--node", &url, "put", text(&path)]);
        assert_eq!((outcome.exit(), outcome.out.as_str()), (5, ""));
        assert!(node.join().is_ok());
    }
}

#[test]
fn a_stream_is_sent_in_chunks_once_and_checked() {
    for (answer, exit) in [
        (stored(b""), 0),
        (stored(b"x"), 5),
        (error_answer("503 Service Unavailable", "overload", "Retry-After: 1\r\n"), 4),
    ] {
        let (url, node) = http_node(vec![answer]);
        let outcome = ronctl(&["--node", &url, "put", "/dev/null"]);
        assert_eq!((outcome.exit(), outcome.waits.len()), (exit, 0));
        let asked = node.join().unwrap().remove(0);
        let head = String::from_utf8_lossy(&asked).to_lowercase();
        assert!(head.starts_with("put /o/ http/1.1\r\n"), "{head}");
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    }
}

#[test]
fn local_failures_reach_no_node() {
    let address = Address::of(BYTES).to_string();
    for arguments in [
        &["put", "/nowhere/at/all"][..],
        &["put", "/"],
        &["--ca", "/nowhere", "get", &address, "--oap", "localhost:1"],
        &["--ca", "/nowhere", "--node", "https://localhost:1", "stat", &address],
    ] {
        let outcome = ronctl(arguments);
        assert_eq!((outcome.exit(), outcome.waits.len()), (1, 0), "{arguments:?}");
    }
}

/// The description of an answer with `window` of an object of `size` bytes.
fn meta(size: u64, window: Window) -> Vec<u8> {
    let mut json = Vec::new();
    write_meta(&mut json, &Address::of(BYTES), size, window, "text/plain");
    json
}

/// The description of all of `BYTES`.
fn meta_whole() -> Vec<u8> {
    frame(Flags::START, 0, &meta(22, Window { offset: 0, len: 22 }))
}

/// Gets the object of `BYTES` over OAP/1 from a node that sends `answer`, to a file.
fn get_oap(answer: &[Vec<u8>], more: &[&str]) -> (Outcome, Option<Vec<u8>>, OapNode) {
    let (dir, path) = dir();
    let node = OapNode::start(answer.concat());
    let address = Address::of(BYTES).to_string();
    let oap = ["--ca", text(&node.ca), "--oap", &node.at];
    let mut args = vec!["get", &address, "-o", text(&path)];
    args.extend(oap);
    args.extend(more);
    let outcome = ronctl(&args);
    let got = fs::read(&path).ok();
    assert_eq!(files(&dir), usize::from(got.is_some()), "nothing else is left behind");
    (outcome, got, node)
}

#[test]
fn an_object_is_fetched_over_oap() {
    let answer = [
        meta_whole(),
        frame(Flags::NONE, 0, &BYTES[..9]),
        frame(Flags::NONE, 0, b""),
        frame(Flags::END, 0, &BYTES[9..]),
    ];
    let (outcome, got, node) = get_oap(&answer, &["--cap", "tok"]);
    outcome.result.unwrap();
    assert_eq!(got.as_deref(), Some(BYTES));
    let asked = node.asked().unwrap();
    assert_eq!(asked.cap, b"tok");
    assert!(asked.head.flags.contains(Flags::REQ | Flags::START));
    let want = GetRequest { meta: true, ..GetRequest::whole(Address::of(BYTES)) };
    assert_eq!(asked.request, StorageRequest::Get(want));
}

#[test]
fn a_range_is_fetched_over_oap() {
    let answer = [
        frame(Flags::START, 206, &meta(22, Window { offset: 4, len: 5 })),
        frame(Flags::END, 206, &BYTES[4..9]),
    ];
    let (outcome, got, node) = get_oap(&answer, &["--range", "4-8"]);
    outcome.result.unwrap();
    assert_eq!(got.as_deref(), Some(&BYTES[4..9]));
    let StorageRequest::Get(get) = node.asked().unwrap().request else { panic!() };
    assert_eq!((get.offset, get.len), (4, Some(5)));
}

#[test]
fn oap_answers_that_are_wrong_are_not_believed() {
    let end = || frame(Flags::END, 0, BYTES);
    let other = Window { offset: 1, len: 21 };
    let cases: [(&str, u8, Vec<Vec<u8>>); 12] = [
        ("wrong bytes", 5, vec![meta_whole(), frame(Flags::END, 0, &[b'?'; 22])]),
        ("one byte less", 6, vec![meta_whole(), frame(Flags::END, 0, &BYTES[..21])]),
        (
            "one byte more",
            6,
            vec![meta_whole(), frame(Flags::NONE, 0, BYTES), frame(Flags::END, 0, b"!")],
        ),
        ("no end", 2, vec![meta_whole(), frame(Flags::NONE, 0, BYTES)]),
        ("cut frame", 2, vec![meta_whole(), end()[..50].to_vec()]),
        ("nothing", 2, vec![]),
        ("no description", 6, vec![end()]),
        ("two descriptions", 6, vec![meta_whole(), meta_whole()]),
        ("another window", 6, vec![frame(Flags::START, 0, &meta(22, other)), end()]),
        ("another code", 6, vec![frame(Flags::START, 206, b"{}")]),
        ("compressed", 6, vec![meta_whole(), frame(Flags::END | Flags::COMP, 0, BYTES)]),
        ("no frame", 6, vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]),
    ];
    for (what, exit, answer) in cases {
        let (outcome, got, _node) = get_oap(&answer, &[]);
        assert_eq!((outcome.exit(), got), (exit, None), "{what}: {:?}", outcome.result);
    }
}

#[test]
fn oap_errors_have_their_exits() {
    let error = |code: u16, name: &str| {
        let json = format!(r#"{{"code":"{name}","message":"m","corr_id":"c8"}}"#);
        frame(Flags::END, code, json.as_bytes())
    };
    let (outcome, ..) = get_oap(&[error(404, "not_found")], &[]);
    assert_eq!(outcome.exit(), 3);
    assert_eq!(outcome.result.unwrap_err().to_string(), "not_found: m (corr_id c8)");
    // After some bytes: an error ends the stream, and what came is discarded.
    for (code, name, exit) in [(502, "integrity", 5), (503, "draining", 4)] {
        let answer = [meta_whole(), frame(Flags::NONE, 0, &BYTES[..9]), error(code, name)];
        let (outcome, got, _node) = get_oap(&answer, &[]);
        assert_eq!((outcome.exit(), got, outcome.waits.len()), (exit, None, 0));
    }
}

#[test]
fn a_node_with_another_name_or_another_ca_is_not_trusted() {
    let (outcome, _, node) = get_oap(&[meta_whole()], &["--name", "other.example"]);
    assert_eq!((outcome.exit(), outcome.waits.len()), (2, 0));
    assert!(matches!(outcome.result, Err(ClientError::Untrusted { .. })), "{:?}", outcome.result);
    assert!(node.asked().is_none());

    let (stranger, node) = (OapNode::start(vec![]), OapNode::start(vec![]));
    let address = Address::of(BYTES).to_string();
    let url = format!("https://{}", node.at);
    for arguments in [
        &["get", &address, "--oap", &stranger.at, "--ca", text(&node.ca)][..],
        &["stat", &address, "--node", &url, "--ca", text(&stranger.ca)],
    ] {
        let error = ronctl(arguments).result.unwrap_err();
        assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_help_with_0() {
    let run = |arguments: &[&str]| run(arguments.iter().map(OsString::from));
    for arguments in [&["ronctl", "get", "nothing"][..], &["ronctl", "fsck"], &["ronctl"]] {
        assert_eq!(run(arguments), Exit::Usage, "{arguments:?}");
    }
    assert_eq!(run(&["ronctl", "--version"]), Exit::Ok);
}
