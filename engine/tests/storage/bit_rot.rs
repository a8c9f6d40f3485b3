//! A thousand flipped bits over gigabytes: no wrong byte is delivered, and the scrub names what is
//! damaged. Bits flipped in the index: every start succeeds, and every object is there.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
    thread,
};

use crate::common::{
    Data, KIB, MIB, Node, Object, assert_same, connect,
    disk::{files, flip_bit},
    http::Peer,
    object,
};

const FLIPS: u64 = 1000;
const CLIENTS: u64 = 4;

/// Numbers of objects and their sizes: 2.3 GiB in all.
const OBJECTS: [(u64, usize); 5] =
    [(20_000, 4 * KIB), (3000, 100 * KIB), (800, MIB), (300, 3 * MIB), (6, 40 * MIB)];

fn all() -> Vec<(u64, usize)> {
    let mut all = Vec::new();
    for (count, len) in OBJECTS {
        let first = all.len() as u64;
        all.extend((0..count).map(|nth| (first + nth, len)));
    }
    all
}

/// Calls this for every object, by several clients.
fn for_each(node: &Node, what: impl Fn(&mut Peer, &Object) + Sync) {
    let (at, all) = (node.at("http"), all());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (what, all) = (&what, &all);
            scope.spawn(move || {
                let mut peer = Peer::new(connect(at));
                for (seed, len) in all.iter().skip(client as usize).step_by(CLIENTS as usize) {
                    let object = object(*seed, *len);
                    what(&mut peer, &object);
                }
            });
        }
    });
}

/// Flips bits all over the data, wherever they fall. Returns how many bytes there are.
fn rot(data: &Data) -> u64 {
    let mut paths = Vec::new();
    files(&data.path().join("data"), &mut paths);
    paths.sort();
    let lens: Vec<(PathBuf, u64)> = paths
        .into_iter()
        .map(|path| {
            let len = fs::metadata(&path).expect("the file is there").len();
            (path, len)
        })
        .collect();
    let total: u64 = lens.iter().map(|(_, len)| len).sum();
    let mut state = 7u64;
    for _ in 0..FLIPS {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mut bit = (u128::from(state) * u128::from(total) * 8) >> 64;
        for (path, len) in &lens {
            let bits = u128::from(*len) * 8;
            if bit < bits {
                flip_bit(path, (bit / 8) as u64, (bit % 8) as u8);
                break;
            }
            bit -= bits;
        }
    }
    total
}

/// Lets every shard verify everything, and waits until they have.
fn scrub(node: &Node) {
    let mut peer = Peer::new(connect(node.at("admin")));
    peer.send(b"POST /scrub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.response("POST").status, 202);
    node.wait_stderr_for("scrub: a round finished", SCRUB_MAX);
}

const SCRUB_MAX: std::time::Duration = std::time::Duration::from_secs(600);

#[test]
#[ignore = "stores and reads 2.3 GiB several times"]
fn a_thousand_flipped_bits_deliver_no_wrong_byte() {
    let data = Data::new();
    let node = data.start(1);
    for_each(&node, |peer, object| {
        let answer = peer.try_put(&object.addr, &object.bytes).expect("there is an answer");
        assert!(matches!(answer.status, 200 | 201), "{}", answer.status);
    });
    node.terminate();
    let total = rot(&data);
    assert!(total > 2 * 1024 * MIB as u64, "{total} bytes");
    // What the kernel still has of the files went through it; the node reads past it.
    File::open(data.path()).and_then(|dir| dir.sync_all()).expect("it can be synced");

    let node = data.setup().args(&["--storage-scrub-rate", "2GiB"]).start();
    scrub(&node);
    let report = node.admin("/storage").json();
    let listed = report["damage"]["objects"].as_array().expect("a list");
    let reported: BTreeSet<String> =
        listed.iter().map(|object| object["addr"].as_str().expect("text").to_owned()).collect();
    let repaired = node.metrics().sum("ron_scrub_repaired_total");

    let damaged = std::sync::Mutex::new(BTreeSet::new());
    let whole = std::sync::atomic::AtomicU64::new(0);
    for_each(&node, |_, object| {
        let mut peer = Peer::new(node.connect());
        peer.send(format!("GET /o/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", object.addr).as_bytes());
        let head = peer.try_head().expect("there is a head");
        let body = match head.status {
            200 => peer.read(object.bytes.len()),
            502 => Vec::new(),
            status => panic!("{status} for {} bytes", object.bytes.len()),
        };
        assert_same(&body, &object.bytes[..body.len()], "what came of an object");
        if body.len() == object.bytes.len() {
            whole.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        } else {
            damaged.lock().expect("nobody panics with it").insert(object.addr.clone());
        }
    });
    let damaged = damaged.into_inner().expect("nobody panicked with it");
    let whole = whole.into_inner();
    eprintln!(
        "{total} bytes, {FLIPS} bits: {} objects damaged, {} reported by the scrub, {repaired} \
         repaired, {whole} served whole",
        damaged.len(),
        reported.len(),
    );
    assert_eq!(damaged.len() as u64 + whole, all().len() as u64);
    let missed: Vec<&String> = damaged.difference(&reported).collect();
    assert!(missed.is_empty(), "the scrub missed {missed:?}");
    assert!(damaged.len() > 500, "most bits are bits of objects");
    node.terminate();
}

/// The snapshots of the index.
fn snapshots(data: &Data) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(data.path().join("data")).expect("it is there") {
        let folder = entry.expect("an entry").path().join("index");
        if folder.is_dir() {
            let files = fs::read_dir(folder).expect("it is there");
            paths.extend(files.map(|file| file.expect("an entry").path()));
        }
    }
    paths.sort();
    paths
}

fn put(peer: &mut Peer, object: &Object) {
    let answer = peer.try_put(&object.addr, &object.bytes).expect("there is an answer");
    assert_eq!(answer.status, 201);
}

#[test]
fn bits_flipped_in_the_index_refuse_no_start_and_hide_no_object() {
    let data = Data::new();
    let node = data.start(1);
    let mut objects: Vec<Object> = (0..300).map(|seed| object(seed, 300)).collect();
    objects.push(object(300, 2 * MIB));
    let mut peer = Peer::new(connect(node.at("http")));
    objects.iter().for_each(|object| put(&mut peer, object));
    node.terminate();
    let mut state = 11u64;
    let mut reported = 0;
    for flips in [1, 1, 1, 1, 60, 400] {
        let paths = snapshots(&data);
        assert!(!paths.is_empty());
        for path in &paths {
            assert!(path.extension().is_some_and(|ending| ending == "idx"), "{path:?}");
            let len = fs::metadata(path).expect("it is there").len();
            for _ in 0..flips {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767);
                flip_bit(path, (state >> 16) % len, (state >> 8) as u8 % 8);
            }
        }
        let node = data.start(1);
        reported += u32::from(node.stderr().contains("of the index: "));
        let mut peer = Peer::new(connect(node.at("http")));
        for object in &objects {
            let answer = peer.get(&format!("/o/{}", object.addr));
            assert_eq!(answer.status, 200, "{flips} flips");
            assert_same(&answer.body, &object.bytes, "what came of an object");
        }
        let more = object(1000 + state % 1000, 300);
        put(&mut peer, &more);
        objects.push(more);
        node.terminate();
    }
    assert_eq!(reported, 6, "every damage is reported");
}
