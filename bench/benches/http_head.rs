//! Parsing a request head and writing an answer's, beside a copy of the same bytes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ron_codec::{
    address::Address,
    http::{request, response::ResponseHead, target},
};

fn heads(c: &mut Criterion) {
    let address = Address::of(b"hello\n");
    let head = format!("GET /o/{address} HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n\r\n");
    let mut out = Vec::with_capacity(1024);
    let mut bench = c.benchmark_group("head");
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(head.as_bytes()));
        });
    });
    bench.bench_function("parse", |b| {
        b.iter(|| request::parse_head(black_box(head.as_bytes()), 0).map(|_| ()));
    });
    let path = format!("/o/{address}");
    bench.bench_function("route", |b| {
        b.iter(|| matches!(target::route(black_box(&path)), target::Route::Object { .. }));
    });
    bench.bench_function("answer", |b| {
        b.iter(|| {
            out.clear();
            ResponseHead::new(&mut out, 200).etag(&address).number("Content-Length", 4096).end();
        });
    });
    bench.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
