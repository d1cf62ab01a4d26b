//! What a Parquet file's pages say they unfold to, checked before the reader
//! believes it: a page of a few bytes may claim, or hold, gigabytes.

use std::io::Read;
use std::path::Path;

use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::error::{Error, Result};
use crate::table::Source;
use crate::wire::put_number;

/// Pages that unfold to more are refused. Writers end pages at about 1 MB; only
/// a single large value makes them longer.
pub(super) const MAX_PAGE: u64 = 512 << 20;
/// A page's header with its statistics is not longer than this.
const MAX_HEADER: u64 = 1 << 20;
/// Most headers are much shorter.
const FIRST_LOOK: u64 = 1 << 10;
const MAX_DEPTH: usize = 16;
/// What a file ends with: the footer's length, and the magic number.
pub(super) const END: usize = 8;
/// Groups in groups of a schema, itself among them.
const MAX_GROUPS: usize = 50;
/// In a header, the next field: a number of 32 bits.
const NUMBER: u8 = 0x15;

/// Values of lists on one page: more are refused, as a few bytes can claim
/// billions that are all the same.
const MAX_VALUES: u64 = MAX_PAGE / 8;

/// What a page's header says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PageHeader {
    /// 0 holds values, 2 is a dictionary, 3 holds values with levels apart.
    kind: u64,
    pub(super) unfolded: u64,
    pub(super) stored: u64,
    /// Leading bytes that are not compressed (levels of a version 2 page).
    pub(super) plain: u64,
    /// So many of them are repetition levels.
    pub(super) repetitions: u64,
    /// A version 2 page whose values are not compressed either.
    pub(super) all_plain: bool,
    pub(super) values: u64,
    pub(super) encoding: u64,
    /// Where in the file the page's bytes start, behind the header.
    pub(super) at: u64,
}

impl PageHeader {
    pub(super) fn is_dictionary(&self) -> bool {
        self.kind == 2
    }

    /// Bytes of levels that stand apart from the values.
    pub(super) fn levels(&self) -> usize {
        if self.is_second_version() {
            self.plain as usize
        } else {
            0
        }
    }

    /// Whether levels stand apart from the values.
    pub(super) fn is_second_version(&self) -> bool {
        self.kind == 3
    }

    /// Whether its values are numbers of dictionary entries.
    pub(super) fn refers(&self) -> bool {
        !self.is_dictionary() && matches!(self.encoding, 2 | 8)
    }

    /// Whether a value is told as the beginning of the one before and its rest.
    pub(super) fn shares_prefixes(&self) -> bool {
        self.encoding == 7
    }
}

/// The pages of one column chunk.
pub(super) type Pages = Vec<PageHeader>;

/// Goes through the page headers of all column chunks; gives them by row group
/// and column.
pub(super) fn check_pages(file: &Source, metadata: &ParquetMetaData) -> Result<Vec<Vec<Pages>>> {
    let groups = metadata.row_groups().iter();
    let chunks = groups.map(|group| {
        let columns = group.columns().iter();
        columns.map(|column| check_chunk(file, column)).collect()
    });
    chunks.collect()
}

