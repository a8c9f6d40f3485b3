//! What the documents promise has a test, and the commands that they show work.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::Data;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the tree").to_owned()
}

/// The documents, by their paths in the tree, and their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("bench/README.md")];
    for folder in ["docs", "docs/decisions"] {
        for entry in fs::read_dir(root.join(folder)).expect("the folder is there") {
            let path = Path::new(folder).join(entry.expect("it can be read").file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root.join(&path)).expect("a document can be read");
            (path, text)
        })
        .collect()
}

/// What stands between backticks and looks like a test: `crate/folder/file.rs::name`.
fn named_tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|name| name.split_once(".rs::")).filter(|(path, _)| path.contains('/'))
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let mut found = 0;
    for (document, text) in documents() {
        for (path, name) in named_tests(&text) {
            let path = format!("{path}.rs");
            let source = fs::read_to_string(root().join(&path));
            let source = source.unwrap_or_else(|e| panic!("{}: {path}: {e}", document.display()));
            let is_there = source.contains(&format!("fn {name}("));
            assert!(is_there, "{}: {path} has no {name}", document.display());
            found += 1;
        }
    }
    assert!(found > 100, "only {found} tests are named");
}

/// Words alone, however lines are broken.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_promise_of_the_tables_stands_in_its_document() {
    let table = fs::read_to_string(root().join("docs/PROMISES.md")).expect("the tables are there");
    let (mut document, mut rows) = (String::new(), 0);
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            document = flat(&fs::read_to_string(root().join(name)).expect("it can be read"));
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [promise, tests] = cells[..] else { continue };
        let promise = promise.trim_start_matches("| ");
        if promise == "promise" {
            continue;
        }
        for part in promise.split(" … ") {
            assert!(document.contains(&flat(part)), "nothing says any more: {part}");
        }
        assert!(tests.contains('`'), "nothing holds: {promise}");
        rows += 1;
    }
    assert!(rows > 60, "only {rows} rows were found");
}

/// The lines of the README that fetch something from a node, with its address in place of theirs.
#[test]
fn the_first_commands_of_the_readme_work() {
    let data = Data::new();
    let node = data.start(1);
    let readme = fs::read_to_string(root().join("README.md")).expect("it can be read");
    let commands: Vec<String> = readme
        .lines()
        .filter(|line| line.contains("http://127.0.0.1:9080"))
        .map(|line| line.replace("http://127.0.0.1:9080", &node.http()))
        .collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let run = |line: &String| common::run(Command::new("sh").args(["-c", line]), b"").stdout;
    let [stored, fetched] = [run(&commands[0]), run(&commands[1])];
    let stored = String::from_utf8(stored).expect("UTF-8");
    assert!(stored.contains(&common::addr_of(b"hello\n")), "{stored}");
    assert_eq!(fetched, b"hello\n");
    node.terminate();
}
