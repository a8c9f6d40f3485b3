//! When a request is tried again, and after how long.
//!
//! Only requests that may be repeated without harm come here, and only failures that left nothing
//! behind are tried again: a connection that could not be made, 429, and 503. The decision is a
//! pure function; the one place that sleeps is handed in.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    thread,
    time::Duration,
};

use super::error::ClientError;

/// Most times a request is made again.
pub(super) const RETRIES_MAX: u32 = 3;

/// Longest wait that a node can ask for; a longer one is cut to this.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Longest first wait when the node did not ask for one. It doubles with each retry.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// How long to wait after a lost connection, before what it was for is asked for again.
pub(super) const LOST_PAUSE: Duration = BACKOFF_FIRST;

const _: () = assert!(BACKOFF_FIRST.as_millis() << RETRIES_MAX <= RETRY_AFTER_MAX.as_millis());

/// How to pause between two tries: after what, and for how long.
pub(super) type Wait<'a> = &'a mut dyn FnMut(&ClientError, Duration);

/// How long to wait before the next try after `made` retries, or `None` to give up. `random` is any
/// number; it spreads the waits of many clients that failed together.
///
/// A wait that the node asked for is kept, and up to a quarter of it is added, within
/// `RETRY_AFTER_MAX`. Otherwise the wait is between half of the backoff and all of it.
#[must_use]
pub(super) fn next_wait(made: u32, error: &ClientError, random: u64) -> Option<Duration> {
    if made >= RETRIES_MAX {
        return None;
    }
    let asked = match error {
        ClientError::Unreachable { .. } => None,
        ClientError::Node { status: 429 | 503, retry_after, begun: false, .. } => *retry_after,
        _ => return None,
    };
    Some(match asked {
        Some(asked) => (asked + share(asked / 4, random)).min(RETRY_AFTER_MAX),
        None => {
            let longest = BACKOFF_FIRST * (1 << made);
            longest / 2 + share(longest / 2, random)
        }
    })
}

/// Makes `attempt` until it succeeds or there is no point in another. `wait` gets what failed
/// and how long to sleep.
///
/// # Errors
///
/// Those of the last attempt.
pub(super) fn with_retries<T>(
    wait: &mut dyn FnMut(&ClientError, Duration),
    mut attempt: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut made = 0;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(pause) = next_wait(made, &error, random()) else { return Err(error) };
        wait(&error, pause);
        made += 1;
    }
}

/// The same for requests that do no harm when they are made twice: what was lost is tried again.
///
/// # Errors
///
/// Those of the last attempt.
pub(super) fn with_patience<T>(
    wait: &mut dyn FnMut(&ClientError, Duration),
    mut attempt: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut lost = 0;
    loop {
        match with_retries(wait, &mut attempt) {
            Err(error @ ClientError::Lost { .. }) if lost < RETRIES_MAX => {
                wait(&error, LOST_PAUSE);
                lost += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Sleeps, and says why when `quiet` is not set. There is nothing else to do meanwhile.
pub(super) fn sleep(quiet: bool) -> impl FnMut(&ClientError, Duration) {
    move |error, pause| {
        if !quiet {
            eprintln!("ronctl: {error}; trying again in {:.1} s", pause.as_secs_f32());
        }
        thread::sleep(pause);
    }
}

/// Reads the value of `Retry-After` in its form of whole seconds; a date is not understood.
#[must_use]
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    let digits = value.trim();
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are a long time, too.
    decimal
        .then(|| Duration::from_secs(digits.parse().unwrap_or(u64::from(u32::MAX))))
        .map(|asked| asked.min(RETRY_AFTER_MAX))
}

/// A part of `most` that `random` chooses, evenly.
fn share(most: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(random)) >> u64::BITS) as u64)
}

