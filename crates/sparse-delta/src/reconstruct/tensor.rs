//! Rebuilding one tensor, reading only its chunks.

use std::path::Path;

use sparse_checkpoint::{AtomicFile, Checkpoint, Existing, NewParents};
use sparse_codec::Scratch;

use super::decode::Decoders;
use crate::Error;
use crate::artifact::Artifact;
use crate::base::{check, hash};
use crate::digest::TensorDigest;
use crate::index::{Content, RAW_CHUNK_BYTES};
use crate::progress::Progress;

/// Writes tensor `name` of `delta` to the safetensors file `output`; returns the file's size.
///
/// Only the index, the tensor's own chunks and its base tensor are read; both tensors' digests
/// are checked. The folders above `output` are made.
///
/// # Errors
/// As `reconstruct`, and [`Error::NoSuchTensor`].
pub fn reconstruct_tensor(
    base: &Checkpoint,
    delta: &Path,
    name: &str,
    output: &Path,
    existing: Existing,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let artifact = Artifact::open(delta)?;
    let (file, number) = locate(&artifact, name)?;
    if existing == Existing::Keep && std::fs::symlink_metadata(output).is_ok() {
        let path = output.to_owned();
        return Err(sparse_checkpoint::Error::OutputExists { path }.into());
    }
    if output.is_dir() {
        let path = output.to_owned();
        return Err(sparse_checkpoint::Error::IsADirectory { path }.into());
    }
    let Content::Shard(shard) = &artifact.index().files[file].content else {
        return Err(no_such_tensor(&artifact, name));
    };
    let (tensor, info) = (&shard.tensors[number], &shard.header.tensors()[number]);
    progress.start("reconstruct", info.bytes());
    let decoders = Decoders::new(&artifact, base)?;
    decoders.check_stored(file, number)?;
    let decoder = decoders.tensor(file, number)?;
    if let (Some(expected), Some(found)) = (decoders.base_of(file, number), decoder.base()) {
        let digest = hash(&found, &mut vec![0; RAW_CHUNK_BYTES as usize], progress)?;
        check(base, expected, &digest)?;
    }
    let sides: Vec<String> = info.shape().iter().map(u64::to_string).collect();
    let mut header = format!(
        r#"{{{}:{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}}"#,
        serde_json::Value::from(name),
        info.dtype(),
        sides.join(","),
        info.bytes()
    );
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let _parents = NewParents::of(output)?;
    let mut out = AtomicFile::create(output)?;
    let mut write = |bytes: &[u8]| {
        std::io::Write::write_all(&mut out, bytes).map_err(Error::io("write", output))
    };
    write(&(header.len() as u64).to_le_bytes())?;
    write(header.as_bytes())?;
    let mut hasher = blake3::Hasher::new();
    let mut scratch = Scratch::default();
    for chunk in &decoder.chunks {
        let words = decoder.decode(&artifact, chunk, &mut scratch)?;
        hasher.update(words.bytes());
        write(words.bytes())?;
        crate::progress::step(progress, words.bytes().len() as u64)?;
    }
    let found = TensorDigest(*hasher.finalize().as_bytes()).check();
    if found != tensor.check {
        return Err(Error::Mismatch {
            what: format!("tensor {name:?}"),
            expected: format!("BLAKE3 {}...", tensor.check),
            found: format!("{found}..."),
        });
    }
    out.commit()?;
    Ok(8 + header.len() as u64 + info.bytes())
}

fn locate(artifact: &Artifact, name: &str) -> Result<(usize, usize), Error> {
    artifact
        .index()
        .files
        .iter()
        .enumerate()
        .find_map(|(number, file)| match &file.content {
            Content::Shard(shard) => Some((number, shard.header.position(name)?)),
            Content::Blob(_) => None,
        })
        .ok_or_else(|| no_such_tensor(artifact, name))
}

fn no_such_tensor(artifact: &Artifact, name: &str) -> Error {
    let names = artifact
        .index()
        .files
        .iter()
        .flat_map(|f| match &f.content {
            Content::Shard(shard) => shard.header.tensors(),
            Content::Blob(_) => &[],
        });
    let last = name.rsplit('.').next().unwrap_or(name);
    let near = names
        .map(|info| info.name())
        .filter(|other| {
            other.contains(name)
                || name.contains(other)
                || (last != "weight" && last != "bias" && other.contains(last))
        })
        .take(3)
        .map(str::to_owned)
        .collect();
    Error::NoSuchTensor {
        path: artifact.path().to_owned(),
        name: name.to_owned(),
        near,
    }
}
