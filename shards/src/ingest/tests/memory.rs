//! Uploads that wait for memory.

use super::*;

/// Blocks that other uploads hold, up to what they may.
fn others(bench: &mut Bench, purpose: Purpose) -> Vec<BlockMut> {
    std::iter::from_fn(|| bench.memory.alloc_for(purpose, BLOCK_LEN, None)).collect()
}

/// All blocks that uploads may hold.
fn all_of_uploads(bench: &mut Bench) -> Vec<BlockMut> {
    let mut held = others(bench, Purpose::UploadFirst);
    held.extend(others(bench, Purpose::UploadShort));
    held
}

#[test]
fn an_upload_that_no_memory_comes_for_is_refused_after_a_while() {
    let mut bench = Bench::new(BLOCKS);
    let held = all_of_uploads(&mut bench);
    let mut ingest =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(5), &mut bench.cx()).unwrap();
    assert_eq!(ingest.push(b"hello", &mut bench.cx()), Ok(0));
    assert_eq!(bench.memory.next_upload(UPLOAD_WAIT_NS - 1), None, "its share is used up");
    bench.now.mono_ns = UPLOAD_WAIT_NS;
    assert_eq!(bench.memory.next_upload(UPLOAD_WAIT_NS), Some(Bench::STREAM));
    assert_eq!(ingest.on_memory(&mut bench.cx()), Progress::Failed(Fault::Busy));
    assert_eq!((bench.stats.memory_waits.get(), bench.stats.memory_refusals.get()), (1, 1));
    drop(held);
}

#[test]
fn a_short_upload_has_memory_that_longer_ones_leave_to_it() {
    let mut bench = Bench::new(BLOCKS);
    let held = others(&mut bench, Purpose::UploadFirst);
    let (long, short) = (StreamId { stream: 8, ..Bench::STREAM }, Bench::STREAM);
    let mut waits = Ingest::new(long, Bench::PEER, None, Some(1 << 30), &mut bench.cx()).unwrap();
    assert_eq!(waits.push(b"hello", &mut bench.cx()), Ok(0));
    let mut ingest = Ingest::new(short, Bench::PEER, None, Some(5), &mut bench.cx()).unwrap();
    assert_eq!(ingest.push(b"hello", &mut bench.cx()), Ok(5));
    // Where even that is used up, it waits in a line of its own.
    let rest = others(&mut bench, Purpose::UploadShort);
    let mut last = Ingest::new(short, Bench::PEER, None, Some(5), &mut bench.cx()).unwrap();
    assert_eq!(last.push(b"hello", &mut bench.cx()), Ok(0));
    assert_eq!(bench.memory.next_upload(0), None);
    drop(rest);
    assert_eq!(bench.memory.next_upload(0), Some(short));
    assert_eq!(bench.memory.next_upload(0), None, "the long one waits on");
    drop(held);
    assert_eq!(bench.memory.next_upload(0), Some(long));
}

#[test]
fn the_rate_of_an_upload_is_that_of_the_group_it_waits_for() {
    const SECOND_NS: u64 = 1_000_000_000;
    let mut bench = Bench::new(BLOCKS);
    let mut ingest =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(1 << 30), &mut bench.cx()).unwrap();
    assert_eq!(ingest.rate(0, SECOND_NS), None, "it holds no memory");
    ingest.push(&source(4000), &mut bench.cx()).unwrap();
    assert_eq!(ingest.rate(0, 2 * SECOND_NS), Some(2000));
    // The next group is another matter.
    bench.now.mono_ns = 4 * SECOND_NS;
    ingest.push(&source(GROUP_LEN as u64), &mut bench.cx()).unwrap();
    assert_eq!(ingest.rate(3 * SECOND_NS, 5 * SECOND_NS), None);
    assert_eq!(ingest.rate(4 * SECOND_NS, 5 * SECOND_NS), Some(4000));
    ingest.abort(&mut bench.cx());
    assert_eq!(ingest.rate(u64::MAX, u64::MAX), None);
}

