//! A quantized layer that the engine runs as it is stored.

use std::ops::Range;
use std::sync::Arc;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{
    Activations, Coded, CodedMatrix, CodedWeights, Dense, Error as EngineError, GroupNumbers,
    GroupOffsets, Linear, Order, Plain, Prepared, Rows, Source,
};

use crate::method::affine::Affine;
use crate::method::int8::{OUTLIER, STEP};
use crate::method::nf4::{BLOCK, NF4};
use crate::method::quanto::{Codes, Quanto};
use crate::scheme::Packed;
use crate::{Error, Quantized};

/// A layer in codes, for the engine: its kernels where groups are whole blocks of inputs, else
/// row by row.
pub fn linear(packed: Packed, activations: Activations) -> Arc<dyn Linear> {
    match coded(&packed, activations) {
        Some(coded) => Arc::new(coded),
        None => Arc::new(RowByRow::new(packed)),
    }
}

/// Numbers of groups that are counted across the whole matrix, as numbers of each row's groups:
/// the inputs of a group, and the numbers where they have to be repeated. `None` where groups
/// begin or end within a row and reach into another.
fn by_row(rows: usize, cols: usize, group: usize) -> Option<(usize, usize)> {
    if group == 0 || cols == 0 || rows == 0 {
        return None;
    }
    if cols.is_multiple_of(group) {
        return Some((group, 1));
    }
    group.is_multiple_of(cols).then_some((cols, group / cols))
}

/// Each number as often as there are rows in its group.
fn repeated(numbers: impl Iterator<Item = f32>, times: usize, len: usize) -> Vec<f32> {
    numbers
        .flat_map(|number| std::iter::repeat_n(number, times))
        .take(len)
        .collect()
}

fn coded(packed: &Packed, activations: Activations) -> Option<Coded> {
    let (outputs, inputs) = packed.shape();
    let matrix = |group, codes, scales, offsets| CodedMatrix {
        outputs,
        inputs,
        group,
        codes,
        scales,
        offsets,
        order: None,
    };
    match packed {
        Packed::Nf4(packed) => {
            let (group, times) = by_row(outputs, inputs, BLOCK)?;
            let len = outputs * (inputs / group);
            let scales = repeated(packed.absmax.values().into_iter(), times, len);
            let pairs = packed.packed.iter();
            let codes: Vec<u8> = pairs.flat_map(|byte| [byte >> 4, byte & 15]).collect();
            let codes = CodedWeights::Table4(codes.get(..outputs * inputs)?, &NF4);
            let scales = GroupNumbers::Plain(&scales);
            Coded::new(
                matrix(group, codes, scales, GroupOffsets::None),
                activations,
            )
        }
        Packed::Int8(packed) => {
            let scales: Vec<f32> = packed.absmax.iter().map(|absmax| absmax * STEP).collect();
            let codes = CodedWeights::Signed8(&packed.codes);
            let scales = GroupNumbers::Plain(&scales);
            let matrix = matrix(inputs, codes, scales, GroupOffsets::None);
            Some(Coded::new(matrix, activations)?.with_outliers(OUTLIER))
        }
        Packed::Affine(packed) => affine(packed, activations),
        Packed::Hqq(packed) => {
            let (group, times) = by_row(outputs, inputs, packed.group_size)?;
            let len = outputs * (inputs / group);
            let full = |numbers: &[half::f16]| {
                repeated(numbers.iter().map(|number| number.to_f32()), times, len)
            };
            let (scales, mut zeros) = (full(&packed.scales), full(&packed.zeros));
            let codes = centred(packed.bits, &packed.codes, &mut zeros);
            Coded::new(
                matrix(
                    group,
                    codes.weights(&packed.codes),
                    GroupNumbers::Plain(&scales),
                    GroupOffsets::Zeros(GroupNumbers::Plain(&zeros)),
                ),
                activations,
            )
        }
        Packed::Quanto(packed) => quanto(packed, activations),
    }
}

/// Codes as the kernels take them: up to four bits as they are, more as signed bytes.
enum Centred {
    Four,
    Eight(Vec<i8>),
}

