//! The arena in every order that threads can see each other's steps in.

use super::*;
use loom::thread;

/// Fills the whole arena of one block, once it has all of it again: what was lent is fresh.
fn refill(arena: &mut Arena) {
    let mut again = loop {
        match arena.alloc(BLOCK_LEN) {
            Some(block) => break block,
            None => thread::yield_now(),
        }
    };
    // Fails if a page is lent, and if somebody may still be reading.
    again.bytes_mut()[0] = 2;
}

/// Two holders of a block, on threads of their own, lend it and drop it while the owner waits
/// for the memory.
#[test]
fn what_two_holders_lent_is_renewed_before_it_is_written() {
    loom::model(|| {
        let mut arena = Arena::new(1).unwrap();
        let mut block = arena.alloc(BLOCK_LEN).unwrap();
        block.bytes_mut()[0] = 1;
        let block = block.freeze(BLOCK_LEN);
        let other = block.clone();
        let lender = thread::spawn(move || {
            assert_eq!(other.lend(0..1).bytes(), [1]);
            drop(other);
        });
        assert_eq!(block.bytes()[0], 1);
        drop(block);
        refill(&mut arena);
        lender.join().unwrap();
    });
}

/// Two pieces of a block come back from two threads at once, each lent: neither is lost, and
/// neither mark is.
#[test]
fn pieces_of_one_block_come_back_from_two_threads() {
    loom::model(|| {
        let mut arena = Arena::new(1).unwrap();
        let mut piece = || arena.alloc(2 * PAGE_LEN).unwrap().freeze(1);
        let pieces = [piece(), piece()];
        let holders = pieces.map(|piece| {
            thread::spawn(move || {
                piece.lend(0..1);
                drop(piece);
            })
        });
        // The owner renews one piece while the other is being marked.
        let third = loop {
            arena.collect();
            if arena.free_pages() > BLOCK_PAGES / 2 {
                break arena.alloc(2 * PAGE_LEN).unwrap();
            }
            thread::yield_now();
        };
        drop(third);
        holders.into_iter().for_each(|holder| holder.join().unwrap());
        refill(&mut arena);
    });
}

/// A block that nobody filled is given back by another thread than the one that hands it out.
#[test]
fn memory_that_was_not_filled_comes_back() {
    loom::model(|| {
        let mut arena = Arena::new(1).unwrap();
        let mut filling = arena.alloc(BLOCK_LEN).unwrap();
        let writer = thread::spawn(move || {
            filling.bytes_mut()[0] = 1;
            drop(filling);
        });
        refill(&mut arena);
        writer.join().unwrap();
    });
}