fn check_chunk(file: &Source, column: &ColumnChunkMetaData) -> Result<Pages> {
    let mut buffer = Vec::new();
    let mut pages = Vec::new();
    let too_large = |what: &str, found, limit| Error::TooLarge {
        path: file.path.clone(),
        what: format!("{what} of column {}", column.column_path()),
        found,
        limit,
    };
    let (start, length) = column.byte_range();
    let end = start.checked_add(length).filter(|&end| end <= file.len);
    let end = end.ok_or_else(|| damaged(&file.path, "a column chunk beyond the file's end"))?;
    let mut at = start;
    while at < end {
        let mut page = None;
        for most in [FIRST_LOOK, MAX_HEADER] {
            let head = file.read(at, (at + most).min(end), &mut buffer)?;
            let mut input = head;
            page = read_header(&mut input).map(|page| (page, (head.len() - input.len()) as u64));
            if page.is_some() {
                break;
            }
        }
        let (mut page, length) =
            page.ok_or_else(|| damaged(&file.path, "a page header that makes no sense"))?;
        at += length;
        page.at = at;
        if page.unfolded > MAX_PAGE {
            return Err(too_large("a page", page.unfolded, MAX_PAGE));
        }
        if column.column_descr().max_rep_level() > 0 && page.values > MAX_VALUES {
            return Err(too_large("the values on a page", page.values, MAX_VALUES));
        }
        if page.stored > end - at || page.plain > page.stored {
            return Err(damaged(&file.path, "a page beyond its column chunk"));
        }
        let packed = file.reader(at + page.plain, at + page.stored);
        // These decoders do not stop at the size they are told.
        let whole = match column.compression() {
            Compression::GZIP(_) => fits(flate2::read::MultiGzDecoder::new(packed), &page),
            Compression::BROTLI(_) => fits(brotli::Decompressor::new(packed, 1 << 16), &page),
            _ => true,
        };
        if !whole {
            return Err(damaged(&file.path, "a page that is larger than it says"));
        }
        at += page.stored;
        pages.push(page);
    }
    Ok(pages)
}

/// Whether columns stand in more groups in groups than are followed: readers go into them by
/// calling themselves, and write their schema for readers that refuse a few more than 60.
pub(super) fn is_deep(file: &Source) -> Result<bool> {
    let mut buffer = Vec::new();
    let before = file.len.saturating_sub(END as u64);
    let end = file.read(before, file.len, &mut buffer)?;
    let Some(&length) = end.first_chunk() else {
        return Ok(false);
    };
    let start = before.saturating_sub(u64::from(u32::from_le_bytes(length)));
    let footer = file.read(start, before, &mut buffer)?;
    // What makes no sense is the reader's to refuse.
    Ok(depth(footer).is_some_and(|depth| depth > MAX_GROUPS))
}

/// How many groups in groups the schema in a footer has.
fn depth(mut footer: &[u8]) -> Option<usize> {
    // Of each group around the next column how many members follow.
    let mut around: Vec<u64> = Vec::new();
    let mut depth = 0;
    fields(&mut footer, |field, kind, input| {
        if (field, kind) != (2, 9) {
            return skip(kind, input, 0);
        }
        for _ in 0..count_of(byte(input)?, input)? {
            let mut members = 0;
            fields(input, |field, kind, input| {
                if (field, kind) == (5, 5) {
                    members = size(input)?;
                    return Some(());
                }
                skip(kind, input, 1)
            })?;
            while around.pop_if(|left| *left == 0).is_some() {}
            if let Some(left) = around.last_mut() {
                *left -= 1;
            }
            if members > 0 {
                around.push(members);
                depth = depth.max(around.len());
            }
        }
        Some(())
    })?;
    Some(depth)
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::Columnar {
        path: path.to_owned(),
        message: format!("damaged: {what}"),
    }
}

/// Whether a decoder gives no more than the page says; other damage is left to
/// the reader.
fn fits(mut decoder: impl Read, page: &PageHeader) -> bool {
    let mut buffer = [0; 1 << 14];
    let mut unfolded = page.plain;
    while let Ok(read @ 1..) = decoder.read(&mut buffer) {
        unfolded += read as u64;
        if unfolded > page.unfolded {
            return false;
        }
    }
    true
}

/// Reads a header in Thrift's compact protocol and moves behind it.
pub(super) fn read_header(input: &mut &[u8]) -> Option<PageHeader> {
    let mut page = PageHeader::default();
    fields(input, |field, kind, input| {
        match (field, kind) {
            (1, 5) => page.kind = size(input)?,
            (2, 5) => page.unfolded = size(input)?,
            (3, 5) => page.stored = size(input)?,
            (5 | 7 | 8, 12) => fields(input, |inner, kind, input| {
                match (field, inner, kind) {
                    (_, 1, 5) => page.values = size(input)?,
                    (5 | 7, 2, 5) | (8, 4, 5) => page.encoding = size(input)?,
                    (8, 5, 5) => page.plain += size(input)?,
                    (8, 6, 5) => {
                        page.repetitions = size(input)?;
                        page.plain += page.repetitions;
                    }
                    (8, 7, 2) => page.all_plain = true,
                    _ => skip(kind, input, 1)?,
                }
                Some(())
            })?,
            _ => skip(kind, input, 0)?,
        }
        Some(())
    })?;
    Some(page)
}

