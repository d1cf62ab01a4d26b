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

    /// Refuses what starts like a file of another kind.
    pub(crate) fn check_start(self, path: &Path, start: &[u8]) -> Result<()> {
        const UNPACK: &str = "unpack it first";
        const CONVERT: &str = "convert it to UTF-8 first";
        let packed: [(&[u8], &str, &str); 5] = [
            (b"\x1f\x8b\x08", "compressed by gzip", UNPACK),
            (b"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
            (b"\xfd7zXZ\0", "compressed by xz", UNPACK),
            (b"BZh91AY&SY", "compressed by bzip2", UNPACK),
            (b"PK\x03\x04", "a zip archive", UNPACK),
        ];
        let others: &[(&[u8], &str, &str)] = match self {
            Self::Parquet => &[(
                b"PARE",
                "an encrypted Parquet file",
                "write it without encryption first",
            )],
            Self::Arrow => &[(
                b"FEA1",
                "a Feather file of version 1",
                "write it as version 2, which is Arrow IPC",
            )],
            _ => &[
                (b"\xff\xfe", "text in UTF-16", CONVERT),
                (b"\xfe\xff", "text in UTF-16", CONVERT),
                (b"PAR1\x15", "a Parquet file", "call it .parquet"),
                (b"ARROW1\0\0", "an Arrow file", "call it .arrow"),
            ],
        };
        let mut all = packed.iter().chain(others);
        match all.find(|(magic, ..)| start.starts_with(magic)) {
            None => Ok(()),
            Some(&(_, found, hint)) => Err(Error::OtherContent {
                path: path.to_owned(),
                found: (found, hint),
            }),
        }
    }

    /// Whether files of this format are bytes with meaning on their own,
    /// rather than an encoding of typed columns.
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Parquet | Self::Arrow)
    }

    /// Whether rows may stand in an object that they share, as the questions of a
    /// paragraph do.
    pub(crate) fn has_paragraphs(self) -> bool {
        self == Self::Json
    }
}
