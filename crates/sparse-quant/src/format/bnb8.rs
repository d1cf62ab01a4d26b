//! bitsandbytes' 8-bit layers, as transformers saves and loads them.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, le_bytes};
use crate::Error;
use crate::method::int8::Int8Rows;

/// The tensors that a layer of this shape becomes.
pub fn specs(layer: &str, rows: usize, cols: usize) -> Vec<TensorSpec> {
    let (rows, cols) = (rows as u64, cols as u64);
    vec![
        TensorSpec::new(format!("{layer}.weight"), Dtype::I8, [rows, cols]),
        TensorSpec::new(format!("{layer}.SCB"), Dtype::F32, [rows]),
        TensorSpec::new(format!("{layer}.weight_format"), Dtype::U8, []),
    ]
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Int8Rows) -> Vec<Part> {
    // Format 0: row-major.
    let bytes = [le_bytes(&weight.codes), le_bytes(&weight.absmax), vec![0]];
    specs(layer, weight.rows, weight.cols)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing or has another type or size than the layer's.
pub fn read(checkpoint: &Checkpoint, layer: &str) -> Result<Int8Rows, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let tensor = reader.tensor("weight")?;
    let &[rows, cols] = tensor.shape() else {
        return Err(reader.damaged(format!("weight has shape {:?}", tensor.shape())));
    };
    let (rows, cols) = (rows as usize, cols as usize); // elements were counted in 64 bits
    if reader.has("weight_format") && reader.bytes("weight_format", Dtype::U8, 1)? != [0] {
        return Err(reader.damaged("weight_format is not 0 (row-major)".to_owned()));
    }
    Ok(Int8Rows {
        rows,
        cols,
        codes: reader.values("weight", Dtype::I8, rows.saturating_mul(cols))?,
        absmax: reader.values("SCB", Dtype::F32, rows)?,
    })
}

/// The `quantization_config` of a checkpoint whose other layers are not quantized.
pub fn config(skipped: &[String]) -> Value {
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": false,
        "load_in_8bit": true,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
    })
}
