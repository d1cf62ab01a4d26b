//! A typed value as text that leads back to the same value.

use std::fmt::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrowPrimitiveType, downcast_dictionary_array};
use arrow_buffer::ArrowNativeType as _;
use arrow_schema::{DataType, IntervalUnit, TimeUnit};

use crate::table::{Kind, MAX_RECORD};
use crate::text::Spelling;

/// Whether a value is text, bare (a number), or a list in JSON.
pub(crate) fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Map(..) => Kind::Nested,
        DataType::Dictionary(_, value) => kind_of(value),
        _ => Kind::Raw,
    }
}

/// Calls a macro with the Arrow type of a primitive column whose values are
/// integers in memory.
macro_rules! integers {
    ($data_type:expr, $with:ident, $else:expr) => {
        match $data_type {
            DataType::Int8 => $with!(Int8Type),
            DataType::Int16 => $with!(Int16Type),
            DataType::Int32 => $with!(Int32Type),
            DataType::Int64 => $with!(Int64Type),
            DataType::UInt8 => $with!(UInt8Type),
            DataType::UInt16 => $with!(UInt16Type),
            DataType::UInt32 => $with!(UInt32Type),
            DataType::UInt64 => $with!(UInt64Type),
            DataType::Date32 => $with!(Date32Type),
            DataType::Date64 => $with!(Date64Type),
            DataType::Time32(TimeUnit::Second) => $with!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => $with!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => $with!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => $with!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $with!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $with!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $with!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $with!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => $with!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $with!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $with!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $with!(DurationNanosecondType),
            DataType::Interval(IntervalUnit::YearMonth) => $with!(IntervalYearMonthType),
            DataType::Decimal32(..) => $with!(Decimal32Type),
            DataType::Decimal64(..) => $with!(Decimal64Type),
            DataType::Decimal128(..) => $with!(Decimal128Type),
            _ => $else,
        }
    };
}
pub(crate) use integers;

fn integer<T: ArrowPrimitiveType>(array: &dyn Array, row: usize, out: &mut Vec<u8>)
where
    T::Native: itoa::Integer,
{
    out.extend_from_slice(
        itoa::Buffer::new()
            .format(array.as_primitive::<T>().value(row))
            .as_bytes(),
    );
}

/// The shortest decimal that leads back to the same bits; other NaNs than the
/// usual one as their bits.
fn float(value: f64, bits: u64, usual_nan: u64, out: &mut Vec<u8>) {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = if value.is_nan() && bits != usual_nan {
        write!(text, "0x{bits:x}")
    } else {
        write!(text, "{value:?}")
    };
    out.extend_from_slice(text.as_bytes());
}

/// Whether a row has no value: types without values and dictionaries of nulls
/// say so only logically.
pub(crate) fn is_null(array: &dyn Array, row: usize) -> bool {
    match array.data_type() {
        DataType::Null => true,
        DataType::Dictionary(..) if !array.is_null(row) => {
            let values = array.as_any_dictionary().values();
            dictionary_key(array, row).is_none_or(|key| is_null(values.as_ref(), key))
        }
        _ => array.is_null(row),
    }
}

/// The place of a row's value in its dictionary.
fn dictionary_key(array: &dyn Array, row: usize) -> Option<usize> {
    downcast_dictionary_array!(
        array => {
            let key = array.keys().value(row).as_usize();
            (key < array.values().len()).then_some(key)
        },
        _ => None
    )
}

/// Appends a value that is not null. `false` if the type is not supported.
pub(crate) fn render(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> bool {
    macro_rules! with {
        ($type:ty) => {{
            integer::<$type>(array, row, out);
            return true;
        }};
    }
    integers!(array.data_type(), with, {});
    match array.data_type() {
        DataType::Boolean => out.extend_from_slice(if array.as_boolean().value(row) {
            b"true"
        } else {
            b"false"
        }),
        DataType::Float16 => out.extend_from_slice(
            format!(
                "0x{:x}",
                array.as_primitive::<Float16Type>().value(row).to_bits()
            )
            .as_bytes(),
        ),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            if value.is_nan() {
                float(
                    f64::NAN,
                    u64::from(value.to_bits()),
                    u64::from(f32::NAN.to_bits()),
                    out,
                );
            } else {
                out.extend_from_slice(format!("{value:?}").as_bytes());
            }
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, value.to_bits(), f64::NAN.to_bits(), out);
        }
        DataType::Utf8 => out.extend_from_slice(array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => {
            out.extend_from_slice(array.as_string::<i64>().value(row).as_bytes())
        }
        DataType::Utf8View => out.extend_from_slice(array.as_string_view().value(row).as_bytes()),
        DataType::Binary => out.extend_from_slice(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => out.extend_from_slice(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => out.extend_from_slice(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => {
            out.extend_from_slice(array.as_fixed_size_binary().value(row))
        }
        DataType::Decimal256(..) => out.extend_from_slice(
            array
                .as_primitive::<Decimal256Type>()
                .value(row)
                .to_string()
                .as_bytes(),
        ),
        DataType::Dictionary(..) => {
            let values = array.as_any_dictionary().values();
            let key = dictionary_key(array, row);
            return key.is_some_and(|key| render(values.as_ref(), key, out));
        }
        DataType::List(_) => return list(array.as_list::<i32>().value(row).as_ref(), out),
        DataType::LargeList(_) => return list(array.as_list::<i64>().value(row).as_ref(), out),
        DataType::FixedSizeList(..) => {
            return list(array.as_fixed_size_list().value(row).as_ref(), out);
        }
        DataType::Map(..) => return list(&array.as_map().value(row), out),
        _ => return false,
    }
    true
}

fn list(values: &dyn Array, out: &mut Vec<u8>) -> bool {
    out.push(b'[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(b',');
        }
        if !json(values, row, out) {
            return false;
        }
        // A list of keys into a dictionary may stand for more than there is memory; a row as
        // long is refused.
        if out.len() > MAX_RECORD {
            break;
        }
    }
    out.push(b']');
    true
}

/// A value inside a list, in JSON; bytes as a string of hexadecimal digits.
fn json(array: &dyn Array, row: usize, out: &mut Vec<u8>) -> bool {
    if is_null(array, row) {
        out.extend_from_slice(b"null");
        return true;
    }
    if let DataType::Struct(fields) = array.data_type() {
        let columns = array.as_struct();
        out.push(b'{');
        for (index, field) in fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            Spelling::canonical().string(field.name().as_bytes(), out);
            out.push(b':');
            if !json(columns.column(index).as_ref(), row, out) {
                return false;
            }
        }
        out.push(b'}');
        return true;
    }
    let mut text = Vec::new();
    if !render(array, row, &mut text) {
        return false;
    }
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Spelling::canonical().string(&text, out)
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => {
            out.extend_from_slice(format!("\"{}\"", crate::output::hex(&text)).as_bytes());
        }
        DataType::Dictionary(_, value) if kind_of(value) == Kind::Text => {
            Spelling::canonical().string(&text, out)
        }
        _ => out.extend_from_slice(&text),
    }
    true
}
