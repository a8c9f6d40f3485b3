//! The object files of a partition, and what uploads left.

use std::{fs::File, io, path::Path};

use ron_codec::{
    address::Address,
    limits::{DISK_BLOCK_LEN, GROUP_LEN},
    outboard::{Hashing, Outboard, group_count, group_len},
    record::{RecordHeader, RecordKind, RecordPlace},
};
use ron_shards::store::{audit::object_address, layout::Layout};

use super::{
    error::FsckError,
    index::Files,
    listing::{list, name},
    log::{Log, read_up_to},
    report::{Finding, Report, What},
};

/// Checks every object file, finds those that no record names, and names those that are missing.
pub(super) fn check(
    layout: &Layout,
    number: u16,
    log: &mut Log,
    by_index: &Files,
    report: &mut Report<'_>,
) -> Result<(), FsckError> {
    let mut seen = 0;
    for folder in list(&layout.partition_dir(number).join("objects"), report)? {
        if !folder.is_dir() {
            report.found(&Finding::at(&folder, What::Foreign))?;
            continue;
        }
        for path in list(&folder, report)? {
            // To open anything but a file might wait without an end.
            let address = object_address(name(&path)).filter(|_| path.is_file());
            let Some(address) = address.filter(|a| layout.object_path(number, a) == path) else {
                report.found(&Finding::at(&path, What::Foreign))?;
                continue;
            };
            let (owner, _) = layout.owner(&address);
            if owner != number {
                report.found(&Finding::at(&path, What::Partition { owner }).of(address))?;
                continue;
            }
            let record = log.latest.get_mut(&address).filter(|l| l.kind == RecordKind::File);
            let size = match record {
                Some(record) => {
                    record.has_file = true;
                    record.size
                }
                None => match by_index.get(&address) {
                    Some(size) => {
                        seen += 1;
                        *size
                    }
                    None => {
                        report.found(&Finding::at(&path, What::Orphan).of(address))?;
                        continue;
                    }
                },
            };
            check_file(&path, address, size, report)?;
        }
    }
    let missing = log.latest.iter().filter(|(_, l)| l.kind == RecordKind::File && !l.has_file);
    for address in missing.map(|(address, _)| address) {
        let path = layout.object_path(number, address);
        report.found(&Finding::at(&path, What::NoFile).of(*address))?;
    }
    if seen < by_index.len() {
        let paths = by_index.keys().map(|address| (address, layout.object_path(number, address)));
        for (address, path) in paths.filter(|(_, path)| !path.exists()) {
            report.found(&Finding::at(&path, What::NoFile).of(*address))?;
        }
    }
    for path in list(&layout.tmp_dir(number), report)? {
        report.found(&Finding::at(&path, What::Upload))?;
    }
    Ok(())
}

fn check_file(
    path: &Path,
    address: Address,
    size: u64,
    report: &mut Report<'_>,
) -> Result<(), FsckError> {
    report.summary.files += 1;
    let finding = match examine(path, address, size, report) {
        Ok(None) => return Ok(()),
        Ok(Some(finding)) => finding,
        Err(error) => Finding::at(path, What::Unreadable { reason: error.to_string() }),
    };
    Ok(report.found(&finding.of(address))?)
}

/// What is wrong with an object file, if anything is.
fn examine(
    path: &Path,
    address: Address,
    size: u64,
    report: &mut Report<'_>,
) -> io::Result<Option<Finding>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut block = [0; DISK_BLOCK_LEN];
    let got = read_up_to(&file, &mut block, 0)?;
    let header = match RecordHeader::decode(&block[..got]) {
        Ok(header) => header,
        Err(error) => {
            let what = What::FileHeader { reason: error.to_string() };
            return Ok(Some(Finding::at(path, what).offset(0)));
        }
    };
    let is_record = header.kind() == RecordKind::Object && header.place() == RecordPlace::File;
    if !is_record || header.digest() != address || header.size() != size {
        let reason = format!("it is of {} with {} bytes", header.digest(), header.size());
        return Ok(Some(Finding::at(path, What::FileHeader { reason }).offset(0)));
    }
    let expected = header.record_len();
    if len < expected {
        return Ok(Some(Finding::at(path, What::FileLength { len, expected })));
    }
    report.read(got);
    let mut bytes = vec![0; header.outboard_len() as usize];
    file_exact(&file, &mut bytes, header.outboard_offset())?;
    report.read(bytes.len());
    let data_start = u64::from(header.data_offset());
    match Outboard::from_bytes(&bytes, size).ok().filter(|o| o.verify_root(&address).is_ok()) {
        Some(outboard) => {
            if let Some((first, bad)) = bad_groups(&file, data_start, address, &outboard, report)? {
                let what = What::Groups { bad, count: group_count(size).max(1) };
                let at = data_start + first * GROUP_LEN as u64;
                return Ok(Some(Finding::at(path, what).offset(at)));
            }
            let more = len - expected;
            Ok((more > 0).then(|| Finding::at(path, What::Trailing { more }).offset(expected)))
        }
        None => {
            let whole = address_of(&file, data_start, size, report)? == Some(address);
            let what = if whole { What::Outboard } else { What::OutboardAndData };
            Ok(Some(Finding::at(path, what).offset(header.outboard_offset())))
        }
    }
}

/// The first group whose bytes do not match, and how many there are.
fn bad_groups(
    file: &File,
    data_start: u64,
    address: Address,
    outboard: &Outboard,
    report: &mut Report<'_>,
) -> io::Result<Option<(u64, u64)>> {
    let size = outboard.size();
    let mut bytes = vec![0; GROUP_LEN];
    let mut bad = None;
    for index in 0..group_count(size).max(1) {
        let group = &mut bytes[..group_len(size, index)];
        file_exact(file, group, data_start + index * GROUP_LEN as u64)?;
        report.read(group.len());
        if outboard.verify_group(&address, index, group).is_err() {
            let (_, count) = bad.get_or_insert((index, 0));
            *count += 1;
        }
    }
    Ok(bad)
}

/// What the data of a file are called.
fn address_of(
    file: &File,
    data_start: u64,
    size: u64,
    report: &mut Report<'_>,
) -> io::Result<Option<Address>> {
    let mut hashing = Hashing::new();
    let mut bytes = vec![0; GROUP_LEN];
    for index in 0..group_count(size) {
        let group = &mut bytes[..group_len(size, index)];
        file_exact(file, group, data_start + index * GROUP_LEN as u64)?;
        report.read(group.len());
        if hashing.update(group).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(hashing.finish().address))
}

fn file_exact(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let got = read_up_to(file, bytes, at)?;
    if got == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
