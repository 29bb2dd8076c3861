//! What every serving store promises, asked of every one: in memory, and in a real Cassandra.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringViewArray};
use medallion::project::Project;
use medallion::project::mart::Mart;
use medallion::store::ServingStore;
use medallion::store::cassandra::{Cassandra, Target};
use medallion::store::encode::gather;
use medallion::store::memory::Memory;
use medallion::store::rows::{Partition, Partitions, TokenRange, push_cell, token};
use medallion::store::state::{Claim, GoldVersion, State};

use crate::cassandra::{node, runtime};
use crate::serving::Served;

/// Asks a claim of both stores.
fn of_every_store(claim: impl AsyncFn(&dyn ServingStore, &Mart, &Mart)) {
    let served = Served::mini();
    runtime().block_on(async {
        let project = Project::load(&served.place.project).await.unwrap();
        let [daily, total] = &project.marts[..] else { panic!("two marts") };
        claim(&Memory::default(), daily, total).await;
        let serving = project.serving.as_ref().unwrap();
        let target = Target::of(serving, &[node().contact()], &project.folder).unwrap().unwrap();
        let store = Cassandra::open(target, serving).await.unwrap();
        store.prepare(serving, &project.marts, false).await.unwrap();
        store.ready(&[daily, total]).await.unwrap();
        claim(&store, daily, total).await;
    });
}

/// A partition of `total`, which has one row.
fn total_of(mart: &Mart, site: &str, amount: Option<i128>) -> Partition {
    let amounts = Decimal128Array::from(vec![amount]).with_precision_and_scale(38, 6).unwrap();
    let columns: [(&str, ArrayRef); 2] =
        [("site", Arc::new(StringViewArray::from(vec![site]))), ("amount", Arc::new(amounts))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut partitions = Partitions::default();
    gather(mart, &batch, TokenRange::ALL, None, &mut partitions).unwrap();
    partitions.by_key.into_values().next().unwrap()
}

async fn held(store: &dyn ServingStore, mart: &Mart) -> Vec<Partition> {
    let mut found: Vec<Partition> =
        store.read(mart, TokenRange::ALL).await.unwrap().by_key.into_values().collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

#[test]
fn what_was_written_is_read_as_it_was() {
    of_every_store(async |store, _, total| {
        let partitions = [("a", Some(1)), ("b", None), ("c", Some(-(10_i128.pow(37))))];
        let mut expected: Vec<Partition> =
            partitions.iter().map(|(site, amount)| total_of(total, site, *amount)).collect();
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(!store.has_rows(total).await.unwrap(), "{}", store.name());
        for partition in &expected {
            store.replace(total, partition, 1000, false).await.unwrap();
        }
        assert!(store.has_rows(total).await.unwrap(), "{}", store.name());
        assert_eq!(held(store, total).await, expected, "{}", store.name());
        let mut keys = store.keys(total, TokenRange::ALL).await.unwrap();
        keys.sort();
        assert_eq!(keys, expected.iter().map(|partition| partition.key.clone()).collect::<Vec<_>>());
    });
}

#[test]
fn ranges_divide_what_is_held_by_cassandras_own_tokens() {
    of_every_store(async |store, _, total| {
        for at in 0..40 {
            store
                .replace(total, &total_of(total, &format!("site {at}"), Some(at)), 1000, true)
                .await
                .unwrap();
        }
        let mut seen = 0;
        for range in TokenRange::split(5) {
            let part = store.read(total, range).await.unwrap();
            for key in part.by_key.keys() {
                assert!(range.contains(token(key)), "{}: its tokens are not ours", store.name());
            }
            seen += part.by_key.len();
        }
        assert_eq!(seen, 40, "{}", store.name());
    });
}

#[test]
fn the_later_time_wins_in_whatever_order_writes_arrive() {
    of_every_store(async |store, _, total| {
        let old = total_of(total, "a", Some(1));
        let new = total_of(total, "a", None);
        for order in
            [[(&old, 1000), (&new, 2000)], [(&new, 2000), (&old, 1000)], [(&new, 2000), (&new, 2000)]]
        {
            for (partition, at) in order {
                store.replace(total, partition, at, false).await.unwrap();
            }
            // a value that the new row does not have is not the old row's either
            assert_eq!(held(store, total).await, std::slice::from_ref(&new), "{}", store.name());
        }
        let gone = Partition::empty(&new.key);
        store.replace(total, &gone, 3000, false).await.unwrap();
        store.replace(total, &old, 2500, false).await.unwrap();
        assert_eq!(held(store, total).await, [], "{}: what was deleted later stays deleted", store.name());
        store.replace(total, &old, 3000, false).await.unwrap();
        assert_eq!(
            held(store, total).await,
            [old],
            "{}: a row of the delete's own time is kept",
            store.name()
        );
    });
}

#[test]
fn rows_that_a_partition_no_longer_has_are_gone() {
    of_every_store(async |store, daily, _| {
        let partition = |days: &[i32]| {
            let mut partition = Partition::empty(&{
                let mut key = Vec::new();
                push_cell(&mut key, Some(b"a"));
                key
            });
            for day in days {
                let mut row = Vec::new();
                push_cell(&mut row, Some(b"a"));
                push_cell(&mut row, Some(&(day.cast_unsigned() ^ (1 << 31)).to_be_bytes()));
                push_cell(&mut row, None);
                push_cell(&mut row, Some(&1_i64.to_be_bytes()));
                partition.push(&row);
            }
            partition
        };
        // newest first, as the table is ordered
        let wide: Vec<i32> = (0..30_000).rev().collect();
        for days in [&[3, 2, 1][..], &[2], &wide, &[1]] {
            let at = 1000 + 10 * days.len() as i64 + i64::from(days[0] == 1) * 1_000_000;
            store.replace(daily, &partition(days), at, false).await.unwrap();
            let at_most = held(store, daily).await;
            let rows: usize = at_most.iter().map(Partition::num_rows).sum();
            let expected = if days.len() == 1 && days[0] == 2 { 3 } else { days.len() };
            assert_eq!(rows, expected, "{} of {days:.5?}", store.name());
        }
    });
}

#[test]
fn of_two_publishers_one_sees_the_other() {
    of_every_store(async |store, _, total| {
        let claim = |at: i64, owner: &str| Claim {
            gold: GoldVersion { table: "t".to_owned(), version: 1, committed: 1 },
            at,
            owner: owner.to_owned(),
            fingerprint: String::new(),
            is_whole: false,
        };
        assert_eq!(store.state(total).await.unwrap(), None, "{}", store.name());
        let first = State::with_claim(None, claim(10, "first"));
        let second = State::with_claim(None, claim(10, "second"));
        let both = tokio::join!(store.advance(total, None, &first), store.advance(total, None, &second));
        let won = [both.0.unwrap(), both.1.unwrap()];
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{}: {won:?}", store.name());
        let state = store.state(total).await.unwrap().unwrap();
        assert_eq!(state, if won[0] { first } else { second });
        let next = State::with_claim(Some(&state), claim(12, "third"));
        assert!(!store.advance(total, Some(9), &next).await.unwrap());
        assert!(store.advance(total, Some(10), &next).await.unwrap());
        assert_eq!(store.state(total).await.unwrap(), Some(next));
    });
}
