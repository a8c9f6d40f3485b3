use std::os::fd::AsRawFd;

use super::*;
use proptest::prelude::*;

#[test]
fn classes_hold_their_lengths() {
    for (len, class) in [
        (0, Class::Page),
        (1, Class::Page),
        (4096, Class::Page),
        (4097, Class::Quarter),
        (16384, Class::Quarter),
        (16385, Class::Whole),
        (65536, Class::Whole),
    ] {
        assert_eq!(Class::holding(len), class, "{len}");
        assert!(len <= class.bytes());
    }
}

#[test]
fn memory_runs_out_and_comes_back() {
    let mut arena = Arena::new(1).unwrap();
    let pages: Vec<_> = (0..16).map(|_| arena.alloc(4096).unwrap()).collect();
    assert!(arena.alloc(1).is_none());
    drop(pages);
    let whole = arena.alloc(BLOCK_LEN).unwrap().freeze(BLOCK_LEN);
    assert!(arena.alloc(1).is_none());
    let again = whole.clone();
    drop(whole);
    assert!(arena.alloc(1).is_none(), "a handle is left");
    std::thread::spawn(move || drop(again)).join().unwrap();
    assert!(arena.alloc(1).is_some());
}

#[test]
fn a_lent_block_is_renewed_and_a_copied_one_is_not() {
    let mut arena = Arena::new(1).unwrap();
    let fill = |arena: &mut Arena, byte: u8| {
        let mut block = arena.alloc(BLOCK_LEN).unwrap();
        let before = block.bytes_mut()[7];
        block.bytes_mut().fill(byte);
        (before, block.freeze(BLOCK_LEN))
    };
    let (_, block) = fill(&mut arena, 1);
    drop(block);
    let (before, block) = fill(&mut arena, 2);
    assert_eq!(before, 1, "memory that was only copied from is recycled as it is");
    block.lend();
    drop(block);
    let (before, _block) = fill(&mut arena, 3);
    assert_eq!(before, 0, "lent memory comes back fresh");
}

#[test]
fn a_neighbour_is_found() {
    let mut arena = Arena::new(8).unwrap();
    let first = arena.alloc(BLOCK_LEN).unwrap().freeze(BLOCK_LEN);
    let _between = arena.alloc(BLOCK_LEN).unwrap();
    let third = arena.alloc_after(BLOCK_LEN, Some(&first)).unwrap().freeze(BLOCK_LEN);
    assert_eq!(third.page() as usize, 2 * BLOCK_PAGES, "the next free one behind it");
}

/// Sends a block by reference over loopback and leaves it queued, unread.
fn queue_by_reference(block: &Block) -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    let mut pipe = crate::pipe::Pipe::new().unwrap();
    let sent = pipe.send(sender.as_raw_fd(), &[block.lend()]).unwrap();
    assert_eq!(sent, crate::pipe::Sent { len: block.len(), full: false });
    reader
}

fn read_queued(mut reader: std::net::TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_LEN];
    std::io::Read::read_exact(&mut reader, &mut bytes).unwrap();
    bytes
}

fn filled(arena: &mut Arena, byte: u8) -> Block {
    let mut block = arena.alloc(BLOCK_LEN).unwrap();
    block.bytes_mut().fill(byte);
    block.freeze(BLOCK_LEN)
}

/// The hazard itself: a page that is written while it is queued is delivered changed.
#[test]
fn a_queued_page_that_is_overwritten_is_delivered_changed() {
    let mut arena = Arena::new(1).unwrap();
    let block = filled(&mut arena, 1);
    let reader = queue_by_reference(&block);
    // SAFETY: not sound beside `block`, whose bytes must not change; this is the violation that
    // the test is about, and `block` is not read again.
    unsafe { std::ptr::write_bytes(block.lend().as_ptr().cast_mut(), 2, BLOCK_LEN) };
    assert!(read_queued(reader).contains(&2), "the kernel copied: the rule may be needless");
}

/// The rule: evicted and refilled through the arena, what was queued arrives as it was.
#[test]
fn a_queued_block_that_is_evicted_and_refilled_arrives_unchanged() {
    let mut arena = Arena::new(1).unwrap();
    let block = filled(&mut arena, 1);
    let (page, reader) = (block.page(), queue_by_reference(&block));
    drop(block);
    let refilled = filled(&mut arena, 2);
    assert_eq!(refilled.page(), page, "the very same memory is used again");
    assert!(refilled.bytes().iter().all(|byte| *byte == 2));
    assert!(read_queued(reader).iter().all(|byte| *byte == 1));
}

proptest! {
    /// Whatever is handed out and dropped, pieces never overlap and all memory comes back.
    #[test]
    fn pieces_never_overlap(
        steps in prop::collection::vec(
            (any::<bool>(), 0usize..=BLOCK_LEN, any::<prop::sample::Index>()),
            1..200,
        ),
    ) {
        let mut arena = Arena::new(3).unwrap();
        let mut held: Vec<(BlockMut, u8)> = Vec::new();
        let mut stamp = 0u8;
        for (take, len, which) in steps {
            if take {
                if let Some(mut block) = arena.alloc(len) {
                    stamp = stamp.wrapping_add(1);
                    block.bytes_mut().fill(stamp);
                    held.push((block, stamp));
                }
            } else if !held.is_empty() {
                held.swap_remove(which.index(held.len()));
            }
            for (block, stamp) in &mut held {
                prop_assert!(block.bytes_mut().iter().all(|byte| byte == stamp));
            }
        }
        held.clear();
        arena.collect();
        prop_assert_eq!(arena.free_pages(), arena.total_pages());
    }
}
