//! What the cache answers before the index is asked, and what is put there as it is stored.

use ron_codec::{address::Address, limits::GROUP_LEN};
use ron_io::{
    arena::{Block, Class},
    ports::ShardId,
};

use crate::{
    cache::Purpose,
    flow::{Ask, Cx, Reply, Verified},
};

/// The answer to a question whose group is in the cache.
pub(super) fn cached_answer(ask: &Ask, cx: &mut Cx<'_>) -> Option<Reply> {
    match ask {
        Ask::Open { address, first: Some(byte) } => {
            let index = byte / GROUP_LEN as u64;
            let cached = cx.memory.get_for(Purpose::ReadFirst, address, index)?;
            let within = *byte < cached.size;
            let first = within.then_some(cached.group);
            Some(Reply::Opened { size: cached.size, first })
        }
        Ask::Group { address, index, begins, .. } => {
            let purpose = if *begins { Purpose::ReadFirst } else { Purpose::ReadNext };
            let cached = cx.memory.get_for(purpose, address, *index)?;
            Some(Reply::Group(cached.group))
        }
        _ => None,
    }
}

/// Keeps the only group of an object in the cache: it was hashed as it came in. A block of another
/// arena, or one larger than it needs, is copied: it could not be evicted, or would waste memory.
pub(super) fn keep(address: &Address, block: &Block, from: ShardId, cx: &mut Cx<'_>) {
    let len = block.len();
    if len == 0 {
        return;
    }
    let own = from == cx.config.shard && block.footprint() == Class::holding(len).bytes();
    let group = Verified::hashed(address, block.clone(), cx.config.verify_sends);
    let kept = if own {
        Some(group)
    } else {
        cx.memory.alloc_for(Purpose::Background, len, None).map(|into| group.copied(into))
    };
    if let Some(group) = kept {
        cx.memory.insert(address, len as u64, &group);
    }
}
