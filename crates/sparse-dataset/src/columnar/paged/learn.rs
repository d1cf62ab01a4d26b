//! Writing a file beside its original, to find out what has to be kept.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::file::metadata::ParquetMetaData;

use super::codec::Packer;
use super::frame::{Body, Frame, FrameWriter, packed};
use super::habits::Habits;
use super::page::{OurPage, Shape};
use super::places::Places;
use crate::columnar::pages::{PageHeader, Pages, check_pages};
use crate::error::{Error, Result};
use crate::table::Source;
use crate::workers::each;

/// What is kept is given up on where it takes more than so many times what the frame may take: it
/// is compressed in the end.
const PACKED: u64 = 8;

/// Pages that are under way together for each thread, and bytes of theirs after which there is none
/// more: what a page says that it unfolds to need not be true.
const TOGETHER: usize = 4;
const LARGE: u64 = 64 << 20;

/// Pages under way together.
pub(super) struct Together<T> {
    pub(super) pages: Vec<T>,
    most: usize,
    bytes: u64,
}

impl<T> Together<T> {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            pages: Vec::new(),
            most: TOGETHER * threads,
            bytes: 0,
        }
    }

    /// Whether one more may be; the first may always.
    pub(super) fn has_room(&self) -> bool {
        self.pages.len() < self.most && self.bytes < LARGE
    }

    /// Adds one that unfolds to so many bytes.
    pub(super) fn push(&mut self, page: T, bytes: u64) {
        self.pages.push(page);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A file and where its pages are, by row group and column.
pub(super) struct Original {
    pub(super) source: Source,
    pub(super) chunks: Vec<Vec<Pages>>,
}

impl Original {
    /// `None` if its pages do not stand in the order of row groups and columns.
    fn of(path: &Path, metadata: &ParquetMetaData) -> Result<Option<Self>> {
        let source = Source::unread(path)?;
        let chunks = check_pages(&source, metadata)?;
        let mut end = 0;
        for page in chunks.iter().flatten().flatten() {
            if page.at < end {
                return Ok(None);
            }
            end = page.at + page.stored;
        }
        Ok(Some(Self { source, chunks }))
    }

    /// The pages of a column chunk, where there is such a one.
    fn chunk(&self, group: usize, column: usize) -> Option<&Pages> {
        self.chunks.get(group)?.get(column)
    }
}

/// What is learnt, shared with the writer that learns it.
#[derive(Clone)]
pub(crate) struct Learner {
    pub(super) original: Arc<Original>,
    habits: Arc<Habits>,
    learnt: Arc<Mutex<Learnt>>,
    /// Bytes that the frame may take.
    most: u64,
}

#[derive(Default)]
struct Learnt {
    frame: FrameWriter,
    /// How far the original was gone through.
    end: u64,
    finished: Option<Vec<u8>>,
}

impl Learner {
    /// `None` for files whose pages our writer does not make. The frame is to take at most `most`
    /// bytes.
    pub(crate) fn of(path: &Path, metadata: &ParquetMetaData, most: u64) -> Result<Option<Self>> {
        // Before its pages are looked at: those of some compressors have to be unfolded for that.
        if !Habits::may_be_of(metadata) {
            return Ok(None);
        }
        let Some(original) = Original::of(path, metadata)? else {
            return Ok(None);
        };
        let habits = Habits::of(metadata, &original)?;
        Ok(habits.map(|habits| Self {
            original: Arc::new(original),
            habits: Arc::new(habits),
            learnt: Arc::default(),
            most,
        }))
    }

    pub(crate) fn habits(&self) -> &Habits {
        &self.habits
    }

    /// The frame, if the file was gone through to its end and it is small enough.
    pub(crate) fn into_frame(self) -> Option<Vec<u8>> {
        self.with(|learnt| learnt.finished.take())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Learnt) -> T) -> T {
        act(&mut self.learnt.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many values are on each page of a column chunk, which is noted.
    pub(super) fn cuts(&self, group: usize, column: usize) -> Vec<u64> {
        let pages = self.original.chunk(group, column).into_iter().flatten();
        let pages = pages.filter(|page| !page.is_dictionary());
        let cuts: Vec<u64> = pages.map(|page| page.values).collect();
        self.with(|learnt| learnt.frame.cuts(&cuts));
        cuts
    }

    /// Compares a column chunk with the original's, and writes the original's bytes.
    pub(super) fn chunk(
        &self,
        (group, column): (usize, usize),
        ours: &[OurPage<'_>],
        shape: Shape,
        places: &mut Places,
        packers: &mut [Packer],
        out: &mut impl Write,
    ) -> Result<()> {
        let source = &self.original.source;
        let pages = self.original.chunk(group, column);
        let pages = pages.ok_or_else(|| self.strange())?;
        let same = pages.len() == ours.len();
        self.with(|learnt| {
            learnt.frame.count(pages.len());
            let mut pages = pages.iter().enumerate().peekable();
            while pages.peek().is_some() {
                let mut read = Together::new(packers.len());
                while read.has_room()
                    && let Some((number, page)) = pages.next()
                {
                    let mut up_to = |end| -> Result<Vec<u8>> {
                        let start = std::mem::replace(&mut learnt.end, end);
                        Ok(source.read(start, end, &mut Vec::new())?.to_vec())
                    };
                    let head = up_to(page.at)?;
                    let bytes = up_to(page.at + page.stored)?;
                    read.push((number, page, head, bytes), page.unfolded);
                }
                let found = each(
                    &read.pages,
                    packers,
                    |packer, (number, page, _, bytes)| match ours.get(*number).filter(|_| same) {
                        Some(mine) => made(mine, page, bytes, shape, packer, &source.path),
                        None => Ok(None),
                    },
                );
                for ((_, _, head, bytes), found) in read.pages.iter().zip(found) {
                    match found? {
                        Some((predicted, body, kept)) => {
                            learnt.frame.page(head, &predicted, body, &kept);
                        }
                        None => {
                            let body = Body::Literal(bytes.len());
                            learnt.frame.page(head, &[], body, bytes);
                        }
                    }
                    if learnt.frame.size > self.most.saturating_mul(PACKED) {
                        return Err(self.strange());
                    }
                    places.page(head, bytes.len());
                    for part in [head, bytes] {
                        out.write_all(part).map_err(Error::columnar(&source.path))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// The file's end, given ours.
    pub(super) fn tail(&self, groups: usize, ours: &[u8]) -> Result<Vec<u8>> {
        let source = &self.original.source;
        if groups != self.original.chunks.len() {
            return Err(self.strange());
        }
        self.with(|learnt| {
            let tail = source
                .read(learnt.end, source.len, &mut Vec::new())?
                .to_vec();
            let frame = std::mem::take(&mut learnt.frame);
            let frame = frame.finish(tail.clone(), ours, &source.path)?;
            let columns = self.habits.columns.len();
            learnt.finished = frame.filter(|frame| {
                let followed = Frame::read(frame);
                let leads = followed.is_some_and(|f| f.leads_to(groups, columns, ours, &tail));
                leads && frame.len() as u64 <= self.most
            });
            Ok(tail)
        })
    }

    /// Ends the attempt; nobody reads what it says.
    fn strange(&self) -> Error {
        Error::Columnar {
            path: self.original.source.path.clone(),
            message: "its pages are not those that its rows lead to".to_owned(),
        }
    }
}

/// The header predicted, how the page is made, and what is kept for that.
type Made = (Vec<u8>, Body, Vec<u8>);

/// How our page becomes the original's.
fn made(
    ours: &OurPage<'_>,
    page: &PageHeader,
    bytes: &[u8],
    shape: Shape,
    packer: &mut Packer,
    file: &Path,
) -> Result<Option<Made>> {
    let plain = page.all_plain;
    let Some(mine) = ours.plain(shape, false) else {
        return Ok(None);
    };
    let width = page.unfolded == mine.len() as u64 + 1;
    let like_theirs = if width {
        ours.plain(shape, true)
    } else {
        Some(Cow::Borrowed(&*mine))
    };
    let made = like_theirs.and_then(|page| ours.packed(page, shape, plain, packer));
    if let Some((head, made)) = made
        && *made == *bytes
    {
        return Ok(Some((head, Body::Ours { width, plain }, Vec::new())));
    }
    // Runs of references may be told otherwise: the same bits in other portions.
    let unfolded = || {
        let (levels, values) = bytes.split_at_checked(page.levels())?;
        let length = (page.unfolded as usize).checked_sub(levels.len())?;
        let values = if plain {
            values.to_vec()
        } else {
            shape.codec.unfold(values, length)?
        };
        Some([levels, &values].concat())
    };
    let Some(unfolded) = unfolded() else {
        return Ok(None);
    };
    let again = ours.packed(unfolded.as_slice().into(), shape, plain, packer);
    let Some((head, _)) = again.filter(|(_, made)| **made == *bytes) else {
        return Ok(None);
    };
    let length = unfolded.len();
    let patch = packed(unfolded, &mine, file)?.filter(|patch| patch.len() < bytes.len() / 2);
    Ok(patch.map(|patch| {
        let body = Body::Patched {
            patch: patch.len(),
            unfolded: length,
            plain,
        };
        (head, body, patch)
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use crate::artifact::Artifact;
    use crate::columnar::Recipe;
    use crate::header::Body;
    use crate::spec::CompressSpec;

    #[test]
    fn files_of_other_writers_are_written_page_by_page() {
        let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let folder = tempfile::tempdir().unwrap();
        let (base, files) = (data.join("gsm8k_40.jsonl"), data.join("parquet"));
        crate::compress(&base, &files, folder.path(), &CompressSpec::default(), &()).unwrap();
        let mut seen = 0;
        let artifact = Artifact::open(folder.path()).unwrap();
        artifact
            .each_split(|header, _, _| {
                let Body::Columnar(recipe) = &header.body else {
                    panic!("{} is not written by its rows", header.name);
                };
                assert!(
                    Recipe::read(recipe).unwrap().is_by_pages(),
                    "{}",
                    header.name
                );
                seen += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 8);
    }
}
