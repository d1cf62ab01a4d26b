//! The dictionaries of an Arrow file, kept beside its rows: which values a
//! dictionary holds, and in which order, does not follow from the rows.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    AnyDictionaryArray, Array, ArrayRef, FixedSizeListArray, LargeListArray, ListArray, MapArray,
    RecordBatch, RecordBatchOptions, StructArray,
};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use super::render::render;
use super::values::keyed;
use crate::wire::{Reader, put_bytes, put_number};

/// Dictionaries that unfold to more are refused.
const LARGEST: u64 = 256 << 20;

/// Which dictionary each batch has, for each field that has one (fields inside
/// others come in their order, depth first).
#[derive(Clone, Debug, Default)]
pub(crate) struct Dictionaries {
    list: Vec<ArrayRef>,
    /// For each field: from which batch on which of the list it is.
    fields: Vec<Vec<(u64, usize)>>,
    /// For each of the list, once it is used: where its values are.
    places: Vec<HashMap<Vec<u8>, usize>>,
}

/// Whether a type is or holds a dictionary.
pub(super) fn has_dictionary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..) => true,
        DataType::Struct(fields) => fields.iter().any(|f| has_dictionary(f.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_dictionary(field.data_type()),
        _ => false,
    }
}

/// Calls `visit` with the dictionaries in an array.
pub(super) fn each(array: &dyn Array, visit: &mut dyn FnMut(&dyn AnyDictionaryArray)) {
    match array.data_type() {
        DataType::Dictionary(..) => visit(array.as_any_dictionary()),
        DataType::Struct(_) => {
            for child in array.as_struct().columns() {
                each(child.as_ref(), visit);
            }
        }
        DataType::List(_) => each(array.as_list::<i32>().values(), visit),
        DataType::LargeList(_) => each(array.as_list::<i64>().values(), visit),
        DataType::FixedSizeList(..) => each(array.as_fixed_size_list().values(), visit),
        DataType::Map(..) => each(array.as_map().entries(), visit),
        _ => {}
    }
}

impl Dictionaries {
    /// Notes the dictionaries of the batch numbered `number`.
    pub(super) fn note(&mut self, number: u64, batch: &RecordBatch) {
        let mut field = 0;
        for column in batch.columns() {
            each(column, &mut |dictionary| {
                if self.fields.len() == field {
                    self.fields.push(Vec::new());
                }
                let values = dictionary.values();
                let known = self.fields[field]
                    .last()
                    .is_some_and(|&(_, last)| same(&self.list[last], values));
                if !known {
                    self.fields[field].push((number, self.list.len()));
                    self.list.push(values.clone());
                }
                field += 1;
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Compressed, for the recipe.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut plain = Vec::new();
        put_number(&mut plain, self.list.len() as u64);
        for values in &self.list {
            let schema = Schema::new(vec![Field::new("", values.data_type().clone(), true)]);
            let batch = RecordBatch::try_new(Arc::new(schema), vec![values.clone()])?;
            let mut stream = Vec::new();
            let mut writer = StreamWriter::try_new(&mut stream, batch.schema_ref())?;
            writer.write(&batch)?;
            writer.finish()?;
            put_bytes(&mut plain, &stream);
        }
        put_number(&mut plain, self.fields.len() as u64);
        for field in &self.fields {
            put_number(&mut plain, field.len() as u64);
            for &(batch, which) in field {
                put_number(&mut plain, batch);
                put_number(&mut plain, which as u64);
            }
        }
        let packed = zstd::bulk::compress(&plain, 19)?;
        put_number(out, plain.len() as u64);
        put_bytes(out, &packed);
        Ok(())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let length = reader.number().filter(|&length| length <= LARGEST)?;
        let mut plain = Vec::new();
        zstd::stream::read::Decoder::new(reader.sized()?)
            .ok()?
            .take(length + 1)
            .read_to_end(&mut plain)
            .ok()?;
        if plain.len() as u64 != length {
            return None;
        }
        let mut reader = Reader::new(&plain);
        let mut out = Self::default();
        for _ in 0..reader.count()? {
            let stream = reader.sized().filter(|stream| is_whole(stream))?;
            let mut stream = StreamReader::try_new(stream, None).ok()?;
            let batch = stream.next()?.ok()?;
            out.list.push(batch.columns().first()?.clone());
        }
        for _ in 0..reader.count()? {
            let mut field = Vec::new();
            for _ in 0..reader.count()? {
                let (batch, which) = (reader.number()?, reader.number()?);
                let which = usize::try_from(which).ok()?;
                out.list.get(which)?;
                field.push((batch, which));
            }
            out.fields.push(field);
        }
        out.places = vec![HashMap::new(); out.list.len()];
        Some(out)
    }

    /// The batch numbered `number`, with the dictionaries it had. `None` if
    /// they do not hold its values.
    pub(super) fn apply(&mut self, number: u64, batch: &RecordBatch) -> Option<RecordBatch> {
        let mut field = 0;
        let columns: Option<Vec<ArrayRef>> = batch
            .columns()
            .iter()
            .map(|column| self.apply_to(number, column, &mut field))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(batch.schema(), columns?, &options).ok()
    }

    fn apply_to(&mut self, number: u64, array: &ArrayRef, field: &mut usize) -> Option<ArrayRef> {
        if !has_dictionary(array.data_type()) {
            return Some(array.clone());
        }
        let nulls = array.nulls().cloned();
        Some(match array.data_type() {
            DataType::Dictionary(key, _) => {
                let list = self.fields.get(*field)?;
                let at = list.partition_point(|&(from, _)| from <= number);
                let which = list.get(at.checked_sub(1)?)?.1;
                *field += 1;
                self.rekeyed(key, array.as_any_dictionary(), which)?
            }
            DataType::Struct(fields) => {
                let children: Option<Vec<ArrayRef>> = array
                    .as_struct()
                    .columns()
                    .iter()
                    .map(|child| self.apply_to(number, child, field))
                    .collect();
                Arc::new(StructArray::try_new(fields.clone(), children?, nulls).ok()?)
            }
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                let values = self.apply_to(number, list.values(), field)?;
                let offsets = list.offsets().clone();
                Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls).ok()?)
            }
            DataType::LargeList(item) => {
                let list = array.as_list::<i64>();
                let values = self.apply_to(number, list.values(), field)?;
                let offsets = list.offsets().clone();
                Arc::new(LargeListArray::try_new(item.clone(), offsets, values, nulls).ok()?)
            }
            DataType::FixedSizeList(item, size) => {
                let values = self.apply_to(number, array.as_fixed_size_list().values(), field)?;
                Arc::new(FixedSizeListArray::try_new(item.clone(), *size, values, nulls).ok()?)
            }
            DataType::Map(item, sorted) => {
                let map = array.as_map();
                let entries: ArrayRef = Arc::new(map.entries().clone());
                let entries = self.apply_to(number, &entries, field)?;
                let entries = entries.as_struct().clone();
                let offsets = map.offsets().clone();
                Arc::new(MapArray::try_new(item.clone(), offsets, entries, nulls, *sorted).ok()?)
            }
            _ => return None,
        })
    }

