//! How a node starts: what it says, what it takes from flags, environment and file, and what it
//! refuses.

use std::{collections::BTreeSet, fs, process::Command};

use crate::common::{
    Data, clean_environment,
    curl::{Curl, curl},
    object, run,
};
use serde_json::json;

#[test]
fn the_ready_line_and_the_first_commands() {
    let data = Data::new();
    let node = data.start(1);
    let ready = node.ready().as_object().expect("the line is an object").clone();
    assert_eq!((&ready["event"], &ready["shards"]), (&json!("ready"), &json!(1)));
    assert_eq!(ready["data_dir"], json!(data.path().join("data")));
    for key in ["http", "https", "oap", "oap_plain", "admin"] {
        assert_ne!(node.at(key).port(), 0, "{key}");
    }
    assert!(node.ca().exists());
    let said = node.wait_stderr("serving");
    assert!(said.contains("memory "), "the memory bill is stated: {said}");
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a log is JSON");
        assert!(line["message"].is_string(), "{line}");
    }
    // They are there to be copied and pasted, in their order.
    let hints = ron_engine::node::hints(node.ready());
    let commands: Vec<&str> =
        hints.iter().map(|line| line.split_once(':').expect("it has a colon").1).collect();
    assert_eq!(commands.len(), 2, "{hints:?}");
    let outputs: Vec<Vec<u8>> = commands
        .iter()
        .map(|line| run(Command::new("sh").args(["-c", line]), b"").stdout)
        .collect();
    let stored: serde_json::Value = serde_json::from_slice(&outputs[0]).expect("JSON");
    assert_eq!(stored, json!({"addr": crate::common::addr_of(b"hello\n"), "size": 6}));
    assert_eq!(outputs[1], b"hello\n");
    node.terminate();
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let data = Data::new();
    let file = data.path().join("ron.toml");
    let text = "https = \"off\"\noap = \"off\"\noap_plain = \"off\"\nobject_len_max = \"1KiB\"\n\
                cache = \"32MiB\"\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
                [deadlines]\nidle = 20\n";
    fs::write(&file, text).expect("it can be written");
    let start = |env: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rond"));
        clean_environment(&mut command);
        command.current_dir(data.path()).args(["--config", "ron.toml"]).args(args);
        command.envs(env.iter().copied());
        crate::common::Node::start(command)
    };
    let node = start(&[], &[]);
    assert!(node.ready()["https"].is_null() && node.ready()["oap"].is_null());
    assert!(node.ready()["ca"].is_null(), "nothing needs a certificate");
    assert!(data.path().join("ron-data/format.json").exists(), "the default directory");
    let large = object(1, 1025);
    assert_eq!(Curl::http(&node).put(&large.addr, &large.bytes, &[]).status, 413);
    node.terminate();

    let env = [("RON_HTTPS", "127.0.0.1:0"), ("RON_OAP", ""), ("RON_OBJECT_LEN_MAX", "1025")];
    let node = start(&env, &["--oap-plain", "127.0.0.1:0"]);
    assert!(node.ready()["https"].is_string() && node.ready()["oap"].is_null());
    assert!(node.ready()["oap_plain"].is_string());
    assert_eq!(Curl::http(&node).put(&large.addr, &large.bytes, &[]).status, 201);
    node.terminate();

    let node = start(&env, &["--https", "off", "--object-len-max", "1024"]);
    assert!(node.ready()["https"].is_null());
    assert_eq!(Curl::http(&node).put_sized(&object(2, 1025).bytes, &[]).status, 413);
    node.terminate();
}

