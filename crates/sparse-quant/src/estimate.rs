//! How large a quantized checkpoint will be, from configuration and headers alone.

use sparse_checkpoint::{Checkpoint, WriteOptions, planned_bytes};

use crate::gguf::Mixture;
use crate::plan::{Plan, QuantSpec};
use crate::quantize::Options;
use crate::scheme::Scheme;
use crate::{Error, carry};

/// What a preset would do to a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Weights of the whole model, tied ones counted once.
    pub parameters: u64,
    /// Bytes of all files that would be written.
    pub quantized_bytes: u64,
    /// What differs from what the preset says, and why.
    pub notes: Vec<String>,
}

/// Plans the quantization and adds up what would be written with these options; reads no weights.
///
/// # Errors
/// If the checkpoint could not be quantized so.
pub fn estimate(
    checkpoint: &Checkpoint,
    spec: &QuantSpec,
    options: &Options,
) -> Result<Estimate, Error> {
    let plan = Plan::new(checkpoint, spec)?;
    let files = carry::plain_files(checkpoint)
        .map(|file| file.size())
        .sum::<u64>();
    if let Scheme::Gguf(file_type) = plan.scheme {
        let mixture = Mixture {
            file_type,
            weighted: options.calibration.is_some(),
        };
        let gguf = plan.gguf(checkpoint, mixture)?;
        return Ok(Estimate {
            parameters: plan.parameters(),
            quantized_bytes: gguf.file_bytes() + carry::config_bytes(checkpoint) + files,
            notes: plan.notes,
        });
    }
    let write = WriteOptions {
        max_shard_bytes: Some(options.max_shard_bytes),
        ..WriteOptions::default()
    };
    let mut bytes = planned_bytes(checkpoint.root(), &plan.specs(), &write)?;
    bytes += carry::configs(&plan)
        .iter()
        .map(|(_, text)| text.len() as u64)
        .sum::<u64>();
    bytes += files;
    Ok(Estimate {
        parameters: plan.parameters(),
        quantized_bytes: bytes,
        notes: plan.notes,
    })
}
