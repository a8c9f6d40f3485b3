//! Which modules of a crate use which.
//!
//! A module is a file. It uses the file that defines what it names: in a `use`, in a path, in the
//! tokens of a macro. A name that a module passes on by `use` is looked up where it comes from. A
//! `pub use` of what lies below a module passes it on, and uses it only if the module names it
//! elsewhere. Code for tests alone does not count, and neither do calls of methods, which name no
//! module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use super::syntax::{attributes, defined, is_for_tests, leaves};

/// The names on the way from the root of a crate to a module, or to an item in one. The root itself
/// has none.
pub(super) type Names = Vec<String>;

/// For each module those that it uses, each with one name that it uses of it.
pub(super) type Uses = BTreeMap<Names, BTreeMap<Names, String>>;

/// How often a name is followed from a module that passes it on to the next.
const PASSED_ON_MAX: usize = 8;

/// Which modules of a crate use which; its root is `lib.rs` in the folder `src`.
pub(super) fn uses(src: &Path) -> Uses {
    let mut files = BTreeMap::new();
    read(&src.join("lib.rs"), Names::new(), &mut files);
    let known: BTreeSet<Names> = files.keys().cloned().collect();
    let modules =
        files.iter().map(|(module, file)| (module.clone(), Module::new(file, module, &known)));
    let modules = Modules(modules.collect());
    modules.0.keys().map(|module| (module.clone(), modules.used_by(module))).collect()
}

/// Reads a file and those of the modules that it declares.
fn read(path: &Path, module: Names, files: &mut BTreeMap<Names, syn::File>) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for item in &file.items {
        if let syn::Item::Mod(declared) = item
            && declared.content.is_none()
            && !is_for_tests(&declared.attrs)
        {
            let below = [&module[..], &[declared.ident.to_string()]].concat();
            read(&file_of(declared, path), below, files);
        }
    }
    files.insert(module, file);
}

/// The file of a module that is declared in the file `parent`.
fn file_of(declared: &syn::ItemMod, parent: &Path) -> PathBuf {
    if let Some(path) = declared.attrs.iter().find_map(path_attribute) {
        return parent.with_file_name(path);
    }
    let owns_folder = ["lib.rs", "mod.rs"].map(|name| parent.ends_with(name)).contains(&true);
    let folder = if owns_folder { parent.with_file_name("") } else { parent.with_extension("") };
    let name = declared.ident.to_string();
    let flat = folder.join(format!("{name}.rs"));
    if flat.exists() { flat } else { folder.join(name).join("mod.rs") }
}

/// The value of `#[path = "…"]`.
fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })
            if pair.path.is_ident("path") =>
        {
            Some(text.value())
        }
        _ => None,
    }
}

/// What a file defines, brings in and names.
#[derive(Debug, Default)]
struct Module {
    defines: BTreeSet<String>,
    /// What `use` brings in, by what it is called here.
    brings: BTreeMap<String, Names>,
    /// Modules that `use` brings in everything of.
    globs: Vec<Names>,
    /// What is named and lies in this crate.
    names: Vec<Names>,
    /// What is passed on by `pub use`, by what it is called here.
    passes_on: Vec<(String, Names)>,
    /// The first name of each path.
    heads: BTreeSet<String>,
}

impl Module {
    fn new(file: &syn::File, module: &Names, known: &BTreeSet<Names>) -> Module {
        let here = module.clone();
        let mut scan = Scan { known, here, module: Module::default(), paths: Vec::new() };
        let items = file.items.iter().filter(|item| !is_for_tests(attributes(item)));
        scan.module.defines = items.filter_map(defined).map(syn::Ident::to_string).collect();
        scan.visit_file(file);
        let Scan { paths, mut module, .. } = scan;
        for (path, absolute) in paths {
            let Some((head, rest)) = path.split_first() else { continue };
            let brought = module.brings.get(head).filter(|_| !rest.is_empty());
            let named = absolute.or_else(|| brought.map(|from| [&from[..], rest].concat()));
            module.names.extend(named);
            module.heads.insert(head.clone());
        }
        module
    }
}

