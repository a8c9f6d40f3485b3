//! Requests as clients send them, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::oap::{APP_HELLO, APP_MAILBOX, APP_STORAGE};

fn addr() -> Address {
    Address::from_bytes([0xcd; 32])
}

fn hex() -> String {
    "cd".repeat(32)
}

fn parse(json: &str) -> Result<StorageRequest, RequestError> {
    StorageRequest::parse(json.as_bytes())
}

fn missing(field: &'static str) -> RequestError {
    RequestError::Missing { field }
}

#[test]
fn a_get_by_address_in_its_shortest_and_longest_form() {
    let short = parse(&format!(r#"{{"op":"get","addr":"b3:{}"}}"#, hex()));
    assert_eq!(short, Ok(StorageRequest::Get(GetRequest::whole(addr()))));

    let long = format!(
        r#" {{ "meta" : true, "len":7, "offset":18446744073709551615,
             "addr":"b3:{}", "op":"get" }} "#,
        hex()
    );
    let what = GetWhat::ByAddress(addr());
    let want = GetRequest { what, offset: u64::MAX, len: Some(7), meta: true };
    assert_eq!(parse(&long), Ok(StorageRequest::Get(want)));
}

#[test]
fn an_address_without_prefix_is_accepted() {
    // OAP/1 §1.3
    let has = parse(&format!(r#"{{"op":"has","addr":"{}"}}"#, hex()));
    assert_eq!(has, Ok(StorageRequest::Has { addr: addr() }));
}

#[test]
fn what_follows_the_dot_of_an_address_is_ignored() {
    // OAP/1 §1.3
    for text in [format!("b3:{}.png", hex()), format!("{}.x-1", hex())] {
        let get = StorageRequest::Get(GetRequest::whole(addr()));
        assert_eq!(parse(&format!(r#"{{"op":"get","addr":"{text}"}}"#)), Ok(get));
        let has = StorageRequest::Has { addr: addr() };
        assert_eq!(parse(&format!(r#"{{"op":"has","addr":"{text}"}}"#)), Ok(has));
        let put = StorageRequest::Put { len: 1, addr: Some(addr()) };
        assert_eq!(parse(&format!(r#"{{"op":"put","len":1,"addr":"{text}"}}"#)), Ok(put));
    }
    for text in [format!("{}.", hex()), format!("{}.PNG", hex()), format!("{}.a.b", hex())] {
        let wrong = RequestError::WrongType { field: "addr", want: "an address" };
        assert_eq!(parse(&format!(r#"{{"op":"has","addr":"{text}"}}"#)), Err(wrong), "{text}");
    }
}

#[test]
fn a_get_by_path() {
    let get = parse(r#"{"op":"get","path":"/tiles/12/654/1583.webp"}"#).unwrap();
    let StorageRequest::Get(get) = get else { panic!("{get:?}") };
    assert_eq!(get.what, GetWhat::ByPath("/tiles/12/654/1583.webp".to_owned()));

    let escaped = parse(r#"{"op":"get","path":"\/a\u0020\u00e9"}"#).unwrap();
    let StorageRequest::Get(get) = escaped else { panic!("{escaped:?}") };
    assert_eq!(get.what, GetWhat::ByPath("/a é".to_owned()));

    for path in ["", "a/b", "\\u0041/"] {
        let error = parse(&format!(r#"{{"op":"get","path":"{path}"}}"#)).unwrap_err();
        assert_eq!(error, RequestError::WrongType { field: "path", want: "a path from /" });
    }
}

#[test]
fn a_put_with_and_without_address() {
    assert_eq!(parse(r#"{"op":"put","len":0}"#), Ok(StorageRequest::Put { len: 0, addr: None }));
    assert_eq!(
        parse(&format!(r#"{{"op":"put","len":5,"addr":"b3:{}"}}"#, hex())),
        Ok(StorageRequest::Put { len: 5, addr: Some(addr()) })
    );
    assert_eq!(parse(r#"{"op":"put"}"#), Err(missing("len")));
}

#[test]
fn unknown_fields_are_skipped_and_null_is_absent() {
    // OAP/1 §6.2
    let json = format!(
        r#"{{"trace":{{"op":[1,{{}}]}},"op":"get","x":[[]],"y":-1.5e9,"addr":"b3:{}",
            "path":null,"offset":null,"len":null,"meta":null}}"#,
        hex()
    );
    assert_eq!(parse(&json), Ok(StorageRequest::Get(GetRequest::whole(addr()))));
    assert_eq!(parse(r#"{"op":null}"#), Err(missing("op")));
}

#[test]
fn fields_of_the_wrong_type_are_named() {
    let cases = [
        ("op", "1"),
        ("addr", "1"),
        ("addr", "\"b3:cd\""),
        ("addr", "[]"),
        ("path", "{}"),
        ("offset", "-1"),
        ("offset", "1.0"),
        ("offset", "\"1\""),
        ("len", "18446744073709551616"),
        ("len", "1e3"),
        ("len", "[[1]]"),
        ("meta", "1"),
        ("meta", "\"true\""),
    ];
    for (field, value) in cases {
        let rest = [("op", "\"get\"".to_owned()), ("addr", format!("\"b3:{}\"", hex()))];
        let rest = rest.iter().filter(|(name, _)| *name != field);
        let mut json = format!(r#"{{"{field}":{value}"#);
        rest.for_each(|(name, value)| json.push_str(&format!(r#","{name}":{value}"#)));
        json.push('}');
        let error = parse(&json).unwrap_err();
        assert!(
            matches!(error, RequestError::WrongType { field: found, .. } if found == field),
            "{json}: {error:?}"
        );
        assert_eq!(error.code().status(), 400);
    }
}

#[test]
fn ambiguity_is_refused() {
    // OAP/1 §6.2
    let twice = parse(r#"{"op":"put","len":1,"op":"has","len":2}"#);
    assert_eq!(twice, Err(RequestError::Twice { field: "op" }));
    // Null counts as given, and an unknown field may come as often as it likes.
    let twice = parse(r#"{"op":"put","len":null,"len":2}"#);
    assert_eq!(twice, Err(RequestError::Twice { field: "len" }));
    assert!(parse(r#"{"op":"put","x":1,"x":1,"len":2}"#).is_ok());
    // OAP/1 §6.3
    let both = parse(&format!(r#"{{"op":"get","addr":"b3:{}","path":"/a"}}"#, hex()));
    assert_eq!(both, Err(RequestError::Both { a: "addr", b: "path" }));
    assert_eq!(parse(r#"{"op":"get"}"#), Err(missing("addr")));
    assert_eq!(parse(r#"{"op":"has","path":"/a"}"#), Err(missing("addr")));
}

#[test]
fn an_unknown_op_is_repeated_in_part() {
    let unknown = |op: &str| parse(&format!(r#"{{"op":"{op}"}}"#));
    let error = |op: String| Err(RequestError::UnknownOp { op });
    assert_eq!(unknown("GET"), error("GET".to_owned()));
    assert_eq!(unknown(&"x".repeat(33)), error("x".repeat(32)));
    // A cut never falls inside a character.
    assert_eq!(unknown(&format!("x{}", "é".repeat(40))), error(format!("x{}", "é".repeat(15))));
    // The text of the error has nothing in it that could forge a log line.
    let error = unknown("a\\nb\\u001b").unwrap_err().to_string();
    assert!(!error.contains(['\n', '\u{1b}']), "{error:?}");
}

#[test]
fn the_longest_request_is_read_and_one_more_byte_is_not() {
    // OAP/1 §6.1
    let mut json = r#"{"op":"put","len":1}"#.to_owned();
    json.push_str(&" ".repeat(REQUEST_LEN_MAX - json.len()));
    assert!(parse(&json).is_ok());
    json.push(' ');
    let error = parse(&json).unwrap_err();
    assert_eq!(error, RequestError::TooLong { len: REQUEST_LEN_MAX + 1 });
    assert_eq!(error.code().status(), 413);
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(4000));
    let deep_known = format!(r#"{{"len":{}}}"#, "[".repeat(4000));
    let cases = [
        "",
        "null",
        "[]",
        "\"get\"",
        "{",
        r#"{"op":"put","len":1}{}"#,
        r#"{"op":"put","len":1,}"#,
        r#"{"op":"put","len":01}"#,
        r#"{"op":"put" "len":1}"#,
        r#"{op:"put"}"#,
        "{\"op\":\"pu\u{1}t\"}",
        &deep,
        &deep_known,
    ];
    for json in cases {
        let error = parse(json).unwrap_err();
        assert!(matches!(error, RequestError::NotJson { .. }), "{json:.40}: {error:?}");
    }
    let bytes = b"{\"op\":\"\xff\"}";
    assert!(matches!(StorageRequest::parse(bytes), Err(RequestError::NotJson { .. })));
    // OAP/1 §1.3: JSON is UTF-8, in a field that is skipped too.
    let skipped = b"{\"op\":\"put\",\"len\":1,\"x\":\"\xff\"}";
    assert_eq!(StorageRequest::parse(skipped), Err(RequestError::NotJson { column: 26 }));
}

#[test]
fn windows_lie_within_the_object() {
    // OAP/1 §6.4
    let get = |offset, len| GetRequest { offset, len, ..GetRequest::whole(addr()) };
    let good = |offset, len| Ok(Window { offset, len });
    assert_eq!(get(0, None).window(0), good(0, 0));
    assert_eq!(get(0, None).window(10), good(0, 10));
    assert_eq!(get(9, None).window(10), good(9, 1));
    assert_eq!(get(10, None).window(10), good(10, 0));
    assert_eq!(get(11, None).window(10), Err(RequestError::Offset { offset: 11, size: 10 }));
    assert_eq!(get(4, Some(0)).window(10), good(4, 0));
    assert_eq!(get(4, Some(6)).window(10), good(4, 6));
    assert_eq!(get(4, Some(7)).window(10), good(4, 6));
    assert_eq!(get(4, Some(u64::MAX)).window(10), good(4, 6));
    assert_eq!(get(u64::MAX, Some(u64::MAX)).window(u64::MAX), good(u64::MAX, 0));
    assert!(!get(0, None).is_range());
    assert!(get(1, None).is_range() && get(0, Some(10)).is_range());
}

#[test]
fn credit_is_read() {
    // OAP/1 §7.2
    assert_eq!(parse_credit(br#"{"credit":65536}"#), Ok(65536));
    assert_eq!(parse_credit(br#"{"credit":0,"more":1}"#), Ok(0));
    assert_eq!(parse_credit(b"{}"), Err(missing("credit")));
    let error = parse_credit(br#"{"credit":-1}"#).unwrap_err();
    assert!(matches!(error, RequestError::WrongType { field: "credit", .. }));
    let mut out = Vec::new();
    write_credit(&mut out, 7);
    assert_eq!(out, br#"{"credit":7}"#);
}

#[test]
fn frames_of_clients_are_judged_by_their_header() {
    let check = |flags, app_proto_id, payload_len| {
        let head = FrameHeader { flags, app_proto_id, payload_len, ..FrameHeader::default() };
        check_client_frame(&head)
    };
    let start = Flags::REQ | Flags::START;
    assert_eq!(check(Flags::NONE, APP_HELLO, 0), Ok(()));
    assert_eq!(check(Flags::REQ, APP_HELLO, 0), Ok(()));
    assert_eq!(check(start | Flags::END, APP_HELLO, 0), Ok(()));
    assert_eq!(check(Flags::REQ, APP_HELLO, 1), Err(RequestError::HelloPayload { len: 1 }));
    assert_eq!(check(start | Flags::ACK_REQ | Flags::APP_E2E, APP_STORAGE, 9), Ok(()));
    let unmarked = check(Flags::START, APP_STORAGE, 9);
    assert_eq!(unmarked, Err(RequestError::FlagMissing { flag: "REQ" }));
    // OAP/1 §8.1
    assert_eq!(check(start, APP_MAILBOX, 9), Err(RequestError::App { app: 0x0201 }));
    assert_eq!(check(start, 0x0302, 9), Err(RequestError::App { app: 0x0302 }));
    for (bit, flag) in [(Flags::RESP, "RESP"), (Flags::EVENT, "EVENT"), (Flags::COMP, "COMP")] {
        let error = check(start | bit, APP_STORAGE, 9).unwrap_err();
        assert_eq!(error, RequestError::Flag { flag });
        assert!(error.to_string().contains(flag));
        assert_eq!(error.code().status(), 400);
    }
}

fn any_get() -> impl Strategy<Value = GetRequest> {
    let what = prop_oneof![
        any::<[u8; 32]>().prop_map(|bytes| GetWhat::ByAddress(Address::from_bytes(bytes))),
        any::<Vec<char>>()
            .prop_map(|tail| GetWhat::ByPath(format!("/{}", String::from_iter(tail)))),
    ];
    (what, any::<u64>(), any::<Option<u64>>(), any::<bool>())
        .prop_map(|(what, offset, len, meta)| GetRequest { what, offset, len, meta })
}

proptest! {
    #[test]
    fn gets_survive_the_wire(get in any_get()) {
        let mut out = Vec::new();
        write_get_request(&mut out, &get);
        prop_assert_eq!(StorageRequest::parse(&out), Ok(StorageRequest::Get(get)));
    }

    #[test]
    fn puts_and_has_survive_the_wire(len: u64, bytes: Option<[u8; 32]>) {
        let addr = bytes.map(Address::from_bytes);
        let mut out = Vec::new();
        write_put_request(&mut out, len, addr.as_ref());
        prop_assert_eq!(StorageRequest::parse(&out), Ok(StorageRequest::Put { len, addr }));
        if let Some(addr) = addr {
            out.clear();
            write_has_request(&mut out, &addr);
            prop_assert_eq!(StorageRequest::parse(&out), Ok(StorageRequest::Has { addr }));
        }
    }

    #[test]
    fn windows_agree_with_counting(offset in 0..40u64, len: Option<u8>, size in 0..40u64) {
        let len = len.map(|len| u64::from(len % 40));
        let get = GetRequest { offset, len, ..GetRequest::whole(addr()) };
        let counted = (0..size).skip(offset as usize).take(len.unwrap_or(99) as usize).count();
        match get.window(size) {
            Ok(window) => {
                prop_assert!(offset <= size);
                prop_assert_eq!(window, Window { offset, len: counted as u64 });
            }
            Err(error) => {
                prop_assert!(offset > size);
                prop_assert_eq!(error, RequestError::Offset { offset, size });
            }
        }
    }

    #[test]
    fn hostile_payloads_are_answered_not_feared(
        cut in 0..200usize, at in 0..200usize, byte: u8
    ) {
        let json = format!(
            r#"{{"op":"get","addr":"b3:{}","offset":1,"len":2,"meta":true}}"#, hex());
        let mut bytes = json.into_bytes();
        bytes.truncate(cut);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        // Whatever is accepted is a request that can be written and read again.
        if let Ok(StorageRequest::Get(get)) = StorageRequest::parse(&bytes) {
            let mut out = Vec::new();
            write_get_request(&mut out, &get);
            prop_assert_eq!(StorageRequest::parse(&out), Ok(StorageRequest::Get(get)));
        }
    }
}
