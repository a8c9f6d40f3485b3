//! A shard's memory: its arena, and over it the cache of verified blocks.
//!
//! All memory that objects pass through comes from one arena. What nobody else holds stays in the
//! cache until somebody needs the memory: then [`Memory::alloc`] evicts. The order is S3-FIFO's:
//!
//! ```text
//!               never left lately            used twice or more
//!  insert ──┬────────────────────► small ──────────────────────► main ──┐
//!           │                      10 %  │                      90 % ▲  │ used: one use
//!           │ left lately                │ used less                 │◄─┘ less, once more
//!           └────────────────────────────┼──────────────────────────►│ not used
//!                        ▲               ▼                           ▼
//!                        └───────────  ghost                        gone
//! ```
//!
//! Shares are of the arena's bytes, and a block counts with its class (4, 16 or 64 KiB), not with
//! its length. Everything is sized at boot for the most entries there can be, one a page.
//!
//! A block that somebody else holds (it is being sent) is not evicted, because that would lose it
//! without freeing anything; it gets another round instead. A piece smaller than what is needed is
//! evicted together with the others of its block, or not at all when one of them cannot be.
//!
//! Memory is a budget: what is asked for is charged to an [`Owner`], who has a share that it cannot
//! exceed and that others cannot take; see [`Purpose`]. A cached block that somebody holds is
//! charged to the downloads.
//!
//! This module does not verify: the caller that inserts a block has seen its group match. It keeps
//! no block of another arena, whose memory it could not give back.

use std::{fmt, io, sync::Arc};

use ron_codec::address::Address;
use ron_io::{
    arena::{Arena, Block, BlockMut, Class, Owner},
    limits::{ARENA_BLOCKS_MAX, BLOCK_LEN, BLOCK_PAGES, PAGE_LEN},
    ports::{Seal, ShardId},
};

use crate::{
    asker::{Peer, StreamId},
    entropy::{SECRET_WORDS, Secret},
    limits::{EVICT_PATIENCE, EVICT_STEPS_MAX, MESH_PARKED_BEGINS_MAX, MESH_PARKED_MAX},
};

mod ghost;
mod lists;
mod shares;
mod table;
mod verified;
mod waiting;

use ghost::Ghost;
use lists::{Entry, Home, Lists};
pub use shares::Purpose;
use shares::Shares;
use table::Table;
pub use verified::{Body, Verified};
use waiting::Waiting;

/// The small queue's share of the arena: one part in so many.
const SMALL_SHARE: usize = 10;

/// Uses that carry an entry from the small queue to the main one.
const PROMOTE_USES: u8 = 2;

/// A shard's arena and the cache of verified blocks in it.
pub struct Memory {
    arena: Arena,
    /// Uploads that wait for memory. Short ones have lines of their own.
    uploads: Waiting,
    short_uploads: Waiting,
    secret: [u64; SECRET_WORDS],
    table: Table,
    lists: Lists,
    /// For each page what the group that begins there hashes to; nothing unless bodies are proved
    /// again when they are sent.
    seals: Vec<Option<Arc<dyn Seal>>>,
    ghost: Ghost,
    /// Bytes from which on the small queue is the one to evict from.
    small_len: usize,
    shares: Shares,
    /// Reads of each other shard that wait here for memory, see [`Memory::park`].
    parked: Vec<usize>,
}

/// A group found in the cache. It is hot, worth sending by reference, when it fills a block that
/// stays, because it is in the main queue or was used often enough to go there.
#[derive(Clone, Debug)]
pub struct Cached {
    pub group: Verified,
    /// Bytes of the object the block belongs to.
    pub size: u64,
}

/// Pages of an arena, of 4 KiB each. Those that are neither free nor cached are held by somebody
/// else: they are being filled, sent, written or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    pub free: usize,
    pub cached: usize,
    pub total: usize,
    /// Of those that are handed out, by owner, in the order of `Owner::ALL`: the first are the
    /// cache's own, which nobody else holds.
    pub owners: [usize; Owner::ALL.len()],
}

