//! Notes of shards that say the same over and over: the log has the first ones, then one a second.
//!
//! A disk that refuses a write refuses the next one as well, and the shard notes it as often as
//! clients ask. Notes whose words differ are all logged.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use ron_io::stats::Gate;

use crate::limits::NOTES_KEPT;

/// The notes that came last, newest first.
#[derive(Debug)]
pub(crate) struct Notes {
    began: Instant,
    kept: Mutex<VecDeque<Note>>,
}

#[derive(Debug)]
struct Note {
    shard: u16,
    message: String,
    gate: Gate,
}

impl Notes {
    pub(crate) fn new(began: Instant) -> Notes {
        Notes { began, kept: Mutex::default() }
    }

    /// Whether the log is to have this note, and if so, how often the same was noted since the last
    /// one that it has.
    pub(crate) fn admit(&self, shard: u16, message: &str, now: Instant) -> Option<u64> {
        let now_ns = now.saturating_duration_since(self.began).as_nanos();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |note: &Note| note.shard == shard && note.message == message;
        let known = kept.iter().position(is_same).and_then(|at| kept.remove(at));
        let note = known.unwrap_or_else(|| Note {
            shard,
            message: message.to_owned(),
            gate: Gate::default(),
        });
        let unreported = note.gate.admit(u64::try_from(now_ns).unwrap_or(u64::MAX));
        kept.truncate(NOTES_KEPT - 1);
        kept.push_front(note);
        unreported
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_same_note_is_logged_now_and_then_and_others_always() {
        let began = Instant::now();
        let notes = Notes::new(began);
        let logged = |shard, message: &str, now: Instant| -> Vec<u64> {
            (0..1000).filter_map(|_| notes.admit(shard, message, now)).collect()
        };
        assert_eq!(logged(0, "full", began), [0; 20]);
        assert_eq!(logged(1, "full", began), [0; 20], "of another shard");
        let later = began + Duration::from_secs(1);
        assert_eq!(logged(0, "full", later), [980], "and it says how many were not");
        for number in 0..10 * NOTES_KEPT {
            assert_eq!(notes.admit(0, &number.to_string(), later), Some(0));
            assert!(notes.kept.lock().unwrap().len() <= NOTES_KEPT);
        }
    }
}
