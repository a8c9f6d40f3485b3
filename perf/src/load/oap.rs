//! OAP/1 as a client that measures speaks it: one request at a time on each connection.
//!
//! Every frame of an answer is checked against the question; its code is translated to the status
//! that HTTP has for the same.

use ron_codec::oap::{
    APP_STORAGE, Deframer, Flags, FrameError, FrameHeader, GetRequest, GetWhat, HasAnswer, Piece,
    PutAnswer, append_frame, encode_header, parse_answer, write_get_request, write_has_request,
    write_put_request,
};
use ron_codec::{address::Address, limits::OAP_CHUNK_LEN_MAX};

use super::{
    fault::Odd,
    mix::{Corpus, Job, Op},
    reply::{Body, Reply},
};
use crate::objects::STAMP_LEN;

/// Longest JSON of an answer.
const JSON_LEN_MAX: usize = 16 * 1024;

/// Most bytes of an object in one frame that is sent.
pub(super) const CHUNK_LEN: usize = OAP_CHUNK_LEN_MAX;

/// The lowest code of an error.
const CODE_ERROR_MIN: u16 = 400;

const _: () = assert!(STAMP_LEN < CHUNK_LEN);

/// Appends the request for `job` as stream `corr_id`; for [`Op::Put`], also the header of the
/// first frame of data and the beginning of the object. `payload` is scratch.
///
/// # Errors
/// None that short requests meet.
pub(super) fn write(
    job: &Job,
    corpus: &Corpus,
    corr_id: u64,
    payload: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    payload.clear();
    let addr = job.address.unwrap_or(Address::from_bytes([0; 32]));
    // OAP/1 §6.1
    let mut flags = Flags::REQ | Flags::START | Flags::END;
    let get = |offset, len| GetRequest { what: GetWhat::ByAddress(addr), offset, len, meta: false };
    match job.op {
        Op::Fetch | Op::Get => write_get_request(payload, &get(0, None)),
        Op::Range { first, len } => write_get_request(payload, &get(first, Some(len))),
        Op::Has => write_has_request(payload, &addr),
        Op::Put => {
            flags = Flags::REQ | Flags::START;
            let size = corpus.classes[job.class].spec.size as u64;
            write_put_request(payload, size, Some(&addr));
        }
    }
    let head = FrameHeader { flags, app_proto_id: APP_STORAGE, corr_id, ..FrameHeader::default() };
    append_frame(&head, &[], payload, out)?;
    if job.op == Op::Put {
        let size = corpus.classes[job.class].spec.size;
        let here = size.min(CHUNK_LEN);
        write_data_header(corr_id, here, here == size, out)?;
        out.extend_from_slice(&job.stamp);
    }
    Ok(())
}

/// Appends the header of a frame of `len` bytes of an object.
pub(super) fn write_data_header(
    corr_id: u64,
    len: usize,
    last: bool,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    // OAP/1 §6.8
    let flags = if last { Flags::REQ | Flags::END } else { Flags::REQ };
    let payload_len = u32::try_from(len).map_err(|_| FrameError::Len { len: len as u64 })?;
    let head = FrameHeader {
        flags,
        app_proto_id: APP_STORAGE,
        corr_id,
        payload_len,
        ..FrameHeader::default()
    };
    out.extend_from_slice(&encode_header(&head)?);
    Ok(())
}

/// What the payload of an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Data,
    Has,
    Put,
}

/// An answer as far as it has arrived.
#[derive(Debug)]
pub(super) struct OapAnswer {
    deframer: Deframer,
    /// The current frame.
    head: FrameHeader,
    json: Vec<u8>,
    kind: Kind,
    corr_id: u64,
    begun: bool,
    /// What the frames of a good answer with data have for a code.
    code: u16,
    address: Option<Address>,
}

impl OapAnswer {
    pub(super) fn new() -> Self {
        Self {
            deframer: Deframer::new(),
            head: FrameHeader::default(),
            json: Vec::new(),
            kind: Kind::Data,
            corr_id: 0,
            begun: false,
            code: 0,
            address: None,
        }
    }

    /// Prepares for the answer to `job`, which was sent as stream `corr_id`.
    pub(super) fn begin(&mut self, job: &Job, corr_id: u64) {
        self.json.clear();
        self.kind = match job.op {
            Op::Has => Kind::Has,
            Op::Put => Kind::Put,
            Op::Fetch | Op::Get | Op::Range { .. } => Kind::Data,
        };
        // OAP/1 §6.4
        self.code = if matches!(job.op, Op::Range { .. }) { 206 } else { 0 };
        (self.corr_id, self.begun, self.address) = (corr_id, false, job.address);
    }

