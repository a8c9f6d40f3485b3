//! What several of these tests ask of parsed code.

use proc_macro2::Span;
use syn::{Token, punctuated::Punctuated, spanned::Spanned};

/// Whether code is compiled for tests alone.
pub(super) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args().is_ok_and(|condition| needs_tests(&condition))
        }
        syn::Meta::List(_) | syn::Meta::NameValue(_) => false,
    })
}

/// Whether a condition of `cfg` holds in tests only.
fn needs_tests(condition: &syn::Meta) -> bool {
    match condition {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            let all = list.parse_args_with(Punctuated::<syn::Meta, Token![,]>::parse_terminated);
            all.is_ok_and(|all| all.iter().any(needs_tests))
        }
        syn::Meta::List(_) | syn::Meta::NameValue(_) => false,
    }
}

/// The attributes of an item.
pub(super) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item defines.
pub(super) fn defined(item: &syn::Item) -> Option<&syn::Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Macro(item) => item.ident.as_ref(),
        syn::Item::Mod(item) => item.content.as_ref().map(|_| &item.ident),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        syn::Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// One of the things that a `use` brings in.
pub(super) struct Leaf {
    /// Its path; of everything in a module, the path of the module.
    pub(super) path: Vec<String>,
    /// What it is called here; `None` for everything in a module.
    pub(super) name: Option<String>,
    pub(super) place: Span,
}

/// All that a `use` brings in.
pub(super) fn leaves(tree: &syn::UseTree) -> Vec<Leaf> {
    let mut found = Vec::new();
    gather(tree, &[], &mut found);
    found
}

fn gather(tree: &syn::UseTree, before: &[String], found: &mut Vec<Leaf>) {
    match tree {
        syn::UseTree::Path(path) => {
            gather(&path.tree, &[before, &[path.ident.to_string()]].concat(), found);
        }
        syn::UseTree::Name(name) => found.push(Leaf::new(before, &name.ident, &name.ident)),
        syn::UseTree::Rename(name) => found.push(Leaf::new(before, &name.ident, &name.rename)),
        syn::UseTree::Glob(glob) => {
            found.push(Leaf { path: before.to_vec(), name: None, place: glob.span() });
        }
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| gather(tree, before, found));
        }
    }
}

impl Leaf {
    fn new(before: &[String], named: &syn::Ident, called: &syn::Ident) -> Leaf {
        // `self` between braces is the module that stands before them.
        let own: &[String] = if named == "self" { &[] } else { &[named.to_string()] };
        let path = [before, own].concat();
        let name = if called == "self" { path.last().cloned() } else { Some(called.to_string()) };
        Leaf { path, name, place: named.span() }
    }
}