#[test]
fn an_upload_waits_in_one_place() {
    let mut bench = Bench::new(BLOCKS);
    let _held = all_of_uploads(&mut bench);
    let mut ingest =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(5), &mut bench.cx()).unwrap();
    for _ in 0..3 {
        assert_eq!(ingest.push(b"hello", &mut bench.cx()), Ok(0));
    }
    assert_eq!(bench.memory.uploads_waiting(), 1);
    bench.now.mono_ns = UPLOAD_WAIT_NS - 1;
    assert_eq!(ingest.on_memory(&mut bench.cx()), Progress::Going);
    assert_eq!(bench.memory.next_upload(UPLOAD_WAIT_NS), Some(Bench::STREAM));
    assert_eq!(ingest.push(b"hello", &mut bench.cx()), Ok(0));
    assert_eq!(bench.memory.uploads_waiting(), 1, "it tried again");
}

#[test]
fn who_comes_later_waits_behind_those_who_wait() {
    let mut bench = Bench::new(BLOCKS);
    let held = all_of_uploads(&mut bench);
    let (data, late) = (source(20_000), StreamId { stream: 9, ..Bench::STREAM });
    let begin = |bench: &mut Bench, stream| {
        let mut ingest =
            Ingest::new(stream, Bench::PEER, None, Some(20_000), &mut bench.cx()).unwrap();
        let taken = ingest.push(&data, &mut bench.cx()).unwrap();
        (ingest, taken)
    };
    let (mut first, taken) = begin(&mut bench, Bench::STREAM);
    assert_eq!(taken, 0);
    drop(held);
    let (_second, taken) = begin(&mut bench, late);
    assert_eq!(taken, 0, "there is memory, and somebody waits for it");
    assert_eq!(bench.memory.next_upload(0), Some(Bench::STREAM));
    assert_eq!(first.on_memory(&mut bench.cx()), Progress::Going);
    assert_eq!(first.push(&source(20_000), &mut bench.cx()), Ok(20_000));
    assert_eq!(bench.memory.next_upload(0), Some(late));
}

#[test]
fn an_aborted_upload_waits_no_more() {
    let mut bench = Bench::new(BLOCKS);
    let _held = all_of_uploads(&mut bench);
    let mut ingest =
        Ingest::new(Bench::STREAM, Bench::PEER, None, Some(5), &mut bench.cx()).unwrap();
    assert_eq!(ingest.push(b"hello", &mut bench.cx()), Ok(0));
    assert_eq!(bench.memory.uploads_waiting(), 1);
    ingest.abort(&mut bench.cx());
    assert_eq!(bench.memory.uploads_waiting(), 0);
}

#[test]
fn where_memory_is_short_a_small_object_goes_into_a_file_and_holds_one_block_at_a_time() {
    for expect in [false, true] {
        let mut case = Case::new(5 * GROUP_LEN as u64 + 7, true, expect);
        let held = others(&mut case.bench, Purpose::UploadMore);
        let (mut order, mut most) = (choices(3), 0);
        while case.step(order.next().unwrap(), 100_000).is_some() {
            let filling = usize::from(case.ingest.filling.is_some());
            most = most.max(case.ingest.groups.len() + case.ingest.lent() + filling);
        }
        assert_eq!(most, 1, "beyond the share of those that have a block it has one");
        let Some((_, Ask::Adopt { address, size, path })) = case.bench.asks.pop_front() else {
            panic!("it is in a file");
        };
        assert_eq!((address, size), (Address::of(&case.data), case.data.len() as u64));
        check_record(&case.disk.files[&path].durable.clone(), &case.data);
        drop(held);
    }
}

#[test]
fn uploads_that_stop_hold_their_share_and_no_more() {
    let mut bench = Bench::new(128);
    let data = source(900_000);
    let mut uploads: Vec<Ingest> = Vec::new();
    for stream in 0..60 {
        let stream = StreamId { stream, ..Bench::STREAM };
        let ingest = Ingest::new(stream, Bench::PEER, None, Some(1 << 30), &mut bench.cx());
        uploads.push(ingest.unwrap());
        uploads.last_mut().unwrap().push(&data, &mut bench.cx()).unwrap();
    }
    let held = bench.memory.owners()[Owner::Uploads as usize];
    assert!(held <= 128 * 16 / 4, "{held} pages");
    let reads = [Purpose::ReadFirst, Purpose::ReadNext, Purpose::ReadShort];
    for purpose in reads {
        assert!(bench.memory.alloc_for(purpose, BLOCK_LEN, None).is_some(), "{purpose:?}");
    }
}