    /// Forgets what came on an earlier connection.
    pub(super) fn reconnect(&mut self) {
        self.deframer = Deframer::new();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun || !self.deframer.is_between_frames()
    }

    /// See [`super::answer::Answer::feed`].
    pub(super) fn feed(
        &mut self,
        input: &mut &[u8],
        body: &mut Body<'_>,
    ) -> Result<Option<Reply>, Odd> {
        let odd = |reason| Odd::Frame { reason };
        while let Some(piece) = self.deframer.next(input).map_err(odd)? {
            match piece {
                Piece::Head(head) => self.on_head(head)?,
                // `on_head` has refused every frame with a capability.
                Piece::Cap(_) => return Err(self.stream()),
                Piece::Payload(bytes) if self.is_json() => {
                    if self.json.len() + bytes.len() > JSON_LEN_MAX {
                        return Err(Odd::JsonTooLong { max: JSON_LEN_MAX });
                    }
                    self.json.extend_from_slice(bytes);
                }
                Piece::Payload(bytes) => body.take(bytes),
                Piece::End if self.head.flags.contains(Flags::END) => {
                    return self.finish().map(Some);
                }
                Piece::End => {}
            }
        }
        Ok(None)
    }

    fn on_head(&mut self, head: FrameHeader) -> Result<(), Odd> {
        self.head = head;
        let flags = head.flags;
        let strange =
            [Flags::REQ, Flags::EVENT, Flags::COMP].iter().any(|bit| flags.contains(*bit));
        // OAP/1 §2.6, and §3.5 for the answer to a frame that the node could not read.
        let ours = head.corr_id == self.corr_id && head.app_proto_id == APP_STORAGE;
        let expected = if self.is_error() {
            flags.contains(Flags::END) && (ours || head.corr_id == 0)
        } else {
            // OAP/1 §6.5: START comes once.
            ours && head.code == self.code && flags.contains(Flags::START) != self.begun
        };
        if strange || !flags.contains(Flags::RESP) || !expected || head.cap_len > 0 {
            return Err(self.stream());
        }
        self.begun = true;
        Ok(())
    }

    fn finish(&self) -> Result<Reply, Odd> {
        let status = match (self.is_error(), self.kind) {
            (true, _) => self.head.code,
            (false, Kind::Data) if self.code == 0 => 200,
            (false, Kind::Data) => self.code,
            (false, Kind::Has) => {
                let answer: HasAnswer = parse_answer(&self.json).map_err(|_| Odd::Json)?;
                if answer.has { 200 } else { 404 }
            }
            (false, Kind::Put) => {
                let answer: PutAnswer = parse_answer(&self.json).map_err(|_| Odd::Json)?;
                if Some(answer.addr) != self.address {
                    return Err(Odd::Json);
                }
                if answer.new { 201 } else { 200 }
            }
        };
        Ok(Reply { status, close: false })
    }

    fn is_error(&self) -> bool {
        self.head.code >= CODE_ERROR_MIN
    }

    fn is_json(&self) -> bool {
        self.is_error() || self.kind != Kind::Data
    }

    fn stream(&self) -> Odd {
        Odd::Stream { flags: self.head.flags.bits(), corr_id: self.head.corr_id }
    }
}

#[cfg(test)]
mod tests {
    use ron_codec::oap::StorageRequest;

    use super::{super::reply::tests::corpus, *};

    const CORR: u64 = 9;

    fn frame(flags: Flags, code: u16, corr_id: u64, payload: &[u8]) -> Vec<u8> {
        let flags = Flags::RESP | flags;
        let app_proto_id = APP_STORAGE;
        let head = FrameHeader { flags, code, app_proto_id, corr_id, ..FrameHeader::default() };
        let mut out = Vec::new();
        append_frame(&head, &[], payload, &mut out).unwrap();
        out
    }

