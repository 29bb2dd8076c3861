//! What a SQL file says about itself: its statement and the tables that it reads.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::GenericDialect;

use super::diagnostics::line_of;
use crate::error::message_of;

/// The first function of a query that depends on more than its arguments: on the clock, or on chance.
pub fn inconstant(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let mut look = |expr: &Expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                found = Some(call.name().to_owned());
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    };
    // looking fails nowhere
    let _ = plan.apply_with_subqueries(|node| node.apply_expressions(|expr| expr.apply(&mut look)));
    found
}

/// A table as a query names it: `silver.usage_events`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl TableName {
    pub fn new(schema: &str, table: &str) -> Self {
        Self { schema: schema.to_owned(), table: table.to_owned() }
    }

    /// `schema.table`, split.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, table) = text.split_once('.')?;
        Some(Self::new(schema, table))
    }
}

/// The suffix of the relation that lists a table's partitions: `gold."finops_daily_usage$partitions"`.
pub const PARTITIONS_SUFFIX: &str = "$partitions";

/// The tables that the one query in `text` reads.
///
/// # Errors
/// What is wrong with the text, and the line where the parser knows it.
pub fn inputs(text: &str) -> Result<BTreeSet<TableName>, (usize, String)> {
    let statement = parse(text)?;
    let (references, _ctes) =
        resolve_table_references(&statement, true).map_err(|error| (0, message_of(&error)))?;
    references
        .into_iter()
        .map(|reference| match reference.schema() {
            Some(schema) => Ok(TableName::new(schema, reference.table())),
            None => Err((
                line_of(text, reference.table()),
                format!("`{}` has no zone; write it as `zone.table`", reference.table()),
            )),
        })
        .collect()
}

/// What a text is told that parses and is something else.
pub const NOT_ONE_QUERY: &str = "the file must hold exactly one query";

/// Parses one query.
///
/// # Errors
/// As [`inputs`].
pub fn parse(text: &str) -> Result<Statement, (usize, String)> {
    let dialect = GenericDialect {};
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| {
            let message = message_of(&error);
            (parser_line(&message), message)
        })?;
    let first = statements.pop_front();
    match (first, statements.is_empty()) {
        (Some(Statement::Statement(statement)), true) if matches!(*statement, SqlStatement::Query(_)) => {
            Ok(Statement::Statement(statement))
        }
        _ => Err((1, NOT_ONE_QUERY.to_owned())),
    }
}

/// The parser ends its messages with `at Line: 3, Column: 9`.
pub fn parser_line(message: &str) -> usize {
    message
        .rsplit_once("Line: ")
        .and_then(|(_, rest)| rest.split(',').next())
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// The line (0 where it is not known) and the message of a planner's error.
pub fn locate(text: &str, error: &DataFusionError) -> (usize, String) {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let message = message_of(error);
    let line = match span {
        Some(span) => usize::try_from(span.start.line).unwrap_or(0),
        None => parser_line(&message),
    };
    (if line > 0 { line } else { line_of_names(text, &message) }, message)
}

/// The line of the first name that the message complains about, of those that stand in quotes before the others; 0 where the
/// text has none of them.
pub fn line_of_names(text: &str, message: &str) -> usize {
    let in_quotes = |quote: char| message.split(quote).skip(1).step_by(2);
    let quoted = in_quotes('`').chain(in_quotes('\''));
    let plain = message
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
        .filter(|word| word.contains('_') || word.contains('.'));
    let names = quoted.chain(plain).map(|word| word.rsplit('.').next().unwrap_or(word));
    let lines = names.filter(|word| !word.is_empty()).map(|word| line_of(text, word));
    lines.into_iter().find(|line| *line > 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tables_but_not_ctes() {
        let text =
            "with a as (select * from silver.users) select * from a join gold.\"m$partitions\" using (d)";
        let found: Vec<String> = inputs(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["gold.m$partitions", "silver.users"]);
        assert_eq!(inputs("select 1 from users").unwrap_err().0, 1);
        assert_eq!(inputs("select 1;\nselect 2").unwrap_err().1, NOT_ONE_QUERY);
        assert_eq!(inputs("select\n from from x").unwrap_err().0, 2);
    }
}
