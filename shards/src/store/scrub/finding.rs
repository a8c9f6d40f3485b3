//! What the scrub says of an object that is not what it should be.

use ron_codec::address::Address;

use crate::{
    flow::Cx,
    store::{damage, flaw::Flaw},
};

/// Says that a stored object is not what it should be. The control plane logs it when it is new.
pub(super) fn report_damage(address: &Address, flaw: &Flaw, cx: &mut Cx<'_>) {
    // What the disk does not give may be right.
    if !matches!(flaw, Flaw::Withheld(_)) {
        cx.stats.integrity_fail.add(1);
    }
    damage::report(address, flaw, cx);
}
