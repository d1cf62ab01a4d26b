//! Writing safetensors files that every other reader takes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::header::{Header, measure, parse_header};
use crate::{Dtype, Error, HeaderError};

mod abandoned;
mod atomic;
mod folder;
mod parents;
mod shards;

pub use atomic::AtomicFile;
pub use folder::{Existing, OutputDir};
pub use parents::NewParents;
pub use shards::{WriteOptions, planned_bytes, write_shards};

/// Name, type and shape of a tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, unique among the tensors written together.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The sizes of the dimensions, outermost first.
    pub shape: Vec<u64>,
}

/// Writes one safetensors file, tensor by tensor, which appears when it is finished.
#[derive(Debug)]
pub struct ShardWriter {
    file: AtomicFile,
    header: Header,
    written: usize,
}

/// Takes the bytes of one tensor.
#[derive(Debug)]
pub struct TensorWriter<'a> {
    file: &'a mut AtomicFile,
    spec: &'a TensorSpec,
    expected: u64,
    found: u64,
}

impl TensorSpec {
    /// Describes a tensor.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<u64>>) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    /// Number of bytes.
    ///
    /// # Errors
    /// If it does not fit in 64 bits, or a packed sub-byte tensor does not end at a byte.
    pub fn bytes(&self) -> Result<u64, HeaderError> {
        measure(&self.name, self.dtype, &self.shape).map(|(_, bytes)| bytes)
    }
}

impl ShardWriter {
    /// Starts the file that will appear at `target` with these tensors, in the order in which the
    /// reference implementation lays them out: by descending dtype, then by name, so that each is
    /// aligned.
    ///
    /// # Errors
    /// If two tensors have the same name, one is too large, or the file cannot be created.
    pub fn create(
        target: &Path,
        specs: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<ShardWriter, Error> {
        let header = layout(specs, metadata).map_err(|cause| Error::Header {
            path: target.to_path_buf(),
            cause: Box::new(cause),
        })?;
        let mut file = AtomicFile::create(target)?;
        let text = header.text().as_bytes();
        file.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(text))
            .map_err(Error::io("write", target))?;
        Ok(ShardWriter {
            file,
            header,
            written: 0,
        })
    }

    /// The tensor that is to be written next, or `None` when all have been.
    pub fn next_tensor(&self) -> Option<TensorSpec> {
        let info = self.header.tensors().get(self.written)?;
        Some(TensorSpec::new(info.name(), info.dtype(), info.shape()))
    }

    /// Writes the next tensor with what `fill` puts into the writer.
    ///
    /// # Errors
    /// Whatever `fill` returns; if it writes more or fewer bytes than the tensor has; or if there
    /// is no next tensor.
    pub fn write_tensor<E: From<Error>>(
        &mut self,
        fill: impl FnOnce(&TensorSpec, &mut TensorWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(spec) = self.next_tensor() else {
            return Err(self.unfinished(self.written + 1).into());
        };
        let expected = self.header.tensors()[self.written].bytes();
        let mut out = TensorWriter {
            file: &mut self.file,
            spec: &spec,
            expected,
            found: 0,
        };
        fill(&spec, &mut out)?;
        if out.found != expected {
            return Err(out.wrong_length(out.found).into());
        }
        self.written += 1;
        Ok(())
    }

    /// Completes the file without making it appear: [`AtomicFile::commit`] does.
    ///
    /// # Errors
    /// If tensors are missing, or the system refuses.
    pub fn complete(mut self) -> Result<AtomicFile, Error> {
        if self.written != self.header.tensors().len() {
            return Err(self.unfinished(self.written));
        }
        self.file.complete()?;
        Ok(self.file)
    }

    /// Completes the file and makes it appear at its target.
    ///
    /// # Errors
    /// If tensors are missing, or the system refuses.
    pub fn finish(self) -> Result<(), Error> {
        self.complete()?.commit()
    }

    fn unfinished(&self, found: usize) -> Error {
        let path = self.file.target().to_path_buf();
        Error::Unfinished {
            path,
            expected: self.header.tensors().len(),
            found,
        }
    }
}

impl TensorWriter<'_> {
    /// Appends `bytes` to the tensor.
    ///
    /// # Errors
    /// If the tensor is full, or the system refuses.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let found = self.found.saturating_add(bytes.len() as u64);
        if found > self.expected {
            return Err(self.wrong_length(found));
        }
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", self.file.target()))?;
        self.found = found;
        Ok(())
    }

    fn wrong_length(&self, found: u64) -> Error {
        let (path, tensor) = (self.file.target().to_path_buf(), self.spec.name.clone());
        Error::WrongLength {
            path,
            tensor,
            expected: self.expected,
            found,
        }
    }
}

/// Builds the header, and sends it through the same validation as one that was read.
fn layout(
    specs: &[TensorSpec],
    metadata: &BTreeMap<String, String>,
) -> Result<Header, HeaderError> {
    let mut order: Vec<&TensorSpec> = specs.iter().collect();
    order.sort_by_key(|spec| (std::cmp::Reverse(spec.dtype), &spec.name));
    let mut members = Vec::with_capacity(order.len() + 1);
    if !metadata.is_empty() {
        members.push(format!("\"__metadata__\":{}", serde_json::json!(metadata)));
    }
    let mut end = 0u64;
    for spec in order {
        let begin = end;
        end = begin
            .checked_add(spec.bytes()?)
            .ok_or_else(|| HeaderError::Overflow {
                tensor: spec.name.clone(),
                dtype: spec.dtype,
                shape: spec.shape.clone(),
            })?;
        members.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{begin},{end}]}}",
            serde_json::json!(spec.name),
            spec.dtype,
            serde_json::json!(spec.shape),
        ));
    }
    let mut text = format!("{{{}}}", members.join(","));
    let padding = text.len().next_multiple_of(8) - text.len();
    text.extend(std::iter::repeat_n(' ', padding)); // so that the data is aligned
    parse_header(text.as_bytes(), end)
}

/// Where the shards of a set of files are named.
fn shard_path(dir: &Path, stem: &str, number: usize, count: usize) -> (PathBuf, String) {
    let name = match count {
        1 => format!("{stem}.safetensors"),
        _ => format!("{stem}-{number:05}-of-{count:05}.safetensors"),
    };
    (dir.join(&name), name)
}

#[cfg(test)]
mod tests;
