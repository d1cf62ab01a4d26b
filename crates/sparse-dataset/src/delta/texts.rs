//! Where new text goes: through the text model while there is little of it,
//! into buffers for zstd when there is much.

use crate::coding::{BitCoder, Number, TextModel};
use crate::table::{Kind, Record};

/// Cells at least this long are remembered as a source of matches.
const WORTH_REMEMBERING: usize = 12;
/// Bytes before an insertion that are its context.
const BEFORE: usize = 12;

/// The new text of one file.
pub(crate) enum Texts {
    Model(Box<TextModel>),
    /// Per column: the text, how far it is read, its lengths.
    Buffers(Vec<(Vec<u8>, usize, Number)>),
}

impl Texts {
    pub(crate) fn model(bytes: usize) -> Self {
        Self::Model(Box::new(TextModel::new(bytes)))
    }

    pub(crate) fn buffers(columns: usize) -> Self {
        Self::Buffers(
            (0..columns)
                .map(|_| (Vec::new(), 0, Number::new()))
                .collect(),
        )
    }

    /// Codes one text. A decoder ignores `text`.
    pub(crate) fn text<C: BitCoder>(
        &mut self,
        coder: &mut C,
        column: usize,
        text: &[u8],
        limit: usize,
        writing: bool,
    ) -> Option<Vec<u8>> {
        match self {
            Self::Model(model) => model.text(coder, column, text, limit),
            Self::Buffers(columns) => {
                let (buffer, at, lengths) = columns.get_mut(column)?;
                let length = usize::try_from(lengths.code(coder, text.len() as u64)).ok()?;
                if writing {
                    buffer.extend_from_slice(text);
                    return Some(text.to_vec());
                }
                let out = buffer.get(*at..at.checked_add(length)?)?.to_vec();
                *at += length;
                (length <= limit).then_some(out)
            }
        }
    }

    /// Tells the model that a row starts.
    pub(crate) fn start_row(&mut self) {
        if let Self::Model(model) = self {
            model.start_row();
        }
    }

    /// Shows the model the base row beside which new text stands.
    pub(crate) fn remember_row(&mut self, base: &Record) {
        if let Self::Model(model) = self {
            for &cell in base.cells() {
                let bytes = base.bytes(cell);
                if cell.kind != Kind::Null && bytes.len() >= WORTH_REMEMBERING {
                    model.remember(bytes);
                }
            }
        }
    }

    /// Shows the model what stands before an insertion.
    pub(crate) fn remember_before(&mut self, before: &[u8]) {
        if let Self::Model(model) = self {
            model.remember(&before[before.len().saturating_sub(BEFORE)..]);
        }
    }
}
