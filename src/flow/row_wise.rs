//! Whether a query can be appended to: whether each row of its result comes from one row of an input, whatever the other rows
//! of that input are. Judged by the plan, so that a project need not say it.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{JoinType, LogicalPlan};

use crate::project::sql::TableName;

/// Whether each row of the plan's result comes from one row of `input`, whatever the other rows of `input` are.
pub fn is_row_wise(plan: &LogicalPlan, input: &TableName) -> bool {
    let children = plan.inputs();
    let reading: Vec<bool> = children.iter().map(|child| reads(child, input)).collect();
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => false,
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Repartition(_) => {
            !subqueries_read(plan, input) && children.iter().all(|child| is_row_wise(child, input))
        }
        LogicalPlan::Join(join) => match (join.join_type, reading.as_slice()) {
            (
                JoinType::Inner
                | JoinType::Left
                | JoinType::LeftSemi
                | JoinType::LeftAnti
                | JoinType::LeftMark,
                [true, false],
            ) => is_row_wise(&join.left, input),
            (
                JoinType::Inner
                | JoinType::Right
                | JoinType::RightSemi
                | JoinType::RightAnti
                | JoinType::RightMark,
                [false, true],
            ) => is_row_wise(&join.right, input),
            _ => false,
        },
        _ => false,
    }
}

fn reads(plan: &LogicalPlan, input: &TableName) -> bool {
    // a plan that can't be walked is taken for one that reads
    num_scans(plan, input) != Some(0)
}

/// How often the plan reads `input`; `None` where it can't be walked.
pub fn num_scans(plan: &LogicalPlan, input: &TableName) -> Option<usize> {
    let mut found = 0;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.schema() == Some(&input.schema)
            && scan.table_name.table() == input.table
        {
            found += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.ok().map(|_| found)
}

fn subqueries_read(plan: &LogicalPlan, input: &TableName) -> bool {
    let mut found = false;
    let walked = plan.apply_subqueries(|subquery| {
        found |= reads(subquery, input);
        Ok(TreeNodeRecursion::Continue)
    });
    found || walked.is_err()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::MemTable;

    use super::*;
    use crate::engine;

    #[tokio::test]
    async fn filters_and_joins_of_others_are_row_wise_and_aggregates_are_not() {
        let context = engine::context(&engine::planning_state());
        let events = TableName::new("accepted", "events");
        for name in [&events, &TableName::new("silver", "sites")] {
            let fields = ["id", "site"].map(|name| Field::new(name, DataType::Utf8View, true));
            let schema = Arc::new(Schema::new(fields.to_vec()));
            let table = MemTable::try_new(schema, vec![vec![]]).unwrap();
            engine::register(&context, name, Arc::new(table));
        }
        for (query, expected) in [
            ("select id from accepted.events where site <> 'x'", true),
            (
                "select e.id, s.id as s from accepted.events e left join silver.sites s on e.site = s.site",
                true,
            ),
            ("select e.id from silver.sites s join accepted.events e on e.site = s.site", true),
            ("select s.id from silver.sites s left join accepted.events e on e.site = s.site", false),
            ("select e.id from accepted.events e join accepted.events f on e.id = f.id", false),
            ("select id from accepted.events where site in (select site from accepted.events)", false),
            ("select id from accepted.events where site in (select site from silver.sites)", true),
            ("select distinct id from accepted.events", false),
            ("select site, count(*) as n from accepted.events group by site", false),
            ("select id, row_number() over (order by id) as n from accepted.events", false),
            ("select id from accepted.events limit 3", false),
            ("select id from accepted.events union all select id from silver.sites", false),
        ] {
            let plan = context.sql(query).await.unwrap().into_optimized_plan().unwrap();
            assert_eq!(is_row_wise(&plan, &events), expected, "{query}\n{plan}");
        }
    }
}
