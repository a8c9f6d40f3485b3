//! Paths of bundles: found, negotiated, redirected.

use ron_codec::manifest::{self, Content, Entry, Head, Payment, Stored};

use ron_io::stats::Encoded;

use super::*;
use crate::limits::RESOLVED_NS;

/// Bytes of a file, and of its copies.
struct File(&'static str, &'static str, Option<&'static str>, Option<&'static str>);

const FILES: [File; 5] = [
    File("a b.txt", "plain", None, None),
    File("app.js", "let a = 'as it is';", Some("br of it"), Some("zstd")),
    File("docs/index.html", "<p>docs", None, None),
    File("index.html", "<p>index", Some("BR"), None),
    File("ä/ö", "o", None, None),
];

impl Bench {
    fn put(&mut self, text: &str) -> Stored {
        Stored { address: self.store(text.as_bytes()), bytes: text.len() as u64 }
    }

    /// Stores a bundle of these files, and as many others.
    fn bundle(&mut self, files: &[File], others: usize) -> Address {
        self.bundle_of(Head::default(), files, others)
    }

    fn bundle_of(&mut self, head: Head, files: &[File], others: usize) -> Address {
        let mut entries: Vec<Entry> = files
            .iter()
            .map(|File(path, text, br, zstd)| {
                let mime = if path.ends_with(".js") { "text/javascript" } else { "text/html" };
                let content = Content {
                    identity: self.put(text),
                    mime: mime.into(),
                    br: br.map(|text| self.put(text)),
                    zstd: zstd.map(|text| self.put(text)),
                };
                Entry { path: (*path).into(), content }
            })
            .collect();
        let other = |nth| Entry { path: format!("tiles/{nth:06}"), ..entries[0].clone() };
        let others: Vec<Entry> = (0..others).map(other).collect();
        entries.extend(others);
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let bytes = entries.iter().map(|entry| entry.content.identity.bytes).sum();
        let mut text = Vec::new();
        let head = Head { files: entries.len() as u64, bytes, ..head };
        head.write(&mut text).unwrap();
        entries.iter().for_each(|entry| entry.write(&mut text).unwrap());
        manifest::write_end(&mut text);
        self.store(&text)
    }
}

fn tag(text: &str) -> String {
    format!("\"{}\"", Address::of(text.as_bytes()))
}

#[test]
fn each_path_leads_to_its_file() {
    for others in [0, 3000] {
        let mut bench = Bench::new();
        let bundle = bench.bundle(&FILES, others);
        for (path, text, mime) in [
            ("/a%20b.txt", "plain", "text/html"),
            ("//a%20b.txt?x=1", "plain", "text/html"),
            ("/app.js", "let a = 'as it is';", "text/javascript"),
            ("/docs/", "<p>docs", "text/html"),
            ("/docs/index.html", "<p>docs", "text/html"),
            ("/", "<p>index", "text/html"),
            ("/?x", "<p>index", "text/html"),
            ("/%C3%A4%2F%C3%B6", "o", "text/html"),
        ] {
            for _ in 0..2 {
                let answer = bench.ask(get(format!("/o/{bundle}{path}"), ""));
                assert_eq!((answer.status, &answer.body[..]), (200, text.as_bytes()), "{path}");
                assert_eq!(answer.field("Content-Type"), Some(mime));
                assert_eq!(answer.field("ETag"), Some(tag(text).as_str()));
                assert!(answer.field("Cache-Control").unwrap().contains("immutable"));
                assert!(answer.field("Content-Security-Policy").unwrap().contains("sandbox"));
                let head = bench.ask(request("HEAD", format!("/o/{bundle}{path}"), ""));
                let same = |answer: &Answer| {
                    let lines = answer.head.lines().filter(|line| !line.starts_with("X-Corr"));
                    lines.map(str::to_owned).collect::<Vec<_>>()
                };
                assert_eq!(same(&head), same(&answer));
            }
        }
        for (path, status) in [
            ("/nothing", 404),
            ("/docs/nothing", 404),
            ("/nothing/", 404),
            ("/app.js/", 404),
            ("/../app.js", 404),
            ("/%zz", 404),
            ("/%ff", 404),
            ("/tiles", 404),
        ] {
            let answer = bench.ask(get(format!("/o/{bundle}{path}"), ""));
            assert_eq!((answer.status, answer.error().as_str()), (status, "not_found"), "{path}");
        }
    }
}

