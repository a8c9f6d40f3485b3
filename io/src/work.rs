//! The kinds of work that may hold a shard, by which its stalls are counted and reported.
//!
//! They are names alone. How long the work takes is measured by the driver and shown in
//! [`watch`](crate::watch).

/// Work that may hold a shard: an event with all that it causes, or what the driver does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Work {
    Opened,
    Secured,
    Bytes,
    Sent,
    Eof,
    Closed,
    Disk,
    Mail,
    Tick,
    /// TLS takes in what a peer sent.
    Tls,
    /// Submitting to the ring, sending, and collecting, where that does not wait.
    Ring,
}

impl Work {
    pub const ALL: [Work; 11] = [
        Work::Opened,
        Work::Secured,
        Work::Bytes,
        Work::Sent,
        Work::Eof,
        Work::Closed,
        Work::Disk,
        Work::Mail,
        Work::Tick,
        Work::Tls,
        Work::Ring,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::Opened => "opened",
            Work::Secured => "secured",
            Work::Bytes => "bytes",
            Work::Sent => "sent",
            Work::Eof => "eof",
            Work::Closed => "closed",
            Work::Disk => "disk",
            Work::Mail => "mail",
            Work::Tick => "tick",
            Work::Tls => "tls",
            Work::Ring => "ring",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_stand_at_their_own_index_and_have_names_of_their_own() {
        assert!(Work::ALL.iter().enumerate().all(|(n, work)| *work as usize == n));
        let names: std::collections::BTreeSet<_> = Work::ALL.iter().map(|w| w.name()).collect();
        assert_eq!(names.len(), Work::ALL.len());
    }
}
