use proptest::prelude::*;

use super::*;
use crate::Fitter;

fn round_trip<W: Word + std::fmt::Debug>(
    layout: Layout,
    width: usize,
    base: &[W],
    fine: &[W],
) -> (ChunkMode, usize) {
    let segment = Scales::segment_for(width);
    let runs = || {
        base.chunks(segment)
            .zip(fine.chunks(segment))
            .enumerate()
            .map(|(i, (b, f))| (i * segment, b, f))
    };
    let mut scratch = Scratch::default();
    let fitters = [Fitter::new(layout).ranked(), Fitter::new(layout)];
    let [_, (mode, bytes)] = fitters.map(|mut fitter| {
        fitter.add(width, fine.len() as u64, runs());
        let fit = fitter.fit();
        let model = Model::new(layout, &fit.tables, &fit.scales[0]);
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(layout, &fit);
        let mode = encoder.encode(&fit.scales[0], 0, base, fine, &mut bytes);
        let mut out = vec![W::default(); fine.len()];
        decode(&model, 0, base, &bytes, &mut scratch, &mut out).unwrap();
        assert_eq!(out, fine);
        assert_eq!(ChunkMode::of(&bytes), Ok(mode));
        (mode, bytes)
    });
    let (tables, scales) = (Fitter::new(layout).fit().tables, Scales::flat(width));
    let model = Model::new(layout, &tables, &scales);

    let mut full = Vec::new();
    encode_full(layout, segment, fine, &mut full);
    let mut out = vec![W::default(); fine.len()];
    decode(&model, 0, &[], &full, &mut scratch, &mut out).unwrap();
    assert_eq!(out, fine);
    (mode, bytes.len())
}

/// A deterministic stream of numbers.
fn noise(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    }
}

/// Roughly normal with standard deviation 1.
fn normal(next: &mut impl FnMut() -> u32) -> f32 {
    (0..4)
        .map(|_| next() as f32 / u32::MAX as f32 - 0.5)
        .sum::<f32>()
        * 1.732
}

fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn trained(len: usize, moved: f32, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut next = noise(seed);
    let base: Vec<f32> = (0..len).map(|_| 0.05 * normal(&mut next)).collect();
    let base: Vec<f32> = base
        .iter()
        .map(|&v| f32::from_bits(u32::from(bf16(v)) << 16))
        .collect();
    let fine = base
        .iter()
        .map(|&v| v + moved * normal(&mut next))
        .collect();
    (base, fine)
}

#[test]
fn a_light_fine_tune_costs_a_few_bits_a_weight() {
    let (base, fine) = trained(100_000, 3e-4, 1);
    let base: Vec<u16> = base.iter().map(|&v| bf16(v)).collect();
    let fine: Vec<u16> = fine.iter().map(|&v| bf16(v)).collect();
    let (mode, bytes) = round_trip(Layout::BF16, 500, &base, &fine);
    assert_eq!(mode, ChunkMode::Delta);
    assert!(bytes * 10 < 4 * base.len(), "{bytes}");
}

#[test]
fn rank_codes_take_little_more() {
    for moved in [3e-4, 1e-3] {
        let (base, fine) = trained(100_000, moved, 1);
        let base: Vec<u16> = base.iter().map(|&v| bf16(v)).collect();
        let fine: Vec<u16> = fine.iter().map(|&v| bf16(v)).collect();
        let sizes = [false, true].map(|ranked| {
            let mut fitter = Fitter::new(Layout::BF16).without_columns();
            if ranked {
                fitter = fitter.ranked();
            }
            fitter.add(500, 100_000, [(0, &base[..50_000], &fine[..50_000])]);
            let fit = fitter.fit();
            let mut bytes = Vec::new();
            let mode = Encoder::new(Layout::BF16, &fit).encode(
                &fit.scales[0],
                0,
                &base,
                &fine,
                &mut bytes,
            );
            assert_eq!(
                mode,
                if ranked {
                    ChunkMode::Ranked
                } else {
                    ChunkMode::Delta
                }
            );
            bytes.len()
        });
        assert!(sizes[1] * 100 < sizes[0] * 107, "{sizes:?}");
    }
}

#[test]
fn few_changes_cost_little() {
    let (base, _) = trained(100_000, 0.0, 2);
    let base: Vec<u16> = base.iter().map(|&v| bf16(v)).collect();
    let mut fine = base.clone();
    let mut next = noise(3);
    for _ in 0..100 {
        fine[next() as usize % 100_000] ^= 1;
    }
    let (mode, bytes) = round_trip(Layout::BF16, 500, &base, &fine);
    assert_eq!(mode, ChunkMode::Sparse);
    assert!(bytes < 250, "{bytes}");
    let (mode, bytes) = round_trip(Layout::BF16, 500, &base, &base);
    assert_eq!((mode, bytes), (ChunkMode::Copy, 1));
    let (mode, bytes) = round_trip(Layout::BF16, 500, &base, &vec![0x3f80; base.len()]);
    assert_eq!((mode, bytes), (ChunkMode::Const, 5));
}

