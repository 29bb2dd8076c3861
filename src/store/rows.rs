//! Rows as the CQL protocol writes them, gathered by partition.
//!
//! A row is its values in the order of the publishing statement, each a four-byte length and its bytes; an absent value
//! has the length [`UNSET`]. The encoding is canonical (sets and maps in Cassandra's order, decimals in their shortest form,
//! empty collections absent), so two rows are equal if and only if their bytes are.

use std::collections::HashMap;

use crate::project::mart::Mart;

/// The length of a value that is not there.
pub const UNSET: i32 = -2;

/// What a Cassandra partition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// The values of the partition key, encoded like a row.
    pub key: Box<[u8]>,
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Partition {
    /// A partition without rows.
    pub fn empty(key: &[u8]) -> Self {
        Self { key: key.into(), bytes: Vec::new(), ends: Vec::new() }
    }

    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    pub fn num_rows(&self) -> usize {
        self.ends.len()
    }

    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn row(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[at]]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|at| self.row(at))
    }

    /// A fingerprint of the rows that does not depend on their order.
    pub fn digest(&self) -> u128 {
        self.rows().map(digest).fold(0, u128::wrapping_add)
    }
}

/// A fingerprint of a row. Not against adversaries: who could forge a collision can write the row itself.
pub fn digest(row: &[u8]) -> u128 {
    let [a, b] = [1, 2].map(|seed| ahash::RandomState::with_seeds(seed, 3, 5, 7).hash_one(row));
    (u128::from(a) << 64) | u128::from(b)
}

/// Partitions by key.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    pub by_key: HashMap<Box<[u8]>, Partition, ahash::RandomState>,
}

impl Partitions {
    pub fn push(&mut self, key: &[u8], row: &[u8]) {
        match self.by_key.get_mut(key) {
            Some(partition) => partition.push(row),
            None => {
                let mut partition = Partition::empty(key);
                partition.push(row);
                self.by_key.insert(key.into(), partition);
            }
        }
    }
}

/// The values of an encoded row or key; `None` where one is absent.
pub fn cells(mut encoded: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (length, rest) = encoded.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            encoded = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        encoded = rest;
        Some(Some(value))
    })
}

/// Appends a value to an encoded row. What is longer than a value may be is refused when it is encoded.
pub fn push_cell(encoded: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            encoded.extend_from_slice(&length.to_be_bytes());
            encoded.extend_from_slice(bytes);
        }
        None => encoded.extend_from_slice(&UNSET.to_be_bytes()),
    }
}

/// The values of a row at the places `wanted`, encoded.
pub fn project(row: &[u8], wanted: &[usize], into: &mut Vec<u8>) {
    for at in wanted {
        push_cell(into, cells(row).nth(*at).flatten());
    }
}

/// The partition key of a row.
pub fn key_of(mart: &Mart, row: &[u8], into: &mut Vec<u8>) {
    into.clear();
    project(row, &mart.partition_key, into);
}

/// A longer key of a partition is refused by Cassandra. Bytes.
const MAX_KEY_BYTES: usize = 65_535;

/// Why Cassandra keeps no partition of this encoded key, if it does not.
pub fn key_fault(key: &[u8]) -> Option<&'static str> {
    let lengths = || cells(key).map(|part| part.map_or(0, <[u8]>::len));
    let length = match lengths().count() {
        0 => return None,
        1 => lengths().sum::<usize>(),
        // the length and the end of each are kept too
        parts => lengths().sum::<usize>() + 3 * parts,
    };
    match length {
        0 => Some("empty"),
        1..=MAX_KEY_BYTES => None,
        _ => Some("longer than 64 KiB"),
    }
}

/// Why Cassandra keeps no row with the clustering key of this encoded one, if it does not.
pub fn clustering_fault(mart: &Mart, row: &[u8]) -> Option<&'static str> {
    if row.len() <= MAX_KEY_BYTES {
        return None;
    }
    let length = |at: &usize| cells(row).nth(*at).flatten().map_or(0, <[u8]>::len);
    let length: usize = mart.clustering.iter().map(length).sum();
    (length > MAX_KEY_BYTES).then_some("longer than 64 KiB")
}

