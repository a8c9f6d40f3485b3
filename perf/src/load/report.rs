//! What a run came to, written for people and for programs.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{options::Options, slow::Slow, stats::Stats};
use crate::host;

/// Version of the document.
const VERSION: u32 = 1;

const MIB: f64 = 1024.0 * 1024.0;

/// What a run came to, before it is written down.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) started: SystemTime,
    pub(super) stats: Stats,
    pub(super) window: Duration,
    pub(super) server_cpu: Option<Duration>,
    pub(super) slow: Option<Slow>,
    pub(super) stored: Option<u64>,
}

/// A run's result.
#[derive(Clone, Debug)]
pub struct Report {
    document: Value,
    errors: u64,
}

impl Report {
    pub(super) fn new(options: &Options, outcome: Outcome) -> Self {
        let Outcome { started, stats, window, server_cpu, slow, stored } = outcome;
        let seconds = window.as_secs_f64();
        let rps = stats.requests as f64 / seconds;
        let server = server_cpu.map(|used| used.as_secs_f64());
        let client = stats.cpu.map(|used| used.as_secs_f64());
        let threads = options.threads.min(options.connections);
        let per_cpu = server.filter(|used| *used > 0.0).map(|used| stats.requests as f64 / used);
        let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let document = json!({
            "version": VERSION,
            "started": utc(since.as_secs()),
            "host": host::facts(),
            "commit": options.commit,
            "config": options,
            "window_seconds": seconds,
            "requests": stats.requests,
            "puts": stats.puts,
            "verified": stats.verified,
            "errors": stats.errors.json(),
            "errors_total": stats.errors.total(),
            "bytes": stats.bytes,
            "rps": rps,
            "mib_per_s": stats.bytes as f64 / MIB / seconds,
            "server_cpu_seconds": server,
            "rps_per_cpu": per_cpu,
            "client_cpu_seconds": client,
            "client_busy": client.map(|used| used / (seconds * f64::from(threads))),
            "latency_us": stats.latencies.summary(),
            "histogram": stats.latencies.pairs(),
            "connections_opened": stats.opened,
            "handshakes": stats.handshakes,
            "handshakes_resumed": stats.resumed,
            "late": options.rate.map(|_| json!({
                "count": stats.late,
                "backlog_max": stats.backlog_max,
                "lag_max_us": stats.lag_max.as_micros() as u64,
            })),
            "slow_readers": slow.map(|slow| slow.json()),
            "stored": stored,
        });
        Self { document, errors: stats.errors.total() }
    }

    /// The document for programs.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.document
    }

    /// How many errors there were.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let document = &self.document;
        let number = |name: &str| document[name].as_f64().unwrap_or(0.0);
        let mut out = String::new();
        let mut row = |name: &str, text: String| {
            // A string takes every write.
            let _ = writeln!(out, "{name:<14} {text}");
        };
        row("load", title(document));
        row(
            "requests/s",
            format!(
                "{:.0}   ({} in {:.2} s, {:.1} MiB/s)",
                number("rps"),
                document["requests"],
                number("window_seconds"),
                number("mib_per_s")
            ),
        );
        row("latency", latencies(&document["latency_us"]));
        for (name, text) in extra_rows(document) {
            row(name, text);
        }
        row("errors", errors(&document["errors"], self.errors));
        out
    }
}

/// The rows that only some runs have.
fn extra_rows(document: &Value) -> Vec<(&'static str, String)> {
    let number = |name: &str| document[name].as_f64().unwrap_or(0.0);
    let mut rows = Vec::new();
    let mut row = |name, text| rows.push((name, text));
    if document["server_cpu_seconds"].is_number() {
        let used = number("server_cpu_seconds");
        let cores = used / number("window_seconds");
        let per = number("rps_per_cpu");
        row("server", format!("{used:.2} CPU s ({cores:.2} cores), {per:.0} requests/CPU s"));
    }
    if document["client_busy"].is_number() {
        row("client busy", format!("{:.0} % of a core a thread", number("client_busy") * 100.0));
    }
    if number("handshakes") > 0.0 {
        let rate = number("handshakes") / number("window_seconds");
        let resumed = &document["handshakes_resumed"];
        row("handshakes", format!("{rate:.0}/s, {resumed} resumed"));
    }
    let late = &document["late"];
    if late.is_object() {
        row(
            "arrivals",
            format!(
                "{} late for want of a free connection, up to {} at once; generator up to {} \
                 µs behind",
                late["count"], late["backlog_max"], late["lag_max_us"]
            ),
        );
    }
    let slow = &document["slow_readers"];
    if slow.is_object() {
        row(
            "slow readers",
            format!(
                "{} read {} bytes, {} dropped",
                slow["connections"], slow["bytes"], slow["dropped"]
            ),
        );
    }
    rows
}

fn title(document: &Value) -> String {
    let config = &document["config"];
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let pace = match config["rate"].as_f64() {
        Some(rate) => format!("open loop at {rate}/s"),
        None => "closed loop".to_owned(),
    };
    format!(
        "{}, connections {}, threads {}, {pace}, warm-up {} s",
        text("node"),
        config["connections"],
        config["threads"],
        config["warmup"]
    )
}

fn latencies(summary: &Value) -> String {
    let names = ["p50", "p90", "p99", "p999", "p9999", "max"];
    let shown = names.map(|name| format!("{name} {}", summary[name]));
    format!("{}   (µs)", shown.join("  "))
}

fn errors(errors: &Value, total: u64) -> String {
    if total == 0 {
        return "none".to_owned();
    }
    let mut text = total.to_string();
    for (kind, count) in errors.as_object().into_iter().flatten() {
        match count {
            Value::Number(count) if count.as_u64() == Some(0) => {}
            Value::Number(count) => text += &format!(", {kind} {count}"),
            Value::Object(kinds) => {
                for (name, count) in kinds {
                    text += &format!(", {kind} {name} {count}");
                }
            }
            _ => {}
        }
    }
    for sample in errors["samples"].as_array().into_iter().flatten() {
        text += &format!("\n{:<14} {}", "", sample.as_str().unwrap_or_default());
    }
    text
}

/// A time as RFC 3339 has it, in whole seconds.
fn utc(since_1970: u64) -> String {
    let (days, rest) = (since_1970 / 86_400, since_1970 % 86_400);
    // Howard Hinnant's civil_from_days; years begin in March, so that a leap day is the last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(utc(4_102_444_800), "2100-01-01T00:00:00Z");
    }

    #[test]
    fn errors_are_reported_by_kind() {
        let document = json!({
            "connect": 0, "short": 2, "status": {"404": 1}, "protocol": {}, "samples": ["why"],
        });
        let text = errors(&document, 3);
        assert!(text.starts_with("3, short 2, status 404 1\n") && text.ends_with("why"), "{text}");
        assert_eq!(errors(&document, 0), "none");
    }
}
