//! No module of a crate imports, by whatever way round, a module that imports it.
//!
//! What two modules need of each other is defined below both, so that each can be read, and
//! understood, after those that it uses.

use std::{collections::BTreeSet, fs};

use super::{
    imports::{Names, Uses, uses},
    root,
};

const CRATES: [&str; 6] = ["codec", "io", "shards", "control", "engine", "perf"];

/// The uses that are part of a circle, a line each.
fn circles(uses: &Uses) -> Vec<String> {
    let shown = |module: &Names| match module.is_empty() {
        true => "the root".to_owned(),
        false => module.join("::"),
    };
    let mut found = Vec::new();
    for (module, used) in uses {
        for (other, name) in used {
            if reached(uses, other).contains(module) {
                found.push(format!("{} uses {name} of {}", shown(module), shown(other)));
            }
        }
    }
    found
}

/// The modules that a module uses, and those that they use, and so on.
fn reached<'a>(uses: &'a Uses, from: &'a Names) -> BTreeSet<&'a Names> {
    let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        left.extend(uses[module].keys().filter(|used| reached.insert(*used)));
    }
    reached
}

#[test]
fn no_module_imports_in_a_circle() {
    let (mut found, mut modules) = (Vec::new(), 0);
    for name in CRATES {
        let uses = uses(&root().join(name).join("src"));
        modules += uses.len();
        found.extend(circles(&uses).into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(modules > 150, "only {modules} modules were looked at");
    assert!(found.is_empty(), "modules import each other:\n{}", found.join("\n"));
}

/// The circles of a crate of these files.
fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    let src = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = src.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    circles(&uses(src.path()))
}

#[test]
fn two_modules_that_import_each_other_are_found() {
    let root = ("lib.rs", "mod a; mod b; mod c;");
    let c = ("c.rs", "pub struct C; fn f(_: crate::a::A) {}");
    let (a, b) = (("a.rs", "use crate::b::B; pub struct A(B);"), ("b.rs", "pub struct B;"));
    assert_eq!(circles_in(&[root, a, b, c]), [""; 0]);
    let expected = ["a uses b::B of b", "b uses a::A of a"];
    for text in [
        "pub struct B; use super::a::A;",
        "pub struct B; use crate::{a::{self}}; fn f() { a::A; }",
        "pub struct B(super::a::A);",
        "pub struct B; fn f() { use crate::a::A; }",
        "pub struct B; fn f() { println!(\"{}\", [crate::a::A]); }",
        "pub struct B; mod inner { use super::super::a::A; }",
        "#[cfg(not(test))] use crate::a::A; pub struct B;",
    ] {
        let found = circles_in(&[root, a, ("b.rs", text), c]);
        let last = found.last().map(|line| line.replace("uses a of", "uses a::A of"));
        assert_eq!(found.len(), 2, "{text}: {found:?}");
        assert_eq!((&*found[0], last.as_deref()), (expected[0], Some(expected[1])), "{text}");
    }
    let three = circles_in(&[root, a, ("b.rs", "pub struct B; use crate::c::C;"), c]);
    let expected = ["a uses b::B of b", "b uses c::C of c", "c uses a::A of a"];
    assert_eq!(three, expected, "three in a row");
}

#[test]
fn a_name_that_is_passed_on_leads_to_where_it_is_defined() {
    let root = ("lib.rs", "mod a; mod b; mod door;");
    let (a, b) = ("use crate::door::B; pub struct A(B);", "use crate::a::A; pub struct B;");
    for door in ["pub use crate::b::B;", "pub use crate::b::*;", "pub(crate) use super::b::B;"] {
        let files = [root, ("a.rs", a), ("b.rs", b), ("door.rs", door)];
        let expected = ["a uses door::B of b", "b uses a::A of a"];
        assert_eq!(circles_in(&files), expected, "{door}");
    }
}

#[test]
fn a_parent_may_pass_on_what_its_child_defines_and_not_use_it_in_a_circle() {
    let root = ("lib.rs", "mod parent;");
    let child = ("parent/child.rs", "use super::Thing; pub struct Part; pub fn f(_: Thing) {}");
    let circles = |parent: &str| circles_in(&[root, ("parent.rs", parent), child]).len();
    for parent in [
        "mod child; use child::f; pub struct Thing;",
        "mod child; pub struct Thing(child::Part);",
        "mod child; pub use child::Part; pub struct Thing(Part);",
        "mod child; pub use child::Part as P; pub struct Thing; fn f() { vec![P] }",
    ] {
        assert_eq!(circles(parent), 2, "{parent}");
    }
    for parent in ["mod child; pub struct Thing;", "mod child; pub use child::*; pub struct Thing;"]
    {
        assert_eq!(circles(parent), 0, "{parent}");
    }
    let folder = [root, ("parent/mod.rs", "mod child; pub struct Thing(child::Part);"), child];
    assert_eq!(circles_in(&folder).len(), 2, "a parent in its folder");
    let named = "#[path = \"child.rs\"] mod child; pub struct Thing(child::Part);";
    let files = [root, ("parent.rs", named), ("child.rs", child.1)];
    assert_eq!(circles_in(&files).len(), 2, "a child that says where it lies");
}

#[test]
fn what_is_for_tests_alone_may_use_anything() {
    let root = ("lib.rs", "mod a; mod b;");
    let (a, tests) = (("a.rs", "use crate::b::B; pub struct A(B);"), ("b/tests.rs", "nonsense"));
    for text in [
        "pub struct B; #[cfg(test)] mod tests;",
        "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
        "pub struct B; #[cfg(test)] use crate::a::A;",
        "pub struct B; #[cfg(all(unix, test))] use crate::a::A;",
        "pub struct B; #[test] fn f() { crate::a::A; }",
        "pub struct B; impl B { #[cfg(test)] fn f() { crate::a::A; } }",
        "pub(in crate::a) struct B; // crate::a::A",
    ] {
        assert_eq!(circles_in(&[root, a, ("b.rs", text), tests]), [""; 0], "{text}");
    }
}
