//! What a document names is there, and nothing is left for later.

use std::fs;

use super::{root, sources};

/// The tests that a document names.
fn named_in(document: &str) -> Vec<&str> {
    let is_test = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.matches('_').count() >= 3 && word.chars().all(plain)
    };
    document.split('`').filter(is_test).collect()
}

/// Those that no source has.
fn absent<'a>(named: &[&'a str], sources: &[(String, String)]) -> Vec<&'a str> {
    let is_there = |name: &&&str| {
        let function = format!("fn {name}(");
        sources.iter().any(|(_, text)| text.contains(&function))
    };
    named.iter().filter(|name| !is_there(name)).copied().collect()
}

/// `docs/STORAGE.md` says of each promise which test holds it.
#[test]
fn the_tests_that_the_storage_document_names_are_there() {
    let document = fs::read_to_string(root().join("docs/STORAGE.md")).unwrap();
    let named = named_in(&document);
    assert!(named.len() > 20, "{named:?}");
    assert_eq!(absent(&named, &sources()), [""; 0], "tests that are not there");
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let document = "`a_deletion_stays_deleted` holds it, and `nobody_ever_wrote_this`; `a_field`.";
    let sources = [("a.rs".to_owned(), "#[test]\nfn a_deletion_stays_deleted() {}".to_owned())];
    let named = named_in(document);
    assert_eq!(named, ["a_deletion_stays_deleted", "nobody_ever_wrote_this"]);
    assert_eq!(absent(&named, &sources), ["nobody_ever_wrote_this"]);
}

/// What a source has of that.
fn left_for_later(text: &str) -> Option<&'static str> {
    // In two halves, so that this file does not find itself.
    let words = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    words.into_iter().find(|word| text.contains(word))
}

#[test]
fn nothing_is_left_for_later() {
    for (name, text) in sources() {
        assert_eq!(left_for_later(&text), None, "{name}");
    }
    let planted = ["fn f() { todo", "!() }"].concat();
    assert!(left_for_later(&planted).is_some());
}
