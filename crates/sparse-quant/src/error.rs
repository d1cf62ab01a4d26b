//! What can go wrong when quantizing, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be quantized or a quantized one not be read.
///
/// The message names the file, and where there is one the tensor, with what was expected and what
/// was found. [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] sparse_checkpoint::Error),
    /// The model could not be run for calibration.
    #[error(transparent)]
    Engine(#[from] sparse_engine::Error),
    /// The calibration text is too short.
    #[error("the calibration text has {tokens} tokens, {needed} are needed")]
    ShortText {
        /// Tokens that it has.
        tokens: usize,
        /// Tokens that two windows take.
        needed: usize,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// No preset has this name.
    #[error("there is no preset {name:?}; the nearest are {}", .near.join(", "))]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A preset cannot be written in this format.
    #[error("{preset} cannot be written as {format}; it can be as {}", .possible.join(", "))]
    WrongFormat {
        /// The preset.
        preset: String,
        /// The format asked for.
        format: String,
        /// Formats that fit.
        possible: Vec<String>,
    },
    /// A preset's method does not have what was asked for.
    #[error("--{option} of {preset} is {found}, it should be {expected}")]
    Change {
        /// The preset.
        preset: &'static str,
        /// The option.
        option: &'static str,
        /// What was asked for.
        found: String,
        /// What there is.
        expected: String,
    },
    /// The checkpoint's architecture is not one whose layers are known.
    #[error("{}: model type {found:?} is not known; known are {}", .path.display(), .known.join(", "))]
    Architecture {
        /// The checkpoint's configuration.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
        /// Those that are known.
        known: Vec<String>,
    },
    /// A configuration lacks a value or has one of the wrong kind.
    #[error("{}: {key} should be {expected}", .path.display())]
    Config {
        /// The configuration.
        path: PathBuf,
        /// Which member.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The checkpoint is quantized already.
    #[error("{} is quantized already ({found})", .path.display())]
    AlreadyQuantized {
        /// The checkpoint.
        path: PathBuf,
        /// By what.
        found: String,
    },
    /// The checkpoint is not quantized.
    #[error("{} is not quantized: its weights are plain numbers", .path.display())]
    NotQuantized {
        /// The checkpoint.
        path: PathBuf,
    },
    /// A tensor has a type or shape that is not a layer's.
    #[error("{}: tensor {tensor:?} should be {expected}, found {found}", .path.display())]
    Tensor {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A weight is not a finite number.
    #[error("{}: tensor {tensor:?}: weight {at} is {value}", .path.display())]
    NotFinite {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its place, counted row by row.
        at: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A weight does not fit the 16-bit type that it is stored in.
    #[error("{}: tensor {tensor:?}: weight {at} is {value}, beyond {dtype}", .path.display())]
    TooLarge {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its place, counted row by row.
        at: usize,
        /// The weight.
        value: f32,
        /// The type it should be stored in.
        dtype: &'static str,
    },
    /// The checkpoint has no layer that could be quantized.
    #[error("{}: no layer of a known {architecture} model is in it", .path.display())]
    NoLayers {
        /// The checkpoint.
        path: PathBuf,
        /// What it says to be.
        architecture: &'static str,
    },
    /// Method and model do not go together in any tool that would load the result.
    #[error("{what}: {reason}")]
    Unsupported {
        /// Method or format, and model.
        what: String,
        /// Why not.
        reason: String,
        /// What to use instead.
        instead: String,
    },
    /// A quantized tensor or file is damaged, or not of the kind that it says.
    #[error("{}: {part}: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The layer or part.
        part: String,
        /// What was found.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps an I/O error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::Io {
            action,
            path: path.to_owned(),
            cause,
        }
    }

    /// What the user could do next.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Checkpoint(error) => return error.hint(),
            Error::Engine(error) => return error.hint(),
            Error::ShortText { .. } => "pass a longer text with --calibration, or none",
            Error::UnknownPreset { .. } | Error::Change { .. } => {
                "`sparse quantize --list` shows all presets"
            }
            Error::WrongFormat { possible, .. } => {
                return possible
                    .first()
                    .map(|format| format!("pass --format {format}"));
            }
            Error::Architecture { .. } => "quantize a decoder of one of these families",
            Error::AlreadyQuantized { .. } => "start from the model as it was before quantization",
            Error::NotQuantized { .. } => "`sparse quantize` does the opposite",
            Error::NotFinite { .. } => {
                "the checkpoint may be damaged or its training have diverged"
            }
            Error::TooLarge { .. } => {
                "is this weight meant? bnb_nf4 holds such: its scales are single precision"
            }
            Error::Unsupported { instead, .. } => return Some(instead.clone()),
            Error::Damaged { .. } => "the file may be damaged: write or fetch it again",
            Error::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => {
                "free some disk space, or write to another disk"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
