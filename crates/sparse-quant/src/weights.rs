//! Between the bytes of a checkpoint's tensors and f32.

use half::{bf16, f16};
use sparse_checkpoint::{Dtype, TensorRef};

use crate::{Error, Matrix};

/// The weights of a two-dimensional tensor as `[outputs, inputs]`; `transposed` says that the
/// checkpoint stores them the other way round, as GPT-2's Conv1D does.
///
/// # Errors
/// If the tensor is not a matrix of a type with 16 to 64 bits, cannot be read, or holds a NaN or
/// an infinity.
pub(crate) fn read_matrix(tensor: TensorRef<'_>, transposed: bool) -> Result<Matrix, Error> {
    let &[rows, cols] = tensor.shape() else {
        return Err(wrong(
            &tensor,
            "a matrix",
            format!("shape {:?}", tensor.shape()),
        ));
    };
    let values = read_values(tensor)?;
    let too_big = || {
        wrong(
            &tensor,
            "small enough for this machine",
            format!("{rows} x {cols}"),
        )
    };
    let rows = usize::try_from(rows).map_err(|_| too_big())?;
    let cols = usize::try_from(cols).map_err(|_| too_big())?;
    let matrix = Matrix::new(rows, cols, values).ok_or_else(too_big)?;
    Ok(if transposed {
        matrix.transposed()
    } else {
        matrix
    })
}

/// All values of a floating-point tensor, checked to be finite.
///
/// # Errors
/// See [`read_matrix`].
pub(crate) fn read_values(tensor: TensorRef<'_>) -> Result<Vec<f32>, Error> {
    let mut bytes = vec![0; tensor.byte_len() as usize]; // at most the file
    tensor.read_range(0..tensor.byte_len(), &mut bytes)?;
    let Some(values) = to_f32(tensor.dtype(), &bytes) else {
        return Err(not_float(&tensor));
    };
    check_finite(tensor, 0, &values)?;
    Ok(values)
}

/// Some values of a floating-point tensor, given their bytes, checked to be finite; `before` is
/// how many values come before them.
///
/// # Errors
/// If the tensor is not of a type with 16 to 64 bits, or a value is a NaN or an infinity.
///
/// # Panics
/// If `values` is of another length than the bytes stand for.
pub(crate) fn read_row(
    tensor: TensorRef<'_>,
    bytes: &[u8],
    before: usize,
    values: &mut [f32],
) -> Result<(), Error> {
    if tensor.dtype() == Dtype::BF16 {
        let halves = bytes.as_chunks().0;
        assert_eq!(halves.len(), values.len());
        for (value, &half) in values.iter_mut().zip(halves) {
            *value = widened(half);
        }
    } else {
        let found = to_f32(tensor.dtype(), bytes).ok_or_else(|| not_float(&tensor))?;
        values.copy_from_slice(&found);
    }
    check_finite(tensor, before, values)
}

fn not_float(tensor: &TensorRef<'_>) -> Error {
    wrong(tensor, "F16, BF16, F32 or F64", tensor.dtype().to_string())
}

fn check_finite(tensor: TensorRef<'_>, before: usize, values: &[f32]) -> Result<(), Error> {
    if all_finite(values) {
        return Ok(());
    }
    let at = values.iter().position(|value| !value.is_finite());
    let at = at.unwrap_or_default();
    Err(Error::NotFinite {
        path: tensor.shard().full_path().to_owned(),
        tensor: tensor.name().to_owned(),
        at: before + at,
        value: values[at],
    })
}

fn all_finite(values: &[f32]) -> bool {
    // Without an early end it is many values at a time.
    values
        .iter()
        .fold(true, |all, value| all & value.is_finite())
}

fn wrong(tensor: &TensorRef<'_>, expected: &str, found: String) -> Error {
    Error::Tensor {
        path: tensor.shard().full_path().to_owned(),
        tensor: tensor.name().to_owned(),
        expected: expected.to_owned(),
        found,
    }
}

/// Little-endian bytes as numbers, or `None` if the type is not a float of 16 bits or more.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F16 => words(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => words(bytes, widened),
        Dtype::F32 => words(bytes, f32::from_le_bytes),
        Dtype::F64 => words(bytes, |b| f64::from_le_bytes(b) as f32),
        _ => return None,
    })
}

/// A bfloat16 is the upper half of an f32.
fn widened(half: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)
}

fn words<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| read(chunk)).collect()
}

/// Some columns of a matrix of floats, one after the other in `values`: those that `columns` counts,
/// of rows of `width` numbers, given the matrix's bytes. `false` if a value is a NaN or an infinity.
///
/// # Errors
/// If the tensor is not of a type with 16 to 64 bits.
///
/// # Panics
/// If `values` are not as many as that is, or there is no such column.
pub(crate) fn read_columns(
    tensor: TensorRef<'_>,
    bytes: &[u8],
    width: usize,
    columns: &[usize],
    values: &mut [f32],
) -> Result<bool, Error> {
    match tensor.dtype() {
        Dtype::F16 => turn(bytes, width, columns, values, |b| {
            f16::from_le_bytes(b).to_f32()
        }),
        Dtype::BF16 => turn(bytes, width, columns, values, widened),
        Dtype::F32 => turn(bytes, width, columns, values, f32::from_le_bytes),
        Dtype::F64 => turn(bytes, width, columns, values, |b| {
            f64::from_le_bytes(b) as f32
        }),
        _ => return Err(not_float(&tensor)),
    }
    Ok(all_finite(values))
}

fn turn<const N: usize>(
    bytes: &[u8],
    width: usize,
    columns: &[usize],
    values: &mut [f32],
    read: impl Fn([u8; N]) -> f32,
) {
    let rows = bytes.as_chunks::<N>().0.chunks_exact(width);
    let count = rows.len();
    assert_eq!(values.len(), count * columns.len());
    for (row, numbers) in rows.enumerate() {
        for (at, &column) in columns.iter().enumerate() {
            values[at * count + row] = read(numbers[column]);
        }
    }
}

/// Numbers as little-endian bytes of a type, rounded to nearest even; the error is the place of
/// the first number that is beyond the type.
pub(crate) fn from_f32(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.bytes().unwrap_or(4) as usize);
    for (at, &value) in values.iter().enumerate() {
        match dtype {
            Dtype::F16 => {
                let half = f16::from_f32(value);
                if half.is_infinite() && value.is_finite() {
                    return Err(at);
                }
                bytes.extend(half.to_le_bytes());
            }
            Dtype::BF16 => {
                let half = bf16::from_f32(value);
                if half.is_infinite() && value.is_finite() {
                    return Err(at);
                }
                bytes.extend(half.to_le_bytes());
            }
            Dtype::F64 => bytes.extend(f64::from(value).to_le_bytes()),
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_types_that_hold_them() {
        let values = [0.0, -0.0, 1.0, -2.5, 6.1035156e-5];
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
            let bytes = from_f32(dtype, &values).unwrap();
            let back = to_f32(dtype, &bytes).unwrap();
            assert!(
                values
                    .iter()
                    .zip(&back)
                    .all(|(a, b)| a.to_bits() == b.to_bits())
            );
        }
        assert_eq!(from_f32(Dtype::F16, &[1.0, 70000.0]), Err(1));
        assert_eq!(to_f32(Dtype::I8, &[1]), None);
    }
}
