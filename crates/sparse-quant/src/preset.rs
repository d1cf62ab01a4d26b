//! The table of presets: a name for each combination that is worth having.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::gguf::FileType;

/// How codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// No codes: 16-bit floats.
    Cast,
    /// Round to nearest.
    Rtn,
    /// Error feedback through the inputs' second moments.
    Gptq,
    /// Scaling of the inputs that matter, then rounding.
    Awq,
    /// NormalFloat4 with block scales.
    Nf4,
    /// LLM.int8: row scales.
    Int8,
    /// Half-quadratic fit of the zero points.
    Hqq,
    /// Optimum-quanto's rounding.
    Quanto,
    /// llama.cpp's block types.
    Ggml,
}

/// How codes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Plain safetensors, no codes.
    Safetensors,
    /// GPTQ, zero points stored less one (AutoGPTQ's way, the most widely read).
    Gptq,
    /// GPTQ with zero points as they are.
    GptqV2,
    /// AWQ's gemm layout.
    Awq,
    /// bitsandbytes, as transformers saves it.
    Bitsandbytes,
    /// compressed-tensors' pack-quantized.
    CompressedTensors,
    /// HQQ's own.
    Hqq,
    /// Optimum-quanto's own.
    Quanto,
    /// llama.cpp's file.
    Gguf,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What users type.
    pub name: &'static str,
    /// How codes are chosen.
    pub method: Method,
    /// Bits of a code, without scales and zero points.
    pub bits: u32,
    /// Weights that share a scale; `None` for a whole row.
    pub group_size: Option<usize>,
    /// Whether the method looks at a calibration text.
    pub calibrated: bool,
    /// The formats it can be written in, the default first.
    pub formats: &'static [Format],
    /// The variant, where a method has several.
    pub variant: Variant,
}

/// What a method needs to know beyond bits and group size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variant {
    /// Nothing.
    None,
    /// NF4: whether block scales are quantized too.
    Nested(bool),
    /// GPTQ: groups are made of columns of like importance, wherever they are.
    ActOrder,
    /// llama.cpp's mixture of types.
    Ggml(FileType),
}

const fn preset(
    name: &'static str,
    method: Method,
    bits: u32,
    group_size: Option<usize>,
    formats: &'static [Format],
) -> Preset {
    Preset {
        name,
        method,
        bits,
        group_size,
        calibrated: matches!(method, Method::Gptq | Method::Awq),
        formats,
        variant: Variant::None,
    }
}

const fn ggml(name: &'static str, bits: u32, group_size: usize, file_type: FileType) -> Preset {
    Preset {
        variant: Variant::Ggml(file_type),
        ..preset(name, Method::Ggml, bits, Some(group_size), &[Format::Gguf])
    }
}

const AWQ: &[Format] = &[Format::Awq, Format::GptqV2, Format::CompressedTensors];
/// AWQ's own format has groups of up to 128 in the tools that load it.
const AWQ_LARGE: &[Format] = &[Format::GptqV2, Format::CompressedTensors];
/// Formats of codes with a scale per group: any width, and 4 bits only.
const AFFINE: &[Format] = &[Format::Gptq, Format::GptqV2, Format::CompressedTensors];
const AFFINE4: &[Format] = &[
    Format::Gptq,
    Format::GptqV2,
    Format::CompressedTensors,
    Format::Awq,
];
/// Formats that say which group an input is in.
const ACT_ORDER: &[Format] = &[Format::Gptq, Format::GptqV2];
const BNB: &[Format] = &[Format::Bitsandbytes];

/// Every preset, in the order in which they are listed.
pub const PRESETS: &[Preset] = &[
    preset("gptq_quality", Method::Gptq, 4, Some(128), AFFINE4),
    preset("gptq_balanced", Method::Gptq, 4, Some(256), AFFINE4),
    preset("gptq_size", Method::Gptq, 4, Some(512), AFFINE4),
    preset("awq_quality", Method::Awq, 4, Some(128), AWQ),
    preset("awq_balanced", Method::Awq, 4, Some(256), AWQ_LARGE),
    preset("rtn_int4", Method::Rtn, 4, Some(128), AFFINE4),
    preset("rtn_int8", Method::Rtn, 8, Some(128), AFFINE),
    preset("bnb_int8", Method::Int8, 8, None, BNB),
    Preset {
        variant: Variant::Nested(true),
        ..preset("bnb_nf4", Method::Nf4, 4, Some(64), BNB)
    },
    Preset {
        variant: Variant::Nested(false),
        ..preset("bnb_nf4_plain", Method::Nf4, 4, Some(64), BNB)
    },
    preset("fp16", Method::Cast, 16, None, &[Format::Safetensors]),
    preset("hqq_4bit", Method::Hqq, 4, Some(64), &[Format::Hqq]),
    preset("hqq_3bit", Method::Hqq, 3, Some(64), &[Format::Hqq]),
    preset("quanto_int8", Method::Quanto, 8, None, &[Format::Quanto]),
    preset(
        "quanto_int4",
        Method::Quanto,
        4,
        Some(128),
        &[Format::Quanto],
    ),
    ggml("gguf_q4_0", 4, 32, FileType::Q4_0),
    ggml("gguf_q8_0", 8, 32, FileType::Q8_0),
    ggml("gguf_q4_k_m", 4, 32, FileType::Q4_K_M),
    ggml("gguf_q6_k", 6, 16, FileType::Q6_K),
];

