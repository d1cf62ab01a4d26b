//! Rows into a columnar file, in the row groups of the recipe.

use std::io::Write;
use std::path::Path;

use super::build::BatchBuilder;
use super::paged::Script;
use super::recipe::Recipe;
use super::writer::FileWriter;
use crate::error::{Error, Result};
use crate::table::Record;

/// Rows written at a time within a row group.
const PIECE: usize = 4096;

/// A columnar file being rebuilt.
pub(crate) struct ColumnarOutput<W: Write + Send> {
    recipe: Recipe,
    builder: BatchBuilder,
    writer: FileWriter<W>,
    groups: usize,
    in_group: u64,
}

impl<W: Write + Send> ColumnarOutput<W> {
    pub(crate) fn new(recipe: Recipe, out: W, script: Option<Script>, path: &Path) -> Result<Self> {
        let writer = recipe.writer(out, script, path)?;
        Ok(Self {
            builder: BatchBuilder::new(recipe.schema.clone()),
            recipe,
            writer,
            groups: 0,
            in_group: 0,
        })
    }

    pub(crate) fn push(&mut self, row: &Record, path: &Path) -> Result<()> {
        self.empty_groups(path)?;
        self.builder.push(row);
        self.in_group += 1;
        let ends = self.recipe.group(self.groups) == Some(self.in_group);
        if ends || self.writer.takes_pieces() && self.builder.rows >= PIECE {
            self.flush(ends, path)?;
        }
        Ok(())
    }

    /// Writes groups without rows where the recipe has them.
    fn empty_groups(&mut self, path: &Path) -> Result<()> {
        while self.in_group == 0 && self.recipe.group(self.groups) == Some(0) {
            self.flush(true, path)?;
        }
        Ok(())
    }

    fn flush(&mut self, ends: bool, path: &Path) -> Result<()> {
        let batch = self.builder.finish();
        let batch = batch.and_then(|batch| self.recipe.finished(self.groups, batch));
        let batch = batch.ok_or_else(|| Error::Columnar {
            path: path.to_owned(),
            message: "a value is not of its column's type".to_owned(),
        })?;
        self.writer.write(&batch, ends, path)?;
        if ends {
            self.groups += 1;
            self.in_group = 0;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, path: &Path) -> Result<()> {
        self.empty_groups(path)?;
        if self.builder.rows > 0 {
            self.flush(true, path)?;
        }
        self.writer.finish(path)
    }
}
