//! How every layer of a checkpoint is stored: a format with everything decided.

use serde_json::Value;
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use crate::format::compressed::Layout;
use crate::format::gptq::Version;
use crate::format::{Part, awq, bnb4, bnb8, compressed, damaged, gptq, hqq, quanto};
use crate::gguf::FileType;
use crate::method::affine::{Affine, AffineSpec, ScaleType};
use crate::method::hqq::Hqq;
use crate::method::int8::Int8Rows;
use crate::method::nf4::Nf4;
use crate::method::quanto::Quanto;
use crate::{Error, Matrix};

/// A format, nothing left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// 16-bit floats; layers are tensors like others.
    Half,
    /// bitsandbytes' NF4.
    Nf4 {
        /// Whether block scales are quantized too.
        nested: bool,
    },
    /// bitsandbytes' LLM.int8.
    Int8,
    /// GPTQ's layout.
    Gptq {
        /// Bits of a code.
        bits: u32,
        /// Inputs of a group; `None` for a whole row.
        group_size: Option<usize>,
        /// Whether zero is always the middle code.
        symmetric: bool,
        /// How zero points are stored.
        version: Version,
        /// Whether groups are not runs of inputs.
        act_order: bool,
    },
    /// AWQ's gemm layout: 4 bits, with zero points.
    Awq {
        /// Inputs of a group.
        group_size: usize,
    },
    /// compressed-tensors' pack-quantized.
    Compressed(Layout),
    /// The hqq library's.
    Hqq {
        /// Bits of a code.
        bits: u32,
        /// Most weights of a group.
        group_size: usize,
    },
    /// Optimum-quanto's.
    Quanto {
        /// Bits of a code: 4 or 8.
        bits: u32,
    },
    /// llama.cpp's: a file of its own, see [`crate::gguf`].
    Gguf(FileType),
}

/// A quantized layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// NF4 codes.
    Nf4(Nf4),
    /// Signed bytes with row scales.
    Int8(Int8Rows),
    /// Codes with scales and whole zero points.
    Affine(Affine),
    /// Codes with scales and fractional zero points.
    Hqq(Hqq),
    /// Codes with scales, and shifts at 4 bits.
    Quanto(Quanto),
}

impl Packed {
    /// Outputs and inputs.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Packed::Nf4(packed) => (packed.rows, packed.cols),
            Packed::Int8(packed) => (packed.rows, packed.cols),
            Packed::Affine(packed) => (packed.rows, packed.cols),
            Packed::Hqq(packed) => (packed.rows, packed.cols),
            Packed::Quanto(packed) => (packed.rows, packed.cols),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Packed::Nf4(packed) => packed.packed.len(),
            Packed::Int8(packed) => packed.codes.len() + 4 * packed.absmax.len(),
            Packed::Affine(packed) => packed.codes.len() + 5 * packed.scales.len(),
            Packed::Hqq(packed) => packed.codes.len() + 4 * packed.scales.len(),
            Packed::Quanto(packed) => packed.rows * packed.cols + 8 * packed.scales.len(),
        }
    }

    /// The weights that the codes stand for, `[outputs, inputs]`.
    pub fn dequantize(&self) -> Matrix {
        match self {
            Packed::Nf4(packed) => packed.dequantize(),
            Packed::Int8(packed) => packed.dequantize(),
            Packed::Affine(packed) => packed.dequantize(),
            Packed::Hqq(packed) => packed.dequantize(),
            Packed::Quanto(packed) => packed.dequantize(),
        }
    }
}

impl Scheme {
    /// Why a layer of this shape cannot be stored so, if it cannot.
    pub(crate) fn obstacle(&self, rows: usize, cols: usize) -> Option<String> {
        match *self {
            Scheme::Gptq { bits, .. } => gptq::obstacle(rows, cols, bits),
            Scheme::Awq { group_size } => awq::obstacle(rows, cols, group_size),
            Scheme::Hqq { bits, group_size } => hqq::group_size(rows, cols, bits, group_size)
                .is_none()
                .then(|| "no group size divides it".to_owned()),
            _ => None,
        }
    }

