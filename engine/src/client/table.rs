//! The storage report of a node, for people.
//!
//! One fact a line, with its name in front; lists follow below. What a node says in words is not
//! trusted with the terminal.

use std::{fmt::Write, time::Duration};

use indicatif::{HumanBytes, HumanDuration};
use ron_codec::http::response::{HTTP_DATE_LEN, write_http_date};
use ron_control::storage::{Figures, StorageReport};

use super::error::Shown;

/// Damaged objects that are listed, one a line; the JSON form has them all.
const DAMAGED_SHOWN_MAX: usize = 50;

/// Characters of the names.
const NAME_LEN: usize = 12;

/// The report at a time of day, in Unix seconds; without a line end.
pub(super) fn storage(report: &StorageReport, now_unix_s: u64) -> String {
    let mut table = Table { text: String::new() };
    let total = &report.total;
    figures(&mut table, total, report.promised_bytes);
    scrub(&mut table, total, now_unix_s);
    partitions(&mut table, report);
    damage(&mut table, report, now_unix_s);
    table.text.truncate(table.text.trim_end().len());
    table.text
}

fn figures(table: &mut Table, total: &Figures, set_aside: u64) {
    let size = HumanBytes;
    table.line("objects", format_args!("{}, {}", total.objects, size(total.object_bytes)));
    let live = percent(total.segment_live_bytes, total.segment_bytes);
    table.line(
        "segments",
        format_args!(
            "{}, {}: {} live ({live} %), {} dead",
            total.segments,
            size(total.segment_bytes),
            size(total.segment_live_bytes),
            size(total.segment_dead_bytes)
        ),
    );
    table.line("files", format_args!("{}", size(total.file_bytes)));
    match total.disk_free_bytes {
        Some(free) => {
            let (free, set_aside) = (size(free), size(set_aside));
            table.line("disk free", format_args!("{free}; {set_aside} set aside for uploads"));
        }
        None => table.line("disk free", format_args!("not known yet")),
    }
    table.line("deleted", format_args!("{} objects since the start", total.deletes));
    table.line(
        "compacted",
        format_args!(
            "{} segments since the start: {} moved, {} given back",
            total.compactions,
            size(total.compact_moved_bytes),
            size(total.compact_freed_bytes)
        ),
    );
}

fn scrub(table: &mut Table, total: &Figures, now_unix_s: u64) {
    let scrub = &total.scrub;
    match scrub.finished_unix_s {
        Some(at) => table.line("last scrub", format_args!("{}", when(at, now_unix_s))),
        None => table.line("last scrub", format_args!("none since the start")),
    }
    table.line(
        "scrub",
        format_args!(
            "{}; since the start {} rounds, {} objects, {}, {} repaired",
            if scrub.running { "running" } else { "not running" },
            scrub.rounds,
            scrub.objects,
            HumanBytes(scrub.bytes),
            scrub.repaired
        ),
    );
}

fn partitions(table: &mut Table, report: &StorageReport) {
    let total = &report.total;
    let (full, read_only) = (total.partitions_full, total.partitions_read_only);
    match (full, read_only, total.partitions_absent) {
        (0, 0, 0) => table.line("partitions", format_args!("all serve")),
        (full, read_only, absent) => table.line(
            "partitions",
            format_args!("{full} full, {read_only} read-only, {absent} absent"),
        ),
    }
    for fault in &report.partitions {
        let (state, reason) = (Shown(&fault.state), Shown(&fault.reason));
        table.item(format_args!("p{:03} {state}: {reason}", fault.partition));
    }
}

fn damage(table: &mut Table, report: &StorageReport, now_unix_s: u64) {
    let damage = &report.damage;
    if damage.objects.is_empty() {
        return table.line("damage", format_args!("none known"));
    }
    table.line("damage", format_args!("{} objects", damage.objects.len()));
    for object in damage.objects.iter().take(DAMAGED_SHOWN_MAX) {
        let (age, what) = (age(object.last_unix_s, now_unix_s), Shown(&object.what));
        table.item(format_args!("{} {}x, last {age} ago: {what}", object.addr, object.count));
    }
    let not_shown = damage.objects.len().saturating_sub(DAMAGED_SHOWN_MAX);
    if not_shown > 0 {
        table.item(format_args!("and {not_shown} more, see --json"));
    }
    if damage.cut > 0 {
        table.item(format_args!("the list is cut: {} more were found", damage.cut));
    }
}

/// A time and how long ago it was.
fn when(unix_s: u64, now_unix_s: u64) -> String {
    let mut date = [0; HTTP_DATE_LEN];
    write_http_date(unix_s, &mut date);
    format!("{} ago, {}", age(unix_s, now_unix_s), String::from_utf8_lossy(&date))
}

