//! What can go wrong, with the place where it did.

use std::path::{Path, PathBuf};

use crate::format::Format;

/// A dataset delta could not be made, read or rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// No supported format has this extension.
    #[error("{}: unsupported format, expected .jsonl, .json, .csv, .tsv, .parquet or .arrow", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A folder holds no data file.
    #[error("{}: no .jsonl, .json, .csv, .tsv, .parquet or .arrow file in this folder", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A name that is not text, by which the file could not be given back.
    #[error("{}: the name is not valid UTF-8", path.display())]
    FileName {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("{}: {}", path.display(), found.0)]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what can be done about it.
        found: (&'static str, &'static str),
    },
    /// A record of a text file is not what its format says.
    #[error("{}: line {line}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line on which the trouble was noticed, from 1.
        line: u64,
        /// What the format asks for here.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A column name occurs twice.
    #[error("{}{}: duplicate column name {column:?}", path.display(), at_line(*line))]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// The line, of formats that have lines.
        line: Option<u64>,
        /// The name.
        column: String,
    },
    /// The shards of one folder do not have the same columns.
    #[error("{}: columns differ from those of {}: expected {expected}, found {found}", path.display(), first.display())]
    MixedSchemas {
        /// The shard that differs.
        path: PathBuf,
        /// The shard it was compared with.
        first: PathBuf,
        /// The columns of the first shard.
        expected: String,
        /// The columns of this shard.
        found: String,
    },
    /// The column that `--key` names is not there.
    #[error("{}: no column {key:?}; columns: {columns}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        key: String,
        /// The names that exist.
        columns: String,
    },
    /// More than this crate can address.
    #[error("{}: {what} is {found}, at most {limit} is supported", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Which quantity.
        what: String,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A Parquet or Arrow file could not be read or written.
    #[error("{}: {message}", path.display())]
    Columnar {
        /// The file.
        path: PathBuf,
        /// What the reader or writer said.
        message: String,
    },
    /// A file is not a dataset delta.
    #[error("{}: not a dataset delta (expected the magic bytes {expected:?}, found {found:?})", path.display())]
    NotADelta {
        /// The file.
        path: PathBuf,
        /// The bytes a delta starts with.
        expected: String,
        /// The bytes this file starts with.
        found: String,
    },
    /// A delta was written by a version that this one cannot read.
    #[error("{}: needs {what} that this version does not have; update sparse", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The version or feature that is missing.
        what: String,
    },
    /// A delta is damaged.
    #[error("{}: damaged delta: {what}: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// The base is not the one the delta was made from.
    #[error("{}: not the base of this delta: expected {what} {expected}, found {found}", path.display())]
    WrongBase {
        /// The base given.
        path: PathBuf,
        /// What was compared.
        what: &'static str,
        /// Its value when the delta was made.
        expected: String,
        /// Its value now.
        found: String,
    },
    /// A rebuilt file is not the original.
    #[error("{}: rebuilt file differs from the original: expected SHA-256 {expected}, found {found}", path.display())]
    WrongOutput {
        /// The file.
        path: PathBuf,
        /// Digest of the original.
        expected: String,
        /// Digest of what was rebuilt.
        found: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The output exists and may not be replaced.
    #[error("{} exists already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
}

fn at_line(line: Option<u64>) -> String {
    line.map_or(String::new(), |line| format!(": line {line}"))
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// For `map_err` on a Parquet or Arrow operation on `path`.
    pub(crate) fn columnar<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self::Columnar {
            path: path.to_owned(),
            message: error.to_string(),
        }
    }

    /// What to try next, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space, or choose an output on another disk with -o")
            }
            Self::WrongBase { .. } => {
                Some("give the same files, under the same names, as when the delta was made")
            }
            Self::Malformed { path, .. } if matches!(Format::of(path), Ok(Format::Json)) => Some(
                "fix the document at this line; --lenient stores malformed lines only where each \
                 line is a row",
            ),
            Self::Malformed { .. } => {
                Some("fix the line, or pass --lenient to store malformed lines as they are")
            }
            Self::FileName { .. } => Some("rename it"),
            Self::OtherContent { found, .. } => Some(found.1),
            Self::NoKey { .. } => Some("name one of these columns, or leave --key out"),
            Self::MixedSchemas { .. } => {
                Some("the files of a base are one table: give them apart where they are not")
            }
            Self::NotADelta { .. } => {
                Some("deltas are made by `sparse dataset compress BASE DERIVATIVE -o DIR`")
            }
            Self::Unsupported { .. } => Some("update sparse to a version that reads it"),
            Self::Exists { .. } => Some("pass --force to replace it"),
            Self::Damaged { .. } => Some("copy the delta again from where it was made"),
            Self::DuplicateColumn { path, .. } => Some(match Format::of(path) {
                Ok(Format::Csv | Format::Tsv) => {
                    "for a file without a header line pass --no-header"
                }
                Ok(Format::JsonLines) => {
                    "name each key once, or pass --lenient to store such lines as they are"
                }
                Ok(Format::Json) => "name each key of an object once",
                _ => "rename one of the columns",
            }),
            _ => None,
        }
    }
}
