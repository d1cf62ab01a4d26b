//! What a Parquet file declares of its columns beyond what the rows show: other
//! readers go by it.

use std::fs::File;
use std::path::Path;

use arrow_schema::Fields;
use base64::Engine as _;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use crate::error::{Error, Result};

/// Whether two Parquet files say the same of each column, its place in lists and
/// structs and its type, and have the same Arrow schema beside it.
pub(super) fn declare_alike(first: &Path, second: &Path) -> Result<bool> {
    let metadata = |path: &Path| -> Result<ParquetMetaData> {
        let file = File::open(path).map_err(Error::io(path))?;
        let reader = SerializedFileReader::new(file).map_err(Error::columnar(path))?;
        Ok(reader.metadata().clone())
    };
    let (first, second) = (metadata(first)?, metadata(second)?);
    let columns = |metadata: &ParquetMetaData| -> Option<Vec<Declared>> {
        let schema = metadata.file_metadata().schema_descr();
        schema.columns().iter().map(|c| Declared::of(c)).collect()
    };
    let columns = (columns(&first), columns(&second));
    Ok(columns.0.is_some()
        && columns.0 == columns.1
        && arrow_fields(&first) == arrow_fields(&second))
}

/// What a reader needs to know of a column's values.
#[derive(PartialEq)]
struct Declared {
    levels: (i16, i16),
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    /// However many bytes each takes.
    Decimal(i32, i32),
    /// The length is that of values that all have the same.
    Other(Physical, Option<i32>, Option<LogicalType>, ConvertedType),
}

impl Declared {
    /// Nothing for types whose values readers do not agree on: times of 96 bits
    /// reach further than Arrow's nanoseconds.
    fn of(column: &ColumnDescriptor) -> Option<Self> {
        let physical = column.physical_type();
        let mut converted = column.converted_type();
        let older = || older_type(converted);
        let mut logical = column.logical_type_ref().cloned().or_else(older);
        let kind = match (&logical, converted) {
            _ if physical == Physical::INT96 => return None,
            (Some(LogicalType::Decimal { .. }), _) | (None, ConvertedType::DECIMAL) => {
                Kind::Decimal(column.type_precision(), column.type_scale())
            }
            (logical_type, _) => {
                // These say nothing that the physical type does not.
                let width = match physical {
                    Physical::INT32 => Some((32, ConvertedType::INT_32)),
                    Physical::INT64 => Some((64, ConvertedType::INT_64)),
                    _ => None,
                };
                let plain = width.is_some_and(|(width, same)| {
                    let says = LogicalType::Integer {
                        bit_width: width,
                        is_signed: true,
                    };
                    logical_type.as_ref() == Some(&says)
                        || logical_type.is_none() && converted == same
                });
                if plain {
                    (logical, converted) = (None, ConvertedType::NONE);
                }
                // The older of the two ways to say the same may be left out.
                if logical.is_some() {
                    converted = ConvertedType::NONE;
                }
                let fixed = physical == Physical::FIXED_LEN_BYTE_ARRAY;
                let length = fixed.then(|| column.type_length());
                Kind::Other(physical, length, logical, converted)
            }
        };
        let levels = (column.max_def_level(), column.max_rep_level());
        Some(Self { levels, kind })
    }
}

/// What the older way to declare a type stands for, as the format's specification
/// has it (`LogicalTypes.md`).
fn older_type(converted: ConvertedType) -> Option<LogicalType> {
    let time = |unit| LogicalType::Time {
        is_adjusted_to_u_t_c: true,
        unit,
    };
    let timestamp = |unit| LogicalType::Timestamp {
        is_adjusted_to_u_t_c: true,
        unit,
    };
    let integer = |bit_width, is_signed| LogicalType::Integer {
        bit_width,
        is_signed,
    };
    Some(match converted {
        ConvertedType::UTF8 => LogicalType::String,
        ConvertedType::ENUM => LogicalType::Enum,
        ConvertedType::JSON => LogicalType::Json,
        ConvertedType::BSON => LogicalType::Bson,
        ConvertedType::DATE => LogicalType::Date,
        ConvertedType::TIME_MILLIS => time(TimeUnit::MILLIS),
        ConvertedType::TIME_MICROS => time(TimeUnit::MICROS),
        ConvertedType::TIMESTAMP_MILLIS => timestamp(TimeUnit::MILLIS),
        ConvertedType::TIMESTAMP_MICROS => timestamp(TimeUnit::MICROS),
        ConvertedType::UINT_8 => integer(8, false),
        ConvertedType::UINT_16 => integer(16, false),
        ConvertedType::UINT_32 => integer(32, false),
        ConvertedType::UINT_64 => integer(64, false),
        ConvertedType::INT_8 => integer(8, true),
        ConvertedType::INT_16 => integer(16, true),
        ConvertedType::INT_32 => integer(32, true),
        ConvertedType::INT_64 => integer(64, true),
        // Decimals are compared by their digits; the others have no newer name.
        _ => return None,
    })
}