/// A page's header with other sizes in it. `None` if it does not start with its kind and sizes, as
/// headers do.
pub(super) fn with_sizes(header: &[u8], unfolded: u64, stored: u64) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(header.len() + 8);
    let mut input = header;
    for size in [None, Some(unfolded), Some(stored)] {
        if byte(&mut input)? != NUMBER {
            return None;
        }
        out.push(NUMBER);
        let found = varint(&mut input)?;
        put_number(&mut out, size.map_or(found, |size| size << 1));
    }
    out.extend_from_slice(input);
    Some(out)
}

/// The header of a page of values of version 2 as one of version 1, with other sizes in it.
pub(super) fn as_first_version(header: &[u8], unfolded: u64, stored: u64) -> Option<Vec<u8>> {
    let (mut values, mut encoding, mut statistics) = (None, None, None);
    fields(&mut &*header, |field, kind, input| {
        if (field, kind) != (8, 12) {
            return skip(kind, input, 0);
        }
        fields(input, |field, kind, input| {
            match (field, kind) {
                (1, 5) => values = Some(varint(input)?),
                (4, 5) => encoding = Some(varint(input)?),
                (8, 12) => {
                    let start = *input;
                    skip(kind, input, 1)?;
                    statistics = Some(&start[..start.len() - input.len()]);
                }
                _ => skip(kind, input, 1)?,
            }
            Some(())
        })
    })?;
    let mut out = Vec::with_capacity(header.len());
    let number = |out: &mut Vec<u8>, number: u64| {
        out.push(NUMBER);
        put_number(out, number);
    };
    for size in [0, unfolded, stored] {
        number(&mut out, size << 1);
    }
    out.push(0x2c); // field 5, a structure
    number(&mut out, values?);
    number(&mut out, encoding?);
    // Levels of both kinds in runs.
    number(&mut out, 3 << 1);
    number(&mut out, 3 << 1);
    if let Some(statistics) = statistics {
        out.push(0x1c); // the next field, a structure
        out.extend_from_slice(statistics);
    }
    out.extend_from_slice(&[0, 0]);
    Some(out)
}

/// Calls `visit` with the number and type of each field of a structure.
fn fields<'a>(
    input: &mut &'a [u8],
    mut visit: impl FnMut(i64, u8, &mut &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut field = 0i64;
    loop {
        let head = byte(input)?;
        let kind = head & 15;
        if kind == 0 {
            return Some(());
        }
        field = match head >> 4 {
            0 => zigzag(input)?,
            step => field + i64::from(step),
        };
        visit(field, kind, input)?;
    }
}

/// Copies a structure to `out`, with `change` of each number in it that is not negative. It is
/// given the way there: numbers of fields, and places in lists.
pub(super) fn with_numbers(
    input: &mut &[u8],
    out: &mut Vec<u8>,
    change: &mut impl FnMut(&[i64], u64) -> u64,
) -> Option<()> {
    copy(12, input, out, &mut Vec::new(), change)
}

fn copy(
    kind: u8,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    path: &mut Vec<i64>,
    change: &mut impl FnMut(&[i64], u64) -> u64,
) -> Option<()> {
    if path.len() > MAX_DEPTH {
        return None;
    }
    let start = *input;
    match kind {
        4..=6 => {
            let number = varint(input)?;
            let number = match number & 1 {
                0 => change(path, number >> 1).checked_mul(2)?,
                _ => number,
            };
            put_number(out, number);
        }
        9 | 10 => {
            let head = byte(input)?;
            let count = count_of(head, input)?;
            out.extend_from_slice(&start[..start.len() - input.len()]);
            for place in 0..count {
                path.push(i64::try_from(place).ok()?);
                match head & 15 {
                    1 | 2 => out.push(byte(input)?),
                    kind => copy(kind, input, out, path, change)?,
                }
                path.pop();
            }
        }
        12 => {
            let mut field = 0i64;
            loop {
                let start = *input;
                let head = byte(input)?;
                if head & 15 == 0 {
                    out.push(head);
                    return Some(());
                }
                field = match head >> 4 {
                    0 => zigzag(input)?,
                    step => field.checked_add(i64::from(step))?,
                };
                out.extend_from_slice(&start[..start.len() - input.len()]);
                path.push(field);
                copy(head & 15, input, out, path, change)?;
                path.pop();
            }
        }
        _ => {
            skip(kind, input, path.len())?;
            out.extend_from_slice(&start[..start.len() - input.len()]);
        }
    }
    Some(())
}

