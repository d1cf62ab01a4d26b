//! Low-rank prediction: a merged LoRA in integers.
//!
//! Merging a LoRA stores `round(base + s B A)`. The difference from the base is low-rank up to
//! rounding, so its factors, a small fraction of the matrix, predict nearly every stored word. What
//! is left is coded like any other delta, with the predicted words as the base.
//!
//! The prediction has to come out the same to the last bit on every machine. Factors are integers
//! with a power of two for each component, so they convert to floats in the same way everywhere;
//! each sum takes its components in order, one multiplication and one addition at a time, both
//! rounded as IEEE 754 says. Rust never fuses or reorders them, and vectors run across columns, so
//! wider registers change nothing. Ranges are bounded such that no sum can overflow or be NaN.

mod format;
mod linear;
mod search;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;
use std::sync::OnceLock;

use crate::binary::{BinaryDecoder, BinaryEncoder, Bit, Number};
use crate::bytes::{put_varint, unzigzag, zigzag};
use crate::simd::vectorised;
use crate::{CodecError, Layout, Reader, Word};
use format::{Format, Real, Visit, dispatch};

/// Largest rank of a coded matrix.
const MAX_RANK: usize = 256;
/// Components' exponents stay in this range: with factors of 32 bits and at most 256 components
/// a sum stays below 2^111, and a product that is not zero is at least 2^-120, a normal number.
const EXPONENTS: std::ops::RangeInclusive<i32> = -120..=40;
/// Rows and columns of a matrix are fewer than this, so that factors cannot exhaust memory.
const MAX_SIDE: usize = 1 << 28;
/// Weights of a row predicted at once; their sums stay in registers.
const LANES: usize = 32;
/// Rows predicted together, at most. More would share the panels among more, but their words lie a
/// power of two apart in many models and push one another out of the cache.
const ROWS: usize = 4;

/// Asked whether a search is to be given up.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// A low-rank matrix in integers, and how a base changes by it.
///
/// The value at row `i` and column `j` is the sum over components `k` of
/// `left[i][k] * right[k][j] * 2^exponent[k]`, in the unit of the weights. A word's prediction is
/// the base's value plus this value, rounded to the nearest word, ties to even.
///
/// ```
/// use sparse_codec::{Layout, LowRank, Reader};
/// let (rows, cols) = (64, 96);
/// // Weights of 1.0 changed by a matrix of rank one, in bfloat16.
/// let base = vec![0x3f80u16; rows * cols];
/// let fine: Vec<u16> = (0..rows * cols)
///     .map(|at| {
///         let change = (at / cols) as f32 * (at % cols) as f32 / 4096.0;
///         let bits = (1.0 + change).to_bits();
///         ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
///     })
///     .collect();
/// let found = LowRank::find(Layout::BF16, (rows, cols), &base, &fine, &|| false).unwrap();
/// let mut bytes = Vec::new();
/// found.write(&mut bytes);
/// let read = LowRank::read(&mut Reader::new(&bytes, "factors"), rows, cols).unwrap();
/// let mut predicted = vec![0u16; base.len()];
/// read.predict(Layout::BF16, 0, &base, &mut predicted);
/// let missed = predicted.iter().zip(&fine).filter(|(p, f)| p != f).count();
/// assert!(missed * 20 < base.len() && bytes.len() * 20 < base.len());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowRank {
    rows: usize,
    cols: usize,
    /// The value is rounded to the weights' format before it is added, as a merge in that format
    /// does.
    rounded: bool,
    /// Binary exponent of each component.
    exponents: Vec<i32>,
    /// Row by row: `rank` numbers for each row.
    left: Vec<i32>,
    /// Component by component: `cols` numbers for each.
    right: Vec<i32>,
    /// `right` as predictions need it, from the first of them on.
    panels: Panels,
}

/// [`panels`] of `right`, in the type that sums have.
#[derive(Debug, Clone, Default)]
struct Panels {
    singles: OnceLock<Vec<f32>>,
    doubles: OnceLock<Vec<f64>>,
}