impl Memory {
    /// An arena of `arena_len` bytes, rounded down to whole blocks of 64 KiB, with an empty cache.
    /// Its hash is keyed with `secret`.
    ///
    /// # Errors
    /// `InvalidInput` when `arena_len` is less than a block or more than an arena can be;
    /// otherwise what the system answered when the arena was reserved.
    pub fn new(arena_len: usize, secret: &Secret) -> io::Result<Memory> {
        let blocks = arena_len / BLOCK_LEN;
        if !(1..=ARENA_BLOCKS_MAX).contains(&blocks) {
            let fault = format!("an arena of {blocks} blocks, must be 1 to {ARENA_BLOCKS_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fault));
        }
        let arena = Arena::new(blocks)?;
        let pages = arena.total_pages();
        Ok(Memory {
            arena,
            uploads: Waiting::default(),
            short_uploads: Waiting::default(),
            // Odd, so that different groups of an object stay different when multiplied by one.
            secret: secret.words().map(|word| word | 1),
            table: Table::new(pages),
            lists: Lists::new(pages),
            seals: Vec::new(),
            ghost: Ghost::new(pages),
            small_len: blocks * BLOCK_LEN / SMALL_SHARE,
            shares: Shares::of(blocks),
            parked: Vec::new(),
        })
    }

    /// Keeps what each group hashes to, so that it can be proved again when it is sent.
    #[must_use]
    pub fn with_seals(mut self) -> Memory {
        self.seals = vec![None; self.arena.total_pages()];
        self
    }

    /// Memory for `len` bytes, at most a block, charged to the owner whose purpose it is; `None`
    /// while the owner's share for this purpose is used up, and when `alloc` has none. A whole
    /// block is taken right behind `neighbour` where possible.
    pub fn alloc_for(
        &mut self,
        purpose: Purpose,
        len: usize,
        neighbour: Option<&Block>,
    ) -> Option<BlockMut> {
        if !self.admits(purpose) {
            return None;
        }
        let block = self.alloc_after(len, neighbour)?;
        self.arena.charge(&block, purpose.owner());
        Some(block)
    }

    /// A block beyond all shares, as if another upload had been quicker.
    #[cfg(test)]
    pub(crate) fn alloc_beyond(&mut self, owner: Owner) -> BlockMut {
        let block = self.alloc_after(BLOCK_LEN, None).expect("a block is free");
        self.arena.charge(&block, owner);
        block
    }

    /// Whether one more block may be held for a purpose.
    pub fn admits(&mut self, purpose: Purpose) -> bool {
        self.is_below(purpose) || (self.arena.collect() > 0 && self.is_below(purpose))
    }

    /// Whether an owner holds less than it may for this purpose.
    #[inline]
    pub fn is_below(&self, purpose: Purpose) -> bool {
        self.held(purpose.owner()) < self.shares.limit(purpose)
    }

    /// Whether downloads should keep no more than one group each.
    #[inline]
    pub fn is_tight(&self) -> bool {
        !self.is_below(Purpose::ReadAhead)
    }

    /// Blocks that may still be held for a purpose.
    pub fn left(&mut self, purpose: Purpose) -> usize {
        self.arena.collect();
        self.shares.limit(purpose).saturating_sub(self.held(purpose.owner()))
    }

    /// Blocks that an owner holds, pieces of blocks counted as blocks.
    fn held(&self, owner: Owner) -> usize {
        let pinned = if owner == Owner::Downloads { self.arena.pinned() } else { 0 };
        self.arena.held(owner).pieces + pinned
    }

    /// Memory for the first bytes of an upload. One that is `short` has some of its own, and takes
    /// of the rest what uploads that have a block may take: the others can begin however many short
    /// ones there are, and the other way round.
    pub fn alloc_upload(&mut self, short: bool, len: usize) -> Option<BlockMut> {
        Memory::of_upload(short).into_iter().find_map(|purpose| self.alloc_for(purpose, len, None))
    }

    /// Whether there is memory for the first bytes of an upload.
    pub fn admits_upload(&mut self, short: bool) -> bool {
        Memory::of_upload(short).into_iter().any(|purpose| self.admits(purpose))
    }

    fn of_upload(short: bool) -> [Purpose; 2] {
        let own = if short { Purpose::UploadShort } else { Purpose::UploadFirst };
        [own, Purpose::UploadMore]
    }

    /// An upload waits for memory for its first block since `since_ns`.
    pub fn queue_upload(&mut self, peer: Peer, stream: StreamId, since_ns: u64, short: bool) {
        self.line(short).add(peer, stream, since_ns);
    }

    /// An upload that was queued so waits no more.
    pub fn forget_upload(&mut self, peer: Peer, stream: StreamId, since_ns: u64, short: bool) {
        self.line(short).forget(peer, stream, since_ns);
    }

    fn line(&mut self, short: bool) -> &mut Waiting {
        if short { &mut self.short_uploads } else { &mut self.uploads }
    }

    /// Whether others wait already for the memory that such an upload begins with.
    pub fn has_line(&mut self, short: bool) -> bool {
        self.line(short).len() > 0
    }

    /// Uploads that wait for memory.
    pub fn uploads_waiting(&self) -> usize {
        self.uploads.len() + self.short_uploads.len()
    }

    /// The upload that is to try again: there is memory for it, or it has waited too long.
    pub fn next_upload(&mut self, now_ns: u64) -> Option<StreamId> {
        if self.uploads_waiting() == 0 {
            return None;
        }
        let late = self.short_uploads.take_late(now_ns).or_else(|| self.uploads.take_late(now_ns));
        if late.is_some() {
            return late;
        }
        if self.short_uploads.len() > 0 && self.admits_upload(true) {
            return self.short_uploads.take_next();
        }
        if self.uploads.len() > 0 && self.admits_upload(false) {
            return self.uploads.take_next();
        }
        None
    }

    /// Whether this arena handed a block out.
    pub fn owns(&self, block: &Block) -> bool {
        self.arena.owns(block)
    }

    /// A read of another shard is about to wait for memory. False when too many do, and it is to
    /// be refused: sooner when an answer `begins` with it.
    pub fn park(&mut self, shard: ShardId, begins: bool) -> bool {
        let at = usize::from(shard.0);
        if at >= self.parked.len() {
            self.parked.resize(at + 1, 0);
        }
        let parked = self.may_park(shard, begins);
        self.parked[at] += usize::from(parked);
        parked
    }

    /// Whether [`park`](Memory::park) would find a place.
    pub fn may_park(&self, shard: ShardId, begins: bool) -> bool {
        let most = if begins { MESH_PARKED_BEGINS_MAX } else { MESH_PARKED_MAX };
        self.parked.get(usize::from(shard.0)).is_none_or(|parked| *parked < most)
    }

    /// A read that was parked is answered.
    ///
    /// # Panics
    /// If none of this shard is.
    pub fn unpark(&mut self, shard: ShardId) {
        let parked = &mut self.parked[usize::from(shard.0)];
        *parked = parked.checked_sub(1).expect("a read is answered once");
    }

    /// Memory for `len` bytes, at most a block, in nobody's name. Evicts as needed; `None` while
    /// what there is is held by others, or so much of it that [`EVICT_STEPS_MAX`] looks found
    /// nothing.
    pub fn alloc(&mut self, len: usize) -> Option<BlockMut> {
        self.alloc_after(len, None)
    }

    /// As `alloc`; a whole block is taken right behind `neighbour` where possible, so that
    /// an object read in order lies in order.
    pub fn alloc_after(&mut self, len: usize, neighbour: Option<&Block>) -> Option<BlockMut> {
        if let Some(block) = self.arena.alloc_after(len, neighbour) {
            return Some(block);
        }
        if self.evict(Class::holding(len)) { self.arena.alloc_after(len, neighbour) } else { None }
    }

    /// The cached group `index` of an object. A use is counted.
    #[inline]
    pub fn get(&mut self, address: &Address, index: u64) -> Option<Cached> {
        let page = self.find(self.hash(address, index), address, index)?;
        let entry = self.lists.entry_mut(page);
        entry.used();
        let block = self.arena.pin(entry.block.as_ref()?);
        let hot = stays(entry) && block.footprint() == BLOCK_LEN;
        let size = entry.size;
        let seal = self.seals.get(page as usize).cloned().flatten();
        Some(Cached { group: Verified::kept(index, block, hot, seal), size })
    }

    /// As `get`, unless that would hold a whole block more than there may be for this purpose. What
    /// is hot stays in memory in any case: where it comes next it may be held beyond that.
    #[inline]
    pub fn get_for(&mut self, purpose: Purpose, address: &Address, index: u64) -> Option<Cached> {
        if !self.is_below(purpose) {
            let page = self.find(self.hash(address, index), address, index)?;
            let entry = self.lists.entry(page);
            let is_next = purpose == Purpose::ReadNext;
            let purpose = if is_next && stays(entry) { Purpose::ReadHot } else { purpose };
            let block = entry.block.as_ref()?;
            if block.footprint() == BLOCK_LEN && !block.is_shared() && !self.admits(purpose) {
                return None;
            }
        }
        self.get(address, index)
    }

    /// Keeps a verified group of an object of `size` bytes. Where the group is cached already, the
    /// first block stays. A block of another arena is not kept, and neither is one that is cached
    /// under another name.
    pub fn insert(&mut self, address: &Address, size: u64, group: &Verified) {
        let (index, block) = (group.index(), group.block());
        if !self.arena.owns(block) || self.lists.entry(block.page()).block.is_some() {
            return;
        }
        let hash = self.hash(address, index);
        if self.find(hash, address, index).is_some() {
            return;
        }
        let remembered = self.remembered();
        let back = self.ghost.recall(hash, remembered);
        let home = if back { Home::Main } else { Home::Small };
        let block = block.clone();
        self.arena.keep(&block);
        self.table.insert(hash as u32, block.page());
        if let Some(seal) = self.seals.get_mut(block.page() as usize) {
            *seal = group.seal();
        }
        self.lists.admit(home, (address, index), size, block);
    }

    /// Drops a group, as if it had never been cached.
    pub fn forget(&mut self, address: &Address, index: u64) {
        let hash = self.hash(address, index);
        if let Some(page) = self.find(hash, address, index) {
            self.table.remove(hash as u32, page);
            self.release(page);
        }
    }

    /// Takes an entry out of its queue and drops its block.
    fn release(&mut self, page: u32) {
        if let Some(block) = self.lists.release(page) {
            self.arena.unkeep(&block);
        }
    }

    /// Bytes of memory that the cached blocks take.
    pub fn bytes(&self) -> usize {
        self.lists.bytes(Home::Small) + self.lists.bytes(Home::Main)
    }

    /// Cached blocks.
    pub fn entries(&self) -> usize {
        self.lists.len(Home::Small) + self.lists.len(Home::Main)
    }

    /// Where the pages of the arena are now.
    pub fn pages(&mut self) -> Pages {
        self.arena.collect();
        Pages {
            free: self.arena.free_pages(),
            cached: self.bytes() / PAGE_LEN,
            total: self.arena.total_pages(),
            owners: self.owners(),
        }
    }

    /// Pages that each owner holds, in the order of `Owner::ALL`. Pinned ones are the downloads'.
    pub fn owners(&mut self) -> [usize; Owner::ALL.len()] {
        let charged = [Owner::Uploads, Owner::ShortUploads, Owner::Downloads, Owner::Background];
        if charged.iter().any(|owner| self.arena.held(*owner).pieces > 0) {
            self.arena.collect();
        }
        let pinned = self.arena.pinned() * BLOCK_PAGES;
        let mut owners = Owner::ALL.map(|owner| self.arena.held(owner).pages);
        // A block that another thread drops is counted as pinned for a moment longer.
        let cached = &mut owners[Owner::Cache as usize];
        *cached = cached.saturating_sub(pinned);
        owners[Owner::Downloads as usize] += pinned;
        owners
    }

    /// Bytes of the arena.
    pub fn arena_len(&self) -> usize {
        self.arena.total_pages() * PAGE_LEN
    }

    /// How many departures count as "lately": as many as the main queue's share of entries.
    fn remembered(&self) -> usize {
        self.entries() - self.entries() / SMALL_SHARE
    }

    /// A keyed hash by folded multiplications. The digest is uniform unless somebody chose it, so
    /// all the hash must do is not to be predictable.
    fn hash(&self, address: &Address, index: u64) -> u64 {
        let (words, _) = address.as_bytes().as_chunks::<8>();
        let word = |n: usize| u64::from_le_bytes(words[n]) ^ self.secret[n];
        let digest = fold(word(0), word(1)) ^ fold(word(2), word(3)).rotate_left(32);
        fold(digest ^ self.secret[4], index.wrapping_add(1).wrapping_mul(self.secret[5]))
    }

    /// Where a group would be, for tests of what that depends on.
    #[cfg(test)]
    pub(crate) fn hash_of(&self, address: &Address, index: u64) -> u64 {
        self.hash(address, index)
    }

    fn find(&self, hash: u64, address: &Address, index: u64) -> Option<u32> {
        self.table.find(hash as u32, |page| {
            let entry = self.lists.entry(page);
            entry.index == index && entry.address == *address
        })
    }

    /// Evicts until one piece of class `need` is free. Each step looks at the oldest of a queue
    /// and evicts it or gives it another round; the number of steps is bounded.
    fn evict(&mut self, need: Class) -> bool {
        // The queue that has the turn holds nothing to evict: look in the other one.
        let mut other = false;
        for step in 0..EVICT_STEPS_MAX {
            let small_first = self.lists.bytes(Home::Small) >= self.small_len;
            let (first, second) = if small_first != other {
                (Home::Small, Home::Main)
            } else {
                (Home::Main, Home::Small)
            };
            let oldest = self.lists.oldest(first).or_else(|| self.lists.oldest(second));
            let Some(page) = oldest else { return false };
            let Entry { home, uses, .. } = *self.lists.entry(page);
            match home {
                Home::Small if uses >= PROMOTE_USES => {
                    self.lists.entry_mut(page).uses = 0;
                    self.lists.renew(Home::Main, page);
                }
                Home::Main if uses > 0 && step < EVICT_PATIENCE => {
                    self.lists.entry_mut(page).uses -= 1;
                    self.lists.renew(Home::Main, page);
                }
                _ if !self.yields(page, need) => {
                    self.lists.renew(home, page);
                    other = !other;
                }
                _ => {
                    self.evict_around(page, need);
                    return true;
                }
            }
        }
        false
    }

    /// Whether evicting the entry at `page`, with those in the same piece of class `need`, frees
    /// that piece: each page of it is free or cached and held by nobody else.
    fn yields(&self, page: u32, need: Class) -> bool {
        let (mut at, end) = self.piece(page, need);
        while at < end {
            match &self.lists.entry(at).block {
                Some(block) if block.is_shared() => return false,
                Some(block) => at += (block.footprint() / PAGE_LEN) as u32,
                None if self.arena.is_free(at) => at += 1,
                None => return false,
            }
        }
        true
    }

    /// Evicts the entry at `page` and the others in the same piece of class `need`.
    fn evict_around(&mut self, page: u32, need: Class) {
        let (start, end) = self.piece(page, need);
        for page in start..end {
            let entry = self.lists.entry(page);
            if entry.block.is_none() {
                continue;
            }
            let Entry { address, index, home, .. } = *entry;
            let hash = self.hash(&address, index);
            // Of the main queue only those are remembered that leave before their time.
            if home == Home::Small || entry.uses > 0 {
                self.ghost.remember(hash);
            }
            self.table.remove(hash as u32, page);
            self.release(page);
        }
    }

    /// The pages of the piece of class `need` that `page` lies in, or of the entry's own where
    /// that is larger.
    fn piece(&self, page: u32, need: Class) -> (u32, u32) {
        let pages = (self.lists.entry(page).footprint().max(need.bytes()) / PAGE_LEN) as u32;
        let start = page - page % pages;
        (start, start + pages)
    }
}

/// Bytes of the tables behind a memory of `arena_len` bytes, beside the arena itself: about 3 %.
pub const fn memory_bill(arena_len: usize) -> usize {
    let blocks = arena_len / BLOCK_LEN;
    let pages = blocks * BLOCK_PAGES;
    Arena::tables_len(blocks)
        + Lists::bytes_for(pages)
        + Table::bytes_for(pages)
        + Ghost::bytes_for(pages)
}

/// Bytes of the seals of a memory of `arena_len` bytes, with what each points at.
pub const fn seals_bill(arena_len: usize) -> usize {
    const SEAL_LEN: usize = size_of::<Option<Arc<dyn Seal>>>() + 64;
    arena_len / PAGE_LEN * SEAL_LEN
}

/// Whether a cached block is hot: it is, or will be, in the main queue.
fn stays(entry: &Entry) -> bool {
    entry.home == Home::Main || entry.uses >= PROMOTE_USES
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, entries) = (self.bytes(), self.entries());
        write!(f, "Memory({entries} entries, {bytes} of {} bytes)", self.arena_len())
    }
}

#[cfg(test)]
mod tests;
