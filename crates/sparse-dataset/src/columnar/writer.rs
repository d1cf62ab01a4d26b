//! The writers of columnar files behind one face.

use std::io::Write;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::writer::{FileWriter as IpcFileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;

use super::paged::PagedWriter;
use crate::error::{Error, Result};

/// A columnar file being written.
pub(crate) enum FileWriter<W: Write + Send> {
    Parquet(Box<ArrowWriter<W>>),
    Paged(Box<PagedWriter<W>>),
    Ipc(Box<IpcFileWriter<W>>),
    Stream(Box<StreamWriter<W>>),
}

impl<W: Write + Send> FileWriter<W> {
    /// Writes rows; `ends` says that they end a row group.
    pub(crate) fn write(&mut self, batch: &RecordBatch, ends: bool, path: &Path) -> Result<()> {
        match self {
            Self::Parquet(writer) => {
                writer.write(batch).map_err(Error::columnar(path))?;
                if ends {
                    writer.flush().map_err(Error::columnar(path))
                } else {
                    Ok(())
                }
            }
            Self::Paged(writer) => writer.write(batch, ends, path),
            Self::Ipc(writer) => writer.write(batch).map_err(Error::columnar(path)),
            Self::Stream(writer) => writer.write(batch).map_err(Error::columnar(path)),
        }
    }

    /// Whether a row group may be written in pieces.
    pub(crate) fn takes_pieces(&self) -> bool {
        matches!(self, Self::Parquet(_) | Self::Paged(_))
    }

    pub(crate) fn finish(self, path: &Path) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.close().map(drop).map_err(Error::columnar(path)),
            Self::Paged(writer) => writer.finish(path),
            Self::Ipc(mut writer) => writer.finish().map_err(Error::columnar(path)),
            Self::Stream(mut writer) => writer.finish().map_err(Error::columnar(path)),
        }
    }
}
