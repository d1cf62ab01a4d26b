//! How a columnar file was written, as far as its own metadata tells, and
//! writing a file that way again.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter as IpcFileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{Schema, SchemaRef};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::batches_as_written;
use super::declared::arrow_fields;
use super::dictionaries::Dictionaries;
use super::paged::{Habits, Learner, PagedWriter, Script};
use super::writer::FileWriter;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::wire::{Reader, put_bytes, put_number};

/// Which writer, with what it was told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Container {
    Parquet {
        codec: u8,
        version: u8,
        dictionary: bool,
        arrow_schema: bool,
        created_by: String,
        metadata: Vec<(String, Option<String>)>,
        /// Of a file that is written page by page.
        habits: Option<Habits>,
    },
    /// An Arrow IPC file, or stream; its compression.
    Ipc { stream: bool, codec: u8 },
}

/// What is needed to write a columnar file like the original.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) schema: SchemaRef,
    /// Rows of each row group or record batch.
    groups: Vec<u64>,
    container: Container,
    /// Of an Arrow file that has any.
    dictionaries: Dictionaries,
}

const ARROW_MAGIC: &[u8] = b"ARROW1";

impl Recipe {
    /// Reads the recipe of a file.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let open = || File::open(path).map_err(Error::io(path));
        let format = Format::of(path)?;
        let (schema, written) = batches_as_written(path, format)?;
        if format == Format::Parquet {
            let reader = SerializedFileReader::new(open()?).map_err(Error::columnar(path))?;
            return Ok(Self::of_parquet(reader.metadata(), schema));
        }
        let mut start = [0; 6];
        let stream =
            io::Read::read_exact(&mut open()?, &mut start).is_err() || start != ARROW_MAGIC;
        let mut groups = Vec::new();
        let mut dictionaries = Dictionaries::default();
        for batch in written {
            let batch = batch.map_err(Error::columnar(path))?;
            dictionaries.note(groups.len() as u64, &batch);
            groups.push(batch.num_rows() as u64);
        }
        let codec = ipc_codec(path, stream)?;
        Ok(Self {
            schema,
            groups,
            container: Container::Ipc { stream, codec },
            dictionaries,
        })
    }

    fn of_parquet(metadata: &ParquetMetaData, schema: SchemaRef) -> Self {
        let file = metadata.file_metadata();
        let groups = metadata
            .row_groups()
            .iter()
            .map(|group| group.num_rows().max(0) as u64)
            .collect();
        let column = metadata
            .row_groups()
            .first()
            .and_then(|group| group.columns().first());
        let codec = match column.map(|column| column.compression()) {
            Some(Compression::SNAPPY) => 1,
            Some(Compression::GZIP(_)) => 2,
            Some(Compression::BROTLI(_)) => 4,
            Some(Compression::LZ4 | Compression::LZ4_RAW) => 5,
            Some(Compression::ZSTD(_)) => 6,
            _ => 0,
        };
        // Where our writer says the same beside the columns, it need not be kept.
        let same = arrow_fields(metadata).is_some_and(|fields| fields == schema.fields);
        let container = Container::Parquet {
            codec,
            version: file.version().clamp(1, 2) as u8,
            dictionary: column.is_some_and(|column| column.dictionary_page_offset().is_some()),
            arrow_schema: same,
            created_by: file.created_by().unwrap_or_default().to_owned(),
            metadata: entries(metadata)
                .iter()
                .filter(|entry| !same || entry.key != ARROW_SCHEMA_META_KEY)
                .map(pair)
                .collect(),
            habits: None,
        };
        Self {
            schema,
            groups,
            container,
            dictionaries: Dictionaries::default(),
        }
    }

    /// The same page by page, with who finds out whether the file comes back so with a frame of at
    /// most `most` bytes. `None` for files that are not written so.
    pub(crate) fn by_pages(mut self, path: &Path, most: u64) -> Result<Option<(Self, Learner)>> {
        let Container::Parquet {
            habits,
            arrow_schema,
            metadata,
            ..
        } = &mut self.container
        else {
            return Ok(None);
        };
        let file = File::open(path).map_err(Error::io(path))?;
        let reader = SerializedFileReader::new(file).map_err(Error::columnar(path))?;
        let Some(learner) = Learner::of(path, reader.metadata(), most)? else {
            return Ok(None);
        };
        *habits = Some(learner.habits().clone());
        let entries = entries(reader.metadata());
        let ours = encode_arrow_schema(&self.schema);
        let is_ours = |entry: &KeyValue| {
            entry.key != ARROW_SCHEMA_META_KEY || entry.value.as_ref() == Some(&ours)
        };
        // The same in other words would stand in the frame.
        if *arrow_schema && !entries.iter().all(is_ours) {
            *arrow_schema = false;
            *metadata = entries.iter().map(pair).collect();
        }
        Ok(Some((self, learner)))
    }

    /// Whether the file is written page by page, and so needs a frame.
    pub(crate) fn is_by_pages(&self) -> bool {
        matches!(
            &self.container,
            Container::Parquet {
                habits: Some(_),
                ..
            }
        )
    }

    pub(crate) fn write(&self, path: &Path) -> Result<Vec<u8>> {
        let mut schema = Vec::new();
        // A stream without batches is the schema with its metadata.
        StreamWriter::try_new(&mut schema, &self.schema)
            .and_then(|mut writer| writer.finish())
            .map_err(Error::columnar(path))?;
        let mut out = Vec::new();
        put_bytes(&mut out, &schema);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &rows in &self.groups {
            match runs.last_mut() {
                Some((size, count)) if *size == rows => *count += 1,
                _ => runs.push((rows, 1)),
            }
        }
        put_number(&mut out, runs.len() as u64);
        for (size, count) in runs {
            put_number(&mut out, size);
            put_number(&mut out, count);
        }
        match &self.container {
            Container::Parquet {
                codec,
                version,
                dictionary,
                arrow_schema,
                created_by,
                metadata,
                habits,
            } => {
                out.extend_from_slice(&[
                    if habits.is_some() { 3 } else { 0 },
                    *codec,
                    *version,
                    u8::from(*dictionary),
                    u8::from(*arrow_schema),
                ]);
                put_bytes(&mut out, created_by.as_bytes());
                put_number(&mut out, metadata.len() as u64);
                for (key, value) in metadata {
                    put_bytes(&mut out, key.as_bytes());
                    let value = value.as_deref();
                    // What it holds is much like the schema above, its letters are not.
                    if let Some(bytes) = value
                        .filter(|_| key == ARROW_SCHEMA_META_KEY)
                        .and_then(decoded)
                    {
                        out.push(2);
                        put_bytes(&mut out, &bytes);
                        continue;
                    }
                    out.push(u8::from(value.is_some()));
                    put_bytes(&mut out, value.unwrap_or_default().as_bytes());
                }
                if let Some(habits) = habits {
                    habits.write(&mut out);
                }
            }
            Container::Ipc { stream, codec } => {
                let kept = if self.dictionaries.is_empty() { 1 } else { 2 };
                out.extend_from_slice(&[kept, u8::from(*stream), *codec]);
                if kept == 2 {
                    self.dictionaries
                        .write(&mut out)
                        .map_err(Error::columnar(path))?;
                }
            }
        }
        Ok(out)
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let schema = arrow_ipc::reader::StreamReader::try_new(reader.sized()?, None)
            .ok()?
            .schema();
        let mut groups = Vec::new();
        for _ in 0..reader.count()? {
            let (size, count) = (reader.number()?, reader.number()?);
            if count > 1 << 24 || groups.len() > 1 << 24 {
                return None;
            }
            groups.extend(std::iter::repeat_n(size, count as usize));
        }
        let mut dictionaries = Dictionaries::default();
        let container = match reader.byte()? {
            kind @ (0 | 3) => {
                let (codec, version) = (reader.byte()?, reader.byte()?);
                let (dictionary, arrow_schema) = (reader.byte()? == 1, reader.byte()? == 1);
                let created_by = reader.string()?;
                let mut metadata = Vec::new();
                for _ in 0..reader.count()? {
                    let key = reader.string()?;
                    let value = match reader.byte()? {
                        0 => reader.sized().map(|_| None)?,
                        1 => Some(reader.string()?),
                        2 => Some(BASE64_STANDARD.encode(reader.sized()?)),
                        _ => return None,
                    };
                    metadata.push((key, value));
                }
                let habits = if kind == 3 {
                    Some(Habits::read(&mut reader)?)
                } else {
                    None
                };
                Container::Parquet {
                    codec,
                    version,
                    dictionary,
                    arrow_schema,
                    created_by,
                    metadata,
                    habits,
                }
            }
            kept @ 1..=2 => {
                let (stream, codec) = (reader.byte()? == 1, reader.byte()?);
                if kept == 2 {
                    dictionaries = Dictionaries::read(&mut reader)?;
                }
                Container::Ipc { stream, codec }
            }
            _ => return None,
        };
        Some(Self {
            schema,
            groups,
            container,
            dictionaries,
        })
    }

    /// A batch that was built of rows, with the dictionaries that the one
    /// after `done` groups had. `None` if they do not hold its values.
    pub(crate) fn finished(&mut self, done: usize, batch: RecordBatch) -> Option<RecordBatch> {
        if self.dictionaries.is_empty() {
            return Some(batch);
        }
        self.dictionaries.apply(done as u64, &batch)
    }

    /// Rows of the group that follows `done` groups; `None` after the last.
    pub(crate) fn group(&self, done: usize) -> Option<u64> {
        self.groups.get(done).copied()
    }

    /// A writer that follows the recipe, and the script where it is written page by page, which is
    /// done on so many threads.
    pub(crate) fn writer<W: Write + Send>(
        &self,
        out: W,
        script: Option<Script>,
        threads: usize,
        path: &Path,
    ) -> Result<FileWriter<W>> {
        let schema: &Schema = &self.schema;
        Ok(match &self.container {
            Container::Parquet {
                codec,
                version,
                dictionary,
                arrow_schema,
                created_by,
                metadata,
                habits,
            } => {
                let codec = match codec {
                    1 => Compression::SNAPPY,
                    2 => Compression::GZIP(Default::default()),
                    4 => Compression::BROTLI(Default::default()),
                    5 => Compression::LZ4_RAW,
                    6 => Compression::ZSTD(ZstdLevel::default()),
                    _ => Compression::UNCOMPRESSED,
                };
                let entries: Vec<KeyValue> = metadata
                    .iter()
                    .map(|(key, value)| KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                    })
                    .collect();
                let mut properties = WriterProperties::builder()
                    .set_compression(codec)
                    .set_writer_version(if *version == 2 {
                        WriterVersion::PARQUET_2_0
                    } else {
                        WriterVersion::PARQUET_1_0
                    })
                    .set_dictionary_enabled(*dictionary)
                    .set_created_by(created_by.clone())
                    .set_key_value_metadata(Some(entries).filter(|entries| !entries.is_empty()))
                    .set_max_row_group_row_count(None);
                let mut types = None;
                if let Some(habits) = habits {
                    let found = habits.types(schema).map_err(Error::columnar(path))?;
                    properties = habits.set(properties, &found);
                    types = Some(found);
                }
                let mut options = ArrowWriterOptions::new()
                    .with_properties(properties.build())
                    .with_skip_arrow_metadata(!arrow_schema);
                if let Some(types) = types {
                    options = options.with_parquet_schema(types);
                }
                if let (Some(habits), Some(script)) = (habits, script) {
                    let schema = self.schema.clone();
                    let habits = habits.clone();
                    let writer = PagedWriter::new(out, schema, options, habits, script, threads);
                    return Ok(FileWriter::Paged(Box::new(
                        writer.map_err(Error::columnar(path))?,
                    )));
                }
                let writer = ArrowWriter::try_new_with_options(out, self.schema.clone(), options)
                    .map_err(Error::columnar(path))?;
                FileWriter::Parquet(Box::new(writer))
            }
            Container::Ipc { stream, codec } => {
                let compression = match codec {
                    1 => Some(CompressionType::LZ4_FRAME),
                    2 => Some(CompressionType::ZSTD),
                    _ => None,
                };
                let options = IpcWriteOptions::default()
                    .try_with_compression(compression)
                    .map_err(Error::columnar(path))?;
                if *stream {
                    let writer = StreamWriter::try_new_with_options(out, schema, options)
                        .map_err(Error::columnar(path))?;
                    FileWriter::Stream(Box::new(writer))
                } else {
                    let writer = IpcFileWriter::try_new_with_options(out, schema, options)
                        .map_err(Error::columnar(path))?;
                    FileWriter::Ipc(Box::new(writer))
                }
            }
        })
    }
}

