//! Who holds the memory that was handed out, by owner, exact to the piece.
//!
//! A piece belongs to the owner it was charged to from the time it is handed out until it is given
//! back. A piece that is *kept* (cached) belongs to the cache, which can let it go at any time,
//! unless others hold it as well: then it is *pinned*. Pins of whole blocks are counted; smaller
//! pieces are copied when they are sent, so nobody holds them for long.

/// Who memory was handed out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Owner {
    /// It is cached, or nobody's share counts it.
    Cache,
    /// Bytes that are coming in, until they are written or kept.
    Uploads,
    /// The same of short uploads, as far as they have memory of their own.
    ShortUploads,
    /// Groups that are being read, and those that their readers still hold.
    Downloads,
    /// Background work.
    Background,
}

impl Owner {
    pub const ALL: [Owner; 5] =
        [Owner::Cache, Owner::Uploads, Owner::ShortUploads, Owner::Downloads, Owner::Background];

    pub fn name(self) -> &'static str {
        match self {
            Owner::Cache => "cache",
            Owner::Uploads => "uploads",
            Owner::ShortUploads => "short_uploads",
            Owner::Downloads => "downloads",
            Owner::Background => "background",
        }
    }
}

/// What one owner holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub pages: usize,
    /// Pieces of whatever length: no more blocks than that are kept from being free.
    pub pieces: usize,
}

/// The owners of all pieces of an arena.
#[derive(Debug)]
pub(super) struct Owners {
    /// By the first page of a piece.
    of: Box<[Owner]>,
    held: [Held; Owner::ALL.len()],
}

impl Owners {
    pub(super) fn new(pages: usize) -> Owners {
        Owners { of: vec![Owner::Cache; pages].into(), held: Default::default() }
    }

    pub(super) fn held(&self, owner: Owner) -> Held {
        self.held[owner as usize]
    }

    /// A piece was handed out.
    pub(super) fn add(&mut self, page: u32, span: usize) {
        self.of[page as usize] = Owner::Cache;
        self.count(Owner::Cache, span);
    }

    /// A piece that is handed out has another owner from now on.
    pub(super) fn change(&mut self, page: u32, span: usize, owner: Owner) {
        self.remove(page, span);
        self.of[page as usize] = owner;
        self.count(owner, span);
    }

    /// A piece was given back, or is about to have another owner.
    pub(super) fn remove(&mut self, page: u32, span: usize) {
        let held = &mut self.held[self.of[page as usize] as usize];
        let left = held.pages.checked_sub(span).zip(held.pieces.checked_sub(1));
        let (pages, pieces) = left.expect("an owner gives back what was charged to it");
        *held = Held { pages, pieces };
    }

    fn count(&mut self, owner: Owner, span: usize) {
        let held = &mut self.held[owner as usize];
        held.pages += span;
        held.pieces += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_own_index() {
        assert!(Owner::ALL.iter().enumerate().all(|(n, owner)| *owner as usize == n));
    }

    #[test]
    fn a_piece_has_one_owner_at_a_time() {
        let mut owners = Owners::new(32);
        owners.add(16, 16);
        owners.add(3, 1);
        owners.change(16, 16, Owner::Uploads);
        assert_eq!(owners.held(Owner::Uploads), Held { pages: 16, pieces: 1 });
        assert_eq!(owners.held(Owner::Cache), Held { pages: 1, pieces: 1 });
        owners.change(16, 16, Owner::Downloads);
        owners.remove(16, 16);
        owners.remove(3, 1);
        assert!(Owner::ALL.iter().all(|owner| owners.held(*owner) == Held::default()));
    }
}
