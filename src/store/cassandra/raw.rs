//! Values as they stand in requests and answers, without a type of ours in between.

use scylla::deserialize::row::{ColumnIterator, DeserializeRow};
use scylla::deserialize::{DeserializationError, TypeCheckError};
use scylla::frame::response::result::ColumnSpec;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;

use crate::store::rows::cells;

/// A row of an answer: the bytes of each value, `None` for null.
#[derive(Debug)]
pub struct RawRow(pub Vec<Option<Vec<u8>>>);

impl RawRow {
    /// The value at a place as text; empty where there is none.
    pub fn text(&self, at: usize) -> String {
        self.bytes(at).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// The value at a place.
    pub fn bytes(&self, at: usize) -> Option<&[u8]> {
        self.0.get(at)?.as_deref()
    }
}

impl<'frame, 'metadata> DeserializeRow<'frame, 'metadata> for RawRow {
    fn type_check(_: &[ColumnSpec<'_>]) -> Result<(), TypeCheckError> {
        Ok(())
    }

    fn deserialize(row: ColumnIterator<'frame, 'metadata>) -> Result<Self, DeserializationError> {
        let values = row.map(|column| Ok(column?.slice.map(|slice| slice.as_slice().to_vec())));
        values.collect::<Result<_, _>>().map(RawRow)
    }
}

/// What a statement of a batch binds.
#[derive(Debug, Clone, Copy)]
pub enum Bound<'a> {
    /// The values of an encoded row, then the time of the write.
    Insert { row: &'a [u8], at: i64 },
    /// The time, then the values of an encoded key.
    Delete { key: &'a [u8], at: i64 },
    /// The values of an encoded row or key.
    Values(&'a [u8]),
}

impl SerializeRow for Bound<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let values = match self {
            Bound::Insert { row, .. } => row,
            Bound::Delete { key, at } => {
                write(Some(&at.to_be_bytes()), writer)?;
                key
            }
            Bound::Values(values) => values,
        };
        for value in cells(values) {
            write(value, writer)?;
        }
        if let Bound::Insert { at, .. } = self {
            write(Some(&at.to_be_bytes()), writer)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        matches!(self, Bound::Values(values) if values.is_empty())
    }
}

fn write(value: Option<&[u8]>, writer: &mut RowWriter<'_>) -> Result<(), SerializationError> {
    let cell = writer.make_cell_writer();
    match value {
        Some(bytes) => {
            cell.set_value(bytes).map_err(SerializationError::new)?;
        }
        None => {
            cell.set_unset();
        }
    }
    Ok(())
}
