//! Blocks of rows: the references, the rows, then the new text if it is kept
//! apart. Models live on from block to block; the range coder starts anew, so
//! that a block is written as soon as it is full.

use super::lesson::{dictionary, pack, teach, unpack};
use super::levels::Levels;
use super::references::References;
use super::row::RowCoder;
use super::splice::{Splice, Splicer};
use super::texts::Texts;
use crate::coding::{Decoder, Encoder, Remaining};
use crate::error::Result;
use crate::matching::NEW;
use crate::plan::{Counterpart, Plan};
use crate::table::{Record, Rows, Scales};
use crate::text::Template;
use crate::wire::{Reader, put_bytes, put_number};

/// What encoder and decoder of a file must agree on.
pub(crate) struct Setup {
    /// Refers to base columns by the numbers of the base rows.
    pub(crate) plan: Plan,
    /// The base column that each column goes back to.
    counterparts: Vec<Option<Counterpart>>,
    pub(crate) templates: Vec<Template>,
    /// How the text model is set up; `None` for zstd.
    pub(crate) model: Option<ModelSize>,
    /// Whether the template of a row goes by what its base row and the one before
    /// share: in nested files rows of one paragraph look alike. Writers before
    /// [`crate::artifact::REQUIRED_QUICK`] did so in all files.
    pub(crate) paragraphs: bool,
    /// The column by which the user tells rows apart, for reports alone.
    pub(crate) key: Option<u32>,
    /// What makes the lines of whole rows of those of the base, in order of the
    /// templates. A decoder that has them hands out lines instead of cells.
    pub(crate) splices: Vec<Splice>,
}

/// The size of a text model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelSize {
    /// About how much new text it will code.
    pub(crate) bytes: u64,
    /// How much base text it learns from before it starts.
    pub(crate) lesson: u64,
}

impl Setup {
    /// `plan` refers to base columns by their places in it, `columns` are the
    /// names of its columns. `scales` are those of its decimals, where edited
    /// rows are to be told from others.
    pub(crate) fn new(
        plan: &Plan,
        columns: &[String],
        scales: &Scales,
        templates: Vec<Template>,
        model: Option<ModelSize>,
        base: &mut Rows,
    ) -> Self {
        let Rows {
            columns: numbers,
            scales: base,
            ..
        } = base;
        let counterparts =
            plan.resolved_counterparts(columns, scales, base, |name| numbers.named(name));
        let mut plan = plan.clone();
        plan.resolve(numbers);
        Self {
            plan,
            counterparts,
            templates,
            model,
            paragraphs: true,
            key: None,
            splices: Vec::new(),
        }
    }

    /// The base column that a column goes back to.
    pub(crate) fn counterpart(&self, column: u32) -> Option<&Counterpart> {
        self.counterparts.get(column as usize)?.as_ref()
    }

    fn splice(&self, template: u32) -> Option<&Splice> {
        let splices = &self.splices;
        let at = splices.binary_search_by_key(&template, |splice| splice.template);
        Some(&splices[at.ok()?])
    }

    /// Whether the row that was coded last is the same one as its base row to the user, however
    /// much of it is.
    pub(crate) fn is_of(&self, rows: &RowCoder, base: &Record) -> bool {
        self.key
            .is_none_or(|key| rows.has_key(key, &self.counterparts, base))
    }

    /// Whether the row that was coded last differs from its base row in a value.
    pub(crate) fn is_edited(&self, rows: &RowCoder, base: &Record) -> bool {
        rows.is_edited(&self.counterparts, base)
    }

    fn texts(&self) -> Texts {
        match self.model {
            Some(size) => {
                Texts::model(size.bytes.saturating_add(size.lesson).min(1 << 24) as usize)
            }
            None => Texts::buffers(self.plan.columns.len()),
        }
    }
}

/// Whether a reference leads to a row that ends as the others do: the last one
/// of a file may lack its line break.
fn has_full_line(base: &Rows, reference: u32) -> bool {
    reference != NEW && !base.ends_file(reference)
}

/// What happened to the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) rows: u64,
    pub(crate) referenced: u64,
    pub(crate) moved: u64,
    pub(crate) edited: u64,
    pub(crate) new: u64,
}

/// Counts rows as they come.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// The base row of the last row that has one.
    last: Option<u32>,
}

