//! OAP/1: headers and frames to bytes, bytes to frames, and the JSON of a get.
//!
//! The deframer copies no payload, so beside a copy of the whole stream it should cost next to
//! nothing where frames are long. Where they are short it is the price of a request.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ron_bench::{address, brief, random_bytes};
use ron_codec::oap::{
    APP_STORAGE, Deframer, Flags, FrameHeader, GetRequest, GetWhat, HEADER_LEN, Piece,
    StorageRequest, append_frame, encode_header, write_get_request,
};

/// Bytes of the payload of a data frame, a group of an object.
const CHUNK_LEN: usize = 64 * 1024;

/// Bytes that arrive at once: a receive buffer of the driver.
const ARRIVAL_LEN: usize = ron_io::limits::RECV_BUFFER_LEN;

/// Frames of one stream that is taken apart.
const FRAMES: usize = 64;

fn request_header() -> FrameHeader {
    FrameHeader {
        flags: Flags::REQ | Flags::START | Flags::END,
        app_proto_id: APP_STORAGE,
        corr_id: 7,
        ..FrameHeader::default()
    }
}

fn get_payload() -> Vec<u8> {
    let what = GetWhat::ByAddress(address(1, 1));
    let mut payload = Vec::new();
    write_get_request(&mut payload, &GetRequest { what, offset: 0, len: None, meta: true });
    payload
}

/// `FRAMES` frames with this payload, back to back.
fn stream(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..FRAMES {
        append_frame(&request_header(), &[], payload, &mut bytes).expect("the payload is short");
    }
    bytes
}

/// Takes a stream apart as it arrives. Returns its frames and the bytes of their payloads.
fn deframe(stream: &[u8]) -> (usize, usize) {
    let mut deframer = Deframer::new();
    let (mut frames, mut payload) = (0, 0);
    for mut arrival in stream.chunks(ARRIVAL_LEN) {
        while let Some(piece) = deframer.next(&mut arrival).expect("the stream is well formed") {
            match black_box(piece) {
                Piece::Head(_) | Piece::Cap(_) => {}
                Piece::Payload(bytes) => payload += bytes.len(),
                Piece::End => frames += 1,
            }
        }
    }
    (frames, payload)
}

fn encode(c: &mut Criterion) {
    let head = FrameHeader { payload_len: CHUNK_LEN as u32, ..request_header() };
    let bytes = encode_header(&head).expect("a chunk fits a frame");
    let mut out = Vec::with_capacity(2 * CHUNK_LEN);
    let mut bench = c.benchmark_group("frame header");
    bench.throughput(Throughput::Bytes(HEADER_LEN as u64));
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&bytes));
        });
    });
    bench.bench_function("encode", |b| {
        b.iter(|| {
            out.clear();
            let header = encode_header(black_box(&head)).expect("a chunk fits a frame");
            out.extend_from_slice(&header);
        });
    });
    bench.finish();

    let payload = random_bytes(2, CHUNK_LEN);
    let mut bench = c.benchmark_group("frame of 64 KiB");
    bench.throughput(Throughput::Bytes(CHUNK_LEN as u64));
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&payload));
        });
    });
    bench.bench_function("append", |b| {
        b.iter(|| {
            out.clear();
            append_frame(black_box(&head), &[], &payload, &mut out).expect("a chunk fits");
        });
    });
    bench.finish();
}

fn decode(c: &mut Criterion) {
    for (name, payload) in [
        ("deframe 64 frames of 64 KiB", random_bytes(3, CHUNK_LEN)),
        ("deframe 64 get requests", get_payload()),
    ] {
        let stream = stream(&payload);
        assert_eq!(deframe(&stream), (FRAMES, FRAMES * payload.len()));
        let mut out = Vec::with_capacity(stream.len());
        let mut bench = c.benchmark_group(name);
        bench.throughput(Throughput::Bytes(stream.len() as u64));
        bench.bench_function("limit: memcpy", |b| {
            b.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&stream));
            });
        });
        bench.bench_function("deframe", |b| b.iter(|| deframe(black_box(&stream))));
        bench.finish();
    }
}

fn requests(c: &mut Criterion) {
    let payload = get_payload();
    let parsed = StorageRequest::parse(&payload).expect("the payload was written by us");
    let StorageRequest::Get(request) = parsed else { panic!("a get came back as {parsed:?}") };
    let mut out = Vec::with_capacity(1024);
    let mut bench = c.benchmark_group("get request in JSON");
    bench.throughput(Throughput::Bytes(payload.len() as u64));
    bench.bench_function("limit: memcpy", |b| {
        b.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&payload));
        });
    });
    bench.bench_function("beside: serde_json::Value", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&payload)).is_ok());
    });
    bench.bench_function("parse", |b| b.iter(|| StorageRequest::parse(black_box(&payload))));
    bench.bench_function("write", |b| {
        b.iter(|| {
            out.clear();
            write_get_request(&mut out, black_box(&request));
        });
    });
    bench.finish();
}

criterion_group! { name = benches; config = brief(); targets = encode, decode, requests }
criterion_main!(benches);
