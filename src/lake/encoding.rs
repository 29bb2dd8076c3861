//! How one Parquet file is encoded: what its size and its first values say is worth its while.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::Result;

/// Below this many rows a file is compressed with Snappy: a zstd context costs more than it saves on a small page.
const SNAPPY_ROWS: usize = 32 * 1024;

/// Below this many rows a file is not compressed: its pages are about as small as a block of the disk.
const TINY_FILE_ROWS: usize = 512;

/// Below this many rows a file has no dictionaries: each begins as a 64 KiB hash table.
const SMALL_FILE_ROWS: usize = 4096;

/// Values looked at to see whether a column's words repeat.
const DICTIONARY_SAMPLE: usize = 512;

/// Whether a column's words repeat, judged by the first of them: if not, a dictionary is built and thrown away.
fn repeats(pieces: &[RecordBatch], column: usize) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(DICTIONARY_SAMPLE);
    let mut num_seen = 0;
    for piece in pieces {
        for value in piece.column(column).as_string_view().iter().flatten() {
            seen.insert(value);
            num_seen += 1;
            if num_seen == DICTIONARY_SAMPLE {
                return seen.len() * 2 < DICTIONARY_SAMPLE;
            }
        }
    }
    seen.len() * 2 < num_seen.max(DICTIONARY_SAMPLE / 8)
}

/// Begins a file that will hold at least `rows` rows, `pieces` the first of them.
///
/// # Errors
/// Parquet's.
pub(super) fn writer(
    schema: SchemaRef,
    rows: usize,
    pieces: &[RecordBatch],
    unique_columns: &[String],
) -> Result<ArrowWriter<Vec<u8>>> {
    let is_small = rows < SMALL_FILE_ROWS;
    let compression = if rows < TINY_FILE_ROWS {
        Compression::UNCOMPRESSED
    } else if rows < SNAPPY_ROWS {
        Compression::SNAPPY
    } else {
        // level 1: as small as level 3 here and 16 % faster (facts and hazards, C)
        Compression::ZSTD(ZstdLevel::try_new(1)?)
    };
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false);
    for (at, field) in schema.fields().iter().enumerate() {
        let column: ColumnPath = field.name().as_str().into();
        if matches!(field.data_type(), DataType::Utf8View | DataType::BinaryView) {
            // two comparisons per value for bounds that no query of ours prunes by
            properties = properties.set_column_statistics_enabled(column.clone(), EnabledStatistics::None);
        }
        match field.data_type() {
            // of use for words that repeat, in a file that is not tiny
            DataType::Utf8View
                if !is_small && !unique_columns.contains(field.name()) && repeats(pieces, at) =>
            {
                properties = properties.set_column_dictionary_enabled(column, true);
            }
            // counters and times grow in small steps; a batch's constants shrink to nothing
            DataType::Int64 | DataType::Timestamp(_, _) if !is_small => {
                properties = properties.set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
            }
            _ => {}
        }
    }
    let options =
        ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    Ok(ArrowWriter::try_new_with_options(Vec::new(), schema, options)?)
}
