//! A base and its fine-tune, loaded whole into memory as two flat buffers.
//!
//! [`Layout`] is what every method is told for free: which bytes of the fine-tune
//! belong to which tensor, and where the tensor of the base that it derives from
//! lies. A real artifact would store it in a header; its size is not counted, for
//! any method.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};

/// One tensor of the fine-tune and the base tensor it is coded against.
#[derive(Debug, Clone)]
pub struct TensorSpan {
    /// Name in the fine-tune.
    pub name: String,
    /// Element type of the fine-tune's tensor, and of the base's where there is one.
    pub dtype: Dtype,
    /// Shape of both.
    pub shape: Vec<usize>,
    /// Bytes in the fine-tune's buffer. Spans follow one another without gaps.
    pub fine: Range<usize>,
    /// Bytes in the base's buffer; `None` where no tensor matches.
    pub base: Option<Range<usize>>,
}

/// The tensors of a fine-tune, in the order of its buffer.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// One span per tensor.
    pub tensors: Vec<TensorSpan>,
}

impl Layout {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.tensors
            .iter()
            .map(|t| t.shape.iter().product::<usize>())
            .sum()
    }

    /// The element type that most bytes have.
    pub fn main_dtype(&self) -> Dtype {
        let bytes_of = |dtype: Dtype| -> usize {
            let same = self.tensors.iter().filter(|t| t.dtype == dtype);
            same.map(|t| t.fine.len()).sum()
        };
        let dtypes = self.tensors.iter().map(|t| t.dtype);
        dtypes
            .max_by_key(|&dtype| bytes_of(dtype))
            .unwrap_or(Dtype::BF16)
    }
}

/// Two checkpoints in memory.
#[derive(Debug)]
pub struct Pair {
    /// Folder or file of the base.
    pub base_path: PathBuf,
    /// Folder or file of the fine-tune.
    pub fine_path: PathBuf,
    /// All tensors of the base, one after the other.
    pub base: Vec<u8>,
    /// All tensors of the fine-tune, one after the other.
    pub fine: Vec<u8>,
    /// How they correspond.
    pub layout: Layout,
}

impl Pair {
    /// Reads both checkpoints and matches their tensors.
    pub fn load(base_path: &Path, fine_path: &Path) -> Result<Self> {
        let base = Flat::read(base_path)?;
        let fine = Flat::read(fine_path)?;
        let layout = match_tensors(&base, &fine);
        Ok(Self {
            base_path: base_path.to_owned(),
            fine_path: fine_path.to_owned(),
            base: base.bytes,
            fine: fine.bytes,
            layout,
        })
    }

    /// `base--fine`, from the folder names: what a result file is called.
    pub fn name(&self) -> String {
        let stem = |path: &Path| {
            let stem = if path.is_dir() {
                path.file_name()
            } else {
                path.file_stem()
            };
            stem.unwrap_or_default().to_string_lossy().into_owned()
        };
        format!("{}--{}", stem(&self.base_path), stem(&self.fine_path))
    }

    /// Fraction of the matched weights whose bits are equal.
    pub fn unchanged(&self) -> Option<f64> {
        let (mut same, mut total) = (0, 0);
        for tensor in &self.layout.tensors {
            let Some(base) = &tensor.base else { continue };
            let (base, fine) = (&self.base[base.clone()], &self.fine[tensor.fine.clone()]);
            let width = (tensor.dtype.bitsize() / 8).max(1);
            let weights = base.chunks_exact(width).zip(fine.chunks_exact(width));
            total += fine.len() / width;
            same += weights.filter(|(b, f)| b == f).count();
        }
        (total > 0).then(|| same as f64 / total as f64)
    }
}

/// A checkpoint's tensors copied into one buffer.
struct Flat {
    bytes: Vec<u8>,
    tensors: Vec<TensorSpan>,
}

impl Flat {
    fn read(path: &Path) -> Result<Self> {
        let mut flat = Self {
            bytes: Vec::new(),
            tensors: Vec::new(),
        };
        for file in shards(path)? {
            let content =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            flat.append(&content)
                .with_context(|| format!("{} is not a safetensors file", file.display()))?;
        }
        Ok(flat)
    }

    /// Adds the tensors of one file in the order of their bytes.
    fn append(&mut self, content: &[u8]) -> Result<()> {
        let parsed = SafeTensors::deserialize(content)?;
        let mut tensors = parsed.tensors();
        tensors.sort_by_key(|(_, view)| view.data().as_ptr());
        for (name, view) in tensors {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(view.data());
            self.tensors.push(TensorSpan {
                name,
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                fine: start..self.bytes.len(),
                base: None,
            });
        }
        Ok(())
    }
}

/// The safetensors files of a folder in name order, or the file itself.
fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|e| e == "safetensors") {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("{} holds no safetensors file", path.display());
    }
    files.sort();
    Ok(files)
}

/// Gives every tensor of the fine-tune its base: the one of the same name, type and
/// shape, else one of equal bytes (what a deduplicating store would find).
fn match_tensors(base: &Flat, fine: &Flat) -> Layout {
    let by_name: HashMap<&str, &TensorSpan> =
        base.tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let by_bytes: HashMap<&[u8], &TensorSpan> = base
        .tensors
        .iter()
        .map(|t| (&base.bytes[t.fine.clone()], t))
        .collect();
    let tensors = fine.tensors.iter().map(|tensor| {
        let fits = |b: &&&TensorSpan| b.dtype == tensor.dtype && b.shape == tensor.shape;
        let named = by_name.get(tensor.name.as_str()).filter(fits);
        let found = named.or_else(|| by_bytes.get(&fine.bytes[tensor.fine.clone()]).filter(fits));
        TensorSpan {
            base: found.map(|b| b.fine.clone()),
            ..tensor.clone()
        }
    });
    Layout {
        tensors: tensors.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(tensors: &[(&str, &[u8])]) -> Flat {
        let mut flat = Flat {
            bytes: Vec::new(),
            tensors: Vec::new(),
        };
        for (name, bytes) in tensors {
            let start = flat.bytes.len();
            flat.bytes.extend_from_slice(bytes);
            flat.tensors.push(TensorSpan {
                name: (*name).to_owned(),
                dtype: Dtype::BF16,
                shape: vec![bytes.len() / 2],
                fine: start..start + bytes.len(),
                base: None,
            });
        }
        flat
    }

    #[test]
    fn tensors_match_by_name_then_by_content_and_only_in_equal_shape() {
        let base = flat(&[("a", &[1, 2, 3, 4]), ("b", &[5, 6]), ("c", &[7, 8])]);
        let fine = flat(&[
            ("a", &[1, 2, 3, 9]),
            ("renamed.b", &[5, 6]),
            ("c", &[7, 8, 9, 9]),
        ]);
        let layout = match_tensors(&base, &fine);
        let bases: Vec<_> = layout.tensors.iter().map(|t| t.base.clone()).collect();
        assert_eq!(bases, [Some(0..4), Some(4..6), None]);
        assert_eq!(layout.weights(), 5);
    }
}
