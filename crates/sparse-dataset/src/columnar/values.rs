//! Arrays of a type from rendered values.

use std::str::FromStr;
use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, FixedSizeBinaryBuilder, StringViewBuilder};
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{ArrowNativeType, NullBuffer, OffsetBuffer, i256};
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};

use super::build::struct_array;
use super::render::integers;
use crate::text::{elements, members, unescape};

/// A value: its rendered text, or nothing.
pub(super) type Value = Option<Vec<u8>>;

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Parses each value that is there; `None` if one does not parse.
fn parsed<T>(values: &[Value], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<Option<T>>> {
    values
        .iter()
        .map(|value| {
            value
                .as_ref()
                .map(|bytes| parse(bytes).ok_or(()))
                .transpose()
                .ok()
        })
        .collect()
}

fn primitive<T: ArrowPrimitiveType>(values: &[Value], data_type: &DataType) -> Option<ArrayRef>
where
    T::Native: FromStr,
{
    let values = parsed(values, |bytes| text(bytes)?.parse::<T::Native>().ok())?;
    Some(Arc::new(
        PrimitiveArray::<T>::from_iter(values).with_data_type(data_type.clone()),
    ))
}

fn bits(bytes: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(bytes)?.strip_prefix("0x")?, 16).ok()
}

/// Builds an array of a type from rendered values.
pub(super) fn array(data_type: &DataType, values: Vec<Value>) -> Option<ArrayRef> {
    macro_rules! with {
        ($type:ty) => {
            return primitive::<$type>(&values, data_type)
        };
    }
    integers!(data_type, with, {});
    Some(match data_type {
        DataType::Null => Arc::new(NullArray::new(values.len())),
        DataType::Boolean => Arc::new(BooleanArray::from(parsed(&values, |bytes| match bytes {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        })?)),
        DataType::Float16 => {
            let parse = |bytes: &[u8]| {
                Some(<Float16Type as ArrowPrimitiveType>::Native::from_bits(
                    bits(bytes)? as u16,
                ))
            };
            Arc::new(PrimitiveArray::<Float16Type>::from_iter(parsed(
                &values, parse,
            )?))
        }
        DataType::Float32 => Arc::new(Float32Array::from(parsed(&values, |bytes| {
            match bits(bytes) {
                Some(bits) => Some(f32::from_bits(bits as u32)),
                None => text(bytes)?.parse().ok(),
            }
        })?)),
        DataType::Float64 => Arc::new(Float64Array::from(parsed(&values, |bytes| {
            match bits(bytes) {
                Some(bits) => Some(f64::from_bits(bits)),
                None => text(bytes)?.parse().ok(),
            }
        })?)),
        DataType::Decimal256(..) => {
            let values = parsed(&values, |bytes| i256::from_string(text(bytes)?))?;
            Arc::new(
                PrimitiveArray::<Decimal256Type>::from_iter(values)
                    .with_data_type(data_type.clone()),
            )
        }
        DataType::Utf8 => Arc::new(StringArray::from_iter(strings(&values)?)),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter(strings(&values)?)),
        DataType::Utf8View => {
            let mut builder = StringViewBuilder::new();
            for value in strings(&values)? {
                builder.append_option(value);
            }
            Arc::new(builder.finish())
        }
        DataType::Binary => Arc::new(BinaryArray::from_iter(values.iter().map(Option::as_deref))),
        DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter(
            values.iter().map(Option::as_deref),
        )),
        DataType::BinaryView => {
            let mut builder = BinaryViewBuilder::new();
            for value in &values {
                builder.append_option(value.as_deref());
            }
            Arc::new(builder.finish())
        }
        DataType::FixedSizeBinary(size) => {
            let mut builder = FixedSizeBinaryBuilder::new(*size);
            for value in &values {
                match value {
                    Some(bytes) => builder.append_value(bytes).ok()?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Dictionary(key, value) => dictionary(key, value, values)?,
        DataType::List(field) => {
            let (lengths, nulls, inner) = lists(&values, field)?;
            Arc::new(
                ListArray::try_new(
                    field.clone(),
                    OffsetBuffer::from_lengths(lengths),
                    inner,
                    nulls,
                )
                .ok()?,
            )
        }
        DataType::LargeList(field) => {
            let (lengths, nulls, inner) = lists(&values, field)?;
            Arc::new(
                LargeListArray::try_new(
                    field.clone(),
                    OffsetBuffer::from_lengths(lengths),
                    inner,
                    nulls,
                )
                .ok()?,
            )
        }
        DataType::Map(field, sorted) => {
            let (lengths, nulls, inner) = lists(&values, field)?;
            let entries = inner.as_any().downcast_ref::<StructArray>()?.clone();
            Arc::new(
                MapArray::try_new(
                    field.clone(),
                    OffsetBuffer::from_lengths(lengths),
                    entries,
                    nulls,
                    *sorted,
                )
                .ok()?,
            )
        }
        DataType::FixedSizeList(field, size) => {
            let filler = vec![None; usize::try_from(*size).ok()?];
            let mut inner = Vec::new();
            for value in &values {
                match value {
                    Some(list) => inner.extend(elements(list).into_iter().map(unwrap)),
                    None => inner.extend(filler.iter().cloned()),
                }
            }
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
            Arc::new(
                FixedSizeListArray::try_new(field.clone(), *size, json_array(field, inner)?, nulls)
                    .ok()?,
            )
        }
        _ => return None,
    })
}

fn strings(values: &[Value]) -> Option<Vec<Option<&str>>> {
    values
        .iter()
        .map(|value| {
            value
                .as_deref()
                .map(|bytes| text(bytes).ok_or(()))
                .transpose()
                .ok()
        })
        .collect()
}

/// An element of a list: nothing for `null`.
fn unwrap(element: &[u8]) -> Value {
    (element != b"null").then(|| element.to_vec())
}

type Lists = (Vec<usize>, Option<NullBuffer>, ArrayRef);

fn lists(values: &[Value], field: &FieldRef) -> Option<Lists> {
    let mut lengths = Vec::with_capacity(values.len());
    let mut inner = Vec::new();
    for value in values {
        let before = inner.len();
        if let Some(list) = value {
            inner.extend(elements(list).into_iter().map(unwrap));
        }
        lengths.push(inner.len() - before);
    }
    let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
    Some((
        lengths,
        Some(nulls).filter(|nulls| nulls.null_count() > 0),
        json_array(field, inner)?,
    ))
}

/// Builds an array from values in JSON.
fn json_array(field: &Field, values: Vec<Value>) -> Option<ArrayRef> {
    let rows = values.len();
    match field.data_type() {
        DataType::Struct(fields) => {
            let mut columns: Vec<Vec<Value>> = vec![Vec::with_capacity(rows); fields.len()];
            for value in &values {
                let found = value
                    .as_ref()
                    .map(|object| members(object))
                    .unwrap_or_default();
                for (index, column) in columns.iter_mut().enumerate() {
                    column.push(found.get(index).and_then(|(_, value)| unwrap(value)));
                }
            }
            let mut children = Vec::new();
            for (child, column) in fields.iter().zip(columns) {
                children.push(json_array(child, column)?);
            }
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            struct_array(
                fields,
                children,
                Some(nulls).filter(|nulls| nulls.null_count() > 0),
                rows,
            )
        }
        data_type => {
            let plain = values.into_iter().map(|value| {
                value
                    .map(|json| plain(data_type, &json).ok_or(()))
                    .transpose()
                    .ok()
            });
            array(data_type, plain.collect::<Option<Vec<Value>>>()?)
        }
    }
}

/// The rendered value of a value in JSON.
fn plain(data_type: &DataType, json: &[u8]) -> Option<Vec<u8>> {
    let [b'"', inside @ .., b'"'] = json else {
        return Some(json.to_vec());
    };
    if matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    ) {
        return inside
            .chunks(2)
            .map(|pair| u8::from_str_radix(text(pair)?, 16).ok())
            .collect();
    }
    let mut out = Vec::new();
    unescape(inside, &mut out).then_some(out)
}

