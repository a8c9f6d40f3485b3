//! What is shed, and in what order, so that others find a place.
//!
//! A newcomer that finds no place takes one from the client that wants most: first what is ahead of
//! its turn, then what an answer begins with, last what an answer goes on with. A fetch that has
//! waited too long for memory is refused. A fetch that nobody wants any more leaves when its turn
//! comes; when more than half of those in line are such fetches, all of them leave at once.

use ron_codec::address::Address;

use super::{
    Reads,
    askers::{Need, Wanted, Wanting},
    fetch::{Fetch, Line},
};
use crate::{
    flow::{Cx, Place, StreamId},
    turns::{Client, Turns},
};

/// What may be refused for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Cut {
    /// What is ahead of its turn.
    Ahead,
    /// What an answer begins with.
    Begins,
    /// What an answer goes on with as well.
    Any,
}

impl Cut {
    /// What loses least comes first.
    const ALL: [Cut; 3] = [Cut::Ahead, Cut::Begins, Cut::Any];

    fn takes(self, wanting: &Wanting) -> bool {
        match self {
            Cut::Ahead => wanting.need.ahead,
            Cut::Begins => wanting.need.begins,
            Cut::Any => true,
        }
    }
}

impl Reads {
    /// Refuses something of the client that wants most here, if that is more than who wants this
    /// does: what is ahead of its turn before what an answer begins with, and that before what one
    /// goes on with. For an answer that begins, one that goes on is cut only when its client has
    /// more than all that is kept for such; for what is ahead, only what is ahead as well.
    pub(super) fn shed_for(&mut self, wanted: Wanted, wanting: Wanting, cx: &mut Cx<'_>) {
        let own = self.wanting.of(wanting.asker.peer);
        let kept = if wanting.need.begins { cx.config.fetches_max / 4 } else { 0 };
        let Some((most, of)) = self.wanting.most().filter(|(most, _)| *most > own + 1) else {
            return;
        };
        let least = match wanting.need.ahead {
            true => Cut::Ahead,
            false if most > own + 1 + kept => Cut::Any,
            false => Cut::Begins,
        };
        let mut cuts = Cut::ALL.into_iter().filter(|cut| *cut <= least);
        match wanted {
            Wanted::Fetch => {
                let Some(key) = cuts.find_map(|cut| self.pop_fetch(of, cut)) else { return };
                let Fetch { wanting, index, .. } = self.remove(key);
                wanting.into_iter().for_each(|wanting| wanting.refuse(index, cx));
            }
            Wanted::Asker | Wanted::Place(_) => {
                let found = cuts.find_map(|cut| self.find_asker(wanted, of, cut));
                let Some((key, at)) = found else { return };
                let index = self.fetches[key].index;
                self.take_asker(key, at).refuse(index, cx);
            }
        }
    }

    /// Takes the newest fetch out of a line that only this client wants, and so.
    fn pop_fetch(&mut self, of: Client, cut: Cut) -> Option<usize> {
        let fetches = &self.fetches;
        let may_go = |key: &usize| {
            let all = &fetches[*key].wanting;
            all.iter().all(|wanting| wanting.asker.peer == of && cut.takes(wanting))
        };
        self.lines.iter_mut().find_map(|line| line.pop_newest(of, may_go))
    }

    /// An asker of this client whose fetch waits, and that has the place that is wanted.
    fn find_asker(&self, wanted: Wanted, of: Client, cut: Cut) -> Option<(usize, usize)> {
        let may_go = |wanting: &Wanting| {
            let asker = wanting.asker;
            let has_place = match wanted {
                Wanted::Place(shard) => asker.place == Place::Parked && asker.shard == shard,
                Wanted::Fetch | Wanted::Asker => true,
            };
            asker.peer == of && has_place && cut.takes(wanting)
        };
        let of_fetch = |(key, fetch): (usize, &Fetch)| {
            Some((key, fetch.line.and(fetch.wanting.iter().rposition(may_go))?))
        };
        let own = self.lines.iter().flat_map(|line| line.line_of(of).rev());
        own.map(|key| (*key, &self.fetches[*key]))
            .find_map(of_fetch)
            .or_else(|| self.fetches.iter().find_map(of_fetch))
    }

    /// A stream of this shard wants a group no more.
    pub(in crate::store) fn cancel(
        &mut self,
        stream: StreamId,
        address: Address,
        index: u64,
        cx: &Cx<'_>,
    ) {
        let Some(key) = self.by_group.get(&(address, index)) else { return };
        let fetch = &self.fetches[*key];
        let is_it = |wanting: &Wanting| {
            wanting.asker.stream == stream && wanting.asker.shard == cx.config.shard
        };
        let Some(at) = fetch.wanting.iter().position(is_it) else { return };
        self.take_asker(*key, at);
        // Otherwise they leave when their turn comes.
        let in_line: usize = self.lines.iter().map(Turns::len).sum();
        if 2 * self.abandoned > in_line {
            self.drop_abandoned();
        }
    }

    /// A fetch that nobody wants leaves when its turn comes, or sooner.
    fn take_asker(&mut self, key: usize, at: usize) -> Wanting {
        let fetch = &mut self.fetches[key];
        let gone = fetch.wanting.swap_remove(at);
        self.wanting.take(&gone);
        if fetch.wanting.is_empty() && fetch.line.is_some() {
            self.abandoned += 1;
        }
        gone
    }

    fn drop_abandoned(&mut self) {
        self.abandoned = 0;
        for line in 0..self.lines.len() {
            let mut waiting = std::mem::take(&mut self.lines[line]);
            waiting.retain(|key| {
                let wanted = !self.fetches[*key].wanting.is_empty();
                if !wanted {
                    self.remove(*key);
                }
                wanted
            });
            self.lines[line] = waiting;
        }
    }

    /// Refuses those that have waited too long for memory.
    pub(super) fn refuse_late(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.now.mono_ns;
        if now_ns < self.late_at {
            return;
        }
        self.late_at = u64::MAX;
        for line in Line::OF_MEMORY {
            let mut late = Vec::new();
            for key in self.lines[line as usize].iter() {
                let at = self.fetches[*key].late_at(line).unwrap_or(u64::MAX);
                if at <= now_ns {
                    late.push(*key);
                } else {
                    self.late_at = at.min(self.late_at);
                }
            }
            if late.is_empty() {
                continue;
            }
            let fetches = &self.fetches;
            let is_late = |key: &usize| fetches[*key].late_at(line).is_some_and(|at| at <= now_ns);
            self.lines[line as usize].retain(|key| !is_late(key));
            late.sort_unstable_by_key(|key| self.fetches[*key].since);
            for key in late {
                let Fetch { index, wanting, .. } = self.remove(key);
                for wanting in wanting {
                    // That it was ahead when it was asked for says nothing after that time.
                    let need = Need { ahead: false, ..wanting.need };
                    Wanting { need, ..wanting }.refuse(index, cx);
                }
            }
        }
    }
}
