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
const RESERVED: &[(&str, &[&str])] = &[("glommio", &["ron-io"]), ("io-uring", &["ron-io"])];

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
