//! The store crashed at every act, and at random. What was answered is not undone, and what was not
//! answered is absent or whole.

use super::*;

/// Bytes of the script's objects: none, one and many groups, in segments and files.
const LENS: [usize; 10] = [10, 5000, 70_000, 4096, 0, 200_000, 9000, 1_100_000, 3000, 1_200_000];

/// Puts objects, three at a time, with a checkpoint due after each, and stops before the act `nth`.
/// Returns what was acknowledged by then, or `None` if the script has fewer acts.
fn run_script(world: &mut World, objects: &[Vec<u8>], nth: usize) -> Option<Vec<Vec<u8>>> {
    let mut asked = BTreeMap::new();
    let mut acts = 0;
    for some in objects.chunks(3) {
        for bytes in some {
            let ask = world.store_ask(bytes);
            asked.insert(world.ask(ask), bytes.clone());
        }
        while acts < nth && world.step() {
            acts += 1;
        }
        if acts == nth {
            let stored = |asked| matches!(world.answers.get(asked), Some(Reply::Stored { .. }));
            let stored = asked.iter().filter(|(asked, _)| stored(asked));
            return Some(stored.map(|(_, bytes)| bytes.clone()).collect());
        }
        world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
    }
    None
}

/// The next act is performed in part.
fn tear(world: &mut World) {
    if !world.pending.is_empty() {
        let (_, op) = world.pending.remove(0);
        world.disk.half_perform(op);
    }
}

/// Crashes the script before or in its act `nth`, then again: in the boot, after it, and with the
/// index lost.
fn crash_at(nth: usize, seed: u64) -> bool {
    let mut world = World::new(seed);
    let objects: Vec<_> = LENS.iter().zip(seed * 100..).map(|(len, n)| object(n, *len)).collect();
    let Some(acknowledged) = run_script(&mut world, &objects, nth) else { return false };
    if seed.is_multiple_of(2) {
        tear(&mut world);
    }
    for round in 0..2 {
        // A killed process leaves all that it wrote, a failed machine only what it synced.
        if round == 0 && seed % 3 == 1 {
            world.disk.kill();
        } else {
            world.disk.crash(seed + round);
        }
        world.begin_restart();
        for _ in 0..(seed * 7 + nth as u64 + round) % 12 {
            world.step();
        }
        if seed % 3 == 1 {
            world.kill();
        } else {
            tear(&mut world);
            world.crash(seed + round + 50);
        }
        for bytes in &acknowledged {
            assert!(world.holds(bytes), "seed {seed}, act {nth}: {} bytes lost", bytes.len());
        }
        // Whatever else is there is whole, and stays: it is answered for from now on.
        let there: Vec<bool> = objects.iter().map(|bytes| world.holds(bytes)).collect();
        if round == 1 && nth.is_multiple_of(2) {
            world.lose_index();
        }
        world.crash(seed + round + 100);
        for (bytes, there) in objects.iter().zip(there) {
            assert!(!there || world.holds(bytes), "seed {seed}, act {nth}: vanished later");
        }
        let tmp = world.config.layout.tmp_dir(0);
        assert!(!world.disk.paths().iter().any(|path| path.starts_with(&tmp)));
        assert!(matches!(world.put(&objects[0]), Reply::Stored { .. }));
    }
    true
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    for seed in 0..4 {
        let acts = (0..1000).find(|nth| !crash_at(*nth, seed)).expect("the script ends");
        assert!(acts > 20, "the script has {acts} acts");
    }
}

/// Objects at random, and what is known of them.
struct Gamble {
    world: World,
    chance: Chance,
    objects: Vec<Vec<u8>>,
    /// What was answered last: there, gone, or unknown since something was not answered.
    known: BTreeMap<usize, Option<bool>>,
    /// Objects whose put was cut off: they may come to light when the index is rebuilt.
    cut_off: BTreeSet<usize>,
}

impl Gamble {
    fn new(seed: u64) -> Gamble {
        let len = |n: u64| if n < 3 { LARGE } else { 150_000 * n as usize / 2 };
        Gamble {
            world: World::new(seed),
            chance: Chance::new(seed),
            objects: (0..12).map(|n| object(n + seed * 100, len(n))).collect(),
            known: (0..12).map(|n| (n, Some(false))).collect(),
            cut_off: BTreeSet::new(),
        }
    }

    /// Asks for puts and deletions, and lets some of the acts be performed.
    fn play(&mut self) {
        let mut asked: BTreeMap<u32, (usize, bool)> = BTreeMap::new();
        for _ in 0..self.chance.below(14) {
            let nth = self.chance.below(12);
            if asked.values().any(|(other, _)| *other == nth) {
                continue;
            }
            let put = self.chance.below(5) < 3;
            let bytes = &self.objects[nth];
            let ask = match put {
                false => Ask::Delete { address: hashed(bytes).address },
                true => self.world.store_ask(bytes),
            };
            self.known.insert(nth, None);
            asked.insert(self.world.ask(ask), (nth, put));
            for _ in 0..self.chance.below(6) {
                self.world.step();
            }
        }
        if self.chance.below(3) > 0 {
            self.world.now.mono_ns += limits::CHECKPOINT_AFTER_NS;
            self.world.settle();
        }
        for _ in 0..self.chance.below(40) {
            if !self.world.step() {
                self.world.settle();
            }
        }
        self.learn(&asked);
    }

    fn learn(&mut self, asked: &BTreeMap<u32, (usize, bool)>) {
        for (asked, (nth, put)) in asked {
            match self.world.answers.get(asked) {
                Some(Reply::Missing) if self.cut_off.contains(nth) => {}
                Some(Reply::Stored { .. } | Reply::Deleted | Reply::Missing) => {
                    self.cut_off.remove(nth);
                    self.known.insert(*nth, Some(*put));
                }
                Some(other) => panic!("{other:?}"),
                None if *put => drop(self.cut_off.insert(*nth)),
                None => {}
            }
        }
    }

    fn check(&mut self, what: &str) {
        for (nth, bytes) in self.objects.iter().enumerate() {
            let there = self.world.holds(bytes);
            if let Some(known) = self.known[&nth] {
                assert_eq!(there, known, "{what}, object {nth}");
            }
            if there {
                self.known.insert(nth, Some(true));
            }
        }
    }
}

#[test]
fn no_crash_undoes_what_was_answered() {
    let mut compactions = 0;
    for seed in 0..150 {
        let mut gamble = Gamble::new(seed);
        for round in 0..4 {
            gamble.play();
            compactions += gamble.world.stats.compactions.get();
            if round % 2 == 0 {
                gamble.world.crash(seed * 10 + round);
            } else {
                lose_index(&mut gamble.world);
            }
            gamble.check(&format!("seed {seed}, round {round}"));
        }
        come_to_rest(&mut gamble.world);
        let Gamble { world, objects, .. } = &mut gamble;
        let there = objects.iter().filter(|bytes| world.holds(bytes)).count();
        assert_eq!(world.stats.objects.get(), there as u64, "seed {seed}");
    }
    assert!(compactions > 10, "{compactions} segments were compacted before a crash");
}
