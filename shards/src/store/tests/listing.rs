//! Listing: pages against a sorted twin, what is known to be damaged, and what a page costs.

use ron_io::listing::{ListEntry, ListPage, ListRange};

use super::*;

const ALL: [u8; 32] = [0xff; 32];

fn list(world: &mut World, range: ListRange) -> ListPage {
    world.list(7, range);
    let (id, page) = world.listed.pop().expect("a listing is answered at once");
    assert_eq!(id, 7);
    *page.expect("the store is ready")
}

#[test]
fn pages_are_all_that_is_stored_in_order() {
    let mut world = World::new(3);
    let mut twin = BTreeMap::new();
    for n in 0..60 {
        let bytes = object(n, 1 + 100 * n as usize);
        world.put(&bytes);
        twin.insert(*Address::of(&bytes).as_bytes(), bytes);
    }
    let large = object(99, LARGE);
    put_large(&mut world, &large);
    twin.insert(*Address::of(&large).as_bytes(), large);
    let gone: Vec<[u8; 32]> = twin.keys().copied().step_by(5).collect();
    for digest in gone {
        let bytes = twin.remove(&digest).expect("it was put");
        delete(&mut world, &bytes);
    }
    for max in [1, 7, 48, 1000] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = list(&mut world, ListRange { after, last: ALL, max });
            assert!(page.objects.len() <= usize::from(max));
            found.extend(page.objects);
            after = page.until;
            if after.is_none() {
                break;
            }
        }
        let entry = |(digest, bytes): (&[u8; 32], &Vec<u8>)| ListEntry {
            digest: *digest,
            size: bytes.len() as u64,
            damaged: false,
        };
        assert_eq!(found, twin.iter().map(entry).collect::<Vec<_>>(), "in pages of {max}");
    }
    let digests: Vec<[u8; 32]> = twin.keys().copied().collect();
    let range = ListRange { after: Some(digests[3]), last: digests[9], max: 1000 };
    let page = list(&mut world, range);
    let listed: Vec<[u8; 32]> = page.objects.iter().map(|entry| entry.digest).collect();
    assert_eq!((&listed[..], page.until), (&digests[4..=9], None));
}

#[test]
fn what_is_known_to_be_damaged_is_marked() {
    let mut world = World::new(4);
    let (bad, good) = (object(1, 5000), object(2, 5000));
    world.put(&bad);
    world.put(&good);
    world.stop();
    world.restart();
    let segment = world.segments().remove(0);
    world.disk.damage(&segment, |bytes| bytes[300] ^= 2);
    let address = Address::of(&bad);
    assert!(world.get(&address).is_err());
    world.run();
    let page = list(&mut world, ListRange { after: None, last: ALL, max: 10 });
    assert_eq!(page.objects.len(), 2);
    for entry in page.objects {
        assert_eq!(entry.damaged, entry.digest == *address.as_bytes());
    }
}

#[test]
fn a_store_that_boots_lists_nothing_yet() {
    let mut world = World::new(5);
    world.put(&object(1, 10));
    world.stop();
    world.begin_restart();
    world.list(1, ListRange { after: None, last: ALL, max: 10 });
    assert_eq!(world.listed.pop(), Some((1, None)));
    world.run();
    assert_eq!(list(&mut world, ListRange { after: None, last: ALL, max: 10 }).objects.len(), 1);
}
