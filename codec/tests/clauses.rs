//! Code cites the clauses of `docs/OAP1.md`. A citation must not outlive its clause.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What stands before the number of a cited clause.
const CITATION: &str = "OAP/1 §";

/// Fewer citations than this mean that they were not found, rather than that there are none.
const CITATIONS_MIN: usize = 10;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every `.rs` file of the workspace that is not generated or hidden.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the workspace can be read") {
        let path = entry.expect("the workspace can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The number that `text` begins with, as in `4.2`; a full stop behind it is not part of it.
fn number(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

/// The clause numbers behind every `mark` in `text`.
fn cited<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.split(mark).skip(1).map(number).filter(|number| !number.is_empty()).collect()
}

/// The clauses of a document: its lines that begin, but for markup, with § and a number.
fn clauses(document: &str) -> Vec<&str> {
    let starts = document.lines().filter_map(|line| {
        let bare = line.trim_start_matches(['#', '*', ' ']);
        // A sentence that happens to begin with a reference is no clause.
        (bare.len() < line.len()).then_some(bare)?.strip_prefix('§')
    });
    starts.map(number).filter(|number| !number.is_empty()).collect()
}

fn document() -> String {
    fs::read_to_string(workspace().join("docs/OAP1.md")).expect("docs/OAP1.md can be read")
}

#[test]
fn every_cited_clause_exists() {
    let document = document();
    let clauses: BTreeSet<_> = clauses(&document).into_iter().collect();
    let mut files = Vec::new();
    sources(&workspace(), &mut files);
    let mut count = 0;
    let mut lost = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("sources are text");
        for clause in cited(&text, CITATION) {
            count += 1;
            if !clauses.contains(clause) {
                lost.push(format!("{}: §{clause}", file.display()));
            }
        }
    }
    assert!(lost.is_empty(), "cited clauses that docs/OAP1.md does not have: {lost:#?}");
    assert!(count >= CITATIONS_MIN, "only {count} citations found");
}

#[test]
fn clauses_refer_to_clauses_and_have_one_number_each() {
    let document = document();
    let all = clauses(&document);
    let unique: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), unique.len(), "a clause number is used twice: {all:?}");
    for clause in cited(&document, "§") {
        assert!(unique.contains(clause), "§{clause} is referred to and does not exist");
    }
}

#[test]
fn numbers_are_found_as_they_are_written() {
    assert_eq!(cited("see §4.2. And §5, §6.10) §x § 7", "§"), ["4.2", "5", "6.10"]);
    let document = "## §1 Frame\n**§1.1** Text §9.\n§2 is only mentioned.\n";
    assert_eq!(clauses(document), ["1", "1.1"]);
}
