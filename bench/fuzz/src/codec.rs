//! The readers of the codec against obvious versions of themselves.

use ron_codec::{
    address::{ADDRESS_HEX_LEN, Address},
    corr::CorrId,
    http::{
        body::{ChunkError, ChunkedDecoder, Step},
        etag::{if_match, if_none_match, if_range},
        multipart::Multipart,
        range::{ByteRange, RangeSpec, parse_range},
        request::{BodyKind, HeadError, Parsed, RequestHead, Version, parse_head},
        target::{Rel, Route, route},
    },
    limits::{HEAD_LEN_MAX, RANGES_ASKED_MAX, RANGES_MAX, RECORD_HEADER_LEN},
    oap::{self, GetWhat, StorageRequest},
    record::{RECORD_MAGIC, RecordHeader, RecordKind},
};
use serde_json::Value;

use super::Cuts;

/// Bytes of the checksum at the end of a record's header.
const CHECKSUM_LEN: usize = 16;

/// A head that arrives in pieces is judged as one that arrives whole, and what is accepted is
/// framed as somebody would frame it who splits it at its line ends.
pub fn http_head(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let whole = parse_head(stream, 0);
    let mut arrived = 0;
    for piece in cuts.pieces(stream) {
        let scanned = arrived;
        arrived += piece.len();
        match (parse_head(&stream[..arrived], scanned), &whole) {
            (Ok(Parsed::Partial), Ok(Parsed::Partial) | Err(_)) => {}
            (Ok(Parsed::Partial), Ok(Parsed::Head { len, .. })) => assert!(arrived < *len),
            (Ok(Parsed::Head { head, len }), Ok(Parsed::Head { head: other, len: other_len })) => {
                assert_eq!(len, *other_len);
                assert_eq!(format!("{head:?}"), format!("{other:?}"));
                break;
            }
            // An end that is decided early is one that is decided later, perhaps by another name.
            (Err(_), Err(_)) => break,
            (part, whole) => panic!("{arrived} bytes: {part:?}, all of them: {whole:?}"),
        }
    }
    match whole {
        Ok(Parsed::Partial) => assert!(stream.len() < HEAD_LEN_MAX, "this much is always enough"),
        Ok(Parsed::Head { head, len }) => {
            assert!(len <= stream.len() && len <= HEAD_LEN_MAX);
            check_head(&head, &stream[..len]);
        }
        Err(error) => check_refusal(error),
    }
}

fn check_refusal(error: HeadError) {
    assert!(error.must_close() && (400..=505).contains(&error.status()), "{error:?}");
    assert!(error.to_string().len() < 200);
}

/// The field lines of a head by their names, split as plainly as can be.
fn fields(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("a head ends in an empty line");
    let lines =
        text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.skip_while(|line| line.is_empty()).skip(1);
    lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
            let name = std::str::from_utf8(&line[..colon]).expect("a name is ASCII");
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "{name:?}");
            assert!(!line[colon..].iter().any(|byte| matches!(byte, 0 | b'\r' | 0x7f)));
            (name.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec())
        })
        .collect()
}

/// The host of an absolute target, which outweighs the field (RFC 9112 §3.2.2).
fn authority(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let target = line?.split(|byte| *byte == b' ').nth(1)?;
    let after = target.windows(3).position(|three| three == b"://")? + 3;
    // Else it is part of a path.
    (target[0] != b'/').then(|| target[after..].split(|byte| b"/?".contains(byte)).next())?
}

fn check_head(head: &RequestHead<'_>, bytes: &[u8]) {
    let fields = fields(bytes);
    let all = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(found, _)| found == name).map(|(_, value)| &value[..]).collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    match head.body {
        BodyKind::None => assert!(lengths.is_empty() && codings.is_empty()),
        BodyKind::Length(len) => {
            assert!(codings.is_empty() && !lengths.is_empty());
            for value in lengths.iter().flat_map(|value| value.split(|byte| *byte == b',')) {
                let text = std::str::from_utf8(value.trim_ascii()).expect("digits");
                assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?}");
                assert_eq!(text.parse::<u64>().unwrap_or(u64::MAX), len);
            }
        }
        BodyKind::Chunked => {
            assert!(lengths.is_empty() && head.version == Version::Http11);
            let all = codings.join(&b',').to_ascii_lowercase();
            let mut members = all.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            assert!(members.clone().filter(|member| !member.is_empty()).count() == 1);
            assert!(members.any(|member| member == b"chunked"));
        }
    }
    let hosts = all("host");
    assert!(hosts.len() <= 1, "{hosts:?}");
    assert!(!hosts.is_empty() || head.version == Version::Http10);
    assert_eq!(head.host, authority(bytes).or(hosts.first().copied()));
    let whole_server = head.target == "*";
    assert!(whole_server || head.target.starts_with(['/', '?']), "{:?}", head.target);
    assert!(!head.target.contains([' ', '\r', '\n', '\0']));
    assert_eq!(head.if_none_match.values().collect::<Vec<_>>(), all("if-none-match"));
    assert_eq!(head.if_match.values().collect::<Vec<_>>(), all("if-match"));
    read_values(head);
}