#[test]
fn a_path_that_is_looked_for_again_asks_for_no_manifest_for_a_while() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 3000);
    let ask = |bench: &mut Bench| {
        bench.asked.clear();
        assert_eq!(bench.ask(get(format!("/o/{bundle}/tiles/002000"), "")).status, 200);
        bench.asked.len()
    };
    assert!(ask(&mut bench) > 2);
    assert_eq!(ask(&mut bench), 1);
    bench.now.mono_ns += RESOLVED_NS;
    // Not beyond: the bundle may be deleted.
    bench.objects.remove(&bundle);
    let answer = bench.ask(get(format!("/o/{bundle}/tiles/002000"), ""));
    assert_eq!(answer.status, 404);
}

#[test]
fn a_directory_without_its_slash_is_elsewhere() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    let answer = bench.ask(get(format!("/o/{bundle}/docs?a=b"), ""));
    let target = format!("/o/{bundle}/docs/?a=b");
    assert_eq!((answer.status, answer.field("Location")), (301, Some(target.as_str())));
    assert_eq!(answer.body, b"");
    assert_eq!(bench.counted(Op::Get, 301), 1);
}

#[test]
fn an_object_that_is_no_bundle_has_no_paths() {
    let mut bench = Bench::new();
    for text in ["hello", "", "schema_version = 3\nkind = \"bundle\"\nhello"] {
        let object = bench.store(text.as_bytes());
        let whole = bench.ask(get(format!("/o/{object}/"), ""));
        let is_like_a_bundle = text.len() > 5;
        assert_eq!(whole.status, 200, "{is_like_a_bundle}");
        assert_eq!(whole.body, text.as_bytes());
        assert_eq!(bench.ask(get(format!("/o/{object}/x"), "")).error(), "not_found");
    }
    let missing = Address::of(b"missing");
    for path in ["", "/", "/x", "/Manifest.toml"] {
        assert_eq!(bench.ask(get(format!("/o/{missing}{path}"), "")).error(), "not_found");
    }
}

#[test]
fn the_manifest_of_a_bundle_is_shown() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    let path = format!("/o/{bundle}/Manifest.toml");
    let answer = bench.ask(get(&path, ""));
    assert_eq!((answer.status, &answer.body), (200, &bench.objects[&bundle]));
    assert_eq!(answer.field("Content-Type"), Some("application/toml"));
    assert_eq!(answer.field("Cache-Control"), Some("public, max-age=60"));
    let own = format!("\"{bundle}\"");
    assert_eq!(answer.field("ETag"), Some(own.as_str()));
    let same = bench.ask(get(&path, &format!("If-None-Match: {own}\r\n")));
    assert_eq!((same.status, same.field("Cache-Control")), (304, Some("public, max-age=60")));
    let part = bench.ask(get(&path, "Range: bytes=0-9\r\n"));
    assert_eq!((part.status, &part.body[..]), (206, &b"schema_ver"[..]));
    assert_eq!(bench.ask(get(&path, "Range: bytes=99999-\r\n")).status, 416);
}

#[test]
fn copies_are_sent_to_who_takes_them() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    let path = format!("/o/{bundle}/app.js");
    for _ in 0..2 {
        for (accept, coding, text) in [
            ("br, zstd, gzip, identity", Some("zstd"), "zstd"),
            ("br", Some("br"), "br of it"),
            ("br, zstd;q=0.5", Some("br"), "br of it"),
            ("gzip", None, "let a = 'as it is';"),
            ("br;q=0, zstd;q=0", None, "let a = 'as it is';"),
            ("zstd, identity;q=0", Some("zstd"), "zstd"),
        ] {
            let fields = format!("Accept-Encoding: {accept}\r\n");
            let answer = bench.ask(get(&path, &fields));
            assert_eq!(answer.field("Content-Encoding"), coding, "{accept}");
            assert_eq!(answer.field("Vary"), Some("Accept-Encoding"));
            assert_eq!((answer.status, &answer.body[..]), (200, text.as_bytes()));
            assert_eq!(answer.field("ETag"), Some(tag(text).as_str()));
            // A condition is about the form that would be sent, and so is a range.
            let same = bench.ask(get(&path, &format!("{fields}If-None-Match: {}\r\n", tag(text))));
            assert_eq!((same.status, same.field("Vary")), (304, Some("Accept-Encoding")));
            let other = format!("{fields}If-None-Match: {}\r\n", tag("other"));
            assert_eq!(bench.ask(get(&path, &other)).status, 200);
            let part = bench.ask(get(&path, &format!("{fields}Range: bytes=-2\r\n")));
            assert_eq!((part.status, &part.body[..]), (206, &text.as_bytes()[text.len() - 2..]));
            let if_match = format!("{fields}If-Match: {}\r\n", tag("other"));
            assert_eq!(bench.ask(get(&path, &if_match)).status, 412);
        }
        let none = bench.ask(get(&path, "Accept-Encoding: gzip, *;q=0\r\n"));
        assert_eq!((none.status, none.error().as_str()), (406, "not_acceptable"));
    }
    // Two rounds of a whole and two other answers with a body.
    let count = |encoded| bench.stats.encoded(encoded).get();
    assert_eq!((count(Encoded::Br), count(Encoded::Zstd)), (2 * 2 * 3, 2 * 2 * 3));
    let plain = bench.ask(get(format!("/o/{bundle}/docs/"), "Accept-Encoding: br\r\n"));
    assert_eq!((plain.field("Vary"), plain.field("Content-Encoding")), (None, None));
}

