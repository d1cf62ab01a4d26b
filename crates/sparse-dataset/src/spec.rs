//! What a caller can ask for and is told.

use crate::error::{Error, Result};
use crate::format::Format;
use crate::table::TextOptions;

/// How hard to look for a small encoding of new text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// zstd at a low level.
    Fast,
    /// The text model and zstd -19 as far as their time is in proportion: some
    /// seconds for a file of up to 64 MiB, beyond that a part of what its other
    /// rows take.
    #[default]
    Small,
    /// The text model up to 96 MB of new text, zstd -19 beyond.
    Smallest,
}

/// Files up to this size are made small first; larger ones must also be fast.
pub(crate) const SMALL_FILE: u64 = 64 << 20;

/// What a compression should do.
#[derive(Clone, Debug)]
pub struct CompressSpec {
    /// A derivative column that identifies rows; found without when `None`.
    pub key: Option<String>,
    /// Be content with logically equal Parquet and Arrow files.
    pub logical: bool,
    /// Store malformed lines as they are instead of refusing the file.
    pub lenient: bool,
    /// Whether CSV and TSV files start with a line of column names.
    pub header: bool,
    /// How hard to look for a small encoding of new text.
    pub effort: Effort,
    /// Threads to use, at least one; more are for Parquet. They change no byte.
    pub threads: usize,
}

impl Default for CompressSpec {
    fn default() -> Self {
        Self {
            key: None,
            logical: false,
            lenient: false,
            header: true,
            effort: Effort::Small,
            threads: 1,
        }
    }
}

impl CompressSpec {
    pub(crate) fn reading<'a>(&self, progress: &'a dyn Progress) -> Reading<'a> {
        Reading {
            threads: self.threads,
            progress,
        }
    }

    pub(crate) fn text(&self) -> TextOptions {
        TextOptions {
            lenient: self.lenient,
            header: self.header,
        }
    }
}

/// Told how far a long operation is.
pub trait Progress: Sync {
    /// `done` of `total` steps of `stage`.
    fn step(&self, stage: &str, done: u64, total: u64);

    /// Whether the caller wants to stop; asked after every step.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells a step, and stops where the caller wants to.
pub(crate) fn step(progress: &dyn Progress, stage: &str, done: u64, total: u64) -> Result<()> {
    progress.step(stage, done, total);
    go_on(progress)
}

/// Stops where the caller wants to.
pub(crate) fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// How files are read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) threads: usize,
    pub(crate) progress: &'a dyn Progress,
}

/// No progress is wanted.
impl Progress for () {
    fn step(&self, _: &str, _: u64, _: u64) {}
}

/// What a delta says about one file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SplitReport {
    /// The file's name.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its part of the artifact, in bytes.
    pub delta_bytes: u64,
    /// Whether a rebuilt file has the original's bytes, or only its content.
    pub byte_exact: bool,
    /// Rows of the file.
    pub rows: u64,
    /// Rows that refer to a base row.
    pub rows_referenced: u64,
    /// Of those, rows that come earlier in the base than the row before.
    pub rows_moved: u64,
    /// Of those, rows in which a cell has another value than in the base.
    pub rows_edited: u64,
    /// Rows without a base row.
    pub rows_new: u64,
    /// Columns that the base neither has nor leads to.
    pub columns_added: Vec<String>,
    /// Columns of the base that are gone, under any name.
    pub columns_dropped: Vec<String>,
    /// Columns of the base that are there under another name, with that name.
    pub columns_renamed: Vec<(String, String)>,
    /// Columns that follow from others for most rows, with those.
    pub columns_computed: Vec<(String, Vec<String>)>,
    /// Columns whose values are of another type than in the base: the types
    /// before and after.
    pub columns_cast: Vec<(String, &'static str, &'static str)>,
    /// Whether columns stand in another order than in the base.
    pub columns_reordered: bool,
    /// How each column follows from others, in words.
    pub column_rules: Vec<String>,
}

/// What a compression did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompressReport {
    /// Bytes of all derivative files.
    pub derivative_bytes: u64,
    /// Bytes of the artifact.
    pub delta_bytes: u64,
    /// Whether every file is rebuilt with its original bytes.
    pub byte_exact: bool,
    /// Per file.
    pub splits: Vec<SplitReport>,
    /// What else is in the derivative's folder, and not in the delta.
    pub skipped: Vec<String>,
}

/// What a delta says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The version of its format.
    pub format_version: u8,
    /// SHA-256 of the base: of its file, or of its files' digests.
    pub base_sha256: String,
    /// Bytes of the artifact.
    pub delta_bytes: u64,
    /// Bytes of the files it rebuilds.
    pub original_bytes: u64,
    /// Per file.
    pub splits: Vec<SplitReport>,
}

/// A row as a person would compare it with its base row.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Example {
    /// The file.
    pub split: String,
    /// `kept`, `moved`, `edited` or `new`.
    pub what: &'static str,
    /// The row in the derivative, from 0.
    pub row: u64,
    /// The row in the base, from 0.
    pub base_row: Option<u64>,
    /// For each column that differs: its name, the base's value, the value.
    pub cells: Vec<(String, Option<String>, String)>,
}

/// What a compression would come to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Estimate {
    /// Bytes of all derivative files.
    pub derivative_bytes: u64,
    /// About the bytes of the artifact.
    pub estimated_delta_bytes: u64,
    /// The share of rows that occur in the base as they are.
    pub unchanged_fraction: f64,
    /// Rows that were encoded to find out.
    pub sampled_rows: u64,
}
