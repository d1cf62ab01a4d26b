//! Blocks are those that llama.cpp's own library makes, with and without an importance matrix.
//!
//! `golden/blocks.bin` comes from `conformance/golden_blocks.py`, which makes the same weights.

#![allow(clippy::unwrap_used)]

use sparse_quant::Matrix;
use sparse_quant::method::ggml::{GgmlType, quantize};

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

#[test]
fn blocks_are_those_of_llama_cpp() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/blocks.bin");
    let golden = std::fs::read(path).unwrap();
    let weights = weights();
    let importance: Vec<f32> = (0..COLS)
        .map(|at| {
            let x = (1 + at * 37 % 101) as f32;
            x * x / 64.0
        })
        .collect();
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
