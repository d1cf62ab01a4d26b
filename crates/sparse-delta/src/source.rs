//! Reading runs of weights out of tensors.

use sparse_checkpoint::{Dtype, TensorRef};
use sparse_codec::Layout;

use crate::Error;
use crate::words::{Words, cast};

/// Reads weights `start..start + len` of a float tensor.
pub(crate) fn read_words(tensor: &TensorRef<'_>, start: u64, len: u64) -> Result<Words, Error> {
    let each = u64::from(tensor.info().dtype().bits()) / 8;
    let mut words = Words::zeros(each as usize, len as usize);
    tensor.read_range(start * each..(start + len) * each, words.bytes_mut())?;
    Ok(words)
}

/// As [`read_words`], cast to `dtype`.
pub(crate) fn read_cast(
    tensor: &TensorRef<'_>,
    start: u64,
    len: u64,
    dtype: Dtype,
) -> Result<Words, Error> {
    let words = read_words(tensor, start, len)?;
    Ok(cast(words, tensor.info().dtype(), dtype))
}

/// Low bits that are zero in every one of the words, as many as a layout can leave out.
pub(crate) fn zero_bits(layout: Layout, words: &Words) -> u32 {
    match words {
        Words::W32(words) => words
            .iter()
            .fold(0, |any, w| any | w)
            .trailing_zeros()
            .min(layout.mantissa() - 2),
        _ => 0,
    }
}
