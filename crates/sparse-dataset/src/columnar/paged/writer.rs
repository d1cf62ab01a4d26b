//! Rows to pages, each compressed and headed as in the original.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use super::codec::Packer;
use super::frame::{Body, Frame, Head, unpacked};
use super::habits::{HELD, Habits};
use super::learn::{Learner, Together};
use super::page::{OurPage, Packed, Shape};
use super::places::Places;
use crate::error::{Error, Result};
use crate::workers::each;

/// Rows after which writers look whether a page is full.
pub(crate) const LOOK: usize = 1024;

/// Where the pages' headers and the file's end come from.
pub(crate) enum Script {
    /// The original, while the frame is written.
    Learn(Learner),
    /// The frame.
    Follow(Box<Frame>),
}

/// What our writer writes, taken out after each column chunk.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves it all behind `bytes`; the room of either is used again.
    fn add_to(&self, bytes: &mut Vec<u8>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.is_empty() {
            std::mem::swap(bytes, &mut held);
        } else {
            bytes.append(&mut held);
        }
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A Parquet file being written as its original was.
pub(crate) struct PagedWriter<W: Write> {
    out: W,
    file: SerializedFileWriter<Captured>,
    factory: ArrowRowGroupWriterFactory,
    captured: Captured,
    schema: SchemaRef,
    /// Of each column of values.
    shapes: Vec<Shape>,
    habits: Habits,
    script: Script,
    places: Places,
    /// Room for column chunks, empty between row groups.
    room: Vec<u8>,
    /// For each thread that compresses pages.
    packers: Vec<Packer>,
    groups: usize,
    feeds: Vec<Feed>,
}

impl<W: Write> PagedWriter<W> {
    /// `options` are set up by `habits`.
    pub(crate) fn new(
        out: W,
        schema: SchemaRef,
        options: ArrowWriterOptions,
        habits: Habits,
        script: Script,
        threads: usize,
    ) -> std::result::Result<Self, ParquetError> {
        let captured = Captured::default();
        let writer = ArrowWriter::try_new_with_options(captured.clone(), schema.clone(), options)?;
        let (mut file, factory) = writer.into_serialized_writer()?;
        file.flush()?;
        captured.take(); // the magic number, which the first page's header brings along
        let columns = file.schema_descr().columns();
        let shapes = columns.iter().zip(&habits.columns);
        let shapes: Vec<Shape> = shapes
            .map(|(column, habit)| Shape {
                codec: habit.codec,
                second_version: habits.second_version,
                defined: column.max_def_level() > 0,
                repeated: column.max_rep_level() > 0,
            })
            .collect();
        if columns.len() != habits.columns.len() {
            return Err(ParquetError::General(
                "not a habit for each column".to_owned(),
            ));
        }
        Ok(Self {
            out,
            file,
            factory,
            captured,
            schema,
            shapes,
            habits,
            script,
            places: Places::default(),
            room: Vec::new(),
            packers: std::iter::repeat_with(Packer::default)
                .take(threads.max(1))
                .collect(),
            groups: 0,
            feeds: Vec::new(),
        })
    }

    /// Writes rows; `ends` says that they are the last of a row group.
    pub(crate) fn write(&mut self, batch: &RecordBatch, ends: bool, path: &Path) -> Result<()> {
        if self.feeds.is_empty() {
            self.feeds = self.start_group(path)?;
        }
        for feed in &mut self.feeds {
            let array = batch.column(feed.root);
            feed.push(array, ends).map_err(Error::columnar(path))?;
        }
        if ends { self.end_group(path) } else { Ok(()) }
    }

    fn start_group(&mut self, path: &Path) -> Result<Vec<Feed>> {
        let writers = self.factory.create_column_writers(self.groups);
        let mut writers = writers.map_err(Error::columnar(path))?.into_iter();
        let mut cuts = Vec::new();
        for column in 0..self.shapes.len() {
            cuts.push(match &mut self.script {
                Script::Learn(learner) => learner.cuts(self.groups, column),
                Script::Follow(frame) => frame.cuts().ok_or_else(|| damaged(path))?,
            });
        }
        let types = self.file.schema_descr();
        let roots: Vec<usize> = (0..self.shapes.len())
            .map(|column| types.get_column_root_idx(column))
            .collect();
        let mut feeds = Vec::new();
        let mut first = 0;
        while first < roots.len() {
            let root = roots[first];
            let count = roots[first..]
                .iter()
                .take_while(|&&other| other == root)
                .count();
            let habits = |leaf: usize| {
                let repeated = self.shapes[leaf].repeated;
                (repeated, self.habits.columns[leaf].in_pieces)
            };
            let alike = (first..first + count).all(|leaf| {
                let same = cuts[leaf] == cuts[first] && habits(leaf) == habits(first);
                same && (!habits(leaf).0 || cuts[leaf].len() < 2)
            });
            // Columns of one struct are cut together where they are cut alike.
            let parts: Vec<Range<usize>> = if alike {
                std::iter::once(0..count).collect()
            } else {
                (0..count).map(|leaf| leaf..leaf + 1).collect()
            };
            for part in parts {
                let leaf = first + part.start;
                let (repeated, in_pieces) = habits(leaf);
                // The last page takes what is left.
                cuts[leaf].pop();
                feeds.push(Feed {
                    root,
                    field: self.schema.fields()[root].clone(),
                    writers: writers.by_ref().take(part.len()).collect(),
                    part,
                    cuts: std::mem::take(&mut cuts[leaf]).into_iter(),
                    repeated,
                    in_pieces,
                    held: Vec::new(),
                    bytes: 0,
                    values: 0,
                    full: None,
                });
            }
            first += count;
        }
        Ok(feeds)
    }

    fn end_group(&mut self, path: &Path) -> Result<()> {
        let feeds = std::mem::take(&mut self.feeds);
        let mut group = self.file.next_row_group().map_err(Error::columnar(path))?;
        let writers = feeds.into_iter().flat_map(|feed| feed.writers);
        let (mut lengths, mut bytes) = (Vec::new(), std::mem::take(&mut self.room));
        self.places.group();
        let mut finished = Finished {
            out: &mut self.out,
            script: &mut self.script,
            places: &mut self.places,
            packers: &mut self.packers,
            shapes: &self.shapes,
            group: self.groups,
            columns: 0,
        };
        for writer in writers {
            let chunk = writer.close().map_err(Error::columnar(path))?;
            lengths.push(chunk.close().bytes_written as usize);
            chunk
                .append_to_row_group(&mut group)
                .map_err(Error::columnar(path))?;
            // The last of it may still be in a buffer.
            self.captured.add_to(&mut bytes);
            finished.take(&mut bytes, &lengths, path)?;
        }
        group.close().map_err(Error::columnar(path))?;
        self.file.flush().map_err(Error::columnar(path))?;
        self.captured.add_to(&mut bytes);
        finished.take(&mut bytes, &lengths, path)?;
        if finished.columns < lengths.len() || !bytes.is_empty() {
            return Err(damaged(path));
        }
        self.room = bytes;
        self.groups += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self, path: &Path) -> Result<()> {
        self.file.finish().map_err(Error::columnar(path))?;
        let mut ours = self.captured.take();
        if self.habits.places
            && let Some(corrected) = self.places.corrected(&ours)
        {
            ours = corrected;
        }
        let tail = match self.script {
            Script::Learn(learner) => learner.tail(self.groups, &ours)?,
            Script::Follow(frame) => frame.finish(&ours).ok_or_else(|| damaged(path))?,
        };
        self.out.write_all(&tail).map_err(Error::columnar(path))
    }
}

/// The column chunks of a row group, on their way out.
struct Finished<'a, W: Write> {
    out: &'a mut W,
    script: &'a mut Script,
    places: &'a mut Places,
    packers: &'a mut [Packer],
    shapes: &'a [Shape],
    group: usize,
    /// So many are out.
    columns: usize,
}

