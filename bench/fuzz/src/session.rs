//! Whole sessions: a shard with a disk in memory, and one connection whose bytes are the input.
//!
//! The shard lives through many inputs, as a node does. What must hold for each: the shard does
//! not panic, its answers are well-formed, the connection ends within its deadlines once its peer
//! has ended, and nothing that it held is held afterwards.

use std::cell::RefCell;

use ron_codec::oap::{Deframer, Flags, Piece};

use super::{
    Cuts,
    world::{HTTP, OAP, World},
};

/// Inputs until another shard takes over: what was stored is forgotten then.
const RUNS_MAX: u32 = 256;

/// Longest object that is taken: a few groups.
const OBJECT_LEN_MAX: u64 = 300 * 1024;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// An HTTP connection. Without writes, its answers are the same however the bytes are cut.
pub fn http(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let writes = |name: &[u8]| stream.windows(name.len()).any(|some| some == name);
    with_world(|world| {
        let cut = statuses(&world.run(HTTP, cuts, stream));
        if !writes(b"PUT") && !writes(b"DELETE") {
            let whole = statuses(&world.run(HTTP, Cuts::WHOLE, stream));
            assert_eq!(cut, whole, "cut and whole are answered alike");
        }
    });
}

/// An OAP connection.
pub fn oap(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let out = with_world(|world| world.run(OAP, cuts, stream));
    let mut rest = &out[..];
    let mut deframer = Deframer::new();
    while let Some(piece) = deframer.next(&mut rest).expect("the node's frames are well-formed") {
        if let Piece::Head(head) = piece {
            assert!(head.flags.contains(Flags::RESP) && head.cap_len == 0, "{head:?}");
            assert!(!head.flags.contains(Flags::REQ), "{head:?}");
        }
    }
}

/// The classes of the statuses of final answers. Which error is found first may depend on where
/// the bytes were cut; that there is one does not.
fn statuses(out: &[u8]) -> Vec<u8> {
    const START: &[u8] = b"HTTP/1.1 ";
    assert!(out.is_empty() || out.starts_with(START), "{:?}", String::from_utf8_lossy(out));
    let found = (0..out.len()).filter(|at| out[*at..].starts_with(START));
    found.filter_map(|at| out.get(at + START.len()).copied()).filter(|c| *c != b'1').collect()
}

fn with_world<T>(run: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|place| {
        // A world that a panic was seen in is not used again.
        let fresh = |world: &World| world.runs() < RUNS_MAX;
        let mut world = place.take().filter(fresh).unwrap_or_else(stored);
        let result = run(&mut world);
        world.expect_nothing_held();
        assert_eq!(world.reason(), None, "the shard stops");
        *place = Some(world);
        result
    })
}

/// A world with something to ask for: `hello` and an object of three groups of zeros.
fn stored() -> World {
    let mut world = World::new(OBJECT_LEN_MAX);
    for body in [b"hello".to_vec(), vec![0; 150_000]] {
        let head = format!(
            "PUT /o/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let out = world.run(HTTP, Cuts::WHOLE, &[head.as_bytes(), &body].concat());
        assert!(out.starts_with(b"HTTP/1.1 201"), "{:?}", String::from_utf8_lossy(&out));
    }
    world
}
