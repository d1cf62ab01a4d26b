//! The models of one column: what became of its cells, the values seen, edits.

use std::collections::HashMap;

use super::edit::Step;
use super::texts::Texts;
use crate::coding::{Bit, BitCoder, Number, Symbol};
use crate::plan::Known;
use crate::table::MAX_RECORD;

/// Values of a column that are told by number: at most so many, so long.
const VALUES: usize = 256;
const VALUE_LENGTH: usize = 48;
const MOST_STEPS: u64 = 1 << 20;

/// The models of the cells of one column.
pub(super) struct ColumnModel {
    pub(super) known: Known,
    pub(super) state: [Symbol<8>; 16],
    pub(super) last_state: usize,
    pub(super) kind: [Symbol<4>; 5],
    pub(super) element: [Symbol<16>; 17],
    pub(super) values: Vec<Vec<u8>>,
    pub(super) numbers: HashMap<Vec<u8>, usize>,
    pub(super) value: Symbol<VALUES>,
    pub(super) steps: Number,
    pub(super) moved: Bit,
    pub(super) skip: Number,
    pub(super) to_end: [Bit; 2],
    pub(super) keep: Number,
}

impl ColumnModel {
    pub(super) fn new() -> Self {
        Self {
            known: Known::default(),
            state: std::array::from_fn(|_| Symbol::new()),
            last_state: 0,
            kind: std::array::from_fn(|_| Symbol::new()),
            element: std::array::from_fn(|_| Symbol::new()),
            values: Vec::new(),
            numbers: HashMap::new(),
            value: Symbol::new(),
            steps: Number::new(),
            moved: Bit::new(),
            skip: Number::new(),
            to_end: [Bit::new(); 2],
            keep: Number::new(),
        }
    }

    /// Numbers a value, while there are few.
    pub(super) fn note_value(&mut self, bytes: &[u8]) {
        if self.values.len() < VALUES
            && bytes.len() <= VALUE_LENGTH
            && !self.numbers.contains_key(bytes)
        {
            self.numbers.insert(bytes.to_vec(), self.values.len());
            self.values.push(bytes.to_vec());
        }
    }
}

/// Codes a cell as an edit of another; a decoder passes no steps.
pub(super) fn code_edit<C: BitCoder>(
    coder: &mut C,
    model: &mut ColumnModel,
    texts: &mut Texts,
    column: usize,
    old: &[u8],
    steps: &[Step<'_>],
    writing: bool,
) -> Option<Vec<u8>> {
    let count = model
        .steps
        .code(coder, (steps.len() as u64).saturating_sub(1));
    if count > MOST_STEPS {
        return None;
    }
    let mut out = Vec::new();
    let mut at = 0i64;
    for index in 0..=count as usize {
        let step = steps.get(index).cloned().unwrap_or_default();
        // The first step inserts only where nothing is kept at the start.
        let inserts = index > 0 || model.to_end[1].code(coder, !step.insert.is_empty());
        if inserts {
            texts.remember_before(&out);
            let inserted = texts.text(coder, column, step.insert, MAX_RECORD, writing)?;
            out.extend_from_slice(&inserted);
        }
        if model.moved.code(coder, step.skip != 0) {
            let zigzag = ((step.skip << 1) ^ (step.skip >> 63)) as u64;
            let zigzag = model.skip.code(coder, zigzag);
            at = at.checked_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))?;
        }
        let start = usize::try_from(at).ok()?;
        let rest = old.get(start..)?;
        let keep = if model.to_end[0].code(coder, step.keep == rest.len()) {
            rest.len()
        } else {
            usize::try_from(model.keep.code(coder, step.keep as u64)).ok()?
        };
        out.extend_from_slice(rest.get(..keep)?);
        at += keep as i64;
        if out.len() > MAX_RECORD || coder.overrun() {
            return None;
        }
    }
    Some(out)
}
