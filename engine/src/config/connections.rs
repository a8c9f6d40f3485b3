//! How many connections there may be, and how much they may buffer.

use ron_control::Clients;

use super::{Config, error::ConfigError, limits, settings::Settings};
use crate::{
    machine::Machine,
    memory_bill::{CONNECTION_LEN, TLS_CONNECTION_LEN},
};

impl Config {
    /// Whose connections come from one address: of an address that may have all there are, those of
    /// many clients.
    pub fn clients(&self) -> Clients {
        match self.connections_per_peer >= self.connections_max {
            true => Clients::Proxied,
            false => Clients::Direct,
        }
    }
}

impl Settings {
    /// Connections of one shard.
    pub(super) fn connections_max(
        &self,
        machine: &Machine,
        shards: usize,
    ) -> Result<usize, ConfigError> {
        let given = self.whole("connections_max", 1, limits::CONNECTIONS_MAX as u64)?;
        let default = || {
            let share = machine.memory_len / limits::CONNECTIONS_SHARE / shards as u64;
            let fitting = (share / (CONNECTION_LEN + TLS_CONNECTION_LEN)) as usize;
            fitting.clamp(limits::CONNECTIONS_DEFAULT_MIN, limits::CONNECTIONS_DEFAULT)
        };
        Ok(given.map_or_else(default, |count| count as usize))
    }

    /// Those of them that one peer may have.
    pub(super) fn connections_per_peer(&self, most: usize) -> Result<usize, ConfigError> {
        let given = self.whole("connections_per_peer", 1, limits::CONNECTIONS_MAX as u64)?;
        let (share, of) = ron_shards::limits::PEER_SHARE;
        Ok(given.map_or_else(|| (most * share).div_ceil(of), |count| count as usize))
    }

    /// Bytes that all connections may buffer.
    pub(super) fn connection_buffers(
        &self,
        machine: &Machine,
        shards: usize,
    ) -> Result<u64, ConfigError> {
        let shards = shards as u64;
        let min = limits::BUFFERS_PER_SHARD_MIN * shards;
        let max = limits::BUFFERS_PER_SHARD_MAX * shards;
        let least = limits::BUFFERS_DEFAULT_MIN * shards;
        let most = limits::BUFFERS_DEFAULT_MAX * shards;
        let default = || (machine.memory_len / limits::BUFFERS_SHARE).clamp(least, most);
        Ok(self.size("connection_buffers", min, max)?.unwrap_or_else(default))
    }
}
