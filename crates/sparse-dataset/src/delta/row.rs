//! One row: its template, then each cell as predicted, edited, known or new.
//! Encoder and decoder run the same code over the same models.

use super::block::Setup;
use super::column::{ColumnModel, code_edit};
use super::edit::{Step, edit};
use super::texts::Texts;
use crate::coding::{Bit, BitCoder, Number, Symbol};
use crate::plan::{ColumnPlan, Counterpart, Known, Plan, Predictor};
use crate::table::{Kind, MAX_RECORD, Record};
use crate::text::Template;

const HIT: usize = 0;
const EDIT: usize = 1;
const TEXT: usize = 2;
const PREVIOUS: usize = 3;
const KNOWN: usize = 4;

/// What a row starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    template: u32,
    /// Whether its template has no cells.
    is_literal: bool,
    /// Whether all of its cells, if any, are as predicted.
    whole: bool,
}

impl Start {
    /// The template of a row with cells, all of them as predicted.
    pub(crate) fn whole(self) -> Option<u32> {
        (self.whole && !self.is_literal).then_some(self.template)
    }
}

/// The models of the rows of one file.
pub(crate) struct RowCoder {
    plan: Plan,
    /// For each template the cells in the order they are coded.
    orders: Vec<Vec<u32>>,
    template_same: Vec<[Bit; 2]>,
    template: Vec<Symbol<64>>,
    template_far: Number,
    last_template: u32,
    /// Whether templates go by what base rows share, see [`Setup::paragraphs`].
    ///
    /// [`Setup::paragraphs`]: super::block::Setup::paragraphs
    paragraphs: bool,
    whole: [Bit; 8],
    last_whole: usize,
    columns: Vec<ColumnModel>,
    previous_base: Option<Record>,
    pub(crate) texts: Texts,
    /// The row coded last; cells in coding order.
    pub(crate) own: Record,
    writing: bool,
    scratch: Vec<u8>,
}

impl RowCoder {
    /// The plan must refer to base columns by the numbers of the base rows.
    pub(crate) fn new(setup: &Setup, texts: Texts, writing: bool) -> Self {
        let (plan, templates) = (setup.plan.clone(), &setup.templates);
        let ranks = plan.ranks();
        let orders = templates
            .iter()
            .map(|template| {
                let mut order: Vec<u32> = (0..template.columns.len() as u32).collect();
                order.sort_by_key(|&cell| ranks.get(template.columns[cell as usize] as usize));
                order
            })
            .collect();
        Self {
            orders,
            template_same: vec![[Bit::new(); 2]; 64],
            template: vec![Symbol::new(); 64],
            template_far: Number::new(),
            last_template: 0,
            paragraphs: setup.paragraphs,
            whole: [Bit::new(); 8],
            last_whole: 0,
            columns: plan.columns.iter().map(|_| ColumnModel::new()).collect(),
            previous_base: None,
            texts,
            own: Record::default(),
            plan,
            writing,
            scratch: Vec::new(),
        }
    }

    /// The cells of a template in coding order.
    pub(crate) fn order(&self, template: u32) -> &[u32] {
        &self.orders[template as usize]
    }

    /// Whether a cell of the row coded last has another value than the cell of
    /// its base row that it goes back to. `counterparts` are the base columns of
    /// the columns.
    pub(crate) fn is_edited(&self, counterparts: &[Option<Counterpart>], base: &Record) -> bool {
        self.own.cells()[..self.own.own].iter().any(|&cell| {
            let column = cell.column as usize;
            let Some(Some(counterpart)) = counterparts.get(column) else {
                return false;
            };
            let own = (cell.kind, self.own.bytes(cell));
            let Some(found) = base.get(counterpart.base as usize) else {
                return false;
            };
            !counterpart.same(found, own) && !self.follows(column, own, base)
        })
    }

    /// Whether a column of the row coded last has the value of the base row's, by which people tell
    /// rows apart; a row without the column says nothing.
    pub(crate) fn has_key(
        &self,
        key: u32,
        counterparts: &[Option<Counterpart>],
        base: &Record,
    ) -> bool {
        let Some(own) = self.own.get(key as usize) else {
            return true;
        };
        let Some(Some(counterpart)) = counterparts.get(key as usize) else {
            return true;
        };
        let found = base.get(counterpart.base as usize);
        found.is_some_and(|found| counterpart.same(found, own))
    }

    /// Whether a cell is what a function of the base row gives, which is a change
    /// of its column rather than of its row.
    fn follows(&self, column: usize, own: (Kind, &[u8]), base: &Record) -> bool {
        let plan = &self.plan.columns[column];
        if !plan.predictor.is_of_base() {
            return false;
        }
        let (known, none) = (Known::default(), Record::default());
        let elements = match plan.predictor {
            Predictor::Element(_) => 16,
            _ => 1,
        };
        (0..elements).any(|element| {
            plan.predictor
                .predict(plan.kind, &known, Some(base), &none, element)
                .is_some_and(|(kind, bytes)| kind == own.0 && *bytes == *own.1)
        })
    }

