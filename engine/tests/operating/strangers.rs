//! Trees and bundles of strangers: `ronctl` names what is wrong, and nothing else happens.

use std::{
    fs,
    io::{Seek, Write},
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::bundles::{dir, files, puts, stderr, stdout, text, with, write};
use crate::common::{Data, MIB, Node, addr_of, curl::Curl, named};

/// Something in a directory that cannot be packed.
type Trap = fn(&Path);

fn link_out(root: &Path) {
    symlink("/etc/passwd", root.join("trap")).expect("it can be made");
}

fn link_in(root: &Path) {
    symlink("good", root.join("trap")).expect("it can be made");
}

fn link_up(root: &Path) {
    symlink(".", root.join("trap")).expect("it can be made");
}

fn link_nowhere(root: &Path) {
    symlink("nothing", root.join("trap")).expect("it can be made");
}

fn fifo(root: &Path) {
    let made = std::process::Command::new("mkfifo").arg(root.join("trap")).status();
    assert!(made.expect("there is mkfifo").success());
}

fn socket(root: &Path) {
    // Its name stays when it is closed.
    UnixListener::bind(root.join("trap")).expect("it can be made");
}

fn line_end(root: &Path) {
    fs::create_dir(root.join("trap")).expect("it can be made");
    write(root, b"trap/new\nline", b"x");
}

fn not_utf8(root: &Path) {
    write(root, b"trap\xff", b"x");
}

fn not_utf8_directory(root: &Path) {
    write(root, b"trap\xff/file", b"x");
}

fn escape(root: &Path) {
    write(root, b"trap\x1b[2J", b"x");
}

fn manifest(root: &Path) {
    write(root, b"Manifest.toml", b"x");
}

fn payload(root: &Path) {
    write(root, b"payload.bin", b"x");
}

fn deep(root: &Path) {
    let path = vec!["d".repeat(250); 5].join("/");
    write(root, path.as_bytes(), b"x");
}

#[test]
fn hostile_trees() {
    let rows: &[(Trap, &[&str], &str)] = &[
        (link_out, &[], "trap: is a symbolic link"),
        (link_in, &[], "trap: is a symbolic link; --follow-links"),
        (link_out, &["--follow-links"], "trap: is a symbolic link that leads out of the tree"),
        (link_nowhere, &["--follow-links"], "leads out of the tree, or nowhere"),
        (link_up, &["--follow-links"], "trap: is a symbolic link to a directory that it lies in"),
        (fifo, &[], "trap: is a FIFO"),
        (fifo, &["--follow-links"], "trap: is a FIFO"),
        (socket, &[], "trap: is a socket"),
        (line_end, &[], "trap/new\u{fffd}line: cannot be in a bundle"),
        (not_utf8, &[], "trap\u{fffd}: has a name that is not UTF-8"),
        (not_utf8_directory, &[], "trap\u{fffd}: has a name that is not UTF-8"),
        (escape, &[], "trap\u{fffd}[2J: cannot be in a bundle"),
        (manifest, &[], "Manifest.toml: cannot be in a bundle"),
        (payload, &[], "payload.bin: cannot be in a bundle"),
        (deep, &[], "is longer than 1024 bytes"),
    ];
    let data = Data::new();
    let node = data.start(1);
    for (number, (trap, args, said)) in rows.iter().enumerate() {
        let source = dir();
        write(source.path(), b"good", b"good");
        trap(source.path());
        let args = [&["pack", text(source.path())], *args].concat();
        let output = with(&node, &args);
        assert_eq!(output.code, 1, "row {number}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "row {number}: {}", stderr(&output));
        assert!(stderr(&output).contains(text(source.path())), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "row {number}");
    }
    for path in ["/dev/null", "/nowhere/at/all"] {
        let output = with(&node, &["pack", path]);
        assert_eq!(output.code, 1);
        assert!(stderr(&output).contains(path), "{}", stderr(&output));
    }
    assert_eq!(puts(&node), 0, "nothing of any was sent");
    // A link that stays inside is followed, if that is asked for.
    let source = dir();
    write(source.path(), b"good", b"good");
    link_in(source.path());
    let output = with(&node, &["pack", text(source.path()), "--follow-links", "--json"]);
    assert!(stdout(&output).contains("\"files\":2"));
    // All that is wrong is named at once.
    manifest(source.path());
    let output = with(&node, &["pack", text(source.path())]);
    let said = stderr(&output);
    assert!(
        said.contains("2 paths") && said.contains("/trap:") && said.contains("/Manifest.toml:")
    );
    node.terminate();
}

#[test]
fn a_file_that_is_written_while_it_is_packed() {
    let (data, source) = (Data::new(), dir());
    let node = data.start(1);
    write(source.path(), b"file.bin", &vec![7; 64 * MIB]);
    let path = source.path().join("file.bin");
    let ended = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().write(true).open(&path).expect("it is there");
            for byte in (0..=u8::MAX).cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                file.rewind().and_then(|()| file.write_all(&[byte])).expect("it can be written");
            }
        });
        let output = with(&node, &["pack", text(source.path())]);
        ended.store(true, Ordering::Relaxed);
        output
    });
    assert_eq!(output.code, 1, "{}", stderr(&output));
    let said = format!("{}: changed while it was read", path.display());
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    node.terminate();
}

