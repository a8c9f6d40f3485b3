//! `curl` as a client: what it was answered, and whether it was content.

use std::{fs, path::Path, process::Command};

use super::{Node, Object, run};

/// What curl made of one request.
pub struct Answer {
    /// Curl's own verdict, 0 for a whole answer.
    pub exit: i32,
    pub status: u16,
    /// All heads, informational ones included, as they came.
    pub heads: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field of the last head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let last = self.heads.trim_end().rsplit("\r\n\r\n").next()?;
        last.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The code of the error envelope.
    pub fn error(&self) -> String {
        self.json()["code"].as_str().expect("an envelope has a code").to_owned()
    }
}

/// Runs curl with these arguments.
pub fn curl(args: &[&str]) -> Answer {
    curl_with(args, b"")
}

/// Runs curl with these arguments and this on its standard input.
pub fn curl_with(args: &[&str], input: &[u8]) -> Answer {
    let heads = tempfile::NamedTempFile::new().expect("a file can be made");
    let mut command = Command::new("curl");
    // -q: no settings of the user who runs the tests.
    command.args(["-q", "-sS", "--max-time", "50", "--expect100-timeout", "20", "--noproxy", "*"]);
    command.arg("-D").arg(heads.path()).args(args);
    let out = run(&mut command, input);
    let heads = fs::read_to_string(heads.path()).expect("heads are text");
    let status = heads
        .lines()
        .rfind(|line| line.starts_with("HTTP/"))
        .and_then(|line| line.split(' ').nth(1))
        .map_or(0, |status| status.parse().expect("a status is a number"));
    if out.code != 0 {
        eprintln!("curl {args:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Answer { exit: out.code, status, heads, body: out.stdout }
}

/// Writes bytes where curl can take them from.
pub fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    fs::write(file.path(), bytes).expect("a file can be written");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// HTTP or HTTPS of one node.
pub struct Curl {
    base: String,
    ca: Option<String>,
}

impl Curl {
    pub fn http(node: &Node) -> Curl {
        Curl { base: node.http(), ca: None }
    }

    pub fn https(node: &Node) -> Curl {
        let ca = text(&node.ca()).to_owned();
        Curl { base: node.https(), ca: Some(ca) }
    }

    pub fn at(base: &str) -> Curl {
        Curl { base: base.to_owned(), ca: None }
    }

    /// A request for a path, with more arguments.
    pub fn request(&self, path: &str, args: &[&str]) -> Answer {
        self.request_with(path, args, b"")
    }

    fn request_with(&self, path: &str, args: &[&str], input: &[u8]) -> Answer {
        let url = format!("{}{path}", self.base);
        let mut all = Vec::from(args);
        if let Some(ca) = &self.ca {
            all.extend(["--cacert", ca]);
        }
        all.push(&url);
        curl_with(&all, input)
    }

    pub fn get(&self, addr: &str, args: &[&str]) -> Answer {
        self.request(&format!("/o/{addr}"), args)
    }

    pub fn head(&self, addr: &str) -> Answer {
        self.get(addr, &["-I"])
    }

    /// PUT to an address, with a Content-Length.
    pub fn put(&self, addr: &str, bytes: &[u8], args: &[&str]) -> Answer {
        let file = file(bytes);
        let mut all = vec!["-T", text(file.path())];
        all.extend(args);
        self.request(&format!("/o/{addr}"), &all)
    }

    /// PUT without an address, with a Content-Length.
    pub fn put_sized(&self, bytes: &[u8], args: &[&str]) -> Answer {
        let file = file(bytes);
        let data = format!("@{}", text(file.path()));
        let mut all = vec!["-X", "PUT", "--data-binary", &data];
        all.extend(args);
        self.request("/o/", &all)
    }

    /// PUT without an address, in chunks.
    pub fn put_chunked(&self, bytes: &[u8], args: &[&str]) -> Answer {
        let mut all = vec!["-T", "-"];
        all.extend(args);
        self.request_with("/o/", &all, bytes)
    }

    /// Stores an object and expects that this worked.
    pub fn store(&self, object: &Object) {
        let answer = self.put(&object.addr, &object.bytes, &[]);
        assert!(matches!(answer.status, 200 | 201), "PUT: {}", answer.heads);
    }

    /// Fetches an object and expects that it is right.
    pub fn check(&self, object: &Object) {
        let answer = self.get(&object.addr, &[]);
        assert_eq!((answer.exit, answer.status), (0, 200), "{}: {}", object.addr, answer.heads);
        super::assert_same(&answer.body, &object.bytes, &object.addr);
    }
}
