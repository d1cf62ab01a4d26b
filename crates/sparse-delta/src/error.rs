//! What can go wrong with deltas, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use sparse_codec::CodecError;

use crate::artifact::FILE_NAME;
use crate::index::MAX_TENSORS;

/// Why a delta could not be made, read or applied.
///
/// The message names the file, and where there is one the tensor; the cause is part of it.
/// [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] sparse_checkpoint::Error),
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
    /// The folder is no delta.
    #[error("{} is not a delta: {reason}", .path.display())]
    NotADelta {
        /// The folder or file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A delta written by a later version.
    #[error("{}: format version {found}, this program reads up to {supported}", .path.display())]
    Version {
        /// The artifact.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest that can be read.
        supported: u64,
    },
    /// A delta that uses features this program does not know.
    #[error("{}: needs unknown features {features:#x}", .path.display())]
    Features {
        /// The artifact.
        path: PathBuf,
        /// The unknown feature bits.
        features: u64,
    },
    /// Damaged bytes in the artifact.
    #[error("{}: {part} is damaged: {reason}", .path.display())]
    Damaged {
        /// The artifact.
        path: PathBuf,
        /// Which tensor or part.
        part: String,
        /// What was found.
        reason: String,
    },
    /// The base lacks a tensor that the delta refers to.
    #[error("wrong base {}: it has no {what}", .path.display())]
    BaseLacks {
        /// The base.
        path: PathBuf,
        /// The missing tensor.
        what: String,
    },
    /// The base lacks a file that the delta refers to.
    #[error("wrong base {}: it has no file {file}", .path.display())]
    BaseLacksFile {
        /// The base.
        path: PathBuf,
        /// The missing file.
        file: String,
    },
    /// A tensor or file of the base is not what it was when the delta was made.
    #[error("wrong base {}: {what} differs: expected {expected}, found {found}", .path.display())]
    BaseDiffers {
        /// The base.
        path: PathBuf,
        /// The tensor or file.
        what: String,
        /// Its digest, or dtype and shape, when the delta was made.
        expected: String,
        /// What it is now.
        found: String,
    },
    /// The rebuilt bytes are not the original's.
    #[error("{what} was not rebuilt exactly: expected {expected}, found {found}")]
    Mismatch {
        /// The file or tensor.
        what: String,
        /// The original's digest.
        expected: String,
        /// The rebuilt digest.
        found: String,
    },
    /// More tensors than an index may list.
    #[error("{}: {found} tensors, at most {MAX_TENSORS} fit one delta", .path.display())]
    TooManyTensors {
        /// The checkpoint.
        path: PathBuf,
        /// How many it has.
        found: usize,
    },
    /// A tensor name that the delta does not hold.
    #[error("{} holds no tensor {name:?}", .path.display())]
    NoSuchTensor {
        /// The artifact.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Wraps an I/O error with what was tried on which file.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |cause| Self::Io {
            action,
            path: path.to_owned(),
            cause,
        }
    }

    /// An error of a stream of ours: the one of this crate that it carries, or what the system
    /// said.
    pub(crate) fn of_io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| match error.downcast::<Self>() {
            Ok(error) => error,
            Err(cause) => Self::io(action, path)(cause),
        }
    }

    /// Damaged coded bytes of `part` in the artifact at `path`.
    pub(crate) fn damaged<'a>(
        path: &'a Path,
        part: impl Into<String> + 'a,
    ) -> impl FnOnce(CodecError) -> Self + 'a {
        move |cause| Self::Damaged {
            path: path.to_owned(),
            part: part.into(),
            reason: cause.to_string(),
        }
    }

    /// What to do next, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or choose an output on another disk with -o".to_owned())
            }
            Self::NotADelta { path, .. } if path.ends_with(FILE_NAME) => {
                Some("name the folder that it is in".to_owned())
            }
            Self::NotADelta { .. } => {
                Some("deltas are made by `sparse delta compress BASE FINETUNE -o DIR`".to_owned())
            }
            Self::Version { .. } | Self::Features { .. } => {
                Some("update sparse to a version that reads it".to_owned())
            }
            Self::Damaged { .. } => Some(
                "fetch or copy the delta again; `sparse delta verify` lists every damaged part"
                    .to_owned(),
            ),
            Self::Mismatch { .. } => Some(
                "this should not happen with a delta and a base that are whole: keep both and \
                 report it"
                    .to_owned(),
            ),
            Self::BaseLacksFile { .. } => Some(
                "fetch all files of the base (a cache may hold only some), or see `sparse delta \
                 info DELTA` for the base that it was"
                    .to_owned(),
            ),
            Self::BaseLacks { .. } | Self::BaseDiffers { .. } => Some(
                "`sparse delta info DELTA` shows which base the delta was made from".to_owned(),
            ),
            Self::NoSuchTensor { near, .. } if !near.is_empty() => {
                Some(format!("did you mean {}?", near.join(" or ")))
            }
            Self::NoSuchTensor { .. } => {
                Some("`sparse delta info DELTA` lists the tensors".to_owned())
            }
            _ => None,
        }
    }
}