/// What a file says about itself beside its schema.
fn entries(metadata: &ParquetMetaData) -> &[KeyValue] {
    let entries = metadata.file_metadata().key_value_metadata();
    entries.map_or(&[], Vec::as_slice)
}

fn pair(entry: &KeyValue) -> (String, Option<String>) {
    (entry.key.clone(), entry.value.clone())
}

/// The bytes that are written as `text` in base 64, if encoding them leads back to it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    (BASE64_STANDARD.encode(&bytes) == text).then_some(bytes)
}

/// The compression that the first batch of an IPC file names.
fn ipc_codec(path: &Path, stream: bool) -> Result<u8> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(&mut file, 1 << 20), &mut head)
        .map_err(Error::io(path))?;
    let mut at = if stream { 0 } else { 8 };
    // Messages: continuation, length, flatbuffer, body.
    for _ in 0..8 {
        let word = |at: usize| {
            head.get(at..at + 4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
        };
        let Some(length) = word(at + 4) else { break };
        let Some(message) = head
            .get(at + 8..at + 8 + length)
            .and_then(|bytes| arrow_ipc::root_as_message(bytes).ok())
        else {
            break;
        };
        let batch = message
            .header_as_record_batch()
            .or_else(|| message.header_as_dictionary_batch().and_then(|d| d.data()));
        if let Some(batch) = batch {
            return Ok(
                match batch.compression().map(|compression| compression.codec()) {
                    Some(CompressionType::LZ4_FRAME) => 1,
                    Some(CompressionType::ZSTD) => 2,
                    _ => 0,
                },
            );
        }
        at += 8 + length + message.bodyLength().max(0) as usize;
    }
    Ok(0)
}
