//! Times, sizes and lists of facts as the site tells them.

use std::fmt::Display;

use super::html::{Element, Markup, el};
use crate::telemetry::time_text;

/// Microseconds since the epoch as `2025-08-31 12:00:00 UTC`.
pub fn time(micros: i64) -> String {
    time_text(micros).replace('T', " ").replace('Z', " UTC")
}

const UNITS: [(i64, &str); 4] =
    [(86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second")];

/// Seconds in the largest unit that they fill, rounded down.
pub fn at_least(seconds: i64) -> String {
    let micros = seconds.saturating_mul(1_000_000);
    let unit = UNITS.iter().find(|(length, _)| micros >= *length);
    let (length, name) = unit.unwrap_or(&(1_000_000, "second"));
    crate::telemetry::counted(usize::try_from(micros / length).unwrap_or(0), name)
}

/// A length of time in the largest unit that tells it whole.
pub fn duration(micros: i64) -> String {
    let unit = UNITS.iter().find(|(length, _)| micros > 0 && micros % length == 0);
    match unit {
        Some((length, name)) => {
            crate::telemetry::counted(usize::try_from(micros / length).unwrap_or(0), name)
        }
        None => format!("{} ms", micros / 1000),
    }
}

/// `1.4 MB`
pub fn bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

/// Names with what there is to say about them.
pub fn facts_list(facts: impl IntoIterator<Item = (&'static str, Markup)>) -> Element {
    let entries =
        facts.into_iter().map(|(name, what)| el("div").add(el("dt").text(name)).add(el("dd").add(what)));
    el("dl").class("facts").add_all(entries)
}

/// Numbers at a glance.
pub fn stats<V: Display>(stats: impl IntoIterator<Item = (&'static str, V)>) -> Element {
    let entries =
        stats.into_iter().map(|(name, value)| el("div").add(el("dt").text(name)).add(el("dd").text(value)));
    el("dl").class("stats").add_all(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_sizes_are_told_in_round_units() {
        assert_eq!(duration(86_400_000_000), "1 day");
        assert_eq!(duration(5_400_000_000), "90 minutes");
        assert_eq!(duration(1_500), "1 ms");
        assert_eq!([at_least(0), at_least(7199), at_least(172_801)], ["0 seconds", "1 hour", "2 days"]);
        assert_eq!([bytes(999), bytes(1_420_000)], ["999 B", "1.4 MB"]);
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
    }
}
