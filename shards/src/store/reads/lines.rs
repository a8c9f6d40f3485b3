//! The lines in which fetches wait: for others to be done, or for memory.
//!
//! A retry takes the lines in their order, and in each the clients in turn. It leaves a line at the
//! first fetch that must still wait, and that fetch keeps its turn. An asker learns once that
//! its group waits for memory, so that it can drop what it holds.

use super::{
    Reads,
    askers::{Wanted, Wanting},
    fetch::Line,
};
use crate::{
    cache::Purpose,
    flow::{Asker, Cx},
    store::{files::Files, site::Site},
};

impl Reads {
    /// Goes on with those that wait, in the order of their lines, until one must wait again.
    pub(in crate::store) fn retry(&mut self, files: &mut Files, site: Site, cx: &mut Cx<'_>) {
        self.refuse_late(cx);
        for line in Line::ALL {
            for _ in 0..self.lines[line as usize].len() {
                let Some((_, key)) = self.lines[line as usize].pop() else { break };
                let others = self.lines[line as usize].len();
                self.advance(key, files, site, cx);
                if self.lines[line as usize].len() > others {
                    // It went to the end of a line: it must still wait. Its turn comes first.
                    let client = self.fetches[key].client();
                    self.lines[line as usize].last_first(client);
                    break;
                }
            }
        }
    }

    /// Lets somebody wait for memory, in a place that another gives back if there is none. False
    /// when there is still none: it is refused.
    pub(super) fn let_wait(&mut self, wanting: &mut Wanting, index: u64, cx: &mut Cx<'_>) -> bool {
        let Asker { shard, .. } = wanting.asker;
        let wants_place = !wanting.notified && shard != cx.config.shard;
        if wants_place && !cx.memory.may_park(shard, wanting.need.begins) {
            self.shed_for(Wanted::Place(shard), *wanting, cx);
        }
        wanting.wait(index, cx)
    }

    /// There is no memory for the group: waits for some.
    pub(super) fn wait(&mut self, key: usize, len: usize, cx: &mut Cx<'_>) {
        let fetch = &mut self.fetches[key];
        if fetch.since.is_none() {
            fetch.since = Some(cx.now.mono_ns);
            cx.stats.memory_waits.add(1);
        }
        let index = fetch.index;
        let mut all = std::mem::take(&mut fetch.wanting);
        all.retain_mut(|wanting| {
            let waits = self.let_wait(wanting, index, cx);
            if !waits {
                self.wanting.take(wanting);
            }
            waits
        });
        let nobody = all.is_empty();
        self.fetches[key].wanting = all;
        if nobody {
            self.remove(key);
            return;
        }
        // Some were notified only now.
        let line = match self.fetches[key].purpose(len) {
            Purpose::ReadShort => Line::Short,
            Purpose::ReadFirst => Line::First,
            _ => Line::Next,
        };
        self.line_up(key, line);
    }

    pub(super) fn line_up(&mut self, key: usize, line: Line) {
        let fetch = &mut self.fetches[key];
        fetch.line = Some(line);
        if line != Line::Turn {
            self.late_at = self.late_at.min(fetch.late_at(line).unwrap_or(u64::MAX));
        }
        self.lines[line as usize].push(fetch.client(), key);
    }
}