/// What a session asks of a head that it was given.
fn read_values(head: &RequestHead<'_>) {
    let address = Address::of(b"");
    let _ = route(head.target);
    let none = if_none_match(head.if_none_match, &address);
    assert!(none || !if_match(head.if_none_match, &address), "strong is narrower than weak");
    let _ = if_match(head.if_match, &address);
    let _ = head.if_range.is_some_and(|value| if_range(value, &address));
    let _ = head.range.map(|value| parse_range(value, 1000));
    let corr = CorrId::choose(head.corr_id, head.traceparent, 1, 2);
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    assert!(!corr.as_str().is_empty() && corr.as_str().bytes().all(is_plain), "{corr:?}");
}

/// `SIZE\nVALUE`: a range against a representation of that size.
pub fn ranges(input: &[u8]) {
    let line = input.iter().position(|byte| *byte == b'\n');
    let size = line.and_then(|end| std::str::from_utf8(&input[..end]).ok()?.parse().ok());
    let (size, value) = match (size, line) {
        (Some(size), Some(end)) => (size, &input[end + 1..]),
        _ => (10, input),
    };
    let found = parse_range(value, size);
    let ranges = match &found {
        RangeSpec::One(range) => std::slice::from_ref(range),
        RangeSpec::Several(ranges) => ranges.as_slice(),
        RangeSpec::Whole | RangeSpec::Unsatisfiable => &[],
    };
    let twin = ranges_twin(value, size);
    let is_twin = match &twin {
        Twin::Whole => found == RangeSpec::Whole,
        Twin::Parts(parts) if parts.is_empty() => found == RangeSpec::Unsatisfiable,
        Twin::Parts(parts) => parts[..] == *ranges,
    };
    assert!(is_twin, "{:?}: {found:?}, {twin:?}", String::from_utf8_lossy(value));
    assert_eq!(ranges.len() > 1, matches!(found, RangeSpec::Several(_)), "{found:?}");
    for range in ranges {
        assert!(range.start < range.end_exclusive && range.end_exclusive <= size, "{range:?}");
        assert_eq!(range.len(), range.end_exclusive - range.start);
    }
    if !ranges.is_empty() {
        check_parts(ranges, size);
    }
}

/// The heads of these parts, and what ends them, are as long as was said before.
fn check_parts(ranges: &[ByteRange], size: u64) {
    let multipart = Multipart { digest: &Address::of(b""), size, media_type: "a/b" };
    let mut heads = Vec::new();
    for (at, range) in ranges.iter().enumerate() {
        multipart.write_part_head(&mut heads, *range, at == 0);
    }
    multipart.write_end(&mut heads);
    let content = ranges.iter().map(|range| u128::from(range.len())).sum::<u128>();
    let all = content + heads.len() as u128;
    if all <= u128::from(u64::MAX) {
        assert_eq!(u128::from(multipart.body_len(ranges)), all);
    }
}

/// What the twin makes of a field: all of the content, or these parts of it.
#[derive(Debug)]
enum Twin {
    Whole,
    Parts(Vec<ByteRange>),
}

/// Joins what touches until nothing does, looking at every pair each time.
fn ranges_twin(value: &[u8], size: u64) -> Twin {
    let text = String::from_utf8_lossy(value).into_owned();
    let Some((unit, list)) = text.split_once('=') else { return Twin::Whole };
    let ows = [' ', '\t'];
    if !unit.trim_matches(ows).eq_ignore_ascii_case("bytes") {
        return Twin::Whole;
    }
    let members: Vec<&str> =
        list.split(',').map(|member| member.trim_matches(ows)).filter(|m| !m.is_empty()).collect();
    let mut parts = Vec::new();
    let mut whole = members.is_empty() || members.len() > RANGES_ASKED_MAX;
    for member in members {
        match range_twin(member, size) {
            RangeSpec::One(range) => parts.push(range),
            RangeSpec::Unsatisfiable => {}
            RangeSpec::Whole | RangeSpec::Several(_) => whole = true,
        }
    }
    let touch =
        |a: &ByteRange, b: &ByteRange| a.start <= b.end_exclusive && b.start <= a.end_exclusive;
    'again: loop {
        for later in 1..parts.len() {
            for earlier in 0..later {
                if touch(&parts[earlier], &parts[later]) {
                    let (a, b) = (parts[earlier], parts.remove(later));
                    let (start, end) = (a.start.min(b.start), a.end_exclusive.max(b.end_exclusive));
                    parts[earlier] = ByteRange { start, end_exclusive: end };
                    continue 'again;
                }
            }
        }
        break;
    }
    if whole || parts.len() > RANGES_MAX { Twin::Whole } else { Twin::Parts(parts) }
}

