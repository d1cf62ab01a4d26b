//! Reading a GGUF file: everything is checked against the file's size before it is used.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use sparse_checkpoint::read_exact_at;

use super::container::{ALIGNMENT, MAGIC, Value, kind};
use crate::format::damaged;
use crate::method::ggml::{GgmlType, dequantize};
use crate::{Error, Matrix};

/// A GGUF file whose header has been validated.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    pairs: Vec<(String, Value)>,
    tensors: Vec<GgufTensor>,
    data_start: u64,
}

/// A tensor of a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Outputs; 1 for a vector.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its type.
    pub kind: GgmlType,
    offset: u64,
}

/// No header is larger: a vocabulary of a million long tokens fits.
const MAX_HEADER: u64 = 512 << 20;

impl GgufFile {
    /// Opens a file and validates its header.
    ///
    /// # Errors
    /// If it cannot be read, or is no GGUF of version 2 or 3 with types that are known.
    pub fn open(path: &Path) -> Result<GgufFile, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut reader = HeaderReader {
            reader: BufReader::new(&file),
            left: size.min(MAX_HEADER),
            at: 0,
        };
        let parsed = reader
            .header()
            .map_err(|reason| damaged(path, "header", reason))?;
        let (pairs, tensors) = parsed;
        let alignment = pairs.iter().find(|(key, _)| key == "general.alignment");
        let alignment = match alignment {
            Some((_, Value::Unsigned(alignment))) if alignment.is_power_of_two() => *alignment,
            Some(_) => {
                return Err(damaged(
                    path,
                    "header",
                    "alignment is no power of two".to_owned(),
                ));
            }
            None => ALIGNMENT,
        };
        let data_start = reader
            .at
            .checked_next_multiple_of(alignment)
            .unwrap_or(u64::MAX);
        let mut names = HashSet::new();
        for tensor in &tensors {
            if !names.insert(&tensor.name) {
                let reason = "two tensors have this name".to_owned();
                return Err(damaged(path, &tensor.name, reason));
            }
            let end = tensor
                .bytes()
                .and_then(|bytes| bytes.checked_add(tensor.offset)?.checked_add(data_start));
            if end.is_none_or(|end| end > size) {
                let reason = format!("the file of {size} bytes ends before it");
                return Err(damaged(path, &tensor.name, reason));
            }
        }
        Ok(GgufFile {
            path: path.to_owned(),
            file,
            pairs,
            tensors,
            data_start,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Key-value pairs, in file order.
    pub fn pairs(&self) -> &[(String, Value)] {
        &self.pairs
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.pairs
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Tensors, in file order.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The bytes of a tensor, row by row.
    ///
    /// # Errors
    /// If there is no such tensor, or it cannot be read.
    pub fn bytes(&self, name: &str) -> Result<(&GgufTensor, Vec<u8>), Error> {
        let Some(tensor) = self.tensors.iter().find(|tensor| tensor.name == name) else {
            return Err(damaged(
                &self.path,
                name,
                "there is no such tensor".to_owned(),
            ));
        };
        let mut bytes = vec![0; tensor.bytes().unwrap_or(0) as usize]; // within the file
        read_exact_at(&self.file, &mut bytes, self.data_start + tensor.offset)
            .map_err(Error::io("read", &self.path))?;
        Ok((tensor, bytes))
    }

    /// The weights that a tensor stands for.
    ///
    /// # Errors
    /// See [`GgufFile::bytes`].
    pub fn weights(&self, name: &str) -> Result<Matrix, Error> {
        let (tensor, bytes) = self.bytes(name)?;
        Ok(dequantize(&bytes, tensor.kind, tensor.rows, tensor.cols))
    }
}

impl GgufTensor {
    fn bytes(&self) -> Option<u64> {
        let row = self.kind.row_bytes(self.cols) as u64;
        row.checked_mul(self.rows as u64)
    }
}

/// Reads a header and counts what is left of the file, so that no length is believed that the
/// file could not hold.
struct HeaderReader<R> {
    reader: R,
    left: u64,
    at: u64,
}

type Header = (Vec<(String, Value)>, Vec<GgufTensor>);

impl<R: Read> HeaderReader<R> {
    fn header(&mut self) -> Result<Header, String> {
        if self.array()? != MAGIC {
            return Err("it does not begin with GGUF".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version}, this program reads 2 and 3"));
        }
        let (tensors, pairs) = (self.count(24)?, self.count(13)?);
        let mut read = Vec::new();
        for _ in 0..pairs {
            let key = self.text()?;
            let value = self.value()?;
            read.push((key, value));
        }
        let tensors = (0..tensors)
            .map(|_| self.tensor())
            .collect::<Result<_, _>>()?;
        Ok((read, tensors))
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, String> {
        if count > self.left {
            return Err(format!("{count} bytes at {} are beyond its end", self.at));
        }
        let mut bytes = vec![0; count as usize];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|error| error.to_string())?;
        self.left -= count;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things that take at least `least` bytes each.
    fn count(&mut self, least: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count > self.left / least {
            return Err(format!("{count} entries do not fit the file"));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes).map_err(|_| format!("text at {} is not UTF-8", self.at))
    }

    fn value(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        if kind == kind::LIST {
            return self.list();
        }
        self.scalar(kind)
    }

    fn scalar(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>()?[0].into()),
            1 => Value::Signed(i64::from(self.array::<1>()?[0] as i8)),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            kind::U32 => Value::Unsigned(self.u32()?.into()),
            kind::I32 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            kind::F32 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            kind::BOOL => Value::Bool(self.array::<1>()?[0] != 0),
            kind::TEXT => Value::Text(self.text()?),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("value of unknown type {other}")),
        })
    }

