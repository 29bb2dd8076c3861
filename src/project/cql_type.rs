//! CQL types that a mart's column can be kept in, and which lake type each keeps without loss.

use std::fmt;

use arrow::datatypes::DataType;

/// A CQL type that is published.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CqlType {
    Text,
    Boolean,
    Int,
    BigInt,
    Varint,
    Double,
    Decimal,
    Date,
    Timestamp,
    List(Box<CqlType>),
    Set(Box<CqlType>),
    Map(Box<CqlType>, Box<CqlType>),
}

impl CqlType {
    /// Reads a type as DDL and Cassandra's own tables write it; spaces and `frozen<…>` mean nothing here.
    pub fn parse(text: &str) -> Option<Self> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let inner = |outer: &str| text.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>');
        if let Some(inner) = inner("frozen") {
            return Self::parse(inner);
        }
        if let Some(item) = inner("list") {
            return Some(CqlType::List(Box::new(Self::scalar(item)?)));
        }
        if let Some(item) = inner("set") {
            return Self::scalar(item)
                .filter(Self::has_simple_order)
                .map(|item| CqlType::Set(Box::new(item)));
        }
        if let Some(pair) = inner("map") {
            let (key, value) = pair.split_once(',')?;
            let key = Self::scalar(key).filter(Self::has_simple_order)?;
            return Some(CqlType::Map(Box::new(key), Box::new(Self::scalar(value)?)));
        }
        Self::scalar(&text)
    }

    fn scalar(text: &str) -> Option<Self> {
        Some(match text {
            "text" | "varchar" | "ascii" => CqlType::Text,
            "boolean" => CqlType::Boolean,
            "int" => CqlType::Int,
            "bigint" => CqlType::BigInt,
            "varint" => CqlType::Varint,
            "double" => CqlType::Double,
            "decimal" => CqlType::Decimal,
            "date" => CqlType::Date,
            "timestamp" => CqlType::Timestamp,
            _ => return None,
        })
    }

    /// Whether Cassandra's order of the type is that of its bytes, but for the sign: sets and maps are kept in it.
    fn has_simple_order(&self) -> bool {
        matches!(
            self,
            CqlType::Text
                | CqlType::Boolean
                | CqlType::Int
                | CqlType::BigInt
                | CqlType::Date
                | CqlType::Timestamp
        )
    }

    /// Whether every value of the lake type can be kept.
    pub fn keeps(&self, data_type: &DataType) -> bool {
        match (data_type, self) {
            (DataType::Utf8View, CqlType::Text)
            | (DataType::Boolean, CqlType::Boolean)
            | (DataType::Int32, CqlType::Int | CqlType::BigInt | CqlType::Varint)
            | (DataType::Int64, CqlType::BigInt | CqlType::Varint)
            | (DataType::Float64, CqlType::Double)
            | (DataType::Decimal128(_, _), CqlType::Decimal)
            | (DataType::Date32, CqlType::Date)
            | (DataType::Timestamp(_, _), CqlType::Timestamp) => true,
            (DataType::List(item), CqlType::List(kept) | CqlType::Set(kept)) => kept.keeps(item.data_type()),
            (DataType::Map(entries, _), CqlType::Map(key, value)) => match entries.data_type() {
                DataType::Struct(pair) => key.keeps(pair[0].data_type()) && value.keeps(pair[1].data_type()),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether it can be part of a primary key here.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, CqlType::List(_) | CqlType::Set(_) | CqlType::Map(_, _))
    }
}

impl fmt::Display for CqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CqlType::Text => "text",
            CqlType::Boolean => "boolean",
            CqlType::Int => "int",
            CqlType::BigInt => "bigint",
            CqlType::Varint => "varint",
            CqlType::Double => "double",
            CqlType::Decimal => "decimal",
            CqlType::Date => "date",
            CqlType::Timestamp => "timestamp",
            CqlType::List(item) => return write!(f, "list<{item}>"),
            CqlType::Set(item) => return write!(f, "set<{item}>"),
            CqlType::Map(key, value) => return write!(f, "map<{key},{value}>"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cassandra_writes() {
        for (text, expected) in [
            ("text", "text"),
            ("varchar", "text"),
            ("frozen<set<text>>", "set<text>"),
            ("map<text, decimal>", "map<text,decimal>"),
        ] {
            assert_eq!(CqlType::parse(text).unwrap().to_string(), expected);
        }
        for unknown in
            ["counter", "uuid", "set<double>", "map<decimal,int>", "list<list<int>>", "map<text>", ""]
        {
            assert_eq!(CqlType::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn nothing_is_narrowed() {
        assert!(CqlType::BigInt.keeps(&DataType::Int32));
        assert!(!CqlType::Int.keeps(&DataType::Int64));
        assert!(!CqlType::Double.keeps(&DataType::Decimal128(18, 6)));
    }
}