    /// The same values under another dictionary.
    fn rekeyed(
        &mut self,
        key: &DataType,
        array: &dyn AnyDictionaryArray,
        which: usize,
    ) -> Option<ArrayRef> {
        let values = &self.list[which];
        let places = self.places.get_mut(which)?;
        if places.is_empty() {
            for row in (0..values.len()).rev().filter(|&row| !values.is_null(row)) {
                let mut value = Vec::new();
                render(values.as_ref(), row, &mut value);
                places.insert(value, row);
            }
        }
        let found = array.values();
        let mut value = Vec::new();
        let moved: Option<Vec<usize>> = (0..found.len())
            .map(|row| {
                value.clear();
                render(found.as_ref(), row, &mut value);
                places.get(value.as_slice()).copied()
            })
            .collect();
        let moved = moved?;
        let keys: Vec<Option<usize>> = if moved.is_empty() {
            vec![None; array.len()]
        } else {
            let nulls = array.nulls();
            let valid = |row| nulls.is_none_or(|nulls| nulls.is_valid(row));
            let old = array.normalized_keys();
            (0..old.len())
                .map(|row| valid(row).then(|| moved[old[row]]))
                .collect()
        };
        keyed(key, &keys, values.clone())
    }
}

/// Whether the messages of an Arrow stream are all there, uncompressed: the
/// reader allocates what they claim.
fn is_whole(mut stream: &[u8]) -> bool {
    while let Some((head, rest)) = stream.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if !head.starts_with(&[0xff; 4]) || length == 0 {
            return length == 0;
        }
        let Some((message, rest)) = rest.split_at_checked(length as usize) else {
            return false;
        };
        let Ok(message) = arrow_ipc::root_as_message(message) else {
            return false;
        };
        let compressed = message
            .header_as_record_batch()
            .is_some_and(|batch| batch.compression().is_some());
        let body = usize::try_from(message.bodyLength()).ok();
        let Some(rest) = body.and_then(|body| rest.get(body..)) else {
            return false;
        };
        if compressed || message.header_as_dictionary_batch().is_some() {
            return false;
        }
        stream = rest;
    }
    stream.is_empty()
}

/// Whether two dictionaries are one.
pub(super) fn same(one: &ArrayRef, other: &ArrayRef) -> bool {
    Arc::ptr_eq(one, other) || one.to_data().ptr_eq(&other.to_data()) || one == other
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow_array::DictionaryArray;
    use arrow_array::types::Int8Type;

    use super::*;

    #[test]
    fn dictionaries_are_read_back_and_parts_of_them_are_refused() {
        let words: DictionaryArray<Int8Type> = vec!["z", "a", "z"].into_iter().collect();
        let schema = Schema::new(vec![Field::new("", words.data_type().clone(), true)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(words)]).unwrap();
        let mut kept = Dictionaries::default();
        kept.note(0, &batch);
        kept.note(1, &batch);
        let mut out = Vec::new();
        kept.write(&mut out).unwrap();
        let again = Dictionaries::read(&mut Reader::new(&out)).unwrap();
        assert_eq!(again.fields, [[(0, 0)]]);
        assert!(same(&again.list[0], &kept.list[0]));
        for cut in 0..out.len() {
            assert!(Dictionaries::read(&mut Reader::new(&out[..cut])).is_none());
        }
    }

    #[test]
    fn a_message_that_claims_more_than_there_is_is_refused() {
        let values: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["a", "b"]));
        let batch = RecordBatch::try_from_iter([("", values)]).unwrap();
        let mut stream = Vec::new();
        let mut writer = StreamWriter::try_new(&mut stream, batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert!(is_whole(&stream));
        assert!(!is_whole(&stream[..stream.len() - 20]));
        stream[6] = 0x7f;
        assert!(!is_whole(&stream));
    }
}
