//! `ronctl pack` and `unpack` against a node: trees come back as they were, nothing is sent twice,
//! and neither a tree nor a bundle of a stranger does harm.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{
    DEADLINE, Data, Dice, Node, Output, addr_of, clean_environment, curl::Curl, object, run,
};

pub(crate) fn ronctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ronctl"));
    clean_environment(&mut command);
    command.args(args);
    command
}

/// Runs `ronctl` with a node's address.
pub(crate) fn with(node: &Node, args: &[&str]) -> Output {
    run(ronctl(args).args(["--node", &node.http()]), b"")
}

#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert_eq!(output.code, 0, "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("one object of JSON")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

pub(crate) fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

pub(crate) fn write(root: &Path, path: &[u8], bytes: &[u8]) {
    let path = root.join(std::ffi::OsStr::from_bytes(path));
    fs::create_dir_all(path.parent().expect("it is below the root")).expect("it can be made");
    fs::write(path, bytes).expect("it can be written");
}

/// All files below a directory, by their paths.
pub(crate) fn files(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut found, mut pending) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).expect("it can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("below").as_os_str().to_owned();
            found.insert(name.into_vec(), fs::read(path).expect("it can be read"));
        }
    }
    found
}

/// Lines of words, as pages and programs have them.
fn prose(dice: &mut Dice, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["function ", "return ", "class=\"x\" ", "node ", "äöü ", "{ ", "} ", ";\n"];
    let mut text = String::new();
    while text.len() < len {
        text.push_str(WORDS[dice.below(WORDS.len() as u64) as usize]);
    }
    text.into_bytes()
}

/// A tree with something of everything.
fn mixed(root: &Path) {
    let mut dice = Dice(7);
    write(root, b"index.html", &prose(&mut dice, 30_000));
    write(root, b"app/main.js", &prose(&mut dice, 300_000));
    write(root, b"app/logo.svg", &prose(&mut dice, 5_000));
    write(root, b"app/small.css", b"a{}");
    write(root, b"latin.txt", b"caf\xe9");
    write(root, b"photo.jpg", &object(1, 200_000).bytes);
    write(root, b"noise.txt", &object(2, 100_000).bytes);
    write(root, b"empty", b"");
    write(root, b".well-known/a b\"\\'#?%.txt", b"odd name");
    write(root, "ünïcödé/файл.json".as_bytes(), b"{}");
    write(root, b"again.html", &prose(&mut Dice(7), 30_000));
}

/// The entries of a manifest, as the `toml` crate reads it.
fn manifest(node: &Node, addr: &str) -> toml::Table {
    let answer = Curl::http(node).get(addr, &[]);
    assert_eq!((answer.status, addr_of(&answer.body)), (200, addr.to_owned()));
    let text = String::from_utf8(answer.body).expect("UTF-8");
    text.parse().expect("it is TOML")
}

pub(crate) fn get(node: &Node, addr: &toml::Value) -> Vec<u8> {
    let answer = Curl::http(node).get(addr.as_str().expect("text"), &[]);
    assert_eq!(answer.status, 200);
    answer.body
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.start(1);
    mixed(source.path());
    let packed = with(&node, &["pack", text(source.path()), "--tld", "site", "--license", "MIT"]);
    let said = stdout(&packed);
    let addr = said.trim_end().strip_suffix(".site").expect("it ends with the TLD").to_owned();
    assert!(stderr(&packed).contains("11 files"), "{}", stderr(&packed));
    for (number, more) in
        [&[][..], &["--jobs", "1"], &["--oap", &node.at("oap").to_string()]].into_iter().enumerate()
    {
        let target = out.path().join(number.to_string());
        let ca = node.ca().display().to_string();
        let args = [&["unpack", &addr, text(&target), "--json", "--ca", &ca], more].concat();
        let unpacked = json(&with(&node, &args));
        assert_eq!(unpacked["files"], 11);
        assert_eq!(unpacked["fetched"], 11);
        assert!(files(&target) == files(source.path()), "byte for byte");
        assert!(!target.join(".ronctl-part").exists());
    }
    let table = manifest(&node, &addr);
    assert_eq!(table["tld"].as_str(), Some("site"));
    assert_eq!(table["license"].as_str(), Some("MIT"));
    assert_eq!(table["files"].as_integer(), Some(11));
    let entries = table["entries"].as_array().expect("a list");
    check_objects(&node, entries, &files(source.path()));
    check_types(entries);
    node.terminate();
}

