//! From a preset to a scheme that fits a model: group sizes that divide, pairs that clients load.

use crate::Architecture;
use crate::Error;
use crate::format::compressed::Layout;
use crate::format::gptq::Version;
use crate::preset::{Format, Method, Preset, Variant};
use crate::scheme::Scheme;

/// A scheme, and what about it is not as the preset says.
pub(crate) struct Choice {
    pub scheme: Scheme,
    pub group_size: Option<usize>,
    pub notes: Vec<String>,
}

/// Chooses for layers with these numbers of inputs.
///
/// # Errors
/// If no client loads the format for the architecture.
pub(crate) fn choose(
    preset: &Preset,
    format: Format,
    architecture: Architecture,
    widths: &[usize],
) -> Result<Choice, Error> {
    refuse(preset, format, architecture)?;
    let mut notes = Vec::new();
    // AWQ's layout has zero points. compressed-tensors' could, but transformers 5.23 makes room for
    // unpacked ones and then refuses packed ones.
    let zeros = [Format::Awq, Format::GptqV2, Format::Gptq].contains(&format) && preset.zero_points;
    let symmetric = !zeros && format != Format::Awq;
    let bits = preset.bits;
    let mut group_size = preset.group_size;
    if preset.zero_points && format == Format::CompressedTensors {
        notes.push(
            "zero is the middle code: transformers does not load compressed-tensors' zero points"
                .to_owned(),
        );
    }
    let scheme = match (preset.method, preset.variant, format) {
        (Method::Nf4, variant, _) => Scheme::Nf4 {
            nested: variant == Variant::Nested(true),
        },
        (Method::Int8, ..) => Scheme::Int8,
        (Method::Hqq, ..) => Scheme::Hqq {
            bits,
            group_size: group_size.unwrap_or(64),
        },
        (Method::Quanto, ..) => Scheme::Quanto { bits },
        (_, Variant::Ggml(file_type), _) => Scheme::Gguf(file_type),
        (_, _, Format::Gptq | Format::GptqV2) => {
            let wanted = group_size;
            group_size = group_size.map(gptq_groups);
            if let (Some(size), Some(wanted)) = (group_size, wanted)
                && size != wanted
            {
                notes.push(format!(
                    "groups of {size} instead of {wanted}: gptqmodel loads groups of 16, 32, 64, \
                     128, 256, 512, 1024 or a row"
                ));
            }
            let ragged = |size: usize| widths.iter().any(|width| !width.is_multiple_of(size));
            if let Some(size) = group_size.filter(|&size| ragged(size)) {
                notes.push(format!(
                    "groups of {size} do not divide every layer's inputs: the last group of a \
                     row is shorter there"
                ));
            }
            let version = if format == Format::Gptq {
                Version::V1
            } else {
                Version::V2
            };
            Scheme::Gptq {
                bits,
                group_size,
                symmetric,
                version,
                act_order: preset.variant == Variant::ActOrder,
            }
        }
        (_, _, Format::Awq | Format::CompressedTensors) => {
            let wanted = group_size;
            group_size = match format {
                Format::Awq => group_size.map(|size| awq_groups(size, widths)),
                _ => group_size.map(|size| dividing(size, widths)),
            };
            if wanted != group_size && wanted.is_some() {
                notes.push(format!(
                    "groups of {} instead of {}, which do not divide every layer's inputs or \
                     are not known to the tools that load the format",
                    group_size.unwrap_or(0),
                    wanted.unwrap_or(0)
                ));
            }
            match format {
                Format::Awq => Scheme::Awq {
                    group_size: group_size.unwrap_or(usize::MAX),
                },
                _ => Scheme::Compressed(Layout {
                    bits,
                    group_size,
                    symmetric,
                }),
            }
        }
        _ => Scheme::Half,
    };
    Ok(Choice {
        scheme,
        group_size,
        notes,
    })
}

/// The largest size up to `wanted` that gptqmodel loads, or the smallest.
fn gptq_groups(wanted: usize) -> usize {
    let known = [1024, 512, 256, 128, 64, 32, 16];
    known.into_iter().find(|&size| size <= wanted).unwrap_or(16)
}

/// The largest size up to `wanted` that AWQ's tools know and that divides all widths; 16 if none
/// does, and the layers that it does not divide stay as they are.
fn awq_groups(wanted: usize, widths: &[usize]) -> usize {
    let fits = |size: &usize| *size <= wanted && widths.iter().all(|w| w.is_multiple_of(*size));
    [128, 64, 32, 16].into_iter().find(fits).unwrap_or(16)
}

/// The largest size up to `wanted` that divides all widths.
fn dividing(wanted: usize, widths: &[usize]) -> usize {
    let common = widths.iter().fold(0, |a, &b| greatest_common_divisor(a, b));
    (1..=wanted.min(common).max(1))
        .rev()
        .find(|size| common.is_multiple_of(*size))
        .unwrap_or(1)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// Refuses what no client could load.
fn refuse(preset: &Preset, format: Format, architecture: Architecture) -> Result<(), Error> {
    let other = if preset.formats.contains(&Format::Gptq) {
        "pass --format gptq"
    } else {
        "pass --format gptq_v2, which holds the same codes"
    };
    let (reason, instead) = match (architecture, format) {
        (Architecture::Gpt2, Format::Awq | Format::CompressedTensors) => (
            "transformers puts these layers in the place of nn.Linear only, and GPT-2's are Conv1D",
            other,
        ),
        (Architecture::GptNeoX, Format::Awq) => (
            "transformers expects scales of the activation between GPT-NeoX's feed-forward layers, \
             which nobody writes, and runs without them into NaN",
            other,
        ),
        (Architecture::Gpt2, Format::Quanto) => (
            "optimum-quanto quantizes nn.Linear only, and GPT-2's layers are Conv1D",
            "use bnb_int8, bnb_nf4 or hqq_4bit",
        ),
        _ => return Ok(()),
    };
    Err(Error::Unsupported {
        what: format!("{} as {format} for {}", preset.name, architecture.name()),
        reason: reason.to_owned(),
        instead: instead.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_sizes_divide() {
        assert_eq!(dividing(128, &[768, 3072]), 128);
        assert_eq!(dividing(256, &[128, 384]), 128);
        assert_eq!(dividing(512, &[384, 1024]), 128);
        assert_eq!(dividing(64, &[7]), 7);
        assert_eq!(awq_groups(128, &[192, 320]), 64);
        assert_eq!(awq_groups(256, &[4096, 11008]), 128);
        assert_eq!(awq_groups(128, &[100]), 16);
        assert_eq!(
            [8, 24, 48, 128, 1000, 5000].map(gptq_groups),
            [16, 16, 32, 128, 512, 1024]
        );
    }

    #[test]
    fn conv1d_refuses_what_replaces_linear_only() {
        let preset = Preset::named("gptq_quality").unwrap();
        let refused = |format| choose(&preset, format, Architecture::Gpt2, &[768]).err();
        let error = refused(Format::Awq).unwrap();
        assert!(error.hint().unwrap().contains("--format gptq"), "{error}");
        assert!(refused(Format::Gptq).is_none());
        assert!(choose(&preset, Format::Awq, Architecture::Llama, &[768]).is_ok());
        let neox = |format| choose(&preset, format, Architecture::GptNeoX, &[768]).err();
        assert!(neox(Format::Awq).is_some() && neox(Format::Gptq).is_none());
    }
}
