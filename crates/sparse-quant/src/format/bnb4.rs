//! bitsandbytes' 4-bit layers, as transformers saves and loads them.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, le_bytes, torch_name};
use crate::Error;
use crate::method::dynamic_map::DYNAMIC_MAP;
use crate::method::nf4::{Absmax, BLOCK, NESTED_BLOCK, NF4, Nf4};

/// The JSON of a layer's state is padded to whole multiples of this, so that its length does not
/// depend on the digits of a number.
const STATE_BYTES: usize = 32;
const STATE: &str = "weight.quant_state.bitsandbytes__nf4";

/// The tensors that a layer of this shape becomes.
pub fn specs(layer: &str, rows: usize, cols: usize, nested: bool, dtype: Dtype) -> Vec<TensorSpec> {
    let weights = rows * cols;
    let blocks = weights.div_ceil(BLOCK);
    let state = state(rows, cols, nested.then_some(f32::MIN_POSITIVE), dtype);
    let spec = |suffix: &str, dtype, shape: &[usize]| {
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    let mut specs = vec![
        spec("weight", Dtype::U8, &[weights.div_ceil(2), 1]),
        spec("weight.quant_map", Dtype::F32, &[16]),
        spec(STATE, Dtype::U8, &[state.len()]),
    ];
    if nested {
        let outer = blocks.div_ceil(NESTED_BLOCK);
        specs.push(spec("weight.absmax", Dtype::U8, &[blocks]));
        specs.push(spec("weight.nested_absmax", Dtype::F32, &[outer]));
        specs.push(spec("weight.nested_quant_map", Dtype::F32, &[256]));
    } else {
        specs.push(spec("weight.absmax", Dtype::F32, &[blocks]));
    }
    specs
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Nf4, dtype: Dtype) -> Vec<Part> {
    let (nested, offset) = match &weight.absmax {
        Absmax::Plain(_) => (false, None),
        Absmax::Nested { offset, .. } => (true, Some(*offset)),
    };
    let mut bytes = vec![
        weight.packed.clone(),
        le_bytes(&NF4),
        state(weight.rows, weight.cols, offset, dtype).into_bytes(),
    ];
    match &weight.absmax {
        Absmax::Plain(absmax) => bytes.push(le_bytes(absmax)),
        Absmax::Nested { codes, scales, .. } => {
            bytes.extend([codes.clone(), le_bytes(scales), le_bytes(&*DYNAMIC_MAP)]);
        }
    }
    specs(layer, weight.rows, weight.cols, nested, dtype)
        .into_iter()
        .zip(bytes)
        .map(|(spec, bytes)| Part { spec, bytes })
        .collect()
}

/// What is not a tensor, as JSON that is a tensor.
fn state(rows: usize, cols: usize, offset: Option<f32>, dtype: Dtype) -> String {
    let mut state = json!({
        "quant_type": "nf4",
        "blocksize": BLOCK,
        "dtype": torch_name(dtype),
        "shape": [rows, cols],
    });
    if let Some(offset) = offset {
        state["nested_blocksize"] = json!(NESTED_BLOCK);
        state["nested_dtype"] = json!("float32");
        state["nested_offset"] = json!(f64::from(offset));
    }
    let mut text = state.to_string();
    let longest = text.len() + if offset.is_some() { 24 } else { 0 };
    // The offset takes at most 24 characters, 8 of them surely.
    let length = match offset {
        Some(offset) => longest - json!(f64::from(offset)).to_string().len(),
        None => longest,
    };
    let length = length.next_multiple_of(STATE_BYTES).max(text.len());
    text.extend(std::iter::repeat_n(' ', length - text.len()));
    text
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the layer's state says.
pub fn read(checkpoint: &Checkpoint, layer: &str) -> Result<Nf4, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let tensor = reader.tensor(STATE)?;
    if tensor.byte_len() > 4096 {
        return Err(reader.damaged(format!("{STATE} has {} bytes", tensor.byte_len())));
    }
    let state = reader.bytes(STATE, Dtype::U8, tensor.elements() as usize)?;
    let state: Value = serde_json::from_slice(&state)
        .map_err(|error| reader.damaged(format!("{STATE}: {error}")))?;
    let expect = |key: &str, expected: Value| {
        let found = &state[key];
        if *found == expected {
            return Ok(());
        }
        Err(reader.damaged(format!("{key} should be {expected}, found {found}")))
    };
    expect("quant_type", json!("nf4"))?;
    expect("blocksize", json!(BLOCK))?;
    let size = |at: usize| usize::try_from(state["shape"][at].as_u64()?).ok();
    let shape = size(0).zip(size(1));
    let Some((rows, cols, weights)) =
        shape.and_then(|(rows, cols)| Some((rows, cols, rows.checked_mul(cols)?)))
    else {
        return Err(reader.damaged(format!("shape is {}", state["shape"])));
    };
    let packed = reader.bytes("weight", Dtype::U8, weights.div_ceil(2))?;
    let blocks = weights.div_ceil(BLOCK);
    let map: Vec<f32> = reader.values("weight.quant_map", Dtype::F32, 16)?;
    if map != NF4 {
        return Err(reader.damaged("quant_map is not that of NF4".to_owned()));
    }
    let absmax = if reader.has("weight.nested_absmax") {
        expect("nested_blocksize", json!(NESTED_BLOCK))?;
        let map: Vec<f32> = reader.values("weight.nested_quant_map", Dtype::F32, 256)?;
        if map != *DYNAMIC_MAP {
            return Err(reader.damaged("nested_quant_map is not the dynamic map".to_owned()));
        }
        let Some(offset) = state["nested_offset"].as_f64() else {
            return Err(reader.damaged("nested_offset is missing".to_owned()));
        };
        Absmax::Nested {
            codes: reader.bytes("weight.absmax", Dtype::U8, blocks)?,
            scales: reader.values(
                "weight.nested_absmax",
                Dtype::F32,
                blocks.div_ceil(NESTED_BLOCK),
            )?,
            offset: offset as f32,
        }
    } else {
        Absmax::Plain(reader.values("weight.absmax", Dtype::F32, blocks)?)
    };
    Ok(Nf4 {
        rows,
        cols,
        packed,
        absmax,
    })
}

/// The `quantization_config` of a checkpoint whose other layers are not quantized.
pub fn config(nested: bool, dtype: Dtype, skipped: &[String]) -> Value {
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": nested,
        "bnb_4bit_compute_dtype": torch_name(dtype),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped,
        "llm_int8_threshold": 6.0,
    })
}