#[test]
fn settings_that_are_wrong_are_named() {
    let data = Data::new();
    let file = data.path().join("ron.toml");
    let path = file.to_str().expect("UTF-8");
    for (text, said) in [
        ("htpp = \"127.0.0.1:0\"", "htpp"),
        ("[deadlines]\nheed = 3", "deadlines.heed"),
        ("http = [", "TOML"),
        ("cache = [1]", "cache"),
    ] {
        fs::write(&file, text).expect("it can be written");
        let (code, stderr) = data.setup().args(&["--config", path]).refused();
        assert!(code == 2 && stderr.contains(said), "{text}: {code} {stderr}");
    }
    for (args, said) in [
        (&["--cache", "1KiB"][..], "cache"),
        (&["--cache", "much"], "cache"),
        (&["--http", "localhost"], "http"),
        (&["--oap-plain", "192.0.2.1:0"], "loopback"),
        (&["--http", "off", "--https", "off", "--oap", "off", "--oap-plain", "off"], "all off"),
        (&["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--write-token", "a b"], "write_tokens"),
        (&["--data-dirs", "/nowhere/a", "--data-dirs", "/nowhere/a"], "data_dirs"),
        (&["--storage-max-bytes", "1KiB"], "storage.max_bytes"),
        (&["--storage-reserve", "some"], "storage.reserve"),
        (&["--storage-compact-below", "91"], "storage.compact_below"),
        (&["--storage-scrub-rate", "fast"], "storage.scrub_rate"),
        (&["--storage-scrub-every", "daily"], "storage.scrub_every"),
    ] {
        let (code, stderr) = data.setup().args(args).refused();
        assert!(code == 2 && stderr.contains(said), "{args:?}: {code} {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let (code, stderr) = data.setup().env("RON_DEADLINE_HEAD", "soon").refused();
    assert!(code == 2 && stderr.contains("deadlines.head"), "{code} {stderr}");
    assert!(stderr.contains("environment"), "it says where it came from: {stderr}");
    let (code, stderr) = data.setup().env("RON_DATA_DIRS", "/nowhere/a,/nowhere/b").refused();
    assert!(code == 2, "{code} {stderr}");
    assert!(stderr.contains("data_dir (flag) and data_dirs (environment)"), "{stderr}");
    assert!(!data.path().join("data").exists(), "nothing was made");
    for flag in ["--help", "--version"] {
        let out = run(Command::new(env!("CARGO_BIN_EXE_rond")).arg(flag), b"");
        assert!(out.code == 0 && out.stderr.is_empty() && !out.stdout.is_empty(), "{flag}");
    }
}

#[test]
fn one_data_directory_has_one_node() {
    let data = Data::new();
    let node = data.start(1);
    let object = object(1, 100);
    Curl::http(&node).store(&object);
    let (code, said) = data.setup().refused();
    assert!(code == 1 && said.contains("in use by another process"), "{code}: {said}");
    assert!(said.contains(&node.pid().to_string()), "it names the other: {said}");
    Curl::http(&node).check(&object);
    node.kill();
    // The lock of a node that was killed holds nobody up.
    let node = data.start(1);
    Curl::http(&node).check(&object);
    node.terminate();
}

#[test]
fn a_number_of_partitions_that_comes_too_late_is_said() {
    let data = Data::new();
    for (given, said) in [("3", false), ("3", false), ("5", true)] {
        let node = data.setup().args(&["--partitions", given]).start();
        let line = format!("partitions = {given} is without effect: the data directory has 3");
        // What a start has to say comes before this.
        let log = node.wait_stderr("\"ready\"");
        assert_eq!(log.contains(&line), said, "{log}");
        node.terminate();
    }
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let data = Data::new();
    fs::create_dir(data.path().join("data")).expect("it can be made");
    fs::write(data.path().join("data/thesis.txt"), "text").expect("it can be written");
    let (code, said) = data.setup().refused();
    assert!(code == 1 && said.contains("thesis.txt"), "{code}: {said}");
    let names = fs::read_dir(data.path().join("data")).expect("it is there");
    assert!(names.count() <= 2, "nothing but a lock is made");
}

#[test]
fn a_directory_of_another_format_is_refused() {
    let data = Data::new();
    let dir = data.path().join("data");
    fs::create_dir(&dir).expect("it can be made");
    for (text, said) in [
        ("{\"format\":2,\"partitions\":1}\n", "format 2"),
        ("{\"format\":1}\n", "damaged"),
        ("", "damaged"),
    ] {
        fs::write(dir.join("format.json"), text).expect("it can be written");
        let (code, stderr) = data.setup().refused();
        assert!(code == 1 && stderr.contains(said), "{text}: {code} {stderr}");
        let kept = fs::read_to_string(dir.join("format.json")).expect("it is there");
        assert_eq!(kept, text, "nothing is changed");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let data = Data::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for flag in ["--http", "--https", "--oap", "--admin"] {
        let (code, said) = data.setup().args(&[flag, &address]).refused();
        assert!(code == 1 && said.contains(&address), "{flag}: {code} {said}");
    }
}

#[test]
fn two_nodes_share_no_port() {
    let (first, second) = (Data::new(), Data::new());
    let node = first.start(1);
    let address = node.at("http").to_string();
    let (code, said) = second.setup().args(&["--http", &address]).refused();
    assert!(code == 1 && said.contains(&address), "{code}: {said}");
    node.terminate();
}

#[test]
fn all_cores_and_ipv6_by_default() {
    let data = Data::new();
    let cores = crate::common::cores().len();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rond"));
    clean_environment(&mut command);
    command.arg("--data-dir").arg(data.path().join("data")).args(["--http", "[::1]:0"]);
    command.args(["--oap", "off", "--admin", "127.0.0.1:0", "--cache", "256MiB"]);
    let node = crate::common::Node::start(command);
    assert_eq!(node.ready()["shards"], cores);
    assert_eq!(bound_cores(node.pid()).len(), cores, "each shard has a core of its own");
    let object = object(1, 1000);
    let url = format!("{}/o/{}", node.http(), object.addr);
    let file = crate::common::curl::file(&object.bytes);
    let put = curl(&["-g", "-T", file.path().to_str().expect("UTF-8"), &url]);
    assert_eq!(put.status, 201, "the IPv6 loopback may write");
    assert_eq!(curl(&["-g", &url]).body, object.bytes);
    node.terminate();
}

/// The cores that threads of shards are bound to. Threads that one has started besides, which may
/// run anywhere, can have its name.
fn bound_cores(pid: u32) -> BTreeSet<usize> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the node lives");
    let bound = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        name.starts_with("ron-shard-").then(|| allowed.trim().parse().ok())?
    });
    bound.collect()
}
