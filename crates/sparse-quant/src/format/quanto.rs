//! Optimum-quanto's layers, as `QuantizedModelForCausalLM` saves and loads them, with
//! `quanto_qmap.json` beside the weights.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, le_bytes, read_all};
use crate::Error;
use crate::method::quanto::{Codes, Quanto, group_size};
use crate::weights::{from_f32, to_f32};

/// The file that says which modules are quantized.
pub const MAP: &str = "quanto_qmap.json";

/// The tensors that a layer of this shape becomes; scales are of type `dtype`.
pub fn specs(layer: &str, rows: usize, cols: usize, bits: u32, dtype: Dtype) -> Vec<TensorSpec> {
    let spec = |suffix: &str, dtype, shape: &[usize]| {
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    let mut specs = if bits == 8 {
        vec![
            spec("weight._data", Dtype::I8, &[rows, cols]),
            spec("weight._scale", dtype, &[rows, 1]),
        ]
    } else {
        let size = group_size(cols).unwrap_or(cols);
        let groups = rows * cols / size;
        vec![
            spec("weight._data._data", Dtype::U8, &[groups.div_ceil(2), size]),
            spec("weight._scale", dtype, &[groups, 1]),
            spec("weight._shift", dtype, &[groups, 1]),
        ]
    };
    specs.push(spec("input_scale", dtype, &[]));
    specs.push(spec("output_scale", dtype, &[]));
    specs
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Quanto) -> Vec<Part> {
    // Scales and shifts were rounded to this type when they were chosen.
    let float = |values: &[f32]| from_f32(weight.dtype, values).unwrap_or_default();
    let scales = float(&weight.scales);
    let (bits, mut bytes) = match &weight.codes {
        Codes::Int8(codes) => (8, vec![le_bytes(codes), scales]),
        Codes::Int4 { codes, shifts } => {
            // Groups of the first half lie in low nibbles, those of the second in high ones.
            let half = weight.scales.len().div_ceil(2) * weight.group_size;
            let (low, high) = codes.split_at(half.min(codes.len()));
            let mut packed = low.to_vec();
            for (byte, code) in packed.iter_mut().zip(high) {
                *byte |= code << 4;
            }
            (4, vec![packed, scales, float(shifts)])
        }
    };
    bytes.extend([float(&[1.0]), float(&[1.0])]);
    specs(layer, weight.rows, weight.cols, bits, weight.dtype)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// Reads a layer back. The file does not say how many inputs a layer of 4 bits has where its
/// groups are shorter than its rows, so the caller does.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the others need.
pub fn read(
    checkpoint: &Checkpoint,
    layer: &str,
    shape: Option<(usize, usize)>,
) -> Result<Quanto, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let scale = reader.tensor("weight._scale")?;
    let dtype = scale.dtype();
    let groups = scale.elements() as usize; // at most the file
    let float = |suffix: &str| -> Result<Vec<f32>, Error> {
        let tensor = reader.tensor(suffix)?;
        let values = to_f32(tensor.dtype(), &read_all(tensor)?).unwrap_or_default();
        if values.len() != groups || !values.iter().all(|value| value.is_finite()) {
            return Err(reader.damaged(format!("{suffix} is not {groups} finite numbers")));
        }
        Ok(values)
    };
    let scales = float("weight._scale")?;
    if reader.has("weight._data") {
        let &[rows, cols] = reader.tensor("weight._data")?.shape() else {
            return Err(reader.damaged("weight._data is not a matrix".to_owned()));
        };
        let (rows, cols) = (rows as usize, cols as usize);
        if rows != groups {
            return Err(reader.damaged(format!("{groups} scales for {rows} rows")));
        }
        let codes = reader.values("weight._data", Dtype::I8, rows.saturating_mul(cols))?;
        return Ok(Quanto {
            rows,
            cols,
            group_size: cols,
            dtype,
            codes: Codes::Int8(codes),
            scales,
        });
    }
    let &[height, size] = reader.tensor("weight._data._data")?.shape() else {
        return Err(reader.damaged("weight._data._data is not a matrix".to_owned()));
    };
    let (height, size) = (height as usize, size as usize);
    if height != groups.div_ceil(2) || size == 0 {
        return Err(reader.damaged(format!("{groups} scales for {height} rows of pairs")));
    }
    let packed = reader.bytes("weight._data._data", Dtype::U8, height.saturating_mul(size))?;
    let mut codes: Vec<u8> = packed.iter().map(|byte| byte & 15).collect();
    codes.extend(packed.iter().map(|byte| byte >> 4));
    codes.truncate(groups * size);
    let (rows, cols) = shape.unwrap_or((groups, size));
    if rows.checked_mul(cols) != Some(groups * size) || !cols.is_multiple_of(size) {
        return Err(reader.damaged(format!("{groups} groups of {size} are not {rows} x {cols}")));
    }
    Ok(Quanto {
        rows,
        cols,
        group_size: size,
        dtype,
        codes: Codes::Int4 {
            codes,
            shifts: float("weight._shift")?,
        },
        scales,
    })
}

/// The text of [`MAP`].
pub fn map(layers: &[&str], bits: u32) -> Value {
    let entry = json!({ "weights": format!("qint{bits}"), "activations": "none" });
    Value::Object(
        layers
            .iter()
            .map(|&layer| (layer.to_owned(), entry.clone()))
            .collect(),
    )
}
