//! The header of a safetensors file: parsed and validated in one place, or not at all.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Dtype;

mod error;
mod raw;

pub use error::HeaderError;

/// The longest header that the safetensors format allows.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// More dimensions than any tensor library supports.
const MAX_DIMENSIONS: usize = 64;

/// A validated header: every tensor lies inside the data, and none overlaps another.
#[derive(Clone, Debug)]
pub struct Header {
    text: Box<str>,
    data_len: u64,
    tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, sorted by tensor name.
    by_name: Vec<u32>,
    metadata: BTreeMap<String, String>,
}

/// Name, type, shape and place of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    range: Range<u64>,
    elements: u64,
}

/// Reads the length field in front of a header and checks it against the size of the file.
///
/// # Errors
/// If the header could not fit in the file or is longer than the format allows.
pub fn header_len(prefix: [u8; 8], file_len: u64) -> Result<u64, HeaderError> {
    let found = u64::from_le_bytes(prefix);
    if found > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLong { found });
    }
    let expected = found + 8;
    if expected > file_len {
        return Err(HeaderError::TooShort {
            expected,
            found: file_len,
        });
    }
    Ok(found)
}

/// Parses and validates the JSON text of a header (without the length field in front of it), for
/// a file that has `data_len` bytes of data behind it. This is the only way to make a [`Header`].
///
/// Bytes that no tensor covers are allowed: see [`Header::gaps`].
///
/// ```
/// let text = br#"{"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}  "#;
/// let header = sparse_checkpoint::parse_header(text, 12)?;
/// assert_eq!(header.tensors()[0].elements(), 6);
/// assert!(sparse_checkpoint::parse_header(text, 11).is_err(), "one byte short");
/// # Ok::<(), sparse_checkpoint::HeaderError>(())
/// ```
///
/// # Errors
/// See [`HeaderError`]. Never panics; memory stays within a small multiple of `bytes.len()`.
pub fn parse_header(bytes: &[u8], data_len: u64) -> Result<Header, HeaderError> {
    if bytes.len() as u64 > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLong {
            found: bytes.len() as u64,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| HeaderError::NotUtf8 {
        valid_up_to: error.valid_up_to(),
    })?;
    let raw = raw::parse(text).map_err(|message| HeaderError::Json { message })?;

    let mut tensors = Vec::with_capacity(raw.tensors.len());
    for (name, raw) in raw.tensors {
        tensors.push(TensorInfo::new(name, raw)?);
    }
    tensors.sort_unstable_by(|a, b| {
        (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name))
    });
    check_layout(&tensors, data_len)?;

    // Each tensor takes tens of bytes of a header of at most 100 MB.
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_unstable_by_key(|&at| tensors[at as usize].name());
    if let Some(pair) = by_name
        .windows(2)
        .find(|pair| tensors[pair[0] as usize].name == tensors[pair[1] as usize].name)
    {
        return Err(HeaderError::Duplicate {
            tensor: tensors[pair[0] as usize].name.clone(),
        });
    }
    Ok(Header {
        text: text.into(),
        data_len,
        tensors,
        by_name,
        metadata: raw.metadata,
    })
}

/// `tensors` are sorted by offset: all must end within the data, and none begin inside another.
fn check_layout(tensors: &[TensorInfo], data_len: u64) -> Result<(), HeaderError> {
    if let Some(last) = tensors.iter().max_by_key(|tensor| tensor.range.end)
        && last.range.end > data_len
    {
        let (tensor, expected) = (last.name.clone(), last.range.end);
        return Err(HeaderError::OutOfRange {
            tensor,
            expected,
            found: data_len,
        });
    }
    let mut occupied = tensors.iter().filter(|tensor| !tensor.range.is_empty());
    let Some(mut first) = occupied.next() else {
        return Ok(());
    };
    for second in occupied {
        if second.range.start < first.range.end {
            return Err(HeaderError::Overlap {
                first: first.name.clone(),
                first_range: first.range.clone(),
                second: second.name.clone(),
                second_range: second.range.clone(),
            });
        }
        first = second;
    }
    Ok(())
}

/// Elements and bytes of a tensor of this type and shape.
pub(crate) fn measure(name: &str, dtype: Dtype, shape: &[u64]) -> Result<(u64, u64), HeaderError> {
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size));
    let bits = elements.and_then(|elements| elements.checked_mul(dtype.bits().into()));
    let tensor = || name.to_owned();
    match (elements, bits) {
        (Some(elements), Some(bits)) if bits % 8 == 0 => Ok((elements, bits / 8)),
        (Some(elements), Some(_)) => Err(HeaderError::PartialByte {
            tensor: tensor(),
            dtype,
            elements,
        }),
        _ => Err(HeaderError::Overflow {
            tensor: tensor(),
            dtype,
            shape: shape.to_vec(),
        }),
    }
}

impl Header {
    /// The JSON text as it is in the file, padding included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes behind the header.
    pub fn data_len(&self) -> u64 {
        self.data_len
    }

    /// All tensors, by ascending offset.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The position in [`Header::tensors`] of the tensor with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name
            .binary_search_by(|&at| self.tensors[at as usize].name().cmp(name))
            .ok()
            .map(|at| self.by_name[at] as usize)
    }

    /// The `__metadata__` entries.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Ranges of the data that belong to no tensor, by ascending offset: holes between tensors
    /// and bytes behind the last one. None is empty.
    pub fn gaps(&self) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut covered = 0;
        for range in self
            .tensors
            .iter()
            .map(TensorInfo::range)
            .filter(|range| !range.is_empty())
        {
            if covered < range.start {
                gaps.push(covered..range.start);
            }
            covered = range.end;
        }
        if covered < self.data_len {
            gaps.push(covered..self.data_len);
        }
        gaps
    }
}

impl TensorInfo {
    fn new(name: String, raw: raw::RawInfo) -> Result<TensorInfo, HeaderError> {
        let raw::RawInfo {
            dtype,
            shape: raw::Shape(shape),
            data_offsets: (begin, end),
        } = raw;
        if end < begin {
            return Err(HeaderError::Reversed {
                tensor: name,
                begin,
                end,
            });
        }
        let (elements, bytes) = measure(&name, dtype, &shape)?;
        if end - begin != bytes {
            let (expected, found) = (bytes, end - begin);
            return Err(HeaderError::Size {
                tensor: name,
                dtype,
                shape,
                expected,
                found,
            });
        }
        Ok(TensorInfo {
            name,
            dtype,
            shape,
            range: begin..end,
            elements,
        })
    }

    /// The name, unique within its shard.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The sizes of the dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Where its bytes are, counted from the start of the shard's data.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

#[cfg(test)]
mod tests;