impl Centred {
    fn weights<'a>(&'a self, codes: &'a [u8]) -> CodedWeights<'a> {
        match self {
            Centred::Four => CodedWeights::Unsigned4(codes),
            Centred::Eight(codes) => CodedWeights::Signed8(codes),
        }
    }
}

/// Moves codes of more than four bits, and their zero points with them, to where a signed byte
/// holds them.
fn centred(bits: u32, codes: &[u8], zeros: &mut [f32]) -> Centred {
    if bits <= 4 {
        return Centred::Four;
    }
    let middle = if bits == 8 { 128 } else { 0 };
    zeros.iter_mut().for_each(|zero| *zero -= f32::from(middle));
    let signed = |&code: &u8| code.wrapping_sub(middle) as i8;
    Centred::Eight(codes.iter().map(signed).collect())
}

fn affine(packed: &Affine, activations: Activations) -> Option<Coded> {
    let inputs = packed.cols;
    let sorted = packed
        .group_of
        .as_ref()
        .map(|groups| in_groups(packed, groups));
    let (codes, order) = match &sorted {
        Some(sorted) => {
            let (codes, order) = sorted.as_ref()?;
            (&codes[..], Some(&order[..]))
        }
        None => (&packed.codes[..], None),
    };
    let mut zeros: Vec<f32> = packed.zeros.iter().map(|&zero| f32::from(zero)).collect();
    let codes_as = centred(packed.bits, codes, &mut zeros);
    let offsets = match zeros.first() {
        Some(&first) if zeros.iter().all(|&zero| zero == first) => GroupOffsets::Zero(first),
        _ => GroupOffsets::Zeros(GroupNumbers::Plain(&zeros)),
    };
    let matrix = CodedMatrix {
        outputs: packed.rows,
        inputs,
        group: packed.group_size,
        codes: codes_as.weights(codes),
        scales: GroupNumbers::Plain(&packed.scales),
        offsets,
        order,
    };
    Coded::new(matrix, activations)
}

/// Codes with the inputs of a group side by side, and which input each column is; `None` where
/// groups are not all of the size that they should be.
fn in_groups(packed: &Affine, groups: &[u32]) -> Option<(Vec<u8>, Vec<u32>)> {
    let mut order: Vec<u32> = (0..packed.cols as u32).collect();
    order.sort_by_key(|&input| groups[input as usize]);
    let size = packed.group_size.min(packed.cols).max(1);
    let in_place = |(at, &input): (usize, &u32)| groups[input as usize] as usize == at / size;
    order.iter().enumerate().all(in_place).then_some(())?;
    let rows = packed.codes.chunks_exact(packed.cols);
    let codes = rows.flat_map(|row| order.iter().map(|&input| row[input as usize]));
    Some((codes.collect(), order))
}

fn quanto(packed: &Quanto, activations: Activations) -> Option<Coded> {
    let (codes, shifts) = match &packed.codes {
        Codes::Int8(codes) => (CodedWeights::Signed8(codes), None),
        Codes::Int4 { codes, shifts } => {
            let negated: Vec<f32> = shifts.iter().map(|shift| -shift).collect();
            (CodedWeights::Unsigned4(codes), Some(negated))
        }
    };
    let offsets = shifts.as_ref().map_or(GroupOffsets::None, |shifts| {
        GroupOffsets::Values(GroupNumbers::Plain(shifts))
    });
    let matrix = CodedMatrix {
        outputs: packed.rows,
        inputs: packed.cols,
        group: packed.group_size,
        codes,
        scales: GroupNumbers::Plain(&packed.scales),
        offsets,
        order: None,
    };
    Coded::new(matrix, activations)
}

/// A layer whose groups reach from one row into the next: rows become numbers as they are used.
#[derive(Debug)]
struct RowByRow {
    packed: Packed,
    /// NF4's block scales in full.
    absmax: Vec<f32>,
}

/// From this many rows of activations on, a tile of weights is laid out for the engine's own
/// product; below, rows of weights meet rows of activations one by one.
const PANEL_ROWS: usize = 4;

impl RowByRow {
    fn new(packed: Packed) -> RowByRow {
        let absmax = match &packed {
            Packed::Nf4(packed) => packed.absmax.values(),
            _ => Vec::new(),
        };
        RowByRow { packed, absmax }
    }

