//! The hqq library's layers, encoded for safetensors as `HQQLinear.state_dict` does it: every
//! setting is a small tensor beside the codes.

use serde_json::{Value, json};
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use super::{LayerReader, Part, le_bytes};
use crate::Error;
use crate::method::hqq::Hqq;

/// How the library names the packing for a width, and how many codes go into an element.
fn packing(bits: u32) -> (&'static str, usize) {
    match bits {
        2 => ("2bit_u8", 4),
        3 => ("3bit_32", 10),
        4 => ("4bit_u8", 2),
        _ => ("8bit_u8", 1),
    }
}

/// The group size nearest to `wanted`, not above it, that a layer of this shape can have.
pub fn group_size(rows: usize, cols: usize, bits: u32, wanted: usize) -> Option<usize> {
    let weights = rows * cols;
    // Groups are packed several to an element; only 3 bits pad the last one.
    let together = if bits == 3 { 1 } else { packing(bits).1 };
    let fits =
        |size: &usize| weights.is_multiple_of(*size) && (weights / size).is_multiple_of(together);
    (1..=wanted.min(weights)).rev().find(fits)
}

/// The tensors that a layer of this shape becomes.
pub fn specs(
    layer: &str,
    rows: usize,
    cols: usize,
    bits: u32,
    group_size: usize,
) -> Vec<TensorSpec> {
    let groups = rows * cols / group_size;
    let (name, together) = packing(bits);
    let packed = if bits == 3 { Dtype::I32 } else { Dtype::U8 };
    let height = groups.div_ceil(together) as u64;
    let spec = |suffix: &str, dtype, shape: &[u64]| {
        TensorSpec::new(format!("{layer}.{suffix}"), dtype, shape)
    };
    let mut specs = vec![
        spec("W_q", packed, &[height, group_size as u64]),
        spec("scale", Dtype::F16, &[groups as u64, 1]),
        spec("zero", Dtype::F16, &[groups as u64, 1]),
        spec("shape", Dtype::I64, &[2]),
        spec("packing", Dtype::U8, &[name.len() as u64]),
        spec("unpack_view_dtype", Dtype::U8, &[view(bits).len() as u64]),
        spec("compute_dtype", Dtype::U8, &[COMPUTE.len() as u64]),
    ];
    specs.extend(NUMBERS.map(|name| spec(name, Dtype::I32, &[])));
    specs.extend(FLAGS.map(|(name, _)| spec(name, Dtype::U8, &[])));
    specs
}

const COMPUTE: &str = "torch.float16";
const NUMBERS: [&str; 3] = ["nbits", "group_size", "axis"];
const FLAGS: [(&str, u8); 9] = [
    ("view_as_float", 0),
    ("quant_scale", 0),
    ("quant_zero", 0),
    ("offload_meta", 0),
    ("encoded_state_dict", 1),
    ("stores_quant_config", 1),
    ("channel_wise", 1),
    ("optimize", 1),
    ("round_zero", 0),
];

fn view(bits: u32) -> &'static str {
    if bits == 3 {
        "torch.int32"
    } else {
        "torch.uint8"
    }
}

/// The tensors of a quantized layer, in the order of [`specs`].
pub fn parts(layer: &str, weight: &Hqq) -> Vec<Part> {
    let scales: Vec<u16> = weight.scales.iter().map(|scale| scale.to_bits()).collect();
    let zeros: Vec<u16> = weight.zeros.iter().map(|zero| zero.to_bits()).collect();
    let mut bytes = vec![
        pack(weight),
        le_bytes(&scales),
        le_bytes(&zeros),
        le_bytes(&[weight.rows as i64, weight.cols as i64]),
        packing(weight.bits).0.as_bytes().to_vec(),
        view(weight.bits).as_bytes().to_vec(),
        COMPUTE.as_bytes().to_vec(),
    ];
    let numbers = [weight.bits as i32, weight.group_size as i32, 1];
    bytes.extend(numbers.map(|number| le_bytes(&[number])));
    bytes.extend(FLAGS.map(|(_, flag)| vec![flag]));
    specs(
        layer,
        weight.rows,
        weight.cols,
        weight.bits,
        weight.group_size,
    )
    .into_iter()
    .zip(bytes)
    .map(|(spec, bytes)| Part { spec, bytes })
    .collect()
}

