//! AWQ's gemm layout: 4-bit codes and zero points packed along the outputs, eight to a word, in an
//! order that suits its CUDA kernel.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, f16_bytes, le_bytes};
use crate::Error;
use crate::method::affine::Affine;

/// Nibble `i` of a word holds the output `ORDER[i]` of its eight.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Why a layer of this shape cannot be stored, if it cannot.
pub fn obstacle(rows: usize, cols: usize, group_size: usize) -> Option<String> {
    if !rows.is_multiple_of(8) {
        return Some(format!("{rows} outputs do not fill whole words of eight"));
    }
    (!cols.is_multiple_of(group_size.min(cols).max(1)))
        .then(|| format!("groups of {group_size} do not divide {cols} inputs"))
}

/// The tensors that a layer of this shape becomes.
pub fn specs(layer: &str, rows: usize, cols: usize, group_size: usize) -> Vec<TensorSpec> {
    let groups = (cols / group_size.min(cols).max(1)) as u64;
    let words = rows.div_ceil(8) as u64;
    let spec = |suffix: &str, dtype, shape: [u64; 2]| {
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    vec![
        spec("qweight", Dtype::I32, [cols as u64, words]),
        spec("qzeros", Dtype::I32, [groups, words]),
        spec("scales", Dtype::F16, [groups, rows as u64]),
    ]
}

/// The tensors of a quantized layer of 4 bits, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Affine) -> Vec<Part> {
    let (rows, cols, groups) = (weight.rows, weight.cols, weight.groups());
    let pack = |code: &dyn Fn(usize) -> u8| -> Vec<u32> {
        let word = |first: usize| {
            let nibbles = ORDER.iter().enumerate();
            nibbles.fold(0, |word, (at, &output)| {
                let code = if first + output < rows {
                    code(first + output)
                } else {
                    0
                };
                word | u32::from(code) << (4 * at)
            })
        };
        (0..rows).step_by(8).map(word).collect()
    };
    let qweight: Vec<u32> = (0..cols)
        .flat_map(|col| pack(&|row| weight.codes[row * cols + col]))
        .collect();
    let qzeros: Vec<u32> = (0..groups)
        .flat_map(|group| pack(&|row| weight.zeros[row * groups + group]))
        .collect();
    let scales: Vec<f32> = (0..groups)
        .flat_map(|group| (0..rows).map(move |row| weight.scales[row * groups + group]))
        .collect();
    let bytes = [le_bytes(&qweight), le_bytes(&qzeros), f16_bytes(&scales)];
    specs(layer, rows, cols, weight.group_size)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the others need.
pub fn read(checkpoint: &Checkpoint, layer: &str) -> Result<Affine, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let &[groups, rows] = reader.tensor("scales")?.shape() else {
        return Err(reader.damaged("scales is not a matrix".to_owned()));
    };
    let &[cols, _] = reader.tensor("qweight")?.shape() else {
        return Err(reader.damaged("qweight is not a matrix".to_owned()));
    };
    let (groups, rows, cols) = (groups as usize, rows as usize, cols as usize);
    if groups == 0 || rows == 0 || cols % groups.max(1) != 0 || cols == 0 {
        return Err(reader.damaged(format!("{groups} groups do not divide {cols} inputs")));
    }
    let words = rows.div_ceil(8);
    let qweight: Vec<u32> = reader.values("qweight", Dtype::I32, cols.saturating_mul(words))?;
    let qzeros: Vec<u32> = reader.values("qzeros", Dtype::I32, groups.saturating_mul(words))?;
    let stored = reader.floats("scales", groups.saturating_mul(rows))?;
    let mut places = [0; 8];
    for (at, &output) in ORDER.iter().enumerate() {
        places[output] = 4 * at;
    }
    let code = |packed: &[u32], line: usize, row: usize| {
        (packed[line * words + row / 8] >> places[row % 8] & 15) as u8
    };
    let mut made = Affine {
        rows,
        cols,
        bits: 4,
        group_size: cols / groups,
        codes: Vec::with_capacity(rows * cols),
        scales: Vec::with_capacity(rows * groups),
        zeros: Vec::with_capacity(rows * groups),
        group_of: None,
    };
    for row in 0..rows {
        made.codes
            .extend((0..cols).map(|col| code(&qweight, col, row)));
        made.zeros
            .extend((0..groups).map(|group| code(&qzeros, group, row)));
        made.scales
            .extend((0..groups).map(|group| stored[group * rows + row]));
    }
    Ok(made)
}

/// The `quantization_config`.
pub fn config(group_size: usize, skipped: &[String]) -> Value {
    json!({
        "quant_method": "awq",
        "bits": 4,
        "group_size": i64::try_from(group_size).unwrap_or(-1),
        "zero_point": true,
        "version": "gemm",
        "modules_to_not_convert": skipped,
    })
}