    /// The weights of one output.
    fn row(&self, row: usize, out: &mut [f32]) {
        let cols = out.len();
        let start = row * cols;
        match &self.packed {
            Packed::Nf4(packed) => {
                for (at, out) in (start..).zip(out) {
                    let byte = packed.packed[at / 2];
                    let code = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
                    *out = NF4[usize::from(code)] * self.absmax[at / BLOCK];
                }
            }
            Packed::Int8(packed) => {
                let scale = packed.absmax[row];
                for (out, &code) in out.iter_mut().zip(&packed.codes[start..]) {
                    *out = f32::from(code) * scale * STEP;
                }
            }
            Packed::Affine(packed) => {
                let groups = packed.groups();
                let scales = &packed.scales[row * groups..][..groups];
                let zeros = &packed.zeros[row * groups..][..groups];
                for (col, (out, &code)) in out.iter_mut().zip(&packed.codes[start..]).enumerate() {
                    let group = packed.group(col);
                    *out = scales[group] * (f32::from(code) - f32::from(zeros[group]));
                }
            }
            Packed::Hqq(packed) => {
                for ((at, out), &code) in (start..).zip(out).zip(&packed.codes[start..]) {
                    let group = at / packed.group_size;
                    let (scale, zero) = (packed.scales[group], packed.zeros[group]);
                    *out = (f32::from(code) - zero.to_f32()) * scale.to_f32();
                }
            }
            Packed::Quanto(packed) => {
                for (at, out) in (start..).zip(out) {
                    let group = at / packed.group_size;
                    let scale = packed.scales[group];
                    *out = match &packed.codes {
                        Codes::Int8(codes) => scale * f32::from(codes[at]),
                        Codes::Int4 { codes, shifts } => {
                            scale * f32::from(codes[at]) - shifts[group]
                        }
                    };
                }
            }
        }
    }
}

impl Linear for RowByRow {
    fn tile_rows(&self) -> usize {
        192
    }

    fn inputs(&self) -> usize {
        self.packed.shape().1
    }

    fn outputs(&self) -> usize {
        self.packed.shape().0
    }

    fn bytes(&self) -> usize {
        self.packed.bytes() + 4 * self.absmax.len()
    }

    fn tile(&self, rows: Rows<'_>, prepared: &Prepared, outputs: Range<usize>, out: &mut [f32]) {
        let (inputs, width) = (self.inputs(), outputs.len());
        if rows.count() >= PANEL_ROWS {
            let mut weights = vec![0.0; width * inputs];
            for (output, row) in outputs.zip(weights.chunks_exact_mut(inputs)) {
                self.row(output, row);
            }
            Dense::from_f32(&weights, inputs).tile(rows, prepared, 0..width, out);
            return;
        }
        let mut weights = vec![0.0; inputs];
        for (at, output) in outputs.enumerate() {
            self.row(output, &mut weights);
            for row in 0..rows.count() {
                out[row * width + at] = dot(rows.row(row), &weights);
            }
        }
    }

    fn weights(&self, output: usize, out: &mut [f32]) {
        self.row(output, out);
    }
}

/// The sum of products in sixteen lanes, always in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// A quantized checkpoint as a source of weights for the engine.
#[derive(Debug)]
pub struct QuantizedSource<'a> {
    quantized: Quantized<'a>,
    rest: Plain<'a>,
    activations: Activations,
}

impl<'a> QuantizedSource<'a> {
    /// Opens a checkpoint that says in its configuration how it was quantized.
    ///
    /// # Errors
    /// If it does not, or in a way that is not known.
    pub fn open(
        checkpoint: &'a Checkpoint,
        activations: Activations,
    ) -> Result<QuantizedSource<'a>, Error> {
        Ok(QuantizedSource {
            quantized: Quantized::open(checkpoint)?,
            rest: Plain::beside_quantized(checkpoint),
            activations,
        })
    }
}

