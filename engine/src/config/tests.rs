use std::{collections::BTreeMap, io::Write};

use super::*;

const MIB: u64 = 1024 * 1024;

fn machine() -> Machine {
    Machine { cores: vec![0, 1, 2, 3, 6], memory_len: 1000 * MIB }
}

/// Loads settings from flags, variables and the text of a file.
pub(super) fn load(args: &[&str], env: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(file.as_bytes()).unwrap();
    let path = named.path().to_str().unwrap();
    let mut args: Vec<OsString> = ["rond"].iter().chain(args).map(OsString::from).collect();
    if !file.is_empty() {
        args.extend(["--config".into(), path.into()]);
    }
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    Config::load(args, &|name| env.get(name).map(OsString::from), &machine())
}

fn error(args: &[&str], env: &[(&str, &str)], file: &str) -> String {
    load(args, env, file).unwrap_err().to_string()
}

fn address(text: &str) -> Option<SocketAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn nothing_given_is_the_documented_defaults() {
    let config = load(&[], &[], "").unwrap();
    assert_eq!(config.data_dirs, [PathBuf::from("./ron-data")]);
    assert_eq!(config.http, address("127.0.0.1:9080"));
    assert_eq!(config.oap, address("127.0.0.1:1777"));
    assert_eq!(Some(config.admin), address("127.0.0.1:9096"));
    assert_eq!((config.https, config.oap_plain, &config.tls), (None, None, &None));
    assert_eq!(config.cores, [0, 1, 2, 3, 6]);
    assert_eq!((config.shards(), config.partitions), (5, 5));
    assert_eq!(config.cache_len, 250 * MIB, "a quarter, and a multiple of five blocks");
    assert_eq!(config.arena_len(), 50 * MIB);
    assert_eq!(config.log, "info");
    // An eighth of the memory, shared by five, at 36 KiB each.
    assert_eq!((config.connections_max, config.connections_per_peer), (711, 534));
    assert_eq!(config.connection_buffers_len, 1000 * MIB / 32);
    assert_eq!(config.deadlines.body_rate, 1024);
    assert_eq!(config.object_len_max, 16 * 1024 * MIB);
    assert_eq!(config.deadlines.idle, Duration::from_secs(75));
    assert_eq!(config.stall_limit, Duration::from_millis(20));
    assert_eq!(config.hang_limit, Duration::from_secs(60));
    assert_eq!((config.names.max, config.names.store_len), (100_000, 256 * MIB));
    assert_eq!(config.writers, Writers::default());
    assert!(config.warnings.is_empty());
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = "http = '127.0.0.1:1'\noap = '127.0.0.1:1'\nlog = 'debug'\n";
    let env = [("RON_HTTP", "127.0.0.1:2"), ("RON_OAP", "127.0.0.1:3"), ("RON_LOG", "")];
    let config = load(&["--http", "127.0.0.1:4"], &env, file).unwrap();
    assert_eq!(config.http, address("127.0.0.1:4"));
    assert_eq!(config.oap, address("127.0.0.1:3"));
    assert_eq!(config.log, "debug", "an empty variable is not set");
}

#[test]
fn the_file_is_named_by_flag_or_variable() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("a"), "log = 'trace'").unwrap();
    std::fs::write(path("b"), "log = 'error'").unwrap();
    let env = [("RON_CONFIG", path("a"))];
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(load(&[], &env, "").unwrap().log, "trace");
    assert_eq!(load(&["--config", &path("b")], &env, "").unwrap().log, "error");
    let missing = load(&["--config", &path("c")], &env, "").unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }));
    std::fs::write(path("long"), " ".repeat(limits::FILE_LEN_MAX as usize)).unwrap();
    assert!(load(&["--config", &path("long")], &[], "").is_ok());
    std::fs::write(path("long"), " ".repeat(limits::FILE_LEN_MAX as usize + 1)).unwrap();
    let long = load(&["--config", &path("long")], &[], "").unwrap_err();
    assert!(matches!(long, ConfigError::TooLong { .. }));
}

