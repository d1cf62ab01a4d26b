//! How many rows of a Parquet file are decoded together: with a dictionary a
//! few bytes stand for gigabytes, each row a copy of one long value.

use std::fs::File;
use std::path::Path;

use parquet::basic::Type;
use parquet::column::page::Page;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{AsBytes, DataType};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader as _, RowGroupReader, SerializedFileReader};

use super::pages::{PageHeader, Pages};
use crate::error::{Error, Result};
use crate::table::MAX_RECORD;

/// Rows that are decoded together where their values are not long.
const MOST_ROWS: u64 = 1024;
/// Bytes that they may take: some wait while others are decoded and a third are looked at.
const BUDGET: u64 = 96 << 20;

/// What bounds the bytes of a column in so many rows.
struct Bound<'a> {
    /// Whatever their number.
    fixed: u64,
    each: u64,
    /// Values stand on these as they are.
    pages: &'a [PageHeader],
}

impl Bound<'_> {
    fn bytes(&self, rows: u64) -> u64 {
        let each = self.each.saturating_mul(rows);
        self.fixed
            .saturating_add(each)
            .saturating_add(widest(self.pages, rows))
    }
}

/// The most bytes on the pages that so many successive values are on.
fn widest(pages: &[PageHeader], rows: u64) -> u64 {
    // `before` are the values of the pages from the first to the last, without that.
    let (mut first, mut bytes, mut before, mut most) = (0, 0, 0, 0);
    for (last, page) in pages.iter().enumerate() {
        bytes += page.unfolded;
        // All values of those in between, and one each of the first and the last.
        while first < last && before - pages[first].values + 2 > rows {
            before -= pages[first].values;
            bytes -= pages[first].unfolded;
            first += 1;
        }
        before += page.values;
        most = most.max(bytes);
    }
    most
}

/// The number of rows of `file` that may be decoded together.
pub(super) fn rows_together(
    file: &Path,
    metadata: &ParquetMetaData,
    pages: &[Vec<Pages>],
) -> Result<usize> {
    let reader = File::open(file).map_err(Error::io(file))?;
    let reader = SerializedFileReader::new(reader).map_err(Error::columnar(file))?;
    let mut most = MOST_ROWS;
    for (number, (group, pages)) in metadata.row_groups().iter().zip(pages).enumerate() {
        let is_bytes = |kind| matches!(kind, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
        let columns = group.columns().iter().zip(pages).enumerate();
        let columns: Vec<_> = columns
            .filter(|(_, (column, _))| is_bytes(column.column_type()))
            .collect();
        let share = BUDGET / columns.len().max(1) as u64;
        let rows = reader
            .get_row_group(number)
            .map_err(Error::columnar(file))?;
        let mut bounds = Vec::new();
        for (place, (column, pages)) in columns {
            let repeated = column.column_descr().max_rep_level() > 0;
            let bound = if repeated {
                of_lists(file, rows.as_ref(), place, pages, share)
            } else {
                of_values(file, rows.as_ref(), place, pages, share)
            };
            bounds.push(bound?);
        }
        let fits = |rows: u64| bounds.iter().map(|bound| bound.bytes(rows)).sum::<u64>() <= BUDGET;
        while most > 1 && !fits(most) {
            most /= 2;
        }
    }
    Ok(most as usize)
}

/// The bound of a column with one value a row.
fn of_values<'a>(
    file: &Path,
    group: &dyn RowGroupReader,
    column: usize,
    pages: &'a [PageHeader],
    share: u64,
) -> Result<Bound<'a>> {
    let mut each = longest_value(pages);
    if each * MOST_ROWS > share && !pages.iter().any(PageHeader::shares_prefixes) {
        let reader = group.get_column_page_reader(column);
        let first = reader.and_then(|mut reader| reader.get_next_page());
        if let Some(Page::DictionaryPage { buf, .. }) = first.map_err(Error::columnar(file))? {
            each = each.min(longest_of(&buf));
        }
    }
    let values = pages.iter().position(|page| !page.is_dictionary());
    Ok(Bound {
        fixed: 0,
        each,
        pages: &pages[values.unwrap_or(pages.len())..],
    })
}

/// No value that is told by others, and not by its own bytes, is longer.
fn longest_value(pages: &[PageHeader]) -> u64 {
    let pages = pages
        .iter()
        .filter(|page| page.is_dictionary() || page.shares_prefixes());
    pages.map(|page| page.unfolded).max().unwrap_or(0)
}

/// The length of the longest value in a dictionary of byte strings.
fn longest_of(mut dictionary: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = dictionary.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        dictionary = rest.get(length as usize..).unwrap_or_default();
    }
    longest
}

/// The bound of a column of lists, whose rows have any number of values.
fn of_lists<'a>(
    file: &Path,
    group: &dyn RowGroupReader,
    column: usize,
    pages: &[PageHeader],
    share: u64,
) -> Result<Bound<'a>> {
    let values: u64 = pages.iter().map(|page| page.values).sum();
    let unfolded: u64 = pages.iter().map(|page| page.unfolded).sum();
    let all = unfolded.saturating_add(values.saturating_mul(longest_value(pages)));
    let bound = |fixed, each| Bound {
        fixed,
        each,
        pages: &[],
    };
    if all <= share {
        return Ok(bound(all, 0));
    }
    let reader = group.get_column_reader(column);
    let longest = match reader.map_err(Error::columnar(file))? {
        ColumnReader::ByteArrayColumnReader(reader) => longest_row(reader),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => longest_row(reader),
        _ => Ok(0),
    };
    let longest = longest.map_err(Error::columnar(file))?;
    if longest > MAX_RECORD as u64 {
        return Err(Error::TooLarge {
            path: file.to_owned(),
            what: "a row".to_owned(),
            found: longest,
            limit: MAX_RECORD as u64,
        });
    }
    Ok(bound(0, longest))
}

/// The bytes of the longest row. Its values share the bytes of their dictionary
/// here, so this takes little memory.
fn longest_row<T: DataType>(mut reader: ColumnReaderImpl<T>) -> parquet::errors::Result<u64> {
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut longest = 0;
    loop {
        definitions.clear();
        repetitions.clear();
        values.clear();
        let read = reader.read_records(
            1,
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )?;
        if read.0 == 0 {
            return Ok(longest);
        }
        let bytes = values.iter().map(|value| value.as_bytes().len() as u64);
        longest = longest.max(bytes.sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_rows_can_touch_are_counted_together() {
        let page = |values, unfolded| {
            let mut page = PageHeader::default();
            (page.values, page.unfolded) = (values, unfolded);
            page
        };
        let pages = [page(10, 100), page(1, 900), page(10, 80), page(10, 70)];
        assert_eq!(widest(&pages, 1), 900);
        assert_eq!(widest(&pages, 2), 1_000);
        assert_eq!(widest(&pages, 3), 1_080);
        assert_eq!(widest(&pages, 100), 1_150);
        assert_eq!(widest(&[], 5), 0);
    }

    #[test]
    fn the_longest_value_of_a_dictionary_counts() {
        let dictionary = b"\x02\0\0\0ab\x05\0\0\0abcde\x01\0\0\0x";
        assert_eq!(longest_of(dictionary), 5);
        // A length beyond the end is the reader's to refuse.
        assert_eq!(longest_of(b"\xff\0\0\0ab"), 255);
    }
}