    /// What affine codes must be like to be stored so; `dtype` is that of the other tensors.
    pub(crate) fn affine(&self, dtype: Dtype) -> AffineSpec {
        let (bits, group_size, symmetric) = match *self {
            Scheme::Gptq {
                bits,
                group_size,
                symmetric,
                ..
            } => (bits, group_size, symmetric),
            Scheme::Compressed(layout) => (layout.bits, layout.group_size, layout.symmetric),
            Scheme::Awq { group_size } => (4, Some(group_size), false),
            _ => (4, None, false),
        };
        let bf16 = matches!(self, Scheme::Compressed(_)) && dtype == Dtype::BF16;
        AffineSpec {
            bits,
            group_size: group_size.unwrap_or(usize::MAX),
            symmetric,
            scales: if bf16 {
                ScaleType::Bf16
            } else {
                ScaleType::F16
            },
            least_zero: u8::from(matches!(
                self,
                Scheme::Gptq {
                    version: Version::V1,
                    ..
                }
            )),
            search: false,
        }
    }

    /// The tensors that a layer of this shape becomes; `dtype` is that of the other tensors.
    pub(crate) fn specs(
        &self,
        layer: &str,
        rows: usize,
        cols: usize,
        dtype: Dtype,
    ) -> Vec<TensorSpec> {
        match *self {
            Scheme::Half | Scheme::Gguf(_) => Vec::new(),
            Scheme::Nf4 { nested } => bnb4::specs(layer, rows, cols, nested, dtype),
            Scheme::Int8 => bnb8::specs(layer, rows, cols),
            Scheme::Gptq {
                bits, group_size, ..
            } => gptq::specs(layer, rows, cols, bits, group_size.unwrap_or(cols)),
            Scheme::Awq { group_size } => awq::specs(layer, rows, cols, group_size),
            Scheme::Compressed(layout) => compressed::specs(layer, rows, cols, layout, dtype),
            Scheme::Hqq { bits, group_size } => {
                let size = hqq::group_size(rows, cols, bits, group_size).unwrap_or(1);
                hqq::specs(layer, rows, cols, bits, size)
            }
            Scheme::Quanto { bits } => quanto::specs(layer, rows, cols, bits, dtype),
        }
    }

    /// A quantized layer's tensors; none if it was quantized for another scheme.
    pub(crate) fn parts(&self, layer: &str, packed: &Packed, dtype: Dtype) -> Vec<Part> {
        match (self, packed) {
            (Scheme::Nf4 { .. }, Packed::Nf4(packed)) => bnb4::parts(layer, packed, dtype),
            (Scheme::Int8, Packed::Int8(packed)) => bnb8::parts(layer, packed),
            (Scheme::Gptq { version, .. }, Packed::Affine(packed)) => {
                gptq::parts(layer, packed, *version)
            }
            (Scheme::Awq { .. }, Packed::Affine(packed)) => awq::parts(layer, packed),
            (Scheme::Compressed(layout), Packed::Affine(packed)) => {
                compressed::parts(layer, packed, *layout, dtype)
            }
            (Scheme::Hqq { .. }, Packed::Hqq(packed)) => hqq::parts(layer, packed),
            (Scheme::Quanto { .. }, Packed::Quanto(packed)) => quanto::parts(layer, packed),
            _ => Vec::new(),
        }
    }

    /// The `quantization_config` for `config.json`; `skipped` are modules that stay as they are.
    pub(crate) fn config(
        &self,
        dtype: Dtype,
        skipped: &[String],
        kept: &[String],
    ) -> Option<Value> {
        match *self {
            Scheme::Half | Scheme::Quanto { .. } | Scheme::Gguf(_) => None,
            Scheme::Nf4 { nested } => Some(bnb4::config(nested, dtype, skipped)),
            Scheme::Int8 => Some(bnb8::config(skipped)),
            Scheme::Gptq {
                bits,
                group_size,
                symmetric,
                version,
                act_order,
            } => {
                let group_size = group_size.map_or(-1, |size| size as i64);
                Some(gptq::config(
                    bits, group_size, symmetric, act_order, version, kept,
                ))
            }
            Scheme::Awq { group_size } => Some(awq::config(group_size, skipped)),
            Scheme::Compressed(layout) => Some(compressed::config(layout, skipped)),
            Scheme::Hqq { bits, group_size } => Some(hqq::config(bits, group_size, skipped)),
        }
    }