/// A value for each key that no default has, to be seen in the settings.
const SAMPLES: [(&str, &str); 44] = [
    ("data_dir", "/x"),
    ("data_dirs", "/x,/y"),
    ("http", "127.0.0.1:11"),
    ("https", "127.0.0.1:12"),
    ("oap", "127.0.0.1:13"),
    ("oap_plain", "127.0.0.1:14"),
    ("admin", "127.0.0.1:15"),
    ("cores", "0-1,3"),
    ("shards", "2"),
    ("cache", "64MiB"),
    ("tls_cert", "/cert"),
    ("tls_key", "/key"),
    ("log", "warn"),
    ("log_format", "text"),
    ("connections_max", "16"),
    ("connections_per_peer", "15"),
    ("connection_buffers", "14MiB"),
    ("object_len_max", "17"),
    ("window_groups", "18"),
    ("write_tokens", "a,b"),
    ("write_loopback", "false"),
    ("enforce_payments", "true"),
    ("server_names", "a,b.example"),
    ("stall_limit", "0.032"),
    ("hang_limit", "35"),
    ("partitions", "19"),
    ("storage.max_bytes", "30GiB"),
    ("storage.index_memory", "1GiB"),
    ("storage.reserve", "31MiB"),
    ("storage.compact_below", "32"),
    ("storage.scrub_rate", "33MiB"),
    ("storage.scrub_every", "34.5"),
    ("names.max", "36"),
    ("names.store", "37MiB"),
    ("deadlines.handshake", "20.5"),
    ("deadlines.head", "21"),
    ("deadlines.idle", "22"),
    ("deadlines.body", "23"),
    ("deadlines.body_rate", "2KiB"),
    ("deadlines.send", "24"),
    ("deadlines.stream", "25"),
    ("deadlines.linger", "26"),
    ("deadlines.drain", "27"),
    ("debug.verify_sends", "on"),
];

#[test]
fn every_key_is_a_flag_a_variable_and_a_line_of_the_file() {
    let tls = |name: &str| name.starts_with("tls_");
    let names: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, keys::KEYS.map(|key| key.name));
    let default = load(&[], &[], "").unwrap();
    for (key, (name, value)) in keys::KEYS.iter().zip(SAMPLES) {
        // Certificate and key are only taken together.
        let other = if name == "tls_cert" { "tls_key" } else { "tls_cert" };
        let both = |text: &dyn Fn(&str) -> String| {
            if tls(name) { text(name) + &text(other) } else { text(name) }
        };
        let flag = format!("--{}={value}", key.flag());
        let other_flag = format!("--{}={value}", other.replace('_', "-"));
        let flags: Vec<&str> = if tls(name) { vec![&flag, &other_flag] } else { vec![&flag] };
        let by_flag = load(&flags, &[], "").unwrap();
        let (variable, other_variable) = (key.variable(), format!("RON_{}", other.to_uppercase()));
        let mut env = vec![(variable.as_str(), value)];
        if tls(name) {
            env.push((&other_variable, value));
        }
        let by_variable = load(&[], &env, "").unwrap();
        let by_file = load(
            &[],
            &[],
            &both(&|name| match name.split_once('.') {
                Some((table, rest)) => format!("[{table}]\n{rest} = '{value}'\n"),
                None => format!("{name} = '{value}'\n"),
            }),
        )
        .unwrap();
        assert_ne!(by_flag, default, "{name} changes something");
        assert!(by_flag == by_variable && by_flag == by_file, "{name} is the same everywhere");
    }
}

