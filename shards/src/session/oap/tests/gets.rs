//! Gets and has: bytes, ranges, turns and credit.

use ron_codec::limits::OAP_CHUNK_LEN_MAX;
use ron_codec::oap::limits::OAP_WINDOW_LEN_DEFAULT;
use ron_codec::oap::{HEADER_LEN, HasAnswer, Meta, parse_answer};

use super::*;
use crate::{
    cache::Purpose,
    limits::{READ_NEXT_WAIT_NS, UNSENT_LEN_MAX},
};
use ron_io::arena::BlockMut;

/// A get of an object of `len` bytes; the frames of the answer.
fn fetch(len: usize, more: &str) -> (Vec<u8>, Vec<Frame>) {
    let mut rig = Rig::new();
    let data = sample(len, 5);
    let address = rig.store(&data);
    rig.bytes(&get(8, address, more));
    rig.run();
    assert_eq!(rig.open(), 0);
    assert!(rig.ends.is_empty());
    (data, rig.frames())
}

#[test]
fn objects_of_every_size_come_whole() {
    // OAP/1 §6.5
    let group = GROUP_LEN;
    for len in [0, 1, 4096, group - 1, group, group + 1, 5 * group - 1, 5 * group, 20 * group + 1] {
        let (data, frames) = fetch(len, "");
        assert_eq!(frames.len(), len.div_ceil(group).max(1));
        assert!(body(&frames, 0) == data, "{len}");
    }
}

