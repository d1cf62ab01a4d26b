//! Artifacts that no compressor made, for tests and fuzzers.

use std::path::Path;

use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::artifact::{ArtifactWriter, FILE_NAME};
use crate::basedigest::BaseDigests;
use crate::digest::{TensorDigest, stored_check};
use crate::index::{Coded, Content, Index, Raw, Source};

/// Puts the digests of `base` and of the stored bytes `data` into the index, so that checking these
/// does not hide what comes after it.
pub(crate) fn trust(index: &mut Index, data: &[u8], base: &Checkpoint) {
    let mut at = 0usize;
    let mut check = |len: u64| {
        let end = at.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let mut hasher = blake3::Hasher::new();
        hasher.update(data.get(at..end).unwrap_or_default());
        at = end;
        stored_check(&hasher)
    };
    for file in &mut index.files {
        file.stored_check = check(file.stored());
        if let Content::Shard(shard) = &mut file.content {
            for tensor in &mut shard.tensors {
                tensor.stored_check = check(tensor.source.stored());
            }
        }
    }
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