#[test]
fn the_file_takes_numbers_and_lists() {
    let file = "cache = 67108864\ncores = [0, '2-3']\nconnections_max = 7\n\
                write_tokens = ['one', 'two']\n[deadlines]\nhead = 1.5\nidle = 2\n";
    let config = load(&[], &[], file).unwrap();
    assert_eq!(config.cores, [0, 2, 3]);
    assert_eq!(config.cache_len, 67_108_864 - 67_108_864 % (3 * 65_536));
    assert_eq!(config.connections_max, 7);
    assert_eq!(config.writers.tokens.0, ["one", "two"]);
    assert_eq!(config.deadlines.head, Duration::from_millis(1500));
    assert_eq!(config.deadlines.idle, Duration::from_secs(2));
    let flags = ["--write-token", "one", "--write-token", "two"];
    assert_eq!(load(&flags, &[], "").unwrap().writers, config.writers);
    assert_eq!(load(&[], &[], "write_tokens = []").unwrap().writers, Writers::default());
    let file = "write_loopback = false\nserver_names = ['ron.example']";
    let writers = load(&[], &[], file).unwrap().writers;
    assert_eq!((writers.loopback, writers.names), (false, vec!["ron.example".to_owned()]));
    assert_eq!(load(&["--write-loopback=on"], &[], "").unwrap().writers, Writers::default());
}

#[test]
fn what_the_file_may_not_hold_is_named() {
    for (file, said) in [
        ("htpp = 1", "\"htpp\""),
        ("[deadlines]\nheads = 1", "\"deadlines.heads\""),
        ("[http]\na = 1", "http: a value of type table"),
        ("deadlines = 3", "\"deadlines\""),
        ("log = true", "log: a value of type boolean (file); allowed: text"),
        ("data_dir = 5", "data_dir: a value of type integer (file); allowed: text"),
        ("write_tokens = [1]", "write_tokens: a value of type array (file); allowed: text, or a"),
        ("write_tokens = 1.5", "write_tokens: a value of type float"),
        ("shards = true", "shards: a value of type boolean (file); allowed: text or a number"),
        ("write_loopback = 1", "write_loopback: a value of type integer"),
        ("log = 1979-05-27", "log: a value of type datetime"),
        ("http = ['127.0.0.1:1']", "http: a value of type array"),
        ("cores = [[1]]", "cores: a value of type array"),
        ("cores = []", "cores"),
        ("config = 'x'", "\"config\""),
        ("http = ", "no TOML"),
    ] {
        let error = error(&[], &[], file);
        assert!(error.contains(said), "{file}: {error}");
    }
}

#[test]
fn what_is_not_allowed_is_said_with_key_value_and_origin() {
    for (flag, key, value) in [
        ("--http", "http", "localhost"),
        ("--oap", "oap", "127.0.0.1:65536"),
        ("--admin", "admin", "off"),
        ("--oap-plain", "oap_plain", "0.0.0.0:1"),
        ("--cores", "cores", "4"),
        ("--cores", "cores", "0,0"),
        ("--cache", "cache", "39MiB"),
        ("--cache", "cache", "lots"),
        ("--log", "log", "loud"),
        ("--connections-max", "connections_max", "0"),
        ("--connections-max", "connections_max", "1000001"),
        ("--object-len-max", "object_len_max", "17GiB"),
        ("--window-groups", "window_groups", "65"),
        ("--partitions", "partitions", "1025"),
        ("--write-loopback", "write_loopback", "maybe"),
        ("--server-name", "server_names", "ron.example:80"),
        ("--partitions", "partitions", "+1"),
        ("--stall-limit", "stall_limit", "0.0009"),
        ("--stall-limit", "stall_limit", "61"),
        ("--hang-limit", "hang_limit", "4.9"),
        ("--hang-limit", "hang_limit", "3601"),
        ("--stall-limit", "stall_limit", "20 blinks"),
        ("--debug-verify-sends", "debug.verify_sends", "yes"),
        ("--data-dir", "data_dir", ""),
        ("--deadline-head", "deadlines.head", "0"),
        ("--deadline-head", "deadlines.head", "604801"),
        ("--deadline-head", "deadlines.head", "8d"),
        ("--shards", "shards", "6"),
        ("--shards", "shards", "0"),
        ("--log-format", "log_format", "xml"),
    ] {
        let error = error(&[&format!("{flag}={value}")], &[], "");
        let start = format!("{key} = {value:?} (flag); allowed: ");
        assert!(error.starts_with(&start) && error.len() > start.len(), "{error}");
    }
    let from_env = error(&[], &[("RON_LOG", "loud")], "");
    assert!(from_env.contains("(environment)"), "{from_env}");
}

