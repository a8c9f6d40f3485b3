//! How long files, lines and functions may be.
//!
//! The numbers are a ratchet. A file or function that must exceed one is named in `EXCEPTIONS`
//! with its present size, which may shrink but not grow.

use syn::{spanned::Spanned, visit::Visit};

use super::sources;

const FUNCTION_LINES_MAX: usize = 60;
const FILE_LINES_MAX: usize = 800;
/// In the store, which was one knot of long files once.
const STORE_FILE_LINES_MAX: usize = 450;
const LINE_COLUMNS_MAX: usize = 100;

/// What may be larger: the path, and for a function `path::name`, with the lines it has today.
const EXCEPTIONS: &[(&str, usize)] = &[];

fn allowed(name: &str, limit: usize) -> usize {
    EXCEPTIONS.iter().find(|(path, _)| *path == name).map_or(limit, |(_, lines)| *lines)
}

/// Lines that a file may have.
fn file_limit(name: &str) -> usize {
    let in_store = name.starts_with("shards/src/store/");
    allowed(name, if in_store { STORE_FILE_LINES_MAX } else { FILE_LINES_MAX })
}

/// What is too long in a file: the file itself, and lines.
fn long_lines(name: &str, text: &str) -> Vec<String> {
    let mut long = Vec::new();
    let (lines, limit) = (text.lines().count(), file_limit(name));
    if lines > limit {
        long.push(format!("{name} has {lines} lines of at most {limit}"));
    }
    for (at, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        // A long literal (a test vector, say) cannot be broken.
        let literal = line.trim_start().starts_with('"') || line.contains("http://");
        if columns > LINE_COLUMNS_MAX && !literal {
            long.push(format!("{name}:{} has {columns} columns", at + 1));
        }
    }
    long
}

#[test]
fn files_and_lines_keep_their_length() {
    let long: Vec<String> =
        sources().iter().flat_map(|(name, text)| long_lines(name, text)).collect();
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn a_line_or_a_file_that_is_too_long_is_found() {
    let lines = |count: usize| "// a line\n".repeat(count);
    for (name, limit) in [("io/src/a.rs", FILE_LINES_MAX), ("shards/src/store/a.rs", 450)] {
        assert_eq!(long_lines(name, &lines(limit)), [""; 0]);
        let said = format!("{name} has {} lines of at most {limit}", limit + 1);
        assert_eq!(long_lines(name, &lines(limit + 1)), [said]);
    }
    let line = |columns: usize| format!("\n//{}\n", "x".repeat(columns - 2));
    assert_eq!(long_lines("a.rs", &line(100)), [""; 0]);
    assert_eq!(long_lines("a.rs", &line(101)), ["a.rs:2 has 101 columns"]);
}

/// Finds functions that are too long.
struct Functions<'a> {
    file: &'a str,
    long: Vec<String>,
}

impl Functions<'_> {
    fn check(&mut self, name: &syn::Ident, body: &syn::Block) {
        let span = body.span();
        let lines = span.end().line - span.start().line + 1;
        let limit = allowed(&format!("{}::{name}", self.file), FUNCTION_LINES_MAX);
        if lines > limit {
            self.long.push(format!("{}::{name} has {lines} lines of at most {limit}", self.file));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.check(&function.sig.ident, body);
        }
        syn::visit::visit_trait_item_fn(self, function);
    }
}

fn long_functions(name: &str, text: &str) -> Vec<String> {
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut functions = Functions { file: name, long: Vec::new() };
    functions.visit_file(&file);
    functions.long
}

#[test]
fn functions_fit_a_screen() {
    let long: Vec<String> =
        sources().iter().flat_map(|(name, text)| long_functions(name, text)).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_function_that_is_too_long_is_found_wherever_it_stands() {
    for (before, after) in [
        ("", ""),
        ("impl X {", "}"),
        ("trait X {", "}"),
        ("mod m {", "}"),
        ("#[cfg(test)] mod tests {", "}"),
        ("fn outer() {", "}"),
    ] {
        let found = |lines: usize| {
            let body = "    g();\n".repeat(lines - 2);
            long_functions("a.rs", &format!("{before} fn f() {{\n{body}}} {after}"))
        };
        assert_eq!(found(FUNCTION_LINES_MAX), [""; 0], "{before}");
        let said = "a.rs::f has 61 lines of at most 60";
        assert!(found(FUNCTION_LINES_MAX + 1).iter().any(|line| line == said), "{before}");
    }
}
