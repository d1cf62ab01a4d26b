//! llama.cpp's block types: bit for bit what its reference quantization writes, with and without
//! an importance matrix.
//!
//! Sums are taken in the order in which its C code takes them, in f32 without fused operations.

mod codes;
mod legacy;
mod search;
mod superblock;

use rayon::prelude::*;
use sparse_engine::{Vectorize, vectorized};

use crate::Matrix;

pub use codes::{BlockCodes, BlockOffsets, Numbers, codes};

/// A type of tensor in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(non_camel_case_types, missing_docs)] // the format's own names
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl GgmlType {
    /// Every type that is written and read.
    pub const ALL: [GgmlType; 10] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
    ];

    /// The number that stands for it in a file.
    pub const fn id(self) -> u32 {
        match self {
            GgmlType::F32 => 0,
            GgmlType::F16 => 1,
            GgmlType::Q4_0 => 2,
            GgmlType::Q4_1 => 3,
            GgmlType::Q5_0 => 6,
            GgmlType::Q5_1 => 7,
            GgmlType::Q8_0 => 8,
            GgmlType::Q4_K => 12,
            GgmlType::Q5_K => 13,
            GgmlType::Q6_K => 14,
        }
    }

    /// Weights of a block, and the bytes that it takes.
    pub const fn block(self) -> (usize, usize) {
        match self {
            GgmlType::F32 => (1, 4),
            GgmlType::F16 => (1, 2),
            GgmlType::Q4_0 => (32, 18),
            GgmlType::Q4_1 => (32, 20),
            GgmlType::Q5_0 => (32, 22),
            GgmlType::Q5_1 => (32, 24),
            GgmlType::Q8_0 => (32, 34),
            GgmlType::Q4_K => (256, 144),
            GgmlType::Q5_K => (256, 176),
            GgmlType::Q6_K => (256, 210),
        }
    }

    /// Bytes of a row of `cols` weights, a multiple of the block.
    pub const fn row_bytes(self, cols: usize) -> usize {
        let (weights, bytes) = self.block();
        cols / weights * bytes
    }

    /// This type, or what llama.cpp takes instead where rows are no whole number of blocks.
    pub fn fitting(self, cols: usize) -> GgmlType {
        let fits = |kind: GgmlType| cols.is_multiple_of(kind.block().0);
        let smaller = match self {
            GgmlType::Q4_K => GgmlType::Q5_0,
            GgmlType::Q5_K => GgmlType::Q5_1,
            GgmlType::Q6_K => GgmlType::Q8_0,
            other => other,
        };
        [self, smaller]
            .into_iter()
            .find(|&kind| fits(kind))
            .unwrap_or(GgmlType::F16)
    }
}

/// Quantizes a matrix whose rows are whole blocks; `importance` has the mean square of each input.
///
/// # Panics
/// If rows are no whole number of blocks, or `importance` is of another length than they are.
pub fn quantize(weights: &Matrix, kind: GgmlType, importance: Option<&[f32]>) -> Vec<u8> {
    let cols = weights.cols();
    assert!(cols.is_multiple_of(kind.block().0));
    assert!(importance.is_none_or(|importance| importance.len() == cols));
    let width = kind.row_bytes(cols);
    let mut bytes = vec![0; weights.rows() * width];
    if width > 0 {
        bytes
            .par_chunks_exact_mut(width)
            .zip(weights.data().par_chunks_exact(cols))
            .for_each(|(out, row)| quantize_row(row, kind, importance, out));
    }
    bytes
}

/// Quantizes one row; see [`quantize`].
pub(crate) fn quantize_row(
    row: &[f32],
    kind: GgmlType,
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    vectorized(QuantizeRow {
        row,
        kind,
        importance,
        out,
    });
}

struct QuantizeRow<'a> {
    row: &'a [f32],
    kind: GgmlType,
    importance: Option<&'a [f32]>,
    out: &'a mut [u8],
}

impl Vectorize for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let QuantizeRow {
            row,
            kind,
            importance,
            out,
        } = self;
        match kind {
            GgmlType::F32 => {
                for (out, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(row) {
                    *out = value.to_le_bytes();
                }
            }
            GgmlType::F16 => {
                for (out, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                    *out = half::f16::from_f32(value).to_le_bytes();
                }
            }
            GgmlType::Q4_0 => legacy::q4_0(row, importance, out),
            GgmlType::Q5_0 => legacy::q5_0(row, importance, out),
            GgmlType::Q4_1 => legacy::with_offset(row, importance, out, 4),
            GgmlType::Q5_1 => legacy::with_offset(row, importance, out, 5),
            GgmlType::Q8_0 => legacy::q8_0(row, out),
            GgmlType::Q4_K => superblock::q45_k(row, importance, out, false),
            GgmlType::Q5_K => superblock::q45_k(row, importance, out, true),
            GgmlType::Q6_K => superblock::q6_k(row, importance, out),
        }
    }
}