#[test]
fn limits_hold_to_the_last_one() {
    let good = [
        "--cache=40MiB",
        "--partitions=1024",
        "--stall-limit=0.001",
        "--hang-limit=5",
        "--hang-limit=0",
        "--window-groups=64",
        "--object-len-max=1",
    ];
    for flag in good {
        assert!(load(&[flag], &[], "").is_ok(), "{flag}");
    }
    let tokens = vec!["t"; limits::TOKENS_MAX].join(",");
    assert!(load(&[], &[("RON_WRITE_TOKENS", &tokens)], "").is_ok());
    let more = tokens + ",t";
    assert!(load(&[], &[("RON_WRITE_TOKENS", &more)], "").is_err());
}

#[test]
fn tokens_are_never_shown() {
    let error = error(&["--write-token", "hidden secret"], &[], "");
    assert!(error.starts_with("write_tokens = ") && !error.contains("hidden"), "{error}");
    let config = load(&["--write-token", "hidden"], &[], "").unwrap();
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn listeners_can_be_off_but_not_all_and_not_the_same() {
    let config = load(&["--http=off", "--https=[::1]:0"], &[], "").unwrap();
    assert_eq!((config.http, config.https), (None, address("[::1]:0")));
    let none = load(&["--http=off", "--oap=off"], &[], "").unwrap_err();
    assert!(matches!(none, ConfigError::NothingServed));
    let same = error(&["--http=127.0.0.1:9096"], &[], "");
    assert_eq!(same, "http and admin are both 127.0.0.1:9096");
    assert!(load(&["--http=127.0.0.1:0", "--oap=127.0.0.1:0"], &[], "").is_ok());
}

#[test]
fn half_a_certificate_is_refused() {
    let error = error(&["--tls-key", "/key"], &[], "");
    assert_eq!(error, "tls_key is set but tls_cert is not; set both or neither");
}

#[test]
fn an_open_admin_listener_is_warned_of() {
    let config = load(&["--admin", "0.0.0.0:9096"], &[], "").unwrap();
    assert!(config.warnings[0].starts_with("admin = 0.0.0.0:9096: "), "{:?}", config.warnings);
}

#[test]
fn a_small_machine_gets_the_least_cache() {
    let machine = Machine { cores: vec![0], memory_len: 16 * MIB };
    let config = Config::load(["rond".into()], &|_| None, &machine).unwrap();
    assert_eq!(config.cache_len, limits::CACHE_PER_SHARD_MIN);
}

#[test]
fn help_and_version_end_well_and_mistakes_do_not() {
    let help = load(&["--help"], &[], "").unwrap_err();
    assert_eq!(help.exit_code(), 0);
    for key in &keys::KEYS {
        let text = help.to_string();
        assert!(text.contains(&format!("--{} ", key.flag())), "{}", key.name);
        assert!(text.contains(&format!("[env: {}]", key.variable())), "{}", key.name);
    }
    assert_eq!(load(&["--version"], &[], "").unwrap_err().exit_code(), 0);
    for args in [["--nonsense", "1"], ["--http=127.0.0.1:1", "--http=127.0.0.1:2"]] {
        assert_eq!(load(&args, &[], "").unwrap_err().exit_code(), 2, "{args:?}");
    }
    assert_eq!(load(&["--log=loud"], &[], "").unwrap_err().exit_code(), 2);
}

#[test]
fn every_setting_is_reloaded_or_named_as_waiting_for_a_restart() {
    let default = load(&[], &[], "").unwrap();
    assert_eq!(default.needs_restart(&default), [""; 0]);
    for (name, value) in SAMPLES {
        let reloaded = ["tls_cert", "tls_key", "write_tokens", "log"].contains(&name);
        let key = keys::KEYS.iter().find(|key| key.name == name).unwrap();
        let mut flags = vec![format!("--{}={value}", key.flag())];
        if name.starts_with("tls_") {
            flags = vec!["--tls-cert=/cert".into(), "--tls-key=/key".into()];
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let waiting = default.needs_restart(&load(&flags, &[], "").unwrap());
        assert_eq!(waiting.is_empty(), reloaded, "{name}: {waiting:?}");
    }
}

#[test]
fn a_number_alone_is_no_list_of_cores() {
    let said = error(&[], &[], "cores = 1");
    assert!(said.starts_with("cores = 1 (file): ") && said.contains("\"0-3\""), "{said}");
    assert!(said.contains("shards = 1"), "{said}");
    assert_eq!(load(&[], &[], "cores = '1'").unwrap().cores, [1]);
    assert_eq!(load(&[], &[], "cores = [1]").unwrap().cores, [1]);
    assert_eq!(load(&[], &[], "shards = 2").unwrap().cores, [0, 1]);
    let said = error(&["--shards=2"], &[], "cores = '1'");
    assert_eq!(said, "cores (file) and shards (flag) are both set; set one of them");
}

#[test]
fn durations_and_sizes_are_written_as_people_do() {
    let file = "cache = '64M'\nstall_limit = '50ms'\n[deadlines]\nhead = '1.5s'\nidle = '2min'\n\
                [storage]\nscrub_every = '2w'\nmax_bytes = '1T'\n";
    let config = load(&[], &[], file).unwrap();
    assert_eq!(config.cache_len, 64 * MIB - 64 * MIB % (5 * 65_536));
    assert_eq!(config.stall_limit, Duration::from_millis(50));
    assert_eq!(config.deadlines.head, Duration::from_millis(1500));
    assert_eq!(config.deadlines.idle, Duration::from_secs(120));
    assert_eq!(config.storage.scrub_every, Duration::from_secs(14 * 24 * 3600));
    assert_eq!(config.storage.max_bytes, Some(1 << 40));
    let said = error(&["--deadline-head=soon"], &[], "");
    assert!(said.contains("a duration such as 15s, 1ms to 7d; a bare number is seconds"), "{said}");
}

#[test]
fn both_names_of_the_token_variable_count_and_unknown_ones_are_seen() {
    let env = [("RON_WRITE_TOKEN", "a"), ("RON_WRITE_TOKENS", "b,c")];
    assert_eq!(load(&[], &env, "").unwrap().writers.tokens.0, ["b", "c", "a"]);
    let config = load(&[], &env[..1], "").unwrap();
    assert_eq!(config.writers.tokens.0, ["a"]);
    let names = ["RON_HTPP", "RON_HTTP", "RON_CONFIG", "RON_CAP", "RON_WRITE_TOKEN", "HOME"];
    let names = names.into_iter().chain(["RON_DEADLINE_HEAD", "RON_DEADLINES_HEAD"]);
    let unknown = keys::unknown_variables(names.map(OsString::from));
    assert_eq!(unknown, ["RON_DEADLINES_HEAD", "RON_HTPP"]);
}

/// The example is what people copy, so it must be complete, and change nothing as it stands.
#[test]
fn the_example_has_every_setting_and_its_default() {
    let example = include_str!("../../../docs/rond.toml");
    assert_eq!(load(&[], &[], example).unwrap(), load(&[], &[], "").unwrap());
    let mut table = String::new();
    let mut named = Vec::new();
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line.split_once(" = ") else { continue };
        let name = format!("{table}{key}");
        // Certificate and key are only taken together.
        if !name.starts_with("tls_") {
            let header = table.strip_suffix('.').map(|table| format!("[{table}]\n"));
            let text = header.unwrap_or_default() + line;
            load(&[], &[], &text).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        named.push(name);
    }
    named.sort_unstable();
    let mut all: Vec<&str> = keys::KEYS.iter().map(|key| key.name).collect();
    all.sort_unstable();
    assert_eq!(named, all);
}
