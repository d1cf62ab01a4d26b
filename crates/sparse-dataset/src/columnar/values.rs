//! Arrays of a type from rendered values.

use std::str::FromStr;
use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, FixedSizeBinaryBuilder, StringViewBuilder};
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{ArrowNativeType, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};

use super::build::struct_array;
use super::render::integers;
use crate::text::{elements, members, unescape};

/// Rendered values of a column, one right after the other: a value is its text, or nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// Whether each is there.
    present: Vec<bool>,
}

impl Values {
    /// Adds a value.
    pub(super) fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.ends.push(self.bytes.len());
        self.present.push(value.is_some());
    }

    /// Puts a value in the place of the last one.
    pub(super) fn set_last(&mut self, value: &[u8]) {
        if self.ends.pop().is_some() {
            self.present.pop();
            self.bytes
                .truncate(self.ends.last().copied().unwrap_or_default());
            self.push(Some(value));
        }
    }

    /// All values, which leaves none, but the room that they took.
    pub(super) fn take(&mut self) -> Values {
        let room = Values {
            bytes: Vec::with_capacity(self.bytes.len()),
            ends: Vec::with_capacity(self.ends.len()),
            present: Vec::with_capacity(self.present.len()),
        };
        std::mem::replace(self, room)
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut start = 0;
        self.ends
            .iter()
            .zip(&self.present)
            .map(move |(&end, &present)| {
                let value = &self.bytes[start..end];
                start = end;
                present.then_some(value)
            })
    }

    /// Which are there, if one is not.
    pub(super) fn nulls(&self) -> Option<NullBuffer> {
        let missing = self.present.contains(&false);
        missing.then(|| NullBuffer::from(self.present.as_slice()))
    }

    /// Ends as offsets of a type, and the bytes; `None` if the type cannot count that far.
    fn offsets<O: OffsetSizeTrait>(&self) -> Option<(OffsetBuffer<O>, Buffer)> {
        O::from_usize(self.bytes.len())?;
        let ends = self.ends.iter().map(|&end| O::usize_as(end));
        let offsets: ScalarBuffer<O> = std::iter::once(O::usize_as(0)).chain(ends).collect();
        Some((
            OffsetBuffer::new(offsets),
            Buffer::from_slice_ref(&self.bytes),
        ))
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Parses each value that is there; `None` if one does not parse.
fn parsed<'a, T>(
    values: &'a Values,
    parse: impl Fn(&'a [u8]) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    values
        .iter()
        .map(|value| value.map(|bytes| parse(bytes).ok_or(())).transpose().ok())
        .collect()
}

fn primitive<T: ArrowPrimitiveType>(values: &Values, data_type: &DataType) -> Option<ArrayRef>
where
    T::Native: FromStr,
{
    let values = parsed(values, |bytes| text(bytes)?.parse::<T::Native>().ok())?;
    Some(Arc::new(
        PrimitiveArray::<T>::from_iter(values).with_data_type(data_type.clone()),
    ))
}

fn strings<O: OffsetSizeTrait>(values: &Values) -> Option<ArrayRef> {
    let (offsets, bytes) = values.offsets::<O>()?;
    let array = GenericStringArray::try_new(offsets, bytes, values.nulls()).ok()?;
    Some(Arc::new(array))
}

fn binaries<O: OffsetSizeTrait>(values: &Values) -> Option<ArrayRef> {
    let (offsets, bytes) = values.offsets::<O>()?;
    let array = GenericBinaryArray::try_new(offsets, bytes, values.nulls()).ok()?;
    Some(Arc::new(array))
}

fn bits(bytes: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(bytes)?.strip_prefix("0x")?, 16).ok()
}

