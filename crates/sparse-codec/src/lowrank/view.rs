//! A matrix of changes, row by row, as numbers.

use super::format::{Format, Visit, dispatch};
use super::linear::Vectors;
use super::{LANES, Stop};
use crate::simd::vectorised;
use crate::{Layout, Word};

/// Changes are in units of about the median representable step of the matrix; steps are clamped
/// this many octaves around it, so that squares stay in range.
const OCTAVES: i32 = 40;

/// A matrix of changes, read from its words.
#[derive(Clone, Copy)]
pub(super) struct View<'a, W> {
    pub(super) layout: Layout,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) base: &'a [W],
    pub(super) fine: &'a [W],
    /// The unit of changes is `2^unit`.
    pub(super) unit: i32,
    /// Whether to leave out the rest: what comes of it is thrown away.
    pub(super) stop: Stop<'a>,
}

/// What one row of weighted least squares works on.
pub(super) struct Buffers {
    /// Changes, or what of them is not explained yet.
    pub(super) change: Vec<f64>,
    pub(super) rest: Vec<f32>,
    /// Representable step of each word.
    pub(super) step: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) image: Vec<f32>,
}

impl Buffers {
    pub(super) fn new(cols: usize) -> Self {
        Self {
            change: vec![0.0; cols],
            rest: vec![0.0; cols],
            step: vec![0.0; cols],
            weight: vec![0.0; cols],
            image: vec![0.0; cols],
        }
    }
}

impl<W: Word> View<'_, W> {
    /// The numbers of all rows, as long as nobody says stop.
    pub(super) fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).take_while(|_| !(self.stop)())
    }

    /// Reads a row's changes and steps.
    pub(super) fn load(&self, row: usize, buffers: &mut Buffers) {
        let range = row * self.cols..(row + 1) * self.cols;
        let load = Load {
            layout: self.layout,
            unit: self.unit,
            base: &self.base[range.clone()],
            fine: &self.fine[range],
            buffers,
        };
        // Layouts without a format never get here.
        let _ = dispatch(self.layout, load);
    }

    /// Each row times each vector: `vectors.rank` vectors of `rows` numbers.
    pub(super) fn times(&self, vectors: &Vectors, buffers: &mut Buffers) -> Vectors {
        let single = vectors.single();
        let mut out = Vectors::zeros(self.rows, vectors.rank);
        // Rows beside one another, padded with zeros.
        let mut block = vec![0.0; TOGETHER * self.cols];
        let mut products = vec![[0.0; TOGETHER]; vectors.rank];
        for first in self.rows().step_by(TOGETHER) {
            let count = TOGETHER.min(self.rows - first);
            for (row, own) in block.chunks_exact_mut(self.cols).enumerate() {
                if row < count {
                    self.load(first + row, buffers);
                    for (own, &change) in own.iter_mut().zip(&buffers.change) {
                        *own = change as f32;
                    }
                } else {
                    own.fill(0.0);
                }
            }
            dots_together(&block, self.cols, &single, &mut products);
            for (k, products) in products.iter().enumerate() {
                for (row, &product) in products[..count].iter().enumerate() {
                    out.data[k * self.rows + first + row] = f64::from(product);
                }
            }
        }
        out
    }
}

struct Load<'a, W> {
    layout: Layout,
    unit: i32,
    base: &'a [W],
    fine: &'a [W],
    buffers: &'a mut Buffers,
}

impl<W: Word> Visit<W> for Load<'_, W> {
    type Output = ();
    fn visit<F: Format<Word = W>>(self, format: F) {
        load(
            format,
            self.layout,
            self.unit,
            self.base,
            self.fine,
            &mut self.buffers.change,
            &mut self.buffers.step,
        );
    }
}

/// Exponent of the step of words with exponent field 0.
pub(super) fn lowest(layout: Layout) -> i32 {
    let bits = layout.width() - 1 - layout.mantissa();
    1 - ((1 << (bits - 1)) - 1) - layout.mantissa() as i32
}

vectorised! {
    fn load<F: Format>(format: F, layout: Layout, unit: i32, base: &[F::Word], fine: &[F::Word], change: &mut [f64], step: &mut [f32]) {
        // Two factors: either may lie beyond the range of the other's type alone.
        let scale = f64::from_bits(((1023 - unit) as u64) << 52);
        let offset = lowest(layout) - 1 - unit;
        let most = f64::from_bits(((1023 + OCTAVES) as u64) << 52);
        for (((change, step), &b), &f) in change.iter_mut().zip(step.iter_mut()).zip(base).zip(fine) {
            let difference = (f64::from(format.value(f)) - f64::from(format.value(b))) * scale;
            let usable = format.is_finite(b) & format.is_finite(f) & (difference.abs() < most);
            *change = if usable { difference } else { 0.0 };
            let exponent = (i32::from(f.exponent(layout.stored_mantissa())) + offset).clamp(-OCTAVES, OCTAVES);
            let exponent = if usable { exponent } else { OCTAVES };
            *step = f32::from_bits(((exponent + 127) as u32) << 23);
        }
    }
}

