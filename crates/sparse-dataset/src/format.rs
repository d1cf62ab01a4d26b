//! The file formats and their extensions.

use std::path::Path;

use crate::error::{Error, Result};

/// A supported file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// One JSON document.
    Json,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, file or stream.
    Arrow,
}

impl Format {
    /// The format that a file's extension names.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] for any other extension.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        Ok(match extension.as_str() {
            "jsonl" | "ndjson" => Self::JsonLines,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "parquet" => Self::Parquet,
            "arrow" | "feather" | "ipc" => Self::Arrow,
            _ => {
                return Err(Error::UnknownFormat {
                    path: path.to_owned(),
                });
            }
        })
    }

    /// Whether files of this format are bytes with meaning on their own,
    /// rather than an encoding of typed columns.
    pub fn is_text(self) -> bool {
        !matches!(self, Self::Parquet | Self::Arrow)
    }

    /// Whether rows may stand in an object that they share, as the questions of a
    /// paragraph do.
    pub(crate) fn has_paragraphs(self) -> bool {
        self == Self::Json
    }
}
