//! The codec and the shards never wait, ask for the time, or share what can change.

use syn::{spanned::Spanned, visit::Visit};

use super::{
    sources,
    syntax::{attributes, is_for_tests, leaves},
};

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
}

/// What several threads may change: locks, atomics, cells that are filled once, channels.
fn is_shared(name: &str) -> bool {
    ["Mutex", "RwLock", "Condvar", "Barrier", "OnceLock", "LazyLock", "atomic", "mpsc"]
        .contains(&name)
        || name.starts_with("Atomic")
}

/// Files of the shards that share more than queues, and all they name for it: the space of a volume
/// is an account of all shards, and an index that a thread has opened is handed over.
const SHARED: [(&str, &[&str]); 2] = [
    ("shards/src/store/accounts.rs", &["AtomicU64", "Ordering"]),
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
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for mut leaf in leaves(&item.tree) {
            if leaf.name.is_none() {
                leaf.path.push("*".to_owned());
            }
            self.path(&leaf.place, &leaf.path);
        }
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
        ["tests", "testing", "test_support"].contains(&part) || part.ends_with("_tests")
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
