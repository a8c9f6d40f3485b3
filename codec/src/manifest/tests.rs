use proptest::prelude::*;

use super::{
    search::{LOOKS, Next, Search},
    *,
};
use crate::{
    address::Address,
    limits::{GROUP_LEN, MANIFEST_HEAD_LEN_MAX, MANIFEST_PATH_LEN_MAX},
};

fn stored(text: &str) -> Stored {
    Stored { address: Address::of(text.as_bytes()), bytes: text.len() as u64 }
}

fn entry(path: &str) -> Entry {
    let content =
        Content { identity: stored(path), mime: "text/plain".into(), br: None, zstd: None };
    Entry { path: path.into(), content }
}

fn manifest(entries: &[Entry]) -> Vec<u8> {
    let bytes = entries.iter().map(|entry| entry.content.identity.bytes).sum();
    let mut text = Vec::new();
    let head = Head { files: entries.len() as u64, bytes, ..Head::default() };
    head.write(&mut text).unwrap();
    entries.iter().for_each(|entry| entry.write(&mut text).unwrap());
    write_end(&mut text);
    text
}

/// Searches as a reader of groups does; returns what it came to and how many groups it read.
fn find(text: &[u8], path: &str) -> (Result<Next, ManifestError>, usize) {
    let mut search = Search::new(path, text.len() as u64);
    let (mut index, mut read) = (0, 0);
    loop {
        let start = index as usize * GROUP_LEN;
        let group = &text[start..text.len().min(start + GROUP_LEN)];
        read += 1;
        match search.on_group(index, group) {
            Ok(Next::Read(next)) => index = next,
            end => return (end, read),
        }
        assert!(read < 40, "a search reads few groups");
    }
}

#[test]
fn a_manifest_is_the_text_of_the_document() {
    let mut page = entry("b/ä \"q\".html");
    page.content.br = Some(stored("br"));
    page.content.zstd = Some(stored("zstd"));
    let payment = Payment {
        required: true,
        currency: "USD".into(),
        price_model: "per_request".into(),
        price: "0.01".into(),
        wallet: "w".into(),
    };
    let head = Head {
        tld: Some("map".into()),
        files: 2,
        bytes: 18,
        license: Some("CC0-1.0".into()),
        payment: Some(payment),
    };
    let mut text = Vec::new();
    head.write(&mut text).unwrap();
    let head_len = text.len();
    for entry in [entry("a.txt"), page.clone()] {
        entry.write(&mut text).unwrap();
    }
    write_end(&mut text);
    let address = |text: &str| Address::of(text.as_bytes());
    let expected = format!(
        "schema_version = 3\nkind = \"bundle\"\nhash_algo = \"b3\"\ntld = \"map\"\nfiles = 2\n\
         bytes = 18\nlicense = \"CC0-1.0\"\npayment = {{ required = true, currency = \"USD\", \
         price_model = \"per_request\", price = \"0.01\", wallet = \"w\" }}\nentries = [\n  \
         {{ path = \"a.txt\", address = \"{}\", bytes = 5, mime = \"text/plain\" }},\n  \
         {{ path = \"b/ä \\\"q\\\".html\", address = \"{}\", bytes = 13, mime = \"text/plain\", \
         br = {{ address = \"{}\", bytes = 2 }}, zstd = {{ address = \"{}\", bytes = 4 }} }},\n]\n",
        address("a.txt"),
        address(&page.path),
        address("br"),
        address("zstd")
    );
    assert_eq!(String::from_utf8(text.clone()).unwrap(), expected);
    assert_eq!(Head::parse(&text).unwrap(), (head, head_len));
    // Any reader of TOML understands it.
    let read: toml::Table = expected.parse().unwrap();
    assert_eq!(read["entries"][1]["path"].as_str(), Some(page.path.as_str()));
    assert_eq!(read["entries"][1]["zstd"]["bytes"].as_integer(), Some(4));
    assert_eq!(read["payment"]["required"].as_bool(), Some(true));
}

