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
    let (_, offset) = block.lend();
    assert_eq!(offset, 0);
    drop(block);
    let (before, _block) = fill(&mut arena, 3);
    assert_eq!(before, 0, "lent memory comes back fresh");
}

#[test]
fn neighbours_are_found_and_seen() {
    let mut arena = Arena::new(8).unwrap();
    let first = arena.alloc(BLOCK_LEN).unwrap().freeze(BLOCK_LEN);
    let second = arena.alloc_after(BLOCK_LEN, Some(&first)).unwrap().freeze(BLOCK_LEN);
    assert!(first.adjoins(&second) && !second.adjoins(&first));
    let short = arena.alloc_after(BLOCK_LEN, Some(&second)).unwrap().freeze(BLOCK_LEN - 1);
    let after = arena.alloc_after(BLOCK_LEN, Some(&short)).unwrap().freeze(BLOCK_LEN);
    assert!(second.adjoins(&short) && !short.adjoins(&after));
    let mut other = Arena::new(1).unwrap();
    let foreign = other.alloc(BLOCK_LEN).unwrap().freeze(BLOCK_LEN);
    assert!(!after.adjoins(&foreign));
}

#[test]
fn an_arena_knows_its_blocks_and_who_holds_them() {
    let (mut arena, mut other) = (Arena::new(1).unwrap(), Arena::new(1).unwrap());
    let block = arena.alloc(1).unwrap().freeze(1);
    let foreign = other.alloc(1).unwrap().freeze(1);
    assert!(arena.owns(&block) && !arena.owns(&foreign));
    assert!(!arena.is_free(block.page()) && arena.is_free(block.page() + 1));
    let (page, again) = (block.page(), block.clone());
    assert!(block.is_shared() && again.is_shared());
    drop(again);
    assert!(!block.is_shared());
    drop(block);
    assert!(!arena.is_free(page), "nothing is free before it was collected");
    arena.collect();
    assert!(arena.is_free(page));
}

/// Sends a block by reference over loopback and leaves it queued, unread.
fn queue_by_reference(block: &Block) -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    let (memfd, offset) = block.lend();
    let mut offset = offset as libc::off_t;
    // SAFETY: two open descriptors and an offset of our own.
    let sent = unsafe { libc::sendfile(sender.as_raw_fd(), memfd, &mut offset, block.len()) };
    assert_eq!(sent, block.len() as isize);
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
    let (memfd, offset) = block.lend();
    let other = [2u8; BLOCK_LEN];
    // SAFETY: writes from an array of that length into the test's own memfd.
    let wrote =
        unsafe { libc::pwrite(memfd, other.as_ptr().cast(), other.len(), offset as libc::off_t) };
    assert_eq!(wrote, BLOCK_LEN as isize);
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
        steps in prop::collection::vec((any::<bool>(), 0usize..=BLOCK_LEN, any::<prop::sample::Index>()), 1..200),
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