/// Rows that are multiplied at once.
const TOGETHER: usize = 4;
/// Products of one row and one vector that are summed side by side.
const WIDE: usize = 16;

vectorised! {
    /// The inner products of each vector with each of [`TOGETHER`] rows: what is loaded of a vector
    /// is used more than once, and sums need not wait for one another.
    fn dots_together(rows: &[f32], len: usize, vectors: &[f32], out: &mut [[f32; TOGETHER]]) {
        let (first, rest) = rows.split_at(len);
        let (second, rest) = rest.split_at(len);
        let (third, fourth) = rest.split_at(len);
        for (out, vector) in out.iter_mut().zip(vectors.chunks_exact(len)) {
            let (mut a, mut b, mut c, mut d) = ([0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE], [0.0f32; WIDE]);
            let pairs = first.chunks_exact(WIDE).zip(second.chunks_exact(WIDE));
            let others = third.chunks_exact(WIDE).zip(fourth.chunks_exact(WIDE));
            for ((v, (p, q)), (r, s)) in vector.chunks_exact(WIDE).zip(pairs).zip(others) {
                for i in 0..WIDE {
                    a[i] += p[i] * v[i];
                    b[i] += q[i] * v[i];
                    c[i] += r[i] * v[i];
                    d[i] += s[i] * v[i];
                }
            }
            let whole = len / WIDE * WIDE;
            for ((out, lanes), row) in out.iter_mut().zip([a, b, c, d]).zip([first, second, third, fourth]) {
                let rest = row[whole..len].iter().zip(&vector[whole..]);
                *out = lanes.iter().sum::<f32>() + rest.map(|(x, y)| x * y).sum::<f32>();
            }
        }
    }
}

vectorised! {
    /// The inner product of `row` with each of the vectors, two at a time.
    pub(super) fn dots(row: &[f32], vectors: &[f32], out: &mut [f32]) {
        const WIDE: usize = 32;
        let len = row.len();
        let whole = len / WIDE * WIDE;
        let rest = |vector: &[f32]| -> f32 {
            let rest = row[whole..].iter().zip(&vector[whole..]);
            rest.map(|(x, y)| x * y).sum()
        };
        for (out, vectors) in out.chunks_mut(2).zip(vectors.chunks(2 * len)) {
            let (first, second) = vectors.split_at(len);
            // An odd one goes twice.
            let second = if second.is_empty() { first } else { second };
            let (mut a, mut b) = ([0.0f32; WIDE], [0.0f32; WIDE]);
            let pairs = first.chunks_exact(WIDE).zip(second.chunks_exact(WIDE));
            for (x, (p, q)) in row.chunks_exact(WIDE).zip(pairs) {
                for i in 0..WIDE {
                    a[i] += x[i] * p[i];
                    b[i] += x[i] * q[i];
                }
            }
            for ((out, lanes), vector) in out.iter_mut().zip([a, b]).zip([first, second]) {
                *out = lanes.iter().sum::<f32>() + rest(vector);
            }
        }
    }
}

vectorised! {
    /// The sum of the vectors in the panels, each times its coefficient.
    pub(super) fn combine(coefficients: &[f32], panels: &[f32], out: &mut [f32]) {
        let size = coefficients.len() * LANES;
        for (panel, out) in panels.chunks_exact(size).zip(out.chunks_mut(LANES)) {
            let mut sums = [0.0f32; LANES];
            for (&c, strip) in coefficients.iter().zip(panel.chunks_exact(LANES)) {
                for (sum, &x) in sums.iter_mut().zip(strip) {
                    *sum += c * x;
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

vectorised! {
    /// Takes the sum of the vectors in the panels, each times its coefficient, off `from`.
    pub(super) fn subtract(coefficients: &[f64], panels: &[f64], from: &mut [f64]) {
        let size = coefficients.len() * LANES;
        for (panel, from) in panels.chunks_exact(size).zip(from.chunks_mut(LANES)) {
            let mut sums = [0.0f64; LANES];
            for (&c, strip) in coefficients.iter().zip(panel.chunks_exact(LANES)) {
                for (sum, &x) in sums.iter_mut().zip(strip) {
                    *sum += c * x;
                }
            }
            for (from, sum) in from.iter_mut().zip(sums) {
                *from -= sum;
            }
        }
    }
}