/// A node whose clock is ahead of ours has done it just now.
fn age(unix_s: u64, now_unix_s: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(now_unix_s.saturating_sub(unix_s)))
}

/// How much of the whole, rounded down; nothing is all of nothing.
fn percent(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    if whole == 0 { 100 } else { u64::try_from(share).unwrap_or(u64::MAX) }
}

struct Table {
    text: String,
}

impl Table {
    fn line(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        let _ = writeln!(self.text, "{name:NAME_LEN$} {value}");
    }

    /// An entry of the list below the last line.
    fn item(&mut self, value: std::fmt::Arguments<'_>) {
        self.line("", value);
    }
}

#[cfg(test)]
mod tests {
    use ron_codec::address::Address;
    use ron_control::storage::{DamageReport, DamagedObject, PartitionFault, Scrub};

    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn damaged(number: usize) -> DamagedObject {
        DamagedObject {
            addr: Address::of(&number.to_le_bytes()),
            shard: 0,
            what: "a group\u{1b}[2J".to_owned(),
            count: 2,
            first_unix_s: NOW - 100,
            last_unix_s: NOW - 60,
        }
    }

    fn line<'a>(text: &'a str, name: &str) -> &'a str {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{name} in {text}")).trim_start()
    }

    #[test]
    fn an_empty_node() {
        let text = storage(&StorageReport::default(), NOW);
        assert_eq!(line(&text, "objects"), "0, 0 B");
        assert_eq!(line(&text, "segments"), "0, 0 B: 0 B live (100 %), 0 B dead");
        assert_eq!(line(&text, "disk free"), "not known yet");
        assert_eq!(line(&text, "last scrub"), "none since the start");
        assert_eq!(line(&text, "partitions"), "all serve");
        assert_eq!(line(&text, "damage"), "none known");
        assert!(!text.ends_with('\n'));
    }

    #[test]
    fn a_node_with_everything() {
        let total = Figures {
            objects: 3,
            object_bytes: 2048,
            segments: 2,
            segment_bytes: 4096,
            segment_live_bytes: 3072,
            segment_dead_bytes: 1024,
            disk_free_bytes: Some(1 << 30),
            partitions_full: 1,
            partitions_absent: 1,
            scrub: Scrub {
                running: true,
                rounds: 4,
                finished_unix_s: Some(NOW - 7200),
                ..Scrub::default()
            },
            ..Figures::default()
        };
        let report = StorageReport {
            total,
            promised_bytes: 1 << 20,
            partitions: vec![PartitionFault {
                partition: 7,
                state: "absent".to_owned(),
                reason: "the volume\nis gone".to_owned(),
            }],
            damage: DamageReport { objects: vec![damaged(1)], cut: 9 },
            ..StorageReport::default()
        };
        let text = storage(&report, NOW);
        assert_eq!(line(&text, "segments"), "2, 4.00 KiB: 3.00 KiB live (75 %), 1.00 KiB dead");
        assert_eq!(line(&text, "disk free"), "1.00 GiB; 1.00 MiB set aside for uploads");
        assert_eq!(line(&text, "last scrub"), "2 hours ago, Sat, 08 Sep 2001 23:46:40 GMT");
        assert!(line(&text, "scrub").starts_with("running; since the start 4 rounds"));
        assert_eq!(line(&text, "partitions"), "1 full, 0 read-only, 1 absent");
        assert!(text.contains(" p007 absent: the volume\u{fffd}is gone\n"), "{text}");
        assert_eq!(line(&text, "damage"), "1 objects");
        assert!(text.contains(" 2x, last 60 seconds ago: a group\u{fffd}[2J\n"), "{text}");
        assert!(text.ends_with("the list is cut: 9 more were found"), "{text}");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let objects = (0..DAMAGED_SHOWN_MAX + 3).map(damaged).collect();
        let report =
            StorageReport { damage: DamageReport { objects, cut: 0 }, ..StorageReport::default() };
        let text = storage(&report, NOW);
        assert_eq!(text.matches("b3:").count(), DAMAGED_SHOWN_MAX);
        assert!(text.ends_with("and 3 more, see --json"), "{text}");
    }

    #[test]
    fn odd_numbers_are_survived() {
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
        assert_eq!((percent(1, 3), percent(0, 5), percent(0, 0)), (33, 0, 100));
        let text = when(NOW + 5, NOW);
        assert!(text.starts_with("0 seconds ago"), "{text}");
    }
}