/// The weights that rows of blocks stand for.
///
/// # Panics
/// If `bytes` are not `rows` rows of `cols` weights.
pub fn dequantize(bytes: &[u8], kind: GgmlType, rows: usize, cols: usize) -> Matrix {
    let (weights, size) = kind.block();
    assert!(cols.is_multiple_of(weights) && bytes.len() == rows * kind.row_bytes(cols));
    let mut matrix = Matrix::zeros(rows, cols);
    matrix
        .data_mut()
        .par_chunks_exact_mut(weights)
        .zip(bytes.par_chunks_exact(size))
        .for_each(|(out, block)| match kind {
            GgmlType::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            GgmlType::F16 => out[0] = half(block, 0),
            GgmlType::Q4_0 => legacy::from_q4_0(block, out),
            GgmlType::Q4_1 => legacy::from_q4_1(block, out),
            GgmlType::Q5_0 => legacy::from_q5(block, out, false),
            GgmlType::Q5_1 => legacy::from_q5(block, out, true),
            GgmlType::Q8_0 => legacy::from_q8_0(block, out),
            GgmlType::Q4_K => superblock::from_q45_k(block, out, false),
            GgmlType::Q5_K => superblock::from_q45_k(block, out, true),
            GgmlType::Q6_K => superblock::from_q6_k(block, out),
        });
    matrix
}

/// The half-precision number at a place of a block.
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Stores a number in half precision, and returns what is stored.
fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let half = half::f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_that_are_no_whole_blocks_take_another_type() {
        assert_eq!(GgmlType::Q4_K.fitting(512), GgmlType::Q4_K);
        assert_eq!(GgmlType::Q4_K.fitting(384), GgmlType::Q5_0);
        assert_eq!(GgmlType::Q6_K.fitting(128), GgmlType::Q8_0);
        assert_eq!(GgmlType::Q8_0.fitting(100), GgmlType::F16);
    }

    proptest! {
        #[test]
        fn weights_come_back_nearly(
            values in prop::collection::vec(-1.0f32..1.0, 512),
            weighted: bool,
        ) {
            // What a step of each type is, at most, over weights within one.
            let steps = [
                (GgmlType::F32, 0.0),
                (GgmlType::F16, 1e-3),
                (GgmlType::Q8_0, 1.0 / 120.0),
                (GgmlType::Q6_K, 1.0 / 12.0),
                (GgmlType::Q5_1, 1.0 / 7.0),
                (GgmlType::Q5_K, 1.0 / 7.0),
                (GgmlType::Q5_0, 1.0 / 7.0),
                (GgmlType::Q4_K, 1.0 / 3.5),
                (GgmlType::Q4_0, 1.0 / 3.5),
                (GgmlType::Q4_1, 1.0 / 3.5),
            ];
            let importance: Vec<f32> = (0..256).map(|i| 0.5 + (i % 7) as f32).collect();
            let matrix = Matrix::new(2, 256, values.clone()).unwrap();
            for (kind, step) in steps {
                let bytes = quantize(&matrix, kind, weighted.then_some(&importance));
                prop_assert_eq!(bytes.len(), 2 * kind.row_bytes(256));
                let back = dequantize(&bytes, kind, 2, 256);
                for (a, b) in values.iter().zip(back.data()) {
                    prop_assert!((a - b).abs() <= step, "{kind:?}: {a} {b}");
                }
            }
        }

        #[test]
        fn any_bytes_are_some_weights(bytes in prop::collection::vec(any::<u8>(), 210)) {
            for kind in GgmlType::ALL {
                let (weights, size) = kind.block();
                let matrix = dequantize(&bytes[..size], kind, 1, weights);
                prop_assert_eq!(matrix.data().len(), weights);
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for kind in GgmlType::ALL {
            let bytes = quantize(&Matrix::zeros(1, 256), kind, None);
            assert!(
                dequantize(&bytes, kind, 1, 256)
                    .data()
                    .iter()
                    .all(|&v| v == 0.0),
                "{kind:?}"
            );
        }
    }
}