/// Each entry leads to the bytes of its file, and so does each copy when it is decoded.
fn check_objects(node: &Node, entries: &[toml::Value], expected: &BTreeMap<Vec<u8>, Vec<u8>>) {
    assert_eq!(entries.len(), expected.len());
    for (entry, (path, bytes)) in entries.iter().zip(expected) {
        assert_eq!(entry["path"].as_str().expect("text").as_bytes(), path);
        assert!(get(node, &entry["address"]) == *bytes);
        if let Some(copy) = entry.get("br") {
            let copy = get(node, &copy["address"]);
            let mut decoded = Vec::new();
            brotli::Decompressor::new(&copy[..], 4096).read_to_end(&mut decoded).expect("brotli");
            assert!(decoded == *bytes);
        }
        if let Some(copy) = entry.get("zstd") {
            let copy = get(node, &copy["address"]);
            assert!(zstd::decode_all(&copy[..]).expect("zstd") == *bytes);
        }
    }
}

/// Which types the files of `mixed` have, and which of them have copies.
fn check_types(entries: &[toml::Value]) {
    let entry = |path: &str| entries.iter().find(|entry| entry["path"].as_str() == Some(path));
    for (path, mime, has_copies) in [
        ("index.html", "text/html; charset=utf-8", true),
        ("app/main.js", "text/javascript; charset=utf-8", true),
        ("app/logo.svg", "image/svg+xml", true),
        ("app/small.css", "text/css; charset=utf-8", false),
        ("latin.txt", "text/plain", false),
        ("noise.txt", "text/plain", false),
        ("photo.jpg", "image/jpeg", false),
        ("empty", "application/octet-stream", false),
    ] {
        let entry = entry(path).unwrap_or_else(|| panic!("{path} is there"));
        assert_eq!(entry["mime"].as_str(), Some(mime), "{path}");
        for coding in ["br", "zstd"] {
            let copy = entry.get(coding);
            assert_eq!(copy.is_some(), has_copies, "{path} {coding}");
            if let Some(copy) = copy {
                let lens = [copy, entry].map(|stored| stored["bytes"].as_integer().expect("len"));
                assert!(lens[0] * 100 <= lens[1] * 95, "{path} {coding}: {lens:?}");
            }
        }
    }
}

#[test]
fn the_same_tree_has_the_same_address() {
    let (data, one, other) = (Data::new(), dir(), dir());
    let node = data.start(1);
    mixed(one.path());
    // Written the other way round, and with directories that have nothing in them.
    for (path, bytes) in files(one.path()).into_iter().rev() {
        fs::create_dir_all(other.path().join("zzz/empty")).expect("it can be made");
        write(other.path(), &path, &bytes);
    }
    let pack = |path: &Path, args: &[&str]| {
        stdout(&with(&node, &[&["pack", "-q", text(path)], args].concat()))
    };
    let addr = pack(one.path(), &[]);
    for args in [&[][..], &["--jobs", "1"], &["--dry-run"], &["--encodings", "zstd,br"]] {
        assert_eq!(pack(other.path(), args), addr, "{args:?}");
    }
    for args in [
        &["--encodings", "br"][..],
        &["--encodings", "none"],
        &["--license", "x"],
        &["--tld", "x"],
        &["--payment-required", "--payment-currency", "EUR"],
    ] {
        assert_ne!(pack(other.path(), args), addr, "{args:?}");
    }
    // One more byte anywhere is another bundle.
    fs::write(other.path().join("empty"), b"!").expect("it can be written");
    assert_ne!(pack(other.path(), &[]), addr);
    node.terminate();
}

