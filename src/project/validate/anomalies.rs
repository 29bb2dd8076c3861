//! Checks without a query: what of a table is held against its own history.

use super::checks::Tables;
use crate::project::check::{Amount, Anomaly, Kind, Until};
use crate::project::diagnostics::Diagnostics;
use crate::project::manifest::{CheckManifest, KindName};
use crate::project::read::Text;
use crate::project::stream::parse_duration;

pub(super) fn anomaly(
    kind: KindName,
    manifest: &CheckManifest,
    toml: &Text,
    tables: &Tables<'_>,
    found: &mut Diagnostics,
) -> Option<Anomaly> {
    let mut problem = |key: &str, message: String| {
        found.add_at(&toml.file, &toml.text, key, message);
        None
    };
    let Some(name) = &manifest.table else {
        return problem("kind", "a check with a `kind` needs `table`".to_owned());
    };
    let dated = |name: &str| {
        let Some((table, schema, date)) = tables.stored(name) else {
            return Err(format!("there is no stored table `{name}`"));
        };
        match date {
            Some(date) => Ok((table, schema, date)),
            None => Err(format!("`{name}` has no partitions by date, so no history")),
        }
    };
    let (table, schema, date_column) = match dated(name) {
        Ok(found) => found,
        Err(message) => return problem("table", message),
    };
    let mut is_sound = true;
    let mut refuse = |key: &str, message: String| {
        is_sound = false;
        problem(key, message);
    };
    let is_freshness = kind == KindName::Freshness;
    for (key, is_there, belongs) in [
        ("column", manifest.column.is_some(), kind == KindName::NullRate),
        ("until", manifest.until.is_some(), is_freshness),
        ("delay_days", manifest.delay_days.is_some(), !is_freshness),
        ("scope", manifest.scope.is_some(), !is_freshness),
    ] {
        if is_there && !belongs {
            refuse(key, format!("`{key}` means nothing to a check of this `kind`"));
        }
    }
    let kind = match kind {
        KindName::Volume => Kind::Volume,
        KindName::NullRate => {
            let column = manifest.column.clone().unwrap_or_default();
            if manifest.column.is_none() {
                refuse("kind", "a check of a null rate needs `column`".to_owned());
            } else if schema.field_with_name(&column).is_err() {
                refuse("column", format!("`{table}` has no column `{column}`"));
            }
            Kind::NullRate { column }
        }
        KindName::Freshness => Kind::Freshness {
            until: match manifest.until.as_deref() {
                Some("now") => Until::Now,
                Some(other) => match dated(other) {
                    Ok((other, ..)) => Until::Table(other),
                    Err(message) => {
                        refuse("until", message);
                        Until::Now
                    }
                },
                None => {
                    let message =
                        "a check of freshness needs `until`: `now`, or the table that it is to follow";
                    refuse("kind", message.to_owned());
                    Until::Now
                }
            },
        },
    };
    let tolerance = match (&manifest.tolerance, is_freshness) {
        (None, true) => 1.0,
        (None, false) => match kind {
            Kind::Volume => 0.1,
            _ => 0.01,
        },
        (Some(written), true) => match parse_duration(written) {
            Some(duration) => duration.as_secs_f64() / 86_400.0,
            None => {
                refuse("tolerance", format!("`{written}` is not a duration; write for example `2 days`"));
                0.0
            }
        },
        (Some(written), false) => match Amount::parse_share(written) {
            #[expect(clippy::cast_precision_loss, reason = "at most a million")]
            Some(Amount::Share(millionths)) => millionths as f64 / 1e6,
            _ => {
                refuse("tolerance", format!("`{written}` is no share; write for example `10 %`"));
                0.0
            }
        },
    };
    let days = i32::from(manifest.days.unwrap_or(28));
    let min_days = usize::from(manifest.min_days.unwrap_or(7));
    if days == 0 || min_days == 0 {
        refuse(if days == 0 { "days" } else { "min_days" }, "must be at least 1".to_owned());
    } else if min_days > usize::try_from(days).unwrap_or(0) {
        refuse("days", format!("{days} days of history never hold the {min_days} that `min_days` asks for"));
    }
    let deviations = manifest.deviations.unwrap_or(5.0);
    if !(deviations.is_finite() && deviations >= 0.0) {
        refuse("deviations", "`deviations` is a number, 0 or more".to_owned());
    }
    is_sound.then_some(Anomaly {
        kind,
        table,
        date_column,
        days,
        min_days,
        deviations,
        tolerance,
        delay_days: usize::from(manifest.delay_days.unwrap_or(0)),
    })
}
