//! Raw bits, least significant first: the low bits of a step that no model can shorten.

use crate::CodecError;

/// Appends bits to a byte vector.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    out: Vec<u8>,
    /// Whole bytes written.
    len: usize,
    held: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `count` bits of `value`; `count` is at most 56 and `value` has no others.
    ///
    /// No branch depends on the count: eight bytes are written and as many kept as are whole.
    #[inline(always)]
    pub(crate) fn put(&mut self, value: u64, count: u32) {
        self.put_all(std::iter::once((value, count)), 8);
    }

    /// Appends bits as [`BitWriter::put`] does, together at most `most` bytes of them.
    #[inline(always)]
    pub(crate) fn put_all(&mut self, parts: impl Iterator<Item = (u64, u32)>, most: usize) {
        if self.out.len() < self.len + most + 8 {
            self.grow(most);
        }
        // Kept out of `self`, which what is written might be part of for all the compiler knows.
        let mut end = (self.len, self.held, self.count);
        let out = self.out.as_mut_slice();
        for (value, count) in parts {
            end = appended(out, end, value, count);
        }
        (self.len, self.held, self.count) = end;
    }

    /// Appends the low bits of each value, as many as the count beside it says, as
    /// [`BitWriter::put`] does.
    #[inline(always)]
    pub(crate) fn put_each<const N: usize>(&mut self, values: &[u64; N], counts: &[u64; N]) {
        if self.out.len() < self.len + 8 * N + 8 {
            self.grow(8 * N);
        }
        let mut end = (self.len, self.held, self.count);
        let out = self.out.as_mut_slice();
        let mut i = 0;
        // No iterator: their closures are not compiled for the level of the function they are in.
        while i < N {
            end = appended(out, end, values[i], counts[i] as u32);
            i += 1;
        }
        (self.len, self.held, self.count) = end;
    }

    #[cold]
    fn grow(&mut self, most: usize) {
        self.out.resize(2 * self.len + most + 4096, 0);
    }

    /// What was written; what is written next starts anew in the same memory.
    pub(crate) fn flush(&mut self) -> &[u8] {
        let end = self.len + self.count.div_ceil(8) as usize;
        if self.count > 0 {
            self.out[self.len] = self.held as u8;
        }
        (self.len, self.held, self.count) = (0, 0, 0);
        &self.out[..end]
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let len = self.flush().len();
        self.out.truncate(len);
        self.out
    }
}

/// The whole bytes written, the bits held behind them and how many these are, once the low `count`
/// bits of `value` have been appended.
#[inline(always)]
fn appended(
    out: &mut [u8],
    (len, held, held_bits): (usize, u64, u32),
    value: u64,
    count: u32,
) -> (usize, u64, u32) {
    let (held, held_bits) = (held | value << held_bits, held_bits + count);
    out[len..len + 8].copy_from_slice(&held.to_le_bytes());
    let whole = held_bits / 8;
    (len + whole as usize, held >> (8 * whole), held_bits % 8)
}

/// Bytes that [`BitReader::window`] gives at least.
pub(crate) const WINDOW: usize = 96;

/// Reads bits from a byte slice.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The last bytes, up to [`WINDOW`], and zeros.
    end: [u8; 2 * WINDOW],
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut end = [0; 2 * WINDOW];
        let last = &bytes[bytes.len().saturating_sub(WINDOW)..];
        end[..last.len()].copy_from_slice(last);
        Self {
            bytes,
            position: 0,
            end,
        }
    }

    /// The next `count` bits, at most 32. Past the end they are zeros, which
    /// [`BitReader::finish`] reports.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        let at = self.position / 8;
        let window = match self
            .bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
        {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => self.tail(at),
        };
        let value = (window >> (self.position % 8)) & ((1u64 << count) - 1);
        self.position += count as usize;
        value as u32
    }

    /// The bytes from the next bit on, zeros past the end, and how many bits of the first are used
    /// up.
    #[inline(always)]
    pub(crate) fn window(&self) -> (&[u8; WINDOW], usize) {
        let at = self.position / 8;
        let rest = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        (
            rest.unwrap_or_else(|| self.end_window(at)),
            self.position % 8,
        )
    }

    #[cold]
    fn end_window(&self, at: usize) -> &[u8; WINDOW] {
        let skipped = at - self.bytes.len().saturating_sub(WINDOW).min(at);
        let rest = self
            .end
            .get(skipped.min(WINDOW)..)
            .and_then(<[u8]>::first_chunk);
        rest.unwrap_or(&[0; WINDOW])
    }

    /// Passes over `count` bits.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: usize) {
        self.position += count;
    }

    #[cold]
    fn tail(&self, at: usize) -> u64 {
        let mut padded = [0u8; 8];
        if let Some(rest) = self.bytes.get(at..) {
            padded[..rest.len()].copy_from_slice(rest);
        }
        u64::from_le_bytes(padded)
    }

    /// Checks that exactly the bytes given were needed.
    pub(crate) fn finish(self, section: &'static str) -> Result<(), CodecError> {
        let needed = self.position.div_ceil(8);
        match needed.cmp(&self.bytes.len()) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(CodecError::Truncated { section }),
            std::cmp::Ordering::Less => Err(CodecError::Trailing {
                section,
                extra: self.bytes.len() - needed,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_round_trip(values in proptest::collection::vec((any::<u32>(), 0u32..=32), 0..200)) {
            let mut writer = BitWriter::default();
            for &(value, count) in &values {
                writer.put(u64::from(value) & ((1 << count) - 1), count);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for &(value, count) in &values {
                prop_assert_eq!(u64::from(reader.take(count)), u64::from(value) & ((1 << count) - 1));
            }
            prop_assert!(reader.finish("test").is_ok());
        }
    }

    #[test]
    fn windows_are_the_bytes_and_zeros() {
        let bytes: Vec<u8> = (1..=250).collect();
        for len in [0, 1, 50, 95, 96, 97, 250] {
            let mut reader = BitReader::new(&bytes[..len]);
            for at in 0..400 {
                let (window, bit) = reader.window();
                assert_eq!(bit, 0);
                for (i, &byte) in window.iter().enumerate() {
                    assert_eq!(byte, bytes[..len].get(at + i).copied().unwrap_or(0));
                }
                reader.skip(8);
            }
        }
    }

    #[test]
    fn missing_bits_are_noticed() {
        let mut reader = BitReader::new(&[0xff]);
        assert_eq!(reader.take(12), 0xff);
        assert!(reader.finish("test").is_err());
    }
}
