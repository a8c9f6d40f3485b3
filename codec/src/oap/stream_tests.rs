//! The deframer against a naive twin that has the whole stream before it, and against the golden
//! vectors.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::limits::{FRAME_FIXED_LEN, FRAME_LEN_MAX};
use super::twin::{Frame, Outcome, deframe, parse_whole};
use super::*;

/// Cuts `stream` at `cuts`, each taken modulo its length.
fn slices<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect()
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        append_frame(&frame.head, &frame.cap, &frame.payload, &mut out).unwrap();
    }
    out
}

prop_compose! {
    fn any_frame()(
        bits: u8,
        code: u16,
        app_proto_id in prop_oneof![Just(0), Just(0x0201), Just(0x0301), any::<u16>()],
        tenant_id: u128,
        corr_id: u64,
        cap in prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..80)],
        payload in vec(any::<u8>(), 0..200),
    ) -> Frame {
        let mut flags = Flags::from_bits(bits.into());
        if !cap.is_empty() {
            flags = flags | Flags::START;
        }
        let (cap_len, payload_len) = (cap.len() as u16, payload.len() as u32);
        let head =
            FrameHeader { flags, code, app_proto_id, tenant_id, corr_id, cap_len, payload_len };
        Frame { head, cap, payload }
    }
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        frames in vec(any_frame(), 0..6),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        // OAP/1 §3.4
        let stream = encode(&frames);
        let want = Outcome { frames, ..Outcome::default() };
        prop_assert_eq!(&deframe(slices(&stream, &cuts)), &want);
        prop_assert_eq!(&deframe(stream.chunks(1)), &want);
        prop_assert_eq!(&deframe([&stream[..]]), &want);
        prop_assert_eq!(&parse_whole(&stream), &want);
    }

    #[test]
    fn broken_streams_end_as_the_twin_says(
        frames in vec(any_frame(), 1..4),
        spoil in vec((any::<usize>(), any::<u8>()), 0..3),
        header_at in 0..37usize,
        header_byte: u8,
        end: usize,
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let mut stream = encode(&frames);
        for (at, byte) in spoil {
            let at = at % stream.len();
            stream[at] = byte;
        }
        // One byte of the first header for certain, as there the errors are.
        stream[header_at] = header_byte;
        stream.truncate(end % (stream.len() + 1));
        let want = parse_whole(&stream);
        prop_assert_eq!(&deframe(slices(&stream, &cuts)), &want);
        prop_assert_eq!(&deframe(stream.chunks(1)), &want);
    }

    #[test]
    fn noise_is_judged_as_the_twin_judges_it(
        mut noise in vec(any::<u8>(), 0..200),
        cuts in vec(any::<usize>(), 0..5),
        plausible: bool,
    ) {
        if plausible && noise.len() > 4 {
            noise[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        prop_assert_eq!(deframe(slices(&noise, &cuts)), parse_whole(&noise));
    }
}

#[test]
fn payload_is_lent_out_of_the_input() {
    let mut stream = Vec::new();
    append_frame(&FrameHeader::default(), b"", b"payload", &mut stream).unwrap();
    let mut input = &stream[..];
    let mut deframer = Deframer::new();
    assert!(matches!(deframer.next(&mut input), Ok(Some(Piece::Head(_)))));
    let Ok(Some(Piece::Payload(bytes))) = deframer.next(&mut input) else { panic!() };
    assert_eq!(bytes.as_ptr_range(), stream[HEADER_LEN..].as_ptr_range());
    assert_eq!(deframer.next(&mut input), Ok(Some(Piece::End)));
    assert_eq!(deframer.next(&mut input), Ok(None));
}

#[test]
fn the_longest_frame_passes() {
    // OAP/1 §2.2
    let payload = vec![9; FRAME_LEN_MAX - FRAME_FIXED_LEN];
    let mut stream = Vec::new();
    append_frame(&FrameHeader::default(), b"", &payload, &mut stream).unwrap();
    let outcome = deframe(stream.chunks(64 * 1024));
    assert_eq!(outcome.error, None);
    assert_eq!(outcome.frames[0].payload, payload);
}

#[test]
fn errors_wait_for_nothing() {
    // OAP/1 §3.1
    let mut deframer = Deframer::new();
    assert_eq!(deframer.next(&mut &[1, 0, 0x10][..]), Ok(None));
    assert_eq!(deframer.next(&mut &[0][..]), Err(FrameError::Len { len: 0x10_0001 }));
    // OAP/1 §3.2
    let mut deframer = Deframer::new();
    assert_eq!(deframer.next(&mut &[33, 0, 0, 0][..]), Ok(None));
    assert_eq!(deframer.next(&mut &[0][..]), Err(FrameError::Version { version: 0 }));
}

#[derive(Deserialize)]
struct Vectors {
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    hex: String,
    flags: u16,
    code: u16,
    app: u16,
    tenant: String,
    corr: u64,
    cap: String,
    payload: String,
}

#[derive(Deserialize)]
struct Invalid {
    name: String,
    hex: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../vectors/oap1.json")).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    assert!(digits.remainder().is_empty());
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn golden_frames_are_read_and_written_exactly() {
    let valid = vectors().valid;
    assert!(valid.len() >= 7);
    for vector in valid {
        let (bytes, cap) = (unhex(&vector.hex), unhex(&vector.cap));
        let payload = unhex(&vector.payload);
        let head = FrameHeader {
            flags: Flags::from_bits(vector.flags),
            code: vector.code,
            app_proto_id: vector.app,
            tenant_id: vector.tenant.parse().unwrap(),
            corr_id: vector.corr,
            cap_len: cap.len() as u16,
            payload_len: payload.len() as u32,
        };
        assert_eq!(encode_header(&head).unwrap(), bytes[..HEADER_LEN], "{}", vector.name);
        let frame = Frame { head, cap, payload };
        let frames = vec![frame];
        assert_eq!(encode(&frames), bytes, "{}", vector.name);
        let want = Outcome { frames, ..Outcome::default() };
        assert_eq!(deframe([&bytes[..]]), want, "{}", vector.name);
        assert_eq!(deframe(bytes.chunks(1)), want, "{}", vector.name);
    }
}

#[test]
fn golden_requests_are_understood() {
    let valid = vectors().valid;
    let get = valid.iter().find(|vector| vector.name == "storage_get_by_path").unwrap();
    let get = StorageRequest::parse(&unhex(&get.payload)).unwrap();
    let path = "/tiles/12/654/1583.webp".to_owned();
    let what = GetWhat::ByPath(path);
    let want = GetRequest { what, offset: 0, len: None, meta: false };
    assert_eq!(get, StorageRequest::Get(want));
}

#[test]
fn golden_violations_are_refused_for_their_reason() {
    let invalid = vectors().invalid;
    assert!(invalid.len() >= 5);
    for Invalid { name, hex } in invalid {
        let bytes = unhex(&hex);
        for chunk in [bytes.len(), 1] {
            let error = deframe(bytes.chunks(chunk)).error;
            let right = match name.as_str() {
                "len_below_header" => matches!(error, Some(FrameError::Len { len: 32 })),
                "len_over_max_frame" => {
                    bytes.len() == 4 && matches!(error, Some(FrameError::Len { len: 0x10_0001 }))
                }
                "version_2" => matches!(error, Some(FrameError::Version { version: 2 })),
                "cap_without_start" => {
                    matches!(error, Some(FrameError::CapWithoutStart { head }) if head.cap_len == 4)
                }
                "cap_len_beyond_frame" => {
                    matches!(error, Some(FrameError::CapTooLong { len: 9, space: 2, .. }))
                }
                _ => panic!("no expectation for {name}"),
            };
            assert!(right, "{name}: {error:?}");
        }
    }
}