/// The seeds of the standard hasher are random, and enough for spreading waits.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ron_codec::{address::Address, error::ErrorReply};

    use super::*;

    fn unreachable() -> ClientError {
        ClientError::Unreachable { node: "n".into(), reason: "refused".into() }
    }

    fn node(status: u16, retry_after: Option<u64>, begun: bool) -> ClientError {
        let retry_after = retry_after.map(Duration::from_secs);
        ClientError::Node { status, reply: ErrorReply::default(), retry_after, begun }
    }

    #[test]
    fn only_failures_that_left_nothing_behind_are_tried_again() {
        for again in [unreachable(), node(429, None, false), node(503, Some(1), false)] {
            assert!(next_wait(0, &again, 0).is_some(), "{again}");
        }
        let digest = ClientError::Digest { expected: Address::of(b"a"), found: Address::of(b"b") };
        let lost = ClientError::Lost { got: 0, len: None, reason: String::new() };
        let untrusted = ClientError::Untrusted { node: String::new(), reason: String::new() };
        let others = [400, 401, 404, 500, 502, 504, 507].map(|status| node(status, Some(1), false));
        for never in [digest, lost, untrusted, node(503, Some(1), true)].iter().chain(&others) {
            assert_eq!(next_wait(0, never, 0), None, "{never}");
        }
    }

    #[test]
    fn retries_end() {
        assert!(next_wait(RETRIES_MAX - 1, &unreachable(), 0).is_some());
        assert_eq!(next_wait(RETRIES_MAX, &unreachable(), 0), None);
        assert_eq!(next_wait(u32::MAX, &node(503, Some(1), false), 0), None);
    }

    #[test]
    fn waits_double_and_are_spread() {
        let ends = [0, u64::MAX].map(|random| {
            [0, 1, 2].map(|made| {
                let wait = next_wait(made, &unreachable(), random).unwrap();
                // The share of the largest number is one nanosecond short of all.
                (wait.as_nanos().div_ceil(1000) / 1000) as u64
            })
        });
        assert_eq!(ends, [[100, 200, 400], [200, 400, 800]]);
    }

    #[test]
    fn a_node_is_given_the_time_it_asks_for() {
        let wait = |asked, random| next_wait(0, &node(429, Some(asked), false), random).unwrap();
        assert_eq!(wait(4, 0), Duration::from_secs(4));
        assert_eq!(wait(4, u64::MAX / 2 + 1), Duration::from_millis(4500));
        assert_eq!(wait(30, u64::MAX), RETRY_AFTER_MAX);
        assert_eq!(wait(31, 0), RETRY_AFTER_MAX);
    }

    #[test]
    fn retry_after_is_whole_seconds() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after(" 0 "), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("30"), Some(RETRY_AFTER_MAX));
        assert_eq!(parse_retry_after("99999999999999999999999"), Some(RETRY_AFTER_MAX));
        for other in ["", "-1", "+1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(parse_retry_after(other), None, "{other:?}");
        }
    }

    #[test]
    fn attempts_stop_at_success_and_at_the_limit() {
        let mut waits = 0;
        let mut tries = 0;
        let done = with_retries(&mut |_, _| waits += 1, || {
            tries += 1;
            if tries < 3 { Err(unreachable()) } else { Ok(tries) }
        });
        assert_eq!((done.unwrap(), waits), (3, 2));

        let mut tries = 0;
        let failed: Result<(), _> = with_retries(&mut |_, _| {}, || {
            tries += 1;
            Err(unreachable())
        });
        assert!(failed.is_err());
        assert_eq!(tries, RETRIES_MAX + 1);
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(
            made in 0..RETRIES_MAX, asked in proptest::option::of(0..100_u64), random: u64
        ) {
            let wait = next_wait(made, &node(503, asked, false), random).unwrap();
            prop_assert!(wait <= RETRY_AFTER_MAX);
            let least = asked.map_or(BACKOFF_FIRST / 2, Duration::from_secs);
            prop_assert!(wait >= least.min(RETRY_AFTER_MAX));
        }
    }
}
