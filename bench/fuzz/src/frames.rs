//! The deframer of OAP against its twin, however the stream is cut.

use ron_codec::oap::{Deframer, Flags, FrameError, FrameHeader, Piece};

use super::Cuts;

#[path = "../../../codec/src/oap/twin.rs"]
mod twin;

pub fn frames(input: &[u8]) {
    let (cuts, stream) = Cuts::of(input);
    let wanted = twin::parse_whole(stream);
    assert_eq!(twin::deframe(cuts.pieces(stream)), wanted);
    assert_eq!(twin::deframe(Cuts::WHOLE.pieces(stream)), wanted);
    assert_eq!(twin::deframe(Cuts::BYTES.pieces(stream)), wanted);
    for frame in &wanted.frames {
        // What a frame means is judged without a panic, and what was read is what is written.
        let _ = ron_codec::oap::check_client_frame(&frame.head);
        assert_eq!(frame.head.cap_len as usize, frame.cap.len());
        assert_eq!(frame.head.payload_len as usize, frame.payload.len());
        let written = ron_codec::oap::encode_header(&frame.head).expect("it was read");
        let read = twin::parse_whole(&[&written[..], &frame.cap, &frame.payload].concat());
        assert_eq!(read.frames, std::slice::from_ref(frame));
    }
}
