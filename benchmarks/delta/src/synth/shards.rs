//! Sharded safetensors files written front to back.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::shapes::Tensor;

/// Bytes gathered before they are written.
const BUFFER: usize = 4 << 20;

/// One file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// The tensors in it, as indices.
    pub tensors: Range<usize>,
}

/// Fills shards in order; a tensor larger than a shard gets one to itself.
pub fn plan_shards(tensors: &[Tensor], shard_bytes: u64) -> Vec<Shard> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for (at, tensor) in tensors.iter().enumerate() {
        match ranges.last_mut() {
            Some(last) if filled + tensor.bytes() <= shard_bytes => last.end = at + 1,
            _ => {
                ranges.push(at..at + 1);
                filled = 0;
            }
        }
        filled += tensor.bytes();
    }
    let count = ranges.len();
    let name = |at: usize| format!("model-{:05}-of-{count:05}.safetensors", at + 1);
    let shards = ranges.into_iter().enumerate();
    shards
        .map(|(at, tensors)| Shard {
            file: name(at),
            tensors,
        })
        .collect()
}

/// Writes `model.safetensors.index.json`.
pub fn write_index(
    folder: &Path,
    tensors: &[Tensor],
    plan: &[Shard],
    metadata: Value,
) -> Result<()> {
    let mut places = Map::new();
    for shard in plan {
        for tensor in &tensors[shard.tensors.clone()] {
            places.insert(tensor.name.clone(), json!(shard.file));
        }
    }
    let index = json!({ "metadata": metadata, "weight_map": places });
    let text = serde_json::to_string_pretty(&index)? + "\n";
    fs::write(folder.join("model.safetensors.index.json"), text)?;
    Ok(())
}

/// A safetensors file whose tensors are appended in order.
pub struct ShardWriter {
    file: BufWriter<File>,
    row: Vec<u8>,
    missing: u64,
}

impl ShardWriter {
    /// Writes the header.
    pub fn create(path: &Path, tensors: &[Tensor]) -> Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut at = 0;
        for tensor in tensors {
            let end = at + tensor.bytes();
            let entry =
                json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, end] });
            header.insert(tensor.name.clone(), entry);
            at = end;
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let file =
            File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut file = BufWriter::with_capacity(BUFFER, file);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        Ok(Self {
            file,
            row: Vec::new(),
            missing: at,
        })
    }

    /// Writes the bytes handed out before, and hands out the next `bytes` to fill.
    pub fn space(&mut self, bytes: usize) -> Result<&mut [u8]> {
        self.file.write_all(&self.row)?;
        self.row.resize(bytes, 0);
        self.missing = self
            .missing
            .checked_sub(bytes as u64)
            .context("more bytes than tensors")?;
        Ok(&mut self.row)
    }

    /// Writes the last bytes.
    pub fn finish(mut self) -> Result<()> {
        ensure!(
            self.missing == 0,
            "{} bytes of tensors were not written",
            self.missing
        );
        self.file.write_all(&self.row)?;
        self.file.flush()?;
        Ok(())
    }
}