#[test]
fn only_one_spelling_is_read() {
    let mut line = Vec::new();
    entry("a").write(&mut line).unwrap();
    let line = String::from_utf8(line).unwrap();
    assert!(Entry::parse(line.as_bytes()).is_ok());
    for (from, to) in [
        ("  {", " {"),
        ("\"a\"", "'a'"),
        ("\"a\"", "\"\\u0061\""),
        ("\"a\"", "\"a/\""),
        ("\"a\"", "\"../a\""),
        ("\"a\"", "\"\""),
        ("bytes = 1", "bytes = 01"),
        ("bytes = 1", "bytes = +1"),
        ("bytes = 1", "bytes = 9223372036854775808"),
        ("b3:", "B3:"),
        ("b3:", ""),
        ("text/plain", "text"),
        (" },", ", x = 1 },"),
        ("\n", "\r\n"),
        ("\n", ""),
        ("\n", "\n\n"),
    ] {
        let other = line.replacen(from, to, 1);
        assert_ne!(other, line);
        assert!(Entry::parse(other.as_bytes()).is_err(), "{other}");
    }
    let head = manifest(&[]);
    for (from, to) in [
        ("kind = \"bundle\"", "kind = \"object\""),
        ("files = 0", "files = 00"),
        ("files = 0\n", ""),
        ("files = 0\nbytes = 0", "bytes = 0\nfiles = 0"),
        ("files", "tld = \"A\"\nfiles"),
        ("entries = [", "entries = [ "),
    ] {
        let other = String::from_utf8(head.clone()).unwrap().replacen(from, to, 1);
        assert_ne!(other.as_bytes(), head);
        assert!(Head::parse(other.as_bytes()).is_err(), "{other}");
    }
    assert_eq!(Head::parse(b""), Err(ManifestError::NotABundle));
    let long = Head { license: Some("x".repeat(MANIFEST_HEAD_LEN_MAX)), ..Head::default() };
    assert!(matches!(long.write(&mut Vec::new()), Err(ManifestError::Head { .. })));
}

#[test]
fn paths_that_are_something_else_elsewhere() {
    let long = "a".repeat(MANIFEST_PATH_LEN_MAX + 1);
    for (path, expected) in [
        ("", Err(PathFault::Empty)),
        ("/a", Err(PathFault::Slash)),
        ("a/", Err(PathFault::Slash)),
        ("a//b", Err(PathFault::Slash)),
        (".", Err(PathFault::Dots)),
        ("a/../b", Err(PathFault::Dots)),
        ("a\nb", Err(PathFault::Control)),
        ("a\u{85}b", Err(PathFault::Control)),
        ("Manifest.toml", Err(PathFault::Reserved)),
        ("payload.bin", Err(PathFault::Reserved)),
        (&long, Err(PathFault::TooLong)),
        (&long[1..], Ok(())),
        ("a/Manifest.toml", Ok(())),
        ("...", Ok(())),
        ("a b\\c/\"ä\"", Ok(())),
    ] {
        assert_eq!(check_path(path), expected, "{path}");
        assert_eq!(entry(path).write(&mut Vec::new()).is_ok(), expected.is_ok());
    }
}

#[test]
fn entries_follow_each_other_and_make_what_the_head_says() {
    let mut tally = Tally::default();
    for path in ["a", "a b", "a/b", "b"] {
        tally.add(&entry(path)).unwrap();
    }
    assert!(matches!(tally.add(&entry("b")), Err(ManifestError::Order { .. })));
    assert!(matches!(tally.add(&entry("a/c")), Err(ManifestError::Order { .. })));
    let head = Head { files: 4, bytes: 8, ..Head::default() };
    assert_eq!(tally.check(&head), Ok(()));
    assert!(tally.check(&Head { bytes: 9, ..head.clone() }).is_err());
    assert!(tally.check(&Head { files: 5, ..head }).is_err());
}

/// Paths of all lengths, so that group ends fall everywhere in a line.
fn many(count: usize) -> Vec<Entry> {
    let name = |nth: usize| {
        let fill = "x\\\"".repeat(nth * nth % 97);
        entry(&format!("{:05}{fill}{}", nth / 3, "y".repeat(nth % 3)))
    };
    let mut entries: Vec<Entry> = (0..count).map(name).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup();
    entries
}

#[test]
fn every_entry_of_a_large_manifest_is_found_in_few_groups() {
    let entries = many(3000);
    let text = manifest(&entries);
    let groups = text.len().div_ceil(GROUP_LEN);
    assert!(groups > 8, "{groups} groups");
    let most = 4 + groups.ilog2() as usize;
    for entry in &entries {
        let (found, read) = find(&text, &entry.path);
        assert_eq!(found, Ok(Next::Found(entry.clone())), "{}", entry.path);
        assert!(read <= most, "{read} groups of {groups}");
        for other in [format!("{} ", entry.path), entry.path[1..].into()] {
            assert_eq!(find(&text, &other).0, Ok(Next::Missing), "{other}");
        }
    }
    for path in ["", "0", "zzz", "\u{10ffff}"] {
        assert_eq!(find(&text, path).0, Ok(Next::Missing), "{path}");
    }
}

