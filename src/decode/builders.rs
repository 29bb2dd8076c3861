//! Typed rows in the making: one Arrow builder per column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder,
    RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::layout::{Layout, Type};
use super::record::{Cell, Record};

/// The accepted rows since the last `take`.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Builder>,
    source_line: Int64Builder,
    rescued: StringViewBuilder,
    date: Date32Builder,
}

#[derive(Debug)]
enum Builder {
    Text(StringViewBuilder),
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Rows {
    pub(super) fn new(layout: &Layout) -> Self {
        Rows {
            schema: layout.schema(),
            columns: layout.columns.iter().map(|column| Builder::new(column.ty)).collect(),
            source_line: Int64Builder::new(),
            rescued: StringViewBuilder::new(),
            date: Date32Builder::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        self.source_line.len()
    }

    /// Appends a record; `text` is the record as it landed.
    pub(super) fn append(&mut self, line: u64, text: &str, record: &Record) -> Result<(), ArrowError> {
        for (builder, &cell) in self.columns.iter_mut().zip(&record.cells) {
            builder.append(cell, text, record)?;
        }
        self.source_line.append_value(i64::try_from(line).unwrap_or(i64::MAX));
        match record.rescued.strip_suffix(',') {
            Some(members) => self.rescued.try_append_value(format!("{{{members}}}"))?,
            None => self.rescued.append_null(),
        }
        self.date.append_option(record.date());
        Ok(())
    }

    /// The rows so far, and begins anew.
    pub(super) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 3);
        arrays.extend(self.columns.iter_mut().map(Builder::finish));
        arrays.push(Arc::new(self.source_line.finish()));
        arrays.push(Arc::new(self.rescued.finish()));
        arrays.push(Arc::new(self.date.finish()));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }
}

impl Builder {
    fn new(ty: Type) -> Self {
        match ty {
            Type::Text => Builder::Text(StringViewBuilder::new()),
            Type::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Type::Int => Builder::Int(Int32Builder::new()),
            Type::BigInt => Builder::BigInt(Int64Builder::new()),
            Type::Double => Builder::Double(Float64Builder::new()),
            Type::Decimal { .. } => Builder::Decimal(Decimal128Builder::new().with_data_type(ty.arrow())),
            Type::Date => Builder::Date(Date32Builder::new()),
            Type::Timestamp => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.arrow()))
            }
        }
    }

    #[inline]
    fn append(&mut self, cell: Cell, text: &str, record: &Record) -> Result<(), ArrowError> {
        match (self, cell) {
            (Builder::Text(builder), Cell::Text(span)) => {
                builder.try_append_value(record.text(span, text))?
            }
            (Builder::Boolean(builder), Cell::Boolean(value)) => builder.append_value(value),
            (Builder::Int(builder), Cell::Int(value)) => builder.append_value(value),
            (Builder::BigInt(builder), Cell::BigInt(value)) => builder.append_value(value),
            (Builder::Double(builder), Cell::Double(value)) => builder.append_value(value),
            (Builder::Decimal(builder), Cell::Decimal(value)) => builder.append_value(value),
            (Builder::Date(builder), Cell::Date(value)) => builder.append_value(value),
            (Builder::Timestamp(builder), Cell::Timestamp(value)) => builder.append_value(value),
            (builder, _) => builder.append_null(),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Builder::Text(builder) => builder.append_null(),
            Builder::Boolean(builder) => builder.append_null(),
            Builder::Int(builder) => builder.append_null(),
            Builder::BigInt(builder) => builder.append_null(),
            Builder::Double(builder) => builder.append_null(),
            Builder::Decimal(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Timestamp(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::Int(builder) => Arc::new(builder.finish()),
            Builder::BigInt(builder) => Arc::new(builder.finish()),
            Builder::Double(builder) => Arc::new(builder.finish()),
            Builder::Decimal(builder) => Arc::new(builder.finish()),
            Builder::Date(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
