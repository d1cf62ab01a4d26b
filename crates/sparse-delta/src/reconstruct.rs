//! `reconstruct`: the fine-tune from its base and the delta, byte for byte.

mod decode;
mod files;
mod tensor;

use std::path::Path;
use std::time::Instant;

use sparse_checkpoint::{Checkpoint, Existing, OutputDir};

use crate::Error;
use crate::artifact::Artifact;
use crate::base::check_base;
use crate::progress::Progress;

pub(crate) use decode::{Decoders, check_all_stored};
pub(crate) use files::{Sink, rebuild};
pub use tensor::reconstruct_tensor;

/// How to rebuild.
#[derive(Debug, Clone)]
pub struct ReconstructOptions {
    /// Threads that decode chunks; at least one. More than 64 are taken as 64.
    pub threads: usize,
    /// What to do about an existing output.
    pub existing: Existing,
}

/// What was rebuilt.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstructed {
    /// Files written.
    pub files: usize,
    /// Bytes written.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

/// Rebuilds the fine-tune in `delta` from `base` to the folder `output`.
///
/// The delta's stored bytes and the base are checked before anything is written, and every file's
/// SHA-256 before the folder appears.
///
/// # Errors
/// If the base is another one, the delta damaged or the output not writable; nothing is left
/// behind then.
pub fn reconstruct(
    base: &Checkpoint,
    delta: &Path,
    output: &Path,
    options: &ReconstructOptions,
    progress: &dyn Progress,
) -> Result<Reconstructed, Error> {
    let started = Instant::now();
    let artifact = Artifact::open(delta)?;
    if options.existing == Existing::Keep && std::fs::symlink_metadata(output).is_ok() {
        let path = output.to_owned();
        return Err(sparse_checkpoint::Error::OutputExists { path }.into());
    }
    progress.start("check delta", artifact.bytes());
    check_all_stored(&artifact, progress, Err)?;
    check_base(&artifact, base, options.threads, progress)?;
    let folder = OutputDir::create(output, options.existing)?;
    progress.start(
        "reconstruct",
        artifact.index().files.iter().map(|f| f.size).sum(),
    );
    let decoders = Decoders::new(&artifact, base)?;
    let mut bytes = 0;
    for number in 0..artifact.index().files.len() {
        bytes += files::write_file(&decoders, number, &folder, options.threads, progress)?;
    }
    if progress.cancelled() {
        return Err(Error::Interrupted);
    }
    folder.commit()?;
    Ok(Reconstructed {
        files: artifact.index().files.len(),
        bytes,
        seconds: started.elapsed().as_secs_f64(),
    })
}