    /// Feeds `bytes` in pieces of `step`. Returns the status and the bytes of the body.
    fn read(bytes: &[u8], op: Op, step: usize) -> Result<(Option<u16>, u64), &'static str> {
        let corpus = corpus(100);
        let job = corpus.job(op, 0, 0, false);
        let mut answer = OapAnswer::new();
        answer.begin(&job, CORR);
        let mut body = Body::new();
        body.begin(&job, &corpus);
        for mut input in bytes.chunks(step) {
            if let Some(reply) = answer.feed(&mut input, &mut body).map_err(Odd::kind)? {
                return Ok((Some(reply.status), body.seen));
            }
        }
        Ok((None, body.seen))
    }

    #[test]
    fn answers_are_read_in_any_pieces() {
        let answer = [
            frame(Flags::START, 0, CORR, b"hello"),
            frame(Flags::NONE, 0, CORR, b" "),
            frame(Flags::END, 0, CORR, b"world"),
        ]
        .concat();
        for step in 1..=answer.len() {
            assert_eq!(read(&answer, Op::Get, step), Ok((Some(200), 11)), "{step}");
        }
        assert_eq!(read(&answer[..answer.len() - 1], Op::Get, 7), Ok((None, 10)));
        let ranged = frame(Flags::START | Flags::END, 206, CORR, b"ab");
        assert_eq!(read(&ranged, Op::Range { first: 1, len: 2 }, 5), Ok((Some(206), 2)));
        assert_eq!(read(&ranged, Op::Get, 5), Err("stream"));
        let missing = frame(Flags::END, 404, CORR, b"{}");
        assert_eq!(read(&missing, Op::Get, 5), Ok((Some(404), 0)));
    }

    #[test]
    fn json_answers_are_understood() {
        let whole = Flags::START | Flags::END;
        let has = |text: &str| read(&frame(whole, 0, CORR, text.as_bytes()), Op::Has, 9);
        assert_eq!(has(r#"{"has":true,"size":100}"#), Ok((Some(200), 0)));
        assert_eq!(has(r#"{"has":false,"size":0}"#), Ok((Some(404), 0)));
        assert_eq!(has("{"), Err("json"));
        assert_eq!(has(&" ".repeat(JSON_LEN_MAX + 1)), Err("json_too_long"));
        let address = corpus(100).classes[0].addresses[0];
        let put = |address: &str, new: bool| {
            let text = format!(r#"{{"addr":"{address}","size":100,"new":{new}}}"#);
            read(&frame(whole, 0, CORR, text.as_bytes()), Op::Put, 99)
        };
        assert_eq!(put(&address.to_string(), true), Ok((Some(201), 0)));
        assert_eq!(put(&address.to_string(), false), Ok((Some(200), 0)));
        assert_eq!(put(&Address::of(b"").to_string(), true), Err("json"));
    }

    #[test]
    fn frames_that_do_not_belong_are_refused() {
        let whole = Flags::START | Flags::END;
        for wrong in [
            frame(whole, 0, CORR + 1, b"x"),
            frame(Flags::END, 0, CORR, b"x"),
            frame(whole | Flags::COMP, 0, CORR, b"x"),
            frame(whole | Flags::EVENT, 0, CORR, b"x"),
            frame(Flags::START, 404, CORR, b"{}"),
            [frame(Flags::START, 0, CORR, b"x"), frame(whole, 0, CORR, b"x")].concat(),
        ] {
            assert_eq!(read(&wrong, Op::Get, 11), Err("stream"), "{wrong:?}");
        }
        assert_eq!(read(&[0xff; 37], Op::Get, 37), Err("frame"));
    }

    #[test]
    fn requests_are_what_a_node_reads() {
        let corpus = corpus(CHUNK_LEN + 1);
        let ask = |op| {
            let job = corpus.job(op, 0, 0, false);
            let (mut payload, mut out) = (Vec::new(), Vec::new());
            write(&job, &corpus, CORR, &mut payload, &mut out).unwrap();
            let mut deframer = Deframer::new();
            let mut input = &out[..];
            let mut heads = Vec::new();
            while let Some(piece) = deframer.next(&mut input).unwrap() {
                if let Piece::Head(head) = piece {
                    heads.push(head);
                }
            }
            (StorageRequest::parse(&payload).unwrap(), heads, job.address.unwrap())
        };
        let (request, heads, address) = ask(Op::Range { first: 64, len: 32 });
        let get = GetRequest { offset: 64, len: Some(32), ..GetRequest::whole(address) };
        assert_eq!((request, heads.len()), (StorageRequest::Get(get), 1));
        let (request, ..) = ask(Op::Has);
        assert_eq!(request, StorageRequest::Has { addr: address });
        let (request, heads, _) = ask(Op::Put);
        let len = CHUNK_LEN as u64 + 1;
        assert_eq!(request, StorageRequest::Put { len, addr: Some(address) });
        assert_eq!(heads[1].payload_len as usize, CHUNK_LEN);
        assert!(!heads[1].flags.contains(Flags::END));
    }
}
