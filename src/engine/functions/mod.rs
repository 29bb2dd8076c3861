//! What SQL lacks for exact money and robust statistics. Every function is registered by name and holds no state, so
//! a plan that uses it can run anywhere.
//!
//! | function | gives |
//! |---|---|
//! | `fold(text)` | the text trimmed of Unicode white space and in lower case: the key of a taxonomy |
//! | `decimal_divide(a, b, scale)` | a ÷ b as `decimal(18, scale)`, half away from zero; null where b is 0 or null |
//! | `json_list(text)` | the strings of a JSON array as a list; null where the text is something else |
//! | `rolling_baseline(date, value, days, min_count)` | an aggregate: for every day, statistics of the days before it |
//! | `rolling_sum(date, value, days, …)` | an aggregate: for every day, exact sums over the days up to it |
//! | `is_listed(file, line, places)` | whether a record came from one of the places; for the engine itself |
//! | `uniform(seed, n, stream)` | the n-th pseudo-random number in [0, 1) of a stream, the same on every machine |

mod baseline;
mod decimal;
mod places;
mod rolling;
mod rolling_sum;
mod text;
mod uniform;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub use places::expression as is_listed;
pub use uniform::uniform;

/// Makes the functions known to `state`.
///
/// # Errors
/// Never in practice: names do not collide.
pub fn register(state: &mut SessionState) -> datafusion::error::Result<()> {
    state.register_udf(ScalarUDF::from(decimal::DecimalDivide::default()).into())?;
    state.register_udf(ScalarUDF::from(text::Fold::default()).into())?;
    state.register_udf(ScalarUDF::from(text::JsonList::default()).into())?;
    state.register_udf(ScalarUDF::from(places::IsListed::default()).into())?;
    state.register_udf(ScalarUDF::from(uniform::Uniform::default()).into())?;
    state.register_udaf(AggregateUDF::from(baseline::RollingBaseline::default()).into())?;
    state.register_udaf(AggregateUDF::from(rolling_sum::RollingSum::default()).into())?;
    Ok(())
}
