//! Low-rank predictions of whole tensors: one for each block of rows of each matrix in them, so
//! that memory is bounded.

use std::sync::{Condvar, Mutex};

use sparse_checkpoint::TensorRef;
use sparse_codec::{CodecError, Layout, LowRank, Reader, Stop};

use crate::Error;
use crate::progress::{Progress, step};
use crate::source::{read_cast, read_words};
use crate::words::Words;

/// Weights in a block, at most, unless a single row has more.
const BLOCK_WEIGHTS: u64 = 1 << 25;
/// Sides below this are not worth factors.
const MIN_SIDE: u64 = 32;
/// Most components of a prediction that is not exact.
const MOST: usize = 32;

/// A tensor as matrices one behind the other: a matrix is one; layers or experts stacked along
/// leading dimensions are many; a kernel of a convolution is one with a row for each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stack {
    matrices: u64,
    rows: u64,
    cols: u64,
}

impl Stack {
    /// `None` for vectors, and where sizes overflow.
    fn of(shape: &[u64]) -> Option<Self> {
        let product = |sides: &[u64]| sides.iter().try_fold(1u64, |n, &side| n.checked_mul(side));
        match shape {
            [leading @ .., rows, cols] if leading.is_empty() || (*rows).min(*cols) >= MIN_SIDE => {
                Some(Self {
                    matrices: product(leading)?,
                    rows: *rows,
                    cols: *cols,
                })
            }
            [rows, rest @ ..] if !rest.is_empty() => Some(Self {
                matrices: 1,
                rows: *rows,
                cols: product(rest)?,
            }),
            _ => None,
        }
    }

    /// The rows in each block of a matrix; the last may have fewer.
    fn block_rows(&self) -> u64 {
        (BLOCK_WEIGHTS / self.cols.max(1)).max(MIN_SIDE)
    }

    /// Where each block starts, in rows of the tensor, and how many it has.
    fn blocks(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.matrices).flat_map(move |matrix| {
            (0..self.rows)
                .step_by(self.block_rows() as usize)
                .map(move |row| {
                    let rows = self.block_rows().min(self.rows - row);
                    (matrix * self.rows + row, rows)
                })
        })
    }

    /// The block that weight `at` is in, the weight's place there, and how many weights the
    /// block has from there on.
    fn place(&self, at: u64) -> (u64, u64, u64) {
        let matrix = (self.rows * self.cols).max(1);
        let block = self.block_rows() * self.cols;
        let (number, within) = (at / matrix, at % matrix);
        let (in_matrix, inside) = (within / block, within % block);
        let blocks = self.rows.div_ceil(self.block_rows());
        let left = (block - inside).min(matrix - within);
        (number * blocks + in_matrix, inside, left)
    }
}

/// The blocks' predictions; `None` where a block has none.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    stack: Stack,
    blocks: Vec<Option<LowRank>>,
}

impl Prediction {
    /// Searches the blocks of a tensor that has a counterpart in the base, every weight.
    ///
    /// `None` where no block has a prediction that pays.
    pub(crate) fn find(
        layout: Layout,
        base: &TensorRef<'_>,
        fine: &TensorRef<'_>,
        budget: &Budget,
        progress: &dyn Progress,
    ) -> Result<Option<Self>, Error> {
        let Some(stack) = Stack::of(fine.info().shape()) else {
            return Ok(None);
        };
        let Stack { rows, cols, .. } = stack;
        let sides = MIN_SIDE..=BLOCK_WEIGHTS / MIN_SIDE;
        if rows < MIN_SIDE || !sides.contains(&cols) || layout.shift() > 0 || layout.bits() < 16 {
            return Ok(None);
        }
        let mut blocks = Vec::new();
        for (first, rows) in stack.blocks() {
            let each = layout.bytes() as u64;
            // Base, fine-tune, and as much again for what the search keeps.
            let _held = budget.take(rows * cols * each * 4);
            let fine_words = read_words(fine, first * cols, rows * cols)?;
            let base_words = read_cast(base, first * cols, rows * cols, fine.info().dtype())?;
            let shape = (rows as usize, cols as usize);
            let stop: Stop<'_> = &|| progress.cancelled();
            blocks.push(match (&base_words, &fine_words) {
                (Words::W16(b), Words::W16(f)) => LowRank::find(layout, shape, b, f, stop)
                    .or_else(|| LowRank::fit(layout, shape, b, f, MOST, stop)),
                // Where the steps are this fine, only an exact low-rank change pays.
                (Words::W32(b), Words::W32(f)) => LowRank::find(layout, shape, b, f, stop),
                _ => None,
            });
            step(progress, 0)?;
        }
        let found = blocks.iter().any(Option::is_some);
        Ok(found.then_some(Self { stack, blocks }))
    }

