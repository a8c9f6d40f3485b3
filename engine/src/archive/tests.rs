//! Archives: what is written is read again, GNU tar reads them, and damage is found.

use std::{fs, io::Read, process::Command};

use super::*;

fn member(bytes: &[u8]) -> Member {
    let (address, size) = (Address::of(bytes), bytes.len() as u64);
    Member { address, size, fields: Fields::default() }
}

/// Some objects by rising address; one of them has fields.
fn objects() -> Vec<(Member, Vec<u8>)> {
    let lens = [0, 1, 511, 512, 513, 5000, 70_000];
    let mut all: Vec<(Member, Vec<u8>)> = (1u8..)
        .zip(lens)
        .map(|(n, len)| (0..len).map(|at| (at as u8).wrapping_mul(n)).collect())
        .map(|bytes: Vec<u8>| (member(&bytes), bytes))
        .collect();
    all.sort_by_key(|(member, _)| member.address);
    all[2].0.fields = Fields::new(Some("text/plain; charset=utf-8"), Some("inline"));
    all
}

fn archive(objects: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), "").unwrap();
    for (member, bytes) in objects {
        writer.object(member).unwrap();
        writer.body(bytes).unwrap();
        writer.close(member).unwrap();
    }
    writer.end().unwrap().0
}

/// What a reader makes of a stream: whole objects, and what it says of the rest.
#[derive(Debug, Default)]
struct Seen {
    whole: Vec<(Member, Vec<u8>)>,
    damaged: Vec<Option<Address>>,
    ends: Vec<bool>,
    failure: Option<ArchiveError>,
}

fn read(bytes: &[u8]) -> Seen {
    let mut seen = Seen::default();
    if let Err(failure) = read_into(bytes, &mut seen) {
        seen.failure = Some(failure);
    }
    seen
}

fn read_into(bytes: &[u8], seen: &mut Seen) -> Result<(), ArchiveError> {
    let mut reader = Reader::begin(bytes)?;
    while let Some(found) = reader.find_next()? {
        match found {
            Found::Object(member) => {
                let mut body = Vec::new();
                reader.read_to_end(&mut body).map_err(|error| reader.failed(error))?;
                match Address::of(&body) == member.address {
                    true => seen.whole.push((member, body)),
                    false => seen.damaged.push(Some(member.address)),
                }
            }
            Found::Damaged { address, .. } => seen.damaged.push(address),
            Found::End { matches } => seen.ends.push(matches),
        }
    }
    Ok(())
}

#[test]
fn what_is_written_is_read() {
    for count in 0..=7 {
        let objects = &objects()[..count];
        let seen = read(&archive(objects));
        assert!(seen.failure.is_none() && seen.damaged.is_empty(), "{seen:?}");
        assert_eq!((&seen.whole[..], &seen.ends[..]), (objects, &[true][..]));
    }
    let two = [archive(&objects()[..3]), archive(&objects()[3..])].concat();
    let seen = read(&two);
    assert_eq!((seen.whole, seen.ends), (objects(), vec![true, true]), "one behind the other");
}

#[test]
fn every_flipped_bit_is_noticed_and_the_other_objects_come() {
    let (objects, bytes) = (objects(), archive(&objects()));
    let list = objects.iter().map(|(member, _)| member.address).collect::<Vec<_>>();
    for at in (0..bytes.len() - 1024).step_by(7) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let seen = read(&bytes);
        let head = at < 1024;
        let lost = list.len() - seen.whole.len();
        let noticed = seen.failure.is_some() || !seen.damaged.is_empty() || seen.ends != [true];
        // What fills a block is not read, and some bytes of a header say nothing to us.
        assert!(noticed || lost == 0, "byte {at}: {seen:?}");
        assert!(head || lost <= 1, "byte {at}: {lost} lost");
        for (member, body) in &seen.whole {
            assert_eq!(Address::of(body), member.address);
            let right = objects.iter().find(|(other, _)| other.address == member.address).unwrap();
            let header_lost = seen.damaged.contains(&None) && member.fields.is_default();
            assert!(member.fields == right.0.fields || header_lost, "byte {at}");
        }
    }
}

