//! Adaptive models of single bits, small symbols and unbounded numbers.

use super::range::BitCoder;

/// An adaptive probability that learns fast first and slowly later.
#[derive(Clone, Copy)]
pub(crate) struct Bit {
    /// The probability of a set bit, in units of 2^-22.
    one: u32,
    seen: u8,
}

/// Bits by which the probability is finer than the coder's.
const FINER: u32 = 6;
/// No bit is believed to be more certain than this of 65536.
const LEAST: u32 = 4;

impl Bit {
    pub(crate) const fn new() -> Self {
        Self {
            one: 1 << 21,
            seen: 0,
        }
    }

    #[inline]
    pub(crate) fn code<C: BitCoder>(&mut self, coder: &mut C, bit: bool) -> bool {
        const LIMIT: u8 = 126;
        let bit = coder.bit(bit, (self.one >> FINER).clamp(LEAST, 65_536 - LEAST));
        let target = if bit { (1 << 22) - 1 } else { 0 };
        // The first observations move the estimate as the KT estimator would.
        let delta = (target - self.one as i32) * 2 / (2 * i32::from(self.seen) + 3);
        self.one = (self.one as i32 + delta) as u32;
        if self.seen < LIMIT {
            self.seen += 1;
        }
        bit
    }
}

/// A number, likely small: its bit length by adaptive unary code, the bits
/// under the leading one adaptively while they carry a pattern.
#[derive(Clone)]
pub(crate) struct Number {
    length: [Bit; 65],
    top: Vec<[Bit; 8]>,
}

impl Number {
    pub(crate) fn new() -> Self {
        Self {
            length: [Bit::new(); 65],
            top: vec![[Bit::new(); 8]; 65],
        }
    }

    pub(crate) fn code<C: BitCoder>(&mut self, coder: &mut C, value: u64) -> u64 {
        // `value + 1` has `length + 1` bits; the largest u64 is not used.
        let shifted = value.wrapping_add(1).max(1);
        let wanted = 63 - shifted.leading_zeros();
        let mut length = 0;
        while length < 63 && self.length[length as usize].code(coder, length < wanted) {
            length += 1;
        }
        let mut out = 1u64;
        let mut node = 1usize;
        for index in (0..length).rev() {
            let bit = (shifted >> index) & 1 == 1;
            let got = if length - index <= 3 {
                let got = self.top[length as usize][node].code(coder, bit);
                node = (node << 1 | usize::from(got)) & 7;
                got
            } else {
                coder.bit(bit, 1 << 15)
            };
            out = out << 1 | u64::from(got);
        }
        out - 1
    }
}

/// One of `SIZE` symbols (a power of two), each bit under its own context.
#[derive(Clone)]
pub(crate) struct Symbol<const SIZE: usize> {
    nodes: [Bit; SIZE],
}

impl<const SIZE: usize> Symbol<SIZE> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: [Bit::new(); SIZE],
        }
    }

    #[inline]
    pub(crate) fn code<C: BitCoder>(&mut self, coder: &mut C, value: usize) -> usize {
        let bits = SIZE.trailing_zeros();
        let mut node = 1usize;
        for index in (0..bits).rev() {
            let bit = (value >> index) & 1 == 1;
            node = node << 1 | usize::from(self.nodes[node].code(coder, bit));
        }
        node - SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::{Decoder, Encoder};
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        let values: Vec<u64> = (0..63)
            .flat_map(|shift| [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1])
            .chain([u64::MAX - 1])
            .collect();
        let mut encoder = Encoder::new();
        let mut model = Number::new();
        for &value in &values {
            model.code(&mut encoder, value);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        let mut model = Number::new();
        for &value in &values {
            assert_eq!(model.code(&mut decoder, 0), value);
        }
    }
}
