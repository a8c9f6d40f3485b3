//! What the disk of the simulation keeps, loses and refuses.

use super::*;
use crate::ports::{FileId, JobOutcome, Space};

const FILE: FileId = FileId(0);

fn disk() -> Disk {
    let mut disk = Disk::new(&["/a".into(), "/b".into()], Chance::new(1));
    for path in ["/a/x", "/a/y", "/b/x"] {
        disk.perform(DiskOp::MakeDir { path: path.into() }, None).0.unwrap();
    }
    disk
}

fn open(disk: &mut Disk, path: &str, how: OpenHow) -> io::Result<InodeId> {
    let (done, id) = disk.perform(DiskOp::Open { file: FILE, path: path.into(), how }, None);
    done.map(|_| id.unwrap())
}

fn create(disk: &mut Disk, path: &str) -> InodeId {
    open(disk, path, OpenHow::CreateNew).unwrap()
}

fn write(disk: &mut Disk, id: InodeId, at: u64, len: usize) -> io::Result<DiskDone> {
    let parts = vec![Part::Zeros(4), Part::Bytes(vec![7; len - 4])];
    disk.perform(DiskOp::Write { file: FILE, at, parts }, Some(id)).0
}

fn rename(disk: &mut Disk, from: &str, to: &str) -> io::Result<DiskDone> {
    disk.perform(DiskOp::Rename { from: from.into(), to: to.into() }, None).0
}

fn names(disk: &Disk) -> Vec<String> {
    disk.files().map(|(name, _, _)| name.to_string()).collect()
}

#[test]
fn a_file_is_created_once_and_in_a_folder() {
    let mut disk = disk();
    create(&mut disk, "/a/x/1");
    let kind = |disk: &mut Disk, path, how| open(disk, path, how).unwrap_err().kind();
    assert_eq!(kind(&mut disk, "/a/x/1", OpenHow::CreateNew), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(&mut disk, "/a/z/1", OpenHow::CreateNew), io::ErrorKind::NotFound);
    assert_eq!(kind(&mut disk, "/a/x/2", OpenHow::Read), io::ErrorKind::NotFound);
    disk.crash();
    assert_eq!(names(&disk), ["/a/x/1"], "its folder was synced with it");
}

#[test]
fn a_folder_lists_its_own_files_only() {
    let mut disk = disk();
    disk.perform(DiskOp::MakeDir { path: "/a/x/deep".into() }, None).0.unwrap();
    for path in ["/a/x/1", "/a/x/deep/2", "/a/y/3"] {
        create(&mut disk, path);
    }
    let list = |disk: &mut Disk, path: &str| match disk
        .perform(DiskOp::List { path: path.into() }, None)
        .0
    {
        Ok(DiskDone::Listed(listed)) => listed,
        other => panic!("{other:?}"),
    };
    assert_eq!(list(&mut disk, "/a/x"), [("1".to_string(), 0)]);
    assert_eq!(list(&mut disk, "/a/x/deep"), [("2".to_string(), 0)]);
    assert_eq!(list(&mut disk, "/b/x"), []);
    assert!(disk.perform(DiskOp::List { path: "/c".into() }, None).0.is_err());
}

#[test]
fn a_rename_is_durable_and_copies_across_volumes() {
    let mut disk = disk();
    create(&mut disk, "/a/x/1");
    assert!(rename(&mut disk, "/a/x/1", "/a/z/1").is_err(), "no such folder");
    rename(&mut disk, "/a/x/1", "/a/y/1").unwrap();
    assert!(rename(&mut disk, "/a/x/1", "/a/y/1").is_err());
    disk.crash();
    assert_eq!(names(&disk), ["/a/y/1"]);
    let id = open(&mut disk, "/a/y/1", OpenHow::ReadWrite).unwrap();
    write(&mut disk, id, 0, 4096).unwrap();
    disk.set_capacity(Some(2 * 4096 - 1));
    assert!(rename(&mut disk, "/a/y/1", "/b/x/1").is_err(), "there is no space for both");
    disk.set_capacity(None);
    rename(&mut disk, "/a/y/1", "/b/x/1").unwrap();
    disk.crash();
    let copied = open(&mut disk, "/b/x/1", OpenHow::Read).unwrap();
    assert_ne!(copied, id);
    assert_eq!((names(&disk), disk.seen(Some(copied)).len()), (vec!["/b/x/1".into()], 4096));
}

#[test]
fn a_removal_lasts_only_if_it_was_asked_to() {
    let mut back = 0;
    for seed in 0..50 {
        for durable in [true, false] {
            let mut disk = disk();
            disk.chance = Chance::new(seed);
            create(&mut disk, "/a/x/1");
            let op = DiskOp::Remove { path: "/a/x/1".into(), durable };
            disk.perform(op, None).0.unwrap();
            assert!(names(&disk).is_empty());
            disk.crash();
            assert!(!durable || names(&disk).is_empty());
            back += names(&disk).len();
        }
    }
    assert!((1..50).contains(&back), "{back} of 50 came back");
}

