//! Low-rank predictions of whole tensors: one for each block of rows, so that memory is bounded.

use std::sync::{Condvar, Mutex};

use sparse_checkpoint::TensorRef;
use sparse_codec::{CodecError, Layout, LowRank, Reader};

use crate::Error;
use crate::source::{read_cast, read_words};
use crate::words::Words;

/// Weights in a block, at most, unless a single row has more.
const BLOCK_WEIGHTS: u64 = 1 << 25;
/// Sides below this are not worth factors.
const MIN_SIDE: u64 = 32;
/// Most components of a prediction that is not exact.
const MOST: usize = 32;

/// The rows in each block of a matrix; the last may have fewer.
fn block_rows(cols: u64) -> u64 {
    (BLOCK_WEIGHTS / cols.max(1)).max(MIN_SIDE)
}

/// The blocks' predictions; `None` where a block has none.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    cols: u64,
    blocks: Vec<Option<LowRank>>,
}

impl Prediction {
    /// Searches the blocks of a matrix that has a counterpart in the base, every weight.
    ///
    /// `None` where no block has a prediction that pays.
    pub(crate) fn find(
        layout: Layout,
        base: &TensorRef<'_>,
        fine: &TensorRef<'_>,
        budget: &Budget,
    ) -> Result<Option<Self>, Error> {
        let &[rows, cols] = fine.info().shape() else {
            return Ok(None);
        };
        if rows < MIN_SIDE || cols < MIN_SIDE || layout.shift() > 0 || layout.bits() < 16 {
            return Ok(None);
        }
        let mut blocks = Vec::new();
        for first in (0..rows).step_by(block_rows(cols) as usize) {
            let rows = block_rows(cols).min(rows - first);
            let each = layout.bytes() as u64;
            // Base, fine-tune, and as much again for what the search keeps.
            let _held = budget.take(rows * cols * each * 4);
            let fine_words = read_words(fine, first * cols, rows * cols)?;
            let base_words = read_cast(base, first * cols, rows * cols, fine.info().dtype())?;
            let (rows, cols) = (rows as usize, cols as usize);
            blocks.push(match (&base_words, &fine_words) {
                (Words::W16(b), Words::W16(f)) => LowRank::find(layout, rows, cols, b, f)
                    .or_else(|| LowRank::fit(layout, rows, cols, b, f, MOST)),
                // Where the steps are this fine, only an exact low-rank change pays.
                (Words::W32(b), Words::W32(f)) => LowRank::find(layout, rows, cols, b, f),
                _ => None,
            });
        }
        let found = blocks.iter().any(Option::is_some);
        Ok(found.then_some(Self { cols, blocks }))
    }

    /// The words predicted from the base's words `start..` of the matrix.
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
        let block = block_rows(self.cols) * self.cols;
        let mut done = 0;
        while done < base.len() {
            let at = start + done as u64;
            let (number, inside) = ((at / block) as usize, at % block);
            let len = ((block - inside) as usize).min(base.len() - done);
            let (from, to) = (&base[done..done + len], &mut out[done..done + len]);
            match self.blocks.get(number).and_then(Option::as_ref) {
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

    /// Reads what [`Prediction::write`] wrote for a matrix of this shape.
    pub(crate) fn read(reader: &mut Reader<'_>, shape: &[u64]) -> Result<Self, CodecError> {
        let &[rows, cols] = shape else {
            return Err(CodecError::Invalid {
                field: "dimensions of a predicted tensor",
                found: shape.len() as u64,
                expected: "2",
            });
        };
        let mut blocks = Vec::new();
        for first in (0..rows).step_by(block_rows(cols) as usize) {
            let rows = block_rows(cols).min(rows - first);
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
        Ok(Self { cols, blocks })
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