/// The columns of the Arrow schema that a file may hold; that of one that makes
/// no sense is nothing.
pub(super) fn arrow_fields(metadata: &ParquetMetaData) -> Option<Fields> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let entry = entries
        .iter()
        .find(|entry| entry.key == ARROW_SCHEMA_META_KEY)?;
    let bytes = base64::prelude::BASE64_STANDARD
        .decode(entry.value.as_ref()?)
        .ok()?;
    let schema = arrow_ipc::convert::try_schema_from_ipc_buffer(&bytes).ok()?;
    Some(schema.fields)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::{DataType, Field, Schema, TimeUnit as ArrowUnit};
    use parquet::arrow::encode_arrow_schema;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// A file without rows that declares this.
    fn file(column: &str, arrow: Option<DataType>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let schema = parse_message_type(&format!("message any {{ {column} }}")).unwrap();
        let metadata = arrow.map(|data_type| {
            let schema = Schema::new(vec![Field::new("a", data_type, true)]);
            vec![KeyValue::new(
                ARROW_SCHEMA_META_KEY.to_owned(),
                encode_arrow_schema(&schema),
            )]
        });
        let properties = WriterProperties::builder().set_key_value_metadata(metadata);
        let out = file.reopen().unwrap();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties.build()));
        writer.unwrap().close().unwrap();
        file
    }

    fn alike(one: (&str, Option<DataType>), other: (&str, Option<DataType>)) -> bool {
        let (one, other) = (file(one.0, one.1), file(other.0, other.1));
        declare_alike(one.path(), other.path()).unwrap()
    }

    #[test]
    fn what_other_readers_go_by_must_be_the_same() {
        let same = |one, other| alike((one, None), (other, None));
        for column in [
            "optional binary a (STRING);",
            "required int64 a (TIMESTAMP(MICROS,true));",
            "optional fixed_len_byte_array(16) a (UUID);",
            "repeated int32 a;",
        ] {
            assert!(same(column, column), "{column}");
        }
        assert!(same(
            "required int64 a;",
            "required int64 a (INTEGER(64,true));"
        ));
        for (older, newer) in [
            ("binary a (UTF8)", "binary a (STRING)"),
            (
                "int64 a (TIMESTAMP_MICROS)",
                "int64 a (TIMESTAMP(MICROS,true))",
            ),
            ("int32 a (TIME_MILLIS)", "int32 a (TIME(MILLIS,true))"),
            ("int32 a (UINT_16)", "int32 a (INTEGER(16,false))"),
            ("int64 a (INT_64)", "int64 a"),
        ] {
            let column = |declared| format!("required {declared};");
            let (one, other) = (column(older), column(newer));
            assert!(alike((&one, None), (&other, None)), "{older}");
        }
        assert!(!same(
            "required int64 a (TIMESTAMP_MICROS);",
            "required int64 a (TIMESTAMP(MICROS,false));"
        ));
        assert!(same(
            "required fixed_len_byte_array(4) a (DECIMAL(9,2));",
            "required int32 a (DECIMAL(9,2));"
        ));
        for (one, other) in [
            ("required int32 a (DATE);", "required int64 a;"),
            (
                "required fixed_len_byte_array(16) a (UUID);",
                "required fixed_len_byte_array(16) a;",
            ),
            ("required binary a (JSON);", "required binary a (STRING);"),
            ("required binary a (STRING);", "optional binary a (STRING);"),
            (
                "required int64 a (TIMESTAMP(MICROS,true));",
                "required int64 a (TIMESTAMP(MICROS,false));",
            ),
            (
                "required int32 a (DECIMAL(9,2));",
                "required int32 a (DECIMAL(9,3));",
            ),
            ("required int32 a;", "required int32 a (INTEGER(16,true));"),
            // Values that readers do not agree on.
            ("required int96 a;", "required int96 a;"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn the_arrow_schema_beside_it_must_be_the_same() {
        let column = "optional int64 a (TIMESTAMP(MILLIS,true));";
        let zoned = |unit, zone: &str| Some(DataType::Timestamp(unit, Some(zone.into())));
        let found = |one, other| alike((column, one), (column, other));
        let seconds = zoned(ArrowUnit::Second, "+05:30");
        assert!(found(seconds.clone(), seconds.clone()));
        assert!(!found(
            seconds.clone(),
            zoned(ArrowUnit::Millisecond, "UTC")
        ));
        assert!(!found(seconds, None));
    }
}