impl<W: Write> Finished<'_, W> {
    /// Takes the chunks that are complete, given the lengths of all that were begun.
    fn take(&mut self, bytes: &mut Vec<u8>, lengths: &[usize], path: &Path) -> Result<()> {
        let mut done = 0;
        for &length in &lengths[self.columns..] {
            let Some(chunk) = bytes.get(done..done + length) else {
                break;
            };
            self.chunk(chunk, path)?;
            done += length;
        }
        bytes.drain(..done);
        Ok(())
    }

    fn chunk(&mut self, chunk: &[u8], path: &Path) -> Result<()> {
        let ours = OurPage::all(chunk).ok_or_else(|| damaged(path))?;
        let column = self.columns;
        let shape = self.shapes[column];
        self.places.chunk(chunk.len());
        let place = (self.group, column);
        match self.script {
            Script::Learn(learner) => {
                let Self {
                    places,
                    packers,
                    out,
                    ..
                } = self;
                learner.chunk(place, &ours, shape, places, packers, out)?;
            }
            Script::Follow(frame) => {
                let count = frame.count().ok_or_else(|| damaged(path))?;
                let mut numbers = (0..count).peekable();
                while numbers.peek().is_some() {
                    let mut tasks = Together::new(self.packers.len());
                    while tasks.has_room()
                        && let Some(number) = numbers.next()
                    {
                        let task = Task::next(frame, ours.get(number));
                        let task = task.ok_or_else(|| damaged(path))?;
                        let bytes = task.bytes();
                        tasks.push(task, bytes);
                    }
                    let done = each(&tasks.pages, self.packers, |packer, task| {
                        task.page(frame, shape, packer)
                    });
                    for page in done {
                        let (head, bytes) = page.ok_or_else(|| damaged(path))?;
                        self.places.page(&head, bytes.len());
                        for part in [&head[..], &bytes] {
                            self.out.write_all(part).map_err(Error::columnar(path))?;
                        }
                    }
                }
            }
        }
        self.columns += 1;
        Ok(())
    }
}