/// Numbers as text without leading zeros, which can be compared whatever their length.
fn range_twin(member: &str, size: u64) -> RangeSpec {
    let Some((first, last)) = member.split_once('-') else { return RangeSpec::Whole };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<u128>().map_or(u128::MAX, |number| number);
    let size = u128::from(size);
    let one = |start: u128, end: u128| {
        RangeSpec::One(ByteRange { start: start as u64, end_exclusive: end as u64 })
    };
    match (first.is_empty(), last.is_empty()) {
        (true, _) if !is_number(last) => RangeSpec::Whole,
        (true, _) if number(last) == 0 => RangeSpec::Unsatisfiable,
        (true, _) if size == 0 => RangeSpec::Whole,
        (true, _) => one(size.saturating_sub(number(last)), size),
        (false, _) if !is_number(first) || !(last.is_empty() || is_number(last)) => {
            RangeSpec::Whole
        }
        (false, false) if is_less(last, first) => RangeSpec::Whole,
        _ if number(first) >= size => RangeSpec::Unsatisfiable,
        (false, true) => one(number(first), size),
        (false, false) => one(number(first), number(last).saturating_add(1).min(size)),
    }
}

fn is_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    (a.len(), a) < (b.len(), b)
}

/// What a chunked body came to.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    payload: Vec<u8>,
    /// Where the body ended, if it did.
    consumed: Option<usize>,
    error: Option<ChunkError>,
}

/// A chunked body is read alike however it is cut, and a body that is complete is read as somebody
/// would who has all of it.
pub fn chunks(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let whole = decode(Cuts::WHOLE, stream);
    assert_eq!(decode(cuts, stream), whole);
    assert_eq!(decode(Cuts::BYTES, stream), whole);
    if let Some(consumed) = whole.consumed {
        let twin = chunks_twin(&stream[..consumed]);
        assert_eq!(twin.as_deref(), Some(&whole.payload[..]), "the twin reads another body");
    }
}

fn decode(cuts: Cuts, stream: &[u8]) -> Body {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Body { payload: Vec::new(), consumed: None, error: None };
    let mut at = 0;
    for piece in cuts.pieces(stream) {
        let mut rest = piece;
        loop {
            match decoder.decode(rest) {
                Ok(Step::Data { payload, consumed }) => {
                    assert!(!payload.is_empty() && consumed <= rest.len());
                    body.payload.extend_from_slice(payload);
                    rest = &rest[consumed..];
                }
                Ok(Step::NeedMore) => break,
                Ok(Step::Done { consumed }) => {
                    assert!(decoder.is_done());
                    body.consumed = Some(at + piece.len() - rest.len() + consumed);
                    return body;
                }
                Err(error) => {
                    body.error = Some(error);
                    return body;
                }
            }
        }
        at += piece.len();
    }
    assert_eq!(at, stream.len());
    body.consumed = decoder.is_done().then_some(at);
    body
}

/// All of a complete body at once; `None` when it is not one.
fn chunks_twin(mut stream: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    loop {
        let head = take_line(&mut stream)?;
        let size = head.split(|byte| *byte == b';').next()?.trim_ascii_end();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(stream.get(..size)?);
        stream = stream[size..].strip_prefix(b"\r\n")?;
    }
    while !take_line(&mut stream)?.is_empty() {}
    stream.is_empty().then_some(payload)
}

fn take_line<'a>(stream: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = stream.windows(2).position(|two| two == b"\r\n")?;
    let line = &stream[..end];
    *stream = &stream[end + 2..];
    Some(line)
}

/// An address is 64 lowercase digits, with or without `b3:`; percent-encoding changes nothing.
pub fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let digits = text.strip_prefix("b3:").unwrap_or(text);
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_address = digits.len() == ADDRESS_HEX_LEN && digits.bytes().all(is_digit);
    let parsed = text.parse::<Address>();
    assert_eq!(parsed.is_ok(), is_address, "{text:?}: {parsed:?}");
    if let Ok(address) = parsed {
        assert_eq!(address.to_hex(), digits.as_bytes());
        assert_eq!(address.to_string(), format!("b3:{digits}"));
        assert!(address.partition(3) < 3 && address.partition(1) == 0);
    }
    let segment = Address::parse_route_segment(text);
    let (stem, suffix) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
    assert_eq!(segment.ok(), segment_twin(stem, suffix), "{text:?}");
    check_route(text, segment.ok());
}

