//! Looking after a node's storage, against nodes that answer by script.

use super::*;

const JSON: &str = "Content-Type: application/json\r\n";

fn gone() -> Vec<u8> {
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()
}

fn missing() -> Vec<u8> {
    error_answer("404 Not Found", "not_found", "")
}

/// Runs a command with these addresses of objects against a node that answers so.
fn with_addresses(
    flag: &str,
    command: &str,
    answers: Vec<Vec<u8>>,
    addresses: &[&str],
) -> (Outcome, Vec<String>) {
    let (url, node) = http_node(answers);
    let mut args = vec![flag, &url, command];
    args.extend(addresses);
    let outcome = ronctl(&args);
    let asked = node.join().unwrap();
    (outcome, asked.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
}

#[test]
fn objects_are_deleted_one_after_the_other() {
    let (a, b) = (Address::of(b"a").to_string(), Address::of(b"b").to_string());
    let rm = |answers| with_addresses("--node", "rm", answers, &[&a, &b]);
    let (outcome, asked) = rm(vec![gone(), gone()]);
    outcome.result.unwrap();
    assert_eq!(outcome.out, format!("{a}\n{b}\n"));
    assert!(asked[0].starts_with(&format!("DELETE /o/{a} HTTP/1.1\r\n")), "{}", asked[0]);
    assert!(asked[1].starts_with(&format!("DELETE /o/{b} HTTP/1.1\r\n")), "{}", asked[1]);
    // One that fails does not keep the other, and the gravest reason decides.
    let (outcome, _) = rm(vec![missing(), gone()]);
    assert_eq!((outcome.exit(), outcome.out), (3, format!("{b}\n")));
    let forbidden = || error_answer("403 Forbidden", "forbidden", "");
    for answers in [vec![missing(), forbidden()], vec![forbidden(), missing()]] {
        let (outcome, _) = rm(answers);
        assert_eq!((outcome.exit(), outcome.out.as_str()), (4, ""));
        let said = outcome.result.unwrap_err().to_string();
        assert_eq!(said, "2 of 2 objects were not deleted");
    }
}

#[test]
fn one_object_that_is_not_there_is_explained() {
    let address = Address::of(b"a").to_string();
    let (outcome, _) = with_addresses("--node", "rm", vec![missing()], &[&address]);
    assert_eq!((outcome.exit(), outcome.out.as_str()), (3, ""));
    assert_eq!(outcome.result.unwrap_err().to_string(), "not_found: m (corr_id c7)");
    // A node that only says that it has done something has not said that this is gone.
    let (outcome, _) =
        with_addresses("--node", "rm", vec![http_answer("200 OK", "", b"")], &[&address]);
    assert_eq!(outcome.exit(), 6);
}

#[test]
fn a_busy_node_is_asked_again_with_the_capability() {
    let address = Address::of(b"a").to_string();
    let busy = error_answer("503 Service Unavailable", "overload", "Retry-After: 1\r\n");
    let (url, node) = http_node(vec![busy, gone()]);
    let outcome = ronctl(&["--node", &url, "--cap", "tok", "rm", &address]);
    assert_eq!((outcome.exit(), outcome.waits.len()), (0, 1));
    let asked = String::from_utf8_lossy(&node.join().unwrap()[1]).to_lowercase();
    assert!(asked.contains("\r\nauthorization: bearer tok\r\n"), "{asked}");
}

fn verdict(bytes: &[u8], rest: &str) -> Vec<u8> {
    let json = format!(r#"{{"addr":"{}",{rest}}}"#, Address::of(bytes));
    http_answer("200 OK", JSON, json.as_bytes())
}

#[test]
fn what_each_object_is_found_to_be() {
    let (a, b) = (Address::of(b"a").to_string(), Address::of(b"b").to_string());
    let whole = || verdict(b"a", r#""outcome":"whole","size":7"#);
    for (second, said, exit) in [
        (r#""outcome":"whole","size":0"#, "whole 0", 0),
        (r#""outcome":"missing""#, "missing", 3),
        (r#""outcome":"damaged","what":"a\ngroup""#, "damaged: a\u{fffd}group", 5),
        (r#""outcome":"failed","what":"the disk""#, "failed: the disk", 6),
        (r#""outcome":"failed""#, "failed: no reason was given", 6),
    ] {
        let answers = vec![whole(), verdict(b"b", second)];
        let (outcome, asked) = with_addresses("--admin", "verify", answers, &[&a, &b]);
        assert_eq!((outcome.exit(), outcome.out), (exit, format!("{a} whole 7\n{b} {said}\n")));
        assert!(asked[1].starts_with(&format!("POST /verify/{b} HTTP/1.1\r\n")), "{}", asked[1]);
    }
}

#[test]
fn an_outcome_that_is_not_understood_is_not_taken_for_a_good_one() {
    let a = Address::of(b"a").to_string();
    for answer in [
        verdict(b"b", r#""outcome":"whole","size":7"#),
        verdict(b"a", r#""outcome":"splendid""#),
        verdict(b"a", r#""size":7"#),
        http_answer("200 OK", JSON, b"{"),
        http_answer("302 Found", "Location: /x\r\n", b""),
    ] {
        let (outcome, _) = with_addresses("--admin", "verify", vec![answer], &[&a]);
        assert_eq!((outcome.exit(), outcome.out.as_str()), (6, ""));
    }
    let unauthorized = error_answer("401 Unauthorized", "unauthorized", "");
    let (outcome, _) = with_addresses("--admin", "verify", vec![unauthorized], &[&a]);
    assert_eq!(outcome.exit(), 4);
}

#[test]
fn a_scrub_is_ordered() {
    let accepted = http_answer("202 Accepted", JSON, br#"{"ordered":2}"#);
    let (outcome, asked) = with_addresses("--admin", "scrub", vec![accepted], &["--now"]);
    outcome.result.unwrap();
    assert_eq!(outcome.out, "ordered from 2 shards; see ronctl storage\n");
    assert!(asked[0].starts_with("POST /scrub HTTP/1.1\r\n"), "{}", asked[0]);
    let (outcome, _) = with_addresses("--admin", "scrub", vec![missing()], &["--now"]);
    assert_eq!(outcome.exit(), 3);
}

#[test]
fn the_report_is_a_table_or_json() {
    let json = r#"{"total":{"objects":12,"object_bytes":1024,"new":1},"later":[]}"#;
    let answer = || http_answer("200 OK", JSON, json.as_bytes());
    let (outcome, asked) = with_addresses("--admin", "storage", vec![answer()], &[]);
    outcome.result.unwrap();
    assert!(outcome.out.starts_with("objects      12, 1.00 KiB\nsegments "), "{}", outcome.out);
    assert!(asked[0].starts_with("GET /storage HTTP/1.1\r\n"), "{}", asked[0]);
    let (outcome, _) = with_addresses("--admin", "storage", vec![answer()], &["--json"]);
    assert_eq!(outcome.out, format!("{json}\n"), "as the node gave it");
    // What is no report is not taken for an empty node.
    for other in [&b"[]"[..], b"{}", b"", b"null"] {
        let answer = http_answer("200 OK", JSON, other);
        let (outcome, _) = with_addresses("--admin", "storage", vec![answer], &[]);
        assert_eq!((outcome.exit(), outcome.out.as_str()), (6, ""));
    }
}
