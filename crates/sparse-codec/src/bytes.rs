//! Little-endian fields and LEB128 numbers in byte slices, every read checked.

use crate::CodecError;

/// Appends `value` as unsigned LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps small magnitudes of either sign to small unsigned numbers.
#[inline]
pub(crate) fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// A cursor over bytes that names the section it reads in its errors.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    section: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8], section: &'static str) -> Self {
        Self { bytes, section }
    }

    fn truncated(&self) -> CodecError {
        CodecError::Truncated {
            section: self.section,
        }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        let (&first, rest) = self.bytes.split_first().ok_or_else(|| self.truncated())?;
        self.bytes = rest;
        Ok(first)
    }

    /// The next unsigned LEB128 number.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] at the end, [`CodecError::Invalid`] past 64 bits.
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid {
            field: self.section,
            found: value,
            expected: "a number of at most 64 bits",
        })
    }

    /// The next number, which must fit and be at most `max`.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`CodecError::Invalid`] above `max`.
    pub fn length(&mut self, field: &'static str, max: usize) -> Result<usize, CodecError> {
        let found = self.varint()?;
        match usize::try_from(found) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(CodecError::Invalid {
                field,
                found,
                expected: "no more than the data that is there",
            }),
        }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] where fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        if len > self.bytes.len() {
            return Err(self.truncated());
        }
        let (head, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        Ok(head)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Checks that everything has been read.
    ///
    /// # Errors
    /// [`CodecError::Trailing`] otherwise.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing {
                section: self.section,
                extra: self.bytes.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_refuse_overlong_ones() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out, "test");
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert!(Reader::new(&[0xff; 11], "test").varint().is_err());
        assert!(Reader::new(&[0x80], "test").varint().is_err());
    }

    #[test]
    fn zigzag_is_its_own_inverse() {
        for value in [0, -1, 1, i32::MIN, i32::MAX, 12345] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
