//! Which package may use which, what only some may name, and what lies where.

use std::{collections::BTreeSet, fs};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use syn::visit::Visit;

use super::{root, sources};

/// The packages of ours that each package may use.
const EDGES: &[(&str, &[&str])] = &[
    ("ron-codec", &[]),
    ("ron-io", &[]),
    ("ron-shards", &["ron-codec", "ron-io"]),
    ("ron-control", &["ron-codec", "ron-io"]),
    ("ron-engine", &["ron-codec", "ron-io", "ron-shards", "ron-control"]),
    ("ron-bench", &["ron-codec", "ron-io", "ron-shards"]),
    ("ron-perf", &["ron-codec", "ron-io"]),
];

/// Packages that only these of ours may name.
const RESERVED: &[(&str, &[&str])] =
    &[("glommio", &["ron-io"]), ("io-uring", &["ron-io"]), ("heed", &["ron-control"])];

/// The top level: these and dotfiles.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "codec",
    "control",
    "deny.toml",
    "deploy",
    "docs",
    "engine",
    "io",
    "perf",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "shards",
];

fn packages() -> Vec<Package> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps();
    command.exec().unwrap().packages
}

/// The dependencies among packages of ours that `EDGES` does not have.
fn forbidden(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let rule = EDGES.iter().find(|(name, _)| *name == package.name.as_str());
        let (_, allowed) = rule.unwrap_or(&("", &[]));
        let ours = |name: &str| packages.iter().any(|package| package.name.as_str() == name);
        let uses = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        let bad = uses.filter(|name| ours(name) && !allowed.contains(name));
        found.extend(bad.map(|name| format!("{} must not use {name}", package.name)));
    }
    found
}

/// The names of packages of ours that see the ring and must not.
fn ring_seen(packages: &[Package]) -> Vec<String> {
    let may = |name: &str| ["ron-io", "ron-engine", "ron-bench"].contains(&name);
    let sees = |package: &&Package| {
        let io = package.dependencies.iter().filter(|dependency| dependency.name == "ron-io");
        io.into_iter().any(|io| io.features.iter().any(|feature| feature == "ring"))
    };
    let seen = packages.iter().filter(sees).map(|package| package.name.to_string());
    seen.filter(|name| !may(name)).collect()
}

/// Packages of ours that name what is reserved for others.
fn reserved(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for dependency in normal {
            let rule = RESERVED.iter().find(|(name, _)| *name == dependency.name);
            if rule.is_some_and(|(_, users)| !users.contains(&package.name.as_str())) {
                found.push(format!("{} names {}", package.name, dependency.name));
            }
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "the packages are fixed");
    assert_eq!(forbidden(&packages), [""; 0]);
}

#[test]
fn the_ring_is_behind_its_feature() {
    assert_eq!(ring_seen(&packages()), [""; 0]);
}

#[test]
fn reserved_packages_stay_in_their_crates() {
    assert_eq!(reserved(&packages()), [""; 0]);
}

/// The packages as they would be if one of them had the dependencies of another as well.
#[test]
fn a_dependency_that_must_not_be_is_found() {
    let with = |package: &'static str, of: &'static str| {
        let mut packages = packages();
        let named = |name: &'static str| move |package: &&mut Package| *package.name == *name;
        let more = packages.iter_mut().find(named(of)).unwrap().dependencies.clone();
        packages.iter_mut().find(named(package)).unwrap().dependencies.extend(more);
        packages
    };
    let found = forbidden(&with("ron-codec", "ron-engine"));
    assert!(found.contains(&"ron-codec must not use ron-shards".to_owned()), "{found:?}");
    assert_eq!(ring_seen(&with("ron-shards", "ron-engine")), ["ron-shards"]);
    let found = reserved(&with("ron-shards", "ron-io"));
    assert_eq!(found, ["ron-shards names glommio", "ron-shards names io-uring"]);
}

/// Whether this may lie at the top.
fn is_at_the_top(name: &str) -> bool {
    let left_behind = ["target", "ron-data"].contains(&name);
    name.starts_with('.') || left_behind || TOP.contains(&name)
}

#[test]
fn the_top_level_is_what_it_is() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(is_at_the_top(&name), "{name} does not belong at the top");
    }
    assert!(!is_at_the_top("utils"));
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

fn unsafe_in(text: &str) -> usize {
    let mut found = Unsafe::default();
    found.visit_file(&syn::parse_file(text).unwrap());
    found.0
}

/// Files elsewhere that have unsafe blocks, and how many: LMDB maps a file, and the one who has it
/// opened answers for that nobody else changes it.
const UNSAFE: [(&str, usize); 1] = [("control/src/records.rs", 1)];

#[test]
fn unsafe_code_lives_in_io() {
    let mut in_io = 0;
    for (name, text) in sources() {
        let found = unsafe_in(&text);
        if name.starts_with("io/") {
            in_io += found;
            continue;
        }
        let allowed = UNSAFE.iter().find(|(file, _)| *file == name).map_or(0, |(_, count)| *count);
        assert!(found == allowed, "{name} has {found} unsafe blocks, not {allowed}");
    }
    assert!(in_io > 10, "the search finds nothing");
    for text in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for X {}"] {
        assert_eq!(unsafe_in(text), 1, "{text}");
    }
    assert_eq!(unsafe_in("// unsafe {}\nfn f() { g(\"unsafe {}\") }"), 0);
}
