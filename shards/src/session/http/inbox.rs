//! Bytes of the peer that could not be used when they arrived.

/// Memory that an empty inbox may keep: most connections are idle most of the time, and there are
/// many of them.
const KEPT_LEN_MAX: usize = 4 * 1024;

/// A queue of bytes that is read as one slice. What bounds it is its owner, who pauses the peer.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buf: Vec<u8>,
    /// Bytes at the start of `buf` that were used.
    used: usize,
}

impl Inbox {
    /// The bytes not used yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buf[self.used..]
    }

    pub(super) fn len(&self) -> usize {
        self.buf.len() - self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the queue has.
    pub(super) fn held(&self) -> usize {
        self.buf.capacity()
    }

    /// Keeps more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buf.drain(..self.used);
            self.used = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Forgets the first `len` bytes of the rest.
    pub(super) fn consume(&mut self, len: usize) {
        assert!(len <= self.len(), "{len} bytes of {}", self.len());
        self.used += len;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.buf.clear();
        if self.buf.capacity() > KEPT_LEN_MAX {
            self.buf = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut inbox = Inbox::default();
        inbox.push(b"abc");
        inbox.consume(2);
        assert_eq!(inbox.rest(), b"c");
        inbox.push(b"de");
        assert_eq!((inbox.rest(), inbox.len()), (&b"cde"[..], 3));
        inbox.consume(0);
        inbox.consume(3);
        assert!(inbox.is_empty());
        inbox.push(b"f");
        assert_eq!(inbox.rest(), b"f");
    }

    #[test]
    fn an_empty_inbox_keeps_little_memory() {
        let mut inbox = Inbox::default();
        inbox.push(&[1; KEPT_LEN_MAX]);
        inbox.consume(KEPT_LEN_MAX);
        assert_eq!(inbox.buf.capacity(), KEPT_LEN_MAX);
        inbox.push(&[1; KEPT_LEN_MAX + 1]);
        inbox.consume(KEPT_LEN_MAX + 1);
        assert_eq!(inbox.buf.capacity(), 0);
    }
}