#[test]
fn a_file_is_a_bundle_of_one_and_an_object() {
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.start(1);
    let file = source.path().join("hello.txt");
    fs::write(&file, b"hello").expect("it can be written");
    let addr = stdout(&with(&node, &["pack", text(&file)])).trim_end().to_owned();
    let entries = manifest(&node, &addr)["entries"].as_array().expect("a list").clone();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["path"].as_str(), Some("hello.txt"));
    assert_eq!(entries[0]["address"].as_str(), Some(&*addr_of(b"hello")));
    assert_eq!(get(&node, &entries[0]["address"]), b"hello");
    let target = out.path().join("new");
    stdout(&with(&node, &["unpack", &addr, text(&target)]));
    assert_eq!(fs::read(target.join("hello.txt")).expect("it is there"), b"hello");
    // An empty directory is a bundle, too.
    let none = source.path().join("none");
    fs::create_dir(&none).expect("it can be made");
    let addr = stdout(&with(&node, &["pack", text(&none)])).trim_end().to_owned();
    let target = out.path().join("none");
    assert_eq!(json(&with(&node, &["unpack", &addr, text(&target), "--json"]))["files"], 0);
    assert!(files(&target).is_empty());
    node.terminate();
}

/// Uploads, and bytes that came, as the node counts them.
pub(crate) fn puts(node: &Node) -> u64 {
    node.metrics().sum("ron_requests_total{proto=\"http\",op=\"put\"")
}

#[test]
fn ten_thousand_files_are_sent_once() {
    const FILES: usize = 10_000;
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.start(1);
    let mut dice = Dice(3);
    for number in 0..FILES {
        let path = format!("{}/{}/{number}.txt", number % 10, number % 100);
        let len = dice.below(600) as usize;
        let mut bytes = prose(&mut dice, len);
        bytes.extend_from_slice(number.to_string().as_bytes());
        write(source.path(), path.as_bytes(), &bytes);
    }
    write(source.path(), b"long.js", &prose(&mut dice, 3_000_000));
    let pack = || json(&with(&node, &["pack", text(source.path()), "--json"]));
    let first = pack();
    assert_eq!((&first["files"], &first["there"]), (&(FILES + 1).into(), &0.into()));
    // Every file, two copies of one, and the manifest.
    assert_eq!((&first["copies"], &first["sent"]), (&2.into(), &(FILES + 4).into()));
    assert_eq!(puts(&node), FILES as u64 + 4);
    let bytes_in = node.metrics().sum("ron_bytes_in_total{proto=\"http\"");
    let second = pack();
    assert_eq!((&second["addr"], &second["sent"]), (&first["addr"], &0.into()));
    assert_eq!(second["there"], first["sent"]);
    assert_eq!(puts(&node), FILES as u64 + 4, "nothing is sent again");
    let asked = node.metrics().sum("ron_bytes_in_total{proto=\"http\"") - bytes_in;
    assert!(asked < 400 * (FILES as u64 + 4), "{asked} bytes of questions");
    let addr = first["addr"].as_str().expect("text");
    let unpack = |more: &[&str]| {
        json(&with(&node, &[&["unpack", addr, text(out.path()), "--json"], more].concat()))
    };
    assert_eq!(unpack(&[])["fetched"], FILES + 1);
    assert!(files(out.path()) == files(source.path()), "byte for byte");
    // What is right is left alone, what is wrong or missing is fetched.
    fs::write(out.path().join("long.js"), b"other bytes").expect("it can be written");
    fs::remove_file(out.path().join("1/1/1.txt")).expect("it is there");
    let again = unpack(&["--continue"]);
    assert_eq!((&again["fetched"], &again["kept"]), (&2.into(), &(FILES - 1).into()));
    assert!(files(out.path()) == files(source.path()), "byte for byte");
    node.terminate();
}

