//! Objects in files of their own: how a finished upload gets its place.
//!
//! ```text
//!   (MakingDir) ──► Renaming ──► the log, which says that the object is there
//!        ▲             │
//!        └── removed ──┘
//! ```
//!
//! The file is complete and durable before it comes here. Renaming makes the name durable; what
//! makes the object visible is its record in the log. A file that got its name and no record is
//! not visible, and is renamed over when the object comes again.

use std::{io, path::PathBuf};

use ron_codec::address::Address;
use ron_io::ports::{DiskDone, DiskOp};
use slab::Slab;

use super::site::{Site, Tag};
use crate::flow::{Cx, Waiter};

#[derive(Debug)]
struct Adopting {
    /// The object's append in the log, which waits for the file.
    append: usize,
    address: Address,
    from: PathBuf,
    has_dir: bool,
    /// Whether this only remembers that somebody made it.
    remembers_dir: bool,
}

/// The uploads of one partition that are getting their place.
#[derive(Debug)]
pub(super) struct Objects {
    adopting: Slab<Adopting>,
    /// For each first byte of a digest, whether its folder is known to exist.
    has_dir: Box<[bool; 256]>,
}

impl Objects {
    pub(super) fn new() -> Objects {
        Objects { adopting: Slab::new(), has_dir: Box::new([false; 256]) }
    }

    /// Whether nothing is in progress.
    pub(super) fn is_quiet(&self) -> bool {
        self.adopting.is_empty()
    }

    /// Gives the file at `from` its place.
    pub(super) fn adopt(
        &mut self,
        append: usize,
        address: Address,
        from: PathBuf,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        let has_dir = self.has_dir[first_byte(&address)];
        let remembers_dir = has_dir;
        let adopting = Adopting { append, address, from, has_dir, remembers_dir };
        let slot = self.adopting.insert(adopting);
        self.step(slot, site, cx);
    }

    /// An act of the adoption is complete. Once the file has its place, or cannot get it, returns
    /// the object's append.
    pub(super) fn on_disk(
        &mut self,
        slot: usize,
        done: io::Result<DiskDone>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Option<(usize, io::Result<()>)> {
        let adopting = &mut self.adopting[slot];
        if let Err(error) = done {
            if error.kind() == io::ErrorKind::NotFound && adopting.remembers_dir {
                // Somebody has removed the folder since.
                (adopting.has_dir, adopting.remembers_dir) = (false, false);
                self.has_dir[first_byte(&adopting.address)] = false;
                self.step(slot, site, cx);
                return None;
            }
            let Adopting { append, from, .. } = self.adopting.remove(slot);
            cx.disk(Waiter::Nobody, DiskOp::Remove { path: from, durable: false });
            return Some((append, Err(error)));
        }
        if adopting.has_dir {
            return Some((self.adopting.remove(slot).append, Ok(())));
        }
        adopting.has_dir = true;
        self.has_dir[first_byte(&adopting.address)] = true;
        self.step(slot, site, cx);
        None
    }

    fn step(&mut self, slot: usize, site: Site, cx: &mut Cx<'_>) {
        let Adopting { address, from, has_dir, .. } = &self.adopting[slot];
        let layout = &cx.config.layout;
        let op = if *has_dir {
            let to = layout.object_path(site.number, address);
            DiskOp::Rename { from: from.clone(), to }
        } else {
            DiskOp::MakeDir { path: layout.objects_dir(site.number, address.as_bytes()[0]) }
        };
        site.disk(cx, Tag::Adopt { slot }, op);
    }
}

fn first_byte(address: &Address) -> usize {
    usize::from(address.as_bytes()[0])
}
