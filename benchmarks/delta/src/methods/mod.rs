//! The methods that run inside this process, written anew from their publications.

mod bitx;
mod fm_delta;
mod frames;
mod patch_from;
mod planes;
mod range_coder;
mod sparse;
mod zstd_plain;

use anyhow::Result;

use crate::method::Method;

/// All methods in the order of the table.
pub fn all() -> Result<Vec<Box<dyn Method>>> {
    Ok(vec![
        Box::new(sparse::Sparse::high()),
        Box::new(sparse::Sparse::fast()),
        Box::new(sparse::Sparse::fastest()),
        Box::new(bitx::BitX::published()),
        Box::new(bitx::BitX::level_19()),
        Box::new(bitx::BitX::byte_planes()),
        Box::new(fm_delta::FmDelta::new()?),
        Box::new(zstd_plain::ZstdPlain::level_3()),
        Box::new(zstd_plain::ZstdPlain::level_19()),
        Box::new(patch_from::PatchFrom::level_3()),
        Box::new(patch_from::PatchFrom::level_19()),
    ])
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::all;
    use crate::pair::{Layout, TensorSpan};

    /// Small changes, large ones, none, a tensor without a base, and odd sizes.
    fn pair() -> (Layout, Vec<u8>, Vec<u8>) {
        let mut state = 1u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as u32
        };
        let (mut layout, mut base, mut fine) = (Layout::default(), Vec::new(), Vec::new());
        let dtypes = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::U8, Dtype::I64];
        for (i, dtype) in dtypes.into_iter().cycle().take(20).enumerate() {
            let width = dtype.bitsize() / 8;
            let weights = [0, 1, 7, 3001][i / dtypes.len()];
            let (b, f) = (base.len(), fine.len());
            for _ in 0..weights {
                let old = (u64::from(random()) << 32 | u64::from(random())).to_le_bytes();
                let change = if random() % 3 == 0 {
                    random() >> (random() % 31)
                } else {
                    0
                };
                let new = u64::from_le_bytes(old)
                    .wrapping_add(u64::from(change))
                    .to_le_bytes();
                base.extend_from_slice(&old[..width]);
                fine.extend_from_slice(&new[..width]);
            }
            let has_base = i % 7 != 6;
            layout.tensors.push(TensorSpan {
                name: format!("t{i}"),
                dtype,
                shape: vec![weights],
                fine: f..fine.len(),
                base: has_base.then_some(b..base.len()),
            });
        }
        (layout, base, fine)
    }

    #[test]
    fn every_method_rebuilds_the_fine_tune() {
        let (layout, base, fine) = pair();
        for mut method in all().unwrap() {
            let (mut encoded, mut rebuilt) = (Vec::new(), vec![0; fine.len()]);
            // Twice: state kept between calls must not change the outcome.
            for _ in 0..2 {
                encoded.clear();
                rebuilt.fill(0);
                method.encode(&layout, &base, &fine, &mut encoded).unwrap();
                method
                    .decode(&layout, &base, &encoded, &mut rebuilt)
                    .unwrap();
                assert!(rebuilt == fine, "{} is not lossless", method.name());
            }
        }
    }

    #[test]
    fn truncated_input_is_an_error_and_no_panic() {
        let (layout, base, fine) = pair();
        for mut method in all().unwrap() {
            let (mut encoded, mut rebuilt) = (Vec::new(), vec![0; fine.len()]);
            method.encode(&layout, &base, &fine, &mut encoded).unwrap();
            encoded.truncate(encoded.len() / 2);
            let decoded = method.decode(&layout, &base, &encoded, &mut rebuilt);
            assert!(decoded.is_err(), "{} took half its input", method.name());
        }
    }
}
