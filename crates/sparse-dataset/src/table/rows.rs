//! The rows of one or several files under common column numbers.

use std::path::Path;

use super::declared::{Declared, Scales};
use super::ends::Ends;
use super::memory::Memory;
use super::record::{Kind, Record};
use super::source::Source;
use super::stored::{StoredRows, read_stored};
use super::textual::{TextOptions, TextTable};
use super::window::{GATHERED, Window, room};
use crate::coding::Remaining;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::text::{Columns, Layout};

/// Whether a record of a document of so many is what follows its last object.
pub(crate) fn is_tail(record: u32, records: usize) -> bool {
    record > 0 && record as usize + 1 == records
}

enum Part {
    Text(Box<TextTable>),
    Stored(Box<StoredTable>),
}

/// Rows that this process stored a moment ago.
struct StoredTable {
    source: Source,
    ends: Ends,
    columns: Columns,
    window: Window,
}

/// Rows that can be read in any order.
#[derive(Default)]
pub(crate) struct Rows {
    parts: Vec<Part>,
    /// The first row of each part, and the number of rows.
    starts: Vec<u32>,
    /// The common number of each part's columns.
    numbers: Vec<Vec<u32>>,
    pub(crate) columns: Columns,
    /// Of the decimals of columnar files.
    pub(crate) scales: Scales,
    /// The rows that no file of a derivative has used yet, where files count on
    /// from each other.
    carried: Option<Remaining>,
    scratch: Record,
}

impl Rows {
    /// Adds a text file. Rows of a base document get the cells of the objects
    /// around them, so that each is a whole row. Gives the columns that the
    /// file declares.
    pub(crate) fn add_text(
        &mut self,
        source: Source,
        format: Format,
        options: TextOptions,
        fill: bool,
        memory: &mut Memory,
    ) -> Result<Option<Declared>> {
        let path = source.path.clone();
        let mut table = TextTable::open(source, format, options)?;
        if !(fill && table.parser.is_document()) {
            let declared = matches!(format, Format::Csv | Format::Tsv)
                .then(|| Declared::names(&table.columns().names));
            self.add(Part::Text(Box::new(table)), &path)?;
            return Ok(declared);
        }
        let mut stored = StoredRows::within(memory.left());
        let mut record = Record::default();
        let mut around: Vec<Option<(Kind, Vec<u8>)>> = Vec::new();
        for row in 0..table.rows() {
            table.read(row, &mut record)?;
            around.resize(table.columns().names.len(), None);
            for &cell in record.cells() {
                around[cell.column as usize] = Some((cell.kind, record.bytes(cell).to_vec()));
            }
            if record.own > 0 {
                for (column, inherited) in around.iter().enumerate() {
                    if let Some((kind, bytes)) = inherited
                        && record.get(column).is_none()
                    {
                        record.inherit(column as u32, *kind, bytes);
                    }
                }
            }
            stored.push(&record, &path)?;
        }
        let columns = table.columns().clone();
        self.add_stored(stored, columns, &path, memory)?;
        Ok(None)
    }

    /// Adds rows that were read from a columnar file.
    pub(crate) fn add_stored(
        &mut self,
        stored: StoredRows,
        columns: Columns,
        path: &Path,
        memory: &mut Memory,
    ) -> Result<()> {
        let (source, ends) = stored.finish(path)?;
        if source.is_held() {
            memory.take(source.len);
        }
        let table = StoredTable {
            source,
            ends,
            columns,
            window: Window::default(),
        };
        self.add(Part::Stored(Box::new(table)), path)
    }

    fn add(&mut self, part: Part, path: &Path) -> Result<()> {
        let rows = match &part {
            Part::Text(table) => table.ends.len() as u64,
            Part::Stored(table) => table.ends.len() as u64,
        };
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        let before = self.starts.last().copied().unwrap_or(0);
        let total = u64::from(before) + rows;
        let limit = u64::from(u32::MAX) - 1;
        let too_large = || Error::TooLarge {
            path: path.to_owned(),
            what: "the number of rows".to_owned(),
            found: total,
            limit,
        };
        let end = u32::try_from(total)
            .ok()
            .filter(|&end| u64::from(end) <= limit)
            .ok_or_else(too_large)?;
        self.parts.push(part);
        self.numbers.push(Vec::new());
        self.starts.push(end);
        Ok(())
    }