/// How many elements a list has, of whose head this is the first byte.
fn count_of(head: u8, input: &mut &[u8]) -> Option<u64> {
    match head >> 4 {
        15 => varint(input),
        count => Some(u64::from(count)),
    }
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = input.split_first()?;
    *input = rest;
    Some(first)
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut reader = crate::wire::Reader::new(input);
    let number = reader.number()?;
    *input = reader.rest();
    Some(number)
}

fn zigzag(input: &mut &[u8]) -> Option<i64> {
    let value = varint(input)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// A 32-bit size that is not negative.
fn size(input: &mut &[u8]) -> Option<u64> {
    i32::try_from(zigzag(input)?).ok()?.try_into().ok()
}

fn skip(kind: u8, input: &mut &[u8], depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    match kind {
        1 | 2 => {}
        3 => drop(byte(input)?),
        4..=6 => drop(varint(input)?),
        7 => *input = input.get(8..)?,
        8 => {
            let length = usize::try_from(varint(input)?).ok()?;
            *input = input.get(length..)?;
        }
        9 | 10 => {
            let head = byte(input)?;
            for _ in 0..count_of(head, input)? {
                // Booleans in a list take a byte each.
                match head & 15 {
                    1 | 2 => drop(byte(input)?),
                    kind => skip(kind, input, depth + 1)?,
                }
            }
        }
        12 => fields(input, |_, kind, input| skip(kind, input, depth + 1))?,
        // Page headers hold no maps.
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_with_what_they_do_not_need() {
        // type 3 (data page v2), 300 unfolded, 100 stored, a header with levels
        // of 4 and 2 bytes, is_compressed, statistics with a binary minimum.
        let bytes = [
            0x15, 6, 0x15, 0xd8, 4, 0x15, 0xc8, 1, 0x5c, 0x15, 2, 0x15, 0, 0x15, 2, 0x15, 0, 0x15,
            8, 0x15, 4, 0x11, 0x1c, 0x18, 1, b'x', 0, 0, 0, 99,
        ];
        let mut input = bytes.as_slice();
        let found = read_header(&mut input);
        let expected = PageHeader {
            kind: 3,
            unfolded: 300,
            stored: 100,
            plain: 6,
            repetitions: 2,
            all_plain: false,
            values: 1,
            encoding: 0,
            at: 0,
        };
        assert_eq!((found, input), (Some(expected), [99].as_slice()));
        for cut in 0..bytes.len() - 1 {
            assert_eq!(read_header(&mut &bytes[..cut]), None);
        }
        assert_eq!(with_sizes(&bytes, 300, 100).unwrap(), bytes);
        let other = with_sizes(&bytes, 3, 70_000).unwrap();
        let read = read_header(&mut other.as_slice()).unwrap();
        assert_eq!((read.kind, read.unfolded, read.stored), (3, 3, 70_000));
        assert_eq!(with_sizes(&bytes[..4], 3, 70_000), None);
        assert_eq!(with_sizes(&bytes[2..], 3, 70_000), None);
        let first = as_first_version(&bytes, 310, 110).unwrap();
        let read = read_header(&mut first.as_slice()).unwrap();
        assert_eq!((read.kind, read.unfolded, read.stored), (0, 310, 110));
        assert_eq!((read.values, read.encoding, read.plain), (1, 0, 0));
        assert!(first.ends_with(&[0x1c, 0x18, 1, b'x', 0, 0, 0]));
        assert_eq!(as_first_version(&first, 310, 110), None);
    }
}
