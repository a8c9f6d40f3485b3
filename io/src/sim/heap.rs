//! An allocator that knows whose memory it is, so that a simulation can measure what the node under
//! test holds, without asking the node.
//!
//! ```text
//!   │ owner │ the bytes asked for │
//!           ▲ what the caller gets
//! ```
//!
//! Whatever is allocated inside [`as_node`] belongs to the node until it is freed, wherever that
//! happens. Runs on different threads are counted apart.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The allocator. A test program that measures declares it as its `#[global_allocator]`; without
/// that, nothing is counted.
#[derive(Debug)]
pub struct Heap;

/// Least bytes in front of each allocation: they hold the owner and keep the alignment.
const HEAD_LEN: usize = 16;

const WORLD: usize = 0;
const NODE: usize = 1;

thread_local! {
    static OWNER: Cell<usize> = const { Cell::new(WORLD) };
    static NODE_LEN: Cell<isize> = const { Cell::new(0) };
}

/// Runs `what`; memory it allocates is the node's.
pub fn as_node<T>(what: impl FnOnce() -> T) -> T {
    owned_by(NODE, what)
}

/// Runs `what` in the midst of the node; memory it allocates is not the node's.
pub fn as_world<T>(what: impl FnOnce() -> T) -> T {
    owned_by(WORLD, what)
}

fn owned_by<T>(owner: usize, what: impl FnOnce() -> T) -> T {
    /// Gives the ownership back also when `what` panics.
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            OWNER.with(|owner| owner.set(self.0));
        }
    }
    let _restore = Restore(OWNER.with(|before| before.replace(owner)));
    what()
}

/// Bytes that this thread allocated for nodes and that were not freed on it. May be negative for a
/// thread that freed what others had allocated.
pub fn node_len() -> isize {
    NODE_LEN.with(Cell::get)
}

fn count(owner: usize, bytes: isize) {
    if owner == NODE {
        // A thread that ends frees things when its own counter may be gone already.
        let _ = NODE_LEN.try_with(|len| len.set(len.get() + bytes));
    }
}

/// The layout with space for the head, and how long the head is.
fn with_head(layout: Layout) -> Option<(Layout, usize)> {
    let head = HEAD_LEN.max(layout.align());
    let size = layout.size().checked_add(head)?;
    Some((Layout::from_size_align(size, head).ok()?, head))
}

impl Heap {
    /// Notes the owner in front of fresh memory. Null stays null.
    fn own(start: *mut u8, head: usize, len: usize) -> *mut u8 {
        if start.is_null() {
            return start;
        }
        let owner = OWNER.try_with(Cell::get).unwrap_or(WORLD);
        count(owner, len as isize);
        // SAFETY: the memory is at least `head` long, which is 16 or more, and aligned to `head`;
        // the word lies right in front of what the caller gets.
        unsafe {
            let bytes = start.add(head);
            bytes.cast::<usize>().sub(1).write(owner);
            bytes
        }
    }
}

// SAFETY: every allocation is one of the system's, longer by a head that keeps the alignment; the
// same layout, head included, is computed again when it is freed or changed.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((whole, head)) = with_head(layout) else { return std::ptr::null_mut() };
        // SAFETY: the layout is not empty: it has a head.
        Heap::own(unsafe { System.alloc(whole) }, head, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((whole, head)) = with_head(layout) else { return std::ptr::null_mut() };
        // SAFETY: as in `alloc`.
        Heap::own(unsafe { System.alloc_zeroed(whole) }, head, layout.size())
    }

    unsafe fn dealloc(&self, bytes: *mut u8, layout: Layout) {
        let Some((whole, head)) = with_head(layout) else { return };
        // SAFETY: `own` made this pointer, `head` behind the start of an allocation of this very
        // layout, and wrote the word in front of it.
        unsafe {
            count(bytes.cast::<usize>().sub(1).read(), -(layout.size() as isize));
            System.dealloc(bytes.sub(head), whole);
        }
    }

    unsafe fn realloc(&self, bytes: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        let Some((whole, head)) = with_head(layout) else { return std::ptr::null_mut() };
        let Some(new_whole) = new_len.checked_add(head) else { return std::ptr::null_mut() };
        // SAFETY: as in `dealloc`; the head moves along with the bytes, and with it the owner.
        unsafe {
            let owner = bytes.cast::<usize>().sub(1).read();
            let moved = System.realloc(bytes.sub(head), whole, new_whole);
            if moved.is_null() {
                return moved;
            }
            count(owner, new_len as isize - layout.size() as isize);
            moved.add(head)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory by this allocator, filled, and checked and freed when dropped.
    struct Piece {
        bytes: *mut u8,
        layout: Layout,
    }

    impl Piece {
        fn new(len: usize, align: usize) -> Piece {
            let layout = Layout::from_size_align(len, align).unwrap();
            // SAFETY: the layout is not empty.
            let bytes = unsafe { Heap.alloc(layout) };
            assert!(!bytes.is_null() && (bytes as usize).is_multiple_of(align));
            // SAFETY: it is that long.
            unsafe { bytes.write_bytes(7, len) };
            Piece { bytes, layout }
        }

        fn resize(&mut self, len: usize) {
            // SAFETY: it was allocated so.
            self.bytes = unsafe { Heap.realloc(self.bytes, self.layout, len) };
            self.layout = Layout::from_size_align(len, self.layout.align()).unwrap();
            assert!((self.bytes as usize).is_multiple_of(self.layout.align()));
            // SAFETY: at least the shorter of both lengths was filled.
            assert_eq!(unsafe { *self.bytes }, 7);
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            // SAFETY: it was allocated so.
            unsafe { Heap.dealloc(self.bytes, self.layout) };
        }
    }

    #[test]
    fn memory_is_its_owners_until_it_is_freed_wherever_that_is() {
        let before = node_len();
        let others = Piece::new(1000, 8);
        assert_eq!(node_len(), before);
        let mut own = as_node(|| Piece::new(100, 64));
        assert_eq!(node_len() - before, 100);
        own.resize(5000);
        assert_eq!(node_len() - before, 5000, "it grows for its owner, in any node");
        as_node(|| drop(others));
        assert_eq!(node_len() - before, 5000);
        let others = as_node(|| as_world(|| Piece::new(3000, 8)));
        assert_eq!(node_len() - before, 5000, "the world is asked for within the node");
        drop((own, others));
        assert_eq!(node_len(), before);
        let panicked = std::panic::catch_unwind(|| as_node(|| panic!("inside")));
        assert!(panicked.is_err());
        let _others = Piece::new(10, 1);
        assert_eq!(node_len(), before, "a panic does not leave the world the node's");
    }
}
