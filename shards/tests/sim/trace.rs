//! What happened in a run, for who wants to read it, or to compare two runs.

use std::path::Path;

/// Where a run's steps are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Telling {
    #[default]
    Off,
    /// Each on a line of its own, on standard error.
    Print,
    /// Into a number that is the same for the same steps.
    Digest,
}

/// The steps of a run.
#[derive(Debug, Default)]
pub struct Trace {
    telling: Telling,
    /// The run's folder, which no two runs share, and which is left out.
    root: String,
    digest: u64,
}

impl Trace {
    pub fn new(telling: Telling, root: &Path) -> Trace {
        Trace { telling, root: root.to_string_lossy().into_owned(), digest: 0 }
    }

    pub fn is_on(&self) -> bool {
        self.telling != Telling::Off
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.telling == Telling::Off {
            return;
        }
        let text = text().replace(&self.root, "");
        if self.telling == Telling::Print {
            eprintln!("{text}");
        }
        for byte in text.into_bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Ends a run because the node broke a promise. The runner tells the seed.
macro_rules! violation {
    ($($what:tt)*) => { panic!("violation: {}", format_args!($($what)*)) };
}

pub(crate) use violation;
