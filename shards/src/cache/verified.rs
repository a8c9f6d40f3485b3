//! Bytes that were verified, and what is sent of them.
//!
//! ```text
//!   codec: verify_group ──► Matched ──► Verified ──► Body ──► Acts::send
//!                                        ▲    │
//!                                        └─ cache
//! ```
//!
//! Each arrow is the only way to what it points at: the fields are private, and `Acts::send` of a
//! shard takes nothing but a [`Body`]. There is one other door, [`Verified::hashed`], for a group
//! of an upload: the address it is stored under is the hash of its bytes.

use std::sync::Arc;

use ron_codec::{
    address::Address,
    outboard::{Expected, Matched},
};
use ron_io::{
    arena::{Block, BlockMut},
    ports::{Seal, Slice},
};

/// A group of an object, hashed and matched since it was last read from disk or received. Bodies
/// are sent from nothing else.
///
/// ```compile_fail,E0451
/// fn forge(block: ron_io::arena::Block) -> ron_shards::flow::Verified {
///     ron_shards::flow::Verified { index: 0, block, hot: false, seal: None }
/// }
/// ```
///
/// ```compile_fail,E0624
/// fn forge(block: ron_io::arena::Block, address: &ron_codec::address::Address) {
///     ron_shards::flow::Verified::hashed(address, block, false);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Verified {
    index: u64,
    block: Block,
    hot: bool,
    /// What the bytes hash to, where they are to be hashed again when they are sent.
    seal: Option<Arc<dyn Seal>>,
}

/// The bytes that a group is compared with again.
#[derive(Debug)]
struct Again(Expected);

impl Seal for Again {
    fn holds(&self, block: &[u8]) -> bool {
        self.0.holds(block)
    }
}

fn seal(expected: Expected) -> Arc<dyn Seal> {
    Arc::new(Again(expected))
}

impl Verified {
    /// The group that was just found to match. `sealed` has it proved again when it is sent.
    ///
    /// # Panics
    /// If the proof is one of other bytes than the block's.
    pub(crate) fn proven(matched: Matched<'_>, block: &Block, sealed: bool) -> Verified {
        assert!(std::ptr::eq(matched.bytes(), block.bytes()), "the proof is of other bytes");
        let seal = sealed.then(|| seal(matched.expected()));
        Verified { index: matched.index(), block: block.clone(), hot: false, seal }
    }

    /// The only group of an object that was uploaded, whose address is the hash of these bytes.
    pub(crate) fn hashed(address: &Address, block: Block, sealed: bool) -> Verified {
        let seal = sealed.then(|| seal(Expected::Object(*address)));
        Verified { index: 0, block, hot: false, seal }
    }

    /// A group that the cache keeps.
    pub(super) fn kept(
        index: u64,
        block: Block,
        hot: bool,
        seal: Option<Arc<dyn Seal>>,
    ) -> Verified {
        Verified { index, block, hot, seal }
    }

    /// Whatever a test says.
    #[cfg(any(test, feature = "bench"))]
    pub fn vouch(index: u64, block: Block, hot: bool) -> Verified {
        Verified { index, block, hot, seal: None }
    }

    /// The same bytes in other memory, which has the length of the group.
    pub(crate) fn copied(&self, mut into: BlockMut) -> Verified {
        into.bytes_mut().copy_from_slice(self.block.bytes());
        let block = into.freeze(self.block.len());
        Verified { block, ..self.clone() }
    }

    /// Position of the group in its object.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn len(&self) -> usize {
        self.block.len()
    }

    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Where the bytes lie.
    pub fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.seal.clone()
    }

    /// Bytes `start..end` of the group, to be sent.
    pub fn body(&self, start: usize, end: usize) -> Body {
        let slice = Slice::part(self.block.clone(), start..end);
        Body(slice.hot(self.hot).sealed(self.seal.clone()))
    }
}

/// Bytes of a verified group, on their way out.
///
/// ```compile_fail,E0423
/// fn forge(slice: ron_io::ports::Slice) -> ron_shards::flow::Body {
///     ron_shards::flow::Body(slice)
/// }
/// ```
///
/// ```compile_fail,E0308
/// use ron_io::ports::{Acts, ConnId, Slice};
/// use ron_shards::flow::{Body, Mail};
/// fn send(acts: &mut Acts<Mail, Body>, to: ConnId, all: Slice) {
///     acts.send(to, 0, Some(all));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Body(Slice);

impl Body {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is worth sending by reference.
    pub fn is_hot(&self) -> bool {
        self.0.is_hot()
    }

    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Where the bytes lie.
    pub fn block(&self) -> &Block {
        self.0.block()
    }
}

impl From<Body> for Slice {
    fn from(body: Body) -> Slice {
        body.0
    }
}
