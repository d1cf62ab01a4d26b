//! Round to nearest: every weight by itself, group by group.

use rayon::prelude::*;

use super::affine::{Affine, AffineSpec};
use crate::Matrix;

/// Quantizes a matrix.
pub fn quantize(weights: &Matrix, spec: &AffineSpec) -> Affine {
    let (rows, cols) = (weights.rows(), weights.cols());
    let group_size = spec.group_in(cols);
    let groups = cols.div_ceil(group_size);
    let mut made = Affine::blank(rows, cols, spec);
    made.codes
        .par_chunks_mut(cols.max(1))
        .zip(made.scales.par_chunks_mut(groups.max(1)))
        .zip(made.zeros.par_chunks_mut(groups.max(1)))
        .zip(weights.data().par_chunks(cols.max(1)))
        .for_each(|(((codes, scales), zeros), row)| {
            for (group, values) in row.chunks(group_size).enumerate() {
                let (scale, zero) = spec.parameters(values, None);
                (scales[group], zeros[group]) = (scale, zero);
                let codes = &mut codes[group * group_size..][..values.len()];
                for (code, &value) in codes.iter_mut().zip(values) {
                    *code = spec.code(value, scale, zero);
                }
            }
        });
    made
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::method::affine::tests::spec;

    proptest! {
        #[test]
        fn every_weight_moves_at_most_half_a_step(
            values in prop::collection::vec(-2.0f32..2.0, 1..300),
            bits in 2u32..=8,
            group in prop_oneof![Just(1usize), Just(7), Just(64), Just(usize::MAX)],
            symmetric: bool,
        ) {
            let matrix = Matrix::new(1, values.len(), values.clone()).unwrap();
            let made = quantize(&matrix, &spec(bits, group, symmetric));
            for (col, (a, b)) in values.iter().zip(made.dequantize().data()).enumerate() {
                // An asymmetric zero point is rounded too; scales are rounded to f16, by half of
                // its least value where they are smallest.
                let step = made.scales[made.group(col)];
                let slack = if symmetric { 0.55 } else { 1.1 };
                let edge = (step * 0.002 + 2f32.powi(-25)) * 256.0;
                prop_assert!((a - b).abs() <= slack * step + edge, "{a} {b} {step}");
            }
        }
    }
}