    /// Whether what a row starts with depends on the cells of its base row.
    pub(crate) fn starts_by_base(&self) -> bool {
        self.paragraphs && self.orders.len() > 1
    }

    /// Whether the rows that follow are coded the same without the cells of a
    /// whole row. A cell that is as in the row before leaves nothing to remember.
    pub(crate) fn forgets_whole(&self) -> bool {
        self.plan
            .columns
            .iter()
            .all(|column| !column.predictor.remembers() || column.predictor == Predictor::Previous)
    }

    /// Codes what a row starts with: its template, and whether it is as
    /// predicted. `from_base` says that it has a base row, which must be given
    /// where [`Self::starts_by_base`]. `None` if a damaged stream makes no
    /// sense.
    pub(crate) fn start<C: BitCoder>(
        &mut self,
        coder: &mut C,
        templates: &[Template],
        record: Option<&Record>,
        from_base: bool,
        base: Option<&Record>,
    ) -> Option<Start> {
        let template =
            self.code_template(coder, record.map_or(0, |record| record.template), base)?;
        let is_literal = templates.get(template as usize)?.columns.is_empty();
        let mut whole = true;
        if !is_literal {
            let as_predicted = record.is_some_and(|record| self.is_whole(record, base));
            let context = self.last_whole * 2 + usize::from(from_base);
            whole = self.whole[context].code(coder, as_predicted);
            self.last_whole = (self.last_whole * 2 + usize::from(whole)) % 4;
        }
        Some(Start {
            template,
            is_literal,
            whole,
        })
    }

    /// Codes the cells of a row that was started. A decoder passes no record and
    /// finds the row in `own`. `None` if a damaged stream makes no sense.
    pub(crate) fn cells<C: BitCoder>(
        &mut self,
        coder: &mut C,
        start: Start,
        templates: &[Template],
        record: Option<&Record>,
        base: Option<&Record>,
    ) -> Option<()> {
        let template = start.template;
        let columns = &templates.get(template as usize)?.columns;
        self.own.clear();
        if start.whole {
            self.fill(template, columns, base)?;
        } else {
            self.texts.start_row();
            let mut shown = false;
            let mut element = 0;
            for place in 0..columns.len() {
                let cell = self.orders[template as usize][place] as usize;
                let target = record.map(|record| {
                    let cell = record.cells()[cell];
                    (cell.kind, record.bytes(cell))
                });
                self.code_cell(coder, columns[cell], target, base, &mut shown, &mut element)?;
                if coder.overrun() {
                    return None;
                }
            }
        }
        self.own.template = template;
        Some(())
    }

    fn code_template<C: BitCoder>(
        &mut self,
        coder: &mut C,
        template: u32,
        base: Option<&Record>,
    ) -> Option<u32> {
        if self.orders.len() <= 1 {
            return (!self.orders.is_empty()).then_some(0);
        }
        // Whether this row and the one before share a paragraph in the base.
        let shares = match (base, &self.previous_base) {
            (Some(base), Some(previous)) => base.cells().iter().any(|&cell| {
                let bytes = base.bytes(cell);
                bytes.len() >= 32
                    && previous
                        .get(cell.column as usize)
                        .is_some_and(|(_, other)| other == bytes)
            }),
            _ => false,
        };
        if let Some(base) = base.filter(|_| self.paragraphs) {
            self.previous_base = Some(base.clone());
        }
        let context = self.last_template.min(63) as usize;
        let same = self.template_same[context][usize::from(shares)]
            .code(coder, template == self.last_template);
        let found = if same {
            self.last_template
        } else {
            match self.template[context].code(coder, template.min(63) as usize) {
                63 => u32::try_from(
                    self.template_far
                        .code(coder, u64::from(template.saturating_sub(63))),
                )
                .ok()?
                .checked_add(63)?,
                near => near as u32,
            }
        };
        self.last_template = found;
        ((found as usize) < self.orders.len()).then_some(found)
    }

    /// Whether every cell is as predicted.
    fn is_whole(&self, record: &Record, base: Option<&Record>) -> bool {
        record.cells()[..record.own].iter().all(|&cell| {
            let column = cell.column as usize;
            let plan = &self.plan.columns[column];
            plan.predictor
                .predict(plan.kind, &self.columns[column].known, base, record, 0)
                .is_some_and(|(kind, bytes)| kind == cell.kind && *bytes == *record.bytes(cell))
        })
    }

    /// Fills in a row that is as predicted.
    fn fill(&mut self, template: u32, columns: &[u32], base: Option<&Record>) -> Option<()> {
        let mut own = std::mem::take(&mut self.own);
        for place in 0..columns.len() {
            let column = columns[self.orders[template as usize][place] as usize];
            let ColumnPlan {
                predictor, kind, ..
            } = &self.plan.columns[column as usize];
            let model = &self.columns[column as usize];
            if let (Some(base), Some(source)) = (base, predictor.copied_base()) {
                let cell = base.cell(source as usize)?;
                let bytes = base.bytes(cell);
                match cell.kind {
                    Kind::Null => own.push(column, Kind::Null, bytes),
                    Kind::Text if cell.plain && *kind == Kind::Text => {
                        own.push_plain(column, bytes);
                    }
                    _ => own.push(column, *kind, bytes),
                }
                continue;
            }
            let (kind, bytes) = predictor.predict(*kind, &model.known, base, &own, 0)?;
            // The row may be the source, so it cannot grow while it is read.
            self.scratch.clear();
            self.scratch.extend_from_slice(&bytes);
            drop(bytes);
            own.push(column, kind, &self.scratch);
        }
        for &cell in own.cells() {
            let predictor = &self.plan.columns[cell.column as usize].predictor;
            if predictor.remembers() {
                self.columns[cell.column as usize].known.learn(
                    predictor,
                    base,
                    &own,
                    cell.kind,
                    own.bytes(cell),
                );
            }
        }
        self.own = own;
        Some(())
    }

