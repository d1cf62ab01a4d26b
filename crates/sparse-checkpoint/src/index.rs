//! `*.safetensors.index.json`: which shard holds which tensor.

use serde::Deserialize;

use crate::checkpoint::PlainFile;
use crate::json::UniqueMap;
use crate::{Error, MAX_HEADER_BYTES, Shard};

pub(crate) const SUFFIX: &str = ".safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Reads an index and returns the places of its tensors: positions in `shards` and in the shard's
/// tensors. Every shard and tensor that it names must be there.
pub(crate) fn read(index: &PlainFile, shards: &[Shard]) -> Result<Vec<(u32, u32)>, Error> {
    let bytes = index.read(MAX_HEADER_BYTES)?;
    let parsed: Index = serde_json::from_slice(&bytes).map_err(|error| Error::Json {
        path: index.full_path().to_path_buf(),
        message: error.to_string(),
    })?;
    let mut places = Vec::with_capacity(parsed.weight_map.0.len());
    let mut last: Option<(String, u32)> = None; // neighbours are mostly in the same shard
    for (tensor, shard) in parsed.weight_map.0 {
        let at = match last.as_ref().filter(|(name, _)| *name == shard) {
            Some(&(_, at)) => Some(at),
            None => position(index, &shard, shards),
        };
        let Some(at) = at else {
            let index = index.full_path().to_path_buf();
            return Err(Error::MissingShard {
                index,
                shard,
                tensor,
            });
        };
        let Some(place) = shards[at as usize].header().position(&tensor) else {
            let index = index.full_path().to_path_buf();
            return Err(Error::MissingTensor {
                index,
                shard,
                tensor,
            });
        };
        places.push((at, place as u32));
        last = Some((shard, at));
    }
    Ok(places)
}

/// Finds the shard that an index names, relative to the index's own folder.
fn position(index: &PlainFile, name: &str, shards: &[Shard]) -> Option<u32> {
    let path = index.path().sibling(name).ok()?;
    let at = shards
        .binary_search_by(|shard| shard.path().cmp(&path))
        .ok()?;
    u32::try_from(at).ok()
}
