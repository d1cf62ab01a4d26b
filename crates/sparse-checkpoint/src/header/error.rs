//! What can be wrong with a header.

use std::ops::Range;

use super::MAX_HEADER_BYTES;
use crate::Dtype;
use crate::json::Quoted;

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
