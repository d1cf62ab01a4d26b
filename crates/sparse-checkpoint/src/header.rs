//! The header of a safetensors file: parsed and validated in one place, or not at all.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Dtype;
use crate::json::Quoted;

mod raw;

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

/// Why a header is not valid. Names the tensor, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file ends before the header does.
    #[error("file is {found} bytes, too short for a safetensors header of {expected}")]
    TooShort {
        /// Bytes needed: the length field and the header that it announces.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// The announced header length is beyond what the format allows.
    #[error("header length is {found} bytes, the format allows at most {MAX_HEADER_BYTES}")]
    TooLong {
        /// The announced length.
        found: u64,
    },
    /// The header is not UTF-8.
    #[error("header is not UTF-8 text (byte {valid_up_to})")]
    NotUtf8 {
        /// Bytes that were still valid.
        valid_up_to: usize,
    },
    /// The header is not the JSON object that it should be.
    #[error("header is not valid: {message}")]
    Json {
        /// What is wrong, and where.
        message: String,
    },
    /// A name occurs twice.
    #[error("tensor {} appears twice in the header", Quoted(.tensor))]
    Duplicate {
        /// The tensor's name.
        tensor: String,
    },
    /// The number of elements or bits does not fit in 64 bits.
    #[error("tensor {}: {dtype} of shape {shape:?} is too large to address", Quoted(.tensor))]
    Overflow {
        /// The tensor's name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A sub-byte tensor does not end at a byte.
    #[error("tensor {}: {elements} elements of {dtype} are not a whole number of bytes", Quoted(.tensor))]
    PartialByte {
        /// The tensor's name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its number of elements.
        elements: u64,
    },
    /// `data_offsets` run backwards.
    #[error("tensor {}: data_offsets end at {end}, before they begin at {begin}", Quoted(.tensor))]
    Reversed {
        /// The tensor's name.
        tensor: String,
        /// First offset.
        begin: u64,
        /// Second offset.
        end: u64,
    },
    /// `data_offsets` and the shape disagree.
    #[error(
        "tensor {}: {dtype} of shape {shape:?} needs {expected} bytes, data_offsets hold {found}",
        Quoted(.tensor)
    )]
    Size {
        /// The tensor's name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that type and shape need.
        expected: u64,
        /// Bytes between the offsets.
        found: u64,
    },
    /// A tensor ends after the data does: a truncated file, or a corrupt offset.
    #[error(
        "tensor {} ends at byte {expected} of the data, which has {found}", Quoted(.tensor)
    )]
    OutOfRange {
        /// The tensor that reaches furthest.
        tensor: String,
        /// Bytes of data that the header promises.
        expected: u64,
        /// Bytes of data that there are.
        found: u64,
    },
    /// Two tensors share bytes.
    #[error(
        "tensors {} and {} overlap: {first_range:?} and {second_range:?}",
        Quoted(.first), Quoted(.second)
    )]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// Its place.
        first_range: Range<u64>,
        /// The tensor that begins inside it.
        second: String,
        /// Its place.
        second_range: Range<u64>,
    },
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
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &size| product.checked_mul(size));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bits().into()));
        let (Some(elements), Some(bits)) = (elements, bits) else {
            return Err(HeaderError::Overflow {
                tensor: name,
                dtype,
                shape,
            });
        };
        if bits % 8 != 0 {
            return Err(HeaderError::PartialByte {
                tensor: name,
                dtype,
                elements,
            });
        }
        if end - begin != bits / 8 {
            let (expected, found) = (bits / 8, end - begin);
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
