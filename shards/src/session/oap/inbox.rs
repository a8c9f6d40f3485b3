//! What comes in: frames, in whatever pieces they arrive, and what each one asks for.
//!
//! Requests are gathered whole (they are short); bytes of a put are passed on as they come. Frames
//! out of order, with flags that are not served, or for nobody are refused here, and the rest of a
//! refused frame is dropped unread.

use std::mem;

use ron_codec::{
    address::Address,
    authority::Sender,
    error::ErrorCode,
    oap::{
        APP_HELLO, APP_STORAGE, Flags, FrameError, FrameHeader, GetRequest, GetWhat, Piece,
        RequestError, StorageRequest, check_client_frame, limits::REQUEST_LEN_MAX, parse_credit,
        write_hello,
    },
};
use ron_io::{
    ports::{Act, Report, Severity},
    progress::Progress,
    stats::{Op, Rejected},
};

use super::{
    super::pace::Pace,
    OapSession, Phase,
    streams::{Get, Job, Kind, Put, Stream},
    wire::Refusal,
};
use crate::{
    config::Config,
    download::Download,
    flow::{Ask, Cx, Fault, Peer, StreamId},
    ingest::Ingest,
    limits::{OAP_REFUSED_MAX, READER_LEAST_LEN},
};

impl OapSession {
    /// Takes frames off the front of `input`, as far as that is possible now. Returns the bytes
    /// taken; when these are not all, `blocked` is set, and the rest is to be offered again.
    pub(super) fn take_in(&mut self, input: &[u8], cx: &mut Cx<'_>) -> usize {
        let mut rest = input;
        let (mut before_len, mut progress) = (rest.len(), Progress::default());
        self.blocked = false;
        while self.phase == Phase::Open {
            let used = before_len - rest.len();
            before_len = rest.len();
            if !progress.made(used) {
                let (shard, severity) = (cx.config.shard, Severity::Error);
                let message = "internal: an OAP session makes no progress".to_owned();
                cx.acts.push(Act::Report(Report::Note { shard, severity, message }));
                self.abort(cx);
                break;
            }
            if self.wire.is_behind(cx) || !self.take_owed(&mut rest, cx) {
                self.blocked = true;
                break;
            }
            let before = rest;
            match self.deframer.next(&mut rest) {
                Ok(Some(Piece::Payload(bytes))) if self.data_number().is_some() => {
                    // Not taken yet: the upload may be full.
                    self.owed = bytes.len();
                    rest = before;
                }
                Ok(Some(piece)) => self.on_piece(piece, cx),
                Ok(None) => break,
                Err(error) => self.on_framing_error(&error, cx),
            }
        }
        if self.phase != Phase::Open {
            self.blocked = false;
            return input.len();
        }
        let in_header = self.frame.is_none() && !self.deframer.is_between_frames();
        self.header_at = match self.header_at {
            Some(at) if in_header => Some(at),
            _ => in_header.then_some(cx.now.mono_ns),
        };
        input.len() - rest.len()
    }

    /// The put that the frame in progress belongs to.
    pub(super) fn data_number(&self) -> Option<u32> {
        match self.frame {
            Some((_, Kind::Data(number))) => Some(number),
            _ => None,
        }
    }

    /// Passes on the payload bytes of a put that are at the front of `rest`. False when the upload
    /// could not take them all.
    fn take_owed(&mut self, rest: &mut &[u8], cx: &mut Cx<'_>) -> bool {
        if self.owed == 0 {
            return true;
        }
        let data = &rest[..self.owed];
        let taken = self.feed(data, cx);
        self.owed -= taken;
        *rest = &rest[taken..];
        self.owed == 0
    }

