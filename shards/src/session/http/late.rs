//! How long each phase of a connection may take, and what happens when it took longer.

use ron_io::stats::Rejected;

use super::{
    HttpSession, STATUS_NONE, State, delete, find,
    refusal::{Refusal, Slow},
};
use crate::{config::Deadlines, flow::Cx};

impl HttpSession {
    /// When the state will have taken too long: the earliest of the deadlines that run in it.
    pub(super) fn next_deadline(&self, cx: &Cx<'_>) -> Option<u64> {
        let allowed = &cx.config.deadlines;
        let phase = match &self.state {
            State::Handshake => Some(self.phase_ns.saturating_add(allowed.handshake_ns)),
            State::Head => self.head_deadline(allowed),
            State::Find(find) => Some(find.request.began_ns.saturating_add(allowed.stream_ns)),
            State::Get(get) => Some(get.request.began_ns.saturating_add(allowed.stream_ns)),
            State::Delete(delete) => {
                Some(delete.request.began_ns.saturating_add(allowed.stream_ns))
            }
            State::Put(put) => {
                let whole = put.request.began_ns.saturating_add(allowed.stream_ns);
                // While the disk is behind, the peer is not the one who is late.
                let waits = put.awaits_body() && !put.is_asking() && self.inbox.is_empty();
                let body = self.pace.due(allowed).into_iter().chain([self.body_deadline(allowed)]);
                Some(if waits { body.fold(whole, u64::min) } else { whole })
            }
            State::Linger { .. } => {
                (self.wire.unsent() == 0).then(|| self.phase_ns.saturating_add(allowed.linger_ns))
            }
            State::Gone => return None,
        };
        [phase, self.stall_deadline(allowed)].into_iter().flatten().min()
    }

    /// Ends what took too long.
    pub(super) fn run_late(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono_ns;
        let allowed = &cx.config.deadlines;
        if self.stall_deadline(allowed).is_some_and(|due| due <= now) {
            cx.stats.reject(Rejected::Timeout);
            return self.abort(STATUS_NONE, cx);
        }
        match &self.state {
            State::Handshake => {
                cx.stats.reject(Rejected::Timeout);
                self.abort(STATUS_NONE, cx);
            }
            State::Head if self.is_within_head() => {
                self.refuse_unread(&Refusal::Slow(Slow::Head), cx);
            }
            State::Head if self.skip > 0 => self.run_rest_late(cx),
            State::Head => self.close(cx),
            State::Get(get) if get.has_begun() => {
                cx.stats.reject(Rejected::Timeout);
                self.abort(STATUS_NONE, cx);
            }
            State::Find(_) => self.find_turn(find::Turn::Refuse(Refusal::StoreSlow), cx),
            State::Get(_) => self.turn(super::Turn::Refuse(Refusal::StoreSlow), cx),
            State::Delete(_) => {
                self.delete_turn(delete::Turn::Refuse(Refusal::StoreSlow), cx);
            }
            State::Put(put) => {
                let whole = put.request.began_ns.saturating_add(allowed.stream_ns) <= now;
                let silent = self.body_deadline(allowed) <= now;
                if put.is_receiving() && !whole && !silent && !self.pace.is_late(now, allowed) {
                    return;
                }
                let refusal = match (put.is_receiving(), whole) {
                    (true, true) => Refusal::Slow(Slow::Request),
                    (true, false) => Refusal::Slow(Slow::Body),
                    (false, _) => Refusal::StoreSlow,
                };
                self.refuse_put(&refusal, cx);
            }
            State::Linger { .. } => self.abort(STATUS_NONE, cx),
            State::Gone => {}
        }
    }

    /// Ends the connection if the rest of a body that nobody wants comes too slowly, or not at all.
    fn run_rest_late(&mut self, cx: &mut Cx<'_>) {
        let (now, allowed) = (cx.now.mono_ns, &cx.config.deadlines);
        // Nothing is read before the answers to what came before have left.
        if !self.wire.takes_request(cx) {
            self.pace.restart(now);
        }
        if self.body_deadline(allowed) <= now || self.pace.is_late(now, allowed) {
            cx.stats.reject(Rejected::Timeout);
            self.close(cx);
        }
    }

    /// Whether some bytes of a head came, and not all.
    fn is_within_head(&self) -> bool {
        self.skip == 0 && self.scanned > 0
    }

    fn head_deadline(&self, allowed: &Deadlines) -> Option<u64> {
        if self.skip > 0 {
            let body = self.body_deadline(allowed);
            return Some(self.pace.due(allowed).map_or(body, |due| due.min(body)));
        }
        if self.is_within_head() || self.stream == 0 {
            return Some(self.phase_ns.saturating_add(allowed.head_ns));
        }
        // A peer that still takes its answer is not idle.
        (self.wire.unsent() == 0).then(|| self.phase_ns.saturating_add(allowed.idle_ns))
    }

    fn body_deadline(&self, allowed: &Deadlines) -> u64 {
        self.received_ns.max(self.phase_ns).saturating_add(allowed.body_ns)
    }

    fn stall_deadline(&self, allowed: &Deadlines) -> Option<u64> {
        (self.wire.unsent() > 0).then(|| self.wire.progress_ns().saturating_add(allowed.send_ns))
    }
}
