//! Numbers in unary: as many zeros, least significant bits first, and a one.
//!
//! Where a number ends is seen without knowing the one before it, so that 64 bits are read at once.

use crate::CodecError;
use crate::context::BLOCK;
use crate::simd::Level;

/// Bytes that a step of reading may write beyond the numbers it finds.
const SLACK: usize = 64;

/// The places of the ones in each byte, side by side; no sum with a multiple of eight is above 255.
static BYTE_ENDS: [u64; 256] = {
    let mut ends = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut at, mut place) = (0, 0);
        while place < 8 {
            if byte >> place & 1 == 1 {
                ends[byte] |= place << (8 * at);
                at += 1;
            }
            place += 1;
        }
        byte += 1;
    }
    ends
};

/// Reads numbers, of which those below 64 are sure to be read.
#[derive(Debug)]
pub(crate) struct UnaryReader<'a> {
    bytes: &'a [u8],
    level: Level,
    /// Bytes read.
    at: usize,
    /// Where the last number given out ended, then the ends of those after it; bits, modulo 256.
    ends: [u8; 1 + BLOCK + 2 * SLACK],
    /// How many numbers there are in `ends`.
    held: usize,
}

impl<'a> UnaryReader<'a> {
    /// `level` must be one that the CPU has.
    pub(crate) fn new(bytes: &'a [u8], level: Level) -> Self {
        assert!(level <= crate::simd::level());
        let mut ends = [0; 1 + BLOCK + 2 * SLACK];
        ends[0] = u8::MAX;
        Self {
            bytes,
            level,
            at: 0,
            ends,
            held: 0,
        }
    }

    /// Where each of the next `count` numbers ends, after where the one before them did: numbers
    /// are one less than the differences, modulo 256. At most [`BLOCK`].
    ///
    /// # Errors
    /// [`CodecError`] where fewer are left, or 64 zeros are met.
    pub(crate) fn ends(&mut self, count: usize) -> Result<&[u8], CodecError> {
        assert!(count <= BLOCK);
        #[cfg(target_arch = "x86_64")]
        if self.level == Level::Avx512 {
            // SAFETY: the CPU has the level.
            unsafe { self.read_avx512(count) };
        }
        while self.held < count {
            let rest = &self.bytes[self.at..];
            let mut word = [0; 8];
            let len = rest.len().min(8);
            word[..len].copy_from_slice(&rest[..len]);
            let mut word = u64::from_le_bytes(word);
            if word == 0 {
                return Err(CodecError::Truncated { section: "classes" });
            }
            let mut first = self.at as u64 * 8;
            while word != 0 {
                // As many of eight as the byte has ones.
                let byte = word as u8;
                let ends = BYTE_ENDS[usize::from(byte)] + (first & 0xff) * 0x0101_0101_0101_0101;
                self.ends[1 + self.held..][..8].copy_from_slice(&ends.to_le_bytes());
                self.held += byte.count_ones() as usize;
                word >>= 8;
                first += 8;
            }
            self.at += len;
        }
        Ok(&self.ends[..=count])
    }

    /// Reads whole words of 64 bits until there are `count` numbers, while there are such words and
    /// none is without a number.
    ///
    /// # Safety
    /// The CPU must have what [`Level::Avx512`] stands for.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt,avx512f,avx512bw,avx512vbmi,avx512vbmi2")]
    unsafe fn read_avx512(&mut self, count: usize) {
        use std::arch::x86_64::{
            __m512i, _mm512_add_epi8, _mm512_loadu_si512, _mm512_maskz_compress_epi8,
            _mm512_set1_epi8, _mm512_storeu_si512,
        };
        static PLACES: [u8; 64] = {
            let mut places = [0; 64];
            let mut i = 0;
            while i < 64 {
                places[i] = i as u8;
                i += 1;
            }
            places
        };
        // SAFETY: 64 bytes are as long as a register.
        let mut places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast::<__m512i>()) };
        places = _mm512_add_epi8(
            places,
            _mm512_set1_epi8((self.at as u8).wrapping_mul(8) as i8),
        );
        for word in self.bytes[self.at..].as_chunks::<8>().0 {
            let word = u64::from_le_bytes(*word);
            if self.held >= count || word == 0 {
                return;
            }
            let ends = _mm512_maskz_compress_epi8(word, places);
            // SAFETY: fewer than `BLOCK` numbers are held, and the array is longer than that by
            // one and two registers.
            unsafe {
                let next = self.ends.as_mut_ptr().add(1 + self.held);
                _mm512_storeu_si512(next.cast::<__m512i>(), ends);
            }
            self.held += word.count_ones() as usize;
            self.at += 8;
            places = _mm512_add_epi8(places, _mm512_set1_epi8(64));
        }
    }

    /// Gives up the first `count` numbers of those that [`UnaryReader::ends`] has found.
    pub(crate) fn pass(&mut self, count: usize) {
        self.ends.copy_within(count..=self.held, 0);
        self.held -= count;
    }

    /// Checks that exactly the bytes given were needed.
    pub(crate) fn finish(self) -> Result<(), CodecError> {
        let padded = self.bytes.last() == Some(&0);
        match self.held + self.bytes.len() - self.at + usize::from(padded) {
            0 => Ok(()),
            extra => Err(CodecError::Trailing {
                section: "classes",
                extra,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::BitWriter;
    use proptest::prelude::*;

    fn written(numbers: &[u8]) -> Vec<u8> {
        let mut writer = BitWriter::default();
        for &n in numbers {
            writer.put(1 << n, u32::from(n) + 1);
        }
        writer.finish()
    }

    fn read(bytes: &[u8], parts: &[usize], level: Level) -> Result<Vec<u8>, CodecError> {
        let mut reader = UnaryReader::new(bytes, level);
        let mut numbers = Vec::new();
        for &count in parts {
            let ends = reader.ends(count)?;
            numbers.extend(
                ends.windows(2)
                    .map(|p| p[1].wrapping_sub(p[0]).wrapping_sub(1)),
            );
            reader.pass(count);
        }
        reader.finish()?;
        Ok(numbers)
    }

    fn levels() -> impl Iterator<Item = Level> {
        let all = [Level::Plain, Level::Avx2, Level::Avx512];
        all.into_iter().filter(|&l| l <= crate::simd::level())
    }

    proptest! {
        #[test]
        fn numbers_come_back_at_every_level(
            numbers in proptest::collection::vec(0u8..8, 0..3 * BLOCK),
            parts in proptest::collection::vec(0..=BLOCK, 0..5),
        ) {
            let mut left = numbers.len();
            let mut counts: Vec<usize> = Vec::new();
            for part in parts.into_iter().chain([BLOCK; 3]) {
                counts.push(part.min(left));
                left -= part.min(left);
            }
            for level in levels() {
                prop_assert_eq!(read(&written(&numbers), &counts, level), Ok(numbers.clone()));
            }
        }

        #[test]
        fn any_bytes_give_the_same_at_every_level(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), count in 0usize..3000,
        ) {
            let plain = read(&bytes, &[count], Level::Plain);
            for level in levels() {
                prop_assert_eq!(read(&bytes, &[count], level), plain.clone());
            }
        }
    }

    #[test]
    fn what_is_missing_or_left_is_noticed() {
        let bytes = written(&[3, 0, 7]);
        assert!(read(&bytes, &[4], Level::Plain).is_err());
        assert!(read(&bytes, &[2], Level::Plain).is_err());
        assert!(read(&[bytes, vec![0]].concat(), &[3], Level::Plain).is_err());
        assert!(read(&[0; 64], &[1], Level::Plain).is_err());
    }
}
