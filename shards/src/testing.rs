//! What a part of a shard needs around it to be tested alone.

use std::collections::VecDeque;

use ron_io::{
    arena::Block,
    limits::BLOCK_LEN,
    ports::{Acts, ConnId, Now, ShardId},
    splitmix::SplitMix64,
    stats::Stats,
};

use crate::{
    cache::Memory,
    config::Config,
    entropy::Secret,
    flow::{Ask, Asker, Body, Cx, Mail, Peer, Reply, StreamId, Tickets},
    names::Names,
    resolved::Resolved,
    store::{Damage, FreeSpace, layout::Layout},
};

/// Everything that a context borrows.
pub(crate) struct Bench {
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) stats: Stats,
    pub(crate) acts: Acts<Mail, Body>,
    pub(crate) asks: VecDeque<(StreamId, Ask)>,
    pub(crate) replies: VecDeque<(Asker, Reply)>,
    pub(crate) memory: Memory,
    pub(crate) tickets: Tickets,
    pub(crate) entropy: SplitMix64,
    pub(crate) free_space: FreeSpace,
    pub(crate) damage: Damage,
    pub(crate) resolved: Resolved,
    pub(crate) now: Now,
}

impl Bench {
    pub(crate) const STREAM: StreamId =
        StreamId { conn: ConnId { slot: 3, generation: 5 }, stream: 7 };
    pub(crate) const PEER: Peer = Peer::LOCALHOST;

    /// A bench with an arena of that many blocks.
    pub(crate) fn new(blocks: usize) -> Bench {
        let layout = Layout::single("/data".into(), 4, 2);
        let mut config = Config::new(ShardId(1), layout);
        config.arena_len = blocks * BLOCK_LEN;
        Bench::with(config)
    }

    /// A bench for a part that is configured so.
    pub(crate) fn with(config: Config) -> Bench {
        Bench {
            names: config.names.clone(),
            free_space: FreeSpace::new(&config),
            damage: Damage::default(),
            resolved: Resolved::default(),
            stats: Stats::default(),
            acts: Acts::default(),
            asks: VecDeque::new(),
            replies: VecDeque::new(),
            memory: empty_memory(&config),
            tickets: Tickets::default(),
            entropy: SplitMix64::new(1),
            now: Now::default(),
            config,
        }
    }

    pub(crate) fn cx(&mut self) -> Cx<'_> {
        Cx {
            now: self.now,
            config: &self.config,
            names: &self.names,
            stats: &self.stats,
            acts: &mut self.acts,
            asks: &mut self.asks,
            replies: &mut self.replies,
            memory: &mut self.memory,
            tickets: &mut self.tickets,
            entropy: &mut self.entropy,
            free_space: &mut self.free_space,
            damage: &mut self.damage,
            resolved: &mut self.resolved,
        }
    }

    /// Drops the cache, so that the disk must be read.
    pub(crate) fn chill(&mut self) {
        self.memory = empty_memory(&self.config);
    }

    /// A block with these bytes.
    pub(crate) fn block(&mut self, bytes: &[u8]) -> Block {
        let mut block = self.memory.alloc(bytes.len()).expect("space in the arena");
        block.bytes_mut().copy_from_slice(bytes);
        block.freeze(bytes.len())
    }
}

fn empty_memory(config: &Config) -> Memory {
    Memory::new(config.arena_len, &Secret::of_seed(1)).unwrap()
}