#[test]
fn ranges_are_slices_of_the_source() {
    // OAP/1 §6.4
    let size = 3 * GROUP_LEN + 10;
    let edges = [0, 1, GROUP_LEN - 1, GROUP_LEN, GROUP_LEN + 1, size - 1, size];
    for offset in edges {
        for len in edges {
            let (data, frames) = fetch(size, &format!(r#","offset":{offset},"len":{len}"#));
            let end = (offset + len).min(size);
            assert!(body(&frames, 206) == data[offset..end], "{offset} {len}");
        }
        let (data, frames) = fetch(size, &format!(r#","offset":{offset}"#));
        let code = if offset > 0 { 206 } else { 0 };
        assert!(body(&frames, code) == data[offset..], "{offset}");
    }
    let (_, frames) = fetch(size, &format!(r#","offset":{}"#, size + 1));
    assert_eq!(frames[0].error(), (400, "bad_request".into()));
    let (data, frames) = fetch(size, &format!(r#","offset":1,"len":{}"#, u64::MAX));
    assert!(body(&frames, 206) == data[1..]);
}

#[test]
fn a_small_object_takes_one_question() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(GROUP_LEN, 1));
    rig.bytes(&get(1, address, ""));
    assert!(matches!(rig.asks[0].1, Ask::Open { first: Some(0), .. }));
    assert!(rig.answer_one());
    assert!(rig.asks.is_empty());
    assert_eq!(rig.frame().payload.len(), GROUP_LEN);
}

#[test]
fn meta_comes_first_and_alone() {
    // OAP/1 §6.6
    for (size, more, offset, len) in [
        (GROUP_LEN + 5, "", 0, GROUP_LEN + 5),
        (GROUP_LEN + 5, r#","offset":9,"len":4"#, 9, 4),
        (0, "", 0, 0),
        (7, r#","len":0"#, 0, 0),
    ] {
        let (data, frames) = fetch(size, &format!(r#","meta":true{more}"#));
        assert_eq!(frames[0].head.flags, Flags::RESP | Flags::START);
        let meta: Meta = parse_answer(&frames[0].payload).unwrap();
        assert_eq!(meta.obj, Address::of(&data));
        assert_eq!((meta.size, meta.offset, meta.len), (size as u64, offset as u64, len as u64));
        assert_eq!(meta.content_type, "application/octet-stream");
        let rest: Vec<u8> = frames[1..].iter().flat_map(|frame| frame.payload.clone()).collect();
        assert!(rest == data[offset..offset + len]);
        assert!(frames[1..].iter().all(|frame| !frame.has(Flags::START)));
        assert!(frames.last().unwrap().has(Flags::END));
    }
}

#[test]
fn has_tells_the_size() {
    // OAP/1 §6.7
    let mut rig = Rig::new();
    let address = rig.store(b"");
    rig.bytes(&has(1, address));
    rig.run();
    let frame = rig.frame();
    assert_eq!(frame.head.flags, Flags::RESP | Flags::START | Flags::END);
    assert_eq!(parse_answer(&frame.payload), Ok(HasAnswer { has: true, size: 0 }));
    rig.bytes(&has(1, Address::of(b"not there")));
    rig.run();
    assert_eq!(parse_answer(&rig.frame().payload), Ok(HasAnswer { has: false, size: 0 }));
    assert_eq!((rig.counted(Op::Has, 0), rig.open()), (2, 0));
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut rig = Rig::new();
    rig.bytes(&get(1, Address::of(b"not there"), ""));
    rig.run();
    assert_eq!(rig.frame().error(), (404, "not_found".into()));
    rig.bytes(&frame(START, 2, br#"{"op":"get","path":"/a"}"#));
    let frame = rig.frame();
    assert_eq!(frame.error(), (404, "not_found".into()));
    assert!(frame.text().contains("paths are not served"));
    assert_eq!(rig.counted(Op::Get, 404), 2);
    // A refused get has no frames to come, so what comes is out of order. OAP/1 §3.9
    rig.bytes(&super::frame(Flags::REQ, 2, b"data"));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
}

#[test]
fn faults_have_their_codes() {
    // OAP/1 §9.2
    for (fault, code, name) in [
        (Fault::Integrity, 502, "integrity"),
        (Fault::Disk, 500, "internal"),
        (Fault::Full, 507, "storage_full"),
        (Fault::Busy, 503, "overload"),
    ] {
        let mut rig = Rig::new();
        rig.bytes(&[get(1, Address::of(b"x"), ""), has(2, Address::of(b"x"))].concat());
        for _ in 0..2 {
            let (id, _) = rig.ask();
            rig.reply(id, Reply::Failed(fault));
            assert_eq!(rig.frame().error(), (code, name.into()));
        }
        assert_eq!((rig.counted(Op::Get, code), rig.counted(Op::Has, code)), (1, 1));
        assert!(rig.ends.is_empty());
    }
}

#[test]
fn nothing_leaves_before_the_first_group_is_verified() {
    // OAP/1 §6.11
    let mut rig = Rig::new();
    let address = rig.store(&sample(3 * GROUP_LEN, 1));
    rig.bytes(&get(1, address, r#","meta":true"#));
    let (id, _) = rig.ask();
    rig.reply(id, Reply::Opened { size: 3 * GROUP_LEN as u64, first: None });
    assert!(rig.out.is_empty());
    rig.reply(id, Reply::Failed(Fault::Integrity));
    assert_eq!(rig.frame().error(), (502, "integrity".into()));
}

/// No place was left to wait for what is read ahead: what comes before it is sent all the same, and
/// the rest is asked for again.
#[test]
fn a_group_that_is_refused_ahead_of_its_turn_ends_nothing() {
    let mut rig = Rig::new();
    let data = sample(6 * GROUP_LEN, 1);
    let address = rig.store(&data);
    rig.bytes(&get(1, address, ""));
    assert!(rig.answer_one());
    let (id, ask) = rig.ask();
    let next = rig.asks.pop_front().expect("it reads ahead");
    assert!(matches!(ask, Ask::Group { index: 1, .. }), "{ask:?}");
    assert!(matches!(next.1, Ask::Group { index: 2, .. }), "{next:?}");
    rig.reply(id, Reply::Late { index: 2, ahead: false });
    rig.asks.push_front((id, ask));
    rig.run();
    assert!(body(&rig.frames(), 0) == data);
    assert!(rig.ends.is_empty() && rig.open() == 0);
}

#[test]
fn a_failure_after_bytes_ends_the_stream() {
    // OAP/1 §6.11
    let mut rig = Rig::new();
    let address = rig.store(&sample(3 * GROUP_LEN, 1));
    rig.bytes(&get(1, address, ""));
    assert!(rig.answer_one());
    let (id, _) = rig.ask();
    rig.reply(id, Reply::Failed(Fault::Integrity));
    let frames = rig.frames();
    assert_eq!(frames[0].head.flags, Flags::RESP | Flags::START);
    assert_eq!(frames[1].error(), (502, "integrity".into()));
    // What was asked before is answered late, and ignored.
    rig.run();
    assert!(rig.frames().is_empty());
    rig.bytes(&has(1, address));
    rig.run();
    assert_eq!(rig.frame().text(), r#"{"has":true,"size":196608}"#);
}

#[test]
fn streams_take_turns() {
    // OAP/1 §6.10
    let mut rig = Rig::new();
    let addresses = [1, 2, 3].map(|seed| rig.store(&sample(12 * GROUP_LEN, seed)));
    for (at, address) in addresses.iter().enumerate() {
        rig.bytes(&get(at as u64, *address, ""));
    }
    let mut most_ahead = 0;
    let mut sent = [0usize; 3];
    let (mut deframer, mut read) = (Deframer::new(), 0);
    loop {
        while rig.answer_one() {}
        let fresh = rig.out[read..].to_vec();
        read = rig.out.len();
        let mut input = &fresh[..];
        while let Some(piece) = deframer.next(&mut input).unwrap() {
            if let Piece::Head(head) = piece {
                sent[head.corr_id as usize] += 1;
                let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
                most_ahead = most_ahead.max(most - least);
            }
        }
        if rig.unsent == 0 {
            break;
        }
        let len = rig.unsent.min(HEADER_LEN + GROUP_LEN);
        rig.unsent -= len;
        rig.tell(|session, cx| session.on_sent(len, cx));
    }
    assert_eq!(sent, [12; 3]);
    assert!(most_ahead <= 2, "{most_ahead}");
    let frames = rig.frames();
    for (corr, seed) in [(0, 1), (1, 2), (2, 3)] {
        let own: Vec<Frame> =
            frames.iter().filter(|frame| frame.head.corr_id == corr).cloned().collect();
        assert!(body(&own, 0) == sample(12 * GROUP_LEN, seed));
    }
}

#[test]
fn what_is_ready_leaves_in_turns() {
    // OAP/1 §6.10
    let mut rig = Rig::new();
    let (one, two) = (sample(2 * GROUP_LEN, 1), sample(2 * GROUP_LEN, 2));
    let addresses = [rig.store(&one), rig.store(&two)];
    for (corr, address) in (1..).zip(addresses) {
        rig.bytes(&get(corr, address, ""));
    }
    for _ in addresses {
        let (id, _) = rig.ask();
        rig.reply(id, Reply::Opened { size: 2 * GROUP_LEN as u64, first: None });
    }
    let groups: Vec<_> = rig.asks.drain(..).collect();
    assert_eq!(groups.len(), 4);
    // Others fill the connection before these groups come.
    let full = rig.store(&sample(GROUP_LEN, 3));
    for corr in 3..7 {
        rig.bytes(&get(corr, full, ""));
        assert!(rig.answer_one());
    }
    rig.out.clear();
    rig.asks.extend(groups);
    while rig.answer_one() {}
    assert!(rig.out.is_empty());
    rig.run();
    let order: Vec<u64> = rig.frames().iter().map(|frame| frame.head.corr_id).collect();
    assert!(order == [1, 2, 1, 2] || order == [2, 1, 2, 1], "{order:?}");
}

#[test]
fn a_small_get_does_not_wait_for_a_large_one() {
    let mut rig = Rig::new();
    let large = rig.store(&sample(60 * GROUP_LEN, 1));
    let small = rig.store(b"small");
    rig.bytes(&get(1, large, ""));
    while rig.answer_one() {}
    rig.out.clear();
    rig.bytes(&get(2, small, ""));
    while rig.answer_one() {}
    rig.sent();
    let frames = rig.frames();
    let at = frames.iter().position(|frame| frame.head.corr_id == 2).unwrap();
    assert!(at <= 1, "{at}");
}

#[test]
fn queued_bytes_are_bounded() {
    let mut rig = Rig::new();
    let addresses: Vec<_> = (0..8).map(|seed| rig.store(&sample(8 * GROUP_LEN, seed))).collect();
    for (at, address) in addresses.iter().enumerate() {
        rig.bytes(&get(at as u64, *address, ""));
    }
    let limit = UNSENT_LEN_MAX + HEADER_LEN + OAP_CHUNK_LEN_MAX;
    loop {
        while rig.answer_one() {}
        assert!(rig.unsent < limit, "{}", rig.unsent);
        if rig.unsent == 0 {
            break;
        }
        // The kernel takes a little at a time.
        let len = rig.unsent.min(50_000);
        rig.unsent -= len;
        rig.tell(|session, cx| session.on_sent(len, cx));
    }
    assert_eq!(rig.frames().len(), 64);
    assert_eq!((rig.counted(Op::Get, 0), rig.open()), (8, 0));
}

#[test]
fn credit_bounds_what_is_sent() {
    // OAP/1 §7.1 and OAP/1 §7.2
    let window = OAP_WINDOW_LEN_DEFAULT as usize;
    let mut rig = Rig::new();
    let data = sample(10 * GROUP_LEN, 4);
    let address = rig.store(&data);
    let json = format!(r#"{{"op":"get","addr":"{address}","offset":1,"meta":true}}"#);
    rig.bytes(&frame(START | Flags::ACK_REQ, 6, json.as_bytes()));
    rig.run();
    let mut frames = rig.frames();
    let sent =
        |frames: &[Frame]| frames[1..].iter().map(|frame| frame.payload.len()).sum::<usize>();
    assert_eq!(sent(&frames), window, "the JSON of meta does not count");
    for grant in [1, 0, 99_999] {
        let before = sent(&frames);
        rig.bytes(&frame(Flags::REQ, 6, format!(r#"{{"credit":{grant}}}"#).as_bytes()));
        rig.run();
        frames.extend(rig.frames());
        assert_eq!(sent(&frames), before + grant);
    }
    rig.bytes(&frame(Flags::REQ, 6, format!(r#"{{"credit":{}}}"#, u64::MAX).as_bytes()));
    rig.bytes(&frame(Flags::REQ, 6, format!(r#"{{"credit":{}}}"#, u64::MAX).as_bytes()));
    rig.run();
    frames.extend(rig.frames());
    assert!(frames.last().unwrap().has(Flags::END));
    let all: Vec<u8> = frames[1..].iter().flat_map(|frame| frame.payload.clone()).collect();
    assert!(all == data[1..]);
    // OAP/1 §7.4
    rig.bytes(&frame(Flags::REQ, 6, br#"{"credit":5}"#));
    assert!(rig.frames().is_empty());
}

#[test]
fn an_object_as_long_as_its_window_needs_no_credit() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(OAP_WINDOW_LEN_DEFAULT as usize, 4));
    let json = format!(r#"{{"op":"get","addr":"{address}"}}"#);
    rig.bytes(&frame(START | Flags::ACK_REQ, 6, json.as_bytes()));
    rig.run();
    assert!(rig.frames().last().unwrap().has(Flags::END));
}

#[test]
fn one_stream_without_credit_does_not_stop_the_others() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(10 * GROUP_LEN, 4));
    let json = format!(r#"{{"op":"get","addr":"{address}"}}"#);
    rig.bytes(&frame(START | Flags::ACK_REQ, 1, json.as_bytes()));
    rig.bytes(&get(2, address, ""));
    rig.run();
    let frames = rig.frames();
    let of = |corr: u64| frames.iter().filter(|frame| frame.head.corr_id == corr).count();
    assert_eq!((of(1), of(2)), (4, 10));
    assert_eq!(rig.open(), 1);
}

/// Memory for as many groups as downloads may keep beside one each, while it is held.
fn tight(rig: &mut Rig) -> Vec<BlockMut> {
    let held =
        std::iter::from_fn(|| rig.memory.alloc_for(Purpose::ReadAhead, GROUP_LEN, None)).collect();
    assert!(rig.memory.is_tight());
    held
}

#[test]
fn streams_without_credit_keep_no_group() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(10 * GROUP_LEN, 4));
    let json = format!(r#"{{"op":"get","addr":"{address}","offset":1000}}"#);
    for corr in 1..=8 {
        rig.bytes(&frame(START | Flags::ACK_REQ, corr, json.as_bytes()));
        rig.run();
    }
    for _ in 0..3 {
        assert_eq!((rig.open(), rig.session.as_ref().unwrap().streams.kept()), (8, 0));
        for corr in 1..=8 {
            rig.bytes(&frame(Flags::REQ, corr, br#"{"credit":1}"#));
        }
        rig.frames();
        rig.run();
        let frames = rig.frames();
        assert_eq!(frames.len(), 8, "what was dropped is asked for again");
    }
}

#[test]
fn while_memory_is_short_streams_without_credit_do_not_stop_the_others() {
    let mut rig = Rig::new();
    let data = sample(10 * GROUP_LEN, 4);
    let address = rig.store(&data);
    let _held = tight(&mut rig);
    let json = format!(r#"{{"op":"get","addr":"{address}","offset":1000}}"#);
    for corr in 1..=3 {
        rig.bytes(&frame(START | Flags::ACK_REQ, corr, json.as_bytes()));
        rig.run();
    }
    rig.frames();
    rig.bytes(&get(9, address, ""));
    rig.run();
    assert_eq!(body(&rig.frames(), 0), data);
    assert_eq!(rig.open(), 3);
}

#[test]
fn a_get_that_memory_is_too_short_for_is_refused() {
    let mut rig = Rig::new();
    let data = sample(3 * GROUP_LEN, 4);
    let address = rig.store(&data);
    let _held = tight(&mut rig);
    rig.bytes(&get(1, address, ""));
    rig.bytes(&get(2, address, ""));
    assert!(rig.answer_one() && rig.answer_one());
    rig.sent();
    // One group may be kept, and the other get asked for it.
    assert_eq!((rig.open(), rig.asks.len(), rig.frames().len()), (2, 1, 1));
    rig.miss(READ_NEXT_WAIT_NS);
    let refused = rig.frame();
    assert_eq!((refused.error(), refused.head.corr_id), ((503, "overload".into()), 1));
    assert_eq!(rig.stats.memory_refusals.get(), 1);
    rig.run();
    assert_eq!((body(&rig.frames(), 0), rig.open()), (data, 0));
    let most = rig.stats.peers.all().map(|work| (work.asked, work.turned_away)).max();
    assert_eq!(most, Some((2, 1)), "both of one peer");
}

#[test]
fn a_client_may_end_its_side() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(3 * GROUP_LEN, 4));
    rig.bytes(&get(1, address, ""));
    rig.bytes(&frame(Flags::REQ | Flags::END, 1, b""));
    rig.run();
    assert_eq!(body(&rig.frames(), 0).len(), 3 * GROUP_LEN);
    // What is neither credit nor END is refused, and ends the stream. OAP/1 §3.6
    rig.bytes(&get(1, address, ""));
    rig.bytes(&frame(Flags::REQ, 1, b"what"));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
    rig.run();
    assert!(rig.frames().is_empty());
    assert_eq!(rig.open(), 0);
}

/// A peer that breaks the protocol keeps no more than one that does not.
#[test]
fn a_reader_is_stale_after_its_last_answer_as_before() {
    let mut rig = Rig::new();
    let address = rig.store(&sample(3 * GROUP_LEN, 4));
    rig.bytes(&get(1, address, ""));
    assert!(rig.answer_one());
    let stale = |rig: &Rig| rig.session.as_ref().unwrap().stale_since(true, &rig.memory);
    let began_ns = rig.now.mono_ns;
    rig.now.mono_ns += SECOND;
    assert_eq!(stale(&rig), Some(began_ns));
    rig.bytes(&[0xff; 64]);
    assert_eq!((rig.ends.as_slice(), stale(&rig)), (&["finish"][..], Some(began_ns)));
    rig.tell(|session, cx| session.shed(cx));
    assert_eq!((rig.ends.last(), stale(&rig)), (Some(&"abort"), None));
}