impl PartialEq for Panels {
    /// They follow from the rest of the matrix.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Panels {}

impl LowRank {
    /// Finds the low-rank matrix that takes `base` to `fine` up to rounding, both of
    /// `rows` x `cols` weights, row by row.
    ///
    /// `None` where there is none, where it would not save bytes, for matrices with a side below
    /// 32 or more than 2^26 weights, and for 8-bit formats. Most matrices that are not low-rank are
    /// turned down on a sample, within milliseconds. The others can take minutes: the search is
    /// given up, with `None`, soon after `stop` has said so, which is asked every few rows.
    #[must_use]
    pub fn find<W: Word>(
        layout: Layout,
        (rows, cols): (usize, usize),
        base: &[W],
        fine: &[W],
        stop: Stop<'_>,
    ) -> Option<Self> {
        let view = search::view(layout, (rows, cols), base, fine, stop)?;
        search::find(&view).filter(|_| !stop())
    }

    /// Finds the low-rank matrix of at most `most` components that saves most bytes, whether or
    /// not the change is low-rank.
    ///
    /// The changes of an ordinary fine-tune have a low-rank part: most of it in the first few
    /// components, the sooner training stopped. `None` as for [`LowRank::find`].
    #[must_use]
    pub fn fit<W: Word>(
        layout: Layout,
        (rows, cols): (usize, usize),
        base: &[W],
        fine: &[W],
        most: usize,
        stop: Stop<'_>,
    ) -> Option<Self> {
        let view = search::view(layout, (rows, cols), base, fine, stop)?;
        search::fit(&view, most).filter(|_| !stop())
    }

    /// Components of the matrix.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.exponents.len()
    }

    /// Predicts the weights `start..start + out.len()` of the matrix read row by row, from the
    /// same range of the base. Words of the base that are infinite or NaN, lie beyond the matrix,
    /// or whose rounded change is infinite predict themselves.
    ///
    /// # Panics
    /// Where `base` and `out` differ in length.
    pub fn predict<W: Word>(&self, layout: Layout, start: usize, base: &[W], out: &mut [W]) {
        assert_eq!(
            base.len(),
            out.len(),
            "base and prediction differ in length"
        );
        let predict = Predict {
            matrix: self,
            start,
            base,
            out,
        };
        if dispatch(layout, predict).is_none() {
            out.copy_from_slice(base);
        }
    }

    /// Appends the matrix, entropy-coded; its shape is not stored.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.rank() as u64 * 2 + u64::from(self.rounded));
        for &exponent in &self.exponents {
            put_varint(out, u64::from(zigzag(exponent)));
        }
        let mut coder = BinaryEncoder::new();
        let mut models = vec![FactorModel::NEW; self.rank()];
        for (k, right) in self.right.chunks_exact(self.cols).enumerate() {
            for &value in right {
                models[k].encode(&mut coder, value);
            }
        }
        for row in self.left.chunks_exact(self.rank().max(1)) {
            for (model, &value) in models.iter_mut().zip(row) {
                model.encode(&mut coder, value);
            }
        }
        let bytes = coder.finish();
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }

    /// Reads a matrix of `rows` x `cols` that [`LowRank::write`] wrote.
    ///
    /// What is allocated is at most 8 bytes for each of the `rows * cols` weights.
    ///
    /// # Errors
    /// [`CodecError`] where the bytes are not what `write` writes for a matrix of this shape.
    pub fn read(reader: &mut Reader<'_>, rows: usize, cols: usize) -> Result<Self, CodecError> {
        let side = rows.max(cols);
        if side > MAX_SIDE {
            return Err(CodecError::Invalid {
                field: "side of a low-rank matrix",
                found: side as u64,
                expected: "at most 2^28",
            });
        }
        let most = MAX_RANK.min(rows).min(cols);
        let head = reader.length("rank of a low-rank matrix", 2 * most + 1)?;
        let rank = head / 2;
        let exponents = (0..rank)
            .map(|_| {
                let found = reader.varint()?;
                u32::try_from(found)
                    .map(unzigzag)
                    .ok()
                    .filter(|exponent| EXPONENTS.contains(exponent))
                    .ok_or(CodecError::Invalid {
                        field: "exponent of a low-rank matrix",
                        found,
                        expected: "-120 to 40",
                    })
            })
            .collect::<Result<Vec<i32>, _>>()?;
        let length = reader.length("length of factors", reader.remaining())?;
        let mut coder = BinaryDecoder::new(reader.take(length)?);
        let mut models = vec![FactorModel::NEW; rank];
        let mut right = Vec::with_capacity(rank * cols);
        for model in &mut models {
            right.extend((0..cols).map(|_| model.decode(&mut coder)));
        }
        let mut left = Vec::with_capacity(rank * rows);
        for _ in 0..rows {
            left.extend(models.iter_mut().map(|model| model.decode(&mut coder)));
        }
        coder.finish("factors")?;
        Ok(Self {
            rows,
            cols,
            rounded: head % 2 == 1,
            exponents,
            left,
            right,
            panels: Panels::default(),
        })
    }
}

