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
    /// Whether codes have zero points of their own, where the format has room for them.
    pub zero_points: bool,
}

/// What a user wants otherwise than a preset has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Bits of a code.
    pub bits: Option<u32>,
    /// Weights that share a scale; `Some(None)` for a whole row.
    pub group_size: Option<Option<usize>>,
    /// Codes with zero points of their own.
    pub zero_points: bool,
    /// Groups of inputs of like importance, wherever they are: GPTQ's act-order.
    pub act_order: bool,
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
        zero_points: matches!(method, Method::Awq),
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
const AWQ_LARGE: &[Format] = &[Format::GptqV2, Format::CompressedTensors, Format::Awq];
/// Formats of codes with a scale per group: any width, and 4 bits only.
const AFFINE: &[Format] = &[Format::Gptq, Format::GptqV2, Format::CompressedTensors];
const AFFINE4: &[Format] = &[
    Format::Gptq,
    Format::GptqV2,
    Format::CompressedTensors,
    Format::Awq,
];
/// Formats of codes of 2 and 3 bits, and those that say which group an input is in.
const NARROW: &[Format] = &[Format::Gptq, Format::GptqV2];
/// Formats of zero points beside 4 bits, and beside others.
const ZEROS4: &[Format] = &[Format::GptqV2, Format::Gptq, Format::Awq];
const ZEROS: &[Format] = &[Format::GptqV2, Format::Gptq];
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

    /// The preset with changes.
    ///
    /// # Errors
    /// If the method does not have what is asked for.
    pub fn with(self, changes: Changes) -> Result<Preset, Error> {
        let wrong = |option: &'static str, found: String, expected: &str| Error::Change {
            preset: self.name,
            option,
            found,
            expected: expected.to_owned(),
        };
        let mut changed = self;
        let affine = matches!(self.method, Method::Rtn | Method::Gptq);
        if let Some(bits) = changes.bits.filter(|&bits| bits != self.bits) {
            if !(affine || self.method == Method::Hqq) {
                let expected = format!("{} with this preset", self.bits);
                return Err(wrong("bits", bits.to_string(), &expected));
            }
            if ![2, 3, 4, 8].contains(&bits) {
                return Err(wrong("bits", bits.to_string(), "2, 3, 4 or 8"));
            }
            changed.bits = bits;
        }
        if let Some(size) = changes.group_size.filter(|&size| size != self.group_size) {
            let shown = size.map_or("-1".to_owned(), |size| size.to_string());
            match (self.method, size) {
                (Method::Rtn | Method::Gptq | Method::Awq, _) | (Method::Hqq, Some(_)) => {}
                (Method::Hqq, None) => {
                    return Err(wrong("group-size", shown, "a number of weights"));
                }
                _ => {
                    let fixed = self
                        .group_size
                        .map_or("-1".to_owned(), |size| size.to_string());
                    let expected = format!("{fixed} with this preset");
                    return Err(wrong("group-size", shown, &expected));
                }
            }
            if size.is_some_and(|size| size == 0 || size % 8 != 0) {
                return Err(wrong("group-size", shown, "a multiple of 8, or -1"));
            }
            changed.group_size = size;
        }
        if changes.zero_points && !self.zero_points {
            if !affine {
                let expected = "a preset of rtn or gptq";
                return Err(wrong("zero-points", "asked for".to_owned(), expected));
            }
            changed.zero_points = true;
        }
        if changes.act_order {
            if self.method != Method::Gptq {
                let found = "asked for".to_owned();
                return Err(wrong("act-order", found, "a preset of gptq"));
            }
            changed.variant = Variant::ActOrder;
        }
        if affine {
            changed.formats = match (changed.bits, changed.zero_points) {
                (_, false) if changes.act_order => NARROW,
                (_, true) if changes.act_order => ZEROS,
                (4, true) => ZEROS4,
                (_, true) => ZEROS,
                (4, false) => AFFINE4,
                (8, false) => AFFINE,
                (_, false) => NARROW,
            };
        }
        Ok(changed)
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
    fn changes_are_what_the_method_has() {
        let gptq = Preset::named("gptq_quality").unwrap();
        let change = |preset: Preset, bits, group_size| {
            preset.with(Changes {
                bits,
                group_size,
                ..Changes::default()
            })
        };
        let changed = change(gptq, Some(3), Some(None)).unwrap();
        assert_eq!((changed.bits, changed.group_size), (3, None));
        assert!(changed.format(Some(Format::Awq)).is_err());
        assert!(change(gptq, Some(5), None).is_err());
        assert!(change(gptq, None, Some(Some(20))).is_err());
        assert_eq!(change(gptq, Some(4), Some(Some(128))).unwrap(), gptq);
        let nf4 = Preset::named("bnb_nf4").unwrap();
        let error = change(nf4, Some(3), None).unwrap_err().to_string();
        assert!(error.contains("bnb_nf4") && error.contains('4'), "{error}");
        let zeros = Changes {
            zero_points: true,
            ..Changes::default()
        };
        assert_eq!(gptq.with(zeros).unwrap().formats[0], Format::GptqV2);
        assert!(nf4.with(zeros).is_err());
        let order = Changes {
            act_order: true,
            ..Changes::default()
        };
        assert_eq!(gptq.with(order).unwrap().variant, Variant::ActOrder);
        assert!(Preset::named("rtn_int4").unwrap().with(order).is_err());
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
