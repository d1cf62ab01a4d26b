//! Symbols decoded and applied in one loop: the decoder waits for its gathers most of the time, and
//! the CPU rebuilds the weights of the group before meanwhile.

use std::arch::x86_64::__m256i;

use super::apply::Rule;
use super::apply_avx2::push;
use super::{apply_avx2, apply_avx512};
use crate::Word;
use crate::bits::BitReader;
use crate::context::BLOCK;
use crate::rans::Decoder;
use crate::simd::prefetch;

/// One copy for each level: a function of one level is not inlined into that of another.
macro_rules! fused {
    ($name:ident, $groups:ident, $group:path, $features:literal) => {
        /// Decodes and rebuilds groups of 32 weights while the decoder has many left to read, and
        /// returns how many weights that was.
        ///
        /// # Safety
        /// The CPU must have the level that the name says.
        #[target_feature(enable = $features)]
        #[allow(clippy::too_many_arguments)]
        pub(super) unsafe fn $name<W: Word>(
            rule: &Rule,
            decoder: &mut Decoder<'_>,
            base: &[W],
            symbols: &mut [u8],
            contexts: &[u8],
            low: &mut BitReader<'_>,
            out: &mut [W],
            escapes: &mut Vec<u32>,
        ) -> usize {
            let bases = base.as_chunks::<32>().0;
            let outs = out.as_chunks_mut::<32>().0;
            let all = contexts.as_chunks::<32>().0;
            // Kept until the loop is over: a call within it would cost the states their registers.
            let mut masks = [0u32; BLOCK / 32];
            assert!(bases.len() <= masks.len());
            let each = |at: usize, symbols: __m256i| {
                let i = at / 32;
                prefetch(bases[i].as_ptr().wrapping_add(BLOCK), 32);
                prefetch(outs[i].as_ptr().wrapping_add(BLOCK), 32);
                masks[i] = $group(rule, &bases[i], symbols, &all[i], low, &mut outs[i]);
            };
            // SAFETY: the caller vouches for the CPU.
            let done = unsafe { decoder.$groups(contexts, symbols, each) };
            for (i, &mask) in masks[..done / 32].iter().enumerate() {
                push(mask, 32 * i, escapes);
            }
            done
        }
    };
}

fused!(
    avx2,
    groups_avx2,
    apply_avx2::group,
    "avx2,bmi1,bmi2,lzcnt,popcnt"
);
fused!(
    avx512,
    groups_avx512,
    apply_avx512::group,
    "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
);
