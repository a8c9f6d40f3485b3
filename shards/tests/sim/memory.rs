//! What memory the node holds, measured from outside, against what it says and may hold.
//!
//! ```text
//!   heap     every allocation made inside a shard, until it is freed     sim::heap
//!   copied   bytes in the queues of sockets                              sim::Net
//!   blocks   pages of the arenas, by where they are:
//!            │ free │ cached │ sockets │ disk │ mesh │ sessions and store │
//! ```
//!
//! The last part cannot be seen from outside. Blocks that are held in several places outside the
//! shards count in the first of them; those that are cached may be held elsewhere as well. Pieces
//! that are shorter than a block are not looked for.
//!
//! What the shards say of themselves is compared with that: the owners of pages add up to the pages
//! that are handed out, none has more than its share, and together they have what was found
//! outside; what connections are said to buffer is no less than what lies in their queues, and no
//! more than is allowed; and the heap never exceeds the bill.

use std::collections::HashSet;

use ron_io::{
    arena::{Block, Owner},
    limits::{BLOCK_LEN, HANDSHAKE_LEN_MAX, PAGE_LEN},
    sim::{Mesh, heap},
};
use ron_shards::{
    cache::Pages,
    flow::{Ask, Mail, Reply},
    limits::{
        BACKGROUND_PERCENT, READS_SHORT_PERCENT, UPLOADS_FIRST_PERCENT, UPLOADS_SHORT_PERCENT,
    },
};

use super::{node::Node, trace::violation};

/// Bytes of a connection while it is quiet, of its TLS, and what one step may add to what
/// connections buffer: lines of the bill, as in the engine's `memory_bill.rs`.
const CONNECTION_LEN: usize = 2 * 1024;
const TLS_CONNECTION_LEN: usize = 10 * 1024 + HANDSHAKE_LEN_MAX;
const STEP_LEN: usize = 1024 * 1024;

/// Part of the heap that the bill adds for what the allocator loses: it may be used here, where
/// nothing is lost, by tables that have grown.
const ALLOCATOR_SHARE: usize = 8;

/// Bytes of a shard whatever it serves. The engine's bill has more for the whole process; the
/// objects of a run are few and short, and so are their outboards and changes of the index.
const SHARD_LEN: usize = 512 * 1024;

const BLOCK_PAGES: usize = BLOCK_LEN / PAGE_LEN;

/// What the heap of a node may hold: the lines of the bill that are the shards' own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bill {
    /// Bytes on the heap when the shards had just been made.
    pub fixed: usize,
    pub shards: usize,
    /// Connections that a shard takes, those included that it only refuses.
    pub connections: usize,
    /// What the connections of a shard may buffer.
    pub buffers: usize,
}

impl Bill {
    fn total(&self) -> usize {
        let connection = CONNECTION_LEN + TLS_CONNECTION_LEN;
        let shard = SHARD_LEN + self.connections * connection + self.buffers + STEP_LEN;
        let total = self.fixed + self.shards * shard;
        total + total / ALLOCATOR_SHARE
    }
}

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
    /// Pages by owner, as the shards say.
    pub owners: [usize; Owner::ALL.len()],
    /// Bytes that connections buffer, as the shards say, and as found in their queues.
    pub stated: usize,
    pub queued: usize,
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
            let (stated, queued) =
                (part.stats.connection_buffer_bytes.get() as usize, part.net.unsent_copies_len());
            if queued > stated {
                violation!("connections buffer {queued} bytes, and are said to buffer {stated}");
            }
            (held.stated, held.queued) = (held.stated + stated, held.queued + queued);
            let blocks = part.net.blocks();
            held.sockets += blocks.map(|block| new_pages(block, &mut seen)).sum::<usize>();
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
            check_owners(&pages);
            held.owners.iter_mut().zip(pages.owners).for_each(|(sum, pages)| *sum += pages);
        }
        held
    }

    /// What must hold whatever the peers do.
    pub fn check(&self, bill: &Bill) {
        let outside = self.sockets + self.disk + self.mesh;
        if self.free + self.cached > self.total || self.free + outside > self.total {
            violation!("pages are free and held at once: {self:?}");
        }
        if self.owners[1..].iter().sum::<usize>() < outside {
            violation!("pages are held in nobody's name: {self:?}");
        }
        if self.stated > bill.shards * bill.buffers {
            violation!("connections buffer more than they may: {self:?}, {bill:?}");
        }
        if self.heap + self.copied > bill.total() {
            violation!("the node holds more than its bill: {self:?}, {bill:?}");
        }
    }
}

/// Every page that is handed out has one owner, and no owner has more than its share.
fn check_owners(pages: &Pages) {
    if pages.owners.iter().sum::<usize>() != pages.total - pages.free {
        violation!("pages do not add up: {pages:?}");
    }
    let blocks = pages.total / BLOCK_PAGES;
    let share = |percent: usize| (blocks * percent / 100).max(1) * BLOCK_PAGES;
    let uploads = share(UPLOADS_FIRST_PERCENT) + share(UPLOADS_SHORT_PERCENT);
    let reads = share(READS_SHORT_PERCENT);
    let held = |owner: Owner| pages.owners[owner as usize];
    let coming = held(Owner::Uploads) + held(Owner::ShortUploads);
    // A block of an upload that is cached before it is written counts as one that is read.
    let shares = [
        ("uploads", coming, uploads),
        ("uploads and downloads", coming + held(Owner::Downloads), uploads + reads),
        ("background work", held(Owner::Background), share(BACKGROUND_PERCENT)),
    ];
    for (who, held, share) in shares {
        if held > share {
            violation!("{who} hold more than {share} pages: {pages:?}");
        }
    }
}

/// Pages of a block, unless it was seen before. Shorter pieces that are cached belong to the cache,
/// no matter who holds them: they do not count.
fn new_pages(block: &Block, seen: &mut HashSet<usize>) -> usize {
    let is_whole = block.footprint() == BLOCK_LEN;
    if is_whole && seen.insert(block.bytes().as_ptr() as usize) {
        block.footprint() / PAGE_LEN
    } else {
        0
    }
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
