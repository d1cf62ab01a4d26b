//! A carry-propagating binary range coder with 16-bit probabilities and exact
//! uniform coding, so that a permutation costs its entropy and no more.

/// Probabilities are this many bits wide.
pub(crate) const PROBABILITY_BITS: u32 = 16;

/// At most so many trailing zero bytes are left out of a stream.
const DROPPED_ZEROS: usize = 64;

const TOP: u64 = 1 << 56;
const BOTTOM: u64 = 1 << 48;

/// One direction of the range coder: an encoder or a decoder.
pub(crate) trait BitCoder {
    /// Codes one bit whose probability of being set is `one / 65536`, with
    /// `0 < one < 65536`. A decoder ignores `bit`.
    fn bit(&mut self, bit: bool, one: u32) -> bool;

    /// Codes `value < total` at equal probability. A decoder ignores `value`.
    fn uniform(&mut self, value: u32, total: u32) -> u32;

    /// Whether a decoder has read further past its input than any valid
    /// stream makes it; an encoder never has.
    fn overrun(&self) -> bool {
        false
    }
}

/// Codes nothing: a model learns from what it is shown.
pub(crate) struct Silent;

impl BitCoder for Silent {
    #[inline]
    fn bit(&mut self, bit: bool, _: u32) -> bool {
        bit
    }

    fn uniform(&mut self, value: u32, _: u32) -> u32 {
        value
    }
}

/// Writes a range-coded stream.
pub(crate) struct Encoder {
    low: u64,
    range: u64,
    out: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            low: 0,
            range: TOP,
            out: Vec::new(),
        }
    }

    fn normalise(&mut self) {
        self.carry();
        while self.range < BOTTOM {
            self.out.push((self.low >> 48) as u8);
            self.low = (self.low & (BOTTOM - 1)) << 8;
            self.range <<= 8;
        }
    }

    fn carry(&mut self) {
        if self.low >= TOP {
            self.low -= TOP;
            for byte in self.out.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }

    /// Ends the stream with the fewest bytes that still decode: the decoder
    /// reads zeros past the end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let high = self.low + (self.range - 1);
        for keep in 0..=7u32 {
            let mask = if keep == 0 {
                TOP * 2 - 1
            } else {
                (1u64 << (56 - 8 * keep)) - 1
            };
            let value = self.low.saturating_add(mask) & !mask;
            if value >= self.low && value <= high {
                self.low = value;
                break;
            }
        }
        self.carry();
        for shift in (0..7).rev() {
            self.out.push((self.low >> (8 * shift)) as u8);
        }
        // Bounded, so that `Decoder::overrun` can tell a cut stream.
        for _ in 0..DROPPED_ZEROS {
            if self.out.last() != Some(&0) {
                break;
            }
            self.out.pop();
        }
        self.out
    }
}

impl BitCoder for Encoder {
    #[inline]
    fn bit(&mut self, bit: bool, one: u32) -> bool {
        let split = (self.range >> PROBABILITY_BITS) * u64::from(one);
        if bit {
            self.range = split;
        } else {
            self.low += split;
            self.range -= split;
        }
        if self.range < BOTTOM || self.low >= TOP {
            self.normalise();
        }
        bit
    }

    fn uniform(&mut self, value: u32, total: u32) -> u32 {
        let step = self.range / u64::from(total.max(1));
        self.low += step * u64::from(value);
        self.range = step;
        self.normalise();
        value
    }
}

/// Reads a range-coded stream.
pub(crate) struct Decoder<'a> {
    code: u64,
    range: u64,
    input: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self {
            code: 0,
            range: TOP,
            input,
            at: 0,
        };
        for _ in 0..7 {
            decoder.code = (decoder.code << 8) | decoder.next();
        }
        decoder
    }

    fn next(&mut self) -> u64 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u64::from(byte)
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < BOTTOM {
            self.code = ((self.code << 8) | self.next()) & (TOP - 1);
            self.range <<= 8;
        }
    }
}

impl BitCoder for Decoder<'_> {
    #[inline]
    fn bit(&mut self, _: bool, one: u32) -> bool {
        let split = (self.range >> PROBABILITY_BITS) * u64::from(one);
        let bit = self.code < split;
        if bit {
            self.range = split;
        } else {
            self.code -= split;
            self.range -= split;
        }
        self.normalise();
        bit
    }

    fn uniform(&mut self, _: u32, total: u32) -> u32 {
        let total = total.max(1);
        let step = self.range / u64::from(total);
        let value = (self.code / step).min(u64::from(total - 1));
        self.code -= step * value;
        self.range = step;
        self.normalise();
        value as u32
    }

    fn overrun(&self) -> bool {
        self.at > self.input.len() + DROPPED_ZEROS + 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_uniform_values_come_back() {
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) as u32
        };
        let plan: Vec<(u32, u32, u32)> = (0..20_000)
            .map(|_| (random(), random() % 65_535 + 1, random() % 1_000_000 + 1))
            .collect();
        let mut encoder = Encoder::new();
        for &(value, one, total) in &plan {
            encoder.bit(value & 0xffff < one, one);
            encoder.uniform(value % total, total);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        for &(value, one, total) in &plan {
            assert_eq!(decoder.bit(false, one), value & 0xffff < one);
            assert_eq!(decoder.uniform(0, total), value % total);
        }
        assert!(!decoder.overrun());
    }

    #[test]
    fn a_predictable_stream_costs_almost_nothing() {
        let mut encoder = Encoder::new();
        for _ in 0..1_000 {
            encoder.bit(true, 65_500);
        }
        assert!(encoder.finish().len() <= 2);
    }
}
