//! The two signals that ask a node to end: SIGINT and SIGTERM.

use std::{future::poll_fn, io, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Interrupt,
    Terminate,
}

impl Asked {
    pub fn name(self) -> &'static str {
        match self {
            Asked::Interrupt => "SIGINT",
            Asked::Terminate => "SIGTERM",
        }
    }
}

/// Handlers that stand from `install` on, so that no signal falls between two waits.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs the handlers. Must be called inside a tokio runtime with its driver enabled.
    pub(crate) fn install() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Asked {
        poll_fn(|cx| {
            if let Poll::Ready(Some(())) = self.interrupt.poll_recv(cx) {
                return Poll::Ready(Asked::Interrupt);
            }
            if let Poll::Ready(Some(())) = self.terminate.poll_recv(cx) {
                return Poll::Ready(Asked::Terminate);
            }
            Poll::Pending
        })
        .await
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
    Ok(Signals::install()?.next().await)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;

    #[test]
    fn both_signals_are_caught_from_the_start() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::install().unwrap();
            for (name, expected) in [("-INT", Asked::Interrupt), ("-TERM", Asked::Terminate)] {
                let own = std::process::id().to_string();
                assert!(Command::new("kill").args([name, &own]).status().unwrap().success());
                let soon = Duration::from_secs(5);
                assert_eq!(tokio::time::timeout(soon, signals.next()).await, Ok(expected));
            }
        });
    }
}
