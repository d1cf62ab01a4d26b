use proptest::prelude::*;

use super::format::{Format, Visit, dispatch};
use super::linear::Vectors;
use super::*;

/// Rounds base plus changes to a layout.
struct Merge<'a, W> {
    base: &'a [W],
    changes: &'a [f64],
}

impl<W: Word> Visit<W> for Merge<'_, W> {
    type Output = Vec<W>;
    fn visit<F: Format<Word = W>>(self, format: F) -> Vec<W> {
        self.base
            .iter()
            .zip(self.changes)
            .map(|(&base, &change)| {
                format.round(to_sum::<F>(f64::from(format.value(base)) + change))
            })
            .collect()
    }
}

/// The number as the format sums it, within 2^-48 of its size.
fn to_sum<F: Format>(value: f64) -> F::Sum {
    // Two integers hold 48 bits of the number.
    let exponent = if value == 0.0 {
        0
    } else {
        value.abs().log2().floor() as i32
    };
    let high = (value * f64::from(20 - exponent).exp2()).round();
    let low = ((value - high * f64::from(exponent - 20).exp2()) * f64::from(50 - exponent).exp2())
        .round();
    F::Sum::from_int(high as i32) * F::Sum::power(exponent - 20)
        + F::Sum::from_int(low as i32) * F::Sum::power(exponent - 50)
}

/// A base of about Gaussian weights and a fine-tune that is a low-rank merge of it.
fn merged<W: Word>(
    layout: Layout,
    rows: usize,
    cols: usize,
    rank: usize,
    size: f64,
) -> (Vec<W>, Vec<W>) {
    let sum_of_four = Vectors::random(rows * cols, 4);
    let weights: Vec<f64> = (0..rows * cols)
        .map(|i| (0..4).map(|k| sum_of_four.vector(k)[i]).sum::<f64>() * 0.02)
        .collect();
    let (left, right) = (Vectors::random(rows, rank), Vectors::random(cols + 1, rank));
    let changes: Vec<f64> = (0..rows * cols)
        .map(|at| {
            (0..rank)
                .map(|k| left.vector(k)[at / cols] * right.vector(k)[at % cols + 1])
                .sum::<f64>()
                * size
        })
        .collect();
    let zeros = vec![W::default(); rows * cols];
    let base = dispatch(
        layout,
        Merge {
            base: &zeros,
            changes: &weights,
        },
    )
    .unwrap();
    let fine = dispatch(
        layout,
        Merge {
            base: &base,
            changes: &changes,
        },
    )
    .unwrap();
    (base, fine)
}

fn missed<W: Word>(layout: Layout, matrix: &LowRank, base: &[W], fine: &[W]) -> f64 {
    let mut predicted = vec![W::default(); base.len()];
    matrix.predict(layout, 0, base, &mut predicted);
    let missed = predicted.iter().zip(fine).filter(|(p, f)| p != f).count();
    missed as f64 / fine.len() as f64
}

fn finds<W: Word>(layout: Layout, rank: usize) {
    let (base, fine) = merged::<W>(layout, 160, 224, rank, 0.002);
    let matrix = LowRank::find(layout, (160, 224), &base, &fine, &|| false).unwrap();
    assert_eq!(matrix.rank(), rank, "{layout:?}");
    let unchanged = base.iter().zip(&fine).filter(|(b, f)| b == f).count();
    assert!(
        unchanged * 2 < base.len(),
        "{layout:?}: the test is too easy"
    );
    let missed = missed(layout, &matrix, &base, &fine);
    assert!(missed < 0.12, "{layout:?}: {missed}");
    let mut bytes = Vec::new();
    matrix.write(&mut bytes);
    let read = LowRank::read(&mut Reader::new(&bytes, "test"), 160, 224).unwrap();
    assert_eq!(read, matrix);
}

#[test]
fn merges_are_found_in_every_format() {
    for rank in [1, 4, 9] {
        finds::<u16>(Layout::BF16, rank);
        finds::<u16>(Layout::F16, rank);
        finds::<u32>(Layout::F32, rank);
        finds::<u32>(Layout::F32.with_shift(16).unwrap(), rank);
    }
}

#[test]
fn other_changes_are_not() {
    let (base, _) = merged::<u16>(Layout::BF16, 160, 224, 4, 0.002);
    assert_eq!(
        LowRank::find(Layout::BF16, (160, 224), &base, &base, &|| false),
        None
    );
    // Full rank.
    let (_, fine) = merged::<u16>(Layout::BF16, 160, 224, 160, 0.0002);
    assert_eq!(
        LowRank::find(Layout::BF16, (160, 224), &base, &fine, &|| false),
        None
    );
    // Unrelated.
    let other: Vec<u16> = base.iter().rev().copied().collect();
    assert_eq!(
        LowRank::find(Layout::BF16, (160, 224), &base, &other, &|| false),
        None
    );
    // Not what it says it is.
    assert_eq!(
        LowRank::find(Layout::BF16, (160, 225), &base, &fine, &|| false),
        None
    );
    assert_eq!(
        LowRank::find(Layout::F8_E4M3, (160, 224), &base, &fine, &|| false),
        None
    );
    let noise: Vec<u16> = (0..160 * 224u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 16) as u16)
        .collect();
    assert_eq!(
        LowRank::find(Layout::BF16, (160, 224), &base, &noise, &|| false),
        None
    );
}

