//! What every layer of a checkpoint becomes: a method and a format with everything decided.

use serde_json::Value;
use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec};

use crate::format::{Part, bnb4, bnb8};
use crate::method::{int8, nf4};
use crate::preset::{Format, Method, Preset, Variant};
use crate::{Error, Matrix};

/// A method and a format, nothing left open.
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
}

impl Scheme {
    /// What a preset means in a format.
    pub(crate) fn of(preset: &Preset, format: Format) -> Scheme {
        match (preset.method, preset.variant, format) {
            (Method::Nf4, variant, _) => Scheme::Nf4 {
                nested: variant == Variant::Nested(true),
            },
            (Method::Int8, ..) => Scheme::Int8,
            _ => Scheme::Half,
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
            Scheme::Half => Vec::new(),
            Scheme::Nf4 { nested } => bnb4::specs(layer, rows, cols, nested, dtype),
            Scheme::Int8 => bnb8::specs(layer, rows, cols),
        }
    }

    /// A layer's tensors, quantized.
    pub(crate) fn quantize(&self, layer: &str, weights: &Matrix, dtype: Dtype) -> Vec<Part> {
        match *self {
            Scheme::Half => Vec::new(),
            Scheme::Nf4 { nested } => bnb4::parts(layer, &nf4::quantize(weights, nested), dtype),
            Scheme::Int8 => bnb8::parts(layer, &int8::quantize(weights)),
        }
    }

    /// The `quantization_config` for `config.json`; `skipped` are modules that stay as they are.
    pub(crate) fn config(&self, dtype: Dtype, skipped: &[String]) -> Option<Value> {
        match *self {
            Scheme::Half => None,
            Scheme::Nf4 { nested } => Some(bnb4::config(nested, dtype, skipped)),
            Scheme::Int8 => Some(bnb8::config(skipped)),
        }
    }

    /// What a checkpoint's `quantization_config` says.
    ///
    /// # Errors
    /// If it is of no known kind.
    pub(crate) fn from_config(config: &Value) -> Result<Scheme, String> {
        match config["quant_method"].as_str() {
            Some("bitsandbytes") if config["load_in_8bit"] == true => Ok(Scheme::Int8),
            Some("bitsandbytes") => Ok(Scheme::Nf4 {
                nested: config["bnb_4bit_use_double_quant"] == true,
            }),
            other => Err(format!("quant_method is {other:?}")),
        }
    }

    /// The suffix of the tensor that every quantized layer has, by which layers are recognised.
    pub(crate) fn marker(&self) -> &'static str {
        match self {
            Scheme::Half => ".weight",
            Scheme::Nf4 { .. } => ".weight.absmax",
            Scheme::Int8 => ".SCB",
        }
    }

    /// Reads a layer back as the weights that it stands for, `[outputs, inputs]`.
    ///
    /// # Errors
    /// If its tensors are missing or do not fit together.
    pub(crate) fn dequantize(&self, checkpoint: &Checkpoint, layer: &str) -> Result<Matrix, Error> {
        match self {
            Scheme::Half => Err(crate::format::damaged(
                checkpoint.root(),
                layer,
                "is not quantized".to_owned(),
            )),
            Scheme::Nf4 { .. } => Ok(bnb4::read(checkpoint, layer)?.dequantize()),
            Scheme::Int8 => Ok(bnb8::read(checkpoint, layer)?.dequantize()),
        }
    }
}
