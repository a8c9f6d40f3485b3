//! Which settings wait for a restart when they change.

use super::Config;

impl Config {
    /// Names of the settings that differ in `other` and take effect with the next start only. All
    /// do but `tls_cert`, `tls_key`, `write_tokens` and `log`.
    pub fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        // Taken apart so that a new setting has to be put here, or left out knowingly.
        let Config {
            data_dirs,
            http,
            https,
            oap,
            oap_plain,
            admin,
            cores,
            cache_len,
            tls: _,
            log: _,
            log_format,
            connections_max,
            connections_per_peer,
            connection_buffers_len,
            object_len_max,
            window_groups,
            writers,
            deadlines,
            storage,
            names,
            stall_limit,
            verify_sends,
            enforce_payments,
            hang_limit,
            partitions,
            partitions_given: _,
            warnings: _,
        } = self;
        let changed = [
            ("data_dirs", *data_dirs != other.data_dirs),
            ("http", *http != other.http),
            ("https", *https != other.https),
            ("oap", *oap != other.oap),
            ("oap_plain", *oap_plain != other.oap_plain),
            ("admin", *admin != other.admin),
            ("cores", *cores != other.cores),
            ("cache", *cache_len != other.cache_len),
            ("log_format", *log_format != other.log_format),
            ("connections_max", *connections_max != other.connections_max),
            ("connections_per_peer", *connections_per_peer != other.connections_per_peer),
            ("connection_buffers", *connection_buffers_len != other.connection_buffers_len),
            ("object_len_max", *object_len_max != other.object_len_max),
            ("window_groups", *window_groups != other.window_groups),
            ("write_loopback", writers.loopback != other.writers.loopback),
            ("server_names", writers.names != other.writers.names),
            ("deadlines", *deadlines != other.deadlines),
            ("storage", *storage != other.storage),
            ("names", *names != other.names),
            ("stall_limit", *stall_limit != other.stall_limit),
            ("enforce_payments", *enforce_payments != other.enforce_payments),
            ("debug.verify_sends", *verify_sends != other.verify_sends),
            ("hang_limit", *hang_limit != other.hang_limit),
            ("partitions", *partitions != other.partitions),
        ];
        changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
    }
}
