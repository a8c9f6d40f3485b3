//! What memory the node holds, measured from outside, against what it may hold.
//!
//! ```text
//!   heap     every allocation made inside a shard, until it is freed     sim::heap
//!   copied   bytes in the queues of sockets                              sim::Net
//!   blocks   pages of the arenas, by where they are:
//!            │ free │ cached │ sockets │ disk │ mesh │ sessions and store │
//! ```
//!
//! The last part cannot be seen from outside. Blocks that are held in several places outside the
//! shards count in the first of them; those that are cached may be held elsewhere as well.

use std::collections::HashSet;

use ron_io::{
    arena::Block,
    limits::PAGE_LEN,
    sim::{Mesh, heap},
};
use ron_shards::flow::{Ask, Mail, Reply};

use super::{node::Node, trace::violation};

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes on the heap.
    pub heap: usize,
    /// Bytes copied into the queues of sockets.
    pub copied: usize,
    /// Pages of blocks: in all, and by where they are.
    pub total: usize,
    pub free: usize,
    pub cached: usize,
    pub sockets: usize,
    pub disk: usize,
    pub mesh: usize,
}

impl Held {
    /// Counts all that a node holds. `heap_before` is what `heap::node_len` was before it started.
    pub fn count(node: &mut Node, heap_before: isize) -> Held {
        let mut held = Held {
            heap: usize::try_from(heap::node_len() - heap_before).unwrap_or_default(),
            ..Held::default()
        };
        let mut seen = HashSet::new();
        for part in &node.parts {
            held.copied += part.net.copied_len();
            held.sockets +=
                part.net.blocks().map(|block| new_pages(block, &mut seen)).sum::<usize>();
        }
        for part in &node.parts {
            held.disk += part.queue.reading_len() / PAGE_LEN;
            held.disk +=
                part.queue.blocks().map(|block| new_pages(block, &mut seen)).sum::<usize>();
        }
        held.mesh = mesh_pages(&node.mesh, &mut seen);
        for part in &mut node.parts {
            let pages = part.pages();
            held.total += pages.total;
            held.free += pages.free;
            held.cached += pages.cached;
        }
        held
    }

    /// What must hold whatever the peers do.
    pub fn check(&self) {
        let outside = self.sockets + self.disk + self.mesh;
        if self.free + self.cached > self.total || self.free + outside > self.total {
            violation!("pages are free and held at once: {self:?}");
        }
    }
}

/// Pages of a block, unless it was seen before.
fn new_pages(block: &Block, seen: &mut HashSet<usize>) -> usize {
    let is_new = seen.insert(block.bytes().as_ptr() as usize);
    if is_new { block.footprint() / PAGE_LEN } else { 0 }
}

fn mesh_pages(mesh: &Mesh<Mail>, seen: &mut HashSet<usize>) -> usize {
    let mut pages = 0;
    for mail in mesh.mails() {
        match mail {
            Mail::Ask { ask: Ask::Put { blocks, .. }, .. } => {
                pages += blocks.iter().map(|block| new_pages(block, seen)).sum::<usize>();
            }
            Mail::Reply {
                reply: Reply::Group(group) | Reply::Opened { first: Some(group), .. },
                ..
            } => pages += new_pages(group.block(), seen),
            _ => {}
        }
    }
    pages
}