#[test]
fn a_group_may_end_at_any_byte_of_a_line() {
    let entries: Vec<Entry> = (0..900).map(|nth| entry(&format!("{nth:04}"))).collect();
    let mut line = Vec::new();
    entries[0].write(&mut line).unwrap();
    let starts = (0..line.len()).map(|fill| {
        let license = Some("x".repeat(fill));
        let bytes = entries.iter().map(|entry| entry.content.identity.bytes).sum();
        let mut text = Vec::new();
        Head { license, files: 900, bytes, ..Head::default() }.write(&mut text).unwrap();
        let head_len = text.len();
        entries.iter().for_each(|entry| entry.write(&mut text).unwrap());
        write_end(&mut text);
        let around = (GROUP_LEN - head_len) / line.len();
        for entry in &entries[around - 1..=around + 1] {
            assert_eq!(find(&text, &entry.path).0, Ok(Next::Found(entry.clone())), "{fill}");
        }
        (GROUP_LEN - head_len) % line.len()
    });
    // Among them that between two lines.
    assert!(starts.filter(|start| *start == 0).count() > 0);
}

#[test]
fn a_manifest_of_a_stranger_costs_no_more_than_another() {
    let mut text = manifest(&[]);
    text.truncate(text.len() - ENTRIES_END.len());
    while text.len() < GROUP_LEN / 2 {
        text.extend_from_slice(b"  { path = \"!\n");
    }
    text.resize(GROUP_LEN, b'x');
    LOOKS.set(0);
    assert!(find(&text, "z").0 != Ok(Next::Read(1)));
    assert!(LOOKS.get() < 40, "{} lines were looked at", LOOKS.get());
}

#[test]
fn a_search_in_what_is_no_manifest_ends() {
    assert_eq!(find(b"hello", "a").0, Err(ManifestError::NotABundle));
    let whole = manifest(&many(1500));
    for path in ["00000", "00400", "00499", "9"] {
        for len in (0..whole.len()).step_by(1009) {
            let _ = find(&whole[..len], path);
        }
        // All lines are one path.
        let mut other = manifest(&[]);
        other.truncate(other.len() - ENTRIES_END.len());
        while other.len() < 5 * GROUP_LEN {
            entry("00400").write(&mut other).unwrap();
        }
        let _ = find(&other, path);
        other.truncate(other.len() / 2);
        other.resize(5 * GROUP_LEN, b'\n');
        let _ = find(&other, path);
        other[1000..].fill(b'x');
        let _ = find(&other, path);
    }
}

fn any_path() -> impl Strategy<Value = String> {
    "[a-c\"\\\\/ä .]{1,12}".prop_filter("a path", |path| check_path(path).is_ok())
}

proptest! {
    #[test]
    fn a_line_is_read_as_it_was_written(
        path in any_path(),
        sizes: [u32; 3],
        copies: (bool, bool),
        quotes in "[a-z\"\\\\]{0,9}",
    ) {
        let stored = |nth: usize| Stored {
            address: Address::of(&[nth as u8]),
            bytes: u64::from(sizes[nth]),
        };
        let content = Content {
            identity: stored(0),
            mime: format!("text/x;p={quotes}"),
            br: copies.0.then(|| stored(1)),
            zstd: copies.1.then(|| stored(2)),
        };
        let entry = Entry { path, content };
        let mut line = Vec::new();
        entry.write(&mut line).unwrap();
        prop_assert_eq!(Entry::parse(&line), Ok(entry.clone()));
        let text = String::from_utf8(line).unwrap();
        let read: toml::Table = format!("entries = [\n{text}]\n").parse().unwrap();
        prop_assert_eq!(read["entries"][0]["path"].as_str(), Some(entry.path.as_str()));
        prop_assert_eq!(read["entries"][0]["mime"].as_str(), Some(entry.content.mime.as_str()));
    }

    #[test]
    fn what_is_read_is_what_would_be_written(
        path in "[ab\\\\\"]{0,4}",
        rest in "\\PC{0,60}",
    ) {
        let line = format!("  {{ path = \"{path}\", {rest}\n");
        if let Ok(entry) = Entry::parse(line.as_bytes()) {
            let mut written = Vec::new();
            entry.write(&mut written).unwrap();
            prop_assert_eq!(written, line.into_bytes());
        }
    }

    /// The slow twin reads all entries.
    #[test]
    fn a_search_finds_what_a_walk_finds(
        paths in prop::collection::btree_set(any_path(), 0..40),
        wanted in prop::collection::vec(any_path(), 10),
    ) {
        let entries: Vec<Entry> = paths.iter().map(|path| entry(path)).collect();
        let text = manifest(&entries);
        for path in paths.iter().chain(&wanted) {
            let expected = match paths.contains(path) {
                true => Next::Found(entry(path)),
                false => Next::Missing,
            };
            prop_assert_eq!(find(&text, path).0, Ok(expected));
        }
    }
}
