//! Frames in and out of order, cut anywhere, and what is no frame at all.

use proptest::prelude::*;
use ron_codec::oap::limits::{FRAME_LEN_MAX, OAP_INFLIGHT_MAX, REQUEST_LEN_MAX};
use ron_codec::oap::{APP_HELLO, APP_MAILBOX, Hello, parse_answer};
use ron_io::stats::Rejected;

use super::*;
use crate::limits::{LINGER_LEAST_NS, LINGER_LEN_MAX, OAP_REFUSED_MAX, OAP_SHORT_LEN_MAX};

fn bad() -> (u16, String) {
    (400, "bad_request".into())
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Some answers of a connection, by the client's numbers.
fn by_corr(frames: &[Frame]) -> BTreeMap<u64, Vec<Frame>> {
    let mut all = BTreeMap::<u64, Vec<Frame>>::new();
    for frame in frames {
        all.entry(frame.head.corr_id).or_default().push(frame.clone());
    }
    all
}

#[test]
fn hello_is_answered_with_either_flag() {
    // OAP/1 §5.1
    for flags in [0, 1, Flags::REQ.bits() | 8 | 16] {
        let mut rig = Rig::new();
        let flags = Flags::from_bits(flags);
        let head = FrameHeader { flags, corr_id: 7, tenant_id: 5, ..Default::default() };
        let cap: &[u8] = if flags.contains(Flags::START) { b"cap" } else { b"" };
        rig.bytes(&raw(&head, cap, b""));
        let frame = rig.frame();
        let want = FrameHeader { flags: Flags::RESP | Flags::END, ..head };
        assert_eq!(FrameHeader { payload_len: 0, ..frame.head }, want);
        let hello: Hello = parse_answer(&frame.payload).unwrap();
        assert_eq!(hello.server_version, rig.config.server);
        assert_eq!((hello.max_frame, hello.max_inflight), (1 << 20, OAP_INFLIGHT_MAX));
        assert_eq!((rig.counted(Op::Hello, 0), rig.open()), (1, 0));
    }
}

#[test]
fn hello_with_a_payload_is_refused() {
    let mut rig = Rig::new();
    let head = FrameHeader { corr_id: 7, app_proto_id: APP_HELLO, ..Default::default() };
    rig.bytes(&raw(&head, b"", b"hi"));
    assert_eq!(rig.frame().error(), bad());
    rig.bytes(&raw(&head, b"", b""));
    assert_eq!(rig.frame().head.code, 0);
}

#[test]
fn cuts_mean_nothing() {
    // OAP/1 §3.4
    let object = sample(GROUP_LEN + 9, 3);
    let fresh = sample(300, 4);
    let script = [
        raw(&FrameHeader { corr_id: 1, ..Default::default() }, b"", b""),
        get(2, Address::of(&object), r#","offset":65000"#),
        put(3, &fresh, Some(Address::of(&fresh)), 130),
        has(4, Address::of(&object)),
        frame(Flags::REQ, 5, b"nobody's"),
        frame(START, 6, b"not json"),
        get(7, Address::of(b"none"), ""),
        put(8, b"", None, 1),
    ]
    .concat();
    let whole = {
        let mut rig = Rig::new();
        rig.store(&object);
        rig.bytes(&script);
        rig.run();
        assert!(rig.objects.contains_key(&Address::of(&fresh)));
        by_corr(&rig.frames())
    };
    assert_eq!(whole.len(), 8);
    for cut in 1..script.len() {
        let mut rig = Rig::new();
        rig.store(&object);
        rig.bytes(&script[..cut]);
        rig.bytes(&script[cut..]);
        rig.run();
        assert!(by_corr(&rig.frames()) == whole, "cut at {cut}");
        assert!(rig.ends.is_empty());
    }
    let mut rig = Rig::new();
    rig.store(&object);
    for byte in script.chunks(1) {
        rig.bytes(byte);
    }
    rig.run();
    assert!(by_corr(&rig.frames()) == whole, "byte by byte");
}

#[test]
fn what_is_no_frame_is_answered_once() {
    // OAP/1 §3.5
    for (hex, corr) in [
        ("200000000000000000000000000000000000000000000000000000000000000000000000", 0),
        ("01001000", 0),
        ("2100000002", 0),
        (
            concat!(
                "2700000001010000000103",
                "00000000000000000000000000000000",
                "04000100000000000000616263647b7d"
            ),
            1,
        ),
        ("230000000109000000010300000000000000000000000000000000090001000000000000007b7d", 1),
    ] {
        let mut rig = Rig::new();
        let address = rig.store(&sample(9 * GROUP_LEN, 1));
        rig.bytes(&get(5, address, ""));
        rig.bytes(&unhex(hex));
        let frame = rig.frame();
        assert_eq!(frame.error(), bad());
        assert_eq!(frame.head.corr_id, corr);
        assert_eq!((rig.ends.as_slice(), rig.open()), (&["finish"][..], 0));
        assert_eq!(rig.stats.rejected(Rejected::Protocol), 1);
        // What follows is dropped, and so are answers that come late.
        rig.bytes(&get(6, address, ""));
        rig.run();
        assert!(rig.frames().is_empty());
        rig.bytes(&vec![0; 2 * LINGER_LEN_MAX]);
        assert_eq!(rig.ends, ["finish"], "the error has not arrived yet");
        rig.pass(LINGER_LEAST_NS);
        rig.bytes(&[0]);
        assert_eq!(rig.ends, ["finish", "abort"]);
        assert_eq!(rig.deadline(), None);
    }
}

#[test]
fn what_is_not_served_is_refused_on_its_own_stream() {
    // OAP/1 §3.6, OAP/1 §3.7, OAP/1 §3.9, OAP/1 §8.1
    let has_json = format!(r#"{{"op":"has","addr":"{}"}}"#, Address::of(b""));
    let head = FrameHeader { app_proto_id: APP_STORAGE, corr_id: 11, ..Default::default() };
    for (flags, app, payload) in [
        (START | Flags::RESP, APP_STORAGE, has_json.as_str()),
        (START | Flags::EVENT, APP_STORAGE, &has_json),
        (START | Flags::COMP, APP_STORAGE, &has_json),
        (Flags::START, APP_STORAGE, &has_json),
        (START, APP_MAILBOX, &has_json),
        (START, 0x7777, &has_json),
        (START, APP_STORAGE, r#"{"op":"burn"}"#),
        (START, APP_STORAGE, r#"{"op":"has"}"#),
        (START, APP_STORAGE, ""),
        (Flags::REQ, APP_STORAGE, "data"),
        (Flags::REQ, APP_STORAGE, ""),
        (Flags::REQ | Flags::END, APP_STORAGE, ""),
    ] {
        let mut rig = Rig::new();
        let bytes = raw(&FrameHeader { flags, app_proto_id: app, ..head }, b"", payload.as_bytes());
        rig.bytes(&bytes);
        let frame = rig.frame();
        assert_eq!(frame.error(), bad(), "{flags:?} {app} {payload}");
        assert_eq!((frame.head.corr_id, frame.head.app_proto_id), (11, app));
        assert_eq!(rig.counted(Op::Other, 400), 1);
        rig.bytes(&has(11, Address::of(b"")));
        rig.run();
        assert_eq!(rig.frame().text(), r#"{"has":false,"size":0}"#);
        assert!(rig.ends.is_empty());
    }
}

#[test]
fn long_requests_are_refused_unread() {
    // OAP/1 §6.1
    let padded = |len: usize| {
        let json = format!(r#"{{"op":"has","addr":"{}"}}"#, Address::of(b""));
        format!("{json}{}", " ".repeat(len - json.len())).into_bytes()
    };
    let mut rig = Rig::new();
    rig.bytes(&frame(START, 1, &padded(REQUEST_LEN_MAX)));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
    let long = frame(START, 1, &padded(REQUEST_LEN_MAX + 1));
    let (head, rest) = long.split_at(37);
    rig.bytes(head);
    assert_eq!(rig.frame().error(), (413, "too_large".into()));
    rig.bytes(rest);
    assert!(rig.frames().is_empty());
    let longest = FRAME_LEN_MAX - 33;
    rig.bytes(&frame(Flags::REQ, 2, &vec![b' '; longest]));
    assert_eq!(rig.frame().error(), bad());
}

#[test]
fn start_on_an_open_stream_ends_it() {
    // OAP/1 §3.9
    let mut rig = Rig::new();
    let address = rig.store(&sample(9, 1));
    rig.bytes(&get(1, address, ""));
    rig.bytes(&has(1, address));
    let frame = rig.frame();
    assert_eq!(frame.error(), bad());
    assert_eq!((rig.open(), rig.counted(Op::Get, 400)), (0, 1));
    rig.run();
    assert!(rig.frames().is_empty(), "the answer of the store has no stream");
    rig.bytes(&has(1, address));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
}

#[test]
fn one_stream_more_than_the_most_is_refused() {
    // OAP/1 §3.9
    let mut rig = Rig::new();
    let address = rig.store(b"x");
    for corr in 0..u64::from(OAP_INFLIGHT_MAX) {
        rig.bytes(&get(corr, address, ""));
    }
    assert_eq!(rig.open(), u64::from(OAP_INFLIGHT_MAX));
    rig.bytes(&get(64, address, ""));
    let frame = rig.frame();
    assert_eq!((frame.error(), frame.head.corr_id), ((429, "over_quota".into()), 64));
    // So is a put, and its bytes are dropped without another word. OAP/1 §3.10
    rig.bytes(&put(65, b"some bytes", None, 3));
    assert_eq!(rig.frame().error(), (429, "over_quota".into()));
    assert!(rig.answer_one());
    rig.frame();
    rig.bytes(&get(64, address, ""));
    rig.run();
    assert_eq!(rig.frames().len(), 64);
    assert_eq!((rig.open(), rig.counted(Op::Get, 0), rig.counted(Op::Put, 429)), (0, 65, 1));
}

#[test]
fn a_peer_that_reads_no_answers_is_not_read() {
    let hello = raw(&FrameHeader::default(), b"", b"");
    let mut rig = Rig::new();
    let many = hello.repeat(16);
    let mut told = 0;
    while rig.ends.is_empty() {
        rig.bytes(&many);
        told += 16;
        assert!(rig.unsent < OAP_SHORT_LEN_MAX + 1024);
        assert!(told < 10_000);
    }
    assert_eq!(rig.ends, ["pause"]);
    // These were on their way.
    rig.bytes(&many);
    told += 16;
    rig.sent();
    assert_eq!(rig.ends, ["pause", "resume"]);
    rig.run();
    assert_eq!(rig.frames().len(), told);
}

#[test]
fn refused_puts_are_remembered_up_to_a_limit() {
    let mut rig = Rig::with(REMOTE, false, |_| {});
    let many = OAP_REFUSED_MAX as u64 + 1;
    for corr in 0..many {
        rig.bytes(&put_start(corr, 9, None));
    }
    assert_eq!(rig.frames().len() as u64, many);
    rig.sent();
    for corr in 1..many {
        rig.bytes(&frame(Flags::REQ, corr, b"data"));
    }
    assert!(rig.frames().is_empty());
    rig.bytes(&frame(Flags::REQ, 0, b"data"));
    assert_eq!(rig.frame().error(), bad());
    // END forgets: what comes after it is out of order.
    rig.bytes(&frame(Flags::REQ | Flags::END, 1, b"data"));
    assert!(rig.frames().is_empty());
    rig.bytes(&frame(Flags::REQ, 1, b"data"));
    assert_eq!(rig.frame().error(), bad());
}

/// A frame that is often nearly right.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        Just(format!(r#"{{"op":"get","addr":"{}"}}"#, Address::of(&sample(70_000, 1)))),
        Just(format!(r#"{{"op":"has","addr":"{}"}}"#, Address::of(b"no"))),
        Just(r#"{"op":"put","len":5}"#.to_string()),
        Just(r#"{"op":"put","len":0}"#.to_string()),
        Just(r#"{"credit":70000}"#.to_string()),
        "[a-z]{0,7}",
    ];
    let flags = prop_oneof![4 => Just(9u16), 4 => Just(1), 3 => Just(17), 1 => 0..256u16];
    let app = prop_oneof![9 => Just(APP_STORAGE), 1 => any::<u16>(), 1 => Just(APP_HELLO)];
    (flags, app, 0..4u64, payload).prop_map(|(flags, app_proto_id, corr_id, payload)| {
        let flags = Flags::from_bits(flags);
        let head = FrameHeader { flags, app_proto_id, corr_id, ..Default::default() };
        raw(&head, b"", payload.as_bytes())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_frames_break_the_session(
        sent in prop::collection::vec((any_frame(), any::<bool>(), 0..9usize), 1..40),
        garbage: Vec<u8>,
    ) {
        let mut rig = Rig::new();
        rig.store(&sample(70_000, 1));
        for (frame, run, cut) in sent {
            let cut = cut.min(frame.len());
            rig.bytes(&frame[..cut]);
            rig.bytes(&frame[cut..]);
            if run {
                rig.run();
            }
        }
        rig.run();
        // Every stream that was answered was answered to its end.
        let mut open = std::collections::BTreeSet::new();
        for frame in rig.frames() {
            if frame.has(Flags::START) {
                prop_assert!(open.insert(frame.head.corr_id));
            }
            if frame.has(Flags::END) {
                open.remove(&frame.head.corr_id);
            }
        }
        prop_assert!(open.is_empty());
        prop_assert!(rig.ends.is_empty());
        rig.bytes(&garbage);
        rig.run();
        rig.tell(|session, cx| session.on_closed(cx));
        prop_assert_eq!(rig.open(), 0);
    }
}

#[test]
fn frames_of_other_applications_never_end_a_stream() {
    // OAP/1 §5.2
    for app_proto_id in [APP_HELLO, 0x7777] {
        let mut rig = Rig::new();
        let address = rig.store(&sample(3 * GROUP_LEN, 1));
        rig.bytes(&get(7, address, ""));
        let head = FrameHeader { corr_id: 7, app_proto_id, ..Default::default() };
        rig.bytes(&raw(&head, b"", b"hi"));
        let refused = rig.frame();
        assert_eq!((refused.error(), refused.head.app_proto_id), (bad(), app_proto_id));
        assert_eq!(rig.open(), 1, "the get goes on");
        rig.run();
        let frames = rig.frames();
        let len: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        assert_eq!((len, rig.open()), (3 * GROUP_LEN, 0));
        assert!(frames.iter().all(|frame| frame.head.code == 0));
    }
}
