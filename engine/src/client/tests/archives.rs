//! What a node says of an object goes through an archive, and a node that lies is found out.

use super::*;

fn page(address: &Address, size: usize) -> Vec<u8> {
    let json = format!(r#"{{"objects":[{{"addr":"{address}","size":{size}}}]}}"#);
    http_answer("200 OK", "", json.as_bytes())
}

/// Exports from a node of these answers.
fn export(answers: Vec<Vec<u8>>, path: &Path) -> Outcome {
    let (url, node) = http_node(answers);
    let args = ["--node", &url, "--admin", &url, "export", "--jobs", "1", "--out", text(path)];
    let outcome = ronctl(&args);
    node.join().unwrap();
    outcome
}

#[test]
fn what_a_node_says_of_an_object_is_given_back() {
    let (_dir, path) = dir();
    let address = Address::of(BYTES);
    let fields = "Content-Type: text/plain; charset=utf-8\r\n\
                  Content-Disposition: inline; filename=\"a b\"\r\n";
    let answers = vec![page(&address, BYTES.len()), http_answer("200 OK", fields, BYTES)];
    let outcome = export(answers, &path);
    assert_eq!(outcome.exit(), 0, "{:?}", outcome.result);

    let stored = format!(r#"{{"addr":"{address}"}}"#);
    let stored = http_answer("201 Created", "", stored.as_bytes());
    let (url, node) = http_node(vec![http_answer("404 Not Found", "", b""), stored]);
    let outcome = ronctl(&["--node", &url, "import", "--jobs", "1", text(&path)]);
    assert_eq!(outcome.exit(), 0, "{:?}", outcome.result);
    let asked = node.join().unwrap();
    let put = String::from_utf8_lossy(&asked[1]).into_owned();
    assert!(put.starts_with(&format!("PUT /o/{address}")) && put.contains("a b"), "{put}");
    let head = put.to_lowercase();
    assert!(head.contains("content-type: text/plain; charset=utf-8\r\n"), "{put}");
    assert!(head.contains("content-disposition: inline; filename=\"a b\"\r\n"), "{put}");
}

#[test]
fn a_node_that_lies_is_found_out() {
    let (_dir, path) = dir();
    let (address, len) = (Address::of(BYTES), BYTES.len());
    let ok = |bytes: &[u8]| http_answer("200 OK", "", bytes);
    let wrong = export(vec![page(&address, len), ok(b"The bytes of an object")], &path);
    assert_eq!(wrong.exit(), 5, "other bytes");
    fs::remove_file(&path).unwrap();
    let shorter = export(vec![page(&address, len), ok(&BYTES[1..])], &path);
    assert_eq!(shorter.exit(), 6, "another size than was listed");
    fs::remove_file(&path).unwrap();
    let twice = format!(
        r#"{{"objects":[{{"addr":"{address}","size":1}},{{"addr":"{address}","size":1}}]}}"#
    );
    assert_eq!(export(vec![ok(twice.as_bytes())], &path).exit(), 6, "twice the same");
    fs::remove_file(&path).unwrap();
    let none = r#"{"objects":[],"next":"b3:zz"}"#;
    assert_eq!(export(vec![ok(none.as_bytes())], &path).exit(), 6, "no address");
    // What was there is not written over.
    assert_eq!(export(vec![], &path).exit(), 1);
}

#[test]
fn a_lost_connection_is_made_again_and_an_object_that_is_gone_is_none() {
    let (_dir, path) = dir();
    let (address, len) = (Address::of(BYTES), BYTES.len());
    let cut = http_answer("200 OK", "", BYTES);
    let cut = cut[..cut.len() - 5].to_vec();
    let rest = format!("Content-Range: bytes {}-{}/{len}\r\n", len - 5, len - 1);
    let rest = http_answer("206 Partial Content", &rest, &BYTES[len - 5..]);
    let outcome = export(vec![page(&address, len), cut, rest], &path);
    assert_eq!(outcome.exit(), 0, "{:?}", outcome.result);
    let archive = fs::read(&path).unwrap();
    assert!(archive.windows(len).any(|part| part == BYTES));
    fs::remove_file(&path).unwrap();
    let gone = http_answer("404 Not Found", "", b"");
    let outcome = export(vec![page(&address, len), gone], &path);
    assert_eq!(outcome.exit(), 0, "{:?}", outcome.result);
}
