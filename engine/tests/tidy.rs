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
const RESERVED: &[(&str, &[&str])] = &[("glommio", &["ron-io"]), ("io-uring", &["ron-io"])];

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
        assert!(found.0 == 0, "{name} has {} unsafe blocks", found.0);
    }
    assert!(in_io > 10, "the search finds nothing");
}

/// Whether code is there for tests alone.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    })
}

/// Finds what would let code wait, ask for the time or share what can change, wherever in a file it
/// stands, but not in what is compiled for tests only.
#[derive(Default)]
struct Waits(Vec<(usize, String)>);

impl Waits {
    fn found(&mut self, what: &impl Spanned, name: impl Into<String>) {
        self.0.push((what.span().start().line, name.into()));
    }

    fn of(file: &syn::File) -> Vec<(usize, String)> {
        let mut waits = Waits::default();
        waits.visit_file(file);
        waits.0
    }

    /// A path of an expression or a type, or what a `use` brings in.
    fn path(&mut self, what: &impl Spanned, names: &[String]) {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let waits = has("std") && (has("thread") || has("net") && !names_addresses(names))
            || ["Instant", "SystemTime", "sleep", "TcpStream", "TcpListener", "UdpSocket", "tokio"]
                .into_iter()
                .any(has)
            || names.iter().any(|name| is_shared(name));
        if waits {
            self.found(what, names.join("::"));
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.path(&name.ident, &with(&name.ident)),
            syn::UseTree::Rename(rename) => self.path(&rename.ident, &with(&rename.ident)),
            syn::UseTree::Glob(glob) => self.path(glob, &[before, &["*".to_owned()]].concat()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(tree, before));
            }
        }
    }
}

/// What several threads may change: locks, atomics, cells that are filled once, channels.
fn is_shared(name: &str) -> bool {
    ["Mutex", "RwLock", "Condvar", "Barrier", "OnceLock", "LazyLock", "atomic", "mpsc"]
        .contains(&name)
        || name.starts_with("Atomic")
}

/// Files of the shards that share more than queues, and all they name for it: the room of a volume
/// is an account of all shards, and an index that a thread has opened is handed over.
const SHARED: [(&str, &[&str]); 2] = [
    ("shards/src/store/room.rs", &["AtomicU64", "Ordering"]),
    ("shards/src/store/index/open.rs", &["Mutex"]),
];

/// Addresses are values; what connects to them waits.
fn names_addresses(names: &[String]) -> bool {
    const VALUES: [&str; 7] =
        ["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "net"];
    names.iter().any(|name| VALUES[..6].contains(&name.as_str()))
        || names.last().is_some_and(|name| name == VALUES[6])
}

impl<'ast> Visit<'ast> for Waits {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(path, &names);
        syn::visit::visit_path(self, path);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.found(signature, "async fn");
        }
        syn::visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.found(block, "async block");
        syn::visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        if closure.asyncness.is_some() {
            self.found(closure, "async closure");
        }
        syn::visit::visit_expr_closure(self, closure);
    }
}

/// Files that a `#[cfg(test)] mod name;` of their parent brings in.
fn is_test_file(name: &str) -> bool {
    name.split('/').any(|part| {
        let part = part.trim_end_matches(".rs");
        ["tests", "testing", "testdisk", "testworld", "test_support"].contains(&part)
            || part.ends_with("_tests")
    })
}

#[test]
fn the_codec_and_the_shards_never_wait() {
    let mut lines = 0;
    for (name, text) in sources() {
        let pure = name.starts_with("codec/src/") || name.starts_with("shards/src/");
        if !pure || is_test_file(&name) {
            continue;
        }
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut waits = Waits::of(&file);
        if let Some((_, shared)) = SHARED.iter().find(|(file, _)| *file == name) {
            let before = waits.len();
            waits.retain(|(_, path)| !shared.contains(&path.rsplit("::").next().unwrap_or(path)));
            assert!(waits.len() < before, "{name} shares nothing any more");
        }
        assert!(waits.is_empty(), "{name} has {waits:?}");
        lines += text.lines().count();
    }
    assert!(lines > 15_000, "only {lines} lines were looked at");
}

#[test]
fn what_waits_is_found_wherever_it_stands() {
    let found = |text: &str| Waits::of(&syn::parse_file(text).unwrap()).len();
    let behind_tests = "#[cfg(test)]\nmod tests;\n#[test] fn t() { std::thread::yield_now(); }\n";
    for bad in [
        "async fn f() {}",
        "impl X { async fn f() {} }",
        "fn f() { let x = async { 1 }; }",
        "fn f() { g(async || 1); }",
        "use std::thread;",
        "use std::{io, thread::spawn};",
        "use std::time::Instant;",
        "use std::time::{Duration, SystemTime as T};",
        "use std::net::{SocketAddr, TcpStream};",
        "use std::net::*;",
        "use tokio::sync::Notify;",
        "fn f() { std::thread::sleep(d); }",
        "fn f() -> u64 { std::time::Instant::now(); 1 }",
        "struct S { at: std::time::Instant }",
        "mod m { fn f() { Instant::now(); } }",
        "use std::sync::{Arc, Mutex};",
        "struct S(std::sync::atomic::AtomicU8);",
        "static S: std::sync::OnceLock<u8> = std::sync::OnceLock::new();",
        "static S: LazyLock<u8> = LazyLock::new(|| 1);",
    ] {
        assert!(found(bad) > 0, "{bad}");
        assert!(found(&format!("{behind_tests}{bad}")) > 0, "behind tests: {bad}");
        assert_eq!(found(&format!("#[cfg(test)] mod tests {{ {bad} }}")), 0, "in tests: {bad}");
    }
    for good in [
        behind_tests,
        "use std::{io, mem, net::{IpAddr, SocketAddr}, sync::Arc, time::Duration};",
        "// async Instant::now\nfn f() { g(\"std::thread\"); }",
    ] {
        assert_eq!(found(good), 0, "{good}");
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
