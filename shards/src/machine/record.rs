//! What tests know of the transitions of all machines of their thread.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::{self, Debug, Write},
};

/// Variants that say only whether an act is in progress: the name is that of what they hold.
const WRAPPERS: [&str; 2] = ["Ready", "Waiting"];

thread_local! {
    static TRANSITIONS: RefCell<BTreeSet<Transition>> = const { RefCell::new(BTreeSet::new()) };
}

/// One transition: the machine, the state before, the event, and the state after.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Transition {
    machine: &'static str,
    from: String,
    event: &'static str,
    to: String,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}  {}", self.machine, self.from, self.event, self.to)
    }
}

/// The transitions that happened on this thread since the last call, sorted.
pub(crate) fn take_transitions() -> BTreeSet<Transition> {
    TRANSITIONS.take()
}

/// What a machine remembers of the step that runs.
#[derive(Debug)]
pub(super) struct Record {
    machine: &'static str,
    taken: Option<(String, &'static str)>,
}

impl Record {
    pub(super) fn new(machine: &'static str) -> Record {
        Record { machine, taken: None }
    }

    pub(super) fn taken(&mut self, state: &impl Debug, event: &'static str) {
        self.taken = Some((name_of(state), event));
    }

    pub(super) fn put(&mut self, state: &impl Debug) {
        self.leads_to(name_of(state));
    }

    pub(super) fn end(&mut self) {
        self.leads_to("(end)".to_string());
    }

    pub(super) fn forget(&mut self) {
        self.taken = None;
    }

    fn leads_to(&mut self, to: String) {
        let (from, event) = self.taken.take().expect("a state was taken");
        let transition = Transition { machine: self.machine, from, event, to };
        TRANSITIONS.with_borrow_mut(|all| all.insert(transition));
    }
}

/// The name of the variant that a state is.
fn name_of(state: &impl Debug) -> String {
    let mut name = Name::default();
    // It fails on purpose, as soon as the name is known: a state may hold much.
    let _ = write!(name, "{state:?}");
    name.text
}

/// Takes of what is written only the first identifier that is no wrapper's.
#[derive(Default)]
struct Name {
    text: String,
    ended: bool,
}

impl Write for Name {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        for char in written.chars() {
            if self.ended {
                return Err(fmt::Error);
            }
            if char.is_alphanumeric() || char == '_' {
                self.text.push(char);
            } else if char == '(' && WRAPPERS.contains(&self.text.as_str()) {
                self.text.clear();
            } else {
                self.ended = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[derive(Debug)]
    #[allow(dead_code)] // The fields are there to be printed.
    enum Ready {
        Start,
        Open { file: u32 },
    }

    #[derive(Debug)]
    struct Reading(#[allow(dead_code)] Vec<u8>);

    #[test]
    fn a_state_is_named_by_its_variant() {
        assert_eq!(name_of(&Ready::Start), "Start");
        assert_eq!(name_of(&Ready::Open { file: 7 }), "Open");
        assert_eq!(name_of(&Reading(vec![0; 1000])), "Reading");
        assert_eq!(name_of(&Turn::<_, ()>::Ready(Ready::Open { file: 7 })), "Open");
        assert_eq!(name_of(&Turn::<(), _>::Waiting(Reading(Vec::new()))), "Reading");
    }

    #[test]
    fn a_transition_is_recorded_once() {
        take_transitions();
        let mut machine = Machine::new("a machine", Turn::Ready(Ready::Start));
        for _ in 0..2 {
            let kept = machine.take("looked at");
            machine.keep(kept);
            let Ready::Start = machine.take_ready("go") else { panic!("it was put back") };
            machine.put(Turn::Waiting(Reading(Vec::new())));
            assert!(machine.is_waiting());
            machine.take_waiting("read");
            machine.put(Turn::Ready(Ready::Start));
        }
        machine.take("closed");
        machine.end();
        let text: Vec<String> = take_transitions().iter().map(Transition::to_string).collect();
        let want = [
            "a machine  Reading  read  Start",
            "a machine  Start  closed  (end)",
            "a machine  Start  go  Reading",
        ];
        assert_eq!(text, want);
        assert!(take_transitions().is_empty());
    }

    #[test]
    #[should_panic(expected = "no state was put back before go")]
    fn a_state_that_was_taken_is_put_back() {
        let mut machine = Machine::new("a machine", Ready::Start);
        machine.take("go");
        machine.take("go");
    }

    #[test]
    #[should_panic(expected = "read while no act is in progress: Start")]
    fn an_answer_to_nothing_is_found() {
        let mut machine: Machine<Turn<Ready, Reading>> =
            Machine::new("a machine", Turn::Ready(Ready::Start));
        machine.take_waiting("read");
    }
}
