//! Low-rank factors of a matrix whose sides come first, and the prediction from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_codec::{LowRank, Reader};
use sparse_fuzz::{Input, layout, words};

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let layout = layout(input.byte());
    let (rows, cols) = (usize::from(input.byte()), usize::from(input.byte()));
    let Ok(low_rank) = LowRank::read(&mut Reader::new(input.0, "factors"), rows, cols) else {
        return;
    };
    let base = words(layout, rows * cols);
    if layout.bits() == 16 {
        let base: Vec<u16> = base.iter().map(|&w| w as u16).collect();
        low_rank.predict(layout, 0, &base, &mut vec![0; base.len()]);
    } else if layout.bits() == 32 {
        low_rank.predict(layout, 0, &base, &mut vec![0; base.len()]);
    }
});