fn damaged(path: &Path) -> Error {
    Error::Columnar {
        path: path.to_owned(),
        message: "damaged: what is kept of its pages does not fit its rows".to_owned(),
    }
}

/// A page of the original that is to be made of ours.
struct Task<'a> {
    ours: Option<&'a OurPage<'a>>,
    body: Body,
    head: Head,
    /// What the frame holds of it.
    kept: Range<usize>,
}

impl<'a> Task<'a> {
    fn next(frame: &mut Frame, ours: Option<&'a OurPage<'a>>) -> Option<Self> {
        let (body, head) = frame.body()?;
        let kept = match body {
            Body::Ours { .. } => 0,
            Body::Patched { patch, .. } => patch,
            Body::Literal(length) => length,
        };
        Some(Self {
            ours,
            body,
            head,
            kept: frame.literal(kept)?,
        })
    }

    /// What it takes beside our page, of which there are no more than were made.
    fn bytes(&self) -> u64 {
        match self.body {
            Body::Ours { .. } => 0,
            Body::Patched { unfolded, .. } => unfolded as u64,
            Body::Literal(length) => length as u64,
        }
    }

    /// The page with its header.
    fn page<'b>(&self, frame: &'b Frame, shape: Shape, packer: &mut Packer) -> Option<Packed<'b>>
    where
        'a: 'b,
    {
        let kept = frame.kept(self.kept.clone())?;
        let (predicted, bytes) = match self.body {
            Body::Ours { width, plain } => {
                let page = self.ours?.plain(shape, width)?;
                self.ours?.packed(page, shape, plain, packer)?
            }
            Body::Patched {
                unfolded, plain, ..
            } => {
                let mine = self.ours?.plain(shape, false)?;
                let bytes = unpacked(kept, &mine, unfolded as u64)?;
                self.ours?.packed(bytes.into(), shape, plain, packer)?
            }
            Body::Literal(_) => (Vec::new(), kept.into()),
        };
        Some((self.head.apply(predicted)?, bytes))
    }
}

/// Some columns of values of one column of the schema, on their way to their writers: a page at a
/// time, which a writer then ends.
struct Feed {
    root: usize,
    field: FieldRef,
    /// Which of the field's columns of values.
    part: Range<usize>,
    writers: Vec<ArrowColumnWriter>,
    /// Values on the pages that follow the one under way; after these there is one more.
    cuts: std::vec::IntoIter<u64>,
    repeated: bool,
    in_pieces: bool,
    held: Vec<ArrayRef>,
    /// That are held, in all.
    bytes: usize,
    values: u64,
    /// What fills the page under way, where that is known.
    full: Option<u64>,
}