impl Preset {
    /// The preset with this name.
    ///
    /// # Errors
    /// If there is none; the error names those most like it.
    pub fn named(name: &str) -> Result<Preset, Error> {
        if let Some(found) = PRESETS.iter().find(|preset| preset.name == name) {
            return Ok(*found);
        }
        let mut near: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        near.sort_by_key(|candidate| distance(candidate, name));
        Err(Error::UnknownPreset {
            name: name.chars().take(64).collect(),
            near: near.into_iter().take(3).map(str::to_owned).collect(),
        })
    }

    /// The preset with groups of another size, at least one; `None` stands for whole rows.
    ///
    /// # Errors
    /// If its method has no groups of any size.
    pub fn with_group_size(self, group_size: Option<usize>) -> Result<Preset, Error> {
        let free = match self.method {
            Method::Rtn | Method::Gptq | Method::Awq => true,
            Method::Hqq => group_size.is_some(),
            _ => false,
        };
        if !free {
            return Err(Error::Unsupported {
                what: format!("{} with groups of another size", self.name),
                reason: "the group size is part of its format".to_owned(),
                instead: "use a gptq, awq, rtn or hqq preset, or leave --group-size out".to_owned(),
            });
        }
        Ok(Preset { group_size, ..self })
    }

    /// The preset with columns in groups by importance.
    ///
    /// # Errors
    /// If its method is not GPTQ.
    pub fn with_act_order(self) -> Result<Preset, Error> {
        if self.method != Method::Gptq {
            return Err(Error::Unsupported {
                what: format!("{} with act-order", self.name),
                reason: "only GPTQ takes columns in an order of its own".to_owned(),
                instead: "use a gptq preset, or leave --act-order out".to_owned(),
            });
        }
        Ok(Preset {
            variant: Variant::ActOrder,
            formats: ACT_ORDER,
            ..self
        })
    }

    /// The format to write: the one asked for, or the default.
    ///
    /// # Errors
    /// If the preset has no such format.
    pub fn format(&self, asked: Option<Format>) -> Result<Format, Error> {
        let Some(format) = asked else {
            return Ok(self.formats[0]);
        };
        if self.formats.contains(&format) {
            return Ok(format);
        }
        Err(Error::WrongFormat {
            preset: self.name.to_owned(),
            format: format.to_string(),
            possible: self.formats.iter().map(Format::to_string).collect(),
        })
    }
}

/// Letters to insert, delete or replace to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (at, &y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[at + 1];
            row[at + 1] = replace.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[b.len()]
}

impl Method {
    /// The name of the method.
    pub fn name(self) -> &'static str {
        match self {
            Method::Cast => "cast",
            Method::Rtn => "rtn",
            Method::Gptq => "gptq",
            Method::Awq => "awq",
            Method::Nf4 => "nf4",
            Method::Int8 => "int8",
            Method::Hqq => "hqq",
            Method::Quanto => "quanto",
            Method::Ggml => "ggml",
        }
    }
}

const FORMATS: [(Format, &str); 9] = [
    (Format::Safetensors, "safetensors"),
    (Format::Gptq, "gptq"),
    (Format::GptqV2, "gptq_v2"),
    (Format::Awq, "awq"),
    (Format::Bitsandbytes, "bitsandbytes"),
    (Format::CompressedTensors, "compressed-tensors"),
    (Format::Hqq, "hqq"),
    (Format::Quanto, "quanto"),
    (Format::Gguf, "gguf"),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = FORMATS.iter().find(|(format, _)| format == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Format, String> {
        let found = FORMATS.iter().find(|(_, candidate)| *candidate == name);
        found.map(|&(format, _)| format).ok_or_else(|| {
            let names = FORMATS.map(|(_, name)| name);
            format!("formats are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_misspelt_one_finds_its_neighbours() {
        for (at, preset) in PRESETS.iter().enumerate() {
            assert_eq!(Preset::named(preset.name).unwrap(), *preset);
            assert!(PRESETS[..at].iter().all(|other| other.name != preset.name));
            assert!(!preset.formats.is_empty());
        }
        let error = Preset::named("bnb-nf4").unwrap_err().to_string();
        assert!(error.contains("bnb_nf4"), "{error}");
        assert!(
            Preset::named(&"x".repeat(1 << 20))
                .unwrap_err()
                .to_string()
                .len()
                < 300
        );
    }

    #[test]
    fn what_a_method_has_not_cannot_be_changed() {
        let named = |name| Preset::named(name).unwrap();
        let smaller = named("gptq_quality").with_group_size(Some(32)).unwrap();
        assert_eq!(smaller.group_size, Some(32));
        assert!(named("hqq_4bit").with_group_size(None).is_err());
        assert!(named("bnb_nf4").with_group_size(Some(32)).is_err());
        assert!(named("awq_quality").with_act_order().is_err());
        let ordered = named("gptq_quality").with_act_order().unwrap();
        assert!(ordered.format(Some(Format::CompressedTensors)).is_err());
    }

    #[test]
    fn formats_parse_back() {
        for (format, name) in FORMATS {
            assert_eq!(name.parse(), Ok(format));
            assert_eq!(format.to_string(), name);
        }
        let preset = Preset::named("bnb_int8").unwrap();
        assert!(preset.format(Some(Format::Gguf)).is_err());
    }
}