    fn code_cell<C: BitCoder>(
        &mut self,
        coder: &mut C,
        column: u32,
        target: Option<(Kind, &[u8])>,
        base: Option<&Record>,
        shown: &mut bool,
        element: &mut usize,
    ) -> Option<()> {
        let plan = &self.plan.columns[column as usize];
        let model = &mut self.columns[column as usize];
        let is_element = matches!(plan.predictor, Predictor::Element(_));
        let mut chosen = *element;
        if let (true, Some((kind, bytes))) = (is_element, target) {
            let fits = |&at: &usize| {
                plan.predictor
                    .predict(plan.kind, &model.known, base, &self.own, at)
                    .is_some_and(|(k, b)| k == kind && *b == *bytes)
            };
            chosen = std::iter::once(*element)
                .chain(0..16)
                .find(fits)
                .unwrap_or(*element);
        }
        let mut expected = plan
            .predictor
            .predict(plan.kind, &model.known, base, &self.own, chosen)
            .map(|(k, b)| (k, b.into_owned()));
        let is_expected = |target: (Kind, &[u8])| {
            expected
                .as_ref()
                .is_some_and(|(k, b)| *k == target.0 && *b == *target.1)
        };
        let old: Option<Vec<u8>> = match &expected {
            Some((kind, bytes)) if *kind != Kind::Null && !is_element => Some(bytes.clone()),
            _ => plan
                .basis
                .and_then(|basis| base?.get(basis as usize))
                .map(|(_, bytes)| bytes.to_vec()),
        };
        let mut steps: Vec<Step<'_>> = Vec::new();
        let wanted = target.map_or(HIT, |(kind, bytes)| {
            if is_expected((kind, bytes)) {
                return HIT;
            }
            if model
                .known
                .previous
                .as_ref()
                .is_some_and(|(k, b)| *k == kind && *b == bytes)
            {
                return PREVIOUS;
            }
            if model.numbers.contains_key(bytes) {
                return KNOWN;
            }
            match old.as_ref().and_then(|old| edit(old, bytes)) {
                Some(found) => {
                    steps = found;
                    EDIT
                }
                None => TEXT,
            }
        });
        let context = model.last_state.min(7) + 8 * usize::from(expected.is_some());
        let state = model.state[context].code(coder, wanted);
        model.last_state = state;
        if state == HIT {
            if is_element {
                *element = model.element[(*element).min(15)].code(coder, chosen);
                expected = plan
                    .predictor
                    .predict(plan.kind, &model.known, base, &self.own, *element)
                    .map(|(k, b)| (k, b.into_owned()));
            }
            let (kind, bytes) = expected?;
            model
                .known
                .learn(&plan.predictor, base, &self.own, kind, &bytes);
            self.own.push(column, kind, &bytes);
            return Some(());
        }
        if state == PREVIOUS {
            let (kind, bytes) = model.known.previous.clone()?;
            model
                .known
                .learn(&plan.predictor, base, &self.own, kind, &bytes);
            self.own.push(column, kind, &bytes);
            return Some(());
        }
        let kind_context = expected
            .as_ref()
            .map_or(plan.kind as usize, |(kind, _)| *kind as usize);
        let kind = Kind::from_index(
            model.kind[kind_context].code(coder, target.map_or(0, |(kind, _)| kind as usize)),
        );
        let bytes = match state {
            KNOWN => {
                let number = target
                    .and_then(|(_, bytes)| model.numbers.get(bytes).copied())
                    .unwrap_or(0);
                model.values.get(model.value.code(coder, number))?.clone()
            }
            _ if kind == Kind::Null => Vec::new(),
            EDIT | TEXT => {
                if let (false, Some(base)) = (*shown, base) {
                    self.texts.remember_row(base);
                    *shown = true;
                }
                if state == TEXT {
                    let text = target.map_or(&[][..], |(_, bytes)| bytes);
                    self.texts
                        .text(coder, column as usize, text, MAX_RECORD, self.writing)?
                } else {
                    code_edit(
                        coder,
                        model,
                        &mut self.texts,
                        column as usize,
                        &old?,
                        &steps,
                        self.writing,
                    )?
                }
            }
            _ => return None,
        };
        model.note_value(&bytes);
        model
            .known
            .learn(&plan.predictor, base, &self.own, kind, &bytes);
        self.own.push(column, kind, &bytes);
        Some(())
    }
}
