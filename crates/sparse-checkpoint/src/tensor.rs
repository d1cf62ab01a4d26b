//! A tensor in its shard: what it is, and its bytes.

use std::ops::Range;

use crate::json::Quoted;
use crate::{Dtype, Error, Shard, TensorInfo};

/// A tensor and the shard that holds it.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    shard: &'a Shard,
    info: &'a TensorInfo,
}

impl<'a> TensorRef<'a> {
    /// `info` is one of the shard's own.
    pub(crate) fn new(shard: &'a Shard, info: &'a TensorInfo) -> TensorRef<'a> {
        TensorRef { shard, info }
    }

    /// The shard that holds it.
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Name, type, shape and place.
    pub fn info(&self) -> &'a TensorInfo {
        self.info
    }

    /// The name, unique within its shard.
    pub fn name(&self) -> &'a str {
        self.info.name()
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype()
    }

    /// The sizes of the dimensions, outermost first; empty for a scalar.
    pub fn shape(&self) -> &'a [u64] {
        self.info.shape()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.info.elements()
    }

    /// Number of bytes.
    pub fn byte_len(&self) -> u64 {
        self.info.bytes()
    }

    /// Fills `buffer` with the bytes `range` of the tensor, without touching the memory map.
    ///
    /// # Errors
    /// If `range` is not within the tensor or not as long as `buffer`, or the read fails.
    pub fn read_range(&self, range: Range<u64>, buffer: &mut [u8]) -> Result<(), Error> {
        let fits = range.start <= range.end
            && range.end <= self.info.bytes()
            && range.end - range.start == buffer.len() as u64;
        if !fits {
            let what = format!(
                "tensor {} (buffer of {})",
                Quoted(self.name()),
                buffer.len()
            );
            return Err(self.shard.out_of_range(what, range, self.info.bytes()));
        }
        self.shard.read_at(
            self.shard.data_start() + self.info.range().start + range.start,
            buffer,
        )
    }

    /// Whether another tensor has the same bytes, whatever its type and shape, read piece by piece.
    ///
    /// # Errors
    /// If either cannot be read.
    pub fn same_bytes(&self, other: &TensorRef<'_>) -> Result<bool, Error> {
        const PIECE: u64 = 1 << 20;
        let len = self.byte_len();
        if other.byte_len() != len {
            return Ok(false);
        }
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for at in (0..len).step_by(PIECE as usize) {
            let end = (at + PIECE).min(len);
            for (tensor, bytes) in [(self, &mut own), (other, &mut others)] {
                bytes.resize((end - at) as usize, 0);
                tensor.read_range(at..end, bytes)?;
            }
            if own != others {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The tensor's bytes in the memory map. Their alignment is whatever the file has.
    ///
    /// # Errors
    /// See [`Shard::map`].
    pub fn bytes(&self) -> Result<&'a [u8], Error> {
        let map = self.shard.map()?;
        let (start, range) = (self.shard.data_start(), self.info.range());
        // The map has the length that the header was checked against, so both fit.
        let bytes = map.get((start + range.start) as usize..(start + range.end) as usize);
        bytes.ok_or_else(|| self.shard.changed())
    }
}