/// The walk through a file.
struct Scan<'a> {
    /// The modules of the crate.
    known: &'a BTreeSet<Names>,
    /// Where in the crate the walk is: the module, and modules in braces in its file.
    here: Names,
    module: Module,
    /// Paths as they are written, and from the root if they begin at a module.
    paths: Vec<(Names, Option<Names>)>,
}

impl Scan<'_> {
    /// A path from the root of the crate; `None` if it does not begin at one of its modules.
    fn absolute(&self, path: &[String]) -> Option<Names> {
        let above = path.iter().take_while(|name| *name == "super").count();
        let (from, rest) = match path.first()?.as_str() {
            "crate" => (&[][..], &path[1..]),
            "self" => (&self.here[..], &path[1..]),
            "super" => (&self.here[..self.here.len().checked_sub(above)?], &path[above..]),
            first => {
                let child = [&self.here[..], &[first.to_owned()]].concat();
                (self.known.contains(&child).then_some(&self.here[..])?, path)
            }
        };
        Some([from, rest].concat())
    }

    fn path(&mut self, names: Names) {
        // One name alone is of this file, or what a `use` brought in.
        let absolute = if names.len() > 1 { self.absolute(&names) } else { None };
        self.paths.push((names, absolute));
    }

    /// The paths among tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Names::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.path(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                token => {
                    self.path(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = token {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.path(path);
    }
}

impl<'ast> Visit<'ast> for Scan<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(attributes(item)) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.here.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let passes_on = !matches!(item.vis, syn::Visibility::Inherited);
        for leaf in leaves(&item.tree) {
            let Some(path) = self.absolute(&leaf.path) else { continue };
            let module = &mut self.module;
            match leaf.name {
                None => module.globs.push(path.clone()),
                Some(name) => {
                    module.brings.insert(name.clone(), path.clone());
                    if passes_on {
                        module.passes_on.push((name, path));
                        continue;
                    }
                }
            }
            if !passes_on {
                module.names.push(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone());
        syn::visit::visit_meta_list(self, list);
    }

    /// `pub(in path)` says who may use an item, and uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

/// The modules of a crate.
struct Modules(BTreeMap<Names, Module>);

impl Modules {
    /// The other modules that a module uses, each with one name that it uses of it.
    fn used_by(&self, module: &Names) -> BTreeMap<Names, String> {
        let Module { names, passes_on, heads, .. } = &self.0[module];
        let passed_on = passes_on.iter().filter(|(name, path)| {
            heads.contains(name) || !self.definer(path, PASSED_ON_MAX).starts_with(module)
        });
        let mut used = BTreeMap::new();
        for path in names.iter().chain(passed_on.map(|(_, path)| path)) {
            let definer = self.definer(path, PASSED_ON_MAX);
            if definer != *module {
                used.entry(definer).or_insert_with(|| path.join("::"));
            }
        }
        used
    }

    /// The module that defines what has this path, followed through so many that pass it on.
    fn definer(&self, path: &[String], passed_on_max: usize) -> Names {
        let is_module = |len: &usize| self.0.contains_key(&path[..*len]);
        let len = (0..=path.len()).rev().find(is_module).unwrap_or(0);
        let (module, below) = path.split_at(len);
        let here = &self.0[module];
        let Some((item, rest)) = below.split_first() else { return module.to_vec() };
        if here.defines.contains(item) || passed_on_max == 0 {
            return module.to_vec();
        }
        let in_glob = |glob: &&Names| {
            self.0.get(*glob).is_some_and(|below| {
                below.defines.contains(item) || below.brings.contains_key(item)
            })
        };
        let brought = here.brings.get(item).cloned().or_else(|| {
            let glob = here.globs.iter().find(in_glob)?;
            Some([&glob[..], std::slice::from_ref(item)].concat())
        });
        match brought {
            Some(from) => self.definer(&[from, rest.to_vec()].concat(), passed_on_max - 1),
            None => module.to_vec(),
        }
    }
}
