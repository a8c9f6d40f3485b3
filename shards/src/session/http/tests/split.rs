//! However a client's bytes are cut, the answers are the same bytes.

use proptest::prelude::*;

use super::*;

/// What a client saw when its bytes arrived in pieces that end at `cuts`.
fn outcome(text: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<Did>) {
    let mut bench = Bench::new();
    for len in [0, 10, 70_000, 200_000] {
        bench.store(&sample(len));
    }
    let mut at = 0;
    for end in cuts.iter().copied().chain([text.len()]) {
        bench.bytes(&text[at..end]);
        at = end;
    }
    bench.eof();
    assert_eq!(bench.stats.inflight.get(), 0);
    bench.did.retain(|did| matches!(did, Did::Finish | Did::Abort));
    (bench.out, bench.did)
}

fn assert_same(text: &[u8], cuts: &[usize]) {
    let (whole, cut) = (outcome(text, &[]), outcome(text, cuts));
    assert!(whole == cut, "{:?} cut at {cuts:?}", String::from_utf8_lossy(text));
    assert_eq!(whole.1, [Did::Finish, Did::Abort]);
}

fn known(len: usize) -> String {
    format!("/o/{}", Address::of(&sample(len)))
}

#[test]
fn requests_split_at_every_byte() {
    let put_chunks = request("PUT", known(10), "Transfer-Encoding: chunked\r\n");
    for text in [
        get(known(10), "X-Corr-Id: a\r\nRange: bytes=2-3\r\n") + &get("/", ""),
        "\r\n".to_owned() + &get(known(0), ""),
        put_chunks + "3;x\r\nabc\r\n0\r\nT: x\r\n\r\n" + &get(known(10), ""),
        request("PUT", "/o/", "Content-Length: 3\r\nExpect: 100-continue\r\n") + "abc",
        request("POST", "/", "Content-Length: 9\r\n") + "GET / HTT" + &get("/x", ""),
        "GET / HTTP/1.1\r\nHost: a\nx".to_owned(),
    ] {
        let text = text.as_bytes();
        for cut in 0..=text.len() {
            assert_same(text, &[cut]);
        }
        assert_same(text, &(0..text.len()).collect::<Vec<_>>());
    }
}

/// One request, sane or not, with its body.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        6 => prop::sample::select(vec![0usize, 10, 70_000, 200_000, 11]).prop_map(known),
        1 => Just("/o/".to_owned()),
        1 => Just("/nothing".to_owned()),
    ];
    let method = prop::sample::select(vec!["GET", "GET", "GET", "HEAD", "PUT", "DELETE", "BREW"]);
    let field = prop::sample::select(vec![
        "Range: bytes=5-69000\r\n",
        "Range: bytes=-3\r\n",
        "Range: bytes=65536-\r\n",
        "Range: bytes=-3,0-1,65530-65540\r\n",
        "If-None-Match: *\r\n",
        "If-Match: \"x\"\r\n",
        "Accept-Encoding: identity;q=0\r\n",
        "X-Corr-Id: mine\r\n",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
        "Bad : x\r\n",
    ]);
    let fields = prop::collection::vec(field, 0..3).prop_map(|fields| fields.concat());
    let body = prop_oneof![Just(0usize), 1..40usize, Just(70_000usize)].prop_map(sample);
    (method, path, fields, body, 0..3u8).prop_map(|(method, path, fields, body, framing)| {
        let head = |framing: &str| request(method, &path, &format!("{fields}{framing}"));
        match framing {
            0 if method != "PUT" => head("").into_bytes(),
            1 => {
                let mut text = head("Transfer-Encoding: chunked\r\n").into_bytes();
                for part in body.chunks(9_999) {
                    text.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
                    text.extend_from_slice(part);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\n\r\n");
                text
            }
            _ => [head(&format!("Content-Length: {}\r\n", body.len())).as_bytes(), &body].concat(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_requests_cut_anywhere(
        requests in prop::collection::vec(any_request(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let text = requests.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        assert_same(&text, &cuts);
    }

    #[test]
    fn garbage_is_survived(
        text in "(GET|PUT|/o/| |HTTP/1\\.1|\r\n|Host: h|Content-Length: 5|:|\\PC){0,40}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        assert_same(text.as_bytes(), &cuts);
    }
}