#[test]
fn a_copy_that_is_gone_is_not_missed() {
    for (gone, fields, status) in [
        (true, "Accept-Encoding: br\r\n", 200),
        (false, "Accept-Encoding: br\r\n", 200),
        (true, "Accept-Encoding: br, identity;q=0\r\n", 406),
    ] {
        let mut bench = Bench::new();
        let bundle = bench.bundle(&FILES, 0);
        if gone {
            bench.objects.remove(&Address::of(b"br of it"));
        } else {
            // The manifest is the first question, the copy the second.
            bench.fault = Some((1, Fault::Integrity));
        }
        let answer = bench.ask(get(format!("/o/{bundle}/app.js"), fields));
        assert_eq!((answer.status, answer.field("Content-Encoding")), (status, None));
        if status == 200 {
            assert_eq!(answer.body, b"let a = 'as it is';");
            assert_eq!(answer.field("ETag"), Some(tag("let a = 'as it is';").as_str()));
        }
    }
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    bench.objects.remove(&Address::of(b"plain"));
    assert_eq!(bench.ask(get(format!("/o/{bundle}/a%20b.txt"), "")).error(), "not_found");
}

#[test]
fn a_search_ends_with_its_connection_and_with_its_time() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    bench.hold_asks = true;
    bench.bytes(get(format!("/o/{bundle}/app.js"), ""));
    assert!(bench.session().held() > 0);
    bench.tell(|session, cx| session.on_closed(cx));
    let last = bench.asks.pop_back().map(|(_, ask)| ask);
    assert!(matches!(last, Some(Ask::Cancel { index: 0, .. })), "{last:?}");
    assert_eq!((bench.stats.inflight.get(), bench.session().held()), (0, 0));

    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    bench.hold_asks = true;
    let limit = bench.config.deadlines.stream_ns;
    bench.bytes(get(format!("/o/{bundle}/app.js"), ""));
    bench.run_out(limit);
    assert_eq!(bench.answers(&[])[0].error(), "upstream_timeout");
}

#[test]
fn a_store_that_fails_is_told_of() {
    for number in 0..3 {
        for (fault, code) in [(Fault::Busy, "overload"), (Fault::Disk, "internal")] {
            let mut bench = Bench::new();
            let bundle = bench.bundle(&FILES, 3000);
            bench.fault = Some((number, fault));
            let answer = bench.ask(get(format!("/o/{bundle}/tiles/001500"), ""));
            assert_eq!(answer.error(), code, "question {number}");
        }
    }
}

#[test]
fn terms_of_payment_are_shown_and_kept_where_that_is_wanted() {
    let payment = |required| Payment {
        required,
        currency: "USD".into(),
        price_model: "per_request".into(),
        price: "0.01".into(),
        wallet: "w1".into(),
    };
    for (required, enforce, status) in
        [(false, false, 200), (true, false, 200), (false, true, 200), (true, true, 402)]
    {
        let mut bench = Bench::with(Config { enforce_payments: enforce, ..config() }, "::1", false);
        let head = Head { payment: Some(payment(required)), ..Head::default() };
        let bundle = bench.bundle_of(head, &FILES, 0);
        for path in ["/app.js", "/app.js", "/", "/Manifest.toml"] {
            let answer = bench.ask(get(format!("/o/{bundle}{path}"), ""));
            assert_eq!(answer.status, status, "{path} {required} {enforce}");
            for (field, value) in [
                ("X-Payment-Currency", "USD"),
                ("X-Payment-Price-Model", "per_request"),
                ("X-Payment-Price", "0.01"),
                ("X-Payment-Wallet", "w1"),
            ] {
                assert_eq!(answer.field(field), Some(value), "{path}");
            }
            if status == 402 {
                assert_eq!(answer.error(), "payment_required");
            }
        }
        for path in ["", "/payload.bin"] {
            let answer = bench.ask(get(format!("/o/{bundle}{path}"), ""));
            assert_eq!(answer.status, status, "the manifest, by its own address");
        }
        let plain = format!("/o/{}", Address::of(b"plain"));
        let answer = bench.ask(get(plain, ""));
        assert_eq!((answer.status, answer.field("X-Payment-Price")), (200, None));
    }
}