#[test]
fn changes_among_some_weights_come_back_in_every_width() {
    fn check<W: Word + std::fmt::Debug>(layout: Layout, exponents: u32) {
        let mut next = noise(5);
        let (mut base, mut fine) = (Vec::new(), Vec::new());
        for _ in 0..50_000 {
            // Only small weights take steps, four of ten of them, and a few large ones.
            let exponent = 1 + next() % exponents;
            let mantissa = layout.stored_mantissa();
            let word = exponent << mantissa | next() & ((1 << mantissa) - 1);
            let moves = if exponent < 3 {
                next() % 10 < 4
            } else {
                next().is_multiple_of(3000)
            };
            base.push(W::narrow(word));
            fine.push(W::narrow(word + u32::from(moves)));
        }
        let (mode, _) = round_trip(layout, 500, &base, &fine);
        assert_eq!(mode, ChunkMode::Sparse, "{layout:?}");
    }
    check::<u8>(Layout::F8_E4M3, 13);
    check::<u8>(Layout::F8_E5M2, 25);
    check::<u16>(Layout::BF16, 25);
    check::<u16>(Layout::F16, 25);
    check::<u32>(Layout::F32, 25);
}

#[test]
fn full_precision_keeps_every_bit() {
    let (base, fine) = trained(50_000, 1e-4, 4);
    let base: Vec<u32> = base.iter().map(|v| v.to_bits()).collect();
    let mut fine: Vec<u32> = fine.iter().map(|v| v.to_bits()).collect();
    // NaN payloads, infinities, both zeros, subnormals.
    fine[..8].copy_from_slice(&[
        0x7fc0_1234,
        0xffff_ffff,
        0x7f80_0000,
        0xff80_0000,
        0,
        1 << 31,
        1,
        0x8000_0001,
    ]);
    let (mode, bytes) = round_trip(Layout::F32, 250, &base, &fine);
    assert_eq!(mode, ChunkMode::Delta);
    assert!(bytes < base.len() * 3, "{bytes}");
}

#[test]
fn unrelated_weights_are_coded_without_the_base() {
    let (base, _) = trained(20_000, 0.0, 5);
    let (fine, _) = trained(20_000, 0.0, 6);
    let base: Vec<u16> = base.iter().map(|&v| bf16(v)).collect();
    let fine: Vec<u16> = fine.iter().map(|&v| bf16(v)).collect();
    let (mode, bytes) = round_trip(Layout::BF16, 500, &base, &fine);
    assert_eq!(mode, ChunkMode::Full);
    assert!(bytes * 100 < base.len() * 2 * 70, "{bytes}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_words_round_trip(
        pairs in proptest::collection::vec((any::<u32>(), any::<u32>(), 0u32..32), 1..700),
        width in 1usize..600, mask in 0u32..3,
    ) {
        let near: Vec<u32> = pairs.iter().map(|&(b, f, s)| b ^ if mask == 0 { f } else { f >> s }).collect();
        let base: Vec<u32> = pairs.iter().map(|p| p.0).collect();
        round_trip(Layout::F32, width, &base, &near);
        let half = |v: &[u32]| v.iter().map(|&w| w as u16).collect::<Vec<_>>();
        round_trip(Layout::BF16, width, &half(&base), &half(&near));
        round_trip(Layout::F16, width, &half(&base), &half(&near));
        let byte = |v: &[u32]| v.iter().map(|&w| w as u8).collect::<Vec<_>>();
        round_trip(Layout::F8_E4M3, width, &byte(&base), &byte(&near));
        round_trip(Layout::F8_E5M2, width, &byte(&base), &byte(&near));
        let shifted = Layout::F32.with_shift(16).unwrap();
        let high = |v: &[u32]| v.iter().map(|&w| w << 16).collect::<Vec<_>>();
        round_trip(shifted, width, &high(&base), &high(&near));
    }

    #[test]
    fn damaged_chunks_give_an_error_or_weights(
        flips in proptest::collection::vec((any::<u16>(), 1u8..), 1..4), cut in any::<u16>(), moved in 1usize..4, ranked in any::<bool>(),
    ) {
        let (base, fine) = trained(3000, [0.0, 1e-6, 1e-4, 1.0][moved], 7);
        let base: Vec<u16> = base.iter().map(|&v| bf16(v)).collect();
        let fine: Vec<u16> = fine.iter().map(|&v| bf16(v)).collect();
        let mut fitter = Fitter::new(Layout::BF16);
        if ranked {
            fitter = fitter.ranked();
        }
        fitter.add(300, 3000, [(0, &base[..300], &fine[..300])]);
        let fit = fitter.fit();
        let mut bytes = Vec::new();
        Encoder::new(Layout::BF16, &fit).encode(&fit.scales[0], 0, &base, &fine, &mut bytes);
        for &(at, flip) in &flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= flip;
        }
        bytes.truncate(bytes.len().min(usize::from(cut) % 6000 + 1));
        let model = Model::new(Layout::BF16, &fit.tables, &fit.scales[0]);
        let mut out = vec![0u16; 3000];
        let _ = decode(&model, 0, &base, &bytes, &mut Scratch::default(), &mut out);
    }
}