/// A manifest with these entries: path, address, length.
fn bundle(entries: &[(&str, &str, usize)], (count, bytes): (usize, usize)) -> String {
    let mut text = String::from("schema_version = 3\nkind = \"bundle\"\nhash_algo = \"b3\"\n");
    text.push_str(&format!("files = {count}\nbytes = {bytes}\nentries = [\n"));
    for (path, addr, len) in entries {
        let path = path.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!(
            "  {{ path = \"{path}\", address = \"{addr}\", bytes = {len}, mime = \"text/plain\" }},\n"
        ));
    }
    text + "]\n"
}

/// Stores a manifest and has it unpacked into a directory, which may have something in it.
fn unpack(node: &Node, manifest: &str, into: &Path, args: &[&str]) -> (i32, String) {
    let stored = named(manifest.as_bytes().to_vec());
    Curl::http(node).store(&stored);
    let output = with(node, &[&["unpack", &stored.addr, text(into)], args].concat());
    (output.code, stderr(&output))
}

#[test]
fn hostile_bundles() {
    let data = Data::new();
    let node = data.start(1);
    let (hello, missing) = (named(b"hello".to_vec()), addr_of(b"missing"));
    Curl::http(&node).store(&hello);
    let addr = hello.addr.as_str();
    let one = |path: &str| bundle(&[(path, addr, 5)], (1, 5));
    let good = one("file");
    let rows = [
        (one("../out"), 6, "segment that is . or .."),
        (one("a/../../out"), 6, "segment that is . or .."),
        (one("/tmp/out"), 6, "begins or ends with a slash"),
        (one("a//b"), 6, "two in a row"),
        (one("./a"), 6, "segment that is . or .."),
        (one("a\u{7}b"), 6, "not spelled as an entry"),
        (one(&"x".repeat(1025)), 6, "longer than 1024 bytes"),
        (one("Manifest.toml"), 6, "a name that every bundle has for itself"),
        (one(".ronctl-part/x"), 1, "folder that unpack uses for itself"),
        (one(&"n".repeat(300)), 1, "File name too long"),
        (bundle(&[("b", addr, 5), ("a", addr, 5)], (2, 10)), 6, "does not come after"),
        (bundle(&[("a", addr, 5), ("a", addr, 5)], (2, 10)), 6, "does not come after"),
        (bundle(&[("a", addr, 5), ("a/b", addr, 5)], (2, 10)), 1, "/a: is "),
        (bundle(&[("a", addr, 5)], (2, 5)), 6, "the head says 2 files"),
        (bundle(&[("a", addr, 4)], (1, 4)), 6, "a: the manifest says 4 bytes, the object has 5"),
        (bundle(&[("a", addr, 6)], (1, 6)), 6, "a: the manifest says 6 bytes, the object has 5"),
        (bundle(&[("a", &missing, 7)], (1, 7)), 3, "/a: not_found"),
        (good.replace("  {", " {"), 6, "not spelled as an entry"),
        (good.replace("kind", "sort"), 6, "not a bundle manifest"),
        (good.trim_end().to_owned(), 6, "not spelled as an entry"),
        (format!("{good}\n"), 6, "not spelled as an entry"),
        ("hello".to_owned(), 6, "not a bundle manifest"),
        (String::new(), 6, "not a bundle manifest"),
    ];
    for (number, (manifest, code, said)) in rows.iter().enumerate() {
        let out = dir();
        let into = out.path().join("in");
        let (found, words) = unpack(&node, manifest, &into, &[]);
        assert_eq!(found, *code, "row {number}: {words}");
        assert!(words.contains(said), "row {number}: {words}");
        // Of two paths in one place the first may be there already.
        let left = files(out.path());
        let is_in = |path: &Vec<u8>| path == b"in/a" || path == b"in/a/b";
        assert!(left.keys().all(is_in), "row {number}: {left:?}");
        assert!(left.is_empty() || *said == "/a: is ", "row {number}: {left:?}");
    }
    node.terminate();
}