    /// Offers bytes to the put of the frame in progress; returns how many it took. A put that has
    /// failed takes everything, and keeps nothing.
    fn feed(&mut self, data: &[u8], cx: &mut Cx<'_>) -> usize {
        let place = self.data_number().and_then(|number| self.streams.by_number(number));
        let Some(place) = place else {
            // The put ended inside this frame. Its rest must come as any frame must.
            self.frame = self.frame.map(|(head, _)| (head, Kind::Skip));
            self.frame_pace.restart(cx.now.mono_ns);
            return data.len();
        };
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Put(put), .. }) = stream else { return data.len() };
        put.received_at = cx.now.mono_ns;
        if !put.ingest.wants_more() {
            return 0;
        }
        match put.ingest.push(data, cx) {
            Ok(taken) => {
                put.pace.count(taken as u64);
                if put.ingest.waits_to_begin() && self.others_hold_blocks(self.data_number()) {
                    // It would hold up those that have some, for memory that they keep.
                    cx.stats.memory_refusals.add(1);
                    self.fail(place, &Fault::Busy.into(), cx);
                    return data.len();
                }
                taken
            }
            Err(error) => {
                self.fail(place, &error.into(), cx);
                data.len()
            }
        }
    }

    /// Whether puts hold blocks besides the one with this number of ours.
    pub(super) fn others_hold_blocks(&self, own: Option<u32>) -> bool {
        self.streams.iter().any(|stream| {
            let holds = matches!(&stream.job, Job::Put(put) if put.ingest.holds_blocks());
            holds && Some(stream.number) != own
        })
    }

    /// Any piece but payload of a put.
    fn on_piece(&mut self, piece: Piece<'_>, cx: &mut Cx<'_>) {
        match (piece, self.frame) {
            (Piece::Head(head), _) => {
                self.greeted = true;
                self.header_at = None;
                self.cap.clear();
                self.gathered.clear();
                let kind = self.on_head(&head, cx);
                self.frame = Some((head, kind));
                self.frame_pace.restart(cx.now.mono_ns);
            }
            (Piece::Cap(bytes), Some((head, Kind::Request))) => {
                if cx.config.authority.has_token_of(usize::from(head.cap_len)) {
                    self.cap.extend_from_slice(bytes);
                }
            }
            (Piece::Payload(bytes), Some((head, Kind::Request | Kind::Grant))) => {
                self.gather(&head, bytes, cx);
            }
            (Piece::End, Some((head, kind))) => self.on_end(&head, kind, cx),
            (Piece::Cap(_) | Piece::Payload(_) | Piece::End, _) => {}
        }
    }

    /// Decides by its header alone what a frame is read as.
    fn on_head(&mut self, head: &FrameHeader, cx: &mut Cx<'_>) -> Kind {
        let start = head.flags.contains(Flags::START);
        if head.app_proto_id == APP_STORAGE {
            let refused = self.refused.iter().position(|corr_id| *corr_id == head.corr_id);
            match refused {
                // OAP/1 §3.10
                Some(_) if !start => return Kind::Skip,
                Some(at) => drop(self.refused.remove(at)),
                None => {}
            }
        }
        if let Err(error) = check_client_frame(head) {
            // OAP/1 §3.6
            self.refuse_request(head, &error.into(), Op::Other, cx);
            return Kind::Skip;
        }
        if head.app_proto_id == APP_HELLO {
            return Kind::Hello;
        }
        if !start {
            return self.on_later_head(head, cx);
        }
        if head.payload_len as usize > REQUEST_LEN_MAX {
            // OAP/1 §6.1
            let error = RequestError::TooLong { len: head.payload_len as usize };
            self.refuse_request(head, &error.into(), Op::Other, cx);
            return Kind::Skip;
        }
        Kind::Request
    }

    /// A storage frame without START.
    fn on_later_head(&mut self, head: &FrameHeader, cx: &mut Cx<'_>) -> Kind {
        let place = self.streams.by_corr(head.corr_id);
        let stream = place.and_then(|place| self.streams.get_mut(place));
        if let Some(Stream { job: Job::Put(put), number, .. }) = stream {
            let kind = Kind::Data(*number);
            return match put.admit(head, cx.now.mono_ns) {
                Ok(()) => kind,
                Err(why) => {
                    self.refuse(head, &why, Op::Put, cx);
                    Kind::Skip
                }
            };
        }
        if head.payload_len as usize <= REQUEST_LEN_MAX {
            return Kind::Grant;
        }
        // OAP/1 §3.9
        self.refuse(head, &NOT_OPEN_FOR_DATA, Op::Other, cx);
        Kind::Skip
    }

    /// Collects the payload of a short frame, and handles it when it is whole.
    fn gather(&mut self, head: &FrameHeader, bytes: &[u8], cx: &mut Cx<'_>) {
        if self.gathered.is_empty() && bytes.len() == head.payload_len as usize {
            return self.on_payload(head, bytes, cx);
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() == head.payload_len as usize {
            let gathered = mem::take(&mut self.gathered);
            self.on_payload(head, &gathered, cx);
            self.gathered = gathered;
        }
    }

    fn on_payload(&mut self, head: &FrameHeader, payload: &[u8], cx: &mut Cx<'_>) {
        if head.flags.contains(Flags::START) {
            self.on_request(head, payload, cx);
        } else {
            self.on_grant(head, payload, cx);
        }
    }

    fn on_end(&mut self, head: &FrameHeader, kind: Kind, cx: &mut Cx<'_>) {
        match kind {
            Kind::Hello => self.on_hello(head, cx),
            Kind::Request | Kind::Grant if head.payload_len == 0 => {
                self.on_payload(head, &[], cx);
            }
            Kind::Data(number) if head.flags.contains(Flags::END) => self.end_put(number, cx),
            Kind::Request | Kind::Grant | Kind::Data(_) | Kind::Skip => {}
        }
        if head.app_proto_id == APP_STORAGE && head.flags.contains(Flags::END) {
            self.refused.retain(|corr_id| *corr_id != head.corr_id);
        }
        self.frame = None;
    }

    fn on_hello(&mut self, head: &FrameHeader, cx: &mut Cx<'_>) {
        // OAP/1 §5.3
        let server = cx.config.server.as_str();
        self.wire.send_json(head, Flags::END, 0, cx, |out| write_hello(out, server));
        cx.stats.request(self.wire.peer, (self.wire.proto, Op::Hello), 0, 0);
    }

    /// Credit, or the END of a request that was complete before.
    fn on_grant(&mut self, head: &FrameHeader, payload: &[u8], cx: &mut Cx<'_>) {
        let granted = parse_credit(payload);
        let Some(place) = self.streams.by_corr(head.corr_id) else {
            if granted.is_err() {
                // OAP/1 §3.9; credit that comes too late is dropped, OAP/1 §7.4
                self.refuse(head, &NOT_OPEN, Op::Other, cx);
            }
            return;
        };
        if payload.is_empty() && head.flags.contains(Flags::END) {
            return;
        }
        match (granted, self.streams.get_mut(place).map(|stream| &mut stream.job)) {
            (Ok(bytes), Some(Job::Get(get))) => {
                // OAP/1 §7.2
                get.credit = get.credit.map(|credit| credit.saturating_add(bytes));
                get.granted = get.granted.saturating_add(bytes);
                if get.granted >= READER_LEAST_LEN as u64 {
                    get.starved_at = None;
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.refuse(head, &error.into(), Op::Other, cx),
        }
    }

    /// The whole first frame of a stream.
    fn on_request(&mut self, head: &FrameHeader, payload: &[u8], cx: &mut Cx<'_>) {
        let (op, done) = match self.admit(head) {
            Err(why) => {
                let parsed = StorageRequest::parse(payload);
                (parsed.as_ref().map_or(Op::Other, op_of), Err(why))
            }
            Ok(()) => match StorageRequest::parse(payload) {
                Ok(request) => (op_of(&request), self.start(head, request, cx)),
                Err(error) => (Op::Other, Err(error.into())),
            },
        };
        match done {
            Ok(()) => {}
            // Their first frame is all of them: nothing follows that was to be dropped.
            Err(why) if matches!(op, Op::Get | Op::Has) => self.refuse(head, &why, op, cx),
            Err(why) => self.refuse_request(head, &why, op, cx),
        }
    }

    /// Whether another stream may be opened, whatever it asks for.
    fn admit(&self, head: &FrameHeader) -> Result<(), Refusal> {
        if self.streams.by_corr(head.corr_id).is_some() {
            // OAP/1 §3.9
            return Err(Refusal::bad("START on a corr_id that is open"));
        }
        if self.draining {
            return Err(Refusal::new(ErrorCode::Draining, "the node is shutting down"));
        }
        if self.streams.is_full() {
            // OAP/1 §3.9
            return Err(Refusal::new(ErrorCode::OverQuota, "max_inflight streams are open"));
        }
        Ok(())
    }

    fn start(
        &mut self,
        head: &FrameHeader,
        request: StorageRequest,
        cx: &mut Cx<'_>,
    ) -> Result<(), Refusal> {
        let number = self.streams.fresh_number();
        let id = StreamId { conn: self.wire.conn, stream: number };
        let job = match request {
            StorageRequest::Get(get) => start_get(id, head, get, cx)?,
            StorageRequest::Has { addr } => {
                cx.asks.push_back((id, Ask::Open { address: addr, first: None }));
                Job::Has
            }
            StorageRequest::Put { len, addr } => {
                let local = self.peer.ip().to_canonical().is_loopback();
                check_capability(cx.config, local, head.cap_len, &self.cap)?;
                let pace = Pace::new(self.listening_ns(cx));
                start_put((id, Peer::of(self.peer.ip())), head, (len, addr), pace, cx)?
            }
        };
        cx.stats.inflight.add(1);
        cx.stats.open_streams.add(1);
        let is_put = matches!(job, Job::Put(_));
        self.streams.insert(Stream { number, head: *head, opened_at: cx.now.mono_ns, job });
        if is_put && head.flags.contains(Flags::END) {
            self.end_put(number, cx);
        }
        Ok(())
    }

    /// All bytes of a put have come.
    fn end_put(&mut self, number: u32, cx: &mut Cx<'_>) {
        let Some(place) = self.streams.by_number(number) else { return };
        let stream = self.streams.get_mut(place);
        let Some(Stream { job: Job::Put(put), .. }) = stream else { return };
        put.ended = true;
        if let Err(error) = put.ingest.finish(cx) {
            self.fail(place, &error.into(), cx);
        }
    }

    /// Refuses a first frame. What follows it may be the bytes of a put, to be dropped.
    fn refuse_request(&mut self, head: &FrameHeader, why: &Refusal, op: Op, cx: &mut Cx<'_>) {
        self.refuse(head, why, op, cx);
        let opens = head.flags.contains(Flags::START) && head.app_proto_id == APP_STORAGE;
        if opens {
            self.remember_refused(head.corr_id);
        }
    }

    /// Answers a frame with an error, on its own stream, which it ends if it was open.
    fn refuse(&mut self, head: &FrameHeader, why: &Refusal, op: Op, cx: &mut Cx<'_>) {
        match why.code {
            ErrorCode::Draining => cx.stats.reject(Rejected::Draining),
            ErrorCode::BadRequest => cx.stats.reject(Rejected::Protocol),
            ErrorCode::TooLarge => cx.stats.oversize.add(1),
            _ => {}
        }
        if let Some(place) = self.stream_of(head) {
            self.fail(place, why, cx);
        } else {
            self.wire.send_error(head, why, cx);
            self.tell(head, op, why, cx);
            cx.stats.request(self.wire.peer, (self.wire.proto, op), why.code.status(), 0);
        }
    }

    /// The open stream that a frame belongs to. Only storage has streams: a HELLO, or a frame for
    /// an application that is not served, may have the same number. OAP/1 §5.2
    pub(super) fn stream_of(&self, head: &FrameHeader) -> Option<usize> {
        let of_storage = head.app_proto_id == APP_STORAGE;
        of_storage.then(|| self.streams.by_corr(head.corr_id)).flatten()
    }

    /// From now on, frames of this put are dropped up to its END. OAP/1 §3.10
    pub(super) fn remember_refused(&mut self, corr_id: u64) {
        if self.refused.contains(&corr_id) {
            return;
        }
        if self.refused.len() >= OAP_REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(corr_id);
    }

    /// Answers what is no frame, once, and gives the connection up. OAP/1 §3.5
    fn on_framing_error(&mut self, error: &FrameError, cx: &mut Cx<'_>) {
        let why = Refusal { code: error.code(), message: error.to_string().into() };
        cx.stats.reject(Rejected::Protocol);
        cx.stats.request(self.wire.peer, (self.wire.proto, Op::Other), why.code.status(), 0);
        self.wire.send_error(&error.header(), &why, cx);
        self.finish(cx);
    }
}

const NOT_OPEN: Refusal = Refusal::bad("the corr_id is not open");
const NOT_OPEN_FOR_DATA: Refusal = Refusal::bad("the corr_id is not open for data");

impl Put {
    /// Judges a later frame of the put by its header, and counts its bytes.
    fn admit(&mut self, head: &FrameHeader, now_ns: u64) -> Result<(), Refusal> {
        if self.ended {
            // OAP/1 §3.9
            return Err(Refusal::bad("data after END"));
        }
        // OAP/1 §6.8
        let framed = self.framed.saturating_add(u64::from(head.payload_len));
        if framed > self.len {
            return Err(Refusal::bad("more bytes than len"));
        }
        if head.flags.contains(Flags::END) && framed < self.len {
            return Err(Refusal::bad("fewer bytes than len"));
        }
        self.framed = framed;
        self.received_at = now_ns;
        Ok(())
    }
}

fn op_of(request: &StorageRequest) -> Op {
    match request {
        StorageRequest::Get(_) => Op::Get,
        StorageRequest::Has { .. } => Op::Has,
        StorageRequest::Put { .. } => Op::Put,
    }
}

fn start_get(
    id: StreamId,
    head: &FrameHeader,
    request: GetRequest,
    cx: &mut Cx<'_>,
) -> Result<Job, Refusal> {
    let GetWhat::ByAddress(address) = request.what else {
        // OAP/1 §6.3
        const NO_NAMES: &str = "paths are not served by this version, ask by addr";
        return Err(Refusal::new(ErrorCode::NotFound, NO_NAMES));
    };
    let mut download = Download::new(id, address);
    // The group that the answer begins with, unless the answer is empty anyway.
    let first = (request.len != Some(0)).then_some(request.offset);
    download.open(first, cx);
    Ok(Job::Get(Get {
        address,
        request,
        download,
        size: None,
        started: false,
        credit: Get::first_credit(head),
        starved_at: None,
        granted: 0,
        waits_since: None,
    }))
}

fn start_put(
    (id, peer): (StreamId, Peer),
    head: &FrameHeader,
    (len, addr): (u64, Option<Address>),
    pace: Pace,
    cx: &mut Cx<'_>,
) -> Result<Job, Refusal> {
    // OAP/1 §6.8
    if len > 0 && head.flags.contains(Flags::END) {
        return Err(Refusal::bad("fewer bytes than len"));
    }
    let ingest = Ingest::new(id, peer, addr, Some(len), cx)?;
    let received_at = cx.now.mono_ns;
    Ok(Job::Put(Box::new(Put { ingest, len, framed: 0, ended: false, received_at, pace })))
}

/// Judges the capability of a put. Only one as long as a token was kept. OAP/1 §9.2
fn check_capability(config: &Config, local: bool, cap_len: u16, cap: &[u8]) -> Result<(), Refusal> {
    let sender = Sender { local, token: (cap_len > 0).then_some(cap), ..Sender::default() };
    config.authority.may_write(&sender).map_err(|denied| Refusal {
        code: denied.code(),
        message: format!("not allowed to put: {denied}").into(),
    })
}