type Fed = std::result::Result<(), ParquetError>;

impl Feed {
    fn push(&mut self, array: &ArrayRef, ends: bool) -> Fed {
        if self.in_pieces {
            for start in (0..array.len()).step_by(LOOK) {
                self.feed(&array.slice(start, LOOK.min(array.len() - start)))?;
            }
            return Ok(());
        }
        self.bytes += array.get_array_memory_size();
        let each = self
            .repeated
            .then(|| values_of_rows(array, self.part.start));
        let mut done = 0;
        while done < array.len() {
            let next = || self.cuts.next().unwrap_or(u64::MAX);
            let full = *self.full.get_or_insert_with(next);
            let start = done;
            if let Some(each) = &each {
                while done < array.len() && self.values < full {
                    self.values += each[done];
                    done += 1;
                }
            } else {
                let rows = (full - self.values).min((array.len() - done) as u64);
                self.values += rows;
                done += rows as usize;
            }
            self.held.push(array.slice(start, done - start));
            if self.values >= full {
                self.end_page()?;
            }
        }
        if ends && !self.held.is_empty() {
            return self.end_page();
        }
        if self.bytes > HELD {
            let message = "a page that is too wide to be held";
            return Err(ParquetError::General(message.to_owned()));
        }
        Ok(())
    }

    fn end_page(&mut self) -> Fed {
        let held = std::mem::take(&mut self.held);
        (self.bytes, self.values, self.full) = (0, 0, None);
        if let [page] = held.as_slice() {
            return self.feed(page);
        }
        let all: Vec<&dyn Array> = held.iter().map(AsRef::as_ref).collect();
        self.feed(&arrow_select::concat::concat(&all)?)
    }

    fn feed(&mut self, array: &ArrayRef) -> Fed {
        let leaves = compute_leaves(&self.field, array)?;
        for (writer, leaf) in self.writers.iter_mut().zip(&leaves[self.part.clone()]) {
            writer.write(leaf)?;
        }
        Ok(())
    }
}

/// How many values, nulls and empty lists among them, one column of values of `array` has of each row.
fn values_of_rows(array: &ArrayRef, leaf: usize) -> Vec<u64> {
    let all = |parts: Vec<Range<usize>>, child: &ArrayRef| {
        let each = values_of_rows(child, leaf);
        let parts = parts.into_iter().enumerate();
        let of = |(row, part): (usize, Range<usize>)| {
            if array.is_null(row) || part.is_empty() {
                return 1;
            }
            each[part].iter().sum()
        };
        parts.map(of).collect()
    };
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            all(places(list.value_offsets()), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            all(places(list.value_offsets()), list.values())
        }
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let length = list.value_length() as usize;
            let places = (0..array.len()).map(|row| row * length..(row + 1) * length);
            all(places.collect(), list.values())
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            all(places(map.value_offsets()), &entries)
        }
        DataType::Struct(fields) => {
            let mut before = 0;
            for (field, child) in fields.iter().zip(array.as_struct().columns()) {
                let count = columns_of_values(field.data_type());
                if leaf < before + count {
                    let mut each = values_of_rows(child, leaf - before);
                    for (row, each) in each.iter_mut().enumerate() {
                        if array.is_null(row) {
                            *each = 1;
                        }
                    }
                    return each;
                }
                before += count;
            }
            vec![1; array.len()]
        }
        _ => vec![1; array.len()],
    }
}

fn places<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<Range<usize>> {
    let ends = offsets.windows(2);
    ends.map(|ends| ends[0].as_usize()..ends[1].as_usize())
        .collect()
}

fn columns_of_values(data_type: &DataType) -> usize {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => columns_of_values(field.data_type()),
        DataType::Struct(fields) => {
            let fields = fields.iter();
            fields
                .map(|field| columns_of_values(field.data_type()))
                .sum()
        }
        _ => 1,
    }
}
