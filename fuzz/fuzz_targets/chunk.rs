//! A coded chunk, with the scales and tables that it is coded with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_codec::{Layout, Model, Reader, Scales, Scratch, TableSet, Word, decode};
use sparse_fuzz::{Input, layout, words};

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let layout = layout(input.byte());
    let flags = input.byte();
    let (width, len, start) = (input.number(), input.number() % 8192, input.number());
    let (scales, tables) = (input.part(), input.part());
    let scales = Scales::read(&mut Reader::new(scales, "scales"), width)
        .unwrap_or_else(|_| Scales::flat(width));
    let tables =
        TableSet::read(&mut Reader::new(tables, "tables")).unwrap_or_else(|_| TableSet::none());
    let base = words(layout, if flags & 1 == 0 { len } else { 0 });
    // Chunks start at segments of their tensor.
    let start = start * scales.segment();
    match layout.bits() {
        8 => run::<u8>(layout, &tables, &scales, start, &base, len, input.0),
        16 => run::<u16>(layout, &tables, &scales, start, &base, len, input.0),
        _ => run::<u32>(layout, &tables, &scales, start, &base, len, input.0),
    }
});

fn run<W: Word>(
    layout: Layout,
    tables: &TableSet,
    scales: &Scales,
    start: usize,
    base: &[u32],
    len: usize,
    chunk: &[u8],
) {
    let model = Model::new(layout, tables, scales);
    let base: Vec<W> = base.iter().map(|&w| W::narrow(w)).collect();
    let mut out = vec![W::default(); len];
    let _ = decode(
        &model,
        start,
        &base,
        chunk,
        &mut Scratch::default(),
        &mut out,
    );
}
