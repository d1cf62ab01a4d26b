//! What can be wrong with a checkpoint, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::json::Quoted;
use crate::{HeaderError, HubError, RelPathError};

/// Why a checkpoint could not be opened, read or written.
///
/// The message names the file, and where there is one the tensor, with what was expected and what
/// was found; the cause is part of it. [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// Something is where the output should go.
    #[error("{} exists already", .path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// There is nothing at this path.
    #[error("{} does not exist", .path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A file should be written where a folder is.
    #[error("{} is a folder, a file is to be written", .path.display())]
    IsADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// A checkpoint is a directory, and this is not.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The directory holds no weights.
    #[error(
        "{} holds no *.safetensors file; found {}",
        .path.display(),
        if .found.is_empty() { "nothing".to_owned() } else { .found.join(", ") }
    )]
    NoSafetensors {
        /// The directory.
        path: PathBuf,
        /// The first few files that it does hold.
        found: Vec<String>,
        /// Whether weights of another format are among its files.
        other_weights: bool,
    },
    /// A pipe, socket, device or dangling link where a file was expected.
    #[error("{} is {what}, not a regular file", .path.display())]
    NotRegular {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file name that could not be stored and restored everywhere.
    #[error("{}: {cause}", .path.display())]
    FileName {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        cause: RelPathError,
    },
    /// A file name that is not UTF-8.
    #[error("{:?}: file name is not UTF-8", .path)]
    FileNameEncoding {
        /// The file.
        path: PathBuf,
    },
    /// A shard whose header is not valid.
    #[error("{}: {cause}", .path.display())]
    Header {
        /// The shard.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<HeaderError>,
    },
    /// A shard that ends before its last tensor does.
    #[error(
        "{}: shard is {size} bytes, header promises {promised} (tensor {})",
        .path.display(), Quoted(.tensor)
    )]
    Truncated {
        /// The shard.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The size that its header implies.
        promised: u64,
        /// The tensor that reaches furthest.
        tensor: String,
    },
    /// A file that is not what it was when the checkpoint was opened.
    #[error("{} changed while in use: it had {expected} bytes, now {found}", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its size when opened.
        expected: u64,
        /// Its size now.
        found: u64,
    },
    /// A pointer left by git where the weights should be.
    #[error("{} is a Git LFS pointer, not the file itself", .path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file beyond the size that is read into memory.
    #[error("{} is {found} bytes, at most {limit} are read", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A JSON file that does not parse.
    #[error("{}: {message}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// An index that names a shard that is not there.
    #[error(
        "{}: tensor {} should be in shard {}, which is missing",
        .index.display(), Quoted(.tensor), Quoted(.shard)
    )]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard as named there.
        shard: String,
        /// A tensor that it should hold.
        tensor: String,
    },
    /// An index that names a tensor that its shard lacks.
    #[error(
        "{}: tensor {} should be in shard {}, which does not hold it",
        .index.display(), Quoted(.tensor), Quoted(.shard)
    )]
    MissingTensor {
        /// The index.
        index: PathBuf,
        /// The shard as named there.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that was written with more or fewer bytes than its type and shape need.
    #[error(
        "{}: tensor {} needs {expected} bytes, {found} were written",
        .path.display(), Quoted(.tensor)
    )]
    WrongLength {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes that type and shape need.
        expected: u64,
        /// Bytes written, at the point where it was clear.
        found: u64,
    },
    /// A shard that was finished before all of its tensors were written.
    #[error("{}: {found} of {expected} tensors were written", .path.display())]
    Unfinished {
        /// The shard.
        path: PathBuf,
        /// Tensors in its header.
        expected: usize,
        /// Tensors written.
        found: usize,
    },
    /// A model that could not be had from the hub.
    #[error("{0}")]
    Hub(Box<HubError>),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A request for bytes that a tensor or shard does not have.
    #[error(
        "{}: bytes {start}..{end} are not within {what} of {bytes} bytes",
        .path.display()
    )]
    OutOfRange {
        /// The shard.
        path: PathBuf,
        /// What was read: the tensor, or the file.
        what: String,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// Bytes that there are.
        bytes: u64,
    },
}

impl From<HubError> for Error {
    fn from(error: HubError) -> Error {
        Error::Hub(Box::new(error))
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::Io {
            action,
            path: path.to_path_buf(),
            cause,
        }
    }

    /// What the user could do next.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::Hub(error) => error.hint()?,
            Error::NotFound { .. } => "check the path; a hub id has the form owner/name[@revision]",
            Error::OutputExists { .. } => {
                "pass --force to replace it, or choose another output with -o"
            }
            Error::IsADirectory { .. } => "choose the name of a file with -o",
            Error::NotADirectory { .. } => "pass the folder that holds the model",
            Error::NoSafetensors {
                other_weights: true,
                ..
            } => "convert the weights to safetensors first",
            Error::NoSafetensors { .. } => "pass the folder that holds the *.safetensors files",
            Error::FileName { .. } | Error::FileNameEncoding { .. } => {
                "rename the file or move it out of the folder"
            }
            Error::NotRegular { .. } => "replace it by the file, or move it out of the folder",
            Error::Truncated { .. } | Error::MissingShard { .. } => {
                "the download may be incomplete: fetch the file again"
            }
            Error::Header { .. } | Error::MissingTensor { .. } | Error::Json { .. } => {
                "the file may be damaged: fetch it again"
            }
            Error::LfsPointer { .. } => "run `git lfs pull` in the folder",
            Error::Changed { .. } => "wait until nothing writes to the folder, then run again",
            Error::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => {
                "free some disk space, or write to another disk"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