    /// The words predicted from the base's words `start..` of the tensor.
    pub(crate) fn predict(&self, layout: Layout, start: u64, base: Words) -> Words {
        let mut out = Words::zeros(layout.bytes(), base.len());
        match (&base, &mut out) {
            (Words::W16(base), Words::W16(out)) => self.predict_words(layout, start, base, out),
            (Words::W32(base), Words::W32(out)) => self.predict_words(layout, start, base, out),
            _ => return base,
        }
        out
    }

    fn predict_words<W: sparse_codec::Word>(
        &self,
        layout: Layout,
        start: u64,
        base: &[W],
        out: &mut [W],
    ) {
        let mut done = 0;
        while done < base.len() {
            let (number, inside, left) = self.stack.place(start + done as u64);
            let len = (left as usize).min(base.len() - done);
            let (from, to) = (&base[done..done + len], &mut out[done..done + len]);
            match self.blocks.get(number as usize).and_then(Option::as_ref) {
                Some(low_rank) => low_rank.predict(layout, inside as usize, from, to),
                None => to.copy_from_slice(from),
            }
            done += len;
        }
    }

    /// Appends for each block whether it has factors, and those.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for block in &self.blocks {
            out.push(u8::from(block.is_some()));
            if let Some(low_rank) = block {
                low_rank.write(out);
            }
        }
    }

    /// Reads what [`Prediction::write`] wrote for a tensor of this shape.
    pub(crate) fn read(reader: &mut Reader<'_>, shape: &[u64]) -> Result<Self, CodecError> {
        let Some(stack) = Stack::of(shape) else {
            return Err(CodecError::Invalid {
                field: "dimensions of a predicted tensor",
                found: shape.len() as u64,
                expected: "2 or more",
            });
        };
        let cols = stack.cols;
        let mut blocks = Vec::new();
        for (_, rows) in stack.blocks() {
            blocks.push(match reader.u8()? {
                0 => None,
                1 => Some(LowRank::read(reader, rows as usize, cols as usize)?),
                found => {
                    return Err(CodecError::Invalid {
                        field: "whether a block is predicted",
                        found: u64::from(found),
                        expected: "0 or 1",
                    });
                }
            });
        }
        Ok(Self { stack, blocks })
    }
}

/// Bytes that searches on several threads may hold together.
pub(crate) struct Budget {
    left: Mutex<u64>,
    freed: Condvar,
    total: u64,
}

impl Budget {
    pub(crate) fn new(total: u64) -> Self {
        Self {
            left: Mutex::new(total),
            freed: Condvar::new(),
            total,
        }
    }

    /// Waits until so many bytes are free; a request beyond the total gets all of it.
    fn take(&self, bytes: u64) -> Held<'_> {
        let bytes = bytes.min(self.total);
        // A poisoned lock means that another search panicked, which ends this one too.
        if let Ok(left) = self.left.lock()
            && let Ok(mut left) = self.freed.wait_while(left, |left| *left < bytes)
        {
            *left -= bytes;
        }
        Held {
            budget: self,
            bytes,
        }
    }
}

struct Held<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Ok(mut left) = self.budget.left.lock() {
            *left += self.bytes;
        }
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_matrices_one_behind_the_other() {
        let of = |shape: &[u64]| Stack::of(shape).map(|s| (s.matrices, s.rows, s.cols));
        assert_eq!(of(&[64, 8]), Some((1, 64, 8)));
        assert_eq!(of(&[12, 64, 192]), Some((12, 64, 192)));
        assert_eq!(of(&[2, 12, 64, 192]), Some((24, 64, 192)));
        assert_eq!(of(&[64, 32, 3, 3]), Some((1, 64, 288)));
        assert_eq!((of(&[64]), of(&[])), (None, None));
        assert_eq!(of(&[1 << 40, 1 << 40, 32, 32]), None);
    }

    #[test]
    fn every_weight_is_in_the_block_that_holds_its_row() {
        // Two matrices of two blocks each, the second of a few rows.
        let cols = 1 << 20;
        let stack = Stack {
            matrices: 2,
            rows: 40,
            cols,
        };
        let blocks: Vec<_> = stack.blocks().collect();
        assert_eq!(blocks, [(0, 32), (32, 8), (40, 32), (72, 8)]);
        for (number, &(first, rows)) in blocks.iter().enumerate() {
            for (at, inside) in [(0, 0), (rows * cols - 1, rows * cols - 1)] {
                let found = stack.place(first * cols + at);
                assert_eq!(found, (number as u64, inside, rows * cols - inside));
            }
        }
    }
}