/// Element `(i, j)` holds column `j` of the groups `i`, `i + height`, `i + 2 height` and so on, the
/// first in the highest bits.
fn pack(weight: &Hqq) -> Vec<u8> {
    let (_, together) = packing(weight.bits);
    let size = weight.group_size;
    let height = weight.scales.len().div_ceil(together);
    let mut words = vec![0u32; height * size];
    for part in 0..together {
        let start = (part * height * size).min(weight.codes.len());
        let codes = &weight.codes[start..((part + 1) * height * size).min(weight.codes.len())];
        let shift = weight.bits * (together - 1 - part) as u32;
        for (word, &code) in words.iter_mut().zip(codes) {
            *word |= u32::from(code) << shift;
        }
    }
    if weight.bits == 3 {
        le_bytes(&words)
    } else {
        words.iter().map(|&word| word as u8).collect()
    }
}

/// Reads a layer back.
///
/// # Errors
/// If a tensor is missing, or has another type or size than the settings say.
pub fn read(checkpoint: &Checkpoint, layer: &str) -> Result<Hqq, Error> {
    let reader = LayerReader::new(checkpoint, layer);
    let number = |name: &str| -> Result<i32, Error> { Ok(reader.values(name, Dtype::I32, 1)?[0]) };
    let (bits, size, axis) = (number("nbits")?, number("group_size")?, number("axis")?);
    let shape: Vec<i64> = reader.values("shape", Dtype::I64, 2)?;
    let size = usize::try_from(size).unwrap_or(0);
    let whole = |at: usize| usize::try_from(shape[at]).ok();
    let weights = whole(0).zip(whole(1)).and_then(|(n, k)| n.checked_mul(k));
    let (Some(weights), true) = (
        weights,
        [2, 3, 4, 8].contains(&bits) && size > 0 && axis == 1,
    ) else {
        return Err(reader.damaged(format!(
            "{bits} bits, groups of {size} along axis {axis} of {shape:?}"
        )));
    };
    let bits = bits as u32;
    let groups = weights / size;
    if groups * size != weights {
        return Err(reader.damaged(format!("groups of {size} do not divide {shape:?}")));
    }
    let (_, together) = packing(bits);
    let count = groups.div_ceil(together).saturating_mul(size);
    let words: Vec<u32> = if bits == 3 {
        reader.values("W_q", Dtype::I32, count)?
    } else {
        let bytes = reader.bytes("W_q", Dtype::U8, count)?;
        bytes.into_iter().map(u32::from).collect()
    };
    let mask = (1u32 << bits) - 1;
    let mut codes = Vec::with_capacity(words.len() * together);
    for part in 0..together {
        let shift = bits * (together - 1 - part) as u32;
        codes.extend(words.iter().map(|word| (word >> shift & mask) as u8));
    }
    if codes.len() < weights {
        return Err(reader.damaged("W_q is too short".to_owned()));
    }
    codes.truncate(weights);
    let halves = |name: &str| -> Result<Vec<half::f16>, Error> {
        let bits: Vec<u16> = reader.values(name, Dtype::F16, groups)?;
        Ok(bits.into_iter().map(half::f16::from_bits).collect())
    };
    Ok(Hqq {
        rows: shape[0] as usize,
        cols: shape[1] as usize,
        bits,
        group_size: size,
        codes,
        scales: halves("scale")?,
        zeros: halves("zero")?,
    })
}

/// The `quantization_config`.
pub fn config(bits: u32, group_size: usize, skipped: &[String]) -> Value {
    json!({
        "quant_method": "hqq",
        "quant_config": {
            "weight_quant_params": {
                "nbits": bits,
                "group_size": group_size,
                "channel_wise": true,
                "optimize": true,
                "round_zero": false,
                "axis": 1,
                "view_as_float": false,
            },
            "scale_quant_params": null,
            "zero_quant_params": null,
        },
        "skip_modules": skipped,
    })
}
