//! Any words, coded given any others and without them, come back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_codec::{
    Encoder, Fitter, Layout, Model, Reader, Scales, Scratch, TableSet, Word, decode, encode_full,
};
use sparse_fuzz::{Input, layout, words};

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let (kind, near) = (input.byte(), input.byte());
    let (layout, width) = (layout(kind), input.number() % 2000 + 1);
    let each = layout.bytes();
    let mut fine: Vec<u32> = input
        .0
        .chunks_exact(each)
        .map(|word| word.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b)))
        .map(|word| word >> layout.shift() << layout.shift())
        .collect();
    let base = words(layout, fine.len());
    if near & 1 == 1 {
        // Changes of the base in place of words of their own.
        let keep = (1u32 << (layout.shift() + u32::from(near >> 1) % 16)) - 1;
        for (fine, base) in fine.iter_mut().zip(&base) {
            *fine = (*fine & keep) ^ base;
        }
    }
    for ranked in [false, true] {
        match layout.bits() {
            8 => run::<u8>(layout, ranked, width, &base, &fine),
            16 => run::<u16>(layout, ranked, width, &base, &fine),
            _ => run::<u32>(layout, ranked, width, &base, &fine),
        }
    }
});

fn run<W: Word + std::fmt::Debug>(
    layout: Layout,
    ranked: bool,
    width: usize,
    base: &[u32],
    fine: &[u32],
) {
    if fine.is_empty() {
        return;
    }
    let narrow = |words: &[u32]| words.iter().map(|&w| W::narrow(w)).collect::<Vec<W>>();
    let (base, fine) = (narrow(base), narrow(fine));
    let segment = Scales::segment_for(width);
    let runs = base.chunks(segment).zip(fine.chunks(segment)).enumerate();
    let mut fitter = Fitter::new(layout);
    if ranked {
        fitter = fitter.ranked();
    }
    fitter.add(
        width,
        fine.len() as u64,
        runs.map(|(i, (b, f))| (i * segment, b, f)),
    );
    let fit = fitter.fit();
    let mut stored = Vec::new();
    fit.tables.write(&mut stored);
    let tables = TableSet::read(&mut Reader::new(&stored, "tables")).expect("tables");
    stored.clear();
    fit.scales[0].write(&mut stored);
    let scales = Scales::read(&mut Reader::new(&stored, "scales"), width).expect("scales");

    let model = Model::new(layout, &tables, &scales);
    let (mut coded, mut scratch) = (Vec::new(), Scratch::default());
    Encoder::new(layout, &fit).encode(&fit.scales[0], 0, &base, &fine, &mut coded);
    let mut out = vec![W::default(); fine.len()];
    decode(&model, 0, &base, &coded, &mut scratch, &mut out).expect("a chunk");
    assert_eq!(out, fine);
    coded.clear();
    encode_full(layout, segment, &fine, &mut coded);
    out.fill(W::default());
    decode(&model, 0, &[], &coded, &mut scratch, &mut out).expect("a chunk");
    assert_eq!(out, fine);
}