/// Builds an array of a type from rendered values.
pub(super) fn array(data_type: &DataType, values: &Values) -> Option<ArrayRef> {
    macro_rules! with {
        ($type:ty) => {
            return primitive::<$type>(values, data_type)
        };
    }
    integers!(data_type, with, {});
    Some(match data_type {
        DataType::Null => Arc::new(NullArray::new(values.len())),
        DataType::Boolean => Arc::new(BooleanArray::from(parsed(values, |bytes| match bytes {
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
                values, parse,
            )?))
        }
        DataType::Float32 => Arc::new(Float32Array::from(parsed(values, |bytes| {
            match bits(bytes) {
                Some(bits) => Some(f32::from_bits(bits as u32)),
                None => text(bytes)?.parse().ok(),
            }
        })?)),
        DataType::Float64 => Arc::new(Float64Array::from(parsed(values, |bytes| {
            match bits(bytes) {
                Some(bits) => Some(f64::from_bits(bits)),
                None => text(bytes)?.parse().ok(),
            }
        })?)),
        DataType::Decimal256(..) => {
            let values = parsed(values, |bytes| i256::from_string(text(bytes)?))?;
            Arc::new(
                PrimitiveArray::<Decimal256Type>::from_iter(values)
                    .with_data_type(data_type.clone()),
            )
        }
        DataType::Utf8 => strings::<i32>(values)?,
        DataType::LargeUtf8 => strings::<i64>(values)?,
        DataType::Utf8View => {
            let mut builder = StringViewBuilder::new();
            for value in parsed(values, text)? {
                builder.append_option(value);
            }
            Arc::new(builder.finish())
        }
        DataType::Binary => binaries::<i32>(values)?,
        DataType::LargeBinary => binaries::<i64>(values)?,
        DataType::BinaryView => {
            let mut builder = BinaryViewBuilder::new();
            for value in values.iter() {
                builder.append_option(value);
            }
            Arc::new(builder.finish())
        }
        DataType::FixedSizeBinary(size) => {
            let mut builder = FixedSizeBinaryBuilder::new(*size);
            for value in values.iter() {
                match value {
                    Some(bytes) => builder.append_value(bytes).ok()?,
                    None => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Dictionary(key, value) => dictionary(key, value, values)?,
        DataType::List(field) => {
            let (lengths, nulls, inner) = lists(values, field)?;
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
            let (lengths, nulls, inner) = lists(values, field)?;
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
            let (lengths, nulls, inner) = lists(values, field)?;
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
            let size_of = usize::try_from(*size).ok()?;
            let mut inner = Values::default();
            for value in values.iter() {
                match value {
                    Some(list) => push_elements(list, &mut inner),
                    None => (0..size_of).for_each(|_| inner.push(None)),
                }
            }
            let nulls = values.nulls();
            Arc::new(
                FixedSizeListArray::try_new(
                    field.clone(),
                    *size,
                    json_array(field, &inner)?,
                    nulls,
                )
                .ok()?,
            )
        }
        _ => return None,
    })
}

/// An element of a list: nothing for `null`.
fn unwrap(element: &[u8]) -> Option<&[u8]> {
    (element != b"null").then_some(element)
}

fn push_elements(list: &[u8], inner: &mut Values) {
    for element in elements(list) {
        inner.push(unwrap(element));
    }
}

type Lists = (Vec<usize>, Option<NullBuffer>, ArrayRef);

fn lists(values: &Values, field: &FieldRef) -> Option<Lists> {
    let mut lengths = Vec::with_capacity(values.len());
    let mut inner = Values::default();
    for value in values.iter() {
        let before = inner.len();
        if let Some(list) = value {
            push_elements(list, &mut inner);
        }
        lengths.push(inner.len() - before);
    }
    Some((lengths, values.nulls(), json_array(field, &inner)?))
}

/// Builds an array from values in JSON.
fn json_array(field: &Field, values: &Values) -> Option<ArrayRef> {
    let rows = values.len();
    match field.data_type() {
        DataType::Struct(fields) => {
            let mut columns: Vec<Values> = fields.iter().map(|_| Values::default()).collect();
            for value in values.iter() {
                let found = value.map(members).unwrap_or_default();
                for (index, column) in columns.iter_mut().enumerate() {
                    column.push(found.get(index).and_then(|(_, value)| unwrap(value)));
                }
            }
            let mut children = Vec::new();
            for (child, column) in fields.iter().zip(&columns) {
                children.push(json_array(child, column)?);
            }
            struct_array(fields, children, values.nulls(), rows)
        }
        data_type => {
            let mut plain_values = Values::default();
            for value in values.iter() {
                match value {
                    Some(json) => plain_values.push(Some(&plain(data_type, json)?)),
                    None => plain_values.push(None),
                }
            }
            array(data_type, &plain_values)
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
fn dictionary(key: &DataType, value: &DataType, values: &Values) -> Option<ArrayRef> {
    let mut known = std::collections::HashMap::new();
    let mut distinct = Values::default();
    let keys: Vec<Option<usize>> = values
        .iter()
        .map(|value| {
            let bytes = value?;
            Some(*known.entry(bytes).or_insert_with(|| {
                distinct.push(Some(bytes));
                distinct.len() - 1
            }))
        })
        .collect();
    keyed(key, &keys, array(value, &distinct)?)
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