/// Adaptive model of one component's factors: signs are even, magnitudes near each other.
#[derive(Debug, Clone)]
struct FactorModel {
    magnitude: Number,
}

impl FactorModel {
    const NEW: Self = Self {
        magnitude: Number::NEW,
    };

    fn encode(&mut self, coder: &mut BinaryEncoder, value: i32) {
        self.magnitude.encode(coder, value.unsigned_abs());
        if value != 0 {
            coder.bit(&mut Bit::NEW.clone(), value < 0);
        }
    }

    fn decode(&mut self, coder: &mut BinaryDecoder<'_>) -> i32 {
        let magnitude = self.magnitude.decode(coder);
        // Damaged bytes may hold 32 bits: any number will do, the same one everywhere.
        let value = magnitude as i32;
        if magnitude != 0 && coder.bit(&mut Bit::NEW.clone()) {
            value.wrapping_neg()
        } else {
            value
        }
    }
}

struct Predict<'a, W> {
    matrix: &'a LowRank,
    start: usize,
    base: &'a [W],
    out: &'a mut [W],
}

impl<W: Word> Visit<W> for Predict<'_, W> {
    type Output = ();

    fn visit<F: Format<Word = W>>(self, format: F) {
        let matrix = self.matrix;
        let panels = F::Sum::panels(matrix);
        let mut left = Vec::new();
        let (mut at, mut done) = (self.start, 0);
        while done < self.out.len() {
            let (row, column) = (at / matrix.cols, at % matrix.cols);
            // Whole rows go together, parts of rows alone.
            let within = self.out.len() - done;
            let (count, width) = match within / matrix.cols {
                whole @ 1.. if column == 0 && row < matrix.rows => {
                    (whole.min(ROWS).min(matrix.rows - row), matrix.cols)
                }
                _ => (1, within.min(matrix.cols - column)),
            };
            let words = count * width;
            let (base, out) = (&self.base[done..][..words], &mut self.out[done..][..words]);
            if row < matrix.rows {
                left.clear();
                let factors = &matrix.left[row * matrix.rank()..][..count * matrix.rank()];
                for factors in factors.chunks_exact(matrix.rank().max(1)) {
                    // Exact: a power of two, and no factor leaves the normal range.
                    left.extend(
                        factors
                            .iter()
                            .zip(&matrix.exponents)
                            .map(|(&x, &e)| F::Sum::from_int(x) * F::Sum::power(e)),
                    );
                }
                let rounded = matrix.rounded;
                let columns = column..column + width;
                predict_rows(format, rounded, &left, panels, columns, base, out);
            } else {
                out.copy_from_slice(base);
            }
            at += words;
            done += words;
        }
    }
}

/// Vectors of `len` numbers, cut in panels of [`LANES`] columns: the parts of all vectors that meet
/// in a sum lie together. (Vectors a power of two apart would push one another out of the cache.)
/// The last panel is filled up with zeros.
fn panels<T: Copy + Default>(vectors: &[T], len: usize) -> Vec<T> {
    let rank = vectors.len() / len.max(1);
    let mut out = vec![T::default(); len.div_ceil(LANES) * rank * LANES];
    for (k, vector) in vectors.chunks_exact(len.max(1)).enumerate() {
        for (panel, part) in vector.chunks(LANES).enumerate() {
            out[(panel * rank + k) * LANES..][..part.len()].copy_from_slice(part);
        }
    }
    out
}

