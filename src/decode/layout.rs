//! What a source declares about its records: formats, columns, types and the roles that columns play.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The type of a declared column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any text, as it landed.
    Text,
    /// True or false.
    Boolean,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    BigInt,
    /// The nearest IEEE double; never NaN, infinite or negative zero.
    Double,
    /// An exact decimal of at most `precision` digits, `scale` of them after the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// A calendar day of the years 0001 to 9999.
    Date,
    /// A UTC instant of the years 0001 to 9999, in microseconds.
    Timestamp,
}

impl Type {
    /// The Arrow type that holds it.
    pub fn arrow(&self) -> DataType {
        match *self {
            Type::Text => DataType::Utf8View,
            Type::Boolean => DataType::Boolean,
            Type::Int => DataType::Int32,
            Type::BigInt => DataType::Int64,
            Type::Double => DataType::Float64,
            Type::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Type::Date => DataType::Date32,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Text => f.write_str("text"),
            Type::Boolean => f.write_str("boolean"),
            Type::Int => f.write_str("int"),
            Type::BigInt => f.write_str("bigint"),
            Type::Double => f.write_str("double"),
            Type::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Type::Date => f.write_str("date"),
            Type::Timestamp => f.write_str("timestamp"),
        }
    }
}

impl FromStr for Type {
    type Err = String;

    /// Reads the words that `Display` writes; an error lists them.
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "text" => Ok(Type::Text),
            "boolean" => Ok(Type::Boolean),
            "int" => Ok(Type::Int),
            "bigint" => Ok(Type::BigInt),
            "double" => Ok(Type::Double),
            "date" => Ok(Type::Date),
            "timestamp" => Ok(Type::Timestamp),
            _ => decimal_type(word).ok_or_else(|| {
                format!(
                    "unknown type `{word}`: use text, boolean, int, bigint, double, decimal(precision,scale) \
                     with 1 to 38 digits, date or timestamp"
                )
            }),
        }
    }
}

fn decimal_type(word: &str) -> Option<Type> {
    let digits = word.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = digits.split_once(',')?;
    let precision: u8 = precision.trim().parse().ok()?;
    let scale: i8 = scale.trim().parse().ok()?;
    let holds = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
    holds.then_some(Type::Decimal { precision, scale })
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: the JSON key or the CSV header's word, exactly.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// How a source's files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma, double quote, a header.
    Csv,
}

/// What a source's records must look like.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How its files are written.
    pub format: Format,
    /// The declared columns, in order.
    pub columns: Vec<Column>,
    /// The natural key: indexes into `columns`.
    pub key: Vec<usize>,
    /// Further columns that must not be missing (those of the key excluded).
    pub required: Vec<usize>,
    /// The date or timestamp column that gives a record's `date`; always one of `key` or `required`.
    pub partition: usize,
    /// The column that is checked against the file's modification time.
    pub event_time: Option<usize>,
    /// How far `event_time` may lie after the modification time, in microseconds.
    pub future_limit_micros: i64,
    /// Decimal columns whose landed amounts are summed.
    pub money: Vec<usize>,
    /// The longest record that is read; a longer one is malformed.
    pub max_line_bytes: usize,
    /// How deep JSON may nest; the record's own object is level 1.
    pub max_depth: usize,
}

impl Layout {
    /// The declared columns, then `source_line`, `_rescued` and `date`, all of them nullable.
    pub fn schema(&self) -> SchemaRef {
        let declared = self.columns.iter().map(|column| Field::new(&column.name, column.ty.arrow(), true));
        let added = [
            Field::new("source_line", DataType::Int64, true),
            Field::new("_rescued", DataType::Utf8View, true),
            Field::new("date", DataType::Date32, true),
        ];
        Arc::new(Schema::new(declared.chain(added).collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_the_words_they_write() {
        for word in [
            "text",
            "boolean",
            "int",
            "bigint",
            "double",
            "decimal(18,6)",
            "decimal(38,0)",
            "date",
            "timestamp",
        ] {
            assert_eq!(word.parse::<Type>().unwrap().to_string(), word);
        }
        assert_eq!("decimal(18, 6)".parse(), Ok(Type::Decimal { precision: 18, scale: 6 }));
        for word in [
            "",
            "Text",
            "decimal",
            "decimal(0,0)",
            "decimal(39,6)",
            "decimal(4,5)",
            "decimal(4,-1)",
            "decimal(4)",
        ] {
            assert!(word.parse::<Type>().unwrap_err().contains("use text, boolean"), "{word}");
        }
    }
}
