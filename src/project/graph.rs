//! The order of models: inputs before outputs, cycles reported.

use std::collections::{BTreeMap, BTreeSet};

use super::sql::TableName;

/// Sorts tables so that each comes after those it reads; ties by name.
///
/// # Errors
/// One cycle, in reading order.
pub fn order(reads: &BTreeMap<TableName, BTreeSet<TableName>>) -> Result<Vec<TableName>, Vec<TableName>> {
    let mut sorted = Vec::new();
    let mut left: BTreeSet<&TableName> = reads.keys().collect();
    while !left.is_empty() {
        let ready = left.iter().find(|table| reads[**table].iter().all(|input| !left.contains(input)));
        match ready.copied() {
            Some(table) => {
                left.remove(table);
                sorted.push(table.clone());
            }
            None => return Err(cycle(reads, &left)),
        }
    }
    Ok(sorted)
}

fn cycle(reads: &BTreeMap<TableName, BTreeSet<TableName>>, left: &BTreeSet<&TableName>) -> Vec<TableName> {
    let mut path: Vec<&TableName> = left.iter().copied().take(1).collect();
    while let Some(last) = path.last() {
        let Some(next) = reads[*last].iter().find(|input| left.contains(input)) else {
            break;
        };
        if let Some(start) = path.iter().position(|table| *table == next) {
            return path[start..].iter().map(|table| (*table).clone()).collect();
        }
        path.push(next);
    }
    left.iter().map(|table| (*table).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName::new("silver", name)
    }

    #[test]
    fn inputs_come_first_and_a_cycle_is_named() {
        let mut reads = BTreeMap::new();
        reads.insert(table("a"), BTreeSet::from([table("b")]));
        reads.insert(table("b"), BTreeSet::from([table("c")]));
        reads.insert(table("c"), BTreeSet::new());
        assert_eq!(order(&reads).unwrap(), [table("c"), table("b"), table("a")]);
        reads.insert(table("c"), BTreeSet::from([table("a")]));
        assert_eq!(order(&reads).unwrap_err(), [table("a"), table("b"), table("c")]);
    }
}