#[test]
fn several_ranges_are_those_of_the_identity_form() {
    let mut bench = Bench::new();
    let bundle = bench.bundle(&FILES, 0);
    let path = format!("/o/{bundle}/app.js");
    let answer = bench.ask(get(&path, "Accept-Encoding: br\r\nRange: bytes=0-1,5-6\r\n"));
    let hex = tag(FILES[1].1)[4..68].to_owned();
    let part = |range, text| {
        let head = "Content-Type: text/javascript\r\nContent-Range: bytes";
        format!("--{hex}\r\n{head} {range}/19\r\n\r\n{text}\r\n")
    };
    let body = format!("{}{}--{hex}--\r\n", part("0-1", "le"), part("5-6", " ="));
    assert_eq!((answer.status, String::from_utf8(answer.body.clone()).unwrap()), (206, body));
    assert_eq!(answer.field("ETag"), Some(tag(FILES[1].1).as_str()));
    assert_eq!(
        (answer.field("Content-Encoding"), answer.field("Vary")),
        (None, Some("Accept-Encoding"))
    );
    let kind = format!("multipart/byteranges; boundary={hex}");
    assert_eq!(answer.field("Content-Type"), Some(kind.as_str()));
    // A client that takes nothing but a copy gets all of it.
    let fields = "Accept-Encoding: br, identity;q=0\r\nRange: bytes=0-1,5-6\r\n";
    let answer = bench.ask(get(&path, fields));
    assert_eq!((answer.status, &answer.body[..]), (200, &b"br of it"[..]));
}

#[test]
fn groups_of_a_copy_that_was_given_up_come_too_late() {
    let mut bench = Bench::new();
    let (plain, copy) = (sample(300_000), sample(300_001)[20_001..].to_vec());
    let stored = |bench: &mut Bench, bytes: &[u8]| Stored {
        address: bench.store(bytes),
        bytes: bytes.len() as u64,
    };
    let mut content = Content {
        identity: stored(&mut bench, &plain),
        mime: "text/plain".into(),
        br: None,
        zstd: None,
    };
    content.br = Some(stored(&mut bench, &copy));
    let mut text = Vec::new();
    Head { files: 1, bytes: 300_000, ..Head::default() }.write(&mut text).unwrap();
    Entry { path: "a".into(), content }.write(&mut text).unwrap();
    manifest::write_end(&mut text);
    let bundle = bench.store(&text);
    assert_eq!(bench.ask(request("HEAD", format!("/o/{bundle}/a"), "")).status, 200);

    bench.out.clear();
    bench.hold_asks = true;
    let fields = "Accept-Encoding: br\r\nRange: bytes=-270000\r\n";
    bench.bytes(get(format!("/o/{bundle}/a"), fields));
    let next = |bench: &mut Bench| {
        let (id, ask) = bench.asks.pop_front().expect("something is asked for");
        (id.stream, bench.answer(ask))
    };
    let (stream, reply) = next(&mut bench);
    bench.tell(|session, cx| session.on_reply(stream, reply, cx));
    let mut late: Vec<_> = (0..bench.asks.len()).map(|_| next(&mut bench)).collect();
    assert!(late.len() > 1, "several groups of the copy are on their way");
    let (stream, _) = late.remove(0);
    let damaged = Reply::Failed(Fault::Integrity);
    bench.tell(|session, cx| session.on_reply(stream, damaged, cx));
    bench.asks.retain(|(_, ask)| !matches!(ask, Ask::Cancel { .. }));
    let (stream, reply) = next(&mut bench);
    bench.tell(|session, cx| session.on_reply(stream, reply, cx));
    late.push((late[0].0, Reply::Failed(Fault::Integrity)));
    for (stream, reply) in late {
        bench.tell(|session, cx| session.on_reply(stream, reply, cx));
    }
    bench.hold_asks = false;
    bench.run();
    let answer = bench.answers(&["GET"]).remove(0);
    assert_eq!((answer.status, answer.field("Content-Encoding")), (206, None));
    assert!(answer.body == plain[30_000..], "the bytes are those of the identity form");
}
