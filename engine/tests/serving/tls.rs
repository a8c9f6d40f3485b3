//! The TLS of the node, seen by OpenSSL.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use crate::common::{
    DEADLINE, Data, Node, Output,
    curl::{Curl, curl},
    oap::{END, HELLO, RESP, read_frame},
    object, run,
};

fn s_client(node: &Node, key: &str, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.arg("s_client").args(["-connect", &node.at(key).to_string()]);
    command.arg("-CAfile").arg(node.ca()).arg("-verify_return_error").args(args);
    command
}

/// A handshake and its end; all that OpenSSL said of it.
fn handshake(node: &Node, key: &str, args: &[&str]) -> (i32, String) {
    let Output { code, stdout, stderr } = run(&mut s_client(node, key, args), b"");
    let text = [stdout, stderr].concat();
    (code, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn only_tls_1_3() {
    let data = Data::new();
    let node = data.start(1);
    for (key, alpn) in [("oap", "ron/1"), ("https", "http/1.1")] {
        let (code, said) = handshake(&node, key, &["-tls1_3", "-alpn", alpn]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("New, TLSv1.3"), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains(&format!("ALPN protocol: {alpn}")), "{said}");
        let (code, said) = handshake(&node, key, &["-tls1_2", "-alpn", alpn]);
        assert_ne!(code, 0, "{said}");
        assert!(said.contains("alert protocol version"), "{said}");
    }
    node.terminate();
}

#[test]
fn the_name_of_the_protocol() {
    let data = Data::new();
    let node = data.start(1);
    for (key, own) in [("oap", "ron/1"), ("https", "http/1.1")] {
        let (code, said) = handshake(&node, key, &[]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("No ALPN negotiated"), "{said}");
        let (code, said) = handshake(&node, key, &["-alpn", &format!("h2,{own}")]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("ALPN protocol: {own}")), "{said}");
        let (code, said) = handshake(&node, key, &["-alpn", "h2"]);
        assert_ne!(code, 0, "{said}");
        assert!(said.contains("no application protocol"), "{said}");
    }
    let (_, said) = handshake(&node, "oap", &["-alpn", "http/1.1"]);
    assert!(said.contains("no application protocol"), "{said}");
    node.terminate();
}

#[test]
fn the_certificate_is_for_this_machine_and_no_other() {
    let data = Data::new();
    let node = data.start(1);
    for args in [["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"]] {
        let (code, said) = handshake(&node, "https", &args);
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = handshake(&node, "https", &["-verify_hostname", "example.org"]);
    assert_ne!(code, 0, "{said}");
    // The CA stays, so that clients need it once; what it signed is found again after a restart.
    let ca = std::fs::read(node.ca()).expect("the CA can be read");
    let gauge = node.metrics().sum("ron_tls_certificate_not_after_seconds");
    assert!(gauge > 1_700_000_000, "{gauge}");
    node.terminate();
    let node = data.start(1);
    assert_eq!(std::fs::read(node.ca()).expect("the CA can be read"), ca);
    let (code, said) = handshake(&node, "oap", &[]);
    assert_eq!(code, 0, "{said}");
    node.terminate();
}

#[test]
fn hello_through_openssl() {
    let data = Data::new();
    let node = data.start(1);
    // The golden vector `hello_request_req`.
    let mut hello = vec![0x21, 0, 0, 0, 1, 1];
    hello.resize(29, 0);
    hello.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
    let mut command = s_client(&node, "oap", &["-quiet", "-alpn", "ron/1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl can be started");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let mut stdout = child.stdout.take().expect("stdout is a pipe");
    let (sender, receiver) = mpsc::channel();
    stdin.write_all(&hello).and_then(|()| stdin.flush()).expect("openssl takes it");
    thread::spawn(move || sender.send(read_frame(&mut stdout)));
    let answer = receiver.recv_timeout(DEADLINE);
    child.kill().expect("openssl can be killed");
    child.wait().expect("it is our child");
    let answer = answer.expect("in time").expect("a frame").expect("before the end");
    assert_eq!((answer.app, answer.flags, answer.code, answer.corr), (HELLO, RESP | END, 0, 7));
    assert_eq!(answer.json()["max_frame"], 1_048_576);
    node.terminate();
}

#[test]
fn an_operators_own_certificate() {
    let data = Data::new();
    let (cert, key) = (data.path().join("cert.pem"), data.path().join("key.pem"));
    let mut make = Command::new("openssl");
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    make.args(["-nodes", "-days", "30", "-subj", "/CN=own", "-addext"]);
    make.arg("subjectAltName=DNS:own.example,IP:127.0.0.1");
    make.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let made = run(&mut make, b"");
    assert_eq!(made.code, 0, "{}", String::from_utf8_lossy(&made.stderr));
    let (cert, key) = (cert.to_str().expect("UTF-8"), key.to_str().expect("UTF-8"));
    let node = data.setup().args(&["--tls-cert", cert, "--tls-key", key]).start();
    assert!(node.ready()["ca"].is_null(), "there is no CA of ours: {}", node.ready());
    let object = object(1, 100_000);
    Curl::http(&node).store(&object);
    let url = format!("{}/o/{}", node.https(), object.addr);
    let answer = curl(&["--cacert", cert, &url]);
    assert_eq!((answer.exit, answer.status), (0, 200));
    assert_eq!(answer.body, object.bytes);
    node.terminate();

    let (code, said) = data.setup().args(&["--tls-cert", cert]).refused();
    assert!(code != 0 && said.contains("tls_key"), "{said}");
    let (code, said) = data.setup().args(&["--tls-cert", key, "--tls-key", key]).refused();
    assert!(code != 0 && said.contains("key.pem"), "{said}");
}

#[test]
fn bytes_that_are_no_tls_are_cut_off() {
    let data = Data::new();
    let node = data.setup().args(&["--deadline-handshake", "0.3"]).start();
    for key in ["oap", "https"] {
        for bytes in [&b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"[..], b"", b"\x16\x03\x01\x02\x00\x01"] {
            let mut stream = crate::common::connect(node.at(key));
            stream.write_all(bytes).expect("the node takes it");
            let mut answer = Vec::new();
            // A reset is an end too; only an open connection would be wrong.
            if let Err(error) = stream.read_to_end(&mut answer) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            // At most an alert, never a word in the clear.
            assert!(answer.len() <= 7 && !answer.starts_with(b"HTTP"), "{answer:x?}");
        }
    }
    node.terminate();
}