#[test]
fn a_full_disk_takes_what_fits() {
    let mut disk = disk();
    let id = create(&mut disk, "/a/x/1");
    disk.set_capacity(Some(3 * 4096));
    write(&mut disk, id, 0, 2 * 4096).unwrap();
    let error = write(&mut disk, id, 8192, 2 * 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!((disk.used(), disk.injected.full), (3 * 4096, 1));
    write(&mut disk, id, 0, 4096).unwrap();
    disk.perform(DiskOp::Truncate { file: FileId(0), len: 10_000 }, Some(id)).0.unwrap();
    write(&mut disk, id, 8192, 4096).expect("its last block is there");
    match disk.perform(DiskOp::Space { path: "/a".into() }, None).0 {
        Ok(DiskDone::Space(Space { free: 0, total: 12_288, few_inodes: false })) => {}
        other => panic!("{other:?}"),
    }
    disk.perform(DiskOp::Remove { path: "/a/x/1".into(), durable: true }, None).0.unwrap();
    assert_eq!(disk.used(), 3 * 4096, "it is still open");
    disk.closed(id);
    assert_eq!(disk.used(), 0);
}

#[test]
fn bad_weather_is_counted_and_leaves_part_of_a_write() {
    let mut disk = disk();
    let id = create(&mut disk, "/a/x/1");
    disk.weather = Weather { writes: 1, syncs: 1, jobs: 1, others: 1, ..Weather::default() };
    assert!(write(&mut disk, id, 0, 8192).is_err());
    assert!(disk.perform(DiskOp::Sync { file: FILE }, Some(id)).0.is_err());
    assert!(open(&mut disk, "/a/x/1", OpenHow::Read).is_err());
    let job = Box::new(|| -> JobOutcome { panic!("it does not run") });
    let (done, _) = disk.perform(DiskOp::Run(job), None);
    assert!(matches!(done, Ok(DiskDone::Ran(Err(_)))));
    assert_eq!(disk.injected, Injected { errors: 4, kept: 0, short_reads: 0, full: 0 });
    disk.weather = Weather::default();
    disk.perform(DiskOp::Sync { file: FILE }, Some(id)).0.unwrap();
}

#[test]
fn only_what_is_synced_rots() {
    let mut disk = disk();
    let id = create(&mut disk, "/a/x/1");
    write(&mut disk, id, 0, 4096).unwrap();
    assert!(!disk.rot(id, 5, 0));
    disk.perform(DiskOp::Sync { file: FILE }, Some(id)).0.unwrap();
    assert!(!disk.rot(id, 4096, 0));
    assert!(disk.rot(id, 5, 0));
    assert_eq!(disk.seen(Some(id))[4..7], [7, 6, 7]);
}

#[test]
fn what_fails_may_have_happened_and_is_not_durable() {
    let (mut renamed, mut removed, mut cut, mut lost) = (0, 0, 0, 0);
    for seed in 0..40 {
        let mut disk = disk();
        disk.reseed(seed);
        let id = create(&mut disk, "/a/x/1");
        create(&mut disk, "/a/x/2");
        write(&mut disk, id, 0, 4096).unwrap();
        disk.weather.others = 1;
        let truncate = DiskOp::Truncate { file: FILE, len: 0 };
        disk.perform(truncate, Some(id)).0.unwrap_err();
        cut += usize::from(disk.bytes(id).is_empty());
        rename(&mut disk, "/a/x/1", "/a/y/1").unwrap_err();
        let remove = DiskOp::Remove { path: "/a/x/2".into(), durable: true };
        disk.perform(remove, None).0.unwrap_err();
        let seen = names(&disk);
        renamed += usize::from(seen.contains(&"/a/y/1".to_string()));
        removed += usize::from(!seen.contains(&"/a/x/2".to_string()));
        disk.crash();
        lost += usize::from(names(&disk) != seen);
    }
    for times in [renamed, removed, cut, lost] {
        assert!((5..=35).contains(&times), "{renamed} {removed} {cut} {lost}");
    }
}

#[test]
fn a_scan_may_bring_less_than_there_is() {
    let mut disk = disk();
    let id = create(&mut disk, "/a/x/1");
    write(&mut disk, id, 0, 8192).unwrap();
    disk.weather.short_reads = 1;
    let urgency = crate::ports::Urgency::Background;
    let lens: Vec<usize> = (0..20)
        .map(|_| {
            let scan = DiskOp::Scan { file: FILE, at: 0, len: 10_000, urgency };
            match disk.perform(scan, Some(id)).0.unwrap() {
                DiskDone::Scanned(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert!(lens.iter().all(|len| *len <= 8192) && lens.iter().any(|len| *len < 8192));
    assert_eq!(disk.injected.short_reads, 20);
}
