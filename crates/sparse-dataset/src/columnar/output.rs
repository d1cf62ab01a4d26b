//! Rows into record batches, in the row groups of the recipe.

use std::path::Path;

use arrow_array::RecordBatch;

use super::build::BatchBuilder;
use super::paged::LOOK;
use super::recipe::Recipe;
use crate::error::{Error, Result};
use crate::table::Record;

/// Rows written at a time within a row group.
const PIECE: usize = 4096;
/// Fewer are where they take more bytes, but as many as writers look at together.
const LARGE: usize = 16 << 20;

/// Rows on their way to a writer.
pub(crate) struct Piece {
    pub(crate) batch: RecordBatch,
    /// Whether they are the last of a row group.
    pub(crate) ends: bool,
}

/// The rows of a columnar file that is being rebuilt.
pub(crate) struct ColumnarRows {
    recipe: Recipe,
    builder: BatchBuilder,
    /// Whether a row group may be written in pieces.
    in_pieces: bool,
    groups: usize,
    in_group: u64,
}

type Put<'a> = &'a mut dyn FnMut(Piece) -> Result<()>;

impl ColumnarRows {
    pub(crate) fn new(recipe: Recipe, in_pieces: bool) -> Self {
        Self {
            builder: BatchBuilder::new(recipe.schema.clone()),
            recipe,
            in_pieces,
            groups: 0,
            in_group: 0,
        }
    }

    pub(crate) fn push(&mut self, row: &Record, path: &Path, put: Put<'_>) -> Result<()> {
        self.empty_groups(path, put)?;
        self.builder.push(row);
        self.in_group += 1;
        let ends = self.recipe.group(self.groups) == Some(self.in_group);
        if ends || self.in_pieces && self.is_piece() {
            self.flush(ends, path, put)?;
        }
        Ok(())
    }

    fn is_piece(&self) -> bool {
        let rows = self.builder.rows;
        let is_large = rows.is_multiple_of(LOOK) && self.builder.bytes() >= LARGE;
        rows >= PIECE || self.recipe.is_by_pages() && is_large
    }

    /// Writes groups without rows where the recipe has them.
    fn empty_groups(&mut self, path: &Path, put: Put<'_>) -> Result<()> {
        while self.in_group == 0 && self.recipe.group(self.groups) == Some(0) {
            self.flush(true, path, put)?;
        }
        Ok(())
    }

    fn flush(&mut self, ends: bool, path: &Path, put: Put<'_>) -> Result<()> {
        let batch = self.builder.finish();
        let batch = batch.and_then(|batch| self.recipe.finished(self.groups, batch));
        let batch = batch.ok_or_else(|| Error::Columnar {
            path: path.to_owned(),
            message: "a value is not of its column's type".to_owned(),
        })?;
        put(Piece { batch, ends })?;
        if ends {
            self.groups += 1;
            self.in_group = 0;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, path: &Path, put: Put<'_>) -> Result<()> {
        self.empty_groups(path, put)?;
        if self.builder.rows > 0 {
            self.flush(true, path, put)?;
        }
        Ok(())
    }
}
