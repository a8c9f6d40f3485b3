//! The walls of the house: which room may use which, and how the code is kept readable.
//!
//! The numbers are a ratchet. A file or function that must exceed one is named in `EXCEPTIONS`
//! with its present size, which may shrink but not grow.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use syn::{spanned::Spanned, visit::Visit};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const LINE_COLUMNS_MAX: usize = 100;

/// What may be larger: the path, and for a function `path::name`, with the lines it has today.
const EXCEPTIONS: &[(&str, usize)] = &[];

/// The packages of ours that each package may use.
const EDGES: &[(&str, &[&str])] = &[
    ("ron-codec", &[]),
    ("ron-io", &[]),
    ("ron-shards", &["ron-codec", "ron-io"]),
    ("ron-control", &["ron-codec", "ron-io"]),
    ("ron-engine", &["ron-codec", "ron-io", "ron-shards", "ron-control"]),
    ("ron-bench", &["ron-codec", "ron-io", "ron-shards"]),
    ("ron-perf", &["ron-codec"]),
];

/// Packages that only these of ours may name.
const RESERVED: &[(&str, &[&str])] = &[
    ("glommio", &["ron-io"]),
    ("io-uring", &["ron-io"]),
    ("heed", &["ron-shards", "ron-control"]),
];

/// The top level: these and dotfiles.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "codec",
    "control",
    "deploy",
    "docs",
    "engine",
    "io",
    "perf",
    "rustfmt.toml",
    "shards",
];

/// Unsafe code outside `io`: the file and how often the word may stand there.
const UNSAFE: &[(&str, usize)] = &[("shards/src/store/index.rs", 2)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn packages() -> Vec<Package> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps();
    command.exec().unwrap().packages
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "the packages are fixed");
    for package in &packages {
        let (_, allowed) = EDGES.iter().find(|(name, _)| *name == package.name.as_str()).unwrap();
        for dependency in package.dependencies.iter().filter(|d| names.contains(d.name.as_str())) {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{} must not use {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn the_ring_is_behind_its_feature() {
    for package in packages() {
        let may = ["ron-io", "ron-engine", "ron-bench"].contains(&package.name.as_str());
        for dependency in package.dependencies.iter().filter(|d| d.name == "ron-io") {
            let ring = dependency.features.iter().any(|feature| feature == "ring");
            assert!(may || !ring, "{} must not see the ring", package.name);
        }
    }
}

#[test]
fn reserved_packages_stay_in_their_rooms() {
    for package in packages() {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for dependency in normal {
            let rule = RESERVED.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, rooms)) = rule {
                assert!(rooms.contains(&package.name.as_str()), "{} names {name}", package.name);
            }
        }
    }
}

#[test]
fn the_top_level_is_what_it_is() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let left_behind = ["target", "ron-data"].contains(&name.as_str());
        assert!(
            name.starts_with('.') || left_behind || TOP.contains(&name.as_str()),
            "{name} does not belong at the top"
        );
    }
}

/// Every source file of the workspace, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["bench", "codec", "control", "engine", "io", "perf", "shards"]
        .map(|f| root().join(f))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 30, "only {} sources were found", found.len());
    found
}

fn allowed(name: &str, limit: usize) -> usize {
    EXCEPTIONS.iter().find(|(path, _)| *path == name).map_or(limit, |(_, lines)| *lines)
}

#[test]
fn files_and_lines_keep_their_length() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        let limit = allowed(&name, FILE_LINES_MAX);
        assert!(lines <= limit, "{name} has {lines} lines of at most {limit}");
        for (at, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            // A long literal (a test vector, say) cannot be broken.
            let literal = line.trim_start().starts_with('"') || line.contains("http://");
            assert!(
                columns <= LINE_COLUMNS_MAX || literal,
                "{name}:{} has {columns} columns",
                at + 1
            );
        }
    }
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

/// Counts `unsafe` in code, not in comments or strings.
#[derive(Default)]
struct Unsafe(usize);

impl<'ast> Visit<'ast> for Unsafe {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.0 += 1;
        syn::visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 += usize::from(matches!(signature.safety, syn::Safety::Unsafe(_)));
        syn::visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        self.0 += usize::from(block.unsafety.is_some());
        syn::visit::visit_item_impl(self, block);
    }
}

#[test]
fn unsafe_code_lives_in_io() {
    let mut in_io = 0;
    for (name, text) in sources() {
        let mut found = Unsafe::default();
        found.visit_file(&syn::parse_file(&text).unwrap());
        if name.starts_with("io/") {
            in_io += found.0;
            continue;
        }
        let limit = UNSAFE.iter().find(|(path, _)| *path == name).map_or(0, |(_, limit)| *limit);
        assert!(found.0 <= limit, "{name} has {} unsafe blocks of at most {limit}", found.0);
    }
    assert!(in_io > 10, "the search finds nothing");
}

#[test]
fn the_codec_and_the_shards_never_wait() {
    let words = ["async ", "std::net::Tcp", "std::thread", "Instant::now", "SystemTime"];
    for (name, text) in sources() {
        let pure = name.starts_with("codec/src/") || name.starts_with("shards/src/");
        if !pure || name.contains("test") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (at, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            for word in words {
                assert!(!line.contains(word), "{name}:{} uses {word}", at + 1);
            }
        }
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
