//! Puts: bytes kept and bytes refused, and who may write.

use ron_codec::{
    authority::Authority,
    oap::{PutAnswer, parse_answer},
};

use super::*;

fn remote(token: &str) -> Rig {
    let token = token.to_string();
    Rig::with(REMOTE, false, |config| {
        config.authority = Authority::new(&["other".into(), token], true, &[]);
    })
}

fn start_with_cap(cap: &[u8]) -> Vec<u8> {
    let head = FrameHeader { flags: START, app_proto_id: APP_STORAGE, ..Default::default() };
    raw(&head, cap, br#"{"op":"put","len":3}"#)
}

fn end(payload: &[u8]) -> Vec<u8> {
    frame(Flags::REQ | Flags::END, 0, payload)
}

#[test]
fn objects_of_every_size_are_kept() {
    // OAP/1 §6.9
    let mib = 1024 * 1024;
    for len in [0, 1, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, mib, mib + 1, 3 * mib + 7] {
        for (given, cut) in [(true, 700_000), (false, 1000)] {
            let data = sample(len, 8);
            let address = Address::of(&data);
            let mut rig = Rig::new();
            for new in [true, false] {
                let bytes = put(4, &data, given.then_some(address), cut);
                for part in bytes.chunks(16 * 1024) {
                    rig.bytes(part);
                    while rig.ends.last() == Some(&"pause") && rig.disk_one() {}
                }
                rig.run();
                let frame = rig.frame();
                assert_eq!(frame.head.flags, Flags::RESP | Flags::START | Flags::END);
                let want = PutAnswer { addr: address, size: len as u64, new };
                assert_eq!(parse_answer(&frame.payload), Ok(want), "{len}");
            }
            assert!(rig.objects[&address] == data);
            assert_eq!((rig.open(), rig.counted(Op::Put, 0)), (0, 2));
            assert_ne!(rig.ends.last(), Some(&"pause"));
        }
    }
}

#[test]
fn an_empty_put_may_be_one_frame() {
    // OAP/1 §6.8
    let mut rig = Rig::new();
    rig.bytes(&frame(START | Flags::END, 1, br#"{"op":"put","len":0}"#));
    rig.run();
    let done: PutAnswer = parse_answer(&rig.frame().payload).unwrap();
    assert_eq!((done.addr, done.size, done.new), (Address::of(b""), 0, true));
    rig.bytes(&frame(START | Flags::END, 1, br#"{"op":"put","len":1}"#));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
}

#[test]
fn more_or_fewer_bytes_are_refused() {
    // OAP/1 §6.8
    for (sent, ends) in [(9, true), (11, true), (11, false)] {
        let mut rig = Rig::new();
        rig.bytes(&put_start(1, 10, None));
        rig.bytes(&frame(Flags::REQ, 1, b"12345"));
        let flags = if ends { Flags::REQ | Flags::END } else { Flags::REQ };
        rig.bytes(&frame(flags, 1, &vec![0; sent - 5]));
        assert_eq!(rig.frame().error(), (400, "bad_request".into()), "{sent}");
        assert_eq!((rig.open(), rig.counted(Op::Put, 400)), (0, 1));
        // The rest is dropped up to END. OAP/1 §3.10
        if !ends {
            rig.bytes(&frame(Flags::REQ, 1, b"more"));
            rig.bytes(&frame(Flags::REQ | Flags::END, 1, b"and more"));
        }
        rig.run();
        assert!(rig.frames().is_empty());
        assert!(rig.objects.is_empty());
        // The next START begins anew.
        rig.bytes(&put(1, b"good", None, 2));
        rig.run();
        assert_eq!(rig.frame().head.code, 0);
    }
}

#[test]
fn nothing_is_left_of_a_large_put_that_failed() {
    let mib = 1 << 20;
    let mut rig = Rig::new();
    rig.bytes(&put_start(1, 2 * mib, None));
    for part in frame(Flags::REQ, 1, &vec![1; mib - 33]).chunks(16 * 1024) {
        rig.bytes(part);
        while rig.disk_one() {}
    }
    assert_eq!(rig.contents.len(), 1);
    rig.bytes(&frame(Flags::REQ | Flags::END, 1, b"too few"));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
    rig.run();
    assert!(rig.contents.is_empty());
    assert_eq!(rig.tickets.in_progress(), 0);
}

#[test]
fn a_new_start_ends_the_dropping() {
    // OAP/1 §3.10
    let mut rig = Rig::new();
    rig.bytes(&put_start(1, 1, None));
    rig.bytes(&frame(Flags::REQ, 1, b"too many"));
    rig.frame();
    rig.bytes(&put(1, b"good", None, 2));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
}

#[test]
fn a_wrong_digest_is_refused() {
    // OAP/1 §6.9
    for len in [5, GROUP_LEN + 1, 2 * 1024 * 1024] {
        let data = sample(len, 1);
        let mut rig = Rig::new();
        for part in put(1, &data, Some(Address::of(b"else")), 65_536).chunks(65_536) {
            rig.bytes(part);
            while rig.disk_one() {}
        }
        rig.run();
        assert_eq!(rig.frame().error(), (400, "bad_digest".into()));
        assert!(rig.objects.is_empty() && rig.contents.is_empty(), "{:?}", rig.contents.keys());
        assert_eq!(rig.tickets.in_progress(), 0);
    }
}

#[test]
fn puts_are_multiplexed() {
    let (one, two) = (sample(100_000, 1), sample(100_000, 2));
    let mut rig = Rig::new();
    rig.bytes(&[put_start(1, one.len(), None), put_start(2, two.len(), None)].concat());
    for (a, b) in one.chunks(10_000).zip(two.chunks(10_000)) {
        rig.bytes(&[frame(Flags::REQ, 1, a), frame(Flags::REQ, 2, b)].concat());
    }
    rig.run();
    assert!(rig.frames().is_empty());
    let last = |corr| frame(Flags::REQ | Flags::END, corr, b"");
    rig.bytes(&[last(2), last(1)].concat());
    rig.run();
    assert_eq!(rig.frames().len(), 2);
    assert!(rig.objects[&Address::of(&one)] == one && rig.objects[&Address::of(&two)] == two);
}

#[test]
fn data_after_the_end_is_refused() {
    // OAP/1 §3.9
    let mut rig = Rig::new();
    rig.bytes(&put(1, b"data", None, 9));
    rig.bytes(&frame(Flags::REQ, 1, b""));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
    rig.run();
    assert!(rig.frames().is_empty());
    assert_eq!(rig.open(), 0);
    assert_eq!(rig.objects[&Address::of(b"data")], b"data", "the put was complete");
}

#[test]
fn writes_from_elsewhere_need_a_capability() {
    // OAP/1 §9.2
    for (cap, answer) in [
        (&b""[..], Some((401, "unauthorized".to_string()))),
        (b"tokem", Some((401, "unauthorized".into()))),
        (b"toke", Some((401, "unauthorized".into()))),
        (b"token1", Some((401, "unauthorized".into()))),
        (b"token", None),
        (b"other", None),
    ] {
        let mut rig = remote("token");
        for byte in start_with_cap(cap).chunks(2) {
            rig.bytes(byte);
        }
        rig.bytes(&end(b"abc"));
        rig.run();
        let frame = rig.frame();
        match answer {
            Some(error) => assert_eq!(frame.error(), error),
            None => assert_eq!(frame.head.code, 0, "{cap:?}"),
        }
        assert_eq!(rig.objects.is_empty(), frame.head.code != 0);
    }
    // An empty token in the configuration opens nothing.
    let mut rig = remote("");
    rig.bytes(&start_with_cap(b""));
    assert_eq!(rig.frame().error().0, 401);
    rig.bytes(&start_with_cap(b"x"));
    assert_eq!(rig.frame().error().0, 401);
}

#[test]
fn loopback_writes_while_there_is_no_token_and_it_is_trusted() {
    // OAP/1 §9.2
    for (tokens, trusted, peer, cap, code) in [
        (&[][..], true, LOCAL, &b""[..], 0),
        (&[], true, LOCAL, b"token", 401),
        (&[], false, LOCAL, b"", 403),
        (&[], true, REMOTE, b"", 403),
        (&["token"], true, LOCAL, b"", 401),
        (&["token"], true, LOCAL, b"tokem", 401),
        (&["token"], false, LOCAL, b"token", 0),
    ] {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        let authority = Authority::new(&tokens, trusted, &[]);
        let mut rig = Rig::with(peer, false, |config| config.authority = authority);
        rig.bytes(&start_with_cap(cap));
        rig.bytes(&end(b"abc"));
        rig.run();
        assert_eq!(rig.frame().head.code, code, "{peer} {tokens:?} {trusted} {cap:?}");
    }
}

#[test]
fn a_peer_on_this_machine_needs_none() {
    for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        let mut rig = Rig::with(peer, false, |_| {});
        rig.bytes(&put(1, b"abc", None, 9));
        rig.run();
        assert_eq!(rig.frame().head.code, 0, "{peer}");
    }
    // Anybody may read.
    let mut rig = remote("token");
    let address = rig.store(b"abc");
    rig.bytes(&get(1, address, ""));
    rig.run();
    assert_eq!(rig.frame().payload, b"abc");
}

#[test]
fn too_large_is_refused_at_once() {
    let mut rig = Rig::with(LOCAL, false, |config| config.object_len_max = 10);
    rig.bytes(&put(1, &[7; 10], None, 99));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
    rig.bytes(&put_start(1, 11, None));
    assert_eq!(rig.frame().error(), (413, "too_large".into()));
    assert_eq!((rig.stats.oversize.get(), rig.open()), (1, 0));
    rig.bytes(&frame(Flags::REQ | Flags::END, 1, &[7; 11]));
    assert!(rig.frames().is_empty());
}

#[test]
fn the_store_may_refuse_a_put() {
    for (fault, code) in [(Fault::Full, 507), (Fault::Busy, 503), (Fault::Disk, 500)] {
        let mut rig = Rig::new();
        rig.bytes(&put(1, b"abc", None, 9));
        let (id, ask) = rig.ask();
        assert!(matches!(ask, Ask::Put { size: 3, .. }));
        rig.reply(id, Reply::Failed(fault));
        assert_eq!(rig.frame().error().0, code);
        assert_eq!((rig.open(), rig.counted(Op::Put, code)), (0, 1));
    }
}

#[test]
fn a_large_put_waits_for_the_disk() {
    let data = sample(8 * 1024 * 1024, 2);
    let bytes = put(1, &data, None, 1_000_000);
    let mut rig = Rig::new();
    let mut told = 0;
    for part in bytes.chunks(16 * 1024) {
        rig.bytes(part);
        told += part.len();
        if rig.ends.last() == Some(&"pause") {
            break;
        }
    }
    assert!(told < bytes.len(), "eight MiB do not fit without a disk");
    // What was on its way already is kept.
    for part in bytes[told..].chunks(16 * 1024) {
        rig.bytes(part);
    }
    assert_eq!(rig.ends.iter().filter(|end| **end == "pause").count(), 1);
    // The silence is ours: only the whole stream has a deadline. OAP/1 §10.1
    assert_eq!(rig.deadline(), Some(rig.config.deadlines.stream_ns));
    rig.pass(2 * rig.config.deadlines.body_ns);
    rig.run();
    assert_eq!(rig.ends.last(), Some(&"resume"));
    let done: PutAnswer = parse_answer(&rig.frame().payload).unwrap();
    assert_eq!(done.addr, Address::of(&data));
    assert!(rig.objects[&done.addr] == data);
}
