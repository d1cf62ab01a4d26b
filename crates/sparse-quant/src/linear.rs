//! A quantized layer that the engine runs as it is stored: rows become numbers as they are used, and
//! are never all numbers at once.

use std::ops::Range;
use std::sync::Arc;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{Dense, Error as EngineError, Linear, Order, Plain, Rows, Source};

use crate::method::nf4::{self, NF4};
use crate::method::quanto::Codes;
use crate::scheme::Packed;
use crate::{Error, Quantized};

/// A layer in codes.
#[derive(Debug)]
pub struct PackedLinear {
    packed: Packed,
    /// NF4's block scales in full.
    absmax: Vec<f32>,
}

/// From this many rows of activations on, a tile of weights is laid out for the engine's own
/// product; below, rows of weights meet rows of activations one by one.
const PANEL_ROWS: usize = 4;

impl PackedLinear {
    /// Takes a layer.
    pub fn new(packed: Packed) -> PackedLinear {
        let absmax = match &packed {
            Packed::Nf4(packed) => packed.absmax.values(),
            _ => Vec::new(),
        };
        PackedLinear { packed, absmax }
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
                    *out = NF4[usize::from(code)] * self.absmax[at / nf4::BLOCK];
                }
            }
            Packed::Int8(packed) => {
                let scale = packed.absmax[row];
                for (out, &code) in out.iter_mut().zip(&packed.codes[start..]) {
                    *out = f32::from(code) * scale * crate::method::int8::STEP;
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

impl Linear for PackedLinear {
    fn inputs(&self) -> usize {
        self.packed.shape().1
    }

    fn outputs(&self) -> usize {
        self.packed.shape().0
    }

    fn bytes(&self) -> usize {
        self.packed.bytes() + 4 * self.absmax.len()
    }

    fn tile(&self, rows: Rows<'_>, _prepared: &[u8], outputs: Range<usize>, out: &mut [f32]) {
        let (inputs, width) = (self.inputs(), outputs.len());
        if rows.count() >= PANEL_ROWS {
            let mut weights = vec![0.0; width * inputs];
            for (output, row) in outputs.zip(weights.chunks_exact_mut(inputs)) {
                self.row(output, row);
            }
            Dense::from_f32(&weights, inputs).tile(rows, &[], 0..width, out);
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
}

impl<'a> QuantizedSource<'a> {
    /// Opens a checkpoint that says in its configuration how it was quantized.
    ///
    /// # Errors
    /// If it does not, or in a way that is not known.
    pub fn open(checkpoint: &'a Checkpoint) -> Result<QuantizedSource<'a>, Error> {
        Ok(QuantizedSource {
            quantized: Quantized::open(checkpoint)?,
            rest: Plain::beside_quantized(checkpoint),
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
        Ok(Arc::new(PackedLinear::new(packed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use crate::method::affine::tests::spec;
    use crate::method::{hqq, int8, quanto, rtn};
    use sparse_checkpoint::Dtype;

    fn every_kind() -> Vec<Packed> {
        let value = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.5;
        // A last group of a row that is shorter, blocks that reach into the next row.
        let weights = Matrix::new(70, 72, (0..70 * 72).map(value).collect()).unwrap();
        vec![
            Packed::Nf4(nf4::quantize(&weights, true)),
            Packed::Int8(int8::quantize(&weights)),
            Packed::Affine(rtn::quantize(&weights, &spec(4, 32, false))),
            Packed::Hqq(hqq::quantize(&weights, 3, 48)),
            Packed::Quanto(quanto::quantize8(&weights, Dtype::F16)),
            Packed::Quanto(quanto::quantize4(&weights, Dtype::BF16)),
        ]
    }

    #[test]
    fn products_are_those_of_the_dequantized_weights() {
        for packed in every_kind() {
            let plain = packed.dequantize();
            let linear = PackedLinear::new(packed);
            for count in [1, 3, 9] {
                let x: Vec<f32> = (0..count * 72)
                    .map(|i| (i % 13) as f32 / 6.0 - 1.0)
                    .collect();
                let rows = Rows::new(&x, count, 72);
                for outputs in [0..64, 64..70] {
                    let mut out = vec![0.0; count * outputs.len()];
                    linear.tile(rows, &[], outputs.clone(), &mut out);
                    for row in 0..count {
                        for (at, output) in outputs.clone().enumerate() {
                            let exact = dot(rows.row(row), plain.row(output));
                            let found = out[row * outputs.len() + at];
                            // hqq and quanto dequantize in half precision elsewhere.
                            assert!((exact - found).abs() < 0.08, "{exact} {found}");
                        }
                    }
                }
            }
        }
    }
}
