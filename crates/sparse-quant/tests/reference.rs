//! Blocks are those that llama.cpp's own library makes, with and without an importance matrix; or
//! better ones, by its own measure, where we search on.
//!
//! `golden/blocks.bin` comes from `conformance/golden_blocks.py`, which makes the same weights.

#![allow(clippy::unwrap_used)]

use sparse_quant::Matrix;
use sparse_quant::method::ggml::{GgmlType, dequantize, quantize};

const ROWS: usize = 8;
const COLS: usize = 512;

fn weights() -> Matrix {
    let mut values: Vec<f32> = (0..ROWS * COLS)
        .map(|at| {
            let x = ((at * 7919 + at / 13 * 31) % 4001) as f32 - 2000.0;
            let x = x / 2048.0;
            x * x * x
        })
        .collect();
    for (row, values) in values.chunks_exact_mut(COLS).enumerate() {
        for value in values {
            match row {
                1 => *value = 0.0,
                2 => *value = value.abs(),
                3 => *value /= 4096.0,
                _ => {}
            }
        }
    }
    Matrix::new(ROWS, COLS, values).unwrap()
}

fn importance() -> Vec<f32> {
    let one = |at| {
        let x = (1 + at * 37 % 101) as f32;
        x * x / 64.0
    };
    (0..COLS).map(one).collect()
}

/// What llama.cpp's search keeps low: squared errors times importance times how much a number
/// stands out of its row; of each block of 32.
fn errors(weights: &Matrix, bytes: &[u8], kind: GgmlType) -> Vec<f64> {
    let plain = dequantize(bytes, kind, ROWS, COLS);
    let importance = importance();
    let rows = weights.data().chunks(COLS).zip(plain.data().chunks(COLS));
    rows.flat_map(|(row, plain)| {
        let square = row.iter().map(|x| x * x).sum::<f32>() / COLS as f32;
        let errors = row.iter().zip(plain).zip(&importance);
        let errors: Vec<f64> = errors
            .map(|((x, plain), q)| f64::from(q * (square + x * x).sqrt() * (x - plain).powi(2)))
            .collect();
        let blocks = errors.chunks(32).map(|block| block.iter().sum());
        blocks.collect::<Vec<f64>>()
    })
    .collect()
}

#[test]
fn blocks_are_those_of_llama_cpp() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blocks.bin");
    let golden = std::fs::read(path).unwrap();
    let weights = weights();
    let importance = importance();
    let kinds = [
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
    ];
    let mut rest = &golden[..];
    let mut wrong = Vec::new();
    for kind in kinds {
        for weighted in [false, true] {
            let made = quantize(&weights, kind, weighted.then_some(&importance));
            let (expected, after) = rest.split_at(made.len());
            rest = after;
            if weighted && matches!(kind, GgmlType::Q4_0 | GgmlType::Q5_0) {
                let (ours, theirs) = (
                    errors(&weights, &made, kind),
                    errors(&weights, expected, kind),
                );
                // Scales are f16: what is best before rounding need not be after it.
                let close = |(ours, theirs): (&f64, &f64)| *ours <= theirs * 1.002;
                assert!(ours.iter().zip(&theirs).all(close), "{kind:?}");
                let [ours, theirs] = [ours, theirs].map(|all| all.iter().sum::<f64>());
                assert!(ours < theirs, "{kind:?}: {ours} for {theirs}");
                continue;
            }
            let (_, size) = kind.block();
            let blocks = made.chunks(size).zip(expected.chunks(size));
            let off: Vec<usize> = blocks
                .enumerate()
                .filter_map(|(at, (made, expected))| (made != expected).then_some(at))
                .collect();
            if !off.is_empty() {
                wrong.push((kind, weighted, off));
            }
        }
    }
    assert!(rest.is_empty());
    assert!(wrong.is_empty(), "blocks that differ: {wrong:?}");
}
