//! Two results side by side.
//!
//! Nothing is judged here: a ratio says how the second compares with the first, and the notes say
//! what else differs between them, so that a reader does not take one cause for another.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

/// Rows: the name, where it is in the document, and digits behind the point.
const ROWS: [(&str, &str, usize); 9] = [
    ("requests/s", "/rps", 0),
    ("MiB/s", "/mib_per_s", 1),
    ("requests/CPU s", "/rps_per_cpu", 0),
    ("p50 µs", "/latency_us/p50", 1),
    ("p90 µs", "/latency_us/p90", 1),
    ("p99 µs", "/latency_us/p99", 1),
    ("p99.9 µs", "/latency_us/p999", 1),
    ("max µs", "/latency_us/max", 1),
    ("handshakes", "/handshakes", 0),
];

/// Options that tell results apart which are meant to be compared.
const EXPECTED: [&str; 2] = ["node", "server_pid"];

/// The table of `b` against `a`, both documents of a load, and notes about what differs.
#[must_use]
pub fn table(a: &Value, b: &Value) -> String {
    let mut out = String::new();
    // A string takes every write.
    let _ = writeln!(out, "{:<15} {:>14} {:>14} {:>8}", "", "A", "B", "B/A");
    for (name, place, digits) in ROWS {
        let number = |document: &Value| document.pointer(place).and_then(Value::as_f64);
        let (one, other) = (number(a), number(b));
        if one.unwrap_or(0.0) == 0.0 && other.unwrap_or(0.0) == 0.0 {
            continue;
        }
        let cell = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let ratio = match (one, other) {
            (Some(one), Some(other)) if one > 0.0 => format!("{:.3}", other / one),
            _ => "-".to_owned(),
        };
        let _ = writeln!(out, "{name:<15} {:>14} {:>14} {ratio:>8}", cell(one), cell(other));
    }
    for note in notes(a, b) {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn notes(a: &Value, b: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, document) in [("A", a), ("B", b)] {
        if let Some(errors) = document["errors_total"].as_u64().filter(|errors| *errors > 0) {
            notes.push(format!("{name} had {errors} errors"));
        }
        if let Some(busy) = document["client_busy"].as_f64()
            && busy > 0.95
            && document["config"]["rate"].is_null()
        {
            let percent = busy * 100.0;
            notes.push(format!("{name} is the speed of its client, which was {percent:.0} % busy"));
        }
    }
    for part in ["version", "commit"] {
        differ(part, &a[part], &b[part], &mut notes);
    }
    for part in ["host", "config"] {
        let keys = |document: &Value| -> Vec<String> {
            document[part].as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
        };
        let all: BTreeSet<String> = keys(a).into_iter().chain(keys(b)).collect();
        for key in all.iter().filter(|key| !EXPECTED.contains(&key.as_str())) {
            differ(&format!("{part}.{key}"), &a[part][key], &b[part][key], &mut notes);
        }
    }
    notes
}

fn differ(name: &str, one: &Value, other: &Value, notes: &mut Vec<String>) {
    if one != other {
        notes.push(format!("{name} differs: {one} and {other}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(rps: f64, kernel: &str, connections: u32) -> Value {
        json!({
            "version": 1,
            "commit": null,
            "host": {"kernel": kernel},
            "config": {"node": kernel, "connections": connections, "rate": null},
            "rps": rps,
            "mib_per_s": 10.0,
            "rps_per_cpu": null,
            "latency_us": {"p50": 10.0, "p99": 20.5, "p999": 30.0, "max": 40.0},
            "handshakes": 0,
            "client_busy": 0.99,
            "errors_total": 0,
        })
    }

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let text = table(&document(100.0, "6", 1), &document(150.0, "6", 1));
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        let cells: Vec<&str> = row("requests/s").split_whitespace().collect();
        assert_eq!(cells, ["requests/s", "100", "150", "1.500"]);
        assert!(row("p99 µs").ends_with("1.000"), "{text}");
        assert!(!text.contains("CPU s") && !text.contains("handshakes"), "{text}");
        assert!(!text.contains("differs"), "{text}");
        assert!(text.contains("A is the speed of its client"), "{text}");
    }

    #[test]
    fn what_differs_is_reported() {
        let mut other = document(0.0, "7", 2);
        other["errors_total"] = json!(3);
        let text = table(&document(0.0, "6", 1), &other);
        assert!(text.contains("note: host.kernel differs: \"6\" and \"7\""), "{text}");
        assert!(text.contains("note: config.connections differs: 1 and 2"), "{text}");
        assert!(text.contains("note: B had 3 errors"), "{text}");
        assert!(!text.contains("config.node") && !text.contains("requests/s"), "{text}");
    }

    #[test]
    fn documents_of_other_shapes_are_no_trouble() {
        let text = table(&json!([1]), &json!({"rps": "x", "host": 7, "latency_us": {"p50": 1}}));
        assert!(text.contains("p50"), "{text}");
    }
}
