//! Ways in for fuzzers, past what the public interface checks first.

use std::path::Path;

use sparse_checkpoint::Checkpoint;

use crate::artifact::{Artifact, FILE_NAME, unpack_index};
use crate::index::Index;
use crate::{Error, Silent, crafted, raw};

/// Reads an index, packed or not.
pub fn index(bytes: &[u8]) {
    if let Ok(index) = Index::read(bytes) {
        assert!(Index::read(&index.write()).is_ok());
    }
    let _ = unpack_index(bytes);
}

/// Opens, verifies and rebuilds an artifact with this unpacked index and data.
pub fn artifact(index: &[u8], data: &[u8], base: &Checkpoint, folder: &Path) {
    let Ok(mut index) = Index::read(index) else {
        return;
    };
    crafted::trust(&mut index, data, base);
    let _ = std::fs::remove_file(folder.join(FILE_NAME));
    if crafted::write(&index, data, folder).is_ok() {
        let _ = crate::verify(folder, Some(base), 1, &Silent);
    }
}

/// Decodes a chunk of bytes.
pub fn raw_chunk(base: Option<&[u8]>, coded: &[u8], element: usize, len: usize) {
    let _ = raw::decode(base, coded, element, &mut vec![0; len]);
}

/// Codes a chunk of bytes.
///
/// # Errors
/// If zstd fails.
pub fn encode_raw(base: Option<&[u8]>, fine: &[u8], element: usize) -> std::io::Result<Vec<u8>> {
    raw::encode(base, fine, element)
}

/// The unpacked index of an artifact and its data.
///
/// # Errors
/// If it cannot be read.
pub fn take_apart(folder: &Path) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let artifact = Artifact::open(folder)?;
    let len = artifact.file_offset(artifact.index().files.len());
    Ok((artifact.index().write(), artifact.read(0, len)?))
}