/// Starts `ronctl`, and kills it once the node has had this many of such requests.
fn kill_in_the_middle(node: &Node, args: &[&str], (op, count): (&str, u64)) {
    let had = |node: &Node| {
        node.metrics().sum(&format!("ron_requests_total{{proto=\"http\",op=\"{op}\""))
    };
    let before = had(node);
    let mut command = ronctl(args);
    command.args(["--node", &node.http(), "--jobs", "1"]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("it can be started");
    let until = Instant::now() + DEADLINE;
    while had(node) < before + count {
        assert!(Instant::now() < until, "it does not begin");
        assert!(child.try_wait().expect("it is our child").is_none(), "it ended by itself");
    }
    child.kill().expect("it is our child");
    assert!(!child.wait().expect("it is our child").success());
}

#[test]
fn what_was_killed_goes_on_where_it_was() {
    const FILES: u64 = 3000;
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.start(1);
    for number in 0..FILES {
        write(source.path(), format!("{number}").as_bytes(), format!("file {number}").as_bytes());
    }
    let pack = ["pack", text(source.path())];
    let expected = stdout(&with(&node, &[&pack[..], &["--dry-run"]].concat()));
    assert_eq!(puts(&node), 0, "a dry run sends nothing");
    kill_in_the_middle(&node, &pack, ("put", 200));
    let had = puts(&node);
    assert!(had < FILES, "{had}");
    let packed = json(&with(&node, &[&pack[..], &["--json"]].concat()));
    assert_eq!(packed["addr"], expected.trim_end());
    let there = packed["there"].as_u64().expect("a number");
    // What was on its way when it was killed is stored and answered nobody.
    assert!((200..=had + 8).contains(&there), "{there} of {had}");
    assert_eq!(packed["sent"], FILES + 1 - there);

    let target = out.path().join("tree");
    let unpack = ["unpack", expected.trim_end(), text(&target)];
    kill_in_the_middle(&node, &unpack, ("get", 200));
    let without = with(&node, &unpack);
    assert_eq!(without.code, 1, "{}", stderr(&without));
    assert!(stderr(&without).contains("--continue"), "{}", stderr(&without));
    let unpacked = json(&with(&node, &[&unpack[..], &["--continue", "--json"]].concat()));
    let kept = unpacked["kept"].as_u64().expect("a number");
    assert!((190..FILES).contains(&kept), "{kept}");
    assert_eq!(unpacked["fetched"], FILES - kept);
    assert!(files(&target) == files(source.path()), "and nothing else is there");
    node.terminate();
}

#[test]
fn over_tls_and_with_a_token() {
    let (data, source, out) = (Data::new(), dir(), dir());
    let node = data.setup().args(&["--write-token", "sekret"]).start();
    mixed(source.path());
    let (https, ca) = (node.https(), node.ca().display().to_string());
    let tls = ["--node", &https, "--ca", &ca, "--cap", "sekret"];
    let packed = run(&mut ronctl(&[&["pack", text(source.path())], &tls[..]].concat()), b"");
    let addr = stdout(&packed).trim_end().to_owned();
    let target = out.path().join("tree");
    let unpack = [&["unpack", &addr, text(&target)], &tls[..]].concat();
    stdout(&run(&mut ronctl(&unpack), b""));
    assert!(files(&target) == files(source.path()), "byte for byte");
    node.terminate();
}

/// Its encoders are of no use to a node.
#[test]
fn the_node_has_no_encoders() {
    let has = |binary: &str| {
        let bytes = fs::read(binary).expect("it can be read");
        // A function of zstd, and the first words of the dictionary of brotli.
        let words: [&[u8]; 2] = [b"ZSTD_compressStream2", b"timedownlifeleft"];
        words.map(|word| bytes.windows(word.len()).any(|found| found == word))
    };
    assert_eq!(has(env!("CARGO_BIN_EXE_rond")), [false; 2]);
    assert_eq!(has(env!("CARGO_BIN_EXE_ronctl")), [true; 2]);
}
