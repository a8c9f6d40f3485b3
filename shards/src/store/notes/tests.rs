//! What operators look up is what the node says.

use std::{fs, path::Path};

use super::*;
use crate::store::flaw::{Flaw, Withheld, Wrong};

/// Damage and notes, with the part of their words that docs/OPERATING.md has in its table.
fn looked_up() -> Vec<(String, &'static str)> {
    let error = io::Error::other("why");
    let address = Address::of(b"");
    let withheld = Withheld::Read(io::Error::other("why"));
    let lost = index::Loss::Segment { segment: 7, len: Some(5), synced_to: 9, objects: 1 };
    let flaws = [
        (Flaw::Wrong(Wrong::Data), "its data"),
        (Flaw::Wrong(Wrong::NoFile), "its file is missing"),
        (Flaw::Wrong(Wrong::TooShort), "is too short"),
        (Flaw::Withheld(withheld), "it cannot be read: "),
        (Flaw::Beside(Beside::Header), "its header, beside data that are right"),
        (Flaw::Beside(Beside::Outboard), "its outboard, "),
    ];
    let why = &SegmentEnd::Broken(Break::NoHeader);
    let notes = [
        (
            Note::Repaired { address, what: Beside::Header },
            "was damaged beside data that are right",
        ),
        (Note::IndexLoss(&lost), ", and was synced to "),
        (Note::Strangers { segment: 7, owner: 1 }, "which are not taken up"),
        (Note::BrokenSegmentMoved { segment: 7, from: 5, why }, ": what lies behind is moved"),
        (Note::NotWrittenAnew(address), "is to be written anew, and the log does not take it"),
        (Note::FolderNotSynced { folder: 7, error: &error }, " cannot be synced: "),
        (Note::NotChecked { address, why: &Unverified::Busy }, "cannot be checked: "),
        (Note::ScrubStopped(&Unverified::Moving), "the scrub cannot go on: "),
        (Note::ManyOrphans { segment: 7 }, "stays: there are more than 4096 files"),
        (Note::NotMarked { segment: 7, error: &error }, "cannot be marked"),
    ];
    let flaws = flaws.into_iter().map(|(flaw, words)| (flaw.to_string(), words));
    flaws.chain(notes.into_iter().map(|(note, words)| (note.to_string(), words))).collect()
}

#[test]
fn the_words_that_operators_look_up_are_those_that_are_said() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATING.md");
    let manual = fs::read_to_string(path).unwrap();
    for (said, words) in looked_up() {
        assert!(said.contains(words), "{said:?} does not say {words:?}");
        assert!(manual.contains(words), "docs/OPERATING.md does not have {words:?}");
    }
}

#[test]
fn a_round_that_found_nothing_is_no_warning() {
    let found = RoundFound { checked: 13, damaged: 0, repaired: 0, moved: 1, freed: 2 };
    let ended = |failed, found| ScrubNote::Ended { failed, found };
    let words =
        "scrub: a round finished: 13 objects, 0 damaged, 0 repaired, 1 moved, 2 files freed";
    assert_eq!(ended(false, found).to_string(), words);
    assert_eq!(ended(false, found).severity(), Severity::Info);
    assert_eq!(ended(true, found).severity(), Severity::Warn);
    assert_eq!(ended(false, RoundFound { repaired: 1, ..found }).severity(), Severity::Warn);
}
