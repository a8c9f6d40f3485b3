//! What paths of bundles lead to, for those that were asked for lately.
//!
//! An entry of a bundle never changes, but the bundle may be deleted, at another shard: so each
//! answer is good for [`RESOLVED_NS`], and is looked up anew after that. Each has one place, by
//! its hash, and the last one keeps it. So the memory is bounded whatever peers ask for, and a
//! request that finds its answer here allocates nothing.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use ron_codec::{
    address::Address,
    limits::{MANIFEST_PATH_LEN_MAX, MEDIA_TYPE_LEN_MAX, PAYMENT_TEXT_LEN_MAX},
    manifest::{Content, Payment},
};

use crate::limits::{RESOLVED_MAX, RESOLVED_NS};

/// Bytes of memory that the answers of one shard may take.
pub const fn resolved_bill() -> usize {
    let texts = MANIFEST_PATH_LEN_MAX + MEDIA_TYPE_LEN_MAX + 4 * PAYMENT_TEXT_LEN_MAX;
    let arc = 2 * size_of::<usize>() + size_of::<Target>();
    RESOLVED_MAX * (size_of::<Option<Answer>>() + texts + arc)
}

/// The answers of one shard.
#[derive(Debug)]
pub struct Resolved {
    places: Box<[Option<Answer>]>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub content: Content,
    /// The terms of the bundle.
    pub payment: Option<Payment>,
}

impl Target {
    /// Bytes of memory that are kept besides the value itself.
    pub fn heap(&self) -> usize {
        self.content.mime.len() + self.payment.as_ref().map_or(0, Payment::heap)
    }
}

#[derive(Debug)]
struct Answer {
    bundle: Address,
    path: Box<str>,
    target: Arc<Target>,
    until_ns: u64,
}

impl Default for Resolved {
    fn default() -> Self {
        Resolved { places: (0..RESOLVED_MAX).map(|_| None).collect() }
    }
}

impl Resolved {
    /// What the path led to a moment ago.
    pub fn get(&self, bundle: &Address, path: &str, now_ns: u64) -> Option<&Arc<Target>> {
        let answer = self.places[place(bundle, path)].as_ref()?;
        let is_it = answer.bundle == *bundle && *answer.path == *path && now_ns < answer.until_ns;
        is_it.then_some(&answer.target)
    }

    /// Keeps what the path leads to.
    pub fn keep(&mut self, bundle: Address, path: &str, target: Arc<Target>, now_ns: u64) {
        let until_ns = now_ns.saturating_add(RESOLVED_NS);
        let answer = Answer { bundle, path: path.into(), target, until_ns };
        self.places[place(&bundle, path)] = Some(answer);
    }
}

fn place(bundle: &Address, path: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    bundle.as_bytes().hash(&mut hasher);
    path.hash(&mut hasher);
    (hasher.finish() % RESOLVED_MAX as u64) as usize
}

#[cfg(test)]
mod tests {
    use ron_codec::manifest::Stored;

    use super::*;

    fn content(text: &str) -> Arc<Target> {
        let identity = Stored { address: Address::of(text.as_bytes()), bytes: 1 };
        let content = Content { identity, mime: "text/plain".into(), br: None, zstd: None };
        Arc::new(Target { content, payment: None })
    }

    #[test]
    fn an_answer_is_found_until_it_is_old_or_its_place_is_taken() {
        let mut resolved = Resolved::default();
        let (one, other) = (Address::of(b"one"), Address::of(b"other"));
        resolved.keep(one, "a", content("a"), 7);
        assert_eq!(resolved.get(&one, "a", 7 + RESOLVED_NS - 1), Some(&content("a")));
        assert_eq!(resolved.get(&one, "a", 7 + RESOLVED_NS), None);
        assert_eq!(resolved.get(&one, "b", 7), None);
        assert_eq!(resolved.get(&other, "a", 7), None);
        let same = |n: &u64| place(&one, &n.to_string()) == place(&one, "a");
        let path = (0..).find(same).unwrap().to_string();
        resolved.keep(one, &path, content("b"), 7);
        assert_eq!(resolved.get(&one, "a", 8), None);
        assert_eq!(resolved.get(&one, &path, 8), Some(&content("b")));
    }
}
