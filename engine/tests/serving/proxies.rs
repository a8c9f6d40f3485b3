//! A node behind nginx, as it is set up everywhere: everything is as without it, also a refusal of
//! an upload that nginx goes on sending.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    DEADLINE, Data, MIB, Node, Object, assert_same, curl::Curl, flood::Target, object,
};

/// Over HTTP/1.0 with the body taken first, which is the default; over kept connections of HTTP/1.1
/// with the body passed on as it comes; and over TLS.
const WAYS: [&str; 3] = ["default", "kept", "tls"];

/// nginx before a node. It is killed when it is dropped.
struct Proxy {
    child: Child,
    folder: PathBuf,
}

impl Proxy {
    /// `None`, which is said, where nginx is not installed.
    fn start(node: &Node, folder: &Path) -> Option<Proxy> {
        let folder = folder.join("nginx");
        fs::create_dir(&folder).expect("a directory can be made");
        let at = folder.to_str().expect("UTF-8");
        let (http, https) = (node.http(), node.https());
        let ca = node.ca();
        let conf = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/log;
            events {{}}
            http {{
                access_log off; client_max_body_size 0;
                client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
                fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi;
                scgi_temp_path {at}/scgi;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                upstream kept {{ server {}; keepalive 4; }}
                server {{ listen unix:{at}/default; location / {{ proxy_pass {http}; }} }}
                server {{ listen unix:{at}/kept; location / {{
                    proxy_pass http://kept; proxy_http_version 1.1;
                    proxy_set_header Connection ''; proxy_set_header Host localhost;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_request_buffering off;
                }} }}
                server {{ listen unix:{at}/tls; location / {{
                    proxy_pass {https}; proxy_http_version 1.1; proxy_ssl_protocols TLSv1.3;
                    proxy_ssl_verify on; proxy_ssl_trusted_certificate {};
                    proxy_ssl_name localhost; proxy_ssl_server_name on;
                }} }}
            }}",
            node.at("http"),
            ca.display(),
        );
        fs::write(folder.join("conf"), conf).expect("it can be written");
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&folder).arg("-c").arg(folder.join("conf"));
        nginx.arg("-e").arg(folder.join("log")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = match nginx.spawn() {
            Ok(child) => child,
            Err(error) => {
                crate::common::skipped(&format!("no nginx: {error}"));
                return None;
            }
        };
        let (proxy, until) = (Proxy { child, folder }, Instant::now() + DEADLINE);
        while !WAYS.iter().all(|way| UnixStream::connect(proxy.folder.join(way)).is_ok()) {
            assert!(Instant::now() < until, "nginx does not start: {}", proxy.log());
            thread::sleep(Duration::from_millis(20));
        }
        Some(proxy)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Arguments that make curl go this way.
    fn by(&self, way: &str) -> [String; 2] {
        let socket = self.folder.join(way);
        ["--unix-socket".to_owned(), socket.to_str().expect("UTF-8").to_owned()]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with<'a>(by: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    by.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// What is stored comes as it comes without a proxy, and nobody may write.
fn check(proxy: &Proxy, way: &str, large: &Object) {
    let curl = Curl::at("http://localhost");
    let by = proxy.by(way);
    let get = |more: &[&str]| curl.get(&large.addr, &with(&by, more));
    let whole = get(&[]);
    assert_eq!((whole.exit, whole.status), (0, 200), "{way}: {}", proxy.log());
    assert_same(&whole.body, &large.bytes, way);
    let head = get(&["-I"]);
    assert_eq!(head.field("content-length"), Some(&*large.bytes.len().to_string()), "{way}");
    let tag = format!("If-None-Match: {}", whole.field("etag").expect("there is one"));
    assert_eq!(get(&["-H", &tag]).status, 304, "{way}");
    let part = get(&["-r", "100000-1999999"]);
    assert_eq!(part.status, 206, "{way}");
    assert_same(&part.body, &large.bytes[100_000..2_000_000], way);
    assert_eq!(get(&["-r", "99999999-"]).status, 416, "{way}");
    assert_eq!(get(&["-X", "DELETE"]).status, 403, "{way}");
    for round in 0..5 {
        let refused = curl.put(&large.addr, &vec![round; 12 * MIB], &with(&by, &["-H", "Expect:"]));
        assert_eq!(refused.status, 403, "{way}, round {round}: {}", proxy.log());
    }
}

#[test]
fn content_and_refusals_come_through_nginx() {
    let target = Target::warm(1, &[]);
    let large = object(3, 3 * MIB);
    target.store(&large);
    let folder = Data::new();
    let Some(proxy) = Proxy::start(&target.node, folder.path()) else { return };
    let attack = || WAYS.iter().for_each(|way| check(&proxy, way, &large));
    let (during, ()) = target.measure_while("during", attack);
    during.expect_served();
    during.expect_within_bill();
    drop(proxy);
    target.finish();
}

#[test]
fn with_a_token_nginx_may_write() {
    let data = Data::new();
    let node = data.setup().args(&["--write-token", "sekret"]).start();
    let Some(proxy) = Proxy::start(&node, data.path()) else { return };
    let curl = Curl::at("http://localhost");
    for (seed, way) in WAYS.into_iter().enumerate() {
        let by = proxy.by(way);
        let with = with(&by, &["-H", "Authorization: Bearer sekret"]);
        let (one, two) = (object(seed as u64, 3 * MIB), object(10 + seed as u64, 2 * MIB));
        assert_eq!(curl.put(&one.addr, &one.bytes, &with).status, 201, "{way}: {}", proxy.log());
        assert_eq!(curl.put_chunked(&two.bytes, &with).json()["addr"], *two.addr, "{way}");
        let wrong = curl.put(&one.addr, &two.bytes, &with);
        assert_eq!((wrong.status, &*wrong.error()), (400, "bad_digest"), "{way}");
        assert_eq!(curl.get(&one.addr, &[&with[..], &["-X", "DELETE"]].concat()).status, 204);
        assert_eq!(curl.get(&one.addr, &with).status, 404, "{way}");
    }
    drop(proxy);
    node.terminate();
}
