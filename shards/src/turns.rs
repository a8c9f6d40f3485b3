//! What waits, a line for each client: the clients take turns, so that much of one keeps what is of
//! another waiting no longer than one thing does.

use std::collections::{BTreeMap, VecDeque};

use crate::flow::Peer;

/// Who waits. Connections that are not served have no peer, and share a line.
pub(crate) type Client = Option<Peer>;

/// Turns that there is memory for while nothing waits; places of a line beyond twice its length.
const TURNS_KEPT: usize = 32;
const LINE_KEPT: usize = 4;

#[derive(Debug)]
pub(crate) struct Turns<T> {
    /// No queue here is empty.
    of: BTreeMap<Client, VecDeque<T>>,
    turns: VecDeque<Client>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns { of: BTreeMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Bytes of memory for each thing that waits, where each is of another client, beside twice
    /// itself.
    pub(crate) const fn bill() -> usize {
        // The nodes of the tree are half full.
        let line = 2 * (size_of::<Client>() + size_of::<VecDeque<T>>());
        line + LINE_KEPT * size_of::<T>() + 2 * size_of::<Client>()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many clients wait.
    pub(crate) fn clients(&self) -> usize {
        self.of.len()
    }

    /// How much waits of one client.
    pub(crate) fn len_of(&self, client: Client) -> usize {
        self.of.get(&client).map_or(0, VecDeque::len)
    }

    /// Waits behind what else is of this client.
    pub(crate) fn push(&mut self, client: Client, what: T) {
        let line = self.of.entry(client).or_insert_with(|| {
            self.turns.push_back(client);
            VecDeque::new()
        });
        line.push_back(what);
        self.len += 1;
    }

    /// Takes out the oldest of the client whose turn it is, which is then behind the others.
    pub(crate) fn pop(&mut self) -> Option<(Client, T)> {
        let client = self.turns.pop_front()?;
        let line = self.of.get_mut(&client)?;
        let what = line.pop_front()?;
        self.len -= 1;
        if line.is_empty() {
            self.of.remove(&client);
        } else {
            line.shrink_to(2 * line.len() + LINE_KEPT);
            self.turns.push_back(client);
        }
        self.give_back();
        Some((client, what))
    }

    /// What came last of a client comes before all else.
    pub(crate) fn last_first(&mut self, client: Client) {
        let Some(line) = self.of.get_mut(&client) else { return };
        line.rotate_right(1);
        if let Some(at) = self.turns.iter().rposition(|next| *next == client) {
            self.turns.remove(at);
        }
        self.turns.push_front(client);
    }

    /// Takes out the newest of a client that may go.
    pub(crate) fn pop_newest(
        &mut self,
        client: Client,
        may_go: impl FnMut(&T) -> bool,
    ) -> Option<T> {
        let line = self.of.get_mut(&client)?;
        let at = line.iter().rposition(may_go)?;
        self.len -= 1;
        let what = line.remove(at);
        if line.is_empty() {
            self.of.remove(&client);
            self.turns.retain(|next| *next != client);
            self.give_back();
        }
        what
    }

    /// What waits of one client, oldest first.
    pub(crate) fn line_of(&self, client: Client) -> impl DoubleEndedIterator<Item = &T> {
        self.of.get(&client).into_iter().flatten()
    }

    /// The longest line, and whose it is.
    pub(crate) fn longest(&self) -> Option<(usize, Client)> {
        self.of.iter().map(|(client, line)| (line.len(), *client)).max()
    }

    /// Takes out what is not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.of.retain(|_, line| {
            line.retain(&mut keep);
            line.shrink_to(2 * line.len() + LINE_KEPT);
            !line.is_empty()
        });
        self.turns.retain(|client| self.of.contains_key(client));
        self.len = self.of.values().map(VecDeque::len).sum();
        self.give_back();
    }

    /// What waits, in no order of turns.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.of.values().flatten()
    }

    fn give_back(&mut self) {
        if self.of.is_empty() {
            self.turns.shrink_to(TURNS_KEPT);
        }
    }

    /// Things and turns that there is memory for.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.turns.capacity() + self.of.values().map(VecDeque::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Client {
        Some(Peer::of([192, 0, 2, number].into()))
    }

    fn all(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).map(|(_, what)| what).collect()
    }

    #[test]
    fn clients_take_turns_and_each_in_its_order() {
        let mut turns = Turns::default();
        (10..14).for_each(|what| turns.push(client(1), what));
        (20..22).for_each(|what| turns.push(client(2), what));
        turns.push(None, 30);
        assert_eq!((turns.len(), turns.clients(), turns.len_of(client(1))), (7, 3, 4));
        assert_eq!(turns.longest(), Some((4, client(1))));
        assert_eq!(all(&mut turns), [10, 20, 30, 11, 21, 12, 13]);
        assert!(turns.is_empty() && turns.longest().is_none());
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let mut turns = Turns::default();
        for (of, what) in [(1, 10), (1, 11), (2, 20), (3, 30)] {
            turns.push(client(of), what);
        }
        for _ in 0..3 {
            let (of, what) = turns.pop().unwrap();
            assert_eq!(what, 10);
            turns.push(of, what);
            turns.last_first(of);
        }
        assert_eq!(turns.pop().unwrap().1, 10);
        let (of, what) = turns.pop().unwrap();
        turns.push(of, what);
        turns.last_first(of);
        assert_eq!(all(&mut turns), [20, 30, 11]);
    }

    #[test]
    fn the_newest_and_the_unwanted_leave_and_turns_stay() {
        let mut turns = Turns::default();
        (10..14).for_each(|what| turns.push(client(1), what));
        (20..24).for_each(|what| turns.push(client(2), what));
        assert_eq!(turns.pop_newest(client(1), |_| true), Some(13));
        assert_eq!(turns.pop_newest(client(1), |what| *what < 10), None);
        turns.retain(|what| ![20, 21, 22, 23].contains(what));
        assert_eq!(turns.pop_newest(client(1), |what| *what < 11), Some(10));
        assert_eq!((turns.len(), turns.clients()), (2, 1));
        assert_eq!(turns.pop_newest(client(2), |_| true), None);
        turns.push(client(2), 24);
        assert_eq!(turns.line_of(client(1)).collect::<Vec<_>>(), [&11, &12]);
        assert_eq!(turns.pop_newest(client(2), |_| true), Some(24));
        assert_eq!((turns.len(), turns.clients()), (2, 1));
        assert_eq!(all(&mut turns), [11, 12]);
    }
}