impl Tally {
    /// Counts a row and says what it is.
    pub(crate) fn row(&mut self, base: Option<u32>, edited: bool) -> &'static str {
        let counts = &mut self.counts;
        counts.rows += 1;
        let Some(base) = base else {
            counts.new += 1;
            return "new";
        };
        let moved = self.last.is_some_and(|last| base < last);
        self.last = Some(base);
        counts.referenced += 1;
        counts.moved += u64::from(moved);
        counts.edited += u64::from(edited);
        match (edited, moved) {
            (true, _) => "edited",
            (_, true) => "moved",
            _ => "kept",
        }
    }
}

/// Encodes the blocks of one file.
pub(crate) struct BlockEncoder {
    setup: Setup,
    references: References,
    rows: RowCoder,
    levels: Levels,
    tally: Tally,
    /// Nothing where rows must be read cell by cell.
    splicer: Option<Splicer>,
    base_row: Record,
    own_row: Record,
}

impl BlockEncoder {
    pub(crate) fn new(setup: Setup, base: &mut Rows, levels: Levels) -> Result<Self> {
        let mut rows = RowCoder::new(&setup, setup.texts(), true);
        teach(&setup, &mut rows, base)?;
        let may_splice = !rows.starts_by_base() && rows.forgets_whole();
        Ok(Self {
            references: References::new(base.unused()),
            rows,
            levels,
            tally: Tally::default(),
            splicer: may_splice.then(Splicer::default),
            base_row: Record::default(),
            own_row: Record::default(),
            setup,
        })
    }

    /// Encodes the derivative rows from `first` on, one for each reference.
    pub(crate) fn block(
        &mut self,
        first: u32,
        references: &[u32],
        derivative: &mut Rows,
        base: &mut Rows,
    ) -> Result<Vec<u8>> {
        let mut coder = Encoder::new();
        for &row in references {
            // An encoder is given rows that exist, so it cannot fail.
            let _ = self.references.code(&mut coder, row);
        }
        let mut gathered = 0;
        for (offset, &reference) in references.iter().enumerate() {
            if offset == gathered {
                gathered += base.gather(&references[offset..])?;
            }
            derivative.read(first + offset as u32, &mut self.own_row)?;
            self.levels.earn(self.own_row.len());
            let base_row = if reference == NEW {
                None
            } else {
                base.read(reference, &mut self.base_row)?;
                Some(&self.base_row)
            };
            let (templates, own_row) = (&self.setup.templates, Some(&self.own_row));
            let from_base = base_row.is_some();
            let start = self
                .rows
                .start(&mut coder, templates, own_row, from_base, base_row);
            if let Some(start) = start {
                let _ = self
                    .rows
                    .cells(&mut coder, start, templates, own_row, base_row);
                if let (Some(template), Some(splicer)) = (start.whole(), &mut self.splicer)
                    && splicer.is_open(template)
                    && has_full_line(base, reference)
                    && let Some(line) = base.line(reference)?
                    && let Some(own) = derivative.line(first + offset as u32)?
                {
                    splicer.see(template, line, own);
                }
            }
            if self.own_row.own > 0 && !derivative.is_tail(first + offset as u32) {
                self.count(reference);
            }
        }
        let mut out = Vec::new();
        put_bytes(&mut out, &coder.finish());
        let dictionary = match self.setup.model {
            Some(_) => Vec::new(),
            None => dictionary(references, base)?,
        };
        if let Texts::Buffers(columns) = &mut self.rows.texts {
            for (column, (buffer, _, _)) in columns.iter_mut().enumerate() {
                if !buffer.is_empty() {
                    put_number(&mut out, column as u64 + 1);
                    put_number(&mut out, buffer.len() as u64);
                    let level = self.levels.level(buffer.len() + dictionary.len());
                    put_bytes(&mut out, &pack(buffer, &dictionary, level));
                    buffer.clear();
                }
            }
            out.push(0);
        }
        Ok(out)
    }

    fn count(&mut self, reference: u32) {
        let is_of_base = reference != NEW && self.setup.is_of(&self.rows, &self.base_row);
        let base = is_of_base.then_some(reference);
        let edited = base.is_some() && self.setup.is_edited(&self.rows, &self.base_row);
        self.tally.row(base, edited);
    }

