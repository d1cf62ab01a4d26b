//! A byte-wise carry-propagating range coder and its quasi-static model.
//!
//! The model is that of fpzip, which FM-Delta builds on: frequencies sum to 2^16,
//! stay fixed for a period and are then rebuilt with all counts halved; the period
//! starts short and doubles up to 1,024 symbols. The coder keeps a range of 64 bits
//! and moves 32 at a time.

/// Frequencies sum to this power of two.
const TOTAL_BITS: u32 = 16;
/// Symbols between two rebuilds, once the model is warm.
const PERIOD: u32 = 1024;
/// The decoder's search table has one entry per this many cumulative counts.
const SEARCH_BITS: u32 = 10;

/// Adaptive frequencies of `N` symbols.
pub struct Model<const N: usize> {
    /// `starts[s]..starts[s + 1]` is the interval of symbol `s`.
    starts: Vec<u32>,
    counts: [u32; N],
    /// First symbol whose interval reaches into each slot. Empty in an encoder.
    search: Vec<u8>,
    period: u32,
    left: u32,
    more: u32,
    step: u32,
}

impl<const N: usize> Model<N> {
    /// A uniform model. `decodes` prepares the search table.
    pub fn new(decodes: bool) -> Self {
        let mut model = Self {
            starts: vec![0; N + 1],
            counts: [0; N],
            search: vec![0; if decodes { (1 << SEARCH_BITS) + 1 } else { 0 }],
            period: 0,
            left: 0,
            more: 0,
            step: 0,
        };
        model.reset();
        model
    }

    /// Back to uniform, for the next tensor.
    pub fn reset(&mut self) {
        let total = 1u32 << TOTAL_BITS;
        let symbols = N as u32;
        for (at, count) in self.counts.iter_mut().enumerate() {
            *count = total / symbols + u32::from((at as u32) < total % symbols);
        }
        self.period = (symbols >> 4) | 2;
        self.more = 0;
        self.rebuild();
    }

    /// Makes the counts gathered so far the model, and halves them.
    fn rebuild(&mut self) {
        if self.more > 0 {
            // The remainder of a period's increments: one more each.
            self.left = self.more;
            self.more = 0;
            self.step += 1;
            return;
        }
        self.period = (self.period * 2).min(PERIOD);
        let mut start = 0;
        let mut kept = 0;
        for (count, out) in self.counts.iter_mut().zip(&mut self.starts) {
            *out = start;
            start += *count;
            *count = *count >> 1 | 1;
            kept += *count;
        }
        self.starts[N] = start;
        debug_assert_eq!(start, 1 << TOTAL_BITS);
        let missing = (1u32 << TOTAL_BITS).saturating_sub(kept);
        self.step = missing / self.period;
        self.more = missing % self.period;
        self.left = self.period - self.more;
        self.fill_search();
    }

    fn fill_search(&mut self) {
        if self.search.is_empty() {
            return;
        }
        const SHIFT: u32 = TOTAL_BITS - SEARCH_BITS;
        let mut from = 0;
        for symbol in 0..N {
            // Slots that begin inside the interval of `symbol`.
            let to = self.starts[symbol + 1].div_ceil(1 << SHIFT) as usize;
            if to > from {
                self.search[from..to].fill(symbol as u8);
                from = to;
            }
        }
    }

    fn count(&mut self, symbol: usize) {
        if self.left == 0 {
            self.rebuild();
        }
        self.left -= 1;
        self.counts[symbol] += self.step;
    }

    fn find(&self, target: u32) -> usize {
        let slot = (target >> (TOTAL_BITS - SEARCH_BITS)) as usize;
        let mut symbol = usize::from(self.search[slot]);
        while self.starts[symbol + 1] <= target {
            symbol += 1;
        }
        symbol
    }
}

/// Writes symbols to a byte buffer.
pub struct Encoder<'a> {
    low: u64,
    range: u64,
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Encoder<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self {
            low: 0,
            range: u64::MAX,
            out,
            start,
        }
    }

    /// Codes `symbol` and lets the model learn it.
    #[inline]
    pub fn encode<const N: usize>(&mut self, symbol: usize, model: &mut Model<N>) {
        let (from, to) = (model.starts[symbol], model.starts[symbol + 1]);
        let unit = self.range >> TOTAL_BITS;
        let (low, carry) = self.low.overflowing_add(unit * u64::from(from));
        self.low = low;
        self.range = unit * u64::from(to - from);
        if carry {
            self.carry();
        }
        if self.range < 1 << 32 {
            self.out
                .extend_from_slice(&((self.low >> 32) as u32).to_be_bytes());
            self.low <<= 32;
            self.range <<= 32;
        }
        model.count(symbol);
    }

    #[cold]
    fn carry(&mut self) {
        for byte in self.out[self.start..].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }

    /// Flushes what the decoder needs to finish.
    pub fn finish(self) {
        self.out.extend_from_slice(&self.low.to_be_bytes());
    }
}

/// Reads what [`Encoder`] wrote.
pub struct Decoder<'a> {
    /// Distance of the code from the low end of the range.
    code: u64,
    range: u64,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte; missing bytes read as zero.
    pub fn new(input: &'a [u8]) -> Self {
        let mut decoder = Self {
            code: 0,
            range: u64::MAX,
            rest: input,
        };
        decoder.code = u64::from(decoder.next_word()) << 32;
        decoder.code |= u64::from(decoder.next_word());
        decoder
    }

    #[inline]
    fn next_word(&mut self) -> u32 {
        match self.rest.split_first_chunk::<4>() {
            Some((word, rest)) => {
                self.rest = rest;
                u32::from_be_bytes(*word)
            }
            None => 0,
        }
    }

    /// The next symbol; the model learns it.
    #[inline]
    pub fn decode<const N: usize>(&mut self, model: &mut Model<N>) -> usize {
        let unit = self.range >> TOTAL_BITS;
        let target = (self.code / unit).min((1 << TOTAL_BITS) - 1) as u32;
        let symbol = model.find(target);
        let (from, to) = (model.starts[symbol], model.starts[symbol + 1]);
        self.code -= unit * u64::from(from);
        self.range = unit * u64::from(to - from);
        if self.range < 1 << 32 {
            self.code = self.code << 32 | u64::from(self.next_word());
            self.range <<= 32;
        }
        model.count(symbol);
        symbol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skewed_symbols_cost_little_more_than_their_entropy() {
        const COUNT: usize = 100_000;
        let symbols: Vec<usize> = (0..COUNT as u32)
            .map(|i| (i.wrapping_mul(2654435761).leading_zeros() as usize).min(30))
            .collect();
        let mut bytes = vec![9];
        let mut model = Model::<33>::new(false);
        let mut encoder = Encoder::new(&mut bytes);
        for &symbol in &symbols {
            encoder.encode(symbol, &mut model);
        }
        encoder.finish();
        // Symbol k comes with probability 2^-(k+1): two bits each.
        let bits = 8.0 * (bytes.len() - 1) as f64 / COUNT as f64;
        assert!((1.99..2.05).contains(&bits), "{bits} bits per symbol");

        let mut model = Model::<33>::new(true);
        let mut decoder = Decoder::new(&bytes[1..]);
        assert!(
            symbols
                .iter()
                .all(|&symbol| decoder.decode(&mut model) == symbol)
        );
    }
}
