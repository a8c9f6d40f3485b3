//! Space is set aside before it is written to.

use super::*;
use ron_io::ports::Space;

use crate::{flow::Waiter, limits::UPLOAD_STEP_LEN};

fn free(free: u64) -> Option<Space> {
    Some(Space { free, total: u64::MAX, few_inodes: false })
}

#[test]
fn a_long_upload_for_which_there_is_no_room_writes_nothing() {
    let len = SEGMENT_OBJECT_LEN_MAX + 1;
    for (announce, free, refused) in
        [(true, file_len(len) - 1, true), (true, file_len(len), false), (false, MIB, true)]
    {
        let mut case = Case::new(len, announce, true);
        case.bench.config.storage.reserve_bytes = 0;
        case.bench.free_space = FreeSpace::new(&case.bench.config);
        case.bench.free_space.update(0, self::free(free));
        let mut outcome = case.ingest.push(&case.data[..len as usize], &mut case.bench.cx());
        if matches!(case.bench.asks.front(), Some((_, Ask::Whole { .. })))
            && let Outcome::Failed(fault) = case.answer_open(Reply::Missing)
        {
            outcome = Err(IngestError::Failed(fault));
        }
        let full = matches!(outcome, Err(IngestError::NotEnough { .. }));
        let full = full || outcome == Err(IngestError::Failed(Fault::Full));
        assert_eq!(full, refused, "{announce} {free}: {outcome:?}");
        case.disk.collect(&mut case.bench);
        assert_eq!(case.disk.in_progress.is_empty(), refused);
    }
}

#[test]
fn an_announced_length_for_which_there_is_no_room_is_refused_before_the_body() {
    let stream = StreamId { conn: ConnId { slot: 0, generation: 0 }, stream: 0 };
    const MAX: u64 = SEGMENT_OBJECT_LEN_MAX;
    let needed = file_len(MAX + 1);
    for (len, free, refused) in
        [(Some(MAX + 1), needed - 1, true), (Some(MAX + 1), needed, false), (Some(MAX), 0, false)]
    {
        for expected in [None, Some(Address::of(b"x"))] {
            let mut bench = Bench::new(1);
            bench.config.storage.reserve_bytes = 0;
            bench.free_space = FreeSpace::new(&bench.config);
            bench.free_space.update(0, self::free(free));
            let made = Ingest::new(stream, Bench::PEER, expected, len, &mut bench.cx());
            let refusal = IngestError::NotEnough { asked: needed, free };
            assert_eq!(made.err(), refused.then_some(refusal), "{len:?} of {free}");
            assert_eq!(bench.free_space.promised(0), 0, "an announcement alone keeps nothing");
        }
    }
}

#[test]
fn an_upload_never_enters_the_reserve() {
    const RESERVE: u64 = 10 * MIB;
    let spaces = [2 * MIB, 7 * MIB + 5000, UPLOAD_STEP_LEN + 3 * MIB];
    for (space, announce) in spaces.into_iter().flat_map(|space| [(space, false), (space, true)]) {
        // There was space for all of it when it was announced.
        let mut case = Case::new(64 * MIB, announce, false);
        case.bench.config.storage.reserve_bytes = RESERVE;
        case.bench.free_space = FreeSpace::new(&case.bench.config);
        case.bench.free_space.update(0, free(RESERVE + space));
        let mut sent = 0;
        let refusal = loop {
            match case.ingest.push(&case.data[sent..sent + 50_000], &mut case.bench.cx()) {
                Ok(taken) => sent += taken,
                Err(refusal) => break refusal,
            }
            case.disk.collect(&mut case.bench);
            while !case.disk.in_progress.is_empty() {
                let (ticket, done) = case.disk.perform(0);
                if let Waiter::Stream { tag, .. } = case.bench.tickets.redeem(ticket) {
                    assert_eq!(
                        case.ingest.on_disk(tag, done, &mut case.bench.cx()),
                        Progress::Going
                    );
                }
                case.disk.collect(&mut case.bench);
            }
            let written: usize = case.disk.files.values().map(|file| file.bytes.len()).sum();
            assert!(written as u64 <= space, "{written} of {space}");
        };
        assert!(matches!(refusal, IngestError::NotEnough { .. }), "{refusal:?}");
        assert!(space - (sent as u64) < 200_000, "{sent} of {space}: nearly all of it can be used");
        assert_eq!(case.bench.free_space.promised(0), 0, "all is given back");
    }
}

#[test]
fn uploads_are_not_promised_the_same_room() {
    let mut bench = Bench::new(BLOCKS);
    bench.config.storage.reserve_bytes = 0;
    bench.free_space = FreeSpace::new(&bench.config);
    let len = 2 * MIB;
    bench.free_space.update(0, free(file_len(len) + MIB));
    let data = source(len);
    let mut first =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(len), &mut bench.cx()).unwrap();
    let taken = first.push(&data[..200_000], &mut bench.cx()).unwrap();
    first.push(&data[taken..], &mut bench.cx()).unwrap();
    let stream = StreamId { stream: 2, ..Bench::STREAM };
    let second = Ingest::new(stream, Bench::PEER, None, Some(len), &mut bench.cx());
    assert!(matches!(second, Err(IngestError::NotEnough { .. })), "it is the first one's");
    first.abort(&mut bench.cx());
    assert_eq!(bench.free_space.promised(0), 0);
}

#[test]
fn who_announces_much_and_sends_little_keeps_little_room() {
    let mut bench = Bench::new(BLOCKS);
    bench.config.storage.reserve_bytes = 0;
    bench.free_space = FreeSpace::new(&bench.config);
    let (all, data) = (4 * UPLOAD_STEP_LEN, source(2 * MIB));
    bench.free_space.update(0, free(file_len(all)));
    let mut begin = |number, len| {
        let stream = StreamId { stream: number, ..Bench::STREAM };
        let made = Ingest::new(stream, Bench::PEER, None, Some(len), &mut bench.cx());
        made.and_then(|mut ingest| {
            ingest.push(&data[..200_000], &mut bench.cx())?;
            ingest.push(&data[200_000..210_000], &mut bench.cx())?;
            Ok(ingest)
        })
    };
    let _holds = begin(1, all).unwrap();
    assert!(begin(2, all - UPLOAD_STEP_LEN).is_ok(), "others have the space that it did not use");
    assert!(bench.free_space.promised(0) <= 4 * MIB);
}
