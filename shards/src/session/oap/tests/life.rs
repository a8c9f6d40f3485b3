//! How connections begin and end: handshake, deadlines, drain, EOF, loss.

use ron_codec::oap::limits::OAP_WINDOW_LEN_DEFAULT;
use ron_io::{
    arena::{BlockMut, Owner},
    stats::Rejected,
};

use super::*;
use crate::{cache::Purpose, limits::READER_LEAST_LEN};

fn limits(rig: &Rig) -> crate::config::Deadlines {
    rig.config.deadlines
}

fn late() -> (u16, String) {
    (408, "timeout".into())
}

/// A get of an object of `len` bytes that has used up its first credit, with `corr_id` 3.
fn starved(len: usize) -> Rig {
    let mut rig = greeted();
    let address = rig.store(&sample(len, 1));
    let json = format!(r#"{{"op":"get","addr":"{address}"}}"#);
    rig.bytes(&frame(START | Flags::ACK_REQ, 3, json.as_bytes()));
    rig.run();
    rig.out.clear();
    rig
}

/// A rig that has seen one frame.
fn greeted() -> Rig {
    let mut rig = Rig::new();
    rig.bytes(&raw(&FrameHeader::default(), b"", b""));
    rig.sent();
    rig.frame();
    rig
}

/// All blocks that uploads may hold.
fn all_of_uploads(rig: &mut Rig) -> Vec<BlockMut> {
    let mut held = Vec::new();
    for purpose in [Purpose::UploadFirst, Purpose::UploadShort] {
        held.extend(std::iter::from_fn(|| rig.memory.alloc_for(purpose, GROUP_LEN, None)));
    }
    held
}

#[test]
fn the_handshake_has_its_deadline() {
    // OAP/1 §10.2
    let mut rig = Rig::with(LOCAL, true, |_| {});
    rig.miss(limits(&rig).handshake_ns);
    assert_eq!((rig.ends.as_slice(), rig.out.len()), (&["abort"][..], 0));
    assert_eq!(rig.stats.rejected(Rejected::Timeout), 1);

    let mut rig = Rig::with(LOCAL, true, |_| {});
    rig.pass(5);
    rig.tell(|session, cx| session.on_secured(cx));
    assert_eq!(rig.deadline(), Some(limits(&rig).head_ns));
    rig.bytes(&has(1, Address::of(b"")));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
}

#[test]
fn the_first_frame_has_its_deadline() {
    // OAP/1 §10.1: nothing came, so nobody is answered
    let mut rig = Rig::new();
    rig.miss(limits(&rig).head_ns);
    assert_eq!((rig.ends.as_slice(), rig.out.len()), (&["finish"][..], 0));
    rig.miss(limits(&rig).linger_ns);
    assert_eq!(rig.ends, ["finish", "abort"]);

    // Single bytes do not put it off.
    let mut rig = Rig::new();
    let bytes = has(1, Address::of(b""));
    rig.bytes(&bytes[..1]);
    rig.pass(SECOND);
    rig.bytes(&bytes[1..36]);
    rig.miss(limits(&rig).head_ns - SECOND);
    let frame = rig.frame();
    assert_eq!((frame.error(), frame.head.corr_id), (late(), 0));
    assert_eq!(rig.ends, ["finish"]);
}

#[test]
fn a_frame_that_was_begun_has_its_deadlines() {
    // OAP/1 §10.2
    let bytes = has(77, Address::of(b""));
    let mut rig = greeted();
    rig.pass(SECOND);
    rig.bytes(&bytes[..36]);
    rig.miss(limits(&rig).head_ns);
    assert_eq!(rig.frame().error(), late());

    let mut rig = greeted();
    rig.bytes(&bytes[..38]);
    rig.pass(SECOND);
    rig.bytes(&bytes[38..40]);
    rig.miss(limits(&rig).body_ns);
    let frame = rig.frame();
    assert_eq!((frame.error(), frame.head.corr_id), (late(), 77));
    assert_eq!(rig.ends, ["finish"]);
    rig.tell(|session, cx| session.on_eof(cx));
    assert_eq!(rig.ends, ["finish"], "the answer has not left yet");
    rig.sent();
    assert_eq!(rig.ends, ["finish", "abort"]);
}

#[test]
fn lingering_begins_when_the_last_answer_has_left() {
    let mut rig = greeted();
    rig.bytes(&[0; 40]);
    assert_eq!(rig.ends, ["finish"]);
    assert_eq!(rig.deadline(), Some(limits(&rig).send_ns));
    rig.pass(limits(&rig).send_ns - 1);
    rig.sent();
    rig.miss(limits(&rig).linger_ns);
    assert_eq!(rig.ends, ["finish", "abort"]);
    assert_eq!(rig.stats.rejected(Rejected::Timeout), 0);
}

#[test]
fn an_idle_connection_is_closed() {
    let mut rig = greeted();
    rig.miss(limits(&rig).idle_ns);
    assert_eq!((rig.ends.as_slice(), rig.out.len()), (&["finish"][..], 0));
    assert_eq!(rig.stats.rejected(Rejected::Timeout), 0, "this is nobody's fault");

    let mut rig = greeted();
    rig.pass(SECOND);
    rig.bytes(&has(1, Address::of(b"")));
    assert_eq!(rig.deadline(), Some(limits(&rig).stream_ns));
    rig.answer_one();
    rig.pass(SECOND);
    rig.sent();
    assert_eq!(rig.deadline(), Some(limits(&rig).idle_ns));
}

#[test]
fn a_silent_put_is_refused() {
    // OAP/1 §10.2
    let mut rig = greeted();
    rig.bytes(&put_start(5, 10, None));
    rig.pass(SECOND);
    rig.bytes(&frame(Flags::REQ, 5, b"12345"));
    rig.pass(SECOND);
    rig.bytes(&has(6, Address::of(b"")));
    rig.run();
    rig.out.clear();
    rig.miss(limits(&rig).body_ns - SECOND);
    let answer = rig.frame();
    assert_eq!((answer.error(), answer.head.corr_id), (late(), 5));
    assert_eq!((rig.ends.len(), rig.open(), rig.counted(Op::Put, 408)), (0, 0, 1));
    rig.sent();
    // The connection lives, and what comes of the put after all is dropped.
    rig.bytes(&frame(Flags::REQ | Flags::END, 5, b"67890"));
    assert!(rig.frames().is_empty());
    rig.bytes(&has(6, Address::of(b"")));
    rig.run();
    assert_eq!(rig.frame().head.code, 0);
}

#[test]
fn a_put_inside_a_frame_takes_its_connection_along() {
    let mut rig = greeted();
    rig.bytes(&put_start(5, 10, None));
    rig.bytes(&frame(Flags::REQ, 5, b"12345")[..39]);
    rig.miss(limits(&rig).body_ns);
    let answer = rig.frame();
    assert_eq!((answer.error(), answer.head.corr_id), (late(), 5));
    assert_eq!((rig.ends.as_slice(), rig.open()), (&["finish"][..], 0));
}

#[test]
fn a_peer_that_takes_nothing_is_dropped() {
    let mut rig = greeted();
    let address = rig.store(&sample(9 * GROUP_LEN, 1));
    rig.bytes(&get(1, address, ""));
    while rig.answer_one() {}
    rig.pass(SECOND);
    rig.unsent -= 1;
    rig.tell(|session, cx| session.on_sent(1, cx));
    rig.out.clear();
    rig.miss(limits(&rig).send_ns);
    assert_eq!((rig.ends.as_slice(), rig.out.len(), rig.open()), (&["abort"][..], 0, 0));
}

#[test]
fn a_stream_without_credit_is_given_up() {
    let mut rig = starved(9 * GROUP_LEN);
    rig.pass(SECOND);
    rig.bytes(&frame(Flags::REQ, 3, br#"{"credit":1}"#));
    rig.run();
    rig.out.clear();
    // A byte is no sign that it goes on.
    rig.miss(limits(&rig).send_ns - SECOND);
    assert_eq!(rig.frame().error(), late());
    assert!(rig.ends.is_empty());
}

#[test]
fn a_whole_stream_has_its_deadline() {
    // OAP/1 §10.1
    let mut rig = greeted();
    rig.bytes(&has(1, Address::of(b"")));
    rig.pass(SECOND);
    rig.bytes(&has(2, Address::of(b"")));
    rig.miss(limits(&rig).stream_ns - SECOND);
    let answer = rig.frame();
    assert_eq!((answer.error(), answer.head.corr_id), (late(), 1));
    assert_eq!((rig.open(), rig.ends.len()), (1, 0));
}

#[test]
fn our_own_delay_is_not_counted() {
    let mut rig = greeted();
    let hello = raw(&FrameHeader::default(), b"", b"");
    while rig.ends.is_empty() {
        rig.bytes(&hello.repeat(16));
    }
    // Half a frame lies behind the held ones; only the peer that does not read is to blame.
    rig.bytes(&hello[..9]);
    assert_eq!(rig.deadline(), Some(limits(&rig).send_ns));
    rig.pass(limits(&rig).head_ns);
    rig.run();
    assert_eq!(rig.ends, ["pause", "resume"]);
    assert_eq!(rig.deadline(), Some(limits(&rig).head_ns));
}

#[test]
fn drain_finishes_what_is_open() {
    let mut rig = greeted();
    let address = rig.store(b"abc");
    rig.bytes(&get(1, address, ""));
    rig.bytes(&put_start(2, 3, None));
    rig.tell(|session, cx| session.on_drain(cx));
    rig.bytes(&has(3, address));
    let refused = rig.frame();
    assert_eq!((refused.error(), refused.head.corr_id), ((503, "draining".into()), 3));
    assert_eq!(rig.stats.rejected(Rejected::Draining), 1);
    rig.run();
    assert_eq!(rig.frame().payload, b"abc");
    assert!(rig.ends.is_empty());
    rig.bytes(&frame(Flags::REQ | Flags::END, 2, b"xyz"));
    rig.run();
    assert_eq!((rig.frame().head.code, rig.ends.as_slice()), (0, &["finish"][..]));

    let mut rig = greeted();
    rig.tell(|session, cx| session.on_drain(cx));
    assert_eq!(rig.ends, ["finish", "abort"], "nobody is waited for who asked for nothing");

    let mut rig = Rig::with(LOCAL, true, |_| {});
    rig.tell(|session, cx| session.on_drain(cx));
    assert_eq!(rig.ends, ["abort"]);
}

#[test]
fn a_half_closed_peer_gets_its_answers() {
    let mut rig = Rig::new();
    let data = sample(9 * GROUP_LEN, 1);
    let address = rig.store(&data);
    rig.bytes(&get(1, address, ""));
    rig.tell(|session, cx| session.on_eof(cx));
    assert!(rig.ends.is_empty());
    rig.run();
    assert!(body(&rig.frames(), 0) == data);
    assert_eq!(rig.ends, ["finish", "abort"]);
}

/// Nobody can grant it credit any more, so it does not wait for any: neither one that has used it
/// up when the peer ends, nor one that uses it up afterwards.
#[test]
fn a_get_without_credit_ends_with_its_peer() {
    for ends_first in [false, true] {
        let mut rig = greeted();
        let data = sample(9 * GROUP_LEN, 1);
        let address = rig.store(&data);
        let json = format!(r#"{{"op":"get","addr":"{address}"}}"#);
        rig.bytes(&frame(START | Flags::ACK_REQ, 3, json.as_bytes()));
        if !ends_first {
            rig.run();
            assert_eq!((rig.open(), rig.ends.len()), (1, 0), "it waits for credit");
        }
        rig.tell(|session, cx| session.on_eof(cx));
        rig.run();
        assert_eq!((rig.open(), rig.ends.as_slice()), (0, &["finish", "abort"][..]));
        let mut frames = rig.frames();
        assert_eq!(frames.pop().unwrap().error(), (400, "bad_request".into()));
        let window = OAP_WINDOW_LEN_DEFAULT as usize;
        let sent: Vec<u8> = frames.iter().flat_map(|frame| frame.payload.clone()).collect();
        assert!(sent == data[..window], "what there was credit for is sent");
    }
    // Credit that came before the end counts, though it could not be taken yet.
    let mut rig = greeted();
    let data = sample(OAP_WINDOW_LEN_DEFAULT as usize + 5, 1);
    let address = rig.store(&data);
    let json = format!(r#"{{"op":"get","addr":"{address}"}}"#);
    rig.bytes(&frame(START | Flags::ACK_REQ, 3, json.as_bytes()));
    let hello = raw(&FrameHeader::default(), b"", b"");
    while rig.ends.is_empty() {
        rig.bytes(&hello.repeat(16));
    }
    rig.bytes(&frame(Flags::REQ, 3, br#"{"credit":5}"#));
    rig.tell(|session, cx| session.on_eof(cx));
    assert_eq!(rig.open(), 1);
    rig.run();
    assert_eq!(rig.counted(Op::Get, 0), 1);
    assert_eq!(rig.open(), 0);
}

#[test]
fn what_the_end_cut_short_takes_no_effect() {
    // OAP/1 §10.3
    let mut rig = Rig::new();
    rig.bytes(&put_start(1, 10, None));
    rig.bytes(&frame(Flags::REQ | Flags::END, 1, b"0123456789")[..45]);
    rig.tell(|session, cx| session.on_eof(cx));
    assert_eq!(rig.frame().error(), (400, "bad_request".into()));
    rig.run();
    assert!(rig.objects.is_empty() && rig.contents.is_empty());
    assert_eq!((rig.open(), rig.ends.as_slice()), (0, &["finish", "abort"][..]));

    let mut rig = greeted();
    rig.tell(|session, cx| session.on_eof(cx));
    assert_eq!(rig.ends, ["finish", "abort"]);
}

#[test]
fn a_lost_connection_releases_everything() {
    for large in [0, 5 * 1024 * 1024] {
        let mut rig = Rig::new();
        let address = rig.store(&sample(9 * GROUP_LEN, 1));
        rig.bytes(&get(1, address, ""));
        while rig.answer_one() {}
        rig.bytes(&put_start(2, large + 5, None));
        for part in frame(Flags::REQ, 2, &sample(large.min(1 << 19), 2)).chunks(16 * 1024) {
            rig.bytes(part);
        }
        assert_eq!(rig.open(), 2);
        rig.tell(|session, cx| session.on_closed(cx));
        assert_eq!((rig.open(), rig.deadline()), (0, None));
        rig.out.clear();
        while rig.disk_one() {}
        assert!(rig.contents.is_empty() && rig.out.is_empty());
        assert_eq!(rig.tickets.in_progress(), 0);
        rig.session = None;
        assert_eq!(rig.counted(Op::Get, 0), 0, "what was not answered is not counted");
    }
}

#[test]
fn bytes_are_counted() {
    let mut rig = Rig::new();
    let bytes = has(1, Address::of(b""));
    rig.bytes(&bytes);
    rig.run();
    let at = Proto::Oap as usize;
    assert_eq!(rig.stats.bytes_in[at].get(), bytes.len() as u64);
    assert_eq!(rig.stats.bytes_out[at].get(), rig.out.len() as u64);
}

#[test]
fn credit_that_lies_unread_is_not_late() {
    // OAP/1 §10.1
    let mut rig = starved(9 * GROUP_LEN);
    assert_eq!(rig.deadline(), Some(limits(&rig).send_ns));
    rig.pass(SECOND);
    let hello = raw(&FrameHeader::default(), b"", b"");
    while rig.ends.is_empty() {
        rig.bytes(&hello.repeat(16));
    }
    rig.bytes(&frame(Flags::REQ, 3, br#"{"credit":1000000}"#));
    assert_eq!(rig.deadline(), Some(limits(&rig).send_ns), "only what was sent is waited for");
    rig.out.clear();
    rig.run();
    assert_eq!(rig.open(), 0, "the credit was read, and the rest was sent");
}

/// Credit of a few bytes now and then would keep a place as long as a stream may last.
#[test]
fn a_get_that_is_granted_too_little_ends() {
    // OAP/1 §10.1
    for (bytes, lives) in [(1, false), (READER_LEAST_LEN / 3 + 1, true)] {
        let mut rig = starved(20 * GROUP_LEN);
        let quarter = limits(&rig).send_ns / 4;
        for _ in 0..10 {
            rig.pass(quarter);
            rig.tell(|session, cx| session.on_deadline(cx));
            if rig.open() == 0 {
                break;
            }
            let credit = format!(r#"{{"credit":{bytes}}}"#);
            rig.bytes(&frame(Flags::REQ, 3, credit.as_bytes()));
            rig.run();
            rig.out.clear();
        }
        assert_eq!(rig.open() == 1, lives, "{bytes} bytes each quarter of the deadline");
    }
}

#[test]
fn failures_are_reported_with_their_ids() {
    let mut rig = Rig::with(REMOTE, false, |_| {});
    rig.bytes(&put_start(77, 3, None));
    assert_eq!(rig.frame().error().0, 403);
    rig.bytes(&has(78, Address::of(b"")));
    let (id, _) = rig.ask();
    rig.reply(id, Reply::Failed(Fault::Disk));
    assert_eq!(rig.frame().error().0, 500);
    let told: Vec<_> = rig
        .reports
        .iter()
        .map(|report| match report {
            Report::Failed { failure, .. } => {
                (failure.op, failure.status, failure.corr_id.as_str())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(Op::Put, 403, "77"), (Op::Has, 500, "78")]);
}

/// A rig whose puts must bring 1000 bytes a second, and the time they have for it.
fn paced() -> (Rig, u64) {
    let rig = Rig::with(LOCAL, false, |config| config.deadlines.body_rate = 1000);
    let span = limits(&rig).body_ns;
    (rig, span)
}

#[test]
fn a_put_that_trickles_is_refused_whatever_the_others_bring() {
    let (mut rig, span) = paced();
    let hello = raw(&FrameHeader::default(), b"", b"");
    rig.now.mono_ns += 10 * span;
    rig.bytes(&hello);
    rig.run();
    rig.frames();
    for corr_id in 1..=4 {
        rig.bytes(&put_start(corr_id, 100_000, None));
    }
    let third = |rig: &mut Rig| {
        rig.bytes(&frame(Flags::REQ, 1, &[1; 10_000]));
        for corr_id in 2..=4 {
            rig.bytes(&frame(Flags::REQ, corr_id, &[1; 100]));
        }
        rig.bytes(&hello.repeat(200));
        rig.run();
        rig.now.mono_ns += span / 3;
        rig.tell(|session, cx| session.on_deadline(cx));
    };
    for _ in 0..2 {
        third(&mut rig);
        assert_eq!(rig.open(), 4);
    }
    rig.frames();
    third(&mut rig);
    let refused: Vec<Frame> =
        rig.frames().into_iter().filter(|frame| frame.head.code > 0).collect();
    assert!(refused.iter().all(|frame| frame.error() == late()), "{refused:?}");
    assert_eq!(refused.iter().map(|frame| frame.head.corr_id).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((rig.open(), rig.stats.rejected(Rejected::Timeout)), (1, 3));
    assert!(rig.ends.is_empty(), "the connection goes on");
    for _ in 0..3 {
        third(&mut rig);
    }
    assert_eq!(rig.open(), 1);
}

#[test]
fn an_upload_that_is_full_buys_the_others_its_time_and_no_more() {
    let (mut rig, span) = paced();
    rig.bytes(&put_start(1, 8 << 20, None));
    rig.bytes(&put_start(2, 100_000, None));
    rig.bytes(&frame(Flags::REQ, 2, &[1; 100]));
    let pass = |rig: &mut Rig, ns: u64| {
        rig.now.mono_ns += ns;
        rig.tell(|session, cx| session.on_deadline(cx));
        assert!(rig.deadline() > Some(0), "or the loop would not rest");
    };
    pass(&mut rig, span / 2);
    while rig.ends.is_empty() {
        rig.bytes(&frame(Flags::REQ, 1, &[1; 60_000]));
    }
    assert_eq!(rig.ends, ["pause"]);
    pass(&mut rig, 3 * span);
    assert_eq!(rig.open(), 2, "nobody is late while nobody is listened to");
    while rig.disk_one() {}
    assert_eq!(rig.ends, ["pause", "resume"]);
    pass(&mut rig, span / 2 - 1);
    assert_eq!(rig.open(), 2);
    pass(&mut rig, 1);
    rig.run();
    let refused = rig.frame();
    assert_eq!((refused.head.corr_id, refused.error(), rig.open()), (2, late(), 1));
}

#[test]
fn a_put_that_waits_for_memory_does_not_excuse_those_that_hold_it() {
    let (mut rig, span) = paced();
    for corr in [1, 2] {
        rig.bytes(&put_start(corr, 60_000, None));
        rig.bytes(&frame(Flags::REQ, corr, &[1; 100]));
    }
    let held = all_of_uploads(&mut rig);
    rig.bytes(&put_start(3, 60_000, None));
    rig.bytes(&frame(Flags::REQ, 3, &[1; 100]));
    let refused = rig.frame();
    assert_eq!((refused.head.corr_id, refused.error()), (3, (503, "overload".into())));
    assert!(rig.ends.is_empty(), "the others are not held up for it");
    let mut slow = Vec::new();
    rig.now.mono_ns += span / 2;
    let (before_ns, now_ns) = (rig.now.mono_ns - 1, rig.now.mono_ns);
    let holding = rig.session.as_ref().unwrap().slow_uploads(before_ns, now_ns, &mut slow);
    assert_eq!(holding, 2);
    assert_eq!(slow.len(), 2);
    rig.now.mono_ns += span / 2;
    rig.tell(|session, cx| session.on_deadline(cx));
    rig.run();
    assert_eq!(rig.open(), 0, "nor did their time stand still");
    drop(held);
}

#[test]
fn time_does_not_stand_still_for_a_put_that_waits_for_memory() {
    let (mut rig, span) = paced();
    let _held = all_of_uploads(&mut rig);
    rig.bytes(&put_start(1, 60_000, None));
    rig.bytes(&put_start(2, 60_000, None));
    rig.bytes(&frame(Flags::REQ, 2, &[1; 100]));
    assert_eq!((rig.ends.as_slice(), rig.open()), (&["pause"][..], 2));
    rig.now.mono_ns += span;
    rig.tell(|session, cx| session.on_deadline(cx));
    rig.run();
    assert_eq!(rig.open(), 0);
}

#[test]
fn answers_that_are_not_read_buy_a_put_no_time() {
    let (mut rig, span) = paced();
    rig.bytes(&put_start(1, 100_000, None));
    let hello = raw(&FrameHeader::default(), b"", b"");
    while rig.ends.is_empty() {
        rig.bytes(&hello.repeat(100));
    }
    assert_eq!(rig.ends, ["pause"]);
    for _ in 0..4 {
        rig.now.mono_ns += span / 4;
        // A byte now and then: the connection itself is not late.
        rig.unsent -= 1;
        rig.tell(|session, cx| session.on_sent(1, cx));
        rig.tell(|session, cx| session.on_deadline(cx));
    }
    assert_eq!((rig.open(), rig.counted(Op::Put, 408)), (0, 1));
}

/// For how long the peer has made no progress.
fn stale_ns(rig: &Rig) -> u64 {
    let now_ns = rig.now.mono_ns;
    now_ns - rig.session.as_ref().unwrap().progress_ns(now_ns)
}

#[test]
fn a_put_that_waits_for_the_disk_is_not_stale() {
    let mut rig = Rig::new();
    rig.bytes(&put_start(1, 8 << 20, None));
    let mut sent = 0;
    while rig.ends.is_empty() {
        rig.bytes(&frame(Flags::REQ, 1, &[1; 60_000]));
        sent += 60_000;
    }
    rig.pass(20 * SECOND);
    assert_eq!((rig.ends.as_slice(), stale_ns(&rig)), (&["pause"][..], 0));
    while rig.disk_one() {}
    assert_eq!(rig.ends, ["pause", "resume"]);
    rig.pass(SECOND);
    assert_eq!(stale_ns(&rig), SECOND, "it is read again, and brings nothing");
    // The same while all of it is here, and is being stored.
    while sent < 8 << 20 {
        let len = ((8 << 20) - sent).min(60_000);
        sent += len;
        let end = if sent == 8 << 20 { Flags::END } else { Flags::NONE };
        rig.bytes(&frame(Flags::REQ | end, 1, &vec![1; len]));
        while sent < 8 << 20 && rig.disk_one() {}
    }
    rig.pass(20 * SECOND);
    assert_eq!((rig.open(), rig.out.len(), stale_ns(&rig)), (1, 0, 0));
    // Not if it holds the rest of a frame back meanwhile.
    rig.bytes(&has(2, Address::of(b""))[..40]);
    rig.pass(SECOND);
    assert_eq!(stale_ns(&rig), SECOND);
}

#[test]
fn a_put_that_waits_for_memory_is_stale_if_its_connection_holds_it() {
    for holds in [false, true] {
        let mut rig = Rig::new();
        if holds {
            rig.bytes(&put_start(2, 60_000, None));
            rig.bytes(&frame(Flags::REQ, 2, &[1; 100]));
        }
        rig.bytes(&put_start(1, 8 << 20, None));
        let bytes = frame(Flags::REQ, 1, &[1; 2 * GROUP_LEN]);
        rig.bytes(&bytes[..100]);
        let mut held = all_of_uploads(&mut rig);
        held.push(rig.memory.alloc_beyond(Owner::Uploads));
        // What came is written, and there is no block for what comes.
        rig.bytes(&bytes[100..]);
        while rig.disk_one() {}
        assert_eq!(rig.ends, ["pause"]);
        rig.pass(SECOND);
        assert_eq!(stale_ns(&rig), if holds { SECOND } else { 0 });
        drop(held);
    }
}

#[test]
fn a_peer_that_is_paused_over_its_unread_answers_is_stale() {
    let mut rig = Rig::new();
    rig.bytes(&put_start(1, 100_000, None));
    let hello = raw(&FrameHeader::default(), b"", b"");
    while rig.ends.is_empty() {
        rig.bytes(&hello.repeat(100));
    }
    assert_eq!((rig.ends.as_slice(), stale_ns(&rig)), (&["pause"][..], 0));
    rig.pass(20 * SECOND);
    assert_eq!(stale_ns(&rig), 20 * SECOND);
}

#[test]
fn what_streams_keep_is_counted() {
    let mut rig = Rig::new();
    let held = |rig: &Rig| rig.session.as_ref().unwrap().held();
    let before = held(&rig);
    for corr_id in 1..=64 {
        rig.bytes(&put_start(corr_id, 64 << 20, None));
    }
    let of_puts = held(&rig) - before;
    assert!(of_puts >= 64 * size_of::<super::super::streams::Put>(), "{of_puts} bytes");
    // 32 bytes for each group that was hashed.
    for _ in 0..16 << 20 >> 16 {
        rig.bytes(&frame(Flags::REQ, 1, &[1; 1 << 16]));
        while rig.disk_one() {}
    }
    let hashes = held(&rig) - before - of_puts;
    assert!((255 * 32..4 * 256 * 32).contains(&hashes), "{hashes} bytes");
    rig.tell(|session, cx| session.on_closed(cx));
    assert!(held(&rig) <= before + 64 * 1024, "{} bytes", held(&rig));
}

#[test]
fn a_frame_that_trickles_ends_its_connection() {
    let mut rig = Rig::with(LOCAL, false, |config| config.deadlines.body_rate = 1000);
    let span = limits(&rig).body_ns;
    rig.bytes(&put_start(1, 100_000, None));
    rig.bytes(&frame(Flags::REQ, 1, &[1; 90_000])[..1000]);
    for _ in 0..4 {
        rig.now.mono_ns += span / 3;
        rig.bytes(&[1]);
        rig.tell(|session, cx| session.on_deadline(cx));
    }
    rig.run();
    assert_eq!(rig.frame().error(), (408, "timeout".into()));
    assert_eq!((rig.open(), rig.ends.as_slice()), (0, &["finish"][..]));
}

/// Neither may the rest of a refused frame, nor a request.
#[test]
fn no_frame_may_trickle_whatever_it_is() {
    let data = frame(Flags::REQ, 1, &[1; 90_000]);
    // And whether it is answered for that.
    let cases = [
        // Its put was refused before it, and within it.
        ([put_start(1, 100_001, None), data.clone()].concat(), false),
        ([put_start(1, 10, None), data.clone()].concat(), false),
        // It was refused by its header.
        (frame(START | Flags::RESP, 1, &[1; 90_000]), false),
        (frame(START, 1, &[b' '; 4000]), true),
    ];
    for (bytes, is_answered) in cases {
        let mut rig = Rig::with(LOCAL, false, |config| {
            config.deadlines.body_rate = 1000;
            config.object_len_max = 100_000;
        });
        let span = limits(&rig).body_ns;
        rig.bytes(&bytes[..bytes.len() - 3500]);
        rig.run();
        rig.frames();
        let sent = std::mem::take(&mut rig.unsent);
        rig.tell(|session, cx| session.on_sent(sent, cx));
        for _ in 0..7 {
            assert!(rig.ends.is_empty(), "{bytes:?}", bytes = &bytes[..100]);
            rig.now.mono_ns += span / 3;
            rig.bytes(&[1]);
            rig.tell(|session, cx| session.on_deadline(cx));
            if !rig.ends.is_empty() {
                break;
            }
        }
        let said = rig.frames().first().map(Frame::error);
        let late = is_answered.then(|| (408, "timeout".into()));
        assert_eq!((said, rig.ends.as_slice()), (late, &["finish"][..]));
    }
}

#[test]
fn what_is_kept_is_counted_and_shed() {
    let mut rig = Rig::new();
    let hello = raw(&FrameHeader::default(), b"", b"");
    rig.bytes(&hello.repeat(100));
    assert!(rig.unsent > 0);
    let held = |rig: &Rig| rig.session.as_ref().unwrap().held();
    assert!(held(&rig) >= rig.unsent && held(&rig) < 2 * rig.unsent + 16 * 1024);
    rig.tell(|session, cx| session.shed(cx));
    assert_eq!((held(&rig), rig.ends.as_slice()), (0, &["abort"][..]));
}