impl Source for QuantizedSource<'_> {
    fn has(&self, name: &str) -> bool {
        let layer = name.strip_suffix(".weight");
        self.rest.has(name) || layer.is_some_and(|layer| self.quantized.has(layer))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.rest.vector(name, len)
    }

    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        order: Order,
    ) -> Result<Arc<dyn Linear>, EngineError> {
        if !self.quantized.has(name) {
            return self.rest.linear(name, outputs, inputs, order);
        }
        let wrong = |message: String| EngineError::Packed {
            layer: name.to_owned(),
            message,
        };
        let packed = self
            .quantized
            .packed(name)
            .map_err(|error| wrong(error.to_string()))?;
        if packed.shape() != (outputs, inputs) {
            let found = packed.shape();
            return Err(wrong(format!(
                "it should be {outputs} x {inputs}, found {found:?}"
            )));
        }
        Ok(linear(packed, self.activations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use crate::method::affine::tests::spec;
    use crate::method::{hqq, int8, nf4, quanto, rtn};
    use sparse_checkpoint::Dtype;

    const INPUTS: usize = 144;

    /// Every kind of codes, with the kernels' groups and with groups that reach into the next row.
    fn every_kind() -> Vec<Packed> {
        let value = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.5;
        let weights = Matrix::new(70, INPUTS, (0..70 * INPUTS).map(value).collect()).unwrap();
        let mut kinds = vec![
            Packed::Nf4(nf4::quantize(&weights, true)),
            Packed::Int8(int8::quantize(&weights)),
            Packed::Hqq(hqq::quantize(&weights, 3, 48)),
            Packed::Hqq(hqq::quantize(&weights, 8, 60)),
            Packed::Quanto(quanto::quantize8(&weights, Dtype::F16)),
            Packed::Quanto(quanto::quantize4(&weights, Dtype::BF16)),
        ];
        for (bits, group, symmetric) in
            [(4, 32, false), (3, 64, true), (8, 16, false), (4, 20, true)]
        {
            kinds.push(Packed::Affine(rtn::quantize(
                &weights,
                &spec(bits, group, symmetric),
            )));
        }
        // Act-order: inputs of a group lie apart.
        let mut apart = rtn::quantize(&weights, &spec(4, 48, false));
        apart.group_of = Some((0..INPUTS as u32).map(|input| input % 3).collect());
        kinds.push(Packed::Affine(apart));
        kinds
    }

    /// `Activations::Int8`'s rounding error: half a step of 127ths of the largest activation of a
    /// block, weights as they come.
    fn slack(x: &[f32], weights: &[f32]) -> f32 {
        let largest = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let squares: f32 = weights.iter().map(|w| w * w).sum();
        // NF4's table is rounded too, to about as many steps.
        4.0 * largest / 127.0 * squares.sqrt() + 1e-3
    }

    #[test]
    fn products_are_those_of_the_dequantized_weights() {
        for packed in every_kind() {
            let plain = packed.dequantize();
            // hqq and quanto dequantize in half precision elsewhere, codes less zero points too.
            let rounding = match packed {
                Packed::Hqq(_) | Packed::Quanto(_) => 0.08,
                _ => 1e-4,
            };
            for activations in [Activations::F32, Activations::Int8] {
                let linear = linear(packed.clone(), activations);
                for count in [1, 3, 9] {
                    let x: Vec<f32> = (0..count * INPUTS)
                        .map(|i| (i * 31 % 101) as f32 / 50.0 - 1.0)
                        .collect();
                    let rows = Rows::new(&x, count, INPUTS);
                    let mut prepared = Prepared::default();
                    linear.prepare(rows, &mut prepared);
                    for outputs in [0..64, 64..70] {
                        let mut out = vec![0.0; count * outputs.len()];
                        linear.tile(rows, &prepared, outputs.clone(), &mut out);
                        for row in 0..count {
                            for (at, output) in outputs.clone().enumerate() {
                                let exact = dot(rows.row(row), plain.row(output));
                                let found = out[row * outputs.len() + at];
                                let slack = match activations {
                                    Activations::F32 => rounding,
                                    Activations::Int8 => {
                                        rounding + slack(rows.row(row), plain.row(output))
                                    }
                                };
                                assert!((exact - found).abs() < slack, "{exact} {found}");
                            }
                        }
                    }
                    let mut weights = vec![0.0; INPUTS];
                    linear.weights(69, &mut weights);
                    for (found, exact) in weights.iter().zip(plain.row(69)) {
                        assert!((found - exact).abs() <= rounding / 20.0, "{found} {exact}");
                    }
                }
            }
        }
    }
}
