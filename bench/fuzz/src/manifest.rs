//! Manifests of bundles against the `toml` crate, and the search in them against a walk.

use ron_codec::{
    limits::GROUP_LEN,
    manifest::{
        Entry, Head, Stored, Tally, is_end,
        search::{Next, Search},
        write_end,
    },
};

/// What is read as a manifest is TOML that says the same, is written as it was read, and every
/// entry is found where it is. No search of anything reads without end.
pub fn manifest(input: &[u8]) {
    let Some((head, entries)) = read(input) else {
        find(input, "a");
        return;
    };
    let mut written = Vec::new();
    head.write(&mut written).expect("what was read can be written");
    for entry in &entries {
        entry.write(&mut written).expect("what was read can be written");
    }
    write_end(&mut written);
    assert_eq!(written, input);
    check_toml(std::str::from_utf8(input).expect("TOML is UTF-8"), &head, &entries);
    for entry in &entries {
        assert_eq!(find(input, &entry.path), Some(Next::Found(entry.clone())), "{}", entry.path);
        let other = format!("{}/x", entry.path);
        let is_there = entries.iter().any(|entry| entry.path == other);
        assert!(is_there || find(input, &other) == Some(Next::Missing), "{other}");
    }
}

/// All of a manifest, if it keeps the rules.
fn read(input: &[u8]) -> Option<(Head, Vec<Entry>)> {
    let (head, len) = Head::parse(input).ok()?;
    let (mut tally, mut entries) = (Tally::default(), Vec::new());
    let mut lines = input[len..].split_inclusive(|byte| *byte == b'\n');
    loop {
        let line = lines.next()?;
        if is_end(line) {
            break;
        }
        let entry = Entry::parse(line).ok()?;
        tally.add(&entry).ok()?;
        entries.push(entry);
    }
    tally.check(&head).ok()?;
    lines.next().is_none().then_some((head, entries))
}

/// What a search comes to, or nothing where the text is broken.
fn find(text: &[u8], path: &str) -> Option<Next> {
    let mut search = Search::new(path, text.len() as u64);
    let mut index = 0;
    for _ in 0..64 {
        let group = text.chunks(GROUP_LEN).nth(index as usize).unwrap_or_default();
        match search.on_group(index, group) {
            Ok(Next::Read(next)) => index = next,
            end => return end.ok(),
        }
    }
    panic!("a search reads few groups");
}

fn check_toml(text: &str, head: &Head, entries: &[Entry]) {
    let table: toml::Table = text.parse().expect("a manifest is TOML");
    let number = |value: u64| toml::Value::from(i64::try_from(value).expect("it fits"));
    let text = |value: &str| toml::Value::from(value);
    let stored = |table: &toml::Table, stored: &Stored| {
        assert_eq!(table["address"], text(&stored.address.to_string()));
        assert_eq!(table["bytes"], number(stored.bytes));
    };
    assert_eq!(table["schema_version"], number(3));
    assert_eq!(table["kind"], text("bundle"));
    assert_eq!(table["hash_algo"], text("b3"));
    assert_eq!((&table["files"], &table["bytes"]), (&number(head.files), &number(head.bytes)));
    let of = |name: &str| table.get(name).and_then(toml::Value::as_str);
    assert_eq!((of("tld"), of("license")), (head.tld.as_deref(), head.license.as_deref()));
    let payment = table.get("payment").and_then(toml::Value::as_table);
    assert_eq!(payment.is_some(), head.payment.is_some());
    if let (Some(table), Some(payment)) = (payment, &head.payment) {
        assert_eq!(table["required"].as_bool(), Some(payment.required));
        for (name, value) in [
            ("currency", &payment.currency),
            ("price_model", &payment.price_model),
            ("price", &payment.price),
            ("wallet", &payment.wallet),
        ] {
            assert_eq!(table[name], text(value));
        }
    }
    let list = table["entries"].as_array().expect("a list");
    assert_eq!(list.len(), entries.len());
    for (found, entry) in list.iter().zip(entries) {
        let found = found.as_table().expect("a table");
        assert_eq!(found["path"], text(&entry.path));
        assert_eq!(found["mime"], text(&entry.content.mime));
        stored(found, &entry.content.identity);
        for (name, copy) in [("br", entry.content.br), ("zstd", entry.content.zstd)] {
            let table = found.get(name).map(|found| found.as_table().expect("a table"));
            assert_eq!(table.is_some(), copy.is_some());
            if let (Some(table), Some(copy)) = (table, copy) {
                stored(table, &copy);
            }
        }
    }
}