#[test]
fn a_search_that_is_stopped_anywhere_finds_nothing() {
    let shape = (160, 224);
    let (base, fine) = merged::<u16>(Layout::BF16, shape.0, shape.1, 3, 0.002);
    let asked = std::cell::Cell::new(0usize);
    let find = |most: usize| {
        asked.set(0);
        let stop = || asked.replace(asked.get() + 1) >= most;
        LowRank::find(Layout::BF16, shape, &base, &fine, &stop)
            .or_else(|| LowRank::fit(Layout::BF16, shape, &base, &fine, 8, &stop))
    };
    assert!(find(usize::MAX).is_some());
    let all = asked.get();
    assert!(all > 1000, "it is asked {all} times");
    for most in (0..all).step_by(all / 50) {
        assert_eq!(find(most), None, "after {most} of {all}");
    }
}

#[test]
fn the_low_rank_part_of_other_changes_is_found() {
    let (rows, cols) = (160, 224);
    let (base, part) = merged::<u16>(Layout::BF16, rows, cols, 3, 0.002);
    let (_, rest) = merged::<u16>(Layout::BF16, rows, cols, 160, 0.00003);
    // Both changes at once, in steps.
    let fine: Vec<u16> = (0..base.len())
        .map(|i| {
            let [b, p, r] = [&base, &part, &rest].map(|words| u32::from(words[i]));
            Layout::BF16.step_from(p, Layout::BF16.steps(b, r)) as u16
        })
        .collect();
    assert_eq!(
        LowRank::find(Layout::BF16, (rows, cols), &base, &fine, &|| false),
        None
    );
    let matrix = LowRank::fit(Layout::BF16, (rows, cols), &base, &fine, 8, &|| false).unwrap();
    assert!((1..=8).contains(&matrix.rank()));
    assert!(missed(Layout::BF16, &matrix, &base, &fine) < 0.8);
    assert_eq!(
        LowRank::fit(Layout::BF16, (rows, cols), &base, &base, 8, &|| false),
        None
    );
    assert_eq!(
        LowRank::fit(Layout::BF16, (rows, cols), &base, &fine, 0, &|| false),
        None
    );
}

#[test]
fn infinities_and_nans_do_not_hide_a_merge() {
    for (rows, cols) in [(160, 224), (65, 301)] {
        let (mut base, mut fine) = merged::<u16>(Layout::BF16, rows, cols, 2, 0.002);
        for (i, word) in [0x7f80, 0xff80, 0x7fc1, 0x7f7f].into_iter().enumerate() {
            base[40 * i + 7] = word;
            fine[60 * i + 3] = word;
        }
        let matrix = LowRank::find(Layout::BF16, (rows, cols), &base, &fine, &|| false).unwrap();
        assert_eq!(matrix.rank(), 2);
        assert!(missed(Layout::BF16, &matrix, &base, &fine) < 0.12);
        let mut predicted = vec![0; base.len()];
        matrix.predict(Layout::BF16, 0, &base, &mut predicted);
        assert_eq!(predicted[7], 0x7f80);
        assert_eq!(predicted[87], 0x7fc1);
    }
}

/// One weight at a time, as the documentation says it.
fn by_hand(matrix: &LowRank, at: usize, base: u16) -> u16 {
    let (row, column) = (at / matrix.cols, at % matrix.cols);
    let widen = |word: u16| f32::from_bits(u32::from(word) << 16);
    let round = |x: f32| ((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) >> 16) as u16;
    let mut sum = 0.0f32;
    for (k, &exponent) in matrix.exponents.iter().enumerate() {
        let left = matrix.left[row * matrix.rank() + k] as f32 * 2f32.powi(exponent);
        let product = left * matrix.right[k * matrix.cols + column] as f32;
        sum += product;
    }
    let change = if matrix.rounded {
        widen(round(sum))
    } else {
        sum
    };
    if widen(base).is_finite() && change.is_finite() {
        round(widen(base) + change)
    } else {
        base
    }
}

#[test]
fn predictions_are_what_the_documentation_says() {
    for seed in 0..40 {
        let matrix = wild(33, 77, 5, seed);
        let base: Vec<u16> = (0..33 * 77u32).map(|i| (i * 25) as u16).collect();
        let mut predicted = vec![0; base.len()];
        matrix.predict(Layout::BF16, 0, &base, &mut predicted);
        for (at, (&base, &word)) in base.iter().zip(&predicted).enumerate() {
            assert_eq!(word, by_hand(&matrix, at, base), "{seed} {at}");
        }
    }
}