/// A dictionary whose values stand in order of appearance.
fn dictionary(key: &DataType, value: &DataType, values: Vec<Value>) -> Option<ArrayRef> {
    let mut known = std::collections::HashMap::new();
    let mut distinct = Vec::new();
    let keys: Vec<Option<usize>> = values
        .into_iter()
        .map(|value| {
            let bytes = value?;
            Some(*known.entry(bytes.clone()).or_insert_with(|| {
                distinct.push(Some(bytes));
                distinct.len() - 1
            }))
        })
        .collect();
    keyed(key, &keys, array(value, distinct)?)
}

/// A dictionary array of keys into `values`.
pub(super) fn keyed(key: &DataType, keys: &[Option<usize>], values: ArrayRef) -> Option<ArrayRef> {
    fn of<K: ArrowDictionaryKeyType>(keys: &[Option<usize>], values: ArrayRef) -> Option<ArrayRef> {
        let keys: Option<Vec<Option<K::Native>>> = keys
            .iter()
            .map(|key| {
                key.map(|key| K::Native::from_usize(key).ok_or(()))
                    .transpose()
                    .ok()
            })
            .collect();
        Some(Arc::new(
            DictionaryArray::<K>::try_new(PrimitiveArray::from_iter(keys?), values).ok()?,
        ))
    }
    match key {
        DataType::Int8 => of::<Int8Type>(keys, values),
        DataType::Int16 => of::<Int16Type>(keys, values),
        DataType::Int32 => of::<Int32Type>(keys, values),
        DataType::Int64 => of::<Int64Type>(keys, values),
        DataType::UInt8 => of::<UInt8Type>(keys, values),
        DataType::UInt16 => of::<UInt16Type>(keys, values),
        DataType::UInt32 => of::<UInt32Type>(keys, values),
        DataType::UInt64 => of::<UInt64Type>(keys, values),
        _ => None,
    }
}
