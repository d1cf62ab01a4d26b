//! A set of safetensors files with the index that says which holds what.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{AtomicFile, ShardWriter, TensorSpec, TensorWriter, layout, shard_path};
use crate::Error;

/// How a checkpoint's weights are laid out in files.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// File names begin with this.
    pub stem: String,
    /// Most bytes of tensor data in one file; a larger tensor gets a file of its own. `None` puts
    /// everything in one file.
    pub max_shard_bytes: Option<u64>,
    /// The `__metadata__` of every file.
    pub metadata: BTreeMap<String, String>,
}

impl Default for WriteOptions {
    /// One `model.safetensors`, marked as the loaders of the ecosystem expect it.
    fn default() -> WriteOptions {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        WriteOptions {
            stem: "model".to_owned(),
            max_shard_bytes: None,
            metadata,
        }
    }
}

/// Writes `specs` to `dir` as one file or as shards with an index, and returns the paths.
///
/// `fill` is called once per tensor, file by file, within a file by descending dtype and then by
/// name. The files appear together when all are complete; existing ones are replaced.
///
/// # Errors
/// Whatever `fill` returns; if names repeat, lengths do not match, or the system refuses. No file
/// has appeared then, unless the very renaming failed half-way.
pub fn write_shards<E: From<Error>>(
    dir: &Path,
    specs: &[TensorSpec],
    options: &WriteOptions,
    mut fill: impl FnMut(&TensorSpec, &mut TensorWriter<'_>) -> Result<(), E>,
) -> Result<Vec<PathBuf>, E> {
    let groups = split(dir, specs, options.max_shard_bytes)?;
    let mut weight_map = BTreeMap::new();
    let mut complete = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let (path, name) = shard_path(dir, &options.stem, at + 1, groups.len());
        for spec in *group {
            if weight_map
                .insert(spec.name.as_str(), name.clone())
                .is_some()
            {
                let cause = crate::HeaderError::Duplicate {
                    tensor: spec.name.clone(),
                };
                return Err(Error::Header {
                    path,
                    cause: Box::new(cause),
                }
                .into());
            }
        }
        let mut writer = ShardWriter::create(&path, group, &options.metadata)?;
        for _ in *group {
            writer.write_tensor(&mut fill)?;
        }
        complete.push(writer.complete()?);
    }
    if groups.len() > 1 {
        complete.push(index(dir, specs, options, &weight_map)?);
    }
    let paths = complete
        .iter()
        .map(|file| file.target().to_path_buf())
        .collect();
    for file in complete {
        file.commit()?;
    }
    Ok(paths)
}

/// Bytes of all files that [`write_shards`] would write for these tensors.
///
/// # Errors
/// If names repeat or a tensor is too large.
pub fn planned_bytes(
    dir: &Path,
    specs: &[TensorSpec],
    options: &WriteOptions,
) -> Result<u64, Error> {
    let groups = split(dir, specs, options.max_shard_bytes)?;
    let mut weight_map = BTreeMap::new();
    let mut bytes = 0;
    for (at, group) in groups.iter().enumerate() {
        let (path, name) = shard_path(dir, &options.stem, at + 1, groups.len());
        weight_map.extend(group.iter().map(|spec| (spec.name.as_str(), name.clone())));
        let header = layout(group, &options.metadata).map_err(|cause| Error::Header {
            path,
            cause: Box::new(cause),
        })?;
        bytes += 8 + header.text().len() as u64 + header.data_len();
    }
    if groups.len() > 1 {
        bytes += index_text(specs, &weight_map).len() as u64;
    }
    Ok(bytes)
}

/// Cuts `specs` into runs of at most `limit` bytes; at least one run, none empty but the only one.
fn split<'a>(
    dir: &Path,
    specs: &'a [TensorSpec],
    limit: Option<u64>,
) -> Result<Vec<&'a [TensorSpec]>, Error> {
    let limit = limit.unwrap_or(u64::MAX);
    let (mut groups, mut start, mut filled) = (Vec::new(), 0, 0u64);
    for (at, spec) in specs.iter().enumerate() {
        let bytes = spec.bytes().map_err(|cause| Error::Header {
            path: dir.to_path_buf(),
            cause: Box::new(cause),
        })?;
        if at > start && filled.saturating_add(bytes) > limit {
            groups.push(&specs[start..at]);
            (start, filled) = (at, 0);
        }
        filled = filled.saturating_add(bytes);
    }
    groups.push(&specs[start..]);
    Ok(groups)
}

fn index(
    dir: &Path,
    specs: &[TensorSpec],
    options: &WriteOptions,
    weight_map: &BTreeMap<&str, String>,
) -> Result<AtomicFile, Error> {
    let path = dir.join(format!("{}.safetensors.index.json", options.stem));
    let mut file = AtomicFile::create(&path)?;
    file.write_all(index_text(specs, weight_map).as_bytes())
        .map_err(Error::io("write", &path))?;
    file.complete()?;
    Ok(file)
}

fn index_text(specs: &[TensorSpec], weight_map: &BTreeMap<&str, String>) -> String {
    let total: u64 = specs.iter().filter_map(|spec| spec.bytes().ok()).sum();
    let index = serde_json::json!({
        "metadata": { "total_size": total },
        "weight_map": weight_map,
    });
    format!("{index:#}\n")
}