    /// What a checkpoint's configuration says; quanto's layers are known by a file of their own.
    ///
    /// # Errors
    /// If it is of no known kind.
    pub(crate) fn from_config(config: &Value) -> Result<Scheme, String> {
        let bits = |value: &Value| match value.as_u64() {
            Some(bits @ 2..=8) => Ok(bits as u32),
            _ => Err(format!("bits are {value}")),
        };
        let group_size = |value: &Value| match value.as_i64() {
            Some(-1) | None => Ok(None),
            Some(size @ 1..=0xff_ffff) => Ok(Some(size as usize)),
            Some(size) => Err(format!("group_size is {size}")),
        };
        match config["quant_method"].as_str() {
            Some("bitsandbytes") if config["load_in_8bit"] == true => Ok(Scheme::Int8),
            Some("bitsandbytes") => Ok(Scheme::Nf4 {
                nested: config["bnb_4bit_use_double_quant"] == true,
            }),
            Some("gptq") => Ok(Scheme::Gptq {
                bits: bits(&config["bits"])?,
                group_size: group_size(&config["group_size"])?,
                symmetric: config["sym"] != false,
                act_order: config["desc_act"] == true,
                version: match config["checkpoint_format"].as_str() {
                    Some("gptq_v2") => Version::V2,
                    Some("gptq") | None => Version::V1,
                    Some(other) => return Err(format!("checkpoint_format is {other:?}")),
                },
            }),
            Some("awq") => match (bits(&config["bits"])?, config["version"].as_str()) {
                (4, Some("gemm" | "GEMM") | None) => Ok(Scheme::Awq {
                    group_size: group_size(&config["group_size"])?.unwrap_or(usize::MAX),
                }),
                (bits, _) => Err(format!("{bits} bits, version {}", config["version"])),
            },
            Some("compressed-tensors") => {
                if config["format"] != "pack-quantized" {
                    return Err(format!("format is {}", config["format"]));
                }
                let weights = &config["config_groups"]["group_0"]["weights"];
                Ok(Scheme::Compressed(Layout {
                    bits: bits(&weights["num_bits"])?,
                    group_size: group_size(&weights["group_size"])?,
                    symmetric: weights["symmetric"] != false,
                }))
            }
            Some("hqq") => {
                let params = &config["quant_config"]["weight_quant_params"];
                Ok(Scheme::Hqq {
                    bits: bits(&params["nbits"])?,
                    group_size: group_size(&params["group_size"])?.unwrap_or(usize::MAX),
                })
            }
            _ => Err(format!("quant_method is {}", config["quant_method"])),
        }
    }

    /// What a `quanto_qmap.json` says.
    pub(crate) fn from_quanto_map(map: &Value) -> Option<Scheme> {
        let entries = map.as_object()?;
        match entries.values().next()?["weights"].as_str()? {
            "qint8" => Some(Scheme::Quanto { bits: 8 }),
            "qint4" => Some(Scheme::Quanto { bits: 4 }),
            _ => None,
        }
    }

    /// The suffix of the tensor that every quantized layer has, by which layers are recognised.
    pub(crate) fn marker(&self) -> &'static str {
        match self {
            Scheme::Half | Scheme::Gguf(_) => ".weight",
            Scheme::Nf4 { .. } => ".weight.absmax",
            Scheme::Int8 => ".SCB",
            Scheme::Gptq { .. } | Scheme::Awq { .. } => ".qweight",
            Scheme::Compressed(_) => ".weight_packed",
            Scheme::Hqq { .. } => ".W_q",
            Scheme::Quanto { .. } => ".weight._scale",
        }
    }

    /// Reads a layer back; `cols` is its number of inputs, for formats that do not say.
    ///
    /// # Errors
    /// If its tensors are missing or do not fit together.
    pub(crate) fn read(
        &self,
        checkpoint: &Checkpoint,
        layer: &str,
        shape: Option<(usize, usize)>,
    ) -> Result<Packed, Error> {
        Ok(match *self {
            Scheme::Half | Scheme::Gguf(_) => {
                let reason = "is not quantized".to_owned();
                return Err(damaged(checkpoint.root(), layer, reason));
            }
            Scheme::Nf4 { .. } => Packed::Nf4(bnb4::read(checkpoint, layer)?),
            Scheme::Int8 => Packed::Int8(bnb8::read(checkpoint, layer)?),
            Scheme::Gptq { bits, version, .. } => {
                Packed::Affine(gptq::read(checkpoint, layer, bits, version)?)
            }
            Scheme::Awq { .. } => Packed::Affine(awq::read(checkpoint, layer)?),
            Scheme::Compressed(layout) => {
                Packed::Affine(compressed::read(checkpoint, layer, layout)?)
            }
            Scheme::Hqq { .. } => Packed::Hqq(hqq::read(checkpoint, layer)?),
            Scheme::Quanto { .. } => Packed::Quanto(quanto::read(checkpoint, layer, shape)?),
        })
    }
}
