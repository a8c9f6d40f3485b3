//! Telling the control plane of requests that failed, so that the log has a line with their id.
//!
//! Reported is what the node could not do, and what it refused because of who asked or how much: an
//! operator is asked about those. What a client merely got wrong is only answered and counted.

use std::net::SocketAddr;

use ron_codec::error::ErrorCode;
use ron_io::{
    ports::{Act, Failure, Report},
    stats::{Op, Proto},
};

use crate::flow::Cx;

/// Reports an answer with an error, unless nobody needs to know or too many were reported lately.
pub(super) fn tell(
    (proto, op): (Proto, Op),
    code: ErrorCode,
    peer: SocketAddr,
    corr_id: &str,
    cx: &mut Cx<'_>,
) {
    let gate = match code.status() {
        // A method or a version that does not exist is the client's doing.
        501 | 505 => return,
        500.. => &cx.stats.failures,
        401 | 403 | 408 | 413 | 429 => &cx.stats.refusals,
        _ => return,
    };
    let Some(unreported) = gate.admit(cx.now.mono_ns) else { return };
    let (status, reason) = (code.status(), code.as_str());
    let corr_id = corr_id.to_owned();
    let failure = Box::new(Failure { proto, op, status, reason, peer, corr_id, unreported });
    cx.acts.push(Act::Report(Report::Failed { shard: cx.config.shard, failure }));
}
