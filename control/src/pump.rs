//! The shards' reports, turned into events and log lines.
//!
//! The thread sleeps on the waker of the lane. This module keeps nothing: what a report changes is
//! in the kernel.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use ron_codec::address::Address;
use ron_io::{
    lane::Receiver,
    ports::{Failure, PartitionState, Report, Severity, ShardId, Stall, VerifyOutcome},
};
use tokio::io::unix::AsyncFd;

use crate::{
    bus::KernelEvent,
    kernel::Kernel,
    limits::REPORTS_TURN_MAX,
    stalls::{Next, Summary},
    storage::state_name,
    waker::WakerFd,
};

/// Takes reports until it is dropped, or the descriptor fails.
pub(crate) async fn run(
    reports: Arc<Receiver<Report>>,
    waker: AsyncFd<WakerFd>,
    kernel: Arc<Kernel>,
) {
    loop {
        if drain(&reports, &kernel, REPORTS_TURN_MAX) {
            tokio::task::yield_now().await;
            continue;
        }
        waker.get_ref().0.prepare_park();
        if reports.is_empty() {
            match waker.readable().await {
                Ok(mut rung) => rung.clear_ready(),
                Err(error) => {
                    let reason = format!("the shards' reports can no longer be received: {error}");
                    kernel.announce(KernelEvent::ServiceCrashed {
                        service: "control".to_owned(),
                        reason,
                    });
                    return;
                }
            }
        }
        waker.get_ref().0.unpark();
    }
}

/// Takes up to `most` reports that are there. Returns whether there may be more.
pub(crate) fn drain(reports: &Receiver<Report>, kernel: &Kernel, most: usize) -> bool {
    for _ in 0..most {
        match reports.take() {
            Some(report) => take(report, kernel),
            None => return false,
        }
    }
    true
}

fn take(report: Report, kernel: &Kernel) {
    match report {
        Report::Ready { shard } => {
            kernel.announce(KernelEvent::Health { service: name(shard), ok: true });
        }
        Report::Note { shard: ShardId(shard), severity, message } => {
            log_note(shard, severity, &message, kernel);
        }
        Report::Damaged { shard: ShardId(shard), digest, what } => {
            let object = Address::from_bytes(digest);
            if kernel.storage.damaged(shard, object, &what, unix_s()) {
                tracing::error!(shard, %object, "damaged: {what}");
            }
        }
        Report::Healed { digest, .. } => no_damage(&Address::from_bytes(digest), kernel),
        Report::Partition { shard: ShardId(shard), partition, state, reason } => {
            partition_report(shard, partition, state, &reason, kernel);
        }
        Report::Stalled { shard: ShardId(shard), stall } => stalled(shard, stall, kernel),
        Report::Failed { shard: ShardId(shard), failure } => log_failure(shard, &failure),
        Report::Verified { id, outcome, .. } => {
            let is_no_damage =
                matches!(outcome, VerifyOutcome::Whole { .. } | VerifyOutcome::Missing);
            let object = kernel.verifies.deliver(id, outcome);
            if let Some(object) = object.filter(|_| is_no_damage) {
                no_damage(&object, kernel);
            }
        }
        Report::Listed { shard: ShardId(shard), id, page } => kernel.lists.deliver(id, shard, page),
        Report::Names { .. } => kernel.names.note_taken(),
        Report::Stopped { shard, reason: None } if kernel.health.leaving() => {
            kernel.announce(KernelEvent::Health { service: name(shard), ok: false });
        }
        Report::Stopped { shard, reason } => {
            let reason = reason.unwrap_or_else(|| "it stopped without being asked to".to_owned());
            kernel.announce(KernelEvent::ServiceCrashed { service: name(shard), reason });
        }
    }
}

/// One line for a note, if not too many said the same lately.
fn log_note(shard: u16, severity: Severity, message: &str, kernel: &Kernel) {
    let Some(unreported) = kernel.notes.admit(shard, message, Instant::now()) else { return };
    let unreported = (unreported > 0).then_some(unreported);
    match severity {
        Severity::Info => tracing::info!(shard, unreported, "{message}"),
        Severity::Warn => tracing::warn!(shard, unreported, "{message}"),
        Severity::Error => tracing::error!(shard, unreported, "{message}"),
    }
}

/// An object is damaged no more.
fn no_damage(object: &Address, kernel: &Kernel) {
    if kernel.storage.forget_damage(object) {
        tracing::info!(%object, "damaged no more");
    }
}

/// Has the log say, once a minute at most, what held the shards.
fn stalled(shard: u16, stall: Stall, kernel: &Kernel) {
    match kernel.stalls.add(shard, stall, &kernel.stats, Instant::now()) {
        Next::Say(summary) => log_stalls(&summary),
        Next::SayIn(left) => {
            let stalls = Arc::clone(&kernel.stalls);
            tokio::spawn(async move {
                tokio::time::sleep(left).await;
                if let Some(summary) = stalls.take(Instant::now()) {
                    log_stalls(&summary);
                }
            });
        }
        Next::Nothing => {}
    }
}

fn log_stalls(summary: &Summary) {
    let Summary { count, shard, longest } = summary;
    let ms = |ns: u64| ns as f64 / 1e6;
    let (held_ms, ran_ms, within_ms) =
        (ms(longest.held_ns), ms(longest.ran_ns), ms(longest.within_ns));
    tracing::warn!(
        stalls = count,
        shard,
        what = longest.work.name(),
        held_ms,
        ran_ms,
        within_ms,
        "event loop stalls"
    );
}

/// One line for a request that failed, with the id that its client got. What the node could
/// not do is a warning; what it refused is at level info.
fn log_failure(shard: u16, failure: &Failure) {
    let Failure { proto, op, status, reason, peer, corr_id, unreported } = failure;
    let (proto, op) = (proto.name(), op.name());
    if *status >= 500 {
        tracing::warn!(
            shard, proto, op, status, reason, %peer, corr_id, unreported, "request failed"
        );
    } else {
        tracing::info!(
            shard, proto, op, status, reason, %peer, corr_id, unreported, "request refused"
        );
    }
}

/// Every change is an error in the log, the good ones too: who follows one must see how it ends.
fn partition_report(
    shard: u16,
    partition: u16,
    state: PartitionState,
    reason: &str,
    kernel: &Kernel,
) {
    if kernel.storage.partition(partition, state, reason) {
        let state = state_name(state).unwrap_or("serving");
        tracing::error!(shard, partition, state, reason, "the state of a partition changed");
    }
}

/// The time of day, in Unix seconds.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a shard is called as a service.
fn name(ShardId(shard): ShardId) -> String {
    format!("shard-{shard}")
}
