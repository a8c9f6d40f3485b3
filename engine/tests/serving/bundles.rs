//! Bundles as clients are served them: paths, encoded copies, and what becomes of a deleted one.

use std::time::{Duration, Instant};

use ron_codec::{
    address::Address,
    manifest::{self, Content, Entry, Head, Stored},
};

use crate::common::{Data, Object, assert_same, curl::Curl, named, object, one_and_two_cores};

/// Stores an object and says what a manifest says of it.
fn store(curl: &Curl, object: &Object) -> Stored {
    curl.store(object);
    Stored { address: Address::of(&object.bytes), bytes: object.bytes.len() as u64 }
}

fn bundle(mut entries: Vec<Entry>) -> Object {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = entries.iter().map(|entry| entry.content.identity.bytes).sum();
    let mut text = Vec::new();
    let head = Head { files: entries.len() as u64, bytes, ..Head::default() };
    head.write(&mut text).expect("a head");
    entries.iter().for_each(|entry| entry.write(&mut text).expect("an entry"));
    manifest::write_end(&mut text);
    named(text)
}

fn entry(path: &str, identity: Stored) -> Entry {
    let content = Content { identity, mime: "text/html".into(), br: None, zstd: None };
    Entry { path: path.into(), content }
}

#[test]
fn every_file_of_a_large_bundle_is_found_from_every_shard() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let node = data.start(shards);
        let curl = Curl::http(&node);
        let files: Vec<Object> = (0..8).map(|seed| object(seed, 3000 + seed as usize)).collect();
        let stored: Vec<Stored> = files.iter().map(|file| store(&curl, file)).collect();
        let path = |nth: usize| format!("tiles/{}/{nth}.webp", nth % 7);
        let entries = (0..3000).map(|nth| entry(&path(nth), stored[nth % files.len()])).collect();
        let all = bundle(entries);
        assert!(all.bytes.len() > 5 * 64 * 1024, "it has several groups");
        curl.store(&all);
        for nth in (0..3000).step_by(173) {
            for _ in 0..2 {
                let answer = curl.get(&format!("{}/{}", all.addr, path(nth)), &[]);
                assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/html")));
                assert_same(&answer.body, &files[nth % files.len()].bytes, &path(nth));
            }
        }
        let manifest = curl.get(&format!("{}/Manifest.toml", all.addr), &[]);
        assert_same(&manifest.body, &all.bytes, "the manifest");
        assert_eq!(curl.get(&format!("{}/tiles/0/1.webp", all.addr), &[]).status, 404);
        node.terminate();
    }
}

#[test]
fn copies_are_negotiated_and_a_deleted_one_is_not_missed() {
    let data = Data::new();
    let node = data.start(1);
    let curl = Curl::http(&node);
    let page = named(b"<p>as it is, at some length</p>".to_vec());
    let copies = [named(b"a copy in br".to_vec()), named(b"a zstd copy".to_vec())];
    let mut index = entry("index.html", store(&curl, &page));
    index.content.br = Some(store(&curl, &copies[0]));
    index.content.zstd = Some(store(&curl, &copies[1]));
    let all = bundle(vec![index]);
    curl.store(&all);
    let ask = |accept: &str| {
        let field = format!("Accept-Encoding: {accept}");
        curl.get(&format!("{}/", all.addr), &["-H", &field])
    };
    for (accept, coding, body) in [
        ("br, zstd;q=0.9", Some("br"), &copies[0]),
        ("zstd, br;q=0.9", Some("zstd"), &copies[1]),
        ("gzip", None, &page),
    ] {
        let answer = ask(accept);
        assert_eq!((answer.status, answer.field("content-encoding")), (200, coding), "{accept}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.field("etag"), Some(format!("\"{}\"", body.addr).as_str()));
        assert_same(&answer.body, &body.bytes, accept);
    }
    assert_eq!(node.metrics().sum("ron_precompressed_served_total{encoding=\"br\"}"), 1);
    let deleted = curl.request(&format!("/o/{}", copies[0].addr), &["-X", "DELETE"]);
    assert_eq!(deleted.status, 204);
    let answer = ask("br");
    assert_eq!((answer.status, answer.field("content-encoding")), (200, None));
    assert_same(&answer.body, &page.bytes, "the identity form");
    node.terminate();
}

#[test]
fn files_of_a_deleted_bundle_are_gone_after_a_moment() {
    let data = Data::new();
    let node = data.start(1);
    let curl = Curl::http(&node);
    let file = object(1, 100);
    let all = bundle(vec![entry("a", store(&curl, &file))]);
    curl.store(&all);
    let path = format!("{}/a", all.addr);
    assert_eq!(curl.get(&path, &[]).status, 200);
    assert_eq!(curl.request(&format!("/o/{}", all.addr), &["-X", "DELETE"]).status, 204);
    let deleted = Instant::now();
    while curl.get(&path, &[]).status != 404 {
        assert!(deleted.elapsed() < Duration::from_secs(5), "it is still served");
    }
    curl.check(&file);
    node.terminate();
}
