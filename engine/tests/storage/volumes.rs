//! Objects spread over several directories: where they lie, and what becomes of them when one of
//! the directories is in the wrong place, or gone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{
    Data, KIB, MIB, Node, Object, Setup, assert_same, curl::Curl, http::Peer, object,
    one_and_two_cores,
};
use serde_json::{Value, json};

fn volumes(data: &Data, count: usize) -> Vec<PathBuf> {
    (0..count).map(|n| data.path().join(format!("volume{n}"))).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A node on these volumes, in this order.
fn on(data: &Data, volumes: &[PathBuf]) -> Setup {
    let args: Vec<&str> = volumes.iter().flat_map(|path| ["--data-dirs", text(path)]).collect();
    data.setup().args(&args)
}

fn format(volume: &Path) -> Value {
    let text = fs::read(volume.join("format.json")).expect("it is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// Small ones and large ones, enough of each for every volume to get some.
fn objects() -> Vec<Object> {
    let small = (1..=60).map(|at| at * 331);
    let large = (0..12).map(|at| MIB + 1 + at * 64 * KIB);
    (1..).zip(small.chain(large)).map(|(seed, len)| object(seed, len)).collect()
}

/// The volume an object lies on (docs/STORAGE.md, "Partitions" and "Volumes").
fn volume_of(object: &Object, format: &Value) -> u64 {
    let first = u64::from_str_radix(&object.addr[3..19], 16).expect("an address is hexadecimal");
    let partitions = format["partitions"].as_u64().expect("it is a number");
    let partition = (u128::from(first) * u128::from(partitions)) >> 64;
    partition as u64 % format["volumes"].as_u64().expect("it is a number")
}

fn check_all<'a>(node: &Node, objects: impl IntoIterator<Item = &'a Object>) {
    let mut peer = Peer::new(node.connect());
    for object in objects {
        let answer = peer.get(&format!("/o/{}", object.addr));
        assert_eq!(answer.status, 200, "{} of {} bytes", object.addr, object.bytes.len());
        assert_same(&answer.body, &object.bytes, &object.addr);
    }
}

fn store_all(node: &Node, objects: &[Object]) {
    for (at, object) in objects.iter().enumerate() {
        // Half of them without saying what they are called.
        let curl = Curl::http(node);
        if at % 2 == 0 {
            curl.store(object);
        } else {
            assert_eq!(curl.put_chunked(&object.bytes, &[]).status, 201);
        }
    }
}

/// Every file below a folder whose name ends so.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found
}

#[test]
fn objects_lie_where_they_belong_and_stay() {
    for shards in one_and_two_cores() {
        let data = Data::new();
        let dirs = volumes(&data, 2);
        let all = objects();
        let node = on(&data, &dirs).shards(shards).start();
        assert_eq!(node.ready()["data_dir"], json!(dirs[0]));
        assert_eq!(node.ready()["data_dirs"], json!(dirs));
        assert!(node.ca().starts_with(&dirs[0]), "the CA is on the first volume");
        store_all(&node, &all);
        check_all(&node, &all);
        node.terminate();
        let said = format(&dirs[0]);
        assert_eq!((&said["volumes"], &said["volume"]), (&json!(2), &json!(0)));
        assert_eq!(format(&dirs[1])["volume"], json!(1));
        assert_eq!(format(&dirs[1])["id"], said["id"]);
        for (volume, dir) in (0..).zip(&dirs) {
            let mut wanted: Vec<String> = all
                .iter()
                .filter(|object| object.bytes.len() > MIB && volume_of(object, &said) == volume)
                .map(|object| format!("{}.obj", &object.addr[3..]))
                .collect();
            wanted.sort();
            let name =
                |path: &PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
            let mut found: Vec<_> = files(dir, "obj").iter().map(name).collect();
            found.sort();
            assert!(!wanted.is_empty() && found == wanted, "volume {volume}: {found:?}");
            assert!(!files(dir, "seg").is_empty());
            assert!(files(dir, "tmp").is_empty());
        }
        let node = on(&data, &dirs).start();
        check_all(&node, &all);
        assert_eq!(node.metrics().sum("ron_objects"), all.len() as u64);
        node.terminate();
    }
}

#[test]
fn volumes_that_are_not_as_they_were_are_refused() {
    let data = Data::new();
    let dirs = volumes(&data, 3);
    let two = &dirs[..2];
    on(&data, two).start().terminate();
    let swapped = [dirs[1].clone(), dirs[0].clone()];
    let other = Data::new();
    on(&other, &volumes(&other, 2)).start().terminate();
    let foreign = [dirs[0].clone(), volumes(&other, 2)[1].clone()];
    for (named, said) in [
        (&swapped[..], "is volume 1 of 2"),
        (&dirs[..], "is volume 0 of 2"),
        (&dirs[..1], "is volume 0 of 2"),
        (&foreign, "belongs there"),
    ] {
        let (code, stderr) = on(&data, named).refused();
        assert!(code == 1 && stderr.contains(said), "{named:?}: {code} {stderr}");
    }
    assert!(!dirs[2].exists(), "nothing is made");
    // What a disk that is not mounted looks like.
    fs::rename(&dirs[1], data.path().join("aside")).expect("it can be moved");
    fs::create_dir(&dirs[1]).expect("it can be made");
    let (code, stderr) = on(&data, two).refused();
    let named = stderr.contains(text(&dirs[1])) && stderr.contains("mount");
    assert!(code == 1 && named, "{code} {stderr}");
    assert_eq!(fs::read_dir(&dirs[1]).expect("it is there").count(), 0);
    fs::remove_dir(&dirs[1]).expect("it is empty");
    fs::rename(data.path().join("aside"), &dirs[1]).expect("it can be moved");
    on(&data, two).start().terminate();
}

#[test]
fn every_volume_has_one_node() {
    let data = Data::new();
    let dirs = volumes(&data, 2);
    let node = on(&data, &dirs).start();
    let (code, stderr) = on(&data, &dirs).refused();
    let pid = node.pid().to_string();
    assert!(code == 1 && stderr.contains("in use") && stderr.contains(&pid), "{code} {stderr}");
    node.terminate();
}

#[test]
fn a_node_goes_on_without_a_volume() {
    let shards = one_and_two_cores().into_iter();
    for (shards, gone) in shards.flat_map(|shards| [(shards, 1), (shards, 0)]) {
        let data = Data::new();
        let dirs = volumes(&data, 2);
        let all = objects();
        let node = on(&data, &dirs).shards(shards).start();
        store_all(&node, &all);
        node.terminate();
        let said = format(&dirs[0]);
        let is_gone = |object: &&Object| volume_of(object, &said) == gone as u64;
        let aside = data.path().join("aside");
        fs::rename(&dirs[gone], &aside).expect("it can be moved");

        let node = on(&data, &dirs).shards(shards).start();
        node.wait_stderr(&format!("volume {gone} is absent"));
        check_all(&node, all.iter().filter(|object| !is_gone(object)));
        for lost in all.iter().filter(is_gone) {
            let answer = Curl::http(&node).get(&lost.addr, &[]);
            assert!(answer.status >= 500, "it is not gone for good: {}", answer.heads);
            let answer = Curl::http(&node).put(&lost.addr, &lost.bytes, &[]);
            assert!(answer.status >= 500, "it cannot be kept: {}", answer.heads);
        }
        let more: Vec<Object> = [300, 2 * MIB]
            .into_iter()
            .flat_map(|len| {
                let mut seeds = (1000..).map(move |seed| object(seed, len));
                seeds.find(|object| !is_gone(&object))
            })
            .collect();
        store_all(&node, &more);
        node.terminate();
        assert!(!dirs[gone].exists(), "nothing is made where a volume should be");

        fs::rename(&aside, &dirs[gone]).expect("it can be moved");
        let node = on(&data, &dirs).shards(shards).start();
        check_all(&node, all.iter().chain(&more));
        node.terminate();
    }
}

#[test]
fn a_partition_whose_folder_is_gone_is_absent() {
    let data = Data::new();
    let dirs = volumes(&data, 1);
    let all = objects();
    let node = on(&data, &dirs).start();
    store_all(&node, &all);
    node.terminate();
    let partitions = format(&dirs[0])["partitions"].as_u64().expect("it is a number");
    let partition = |object: &Object| {
        let said = json!({"partitions": partitions, "volumes": partitions});
        volume_of(object, &said)
    };
    let gone = partition(&all[0]);
    let is_gone = |object: &&Object| partition(object) == gone;
    let folder = dirs[0].join(format!("p{gone:03}"));
    fs::remove_dir_all(&folder).expect("it can be removed");

    let node = on(&data, &dirs).start();
    node.wait_stderr(&format!("partition {gone} is absent"));
    check_all(&node, all.iter().filter(|object| !is_gone(object)));
    for lost in all.iter().filter(is_gone) {
        let answer = Curl::http(&node).get(&lost.addr, &[]);
        assert_eq!(answer.status, 503, "it is not gone for good: {}", answer.heads);
    }
    let ready = node.admin("/readyz").json();
    let why = ready["partitions"].to_string();
    assert!(why.contains("its folder is gone: restore it"), "{ready}");
    node.terminate();
    assert!(!folder.exists());

    fs::create_dir(&folder).expect("it can be made");
    let node = on(&data, &dirs).start();
    assert_eq!(Curl::http(&node).get(&all[0].addr, &[]).status, 404, "the loss is accepted");
    store_all(&node, &all.iter().filter(is_gone).cloned().collect::<Vec<_>>());
    check_all(&node, &all);
    node.terminate();
}