/// Wild factors: every component's products have other sizes and signs.
fn wild(rows: usize, cols: usize, rank: usize, seed: u32) -> LowRank {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as i32 >> (state >> 8 & 31)
    };
    LowRank {
        rows,
        cols,
        rounded: seed % 2 == 1,
        exponents: (0..rank).map(|_| next().rem_euclid(161) - 120).collect(),
        left: (0..rows * rank).map(|_| next()).collect(),
        right: (0..cols * rank).map(|_| next()).collect(),
        panels: Panels::default(),
    }
}

fn digest(words: impl Iterator<Item = u32>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn predictions_are_the_same_everywhere() {
    let mut found = Vec::new();
    for seed in [6, 7] {
        let matrix = wild(33, 77, 5, seed);
        let half: Vec<u16> = (0..33 * 77u32).map(|i| (i * 25) as u16).collect();
        let full: Vec<u32> = (0..33 * 77u32)
            .map(|i| i.wrapping_mul(0x019a_7b31))
            .collect();
        for layout in [Layout::BF16, Layout::F16] {
            let mut out = vec![0; half.len()];
            matrix.predict(layout, 0, &half, &mut out);
            found.push(digest(out.iter().map(|&x| u32::from(x))));
        }
        let mut out = vec![0; full.len()];
        matrix.predict(Layout::F32, 0, &full, &mut out);
        found.push(digest(out.iter().copied()));
    }
    // Frozen: files written by one version must read the same in the next, on any machine.
    assert_eq!(
        found,
        [
            7924866118150119316u64,
            16422404246697119768,
            9707659567813356165,
            15327130353361253762,
            12109146816297153066,
            2458149564607707090,
        ]
    );
}

proptest! {
    #[test]
    fn any_part_is_predicted_alike(seed in any::<u32>(), rank in 0usize..7, start in 0usize..3000, len in 0usize..800) {
        let matrix = wild(33, 77, rank, seed);
        let base: Vec<u16> = (0..4000u32).map(|i| (i.wrapping_mul(seed | 1) >> 9) as u16).collect();
        let mut whole = vec![0; base.len()];
        matrix.predict(Layout::F16, 0, &base, &mut whole);
        let range = start..start + len;
        let mut part = vec![0; len];
        matrix.predict(Layout::F16, start, &base[range.clone()], &mut part);
        prop_assert_eq!(&part, &whole[range]);
    }

    #[test]
    fn factors_round_trip(seed in any::<u32>(), rank in 0usize..7, rows in 7usize..40, cols in 7usize..40) {
        let matrix = wild(rows, cols, rank, seed);
        let mut bytes = Vec::new();
        matrix.write(&mut bytes);
        let mut reader = Reader::new(&bytes, "test");
        prop_assert_eq!(LowRank::read(&mut reader, rows, cols), Ok(matrix));
        prop_assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn damage_never_panics(
        seed in any::<u32>(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        rows in 0usize..40,
        cut in any::<prop::sample::Index>(),
        junk in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = Vec::new();
        wild(33, 20, 3, seed).write(&mut bytes);
        let position = at.index(bytes.len());
        bytes[position] = to;
        bytes.truncate(1 + cut.index(bytes.len() + bytes.len() / 2));
        for bytes in [&bytes, &junk] {
            if let Ok(read) = LowRank::read(&mut Reader::new(bytes, "test"), rows, 20) {
                let base = vec![0x7f7fu16; rows * 20];
                let mut out = vec![0; base.len()];
                for layout in [Layout::BF16, Layout::F16] {
                    read.predict(layout, 0, &base, &mut out);
                }
                let base = vec![0xff7f_ffffu32; rows * 20];
                let mut out = vec![0; base.len()];
                read.predict(Layout::F32, 0, &base, &mut out);
            }
        }
    }

    #[test]
    fn random_merges_shrink(rank in 1usize..6, rows in 64usize..200, cols in 64usize..200, size in -12f64..-8.0) {
        let (base, fine) = merged::<u16>(Layout::BF16, rows, cols, rank, size.exp2());
        if let Some(matrix) = LowRank::find(Layout::BF16, (rows, cols), &base, &fine, &|| false) {
            prop_assert!(matrix.rank() <= rank + 1);
            let before = base.iter().zip(&fine).filter(|(b, f)| b != f).count() as f64 / fine.len() as f64;
            prop_assert!(missed(Layout::BF16, &matrix, &base, &fine) < before / 2.0);
        } else {
            prop_assert!(rank * (rows + cols) * 12 > rows * cols || size < -9.0);
        }
    }
}
