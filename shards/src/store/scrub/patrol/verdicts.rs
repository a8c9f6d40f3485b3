//! What a patrol does with the verdict on an object that was probed.
//!
//! ```text
//!   missing, whole ──► nothing             whole behind damage ──► written anew
//!   flawed in the log ──► written anew     flawed in a file ──► repaired where it lies
//!   damaged, unreadable, still flawed ──► reported
//!   failed ──► noted; too often in a row: the end of the patrol
//! ```

use std::io;

use ron_codec::address::Address;

use super::{PATROL_TAG, Parts, Patrol, Step, moves::in_log};
use crate::{
    flow::Cx,
    limits::SCRUB_FAILURES_MAX,
    store::{
        damage,
        flaw::{Beside, Flaw},
        notes::Note,
        scrub::{
            finding::report_damage,
            probe::{Repair, Verdict},
            repair::FileRepair,
        },
        site::Site,
    },
};

impl Patrol {
    /// The object of this address was probed.
    pub(super) fn conclude(
        &mut self,
        address: Address,
        verdict: Verdict,
        parts: &mut Parts<'_>,
        cx: &mut Cx<'_>,
    ) -> Step {
        self.probe = None;
        let site = parts.site;
        self.failures =
            if matches!(verdict, Verdict::Failed { .. }) { self.failures + 1 } else { 0 };
        if !matches!(verdict, Verdict::Whole { .. } | Verdict::Missing) {
            self.settled.insert(address);
        }
        let step = match verdict {
            Verdict::Missing => {
                damage::healed(&address, cx);
                return Step::Did;
            }
            Verdict::Whole { entry, record } => {
                damage::healed(&address, cx);
                match self
                    .is_hidden(&entry, parts.log)
                    .then(|| in_log(&address, &entry, record))
                    .flatten()
                {
                    Some(record) => self.relocate(address, entry, record, None, parts, cx),
                    None => Step::Did,
                }
            }
            Verdict::Flawed { entry, what, repair: Repair::Record(record) } => {
                self.relocate(address, entry, record, Some(what), parts, cx)
            }
            Verdict::Flawed { what, repair: Repair::Writes(writes), .. }
                if self.repaired != Some(address) =>
            {
                self.repair = Some(FileRepair::new(address, what, writes, PATROL_TAG));
                return Step::Did;
            }
            Verdict::Flawed { what, .. } => self.damaged(&address, &Flaw::Beside(what), cx),
            Verdict::Damaged { what } => self.damaged(&address, &Flaw::Wrong(what), cx),
            Verdict::Unreadable { why } => self.damaged(&address, &Flaw::Withheld(why), cx),
            Verdict::Failed { why } if self.failures > SCRUB_FAILURES_MAX => Step::Failed(why),
            Verdict::Failed { why } => {
                site.note(cx, &Note::NotChecked { address, why: &why });
                return Step::Did;
            }
        };
        if matches!(step, Step::Did) {
            cx.stats.scrub_objects.add(1);
            self.tally.checked += 1;
        }
        step
    }

    /// An object file was repaired, and is probed once more; or it could not be.
    pub(super) fn repaired(
        &mut self,
        (address, flaw): (Address, Beside),
        outcome: io::Result<()>,
        site: Site,
        cx: &mut Cx<'_>,
    ) -> Step {
        self.repair = None;
        if let Err(error) = outcome {
            return self.damaged(&address, &Flaw::NotRepaired { what: flaw, error }, cx);
        }
        self.repaired = Some(address);
        self.note_repaired(&address, flaw, site, cx);
        self.probe(address);
        Step::Did
    }

    pub(super) fn note_repaired(
        &mut self,
        address: &Address,
        what: Beside,
        site: Site,
        cx: &mut Cx<'_>,
    ) {
        self.tally.repaired += 1;
        cx.stats.scrub_repaired.add(1);
        damage::healed(address, cx);
        site.note(cx, &Note::Repaired { address: *address, what });
    }

    fn damaged(&mut self, address: &Address, flaw: &Flaw, cx: &mut Cx<'_>) -> Step {
        self.tally.damaged += 1;
        report_damage(address, flaw, cx);
        Step::Did
    }
}
