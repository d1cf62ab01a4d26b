//! compressed-tensors' pack-quantized: what vLLM and transformers prefer.
//!
//! Codes are packed along the inputs, densely; zero points, where there are any, along the outputs.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, le_bytes, read_all};
use crate::Error;
use crate::method::affine::Affine;
use crate::packing::{code_at, pack, packed_words};
use crate::weights::{from_f32, to_f32};

/// How a checkpoint's layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Inputs of a group; `None` for a whole row.
    pub group_size: Option<usize>,
    /// Whether there are no zero points.
    pub symmetric: bool,
}

/// The tensors that a layer of this shape becomes; scales are of type `dtype`.
pub fn specs(
    layer: &str,
    rows: usize,
    cols: usize,
    layout: Layout,
    dtype: Dtype,
) -> Vec<TensorSpec> {
    let group_size = layout.group_size.unwrap_or(cols).min(cols).max(1);
    let groups = cols.div_ceil(group_size) as u64;
    let rows_packed = packed_words(rows, layout.bits) as u64;
    let spec = |suffix: &str, dtype, shape: [u64; 2]| {
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    let mut specs = vec![
        spec(
            "weight_packed",
            Dtype::I32,
            [rows as u64, packed_words(cols, layout.bits) as u64],
        ),
        spec("weight_scale", dtype, [rows as u64, groups]),
        TensorSpec::new(format!("{layer}.weight_shape"), Dtype::I64, [2]),
    ];
    if !layout.symmetric {
        specs.push(spec("weight_zero_point", Dtype::I32, [rows_packed, groups]));
    }
    specs
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Affine, layout: Layout, dtype: Dtype) -> Vec<Part> {
    let (rows, cols, groups) = (weight.rows, weight.cols, weight.groups());
    let width = packed_words(cols, weight.bits);
    let mut packed = vec![0u32; rows * width];
    for (words, codes) in packed
        .chunks_exact_mut(width)
        .zip(weight.codes.chunks_exact(cols))
    {
        pack(codes.iter().copied(), weight.bits, words);
    }
    // Scales were rounded to this type when they were chosen.
    let scales = from_f32(dtype, &weight.scales).unwrap_or_default();
    let mut bytes = vec![
        le_bytes(&packed),
        scales,
        le_bytes(&[rows as i64, cols as i64]),
    ];
    if !layout.symmetric {
        let height = packed_words(rows, weight.bits);
        let mut zeros = vec![0u32; height * groups];
        let mut column = vec![0u32; height];
        for group in 0..groups {
            let codes = (0..rows).map(|row| weight.zeros[row * groups + group]);
            pack(codes, weight.bits, &mut column);
            for (at, &word) in column.iter().enumerate() {
                zeros[at * groups + group] = word;
            }
        }
        bytes.push(le_bytes(&zeros));
    }
    specs(layer, rows, cols, layout, dtype)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the others need.
pub fn read(checkpoint: &Checkpoint, layer: &str, layout: Layout) -> Result<Affine, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let bits = layout.bits;
    let shape: Vec<i64> = reader.values("weight_shape", Dtype::I64, 2)?;
    let &[rows, width] = reader.tensor("weight_packed")?.shape() else {
        return Err(reader.damaged("weight_packed is not a matrix".to_owned()));
    };
    let cols = usize::try_from(shape[1]).unwrap_or(0);
    let (rows, width) = (rows as usize, width as usize);
    let fits = shape[0] == rows as i64
        && cols > 0
        && rows > 0
        && cols <= width.saturating_mul(32)
        && packed_words(cols, bits) == width;
    if !fits {
        return Err(reader.damaged(format!(
            "weight_shape {shape:?} does not fit {rows} x {width} words"
        )));
    }
    let scale = reader.tensor("weight_scale")?;
    let groups = scale.elements() as usize / rows;
    let group_size = layout.group_size.unwrap_or(cols).min(cols).max(1);
    if groups != cols.div_ceil(group_size) {
        return Err(reader.damaged(format!(
            "{groups} groups of {group_size} do not fit {cols} inputs"
        )));
    }
    let packed: Vec<u32> =
        reader.values("weight_packed", Dtype::I32, rows.saturating_mul(width))?;
    let scales = to_f32(scale.dtype(), &read_all(scale)?);
    let Some(scales) = scales.filter(|scales| scales.len() == rows * groups) else {
        return Err(reader.damaged(format!("weight_scale is of {}", scale.dtype())));
    };
    let codes = (0..rows).flat_map(|row| {
        let words = &packed[row * width..][..width];
        (0..cols).map(move |col| code_at(|word| words[word], bits, col))
    });
    let zeros = if layout.symmetric {
        vec![1 << (bits - 1); rows * groups]
    } else {
        let height = packed_words(rows, bits);
        let words: Vec<u32> = reader.values("weight_zero_point", Dtype::I32, height * groups)?;
        let zero = |row, group| code_at(|word| words[word * groups + group], bits, row);
        (0..rows)
            .flat_map(|row| (0..groups).map(move |group| zero(row, group)))
            .collect()
    };
    Ok(Affine {
        rows,
        cols,
        bits,
        group_size,
        codes: codes.collect(),
        scales,
        zeros,
        group_of: None,
    })
}

/// The `quantization_config`.
pub fn config(layout: Layout, skipped: &[String]) -> Value {
    let weights = json!({
        "num_bits": layout.bits,
        "type": "int",
        "symmetric": layout.symmetric,
        "strategy": if layout.group_size.is_some() { "group" } else { "channel" },
        "group_size": layout.group_size,
        "dynamic": false,
    });
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } },
        "ignore": skipped,
    })
}
