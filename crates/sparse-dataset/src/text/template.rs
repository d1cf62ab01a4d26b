//! Templates: what stands between the cells of a record, so that white space,
//! key order and punctuation come back byte for byte.

use std::collections::HashMap;

use super::leaf::key_name;

/// The literal pieces around the cells of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    /// One more than there are cells.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// The column of each cell.
    pub(crate) columns: Vec<u32>,
}

impl Template {
    pub(crate) fn literal(bytes: &[u8]) -> Self {
        Self {
            pieces: vec![bytes.to_vec()],
            columns: Vec::new(),
        }
    }

    /// The row of a columnar file: its cells in order.
    pub(crate) fn columnar(columns: usize) -> Self {
        Self {
            pieces: vec![Vec::new(); columns + 1],
            columns: (0..columns as u32).collect(),
        }
    }

    /// A record stored as it is.
    pub(crate) fn verbatim(column: u32) -> Self {
        Self {
            pieces: vec![Vec::new(), Vec::new()],
            columns: vec![column],
        }
    }
}

/// Records of more shapes than this are stored as they are.
pub(crate) const MAX_TEMPLATES: usize = 4096;

/// The templates of one file, in order of appearance.
#[derive(Default)]
pub(crate) struct Templates {
    pub(crate) list: Vec<Template>,
    known: HashMap<Template, u32>,
}

impl Templates {
    /// The template's number; `None` when there are too many.
    pub(crate) fn intern(&mut self, template: Template) -> Option<u32> {
        if let Some(&index) = self.known.get(&template) {
            return Some(index);
        }
        // One place is kept for the template of verbatim records.
        if self.list.len() >= MAX_TEMPLATES && template.pieces.iter().any(|piece| !piece.is_empty())
        {
            return None;
        }
        let index = self.list.len() as u32;
        self.list.push(template.clone());
        self.known.insert(template, index);
        Some(index)
    }
}

/// Column names and their numbers.
#[derive(Clone, Default)]
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    known: HashMap<String, u32>,
}

impl Columns {
    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        if let Some(&index) = self.known.get(name) {
            return index;
        }
        let index = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.known.insert(name.to_owned(), index);
        index
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.known.get(name).copied()
    }

    /// The number of a column that an artifact names. The first writers named JSON
    /// columns as their keys are spelled.
    pub(crate) fn named(&mut self, name: &str) -> u32 {
        let found = self
            .find(name)
            .or_else(|| self.find(&key_name(name.as_bytes())));
        found.unwrap_or_else(|| self.intern(name))
    }
}
