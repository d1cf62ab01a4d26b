//! What a writer does the same way all through a file.

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::SchemaDescriptor;

use super::codec::{Codec, Packer};
use super::decimals::{fixed, is_fixed};
use super::learn::Original;
use crate::columnar::pages::PageHeader;
use crate::error::Result;
use crate::wire::{Reader, put_number};

/// Rows that are held until their page is complete take no more than this.
pub(super) const HELD: usize = 32 << 20;
/// Row groups that unfold to more are too large to be held a page beside the other.
const LARGEST_GROUP: i64 = 512 << 20;
/// Shorter pages tell little about what compressed them.
const TELLING: u64 = 1 << 12;
/// Pages that a codec is tried on.
const TRIED: usize = 6;

/// Of one column of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnHabits {
    pub(super) codec: Codec,
    dictionary: bool,
    /// Whether dictionaries that grew too large were given up.
    gives_up: bool,
    /// Whether pages would be too large to be held whole, and end where most writers end them.
    pub(super) in_pieces: bool,
    /// Of values that are not references to a dictionary, by its number in `parquet.thrift`.
    encoding: u8,
}

/// Of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Whether levels stand apart from values.
    pub(super) second_version: bool,
    /// Whether decimals are no integers.
    fixed_decimals: bool,
    /// Whether the file's end is told by ours with the pages' places put right, as all writers but
    /// the first did.
    pub(super) places: bool,
    pub(super) columns: Vec<ColumnHabits>,
}

impl Habits {
    /// `false` where a compressor is not one of ours, or a row group too large.
    pub(super) fn may_be_of(metadata: &ParquetMetaData) -> bool {
        let known = |compression| !Codec::candidates(compression).is_empty();
        let has_columns = metadata.file_metadata().schema_descr().num_columns() > 0;
        has_columns
            && metadata.row_groups().iter().all(|group| {
                let mut columns = group.columns().iter();
                group.total_byte_size() <= LARGEST_GROUP
                    && columns.all(|column| known(column.compression()))
            })
    }

    /// Finds them. `None` where a compressor is not quite one of ours.
    pub(super) fn of(metadata: &ParquetMetaData, original: &Original) -> Result<Option<Self>> {
        let groups = metadata.row_groups();
        let types = metadata.file_metadata().schema_descr();
        let mut found: Vec<(Compression, Codec)> = Vec::new();
        let mut list = Vec::new();
        for column in 0..types.num_columns() {
            let compression = groups
                .first()
                .map(|group| group.column(column).compression());
            let compression = compression.unwrap_or(Compression::UNCOMPRESSED);
            let alike = |known: Compression| {
                std::mem::discriminant(&known) == std::mem::discriminant(&compression)
            };
            let known = found.iter().find(|(known, _)| alike(*known));
            let codec = if let Some(&(_, codec)) = known {
                codec
            } else {
                let chunks = groups.iter().zip(&original.chunks);
                let mut pages: Vec<&PageHeader> = chunks
                    .flat_map(|(group, chunks)| group.columns().iter().zip(chunks))
                    .filter(|(column, _)| alike(column.compression()))
                    .flat_map(|(_, pages)| pages)
                    .filter(|page| !page.all_plain)
                    .collect();
                // Short ones show sooner what cannot be, where they are not so short that all
                // compressors do the same.
                pages.sort_by_key(|page| page.unfolded);
                let short = pages.partition_point(|page| page.unfolded < TELLING);
                pages.drain(..short.min(pages.len().saturating_sub(TRIED)));
                let Some(codec) = which(compression, &pages, original)? else {
                    return Ok(None);
                };
                found.push((compression, codec));
                codec
            };
            let pages = || original.chunks.iter().flat_map(|chunks| &chunks[column]);
            let values = pages().find(|page| !page.is_dictionary() && !page.refers());
            list.push(ColumnHabits {
                codec,
                dictionary: pages().any(PageHeader::is_dictionary),
                gives_up: original
                    .chunks
                    .iter()
                    .any(|chunks| gives_up(&chunks[column])),
                in_pieces: original
                    .chunks
                    .iter()
                    .any(|chunks| too_wide(&chunks[column])),
                encoding: values.map_or(0, |page| page.encoding as u8),
            });
        }
        let pages = original.chunks.iter().flatten().flatten();
        let mut pages = pages.filter(|page| !page.is_dictionary());
        Ok(Some(Self {
            second_version: pages.next().is_some_and(PageHeader::is_second_version),
            fixed_decimals: types.columns().iter().any(|column| is_fixed(column)),
            places: true,
            columns: list,
        }))
    }