    fn list(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        Ok(match kind {
            kind::TEXT => {
                let count = self.count(8)?;
                let texts = (0..count).map(|_| self.text()).collect::<Result<_, _>>()?;
                Value::Texts(texts)
            }
            kind::I32 => {
                let count = self.count(4)?;
                let bytes = self.bytes(count * 4)?;
                let numbers = bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b));
                Value::Numbers(numbers.collect())
            }
            kind::F32 => {
                let count = self.count(4)?;
                let bytes = self.bytes(count * 4)?;
                let numbers = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                Value::Floats(numbers.collect())
            }
            kind::LIST => return Err("a list of lists".to_owned()),
            other => {
                let count = self.count(1)?;
                for _ in 0..count {
                    self.scalar(other)?;
                }
                Value::Other
            }
        })
    }

    fn tensor(&mut self) -> Result<GgufTensor, String> {
        let name = self.text()?;
        let dims = self.u32()?;
        if !(1..=4).contains(&dims) {
            return Err(format!("tensor {name:?} has {dims} dimensions"));
        }
        let sizes = (0..dims)
            .map(|_| self.u64())
            .collect::<Result<Vec<u64>, _>>()?;
        let id = self.u32()?;
        let offset = self.u64()?;
        let Some(kind) = GgmlType::ALL.into_iter().find(|kind| kind.id() == id) else {
            return Err(format!(
                "tensor {name:?} is of type {id}, which is not known"
            ));
        };
        let rows = sizes[1..]
            .iter()
            .try_fold(1u64, |product, &size| product.checked_mul(size));
        let size = |size: Option<u64>| size.and_then(|size| usize::try_from(size).ok());
        let (Some(cols), Some(rows)) = (size(Some(sizes[0])), size(rows)) else {
            return Err(format!("tensor {name:?} has sizes {sizes:?}"));
        };
        if !cols.is_multiple_of(kind.block().0) || rows.checked_mul(cols).is_none() {
            return Err(format!(
                "tensor {name:?} has {cols} inputs, {kind:?} needs whole blocks"
            ));
        }
        Ok(GgufTensor {
            name,
            rows,
            cols,
            kind,
            offset,
        })
    }
}
