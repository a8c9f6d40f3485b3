//! Requests and frames with a few bytes changed, from a fixed seed: whatever they mean now, the
//! answer is one that the protocol has, and never a failure of the node's own.

use std::time::Duration;

use serde_json::json;

use crate::common::{
    MIB, addr_of,
    flood::Target,
    http::put_head,
    oap::{END, Frame, HELLO, REQ, START, frame, read_frame, request},
    rude::{Door, End, Rude},
};

/// Numbers that look like noise, the same in every run.
struct Dice(u64);

impl Dice {
    /// One of the numbers below this.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % end
    }

    /// Changes, doubles, takes away or cuts off a few bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            let len = (1 + self.below(8)).min(bytes.len() - at);
            match self.below(8) {
                0 if len < bytes.len() => drop(bytes.drain(at..at + len)),
                1 => bytes.extend_from_within(at..at + len),
                2 => bytes[at] = b"\r\n\0 :/,;-%"[self.below(10)],
                3 => bytes.truncate(at + 1),
                _ => bytes[at] = self.below(256) as u8,
            }
        }
    }
}

/// The statuses in what a node answered.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, start)| &text[at + start.len()..]);
    starts.map(|rest| rest[..3].parse().expect("a status is a number")).collect()
}

#[test]
fn requests_with_wrong_bytes() {
    let target = Target::warm(1, &[]);
    let (addr, body) = (&target.small.addr, "0123456789");
    let head = "HTTP/1.1\r\nHost: localhost\r\n";
    let honest = [
        format!("GET /o/{addr} {head}Range: bytes=5-99, 200-\r\nIf-Range: \"x\"\r\n\r\n"),
        format!("HEAD /o/{addr} {head}If-None-Match: W/\"a\", *\r\nConnection: keep-alive\r\n\r\n"),
        format!("GET http://localhost:80/o/{addr}?x=%20 {head}X-Corr-Id: a-1\r\n\r\n"),
        put_head(&addr_of(body.as_bytes()), body.len()) + body,
        format!(
            "PUT /o/ {head}Transfer-Encoding: chunked\r\n\r\na;b=c\r\n{body}\r\n0\r\nT: u\r\n\r\n"
        ),
        format!("OPTIONS * {head}Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"),
        format!("DELETE /o/{} {head}Authorization: Bearer x\r\n\r\n", addr_of(body.as_bytes())),
    ];
    let orders = ["/readyz", "/metrics", "/storage", "/debug/shards", "/debug/profile?seconds=0"];
    let orders = orders.map(|path| format!("GET {path} {head}\r\n"));
    let (during, counts) = target.measure_while("during", || {
        let (mut dice, mut counts) = (Dice(7), [0; 6]);
        for round in 0..2500 {
            // Two requests in one; either may be hit.
            let is_admin = round % 5 == 0;
            let of: &[String] = if is_admin { &orders } else { &honest };
            let (first, second) = (dice.below(of.len()), dice.below(of.len()));
            let mut bytes = (of[first].clone() + &of[second]).into_bytes();
            dice.mutate(&mut bytes);
            let door = if is_admin { Door::Admin } else { Door::Http };
            let mut peer = Rude::connect(&target.node, door, None);
            // The node may end it before it is all sent.
            let _ = peer.send(&bytes);
            peer.half_close();
            let (answers, end) = peer.read_within(MIB, Duration::from_secs(20));
            assert_ne!(end, End::Open, "round {round}: {:?}", String::from_utf8_lossy(&bytes));
            for status in statuses(&answers) {
                counts[usize::from(status / 100).min(5)] += 1;
                let is_ours = status == 500 || status == 502 || status == 507;
                assert!(!is_ours, "{status} to {:?}", String::from_utf8_lossy(&bytes));
            }
        }
        counts
    });
    eprintln!("answers by their first digit: {counts:?}");
    assert!(counts[2] > 100 && counts[4] > 100, "{counts:?}");
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}

#[test]
fn frames_with_wrong_bytes() {
    let target = Target::warm(1, &[]);
    let frames = [
        request(1, &json!({"op": "get", "addr": target.small.addr, "meta": true, "len": 9})),
        request(2, &json!({"op": "put", "len": 10})),
        frame(REQ | END, 2, b"0123456789"),
        request(3, &json!({"op": "has", "addr": addr_of(b"0123456789")})),
        Frame { app: HELLO, ..frame(REQ, 4, b"") },
        frame(REQ, 1, br#"{"credit": 5}"#),
        Frame { cap: b"token".to_vec(), ..frame(REQ | START, 5, b"{}") },
    ];
    let honest: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    let (during, codes) = target.measure_while("during", || {
        let (mut dice, mut codes) = (Dice(9), Vec::new());
        for round in 0..1500 {
            let mut bytes = honest.clone();
            dice.mutate(&mut bytes);
            let door = if round % 10 == 0 { Door::Oap } else { Door::OapPlain };
            let mut peer = Rude::connect(&target.node, door, None);
            // The node may end it before it is all sent.
            let _ = peer.send(&bytes);
            peer.half_close();
            let (answers, end) = peer.read_within(MIB, Duration::from_secs(20));
            assert_ne!(end, End::Open, "round {round}: {bytes:x?}");
            // Whole frames only, unless the connection was cut with what it had still to say.
            let mut rest = &answers[..];
            while let Ok(Some(frame)) = read_frame(&mut rest) {
                if frame.code >= 400 {
                    assert_ne!(frame.error().0, 500, "round {round}: {bytes:x?}");
                }
                codes.push(frame.code);
            }
            assert!(rest.is_empty() || end == End::Reset, "round {round}: {} more", rest.len());
        }
        codes
    });
    let bad = codes.iter().filter(|code| **code >= 400).count();
    eprintln!("{} answers, {bad} of them errors", codes.len());
    assert!(bad > 100 && codes.len() - bad > 100, "{bad} of {}", codes.len());
    during.expect_served();
    during.expect_within_bill();
    target.finish();
}
