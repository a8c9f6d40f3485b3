//! How long files, lines and functions may be.
//!
//! The numbers are a ratchet. A file or function that must exceed one is named in `EXCEPTIONS`
//! with its present size, which may shrink but not grow.

use syn::{spanned::Spanned, visit::Visit};

use super::{is_there, sources};

const FUNCTION_LINES_MAX: usize = 60;
const FILE_LINES_MAX: usize = 800;
/// In the store, which was one knot of long files once.
const STORE_FILE_LINES_MAX: usize = 450;
const LINE_COLUMNS_MAX: usize = 100;

/// Lines of a function in a crate that is not there yet.
const FUNCTION_LINES_BEFORE: usize = 70;

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

#[test]
fn files_and_lines_keep_their_length() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let (lines, limit) = (text.lines().count(), file_limit(&name));
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
    }
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
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
        let most = if is_there(self.file) { FUNCTION_LINES_MAX } else { FUNCTION_LINES_BEFORE };
        let limit = allowed(&format!("{}::{name}", self.file), most);
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

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut functions = Functions { file: &name, long: Vec::new() };
        functions.visit_file(&file);
        long.append(&mut functions.long);
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