    /// The columns of a file of this schema.
    ///
    /// # Errors
    /// Those of the Parquet writer, for a schema that it cannot write.
    pub(crate) fn types(&self, schema: &Schema) -> parquet::errors::Result<SchemaDescriptor> {
        let types = ArrowSchemaConverter::new().convert(schema)?;
        if self.fixed_decimals {
            fixed(&types)
        } else {
            Ok(types)
        }
    }

    /// Sets our writer up: it leaves compression to us, ends pages where it is given them, and says
    /// in their headers what it can.
    pub(crate) fn set(
        &self,
        mut builder: WriterPropertiesBuilder,
        types: &SchemaDescriptor,
    ) -> WriterPropertiesBuilder {
        builder = builder
            // Which leaves nothing out: what differs in pages of the first version is ours to do.
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::UNCOMPRESSED)
            .set_write_page_header_statistics(true)
            .set_statistics_truncate_length(None)
            .set_column_index_truncate_length(None)
            .set_data_page_row_count_limit(usize::MAX)
            .set_write_batch_size(usize::MAX / 2);
        let paths = types.columns().iter().map(|column| column.path());
        for (column, path) in self.columns.iter().zip(paths) {
            let encoding = match column.encoding {
                3 => Encoding::RLE,
                5 => Encoding::DELTA_BINARY_PACKED,
                6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
                7 => Encoding::DELTA_BYTE_ARRAY,
                9 => Encoding::BYTE_STREAM_SPLIT,
                _ => Encoding::PLAIN,
            };
            builder = builder
                .set_column_dictionary_enabled(path.clone(), column.dictionary)
                .set_column_encoding(path.clone(), encoding);
            if !column.gives_up {
                builder = builder.set_column_dictionary_page_size_limit(path.clone(), usize::MAX);
            }
            if !column.in_pieces {
                builder = builder.set_column_data_page_size_limit(path.clone(), 1);
            }
        }
        builder
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let flags = [self.places, self.fixed_decimals, self.second_version];
        out.push(packed(flags));
        put_number(out, self.columns.len() as u64);
        for column in &self.columns {
            out.extend_from_slice(&column.codec.code());
            let flags = [column.dictionary, column.gives_up, column.in_pieces];
            out.push(packed(flags) << 5 | column.encoding & 31);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.byte().filter(|&flags| flags < 8)?;
        let mut columns = Vec::new();
        for _ in 0..reader.count()? {
            let codec = Codec::of_code([reader.byte()?, reader.byte()?])?;
            let last = reader.byte()?;
            columns.push(ColumnHabits {
                codec,
                dictionary: last >> 7 & 1 == 1,
                gives_up: last >> 6 & 1 == 1,
                in_pieces: last >> 5 & 1 == 1,
                encoding: last & 31,
            });
        }
        Some(Self {
            second_version: flags & 1 == 1,
            fixed_decimals: flags & 2 == 2,
            places: flags & 4 == 4,
            columns,
        })
    }
}

/// Flags as bits, the last one lowest.
fn packed(flags: [bool; 3]) -> u8 {
    flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag))
}

/// Whether a column chunk has pages with references to a dictionary, and others.
fn gives_up(pages: &[PageHeader]) -> bool {
    let mut values = pages.iter().filter(|page| !page.is_dictionary());
    let first = values.next().map(PageHeader::refers);
    values.any(|page| Some(page.refers()) != first)
}

/// Whether what a dictionary stands for on a page of a column chunk may be too much to be held.
fn too_wide(pages: &[PageHeader]) -> bool {
    let dictionary = pages.iter().find(|page| page.is_dictionary());
    let each = dictionary.map_or(0, |page| page.unfolded / page.values.max(1) + 1);
    let mut references = pages.iter().filter(|page| page.refers());
    references.any(|page| page.values.saturating_mul(each) > HELD as u64)
}

/// The codec that made these pages, as far as some of them tell.
fn which(
    compression: Compression,
    pages: &[&PageHeader],
    original: &Original,
) -> Result<Option<Codec>> {
    let candidates = Codec::candidates(compression);
    let mut tried = Vec::new();
    let count = TRIED.min(pages.len());
    for number in 0..count {
        // Some of all lengths, the shortest and the longest among them.
        let page = pages[number * (pages.len() - 1) / (count - 1).max(1)];
        let (start, end) = (page.at + page.plain, page.at + page.stored);
        let bytes = original.source.read(start, end, &mut Vec::new())?.to_vec();
        let unfolded = page.unfolded.saturating_sub(page.plain) as usize;
        let first = candidates.first();
        let Some(whole) = first.and_then(|codec| codec.unfold(&bytes, unfolded)) else {
            return Ok(None);
        };
        tried.push((bytes, whole));
    }
    let mut candidates = candidates.into_iter();
    let mut packer = Packer::default();
    Ok(candidates.find(|&codec| {
        let mut tried = tried.iter();
        tried.all(|(bytes, whole)| packer.makes(codec, bytes, whole))
    }))
}
