//! What the scrub says of an object that is not what it should be.

use ron_codec::address::Address;

use crate::{
    flow::Cx,
    store::damage::{self, Harm},
};

/// How an object is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its data are wrong.
    Wrong,
    /// What lies beside its data is.
    Beside,
    /// The disk does not give them.
    Unreadable,
}

/// Says that a stored object is not what it should be. The control plane logs it when it is new.
pub(super) fn report_damage(address: &Address, what: &str, found: Found, cx: &mut Cx<'_>) {
    if found != Found::Unreadable {
        cx.stats.integrity_fail.add(1);
    }
    let harm = if found == Found::Beside { Harm::Beside } else { Harm::Data };
    damage::report(address, harm, what, cx);
}
