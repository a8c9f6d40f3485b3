//! One word for one thing, and the field's word for it.
//!
//! These words and turns stood here once, and an engineer had to learn them first. The glossary of
//! docs/ARCHITECTURE.md has the words of ours that are needed.

use std::fs;

use super::{root, sources};

/// What is not said, and what is said instead. Each is in two halves, so that this file does not
/// find itself.
const WORDS: &[(&str, &str, &str)] = &[
    ("who", "ever", "the client, the operator, a peer: the one it is"),
    ("of wh", "ich", "a sentence of its own"),
    ("of wh", "om", "a sentence of its own"),
    ("for ev", "er", "until a restart, without end"),
    ("under w", "ay", "in progress"),
    ("is to", "ld", "gets, learns, is notified"),
    ("are to", "ld", "get, learn, are notified"),
    ("is ov", "er", "ended, has finished"),
    ("men", "ded", "repaired"),
    ("be", "ll", "waker"),
    ("bu", "ry", "record a tombstone, drop a connection"),
    ("bur", "ials", "pending deletes"),
    ("rest", "less", "runnable"),
    ("ea", "ger", "has immediate work"),
    ("slee", "py", "prepare to park"),
    ("idl", "ing", "background"),
    ("took no or", "der", "did not take a control command"),
    ("lost tr", "ack", "internal error"),
    ("held by one st", "ep", "event loop stall"),
];

/// Parts of names that are not given any more.
const NAMES: &[(&str, &str)] = &[
    ("wants_", "turn"),
    ("Room", "Again"),
    ("let_", "go"),
    ("look_", "after"),
    ("Hea", "rd"),
    ("under_", "way"),
    ("_men", "ded"),
    ("is_ov", "er("),
    ("who", "ever_"),
];

/// What a text has of them, by line.
fn found(name: &str, text: &str) -> Vec<String> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (first, second, instead) in WORDS {
            let word = [*first, *second].concat();
            let whole = lower.match_indices(&word).any(|(start, _)| {
                let (before, after) = (&lower[..start], &lower[start + word.len()..]);
                !before.ends_with(part_of_word) && !after.starts_with(part_of_word)
            });
            if whole {
                found.push(format!("{name}:{}: \"{word}\": {instead}", at + 1));
            }
        }
        for (first, second) in NAMES {
            let part = [*first, *second].concat();
            if line.contains(&part) {
                found.push(format!("{name}:{}: {part}", at + 1));
            }
        }
    }
    found
}

/// The documents, with their paths.
fn documents() -> Vec<(String, String)> {
    let folders = ["", "docs", "docs/decisions", "bench", "bench/fuzz", "perf"];
    let mut documents = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "md") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                documents.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(documents.len() > 20, "only {} documents", documents.len());
    documents
}

#[test]
fn the_words_are_those_of_the_field() {
    let all = sources().into_iter().chain(documents());
    let found: Vec<String> = all.flat_map(|(name, text)| found(&name, &text)).collect();
    assert!(found.is_empty(), "words that are not used:\n{}", found.join("\n"));
}

#[test]
fn a_word_that_is_not_used_is_found() {
    for (first, second, _) in WORDS {
        let word = [*first, *second].concat();
        let sentence = format!("// Nothing here.\n/// It says {word}, and more.\n");
        let said = found("a.rs", &sentence);
        assert!(said.len() == 1 && said[0].starts_with("a.rs:2: "), "{word}: {said:?}");
        assert_eq!(found("a.rs", &format!("a{word}b")), [""; 0], "within another word");
    }
    for (first, second) in NAMES {
        assert_eq!(found("a.rs", &format!("fn x{first}{second}()")).len(), 1);
    }
}
