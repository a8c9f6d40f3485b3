//! The signals that a node knows: SIGINT and SIGTERM ask it to end, SIGHUP to read its settings
//! again. SIGUSR1 and SIGUSR2 mean nothing to it, and are caught so that they do no harm.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Interrupt,
    Terminate,
    HangUp,
    User1,
    User2,
}

/// All of them, the most important first.
const ALL: [Asked; 5] =
    [Asked::Terminate, Asked::Interrupt, Asked::HangUp, Asked::User1, Asked::User2];

/// Those that ask for the end.
const ENDING: [Asked; 2] = [Asked::Terminate, Asked::Interrupt];

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Asked::Interrupt => "SIGINT",
            Asked::Terminate => "SIGTERM",
            Asked::HangUp => "SIGHUP",
            Asked::User1 => "SIGUSR1",
            Asked::User2 => "SIGUSR2",
        }
    }

    fn kind(self) -> SignalKind {
        match self {
            Asked::Interrupt => SignalKind::interrupt(),
            Asked::Terminate => SignalKind::terminate(),
            Asked::HangUp => SignalKind::hangup(),
            Asked::User1 => SignalKind::user_defined1(),
            Asked::User2 => SignalKind::user_defined2(),
        }
    }
}

/// Handlers that stand from `install` on, so that no signal falls between two waits.
pub(crate) struct Signals(Vec<(Asked, Signal)>);

impl Signals {
    /// Installs all handlers. Must be called inside a tokio runtime with its driver enabled.
    pub(crate) fn install() -> io::Result<Signals> {
        Signals::of(&ALL)
    }

    fn of(asked: &[Asked]) -> io::Result<Signals> {
        let handler = |asked: &Asked| Ok((*asked, signal(asked.kind())?));
        asked.iter().map(handler).collect::<io::Result<_>>().map(Signals)
    }

    pub(crate) async fn next(&mut self) -> Asked {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Asked> {
        for (asked, signal) in &mut self.0 {
            if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                return Poll::Ready(*asked);
            }
        }
        Poll::Pending
    }
}

/// Waits for SIGINT or SIGTERM. From the first call on neither ends the process by itself.
///
/// # Errors
/// What installing a handler answered.
///
/// # Panics
/// Outside of a tokio runtime with its I/O driver enabled.
pub async fn wait_for_ctrl_c() -> io::Result<Asked> {
    Ok(Signals::of(&ENDING)?.next().await)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[test]
    fn every_signal_is_caught_from_the_start() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::install().unwrap();
            for expected in ALL {
                let own = std::process::id().to_string();
                let name = expected.name().replace("SIG", "-");
                assert!(Command::new("kill").args([&name, &own]).status().unwrap().success());
                let soon = Duration::from_secs(5);
                assert_eq!(tokio::time::timeout(soon, signals.next()).await, Ok(expected));
            }
        });
    }
}