    /// The bytes of the files, as they are read.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(table) => table.source.len,
                Part::Stored(table) => table.source.len,
            })
            .sum()
    }

    pub(crate) fn len(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Lets each file count on from the one before: the rows that this one used
    /// cost more in the next than those that none did.
    pub(crate) fn carry(&mut self) {
        self.carried = Some(Remaining::new(self.len()));
    }

    /// The rows that the files before did not use.
    pub(crate) fn unused(&self) -> Remaining {
        match &self.carried {
            Some(unused) => unused.clone(),
            None => Remaining::new(self.len()),
        }
    }

    /// Takes note of what a file left.
    pub(crate) fn set_unused(&mut self, unused: Remaining) {
        if self.carried.is_some() {
            self.carried = Some(unused);
        }
    }

    /// The part that a row is in, and its number there.
    fn place(&self, row: u32) -> (usize, u32) {
        let which = self
            .starts
            .partition_point(|&start| start <= row)
            .saturating_sub(1);
        (which, row - self.starts[which])
    }

    /// Gets ready to read the first of `rows`, in any order, and says how many
    /// those are. Rows that do not exist are left out.
    pub(crate) fn gather(&mut self, rows: &[u32]) -> Result<usize> {
        let held = |part: &Part| match part {
            Part::Text(table) => table.source.is_held(),
            Part::Stored(table) => table.source.is_held(),
        };
        if self.parts.iter().all(held) {
            return Ok(rows.len());
        }
        let mut spans: Vec<Vec<(u64, u64)>> = vec![Vec::new(); self.parts.len()];
        let (mut taken, mut left) = (0, GATHERED);
        for &row in rows {
            if row < self.len() {
                let (which, local) = self.place(row);
                let span = match &self.parts[which] {
                    Part::Text(table) => table.ends.span(local),
                    Part::Stored(table) => table.ends.span(local),
                };
                match left.checked_sub(room(span)) {
                    Some(rest) => left = rest,
                    None if taken == 0 => left = 0,
                    None => break,
                }
                spans[which].push(span);
            }
            taken += 1;
        }
        for (part, spans) in self.parts.iter_mut().zip(spans) {
            match part {
                Part::Text(table) => table.window.gather(&table.source, spans)?,
                Part::Stored(table) => table.window.gather(&table.source, spans)?,
            }
        }
        Ok(taken)
    }

    /// Reads a row of any part.
    pub(crate) fn read(&mut self, row: u32, record: &mut Record) -> Result<()> {
        let (which, local) = self.place(row);
        let names = match &mut self.parts[which] {
            Part::Text(table) => {
                table.read(local, record)?;
                &table.parser.columns.names
            }
            Part::Stored(table) => {
                let (start, end) = table.ends.span(local);
                let bytes = table.window.row(&table.source, start, end)?;
                // The rows were written by this process a moment ago.
                if read_stored(bytes, record).is_none() {
                    let error = std::io::Error::other("temporary rows could not be read back");
                    return Err(Error::io(&table.source.path)(error));
                }
                &table.columns.names
            }
        };
        let numbers = &mut self.numbers[which];
        for name in &names[numbers.len()..] {
            numbers.push(self.columns.intern(name));
        }
        if numbers
            .iter()
            .enumerate()
            .any(|(local, &number)| local as u32 != number)
        {
            std::mem::swap(record, &mut self.scratch);
            record.clear();
            record.template = self.scratch.template;
            for (index, &cell) in self.scratch.cells().iter().enumerate() {
                let number = numbers[cell.column as usize];
                match index < self.scratch.own {
                    true => record.push(number, cell.kind, self.scratch.bytes(cell)),
                    false => record.inherit(number, cell.kind, self.scratch.bytes(cell)),
                }
            }
        }
        Ok(())
    }

    /// Whether a row is what follows the last object of a document: no row to a person.
    pub(crate) fn is_tail(&self, row: u32) -> bool {
        let (which, local) = self.place(row);
        match &self.parts[which] {
            Part::Text(table) if table.parser.is_document() => is_tail(local, table.ends.len()),
            _ => false,
        }
    }

    /// Whether a row is the last of its file.
    pub(crate) fn ends_file(&self, row: u32) -> bool {
        self.starts.binary_search(&row.wrapping_add(1)).is_ok()
    }

    /// The bytes of a row as they stand in its file; nothing where it is not a
    /// line of text.
    pub(crate) fn line(&mut self, row: u32) -> Result<Option<&[u8]>> {
        let (which, local) = self.place(row);
        match &mut self.parts[which] {
            Part::Text(table) => table.line(local).map(Some),
            Part::Stored(_) => Ok(None),
        }
    }

    /// Whether some of the files are delimited text, whose cells have no types.
    pub(crate) fn is_delimited(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Text(table) => matches!(table.parser.layout, Layout::Delimited(_)),
            Part::Stored(_) => false,
        })
    }

    /// The rows that are header lines, in order.
    pub(crate) fn headers(&self) -> Vec<u32> {
        let parts = self.parts.iter().zip(&self.starts);
        let header = |(part, &start): (&Part, &u32)| match part {
            Part::Text(table) => start..start + table.header,
            Part::Stored(_) => 0..0,
        };
        parts.flat_map(header).collect()
    }

    /// Whether strings that stand in these files as they are do so in `layout` as
    /// well.
    pub(crate) fn escapes_as(&self, layout: &Layout) -> bool {
        let alike = |part: &Part| match (part, layout) {
            (Part::Text(table), Layout::Json(spelling)) => match &table.parser.layout {
                Layout::Json(own) => own.escapes_alike(spelling),
                Layout::Delimited(_) => true, // has none that are known to
            },
            _ => false,
        };
        self.parts.iter().all(alike)
    }

    /// See [`RecordParser::take_apart`](crate::text::RecordParser::take_apart); for rows of one
    /// file that no row was read of.
    pub(crate) fn take_apart(&mut self, whole: &[String]) {
        if let Some(Part::Text(table)) = self.parts.first_mut() {
            table.parser.take_apart(whole);
        }
    }

    /// The parser of the first file, when it is a text file.
    pub(crate) fn text(&self) -> Option<&TextTable> {
        match self.parts.first() {
            Some(Part::Text(table)) => Some(table),
            _ => None,
        }
    }
}