#[test]
fn an_archive_that_is_cut_is_told_from_a_whole_one() {
    let bytes = archive(&objects());
    // The zeros behind the end say nothing.
    for len in (0..bytes.len() - 1024).step_by(97) {
        let seen = read(&bytes[..len]);
        let cut = matches!(seen.failure, Some(ArchiveError::Truncated { .. }));
        let none = len < 512 && matches!(seen.failure, Some(ArchiveError::NoArchive));
        assert!(cut || none, "{len}: {:?}", seen.failure);
        assert!(seen.damaged.is_empty() && seen.ends.is_empty(), "{len}");
    }
    // Without an object in the middle the list is another.
    let (first, last) = (&objects()[..3], &objects()[4..]);
    let whole = archive(&objects());
    let begin = archive(first).len() - 2048;
    let end = whole.len() - (archive(last).len() - 1024);
    let seen = read(&[&whole[..begin], &whole[end..]].concat());
    assert_eq!((seen.whole.len(), seen.ends), (6, vec![false]));
}

#[test]
fn a_writer_goes_on_where_a_reader_stopped() {
    let (objects, whole) = (objects(), archive(&objects()));
    for kept in 0..objects.len() {
        let mut reader = Reader::begin(&whole[..]).unwrap();
        (0..kept).for_each(|_| assert!(matches!(reader.find_next(), Ok(Some(Found::Object(_))))));
        let mark = reader.mark().unwrap();
        assert_eq!(mark.objects(), kept as u64);
        let mut writer = Writer::go_on(whole[..mark.at as usize].to_vec(), mark);
        for (member, bytes) in &objects[kept..] {
            writer.object(member).unwrap();
            writer.body(bytes).unwrap();
            writer.close(member).unwrap();
        }
        assert_eq!(writer.end().unwrap().0, whole);
    }
}

#[test]
fn an_object_above_eight_gibibytes_has_its_size_in_pax() {
    for size in [block::SIZE_MAX, block::SIZE_MAX + 1, 1 << 34] {
        let large = Member { address: Address::of(b"x"), size, fields: Fields::default() };
        let mut writer = Writer::begin(Vec::new(), "").unwrap();
        writer.object(&large).unwrap();
        let mut reader = Reader::begin(&writer.out()[..]).unwrap();
        assert_eq!(reader.find_next().unwrap(), Some(Found::Object(large)));
        assert!(matches!(reader.find_next(), Err(ArchiveError::Truncated { .. })));
    }
}

#[test]
fn other_versions_and_other_things_are_refused() {
    let bytes = archive(&objects());
    let mut newer = bytes.clone();
    let text = 512 + "ron-archive ".len();
    newer[text] = b'2';
    let refused = |bytes: &[u8]| Reader::begin(bytes).unwrap_err();
    assert!(matches!(refused(&newer), ArchiveError::Version { version: 2 }));
    for other in [&b""[..], &[0; 4096], &bytes[512..], &[0x1f; 2000]] {
        assert!(matches!(refused(other), ArchiveError::NoArchive), "{}", other.len());
    }
}

/// The bytes of docs/ARCHIVE.md: a change of them is a change of the format.
#[test]
fn the_vector_of_the_document_holds() {
    let mut hello = member(b"hello");
    hello.fields = Fields::new(Some("text/plain"), None);
    let bytes = archive(&[(hello, b"hello".to_vec())]);
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ARCHIVE.md");
    let document = fs::read_to_string(document).unwrap();
    let hash = Address::of(&bytes);
    let said = format!("{} bytes, `{hash}`", bytes.len());
    assert!(document.contains(&said), "{said}");
    let texts = [512, 1536, 3584].map(|at| {
        let text = bytes[at..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    });
    for text in texts {
        assert!(document.contains(&format!("```text\n{text}```")), "{text}");
    }
}

#[test]
fn gnu_tar_lists_and_extracts_it() {
    let Ok(version) = Command::new("tar").arg("--version").output() else { return };
    if !version.stdout.starts_with(b"tar (GNU tar)") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    fs::write(&path, archive(&objects())).unwrap();
    let out = Command::new("tar").arg("tf").arg(&path).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let names = objects().iter().map(|(member, _)| member.address.to_string()).collect::<Vec<_>>();
    let listed = [&["ron-archive".to_owned()], &names[..], &["ron-archive-end".to_owned()]];
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().collect::<Vec<_>>(), listed.concat());
    let extracted = Command::new("tar").arg("xf").arg(&path).current_dir(dir.path()).status();
    assert!(extracted.unwrap().success());
    for (member, bytes) in objects() {
        assert_eq!(fs::read(dir.path().join(member.address.to_string())).unwrap(), bytes);
    }
}