/// Tokens above `after`, up to and with `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRange {
    pub after: i64,
    pub to: i64,
}

impl TokenRange {
    pub const ALL: TokenRange = TokenRange { after: i64::MIN, to: i64::MAX };

    /// All tokens in `parts` ranges of the same width.
    pub fn split(parts: usize) -> Vec<TokenRange> {
        let parts = i128::try_from(parts.max(1)).unwrap_or(1);
        let bound = |at: i128| {
            let tokens = i128::from(u64::MAX);
            i64::try_from(i128::from(i64::MIN) + tokens * at / parts).unwrap_or(i64::MAX)
        };
        (0..parts).map(|at| TokenRange { after: bound(at), to: bound(at + 1) }).collect()
    }

    pub fn contains(&self, token: i64) -> bool {
        *self == Self::ALL || (token > self.after && token <= self.to)
    }
}

/// The token that Cassandra gives an encoded partition key.
pub fn token(key: &[u8]) -> i64 {
    use scylla::routing::partitioner::{Murmur3Partitioner, Partitioner};
    let parts: Vec<&[u8]> = cells(key).map(Option::unwrap_or_default).collect();
    if let [only] = parts.as_slice() {
        return Murmur3Partitioner.hash_one(only).value();
    }
    let mut composite = Vec::with_capacity(key.len() + parts.len());
    for part in parts {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        composite.extend_from_slice(&length.to_be_bytes());
        composite.extend_from_slice(part);
        composite.push(0);
    }
    Murmur3Partitioner.hash_one(&composite).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values() {
        let mut row = Vec::new();
        push_cell(&mut row, Some(b"a"));
        push_cell(&mut row, None);
        push_cell(&mut row, Some(b""));
        let read: Vec<_> = cells(&row).collect();
        assert_eq!(read, [Some(&b"a"[..]), None, Some(&b""[..])]);
        let mut partition = Partition::empty(b"k");
        partition.push(&row);
        partition.push(b"");
        partition.push(&row);
        assert_eq!(partition.rows().map(<[u8]>::len).collect::<Vec<_>>(), [row.len(), 0, row.len()]);
    }

    #[test]
    fn a_digest_does_not_depend_on_order_but_on_number() {
        let of = |rows: &[&[u8]]| {
            let mut partition = Partition::empty(b"k");
            rows.iter().for_each(|row| partition.push(row));
            partition.digest()
        };
        assert_eq!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"a"]), of(&[b"a", b"a"]));
        assert_ne!(of(&[b"a"]), of(&[]));
    }

    #[test]
    fn keys_that_cassandra_refuses_are_known() {
        let fault = |lengths: &[usize]| {
            let mut key = Vec::new();
            lengths.iter().for_each(|length| push_cell(&mut key, Some(&vec![b'x'; *length])));
            key_fault(&key)
        };
        assert_eq!(fault(&[0]), Some("empty"));
        assert_eq!(
            [fault(&[1]), fault(&[65_535]), fault(&[0, 0]), fault(&[65_529, 0]), fault(&[])],
            [None; 5]
        );
        assert!(fault(&[65_536]).is_some() && fault(&[65_530, 0]).is_some());
    }

    #[test]
    fn ranges_cover_every_token_once() {
        for parts in [1, 2, 3, 7, 100] {
            let ranges = TokenRange::split(parts);
            assert_eq!(ranges.len(), parts);
            for token in [i64::MIN + 1, -1, 0, 1, i64::MAX, 4_611_686_018_427_387_904] {
                assert_eq!(
                    ranges.iter().filter(|range| range.contains(token)).count(),
                    1,
                    "{token} of {parts}"
                );
            }
        }
    }

    #[test]
    fn tokens_are_cassandras() {
        // select token(k) of a text key 'org_1'; of a composite key it is over length, bytes and a zero each
        let mut key = Vec::new();
        push_cell(&mut key, Some(b"test"));
        assert_ne!(token(&key), 0);
        let mut two = key.clone();
        push_cell(&mut two, Some(b"test"));
        assert_ne!(token(&key), token(&two));
    }
}
