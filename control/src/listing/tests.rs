//! Pages against a sorted twin, and queries field by field.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn queries_are_read_and_what_is_wrong_is_named() {
    let all = ListAsk::parse("").unwrap();
    assert_eq!(all.limit, LIST_OBJECTS);
    let range = ListRange { after: None, last: [0xff; 32], max: LIST_OBJECTS + 1 };
    assert_eq!(all.range(), Some(range));
    assert_eq!(ListAsk::parse("prefix=&after=&limit=100"), Ok(all));

    let addr = Address::of(b"x");
    let hex = &addr.to_string()[ADDRESS_PREFIX.len()..];
    let one = ListAsk::parse(&format!("prefix={hex}")).unwrap();
    for same in [format!("prefix=b3:{hex}"), format!("prefix=b3%3A{hex}&limit=100")] {
        assert_eq!(ListAsk::parse(&same), Ok(one), "{same}");
    }
    let range = one.range().unwrap();
    assert_eq!((range.last, range.after.map(|it| it < range.last)), (*addr.as_bytes(), Some(true)));
    let behind = ListAsk::parse(&format!("prefix=b3:{hex}&after={addr}")).unwrap();
    assert_eq!(behind.range(), None, "there is nothing behind the only one");

    for (query, wrong) in [
        ("limit=0", Wrong::Limit),
        ("limit=1001", Wrong::Limit),
        ("limit=+1", Wrong::Limit),
        ("limit=", Wrong::Limit),
        ("prefix=AB", Wrong::Prefix),
        ("prefix=b3:b3:", Wrong::Prefix),
        ("prefix=0x1", Wrong::Prefix),
        ("after=b3:00", Wrong::After),
        ("after=b3:00&after=", Wrong::Field),
        ("page=1", Wrong::Field),
    ] {
        assert_eq!(ListAsk::parse(query), Err(wrong), "{query}");
    }
    assert!(ListAsk::parse(&format!("prefix={hex}0")).is_err(), "one digit too many");
    assert_eq!(ListAsk::parse("limit=1000").unwrap().limit, LIST_OBJECTS_MAX);
}

#[test]
fn a_prefix_ends_within_a_byte() {
    let (first, last) = bounds("abc").unwrap();
    assert_eq!(
        (first[..3].to_vec(), last[..3].to_vec()),
        (vec![0xab, 0xc0, 0], vec![0xab, 0xcf, 255])
    );
    assert_eq!(bounds("b3:"), Some(([0; 32], [255; 32])));
    assert_eq!(before([0; 32]), None);
    let mut one = [0; 32];
    one[30] = 1;
    let mut expected = [0; 32];
    expected[31] = 255;
    assert_eq!(before(one), Some(expected));
}

#[test]
fn all_shards_must_answer_and_one_that_cannot_ends_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let lists = Lists::default();
    let page = || Some(Box::<ListPage>::default());
    let mut both = lists.begin(2).unwrap();
    lists.deliver(both.id(), 1, page());
    assert_eq!(lists.pending().waiting.len(), 1, "one is missing");
    lists.deliver(both.id(), 7, page());
    lists.deliver(both.id(), 0, page());
    let pages = runtime.block_on(both.outcome()).unwrap().unwrap();
    assert_eq!(pages.len(), 2);
    lists.deliver(both.id(), 0, page());

    let mut booting = lists.begin(2).unwrap();
    lists.deliver(booting.id(), 0, None);
    assert_eq!(runtime.block_on(booting.outcome()), Some(None));

    let mut waiting: Vec<_> = (0..LISTS_MAX).map(|_| lists.begin(1).unwrap()).collect();
    assert!(lists.begin(1).is_none());
    waiting.pop();
    let mut next = lists.begin(1).unwrap();
    lists.give_up();
    assert_eq!(runtime.block_on(next.outcome()), None);
}

/// What a shard would answer: the entries that are its own, looked at as a shard looks.
fn part(all: &BTreeMap<[u8; 32], u64>, shard: u8, shards: u8, range: ListRange) -> ListPage {
    let own = all.iter().filter(|(digest, _)| digest[0] % shards == shard);
    let mut behind = own
        .filter(|(digest, _)| range.after.is_none_or(|after| **digest > after))
        .filter(|(digest, _)| **digest <= range.last);
    let mut objects = Vec::new();
    let mut until = None;
    for _ in 0..range.max {
        let Some((digest, size)) = behind.next() else { break };
        until = Some(*digest);
        // What is no object was looked at all the same.
        if size % 5 > 0 {
            objects.push(ListEntry { digest: *digest, size: *size, damaged: false });
        }
    }
    ListPage { objects, until: until.filter(|_| behind.next().is_some()), absent: Vec::new() }
}

proptest! {
    /// All pages together are all objects with the prefix, each once and in order.
    #[test]
    fn pages_are_those_of_a_sorted_twin(
        digests in proptest::collection::btree_map(any::<(u8, u8)>(), 0u64..100, 0..200),
        shards in 1u8..5,
        limit in 1u16..30,
        prefix in "[0-9a-f]{0,3}",
    ) {
        let digest = |(one, two)| {
            let mut digest = [0; 32];
            (digest[0], digest[1], digest[31]) = (one, two, two);
            digest
        };
        let all: BTreeMap<[u8; 32], u64> =
            digests.into_iter().map(|(key, size)| (digest(key), size)).collect();
        let expected: Vec<Address> = all
            .iter()
            .filter(|(_, size)| *size % 5 > 0)
            .map(|(digest, _)| Address::from_bytes(*digest))
            .filter(|addr| addr.to_string()[ADDRESS_PREFIX.len()..].starts_with(&prefix))
            .collect();
        let mut listed: Vec<Address> = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("prefix={prefix}&limit={limit}&after={after}");
            let ask = ListAsk::parse(&query).unwrap();
            let Some(range) = ask.range() else { break };
            let pages = (0..shards).map(|shard| part(&all, shard, shards, range)).collect();
            let page = ObjectsPage::of(pages, ask.limit);
            prop_assert!(page.objects.len() <= usize::from(limit));
            listed.extend(page.objects.iter().map(|object| object.addr));
            match page.next {
                Some(next) => {
                    prop_assert!(after.is_empty() || after < next.to_string(), "it goes on");
                    after = next.to_string();
                }
                None => break,
            }
        }
        prop_assert_eq!(listed, expected);
    }
}