    /// The base rows that are not used yet.
    pub(crate) fn into_unused(self) -> Remaining {
        self.references.into_remaining()
    }

    /// What makes the lines of whole rows of those of the base, where one thing
    /// does for all of a template.
    pub(crate) fn take_splices(&mut self) -> Vec<Splice> {
        self.splicer
            .take()
            .map_or_else(Vec::new, Splicer::into_splices)
    }

    /// What happened to the rows so far.
    pub(crate) fn counts(&self) -> Counts {
        self.tally.counts
    }
}

/// A row of a block.
pub(crate) enum Decoded<'a> {
    /// Its cells in coding order, and its base row with its number.
    Cells(&'a RowCoder, Option<(u32, &'a Record)>),
    /// The line of its base row, and what makes its own of it.
    Spliced(&'a Splice, &'a [u8]),
}

/// Decodes the blocks of one file.
pub(crate) struct BlockDecoder {
    pub(crate) setup: Setup,
    references: References,
    pub(crate) rows: RowCoder,
    base_row: Record,
}

impl BlockDecoder {
    pub(crate) fn new(setup: Setup, base: &mut Rows) -> Result<Self> {
        let mut rows = RowCoder::new(&setup, setup.texts(), false);
        teach(&setup, &mut rows, base)?;
        Ok(Self {
            references: References::new(base.unused()),
            rows,
            base_row: Record::default(),
            setup,
        })
    }

    /// Decodes a block of `count` rows and hands each to `visit`. `Ok(None)` if
    /// the block makes no sense.
    pub(crate) fn block(
        &mut self,
        bytes: &[u8],
        count: u32,
        base: &mut Rows,
        mut visit: impl FnMut(&Setup, Decoded<'_>) -> Result<()>,
    ) -> Result<Option<()>> {
        let mut reader = Reader::new(bytes);
        let Some(control) = reader.sized() else {
            return Ok(None);
        };
        let mut coder = Decoder::new(control);
        let mut references = Vec::new();
        for _ in 0..count {
            let Some(row) = self.references.code(&mut coder, NEW) else {
                return Ok(None);
            };
            references.push(row);
        }
        if self.setup.model.is_none() {
            let dictionary = dictionary(&references, base)?;
            if self.read_buffers(&mut reader, &dictionary).is_none() {
                return Ok(None);
            }
        }
        if reader.left() > 0 {
            return Ok(None);
        }
        let mut gathered = 0;
        for (offset, &reference) in references.iter().enumerate() {
            if offset == gathered {
                gathered += base.gather(&references[offset..])?;
            }
            let Self {
                setup,
                rows,
                base_row,
                ..
            } = &mut *self;
            let from_base = reference != NEW;
            let early = from_base && rows.starts_by_base();
            if early {
                base.read(reference, base_row)?;
            }
            let shared = early.then_some(&*base_row);
            let start = rows.start(&mut coder, &setup.templates, None, from_base, shared);
            let Some(start) = start else {
                return Ok(None);
            };
            if let Some(splice) = start.whole().and_then(|template| setup.splice(template))
                && has_full_line(base, reference)
                && let Some(line) = base.line(reference)?
            {
                visit(setup, Decoded::Spliced(splice, line))?;
                continue;
            }
            if from_base && !early {
                base.read(reference, base_row)?;
            }
            let base_row = from_base.then_some(&*base_row);
            let cells = rows.cells(&mut coder, start, &setup.templates, None, base_row);
            if cells.is_none() {
                return Ok(None);
            }
            let base_row = base_row.map(|row| (reference, row));
            visit(setup, Decoded::Cells(rows, base_row))?;
        }
        Ok(Some(()))
    }

    /// The base rows that are not used yet.
    pub(crate) fn into_unused(self) -> Remaining {
        self.references.into_remaining()
    }

    fn read_buffers(&mut self, reader: &mut Reader<'_>, dictionary: &[u8]) -> Option<()> {
        let Texts::Buffers(columns) = &mut self.rows.texts else {
            return Some(());
        };
        for (buffer, at, _) in columns.iter_mut() {
            buffer.clear();
            *at = 0;
        }
        while let Some(column) = reader.number()?.checked_sub(1) {
            let length = reader.number()?;
            columns.get_mut(column as usize)?.0 = unpack(reader.sized()?, length, dictionary)?;
        }
        Some(())
    }
}
