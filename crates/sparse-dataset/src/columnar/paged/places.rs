//! Where the pages of a file came to stand, and what its footer says of that: our writer's says
//! where they stood before they were compressed.

use crate::columnar::pages::{END, read_header, with_numbers};

/// What a Parquet file begins with.
const MAGIC: u64 = 4;

/// The pages of one column chunk.
#[derive(Default)]
struct Chunk {
    dictionary: Option<u64>,
    /// Of the first page that is no dictionary.
    data: Option<u64>,
    /// Bytes with their headers, unfolded and as they are stored.
    unfolded: u64,
    stored: u64,
}

impl Chunk {
    fn start(&self) -> Option<u64> {
        self.dictionary.or(self.data)
    }
}

/// The pages written so far.
#[derive(Default)]
pub(super) struct Places {
    /// Behind the last one.
    end: u64,
    /// Of our writer's pages, which are larger.
    our_end: u64,
    groups: Vec<Vec<Chunk>>,
}

impl Places {
    pub(super) fn group(&mut self) {
        self.groups.push(Vec::new());
    }

    /// Begins a column chunk, which has so many bytes at our writer.
    pub(super) fn chunk(&mut self, ours: usize) {
        self.our_end += ours as u64;
        if let Some(group) = self.groups.last_mut() {
            group.push(Chunk::default());
        }
    }

    /// Notes a page, its header with whatever stands before it, and so many bytes.
    pub(super) fn page(&mut self, head: &[u8], bytes: usize) {
        let magic = if self.end == 0 { MAGIC } else { 0 };
        let start = self.end + magic;
        self.end += (head.len() + bytes) as u64;
        let Some(chunk) = self.groups.last_mut().and_then(|group| group.last_mut()) else {
            return;
        };
        let head = head.get(magic as usize..).unwrap_or_default();
        let header = read_header(&mut &*head).unwrap_or_default();
        let first = if header.is_dictionary() {
            &mut chunk.dictionary
        } else {
            &mut chunk.data
        };
        first.get_or_insert(start);
        chunk.unfolded = chunk
            .unfolded
            .saturating_add(header.unfolded)
            .saturating_add(head.len() as u64);
        chunk.stored += (head.len() + bytes) as u64;
    }

    /// What our writer puts behind its last page, with sizes and places as they are in the file.
    /// Nothing where that is not made as its version makes it.
    pub(super) fn corrected(&self, ours: &[u8]) -> Option<Vec<u8>> {
        let (rest, end) = ours.split_last_chunk::<END>()?;
        let (length, magic) = end.split_first_chunk()?;
        let before = rest
            .len()
            .checked_sub(u32::from_le_bytes(*length) as usize)?;
        let (indexes, footer) = rest.split_at(before);
        let moved = (self.our_end + MAGIC).checked_sub(self.end);
        let mut out = indexes.to_vec();
        with_numbers(&mut &*footer, &mut out, &mut |path, found| {
            // By their numbers in `parquet.thrift`: row groups, then a group's columns.
            let (&[4, group, ref rest @ ..], false) = (path, found == 0) else {
                return found;
            };
            let Some(group) = usize::try_from(group).ok().and_then(|g| self.groups.get(g)) else {
                return found;
            };
            let sum = |of: fn(&Chunk) -> u64| group.iter().map(of).sum();
            let chunk = |column: i64| usize::try_from(column).ok().and_then(|c| group.get(c));
            let known = match *rest {
                [2] => Some(sum(|chunk| chunk.unfolded)),
                [5] => group.first().and_then(Chunk::start),
                [6] => Some(sum(|chunk| chunk.stored)),
                [1, column, 2] => chunk(column).and_then(Chunk::start),
                // Indexes stand behind the pages, in the same order.
                [1, _, 4 | 6] => moved.and_then(|moved| found.checked_sub(moved)),
                [1, column, 3, 6] => chunk(column).map(|chunk| chunk.unfolded),
                [1, column, 3, 7] => chunk(column).map(|chunk| chunk.stored),
                [1, column, 3, 9] => chunk(column).and_then(|chunk| chunk.data),
                [1, column, 3, 11] => chunk(column).and_then(|chunk| chunk.dictionary),
                _ => None,
            };
            known.unwrap_or(found)
        })?;
        let length = u32::try_from(out.len() - before).ok()?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(magic);
        Some(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::columnar::pages::check_pages;
    use crate::table::Source;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    #[test]
    fn a_footer_that_tells_its_own_places_is_right_already() {
        let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet");
        let mut seen = 0;
        for file in std::fs::read_dir(data).unwrap() {
            let path = file.unwrap().path();
            let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
            let metadata = reader.metadata();
            let source = Source::unread(&path).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let mut places = Places::default();
            let mut end = 0;
            for chunks in check_pages(&source, metadata).unwrap() {
                places.group();
                for pages in chunks {
                    let start = end;
                    places.chunk(0);
                    for page in pages {
                        places.page(&bytes[end..page.at as usize], page.stored as usize);
                        end = (page.at + page.stored) as usize;
                    }
                    // As if nothing had been compressed.
                    places.our_end += (end - start) as u64;
                }
            }
            places.our_end -= MAGIC;
            let tail = &bytes[end..];
            let corrected = places.corrected(tail).unwrap();
            // Some writers give the place of a column's metadata where others give its first page's,
            // or none.
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_usual = ["pyarrow_26", "fastparquet", "duckdb"];
            if is_usual.iter().any(|usual| name.starts_with(usual)) {
                assert!(corrected == tail, "{name}");
                seen += 1;
            }
            for cut in 0..tail.len().min(200) {
                let _ = places.corrected(&tail[..cut]);
                let _ = places.corrected(&tail[cut..]);
            }
        }
        assert_eq!(seen, 5);
    }
}
