//! What a writer does the same way all through a file.

use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterPropertiesBuilder;

use super::codec::Codec;
use super::learn::Original;
use crate::columnar::pages::PageHeader;
use crate::error::Result;
use crate::wire::{Reader, put_number};

/// Writers look whether a page is full after so many rows.
pub(super) const LOOK: u64 = 1024;
/// Row groups that unfold to more are too large to be held a page beside the other.
const LARGEST_GROUP: i64 = 1 << 30;
/// Shorter pages tell little about what compressed them.
const TELLING: u64 = 1 << 12;
/// Pages that a codec is tried on.
const TRIED: usize = 6;

/// Of one column of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnHabits {
    pub(super) codec: Codec,
    dictionary: bool,
    /// Of values that are not references to a dictionary, by its number in `parquet.thrift`.
    encoding: u8,
}

/// Of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Whether levels stand apart from values.
    second_version: bool,
    /// Rows that fill a page, if so many are on any.
    pub(super) rows: u64,
    /// Whether pages end elsewhere than where they are looked at; the frame then says where.
    pub(super) cut: bool,
    pub(super) columns: Vec<ColumnHabits>,
}

impl Habits {
    /// Finds them. `None` where a compressor is not one of ours, or a row group too large.
    pub(super) fn of(metadata: &ParquetMetaData, original: &Original) -> Result<Option<Self>> {
        let groups = metadata.row_groups();
        let columns = metadata.file_metadata().schema_descr().num_columns();
        let too_large = |size: i64| size > LARGEST_GROUP;
        if columns == 0 || groups.iter().any(|group| too_large(group.total_byte_size())) {
            return Ok(None);
        }
        let mut found: Vec<(Compression, Codec)> = Vec::new();
        let mut list = Vec::new();
        for column in 0..columns {
            let compression = groups.first().map(|group| group.column(column).compression());
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
                encoding: values.map_or(0, |page| page.encoding as u8),
            });
        }
        let flat = |column: usize| {
            let schema = metadata.file_metadata().schema_descr();
            schema.column(column).max_rep_level() == 0
        };
        let (mut rows, mut cut) = (0, false);
        for chunks in &original.chunks {
            for (_, pages) in chunks.iter().enumerate().filter(|(column, _)| flat(*column)) {
                let values = || pages.iter().filter(|page| !page.is_dictionary());
                rows = values().map(|page| page.values).max().unwrap_or(0).max(rows);
                let ends = values().rev().skip(1);
                cut |= ends.into_iter().any(|page| page.values % LOOK != 0);
            }
        }
        let pages = original.chunks.iter().flatten().flatten();
        let mut pages = pages.filter(|page| !page.is_dictionary());
        Ok(Some(Self {
            second_version: pages.next().is_some_and(PageHeader::is_second_version),
            rows,
            cut,
            columns: list,
        }))
    }

    pub(crate) fn is_second_version(&self) -> bool {
        self.second_version
    }

    /// Sets our writer up: it leaves compression to us, and page headers say what they can.
    pub(crate) fn set<'a>(
        &self,
        mut builder: WriterPropertiesBuilder,
        paths: impl Iterator<Item = &'a parquet::schema::types::ColumnPath>,
    ) -> WriterPropertiesBuilder {
        builder = builder
            .set_compression(Compression::UNCOMPRESSED)
            .set_write_page_header_statistics(true)
            .set_statistics_truncate_length(None)
            .set_column_index_truncate_length(None)
            .set_offset_index_disabled(false);
        if self.rows > 0 {
            builder = builder.set_data_page_row_count_limit(self.rows as usize);
        }
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
        }
        builder
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.second_version) | u8::from(self.cut) << 1);
        put_number(out, self.rows);
        put_number(out, self.columns.len() as u64);
        for column in &self.columns {
            out.extend_from_slice(&column.codec.code());
            out.push(u8::from(column.dictionary) << 7 | column.encoding & 127);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.byte().filter(|&flags| flags < 4)?;
        let rows = reader.number()?;
        let mut columns = Vec::new();
        for _ in 0..reader.count()? {
            let codec = Codec::of_code([reader.byte()?, reader.byte()?])?;
            let last = reader.byte()?;
            columns.push(ColumnHabits {
                codec,
                dictionary: last >> 7 == 1,
                encoding: last & 127,
            });
        }
        Some(Self {
            second_version: flags & 1 == 1,
            rows,
            cut: flags & 2 == 2,
            columns,
        })
    }
}

/// The codec that made these pages, as far as some of them tell.
fn which(
    compression: Compression,
    pages: &[&PageHeader],
    original: &Original,
) -> Result<Option<Codec>> {
    let candidates = Codec::candidates(compression);
    let mut tried = Vec::new();
    for number in 0..TRIED.min(pages.len()) {
        let page = pages[number * pages.len() / TRIED.min(pages.len())];
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
    Ok(candidates.find(|codec| {
        let mut tried = tried.iter();
        tried.all(|(bytes, whole)| codec.made(bytes, whole))
    }))
}
