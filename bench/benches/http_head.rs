//! HTTP/1.1: reading a request head, finding what it asks for, and writing the head of an answer.
//!
//! A copy of the same bytes is the limit; `httparse`, which finds the lines and judges nothing, is
//! the yardstick beside it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief};
use ron_codec::{
    address::Address,
    http::{
        range::ByteRange,
        request::{self, Parsed, Version},
        response::{DateCache, ResponseHead},
        target,
    },
};

/// 2025-01-01 00:00:00 UTC, when these answers are sent.
const UNIX_SECS: u64 = 1_735_689_600;

/// More fields than any of these heads has.
const FIELDS_MAX: usize = 32;

/// The fields of every answer with content, as the session sends them.
const CONTENT_LINES: &str = "Content-Type: application/octet-stream\r\n\
    Cache-Control: public, max-age=31536000, immutable\r\n\
    Accept-Ranges: bytes\r\n\
    X-Content-Type-Options: nosniff\r\n";

/// What a browser says beside the path.
const BROWSER_LINES: &str = "Host: objects.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: none\r\n\
    Range: bytes=65536-131071\r\n\r\n";

/// Reads a head and finds its object, as the session does with every request.
fn read(head: &[u8]) -> Option<Address> {
    let Ok(Parsed::Head { head, .. }) = request::parse_head(head, 0) else { return None };
    match target::route(head.target) {
        target::Route::Object { address, .. } => Some(address),
        _ => None,
    }
}

fn requests(c: &mut Criterion) {
    let address = address(1, 1);
    let short = format!("GET /o/{address} HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n\r\n");
    let browser = format!("GET /o/{address} HTTP/1.1\r\n{BROWSER_LINES}");
    let mut out = Vec::with_capacity(4096);
    for (name, head) in [("short request head", short), ("browser's request head", browser)] {
        let head = head.as_bytes();
        assert_eq!(read(head), Some(address));
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(head.len() as u64));
        bench.bench_function("limit: memcpy", |b| {
            b.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(head));
            });
        });
        bench.bench_function("beside: httparse", |b| {
            b.iter(|| {
                let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
                httparse::Request::new(&mut fields).parse(black_box(head)).is_ok()
            });
        });
        bench.bench_function("parse", |b| {
            b.iter(|| request::parse_head(black_box(head), 0).is_ok());
        });
        bench.bench_function("parse and route", |b| b.iter(|| read(black_box(head))));
        bench.finish();
    }
}

/// Writes the head of an answer as the session does.
fn answer(out: &mut Vec<u8>, date: &mut DateCache, address: &Address, part: Option<ByteRange>) {
    const SIZE: u64 = 64 * 1024 * 1024;
    let status = if part.is_some() { 206 } else { 200 };
    let mut head = ResponseHead::new(out, status)
        .connection(Version::Http11, true)
        .field("Date", date.at(UNIX_SECS))
        .field("Server", "ron/0.1.0")
        .field("X-Corr-Id", "01JGFJJZ000000000000000000")
        .lines(CONTENT_LINES)
        .etag(address);
    if let Some(range) = part {
        head = head.content_range(range, SIZE);
    }
    head.number("Content-Length", part.map_or(SIZE, |range| range.len())).end();
}

fn answers(c: &mut Criterion) {
    let address = address(1, 1);
    let mut date = DateCache::new(UNIX_SECS);
    let part = ByteRange { start: 65_536, end_exclusive: 131_072 };
    for (name, part) in [("answer head, 200", None), ("answer head, 206", Some(part))] {
        let mut rendered = Vec::new();
        answer(&mut rendered, &mut date, &address, part);
        let mut out = Vec::with_capacity(4096);
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(rendered.len() as u64));
        bench.bench_function("limit: memcpy", |b| {
            b.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&rendered));
            });
        });
        bench.bench_function("write", |b| {
            b.iter(|| {
                out.clear();
                answer(&mut out, &mut date, black_box(&address), part);
            });
        });
        bench.finish();
    }
}

criterion_group! { name = benches; config = brief(); targets = requests, answers }
criterion_main!(benches);
