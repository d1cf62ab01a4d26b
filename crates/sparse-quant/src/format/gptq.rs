//! GPTQ checkpoints: what GPTQModel, transformers and vLLM load.
//!
//! Codes are packed along the inputs, zero points along the outputs. Version 1 stores zero points
//! less one, so a zero point of 0 cannot be stored in it.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, f16_bytes, le_bytes};
use crate::Error;
use crate::method::affine::Affine;
use crate::packing::{code_at, pack, packed_words};

/// How zero points are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Less one.
    V1,
    /// As they are.
    V2,
}

/// Why a layer of this shape cannot be stored, if it cannot.
pub fn obstacle(rows: usize, cols: usize, bits: u32) -> Option<String> {
    let whole = |size: usize| (size * bits as usize).is_multiple_of(32);
    (!whole(rows) || !whole(cols))
        .then(|| format!("{rows} x {cols} codes of {bits} bits do not fill whole 32-bit words"))
}

/// The tensors that a layer of this shape becomes.
pub fn specs(
    layer: &str,
    rows: usize,
    cols: usize,
    bits: u32,
    group_size: usize,
) -> Vec<TensorSpec> {
    let groups = cols.div_ceil(group_size.min(cols).max(1)) as u64;
    let spec = |suffix: &str, dtype, shape: [u64; 2]| {
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    vec![
        spec(
            "qweight",
            Dtype::I32,
            [packed_words(cols, bits) as u64, rows as u64],
        ),
        spec(
            "qzeros",
            Dtype::I32,
            [groups, packed_words(rows, bits) as u64],
        ),
        spec("scales", Dtype::F16, [groups, rows as u64]),
        TensorSpec::new(format!("{layer}.g_idx"), Dtype::I32, [cols as u64]),
    ]
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Affine, version: Version) -> Vec<Part> {
    let (rows, cols, groups) = (weight.rows, weight.cols, weight.groups());
    let height = packed_words(cols, weight.bits);
    let mut qweight = vec![0u32; height * rows];
    let mut column = vec![0u32; height];
    for (row, codes) in weight.codes.chunks_exact(cols).enumerate() {
        pack(codes.iter().copied(), weight.bits, &mut column);
        for (at, &word) in column.iter().enumerate() {
            qweight[at * rows + row] = word;
        }
    }
    let width = packed_words(rows, weight.bits);
    let mut qzeros = vec![0u32; groups * width];
    let mut scales = vec![0.0; groups * rows];
    let less = u8::from(version == Version::V1);
    for group in 0..groups {
        let zeros = (0..rows).map(|row| weight.zeros[row * groups + group].saturating_sub(less));
        pack(zeros, weight.bits, &mut qzeros[group * width..][..width]);
        for row in 0..rows {
            scales[group * rows + row] = weight.scales[row * groups + group];
        }
    }
    let g_idx: Vec<i32> = (0..cols).map(|col| weight.group(col) as i32).collect();
    let bytes = [
        le_bytes(&qweight),
        le_bytes(&qzeros),
        f16_bytes(&scales),
        le_bytes(&g_idx),
    ];
    specs(layer, rows, cols, weight.bits, weight.group_size)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the others need.
pub fn read(
    checkpoint: &Checkpoint,
    layer: &str,
    bits: u32,
    version: Version,
) -> Result<Affine, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let &[height, rows] = reader.tensor("qweight")?.shape() else {
        return Err(reader.damaged("qweight is not a matrix".to_owned()));
    };
    let cols = reader.tensor("g_idx")?.elements() as usize; // at most a quarter of the file
    let rows = rows as usize;
    let &[groups, _] = reader.tensor("scales")?.shape() else {
        return Err(reader.damaged("scales is not a matrix".to_owned()));
    };
    let groups = groups as usize;
    let width = rows.saturating_mul(bits as usize).div_ceil(32);
    if height as usize != packed_words(cols, bits) || groups == 0 || groups > cols || rows == 0 {
        return Err(reader.damaged(format!(
            "qweight of {height} words and scales of {groups} groups do not fit {cols} inputs"
        )));
    }
    let qweight: Vec<u32> = reader.values(
        "qweight",
        Dtype::I32,
        (height as usize).saturating_mul(rows),
    )?;
    let qzeros: Vec<u32> = reader.values("qzeros", Dtype::I32, groups.saturating_mul(width))?;
    let stored = reader.floats("scales", groups.saturating_mul(rows))?;
    let g_idx: Vec<i32> = reader.values("g_idx", Dtype::I32, cols)?;
    if let Some(&group) = g_idx
        .iter()
        .find(|&&group| group < 0 || group as usize >= groups)
    {
        return Err(reader.damaged(format!("g_idx has group {group} of {groups}")));
    }
    let mut codes = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        codes.extend((0..cols).map(|col| code_at(|word| qweight[word * rows + row], bits, col)));
    }
    let mut scales = vec![0.0; rows * groups];
    let mut zeros = vec![0; rows * groups];
    let more = u8::from(version == Version::V1);
    for group in 0..groups {
        let words = &qzeros[group * width..][..width];
        for row in 0..rows {
            scales[row * groups + group] = stored[group * rows + row];
            let zero = code_at(|word| words[word], bits, row);
            zeros[row * groups + group] = zero.wrapping_add(more);
        }
    }
    let group_size = g_idx.iter().filter(|&&group| group == 0).count().max(1);
    let group_size = if cols.div_ceil(group_size) == groups {
        group_size
    } else {
        cols.div_ceil(groups)
    };
    let in_order = (0..cols).all(|col| g_idx[col] as usize == col / group_size);
    if cols.div_ceil(group_size) != groups {
        return Err(reader.damaged(format!("{groups} groups do not divide {cols} inputs")));
    }
    Ok(Affine {
        rows,
        cols,
        bits,
        group_size,
        codes,
        scales,
        zeros,
        group_of: (!in_order).then(|| g_idx.iter().map(|&group| group as u32).collect()),
    })
}

/// The dictionary that goes into `quantize_config.json` and `config.json`; `group_size` is -1 for
/// a whole row.
pub fn config(
    bits: u32,
    group_size: i64,
    symmetric: bool,
    act_order: bool,
    version: Version,
    skipped: &[String],
) -> Value {
    let mut config = json!({
        "bits": bits,
        "group_size": group_size,
        "desc_act": act_order,
        "sym": symmetric,
        "lm_head": false,
        "quant_method": "gptq",
        "checkpoint_format": match version {
            Version::V1 => "gptq",
            Version::V2 => "gptq_v2",
        },
        "pack_dtype": "int32",
        "meta": { "quantizer": [concat!("sparse:", env!("CARGO_PKG_VERSION"))] },
    });
    if !skipped.is_empty() {
        let skipped = skipped
            .iter()
            .map(|name| (format!("-:^{}$", name.replace('.', "\\.")), json!({})));
        config["dynamic"] = Value::Object(skipped.collect());
    }
    config
}