#[test]
fn what_lies_in_the_directory_leads_nowhere() {
    let data = Data::new();
    let node = data.start(1);
    let hello = named(b"hello".to_vec());
    Curl::http(&node).store(&hello);
    let deep = bundle(&[("a/b", &hello.addr, 5)], (1, 5));
    let (out, elsewhere) = (dir(), dir());
    write(elsewhere.path(), b"b", b"as it was");
    type Lay<'a> = &'a dyn Fn(&Path);
    let rows: [(&str, Lay<'_>); 5] = [
        ("/a: is no directory", &|root| {
            symlink(elsewhere.path(), root.join("a")).expect("it can be made");
        }),
        ("/a: is no directory", &|root| write(root, b"a", b"a file")),
        ("/a/b: is there already, and no regular file", &|root| {
            fs::create_dir(root.join("a")).expect("it can be made");
            symlink(elsewhere.path().join("b"), root.join("a/b")).expect("it can be made");
        }),
        ("/a/b: is there already, and no regular file", &|root| {
            fs::create_dir_all(root.join("a/b")).expect("it can be made");
        }),
        (".ronctl-part: Not a directory", &|root| {
            symlink(elsewhere.path(), root.join(".ronctl-part")).expect("it can be made");
        }),
    ];
    for (number, (said, lay)) in rows.into_iter().enumerate() {
        let into = out.path().join(number.to_string());
        fs::create_dir(&into).expect("it can be made");
        lay(&into);
        let (code, words) = unpack(&node, &deep, &into, &[]);
        assert_eq!(code, 1, "row {number}: {words}");
        assert!(words.contains("--continue"), "row {number}: {words}");
        let (code, words) = unpack(&node, &deep, &into, &["--continue"]);
        assert_eq!(code, 1, "row {number}: {words}");
        assert!(words.contains(said), "row {number}: {words}");
        let left = files(elsewhere.path());
        assert_eq!(left, [(b"b".to_vec(), b"as it was".to_vec())].into(), "row {number}");
    }
    // Files of others stay.
    let into = out.path().join("good");
    write(&into, b"a/other", b"mine");
    write(&into, b".ronctl-part/0", b"of a process that was killed");
    assert_eq!(unpack(&node, &deep, &into, &["--continue"]).0, 0);
    let names: Vec<Vec<u8>> = files(&into).into_keys().collect();
    assert_eq!(names, [b"a/b".to_vec(), b"a/other".to_vec()]);
    assert!(into.as_os_str().as_bytes().ends_with(b"good"));
    node.terminate();
}