fn segment_twin(stem: &str, suffix: Option<&str>) -> Option<Address> {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    match suffix {
        Some(suffix) if !(1..=16).contains(&suffix.len()) => None,
        Some(suffix) if !suffix.bytes().all(legal) => None,
        _ => stem.parse().ok(),
    }
}

/// A segment names the same whether it is percent-encoded or not.
fn check_route(text: &str, address: Option<Address>) {
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let coded = route_address(&format!("/o/{encoded}"));
    if text.is_empty() {
        return;
    }
    if text.contains(['/', '?', '%']) {
        // Plain, these have a meaning of their own; encoded, no address has them.
        assert_eq!(coded, None, "{text:?}");
        let _ = route(&format!("/o/{text}"));
        return;
    }
    assert_eq!(coded, address, "{text:?}");
    assert_eq!(route_address(&format!("/o/{text}?query")), address, "{text:?}");
}

fn route_address(target: &str) -> Option<Address> {
    match route(target) {
        Route::Object { address, rel: Rel::Payload } => Some(address),
        Route::Object { rel, .. } => panic!("{target:?} has no {rel:?}"),
        Route::Upload | Route::Name(_) | Route::Unknown => None,
    }
}

/// A record's header is what it says, and is written as it was read. An input that begins with
/// the magic is given the checksum it lacks.
pub fn record(input: &[u8]) {
    let mut bytes = input.to_vec();
    if bytes.starts_with(&RECORD_MAGIC) && bytes.len() >= RECORD_HEADER_LEN {
        let sum = blake3::hash(&bytes[..RECORD_HEADER_LEN - CHECKSUM_LEN]);
        bytes[RECORD_HEADER_LEN - CHECKSUM_LEN..RECORD_HEADER_LEN]
            .copy_from_slice(&sum.as_bytes()[..CHECKSUM_LEN]);
    }
    let Ok(header) = RecordHeader::decode(&bytes) else { return };
    assert_eq!(header.encode(), bytes[..RECORD_HEADER_LEN]);
    assert!(header.record_len() >= RECORD_HEADER_LEN as u64);
    let outboard_end = header.outboard_offset() + u64::from(header.outboard_len());
    assert!(outboard_end <= header.record_len(), "{header:?}");
    // Only an object's bytes are in its record.
    let bytes = if header.kind() == RecordKind::Object { header.size() } else { 0 };
    assert!(u64::from(header.data_offset()) + bytes <= header.record_len(), "{header:?}");
}

/// A storage request says what the JSON says, and is written as it was read.
pub fn storage_request(input: &[u8]) {
    let parsed = StorageRequest::parse(input);
    let json = serde_json::from_slice::<Value>(input);
    let credit = oap::parse_credit(input);
    match &json {
        Ok(Value::Object(_)) => {}
        _ => assert!(parsed.is_err() && credit.is_err(), "{parsed:?} {credit:?} of {json:?}"),
    }
    if let Ok(credit) = credit {
        assert_eq!(json.as_ref().expect("it is JSON")["credit"], credit);
        let mut out = Vec::new();
        oap::write_credit(&mut out, credit);
        assert_eq!(oap::parse_credit(&out), Ok(credit));
    }
    let Ok(request) = parsed else {
        assert!(parsed.is_err_and(|error| error.to_string().len() < 300));
        return;
    };
    let json = json.expect("it is JSON");
    let address = |json: &Value| json["addr"].as_str().map(Address::parse_route_segment);
    let mut out = Vec::new();
    match &request {
        StorageRequest::Get(get) => {
            assert_eq!(json["op"], "get");
            assert_eq!(json["offset"].as_u64().unwrap_or(0), get.offset);
            assert_eq!(json["len"].as_u64(), get.len);
            match &get.what {
                GetWhat::ByAddress(addr) => assert_eq!(address(&json), Some(Ok(*addr))),
                GetWhat::ByPath(path) => assert_eq!(json["path"], **path),
            }
            for size in [0, 1, 65_536, u64::MAX] {
                let window = get.window(size);
                let is_within = |w: &oap::Window| w.offset + w.len <= size;
                assert!(window.as_ref().is_ok_and(is_within) || get.offset > size, "{window:?}");
            }
            oap::write_get_request(&mut out, get);
        }
        StorageRequest::Has { addr } => {
            assert_eq!((&json["op"], address(&json)), (&"has".into(), Some(Ok(*addr))));
            oap::write_has_request(&mut out, addr);
        }
        StorageRequest::Put { len, addr } => {
            assert_eq!((&json["op"], json["len"].as_u64()), (&"put".into(), Some(*len)));
            assert_eq!(address(&json), addr.map(Ok));
            oap::write_put_request(&mut out, *len, addr.as_ref());
        }
    }
    assert_eq!(StorageRequest::parse(&out), Ok(request));
}
