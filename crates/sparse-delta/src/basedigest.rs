//! The digest of what a delta refers to in its base.

use std::collections::HashMap;

use crate::digest::{BaseDigest, TensorDigest};
use crate::index::Index;

/// Digests of base tensors, by name, and of base files, by path.
#[derive(Debug, Default)]
pub(crate) struct BaseDigests {
    pub(crate) tensors: HashMap<String, TensorDigest>,
    pub(crate) files: HashMap<String, TensorDigest>,
}

impl BaseDigests {
    /// BLAKE3 over name, dtype, shape and digest of each referenced tensor in name order, then
    /// over path and digest of each referenced file in path order. How the base is split into
    /// shards does not matter.
    pub(crate) fn combine(&self, index: &Index) -> BaseDigest {
        let mut hasher = blake3::Hasher::new();
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        let missing = TensorDigest([0; 32]);
        for tensor in index.base_tensors() {
            text(&mut hasher, &tensor.name);
            text(&mut hasher, tensor.dtype.name());
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for side in &tensor.shape {
                hasher.update(&side.to_le_bytes());
            }
            hasher.update(&self.tensors.get(&tensor.name).unwrap_or(&missing).0);
        }
        for file in index.base_files() {
            text(&mut hasher, file.path.as_str());
            hasher.update(&self.files.get(file.path.as_str()).unwrap_or(&missing).0);
        }
        BaseDigest(*hasher.finalize().as_bytes())
    }
}