vectorised! {
    /// Predicts a range of columns in each of some rows, whose words stand one row after the other.
    fn predict_rows<F: Format>(format: F, rounded: bool, left: &[F::Sum], panels: &[F::Sum], columns: Range<usize>, base: &[F::Word], out: &mut [F::Word]) {
        let width = columns.len();
        let rows = base.len() / width;
        let rank = left.len() / rows;
        let mut at = columns.start;
        // A panel after the other: one stays in the cache while all rows meet it.
        while at < columns.end {
            let (panel, lane) = (at / LANES, at % LANES);
            let lanes = lane..LANES.min(lane + columns.end - at);
            let panel = &panels[panel * rank * LANES..][..rank * LANES];
            let place = |row: usize| {
                let first = row * width + at - columns.start;
                first..first + lanes.len()
            };
            let mut row = 0;
            while row < rows {
                let own = &left[row * rank..];
                // As many sums as registers hold: each addition waits for the one before it.
                if size_of::<F::Sum>() == 4 && row + 2 <= rows {
                    let [first, second] = sums_of(rank, own, panel);
                    for (row, sums) in [(row, first), (row + 1, second)] {
                        let place = place(row);
                        let words = (&base[place.clone()], &mut out[place]);
                        predict_strip(format, rounded, &sums, lanes.start, words);
                    }
                    row += 2;
                } else {
                    let [sums] = sums_of(rank, own, panel);
                    let words = (&base[place(row)], &mut out[place(row)]);
                    predict_strip(format, rounded, &sums, lanes.start, words);
                    row += 1;
                }
            }
            at += lanes.len();
        }
    }
}

/// Predicts words that stand side by side, the first of which has the sum of this lane.
// Not a closure: that would not be compiled for the level of the function it is in.
#[inline(always)]
fn predict_strip<F: Format>(
    format: F,
    rounded: bool,
    sums: &[F::Sum; LANES],
    lane: usize,
    (base, out): (&[F::Word], &mut [F::Word]),
) {
    if let (Some(base), Some(out)) = (base.first_chunk::<LANES>(), out.first_chunk_mut::<LANES>()) {
        for ((&sum, &base), out) in sums.iter().zip(base).zip(out) {
            *out = apply(format, rounded, sum, base);
        }
    } else {
        for ((&sum, &base), out) in sums[lane..].iter().zip(base).zip(out) {
            *out = apply(format, rounded, sum, base);
        }
    }
}

/// The sums of a panel's columns for each of the first `N` rows of left factors.
#[inline(always)]
fn sums_of<S: Real, const N: usize>(rank: usize, left: &[S], panel: &[S]) -> [[S; LANES]; N] {
    let rows: [&[S]; N] = std::array::from_fn(|row| &left[row * rank..][..rank]);
    let mut sums = [[S::default(); LANES]; N];
    for (k, strip) in panel.as_chunks::<LANES>().0.iter().enumerate().take(rank) {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            for (sum, &right) in sums.iter_mut().zip(strip) {
                *sum += row[k] * right;
            }
        }
    }
    sums
}

/// The prediction for one word.
#[inline(always)]
fn apply<F: Format>(format: F, rounded: bool, sum: F::Sum, base: F::Word) -> F::Word {
    if !rounded {
        // Two finite numbers: the sum may be infinite, never NaN.
        let predicted = format.round(format.sum(base) + sum);
        return if format.is_finite(base) {
            predicted
        } else {
            base
        };
    }
    // Rounded alone, the change may be infinite, and its sum with the base too.
    let change = format.round(sum);
    let predicted = format.round(format.sum(base) + format.sum(change));
    if format.is_finite(base) & format.is_finite(change) {
        predicted
    } else {
        base
    }
}
