//! An adaptive binary range coder for side information: scale classes, tables, gaps.
//!
//! The carry-propagating 32-bit coder of LZMA (Pavlov; Martin 1979) with 12-bit probabilities.
//! It is slow per bit and exact for short messages, which is what side information needs.

use crate::CodecError;

const PROB_BITS: u32 = 12;
const TOP: u32 = 1 << 24;

/// The adaptive probability that the next bit in one context is 0.
///
/// Adapts quickly at first and slower with each bit seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bit {
    zero: u16,
    seen: u8,
}

impl Bit {
    pub(crate) const NEW: Self = Self {
        zero: 1 << (PROB_BITS - 1),
        seen: 0,
    };

    fn update(&mut self, bit: bool) {
        let rate = u32::from(self.seen / 2 + 1).min(5);
        if self.seen < 10 {
            self.seen += 1;
        }
        if bit {
            self.zero -= (self.zero - 16) >> rate;
        } else {
            self.zero += ((1 << PROB_BITS) - 16 - self.zero) >> rate;
        }
    }
}

/// Writes bits; the bytes come from [`BinaryEncoder::finish`].
#[derive(Debug)]
pub(crate) struct BinaryEncoder {
    low: u64,
    range: u32,
    cache: u8,
    pending: usize,
    started: bool,
    out: Vec<u8>,
}

impl BinaryEncoder {
    pub(crate) fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            cache: 0,
            pending: 0,
            started: false,
            out: Vec::new(),
        }
    }

    fn shift_low(&mut self) {
        if self.low < 0xff00_0000 || self.low >= 1 << 32 {
            let carry = (self.low >> 32) as u8;
            if self.started {
                self.out.push(self.cache.wrapping_add(carry));
            }
            for _ in 0..self.pending {
                self.out.push(0xffu8.wrapping_add(carry));
            }
            self.pending = 0;
            self.started = true;
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low << 8) & 0xffff_ffff;
    }

    pub(crate) fn bit(&mut self, model: &mut Bit, bit: bool) {
        let bound = (self.range >> PROB_BITS) * u32::from(model.zero);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        model.update(bit);
        while self.range < TOP {
            self.range <<= 8;
            self.shift_low();
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        // Any value in [low, low + range) decodes; take the one with the most trailing zero bytes,
        // which the decoder supplies for free.
        let high = self.low + u64::from(self.range) - 1;
        for keep in [0u32, 8, 16, 24] {
            let mask = (1u64 << (32 - keep)) - 1;
            let candidate = (self.low + mask) & !mask;
            if candidate <= high {
                self.low = candidate;
                break;
            }
        }
        for _ in 0..5 {
            self.shift_low();
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

/// Reads what [`BinaryEncoder`] wrote; past the end it reads zeros.
#[derive(Debug)]
pub(crate) struct BinaryDecoder<'a> {
    bytes: &'a [u8],
    range: u32,
    code: u32,
}

impl<'a> BinaryDecoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            bytes,
            range: u32::MAX,
            code: 0,
        };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.next();
        }
        decoder
    }

    fn next(&mut self) -> u32 {
        match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                u32::from(byte)
            }
            None => 0,
        }
    }

    pub(crate) fn bit(&mut self, model: &mut Bit) -> bool {
        let bound = (self.range >> PROB_BITS) * u32::from(model.zero);
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        model.update(bit);
        while self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
        bit
    }

    /// Checks that no bytes are left over.
    pub(crate) fn finish(self, section: &'static str) -> Result<(), CodecError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing {
                section,
                extra: self.bytes.len(),
            })
        }
    }
}

/// Adaptive model of unsigned numbers: Elias-gamma length in unary, then the bits below the
/// leading one, the top two of them modelled.
#[derive(Debug, Clone)]
pub(crate) struct Number {
    length: [Bit; 33],
    top: [[Bit; 4]; 33],
}

impl Number {
    pub(crate) const NEW: Self = Self {
        length: [Bit::NEW; 33],
        top: [[Bit::NEW; 4]; 33],
    };

    pub(crate) fn encode(&mut self, coder: &mut BinaryEncoder, value: u32) {
        let shifted = u64::from(value) + 1;
        let length = shifted.ilog2();
        for i in 0..=length.min(31) {
            coder.bit(&mut self.length[i as usize], i < length);
        }
        let mut node = 1usize;
        for (depth, i) in (0..length).rev().enumerate() {
            let bit = shifted >> i & 1 == 1;
            if depth < 2 {
                coder.bit(&mut self.top[length as usize][node], bit);
                node = (node * 2 + usize::from(bit)) & 3;
            } else {
                coder.bit(&mut Bit::NEW.clone(), bit);
            }
        }
    }

    pub(crate) fn decode(&mut self, coder: &mut BinaryDecoder<'_>) -> u32 {
        let mut length = 0u32;
        while length < 32 && coder.bit(&mut self.length[length as usize]) {
            length += 1;
        }
        let mut shifted = 1u64;
        let mut node = 1usize;
        for depth in 0..length {
            let bit = if depth < 2 {
                let bit = coder.bit(&mut self.top[length as usize][node]);
                node = (node * 2 + usize::from(bit)) & 3;
                bit
            } else {
                coder.bit(&mut Bit::NEW.clone())
            };
            shifted = shifted << 1 | u64::from(bit);
        }
        u32::try_from(shifted - 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_round_trip(values in proptest::collection::vec(any::<u32>(), 0..300), shift in 0u32..32) {
            let mut model = Number::NEW;
            let mut encoder = BinaryEncoder::new();
            for &value in &values {
                model.encode(&mut encoder, value >> shift);
            }
            let bytes = encoder.finish();
            let mut model = Number::NEW;
            let mut decoder = BinaryDecoder::new(&bytes);
            for &value in &values {
                prop_assert_eq!(model.decode(&mut decoder), value >> shift);
            }
            prop_assert!(decoder.finish("test").is_ok());
        }
    }

    #[test]
    fn a_constant_message_is_nearly_free() {
        let mut model = Number::NEW;
        let mut encoder = BinaryEncoder::new();
        for _ in 0..10_000 {
            model.encode(&mut encoder, 0);
        }
        assert!(encoder.finish().len() < 80);
    }
}
