//! What a document names is there, and nothing is left for later.

use std::fs;

use super::{root, sources};

/// `docs/STORAGE.md` says of each promise which test holds it.
#[test]
fn the_tests_that_the_storage_document_names_are_there() {
    let document = fs::read_to_string(root().join("docs/STORAGE.md")).unwrap();
    let is_test = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.matches('_').count() >= 3 && word.chars().all(plain)
    };
    let named: Vec<&str> = document.split('`').filter(is_test).collect();
    assert!(named.len() > 20, "{named:?}");
    let sources = sources();
    for name in named {
        let function = format!("fn {name}(");
        assert!(sources.iter().any(|(_, text)| text.contains(&function)), "no test {name}");
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In two halves, so that this file does not find itself.
    let words = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    for (name, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}
