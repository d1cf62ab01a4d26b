//! Artifacts that no compressor made, for tests and fuzzers.

use std::path::Path;

use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::artifact::{ArtifactWriter, FILE_NAME};
use crate::basedigest::BaseDigests;
use crate::digest::TensorDigest;
use crate::index::{Coded, Content, Index, Raw, Source};

/// Puts the digests of `base` into the index, so that checking the base does not hide what comes
/// after it.
pub(crate) fn trust(index: &mut Index, base: &Checkpoint) {
    let mut digests = BaseDigests::default();
    for tensor in base.tensors() {
        if let Ok(bytes) = tensor.bytes() {
            let digest = TensorDigest::of(bytes);
            digests.tensors.insert(tensor.name().to_owned(), digest);
        }
    }
    for file in base.files() {
        if let Ok(bytes) = file.read(crate::raw::MAX_DICTIONARY) {
            let digest = TensorDigest::of(&bytes);
            digests.files.insert(file.path().to_string(), digest);
        }
    }
    for file in &mut index.files {
        let Content::Shard(shard) = &mut file.content else {
            continue;
        };
        for tensor in &mut shard.tensors {
            if let Source::Copy(base)
            | Source::Coded(Coded {
                base: Some(base), ..
            })
            | Source::Raw(Raw {
                base: Some(base), ..
            }) = &mut tensor.source
                && let Some(digest) = digests.tensors.get(&base.name)
            {
                base.check.copy_from_slice(&digest.0[..4]);
            }
        }
    }
    index.base_digest = digests.combine(index);
}

/// Writes an artifact with this index and data to `folder`.
pub(crate) fn write(index: &Index, data: &[u8], folder: &Path) -> Result<u64, Error> {
    let mut writer = ArtifactWriter::create(folder, folder.join(FILE_NAME))?;
    writer.write(data)?;
    writer.finish(index)
}
