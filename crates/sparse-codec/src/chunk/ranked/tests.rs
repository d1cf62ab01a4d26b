use proptest::prelude::*;

use super::read::decode_at;
use super::{RankBuffers, RankCoder, Ranks};
use crate::chunk::{Model, Scratch, rows};
use crate::context::BLOCK;
use crate::simd::Level;
use crate::{CodecError, Fit, Fitter, Layout, Reader};

const LAYOUTS: [Layout; 3] = [
    Layout::BF16,
    Layout::F16,
    match Layout::F16.with_shift(3) {
        Some(layout) => layout,
        None => Layout::F16,
    },
];

fn levels() -> impl Iterator<Item = Level> {
    let all = [Level::Plain, Level::Avx2, Level::Avx512];
    all.into_iter().filter(|&l| l <= crate::simd::level())
}

fn noise(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    }
}

/// Weights of every exponent, and changes of which `far` in a hundred are of any size.
fn changes(layout: Layout, len: usize, far: u32, seed: u32) -> (Vec<u16>, Vec<u16>) {
    let (mut next, shift) = (noise(seed), layout.shift());
    let mut words = || {
        let base = (next() as u16) >> shift << shift;
        let size = if next() % 100 < far {
            next() % 16
        } else {
            next() % 4
        };
        let moved = (next() as u16 & ((1u32 << size) - 1) as u16) << shift;
        match next() % 2 {
            0 => (base, base.wrapping_add(moved)),
            _ => (base, base.wrapping_sub(moved)),
        }
    };
    (0..len).map(|_| words()).unzip()
}

fn fit(layout: Layout, base: &[u16], fine: &[u16]) -> Fit {
    let mut fitter = Fitter::new(layout).without_columns().ranked();
    fitter.add(256, base.len() as u64, [(0, base, fine)]);
    fitter.fit()
}

/// A chunk of these words, without its tag, and what it was to be read with.
fn encoded(level: Level, layout: Layout, fit: &Fit, base: &[u16], fine: &[u16]) -> Vec<u8> {
    let model = Model::new(layout, &fit.tables, &fit.scales[0]);
    let count = base.len().div_ceil(fit.scales[0].segment());
    let rows: Vec<i32> = (0..count as i32).map(|row| row % 30 - 15).collect();
    let mut contexts = vec![0; base.len()];
    model.fill_block(&[], 0, 0, base, &rows, &mut contexts);
    let mut coder = RankCoder::new(Ranks::new(&model), level, RankBuffers::default());
    // In pieces, of which some are no whole groups.
    for at in (0..base.len()).step_by(1000) {
        let range = at..(at + 1000).min(base.len());
        coder.push(&contexts[range.clone()], &base[range.clone()], &fine[range]);
    }
    let mut bytes = Vec::new();
    coder.write(&rows::encode(&rows), &mut bytes);
    bytes
}

fn decoded(
    level: Level,
    layout: Layout,
    fit: &Fit,
    base: &[u16],
    bytes: &[u8],
) -> Result<Vec<u16>, CodecError> {
    let model = Model::new(layout, &fit.tables, &fit.scales[0]);
    let mut out = vec![0; base.len()];
    let (reader, mut scratch) = (Reader::new(bytes, "chunk"), Scratch::default());
    decode_at(level, &model, 0, base, reader, &mut scratch, &mut out)?;
    Ok(out)
}

#[test]
fn all_levels_write_the_same_and_read_it() {
    for layout in LAYOUTS {
        for (far, len) in [
            (0, 5 * BLOCK + 77),
            (5, 3 * BLOCK),
            (100, BLOCK + 640),
            (3, 63),
        ] {
            let (base, fine) = changes(layout, len, far, 11);
            // Tables that have seen some of the changes only.
            let fit = fit(layout, &base[..len / 3], &fine[..len / 3]);
            let plain = encoded(Level::Plain, layout, &fit, &base, &fine);
            for level in levels() {
                assert!(
                    encoded(level, layout, &fit, &base, &fine) == plain,
                    "{level:?}"
                );
                let out = decoded(level, layout, &fit, &base, &plain);
                assert!(
                    out.as_ref() == Ok(&fine),
                    "{layout:?} {level:?} {far} {len}"
                );
            }
        }
    }
}

/// Codes with the longest classes and the most bits, side by side: more than is written at once.
#[test]
fn the_longest_codes_come_back() {
    for layout in LAYOUTS {
        let (base, fine) = changes(layout, 2 * BLOCK, 0, 3);
        let fit = fit(layout, &base, &fine);
        let model = Model::new(layout, &fit.tables, &fit.scales[0]);
        let ranks = Ranks::new(&model);
        // For each weight the difference with a code that is as long as any of its context.
        let mut contexts = vec![0; base.len()];
        let rows = vec![0; base.len().div_ceil(fit.scales[0].segment())];
        model.fill_block(&[], 0, 0, &base, &rows, &mut contexts);
        let far: Vec<u16> = base
            .iter()
            .zip(&contexts)
            .map(|(&word, &context)| {
                let code = usize::from(ranks.codes.codes[usize::from(context)]) * 4;
                let places = &ranks.codes.places[code..code + 32];
                let escape = ranks.codes.escapes[code / 32];
                let last = (0..32)
                    .filter(|&i| places[i] != escape)
                    .max_by_key(|&i| places[i]);
                let steps =
                    (last.unwrap_or(16) as i32 - 16) << ranks.low_bits[usize::from(context)];
                crate::Word::stepped(word, steps, layout.shift())
            })
            .collect();
        let plain = encoded(Level::Plain, layout, &fit, &base, &far);
        for level in levels() {
            assert!(
                encoded(level, layout, &fit, &base, &far) == plain,
                "{level:?}"
            );
            assert!(decoded(level, layout, &fit, &base, &plain).as_ref() == Ok(&far));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damage_is_read_alike_at_all_levels(
        flips in proptest::collection::vec((any::<u16>(), 1u8..), 0..4), cut in any::<u16>(), which in 0usize..3,
    ) {
        let layout = LAYOUTS[which];
        let (base, fine) = changes(layout, BLOCK + 200, 1, 5);
        let fit = fit(layout, &base, &fine);
        let mut bytes = encoded(Level::Plain, layout, &fit, &base, &fine);
        for &(at, flip) in &flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= flip;
        }
        bytes.truncate(bytes.len().min(usize::from(cut)));
        let plain = decoded(Level::Plain, layout, &fit, &base, &bytes);
        for level in levels() {
            let here = decoded(level, layout, &fit, &base, &bytes);
            prop_assert_eq!(here.is_ok(), plain.is_ok());
            if plain.is_ok() {
                prop_assert_eq!(&here, &plain);
            }
        }
    }
}
