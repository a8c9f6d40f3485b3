//! A data directory in which bytes have changed: segments, files of objects and snapshots.
//!
//! An input says what is changed: a byte that chooses, three that are a place, and the bytes that
//! are put there. What must hold: no byte that is not an object's own is served, nothing panics, an
//! object whose record is whole is still there when its place is known, and uploading an object
//! again repairs it for good.

use std::cell::OnceCell;

use ron_codec::limits::RECORD_HEADER_LEN as HEADER_LEN;
use ron_io::sim::End;

use super::{
    store::{CUT, OBJECT_LEN_MAX, Object, get, put, with_objects},
    world::{HTTP, Image, World},
};

const SECOND_NS: u64 = 1_000_000_000;

/// Bytes of a checksum, which ends a record's header.
const CHECKSUM_LEN: usize = 16;

/// Of the objects, those that were deleted again: one in a segment, one in a file.
const DELETED: [usize; 2] = [2, 6];

thread_local! {
    static IMAGE: OnceCell<Image> = const { OnceCell::new() };
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Segment,
    ObjectFile,
    Snapshot,
}

/// Two processes have stored all objects and deleted some; the last has ended in good order.
fn image() -> Image {
    with_objects(|objects| {
        let mut world = World::new(OBJECT_LEN_MAX);
        let (early, late) = objects.split_at(objects.len() / 2);
        for object in early {
            assert_eq!(put(&mut world, object), 201);
        }
        world.pass(10 * SECOND_NS);
        world.end(End::Kill);
        world.boot();
        for object in late {
            assert_eq!(put(&mut world, object), 201);
        }
        for at in DELETED {
            let address = objects[at].address;
            let request = format!("DELETE /o/{address} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let out = world.run(HTTP, super::Cuts::WHOLE, request.as_bytes());
            assert!(out.starts_with(b"HTTP/1.1 204"), "{:?}", String::from_utf8_lossy(&out));
        }
        world.pass(10 * SECOND_NS);
        world.drain();
        world.image()
    })
}

/// Bytes of a data directory have changed.
pub fn damage(input: &[u8]) {
    let mut image = IMAGE.with(|kept| kept.get_or_init(image).clone());
    let (how, rest) = input.split_first().unwrap_or((&0, &[]));
    let (place, bytes) = rest.split_at(rest.len().min(3));
    let place = place.iter().fold(0, |place, byte| place << 8 | usize::from(*byte));
    let what = match how % 4 {
        0 | 3 => What::Segment,
        1 => What::ObjectFile,
        _ => What::Snapshot,
    };
    let (whole, lost) = (how & 4 != 0, how & 16 != 0);
    // No checksum of a snapshot is forged: a failing disk does not do that.
    let forged = how & 8 != 0 && what != What::Snapshot;
    let nth = usize::from(how >> 5);
    change(&mut image, what, nth, |file| {
        if whole {
            *file = bytes.to_vec();
        } else if !file.is_empty() {
            let at = place % file.len();
            let len = bytes.len().min(file.len() - at);
            file[at..at + len].copy_from_slice(&bytes[..len]);
            if forged {
                forge(file, at);
            }
        }
    });
    let same = IMAGE.with(|kept| {
        let kept = kept.get().expect("it was made above");
        kept.files == image.files && kept.snapshots == image.snapshots
    });
    if lost {
        image.snapshots.clear();
    }
    let mut world = World::lay(OBJECT_LEN_MAX, &image);
    world.boot();
    if !world.is_ready() {
        // Records of a newer program are not damage, and nothing else keeps a node from starting.
        let reason = world.reason().expect("it was not asked to stop");
        return assert!(reason.contains("from a newer ron"), "a start is refused: {reason}");
    }
    with_objects(|objects| {
        let trusted = same || (what == What::Snapshot);
        // A snapshot is believed also where the log is shorter than it knows.
        let known = !lost && what != What::Snapshot;
        for (at, object) in objects.iter().enumerate() {
            let gone = DELETED.contains(&at);
            match get(&mut world, object) {
                200 => assert!(!gone || !(trusted || known), "object {at} was deleted"),
                404 => assert!(gone || !(trusted || known), "object {at} is not there"),
                502 | CUT => assert!(!trusted, "object {at} is whole"),
                status => panic!("a GET of object {at} is answered with {status}"),
            }
        }
        if !forged {
            heal(&mut world, objects);
        }
    });
}

/// An upload of a damaged object repairs it, and that lasts.
fn heal(world: &mut World, objects: &[Object]) {
    for (at, object) in objects.iter().enumerate() {
        // One whose damage is not known yet is read by that, and known then.
        let status = put(world, object);
        assert!(matches!(status, 200 | 201), "a PUT of object {at} is answered with {status}");
        if get(world, object) != 200 {
            assert_eq!(put(world, object), 201, "object {at} is damaged and known to be");
            assert_eq!(get(world, object), 200, "object {at} was brought again");
        }
    }
    world.end(End::Power);
    world.boot();
    assert!(world.is_ready(), "a start is refused: {:?}", world.reason());
    for (at, object) in objects.iter().enumerate() {
        assert_eq!(get(world, object), 200, "object {at} was brought again");
    }
}

/// Changes the nth file of a kind.
fn change(image: &mut Image, what: What, nth: usize, with: impl FnOnce(&mut Vec<u8>)) {
    let ending = match what {
        What::Segment => "seg",
        What::ObjectFile => "obj",
        What::Snapshot => "idx",
    };
    let all = image.files.iter_mut().chain(&mut image.snapshots);
    let of_kind = |(path, _): &&mut (std::path::PathBuf, Vec<u8>)| {
        path.extension().is_some_and(|found| found == ending)
    };
    let mut files: Vec<_> = all.filter(of_kind).collect();
    assert!(!files.is_empty(), "the image has no .{ending}");
    let nth = nth % files.len();
    with(&mut files[nth].1);
}

/// Makes the checksum right of what was changed there, if that is where a header is.
fn forge(file: &mut [u8], at: usize) {
    let start = at / HEADER_LEN * HEADER_LEN;
    let Some(header) = file.get_mut(start..start + HEADER_LEN) else { return };
    let (fields, checksum) = header.split_at_mut(HEADER_LEN - CHECKSUM_LEN);
    checksum.copy_from_slice(&blake3::hash(fields).as_bytes()[..CHECKSUM_LEN]);
}
