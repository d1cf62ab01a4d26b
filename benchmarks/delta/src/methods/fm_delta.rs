//! FM-Delta (NeurIPS '24): the difference of the two floats as ordered integers;
//! its sign and the position of its highest bit go through an adaptive range coder
//! per tensor, the bits below raw.

use anyhow::Result;
use zstd::zstd_safe::DCtx;

use super::frames::{FrameReader, FrameWriter, write_bytes};
use super::range_coder::{Decoder, Encoder, Model};
use crate::method::Method;
use crate::pair::{Layout, TensorSpan};

/// FM-Delta for 16- and 32-bit floats; tensors that it cannot code (no base, other
/// types) are zstd frames.
pub struct FmDelta {
    fallback: FrameWriter,
    decoder: DCtx<'static>,
    symbols: Vec<u8>,
    raw: Vec<u8>,
}

impl FmDelta {
    /// The method as published.
    pub fn new() -> Result<Self> {
        Ok(Self {
            fallback: FrameWriter::new(3)?,
            decoder: DCtx::create(),
            symbols: Vec::new(),
            raw: Vec::new(),
        })
    }
}

/// Bytes per weight where FM-Delta applies.
fn float_width(tensor: &TensorSpan) -> Option<usize> {
    tensor.base.as_ref()?;
    match tensor.dtype {
        safetensors::Dtype::F16 | safetensors::Dtype::BF16 => Some(2),
        safetensors::Dtype::F32 => Some(4),
        _ => None,
    }
}

impl Method for FmDelta {
    fn name(&self) -> &'static str {
        "fm-delta"
    }

    fn about(&self) -> &'static str {
        "ordered difference, adaptive range coder on sign x log2, low bits raw"
    }

    fn encode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        fine: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        for tensor in &layout.tensors {
            let fine = &fine[tensor.fine.clone()];
            let base = &base[tensor.base.clone().unwrap_or(0..0)];
            self.symbols.clear();
            self.raw.clear();
            match float_width(tensor) {
                Some(2) => encode_words::<2, 33>(base, fine, &mut self.symbols, &mut self.raw),
                Some(_) => encode_words::<4, 65>(base, fine, &mut self.symbols, &mut self.raw),
                None => {
                    self.fallback.write(fine, out)?;
                    continue;
                }
            }
            write_bytes(&self.symbols, out)?;
            write_bytes(&self.raw, out)?;
        }
        Ok(())
    }

    fn decode(
        &mut self,
        layout: &Layout,
        base: &[u8],
        encoded: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let mut frames = FrameReader::new(encoded);
        for tensor in &layout.tensors {
            let fine = &mut out[tensor.fine.clone()];
            let base = &base[tensor.base.clone().unwrap_or(0..0)];
            let Some(width) = float_width(tensor) else {
                frames.read(&mut self.decoder, fine)?;
                continue;
            };
            let (symbols, raw) = (frames.next_bytes()?, frames.next_bytes()?);
            match width {
                2 => decode_words::<2, 33>(base, symbols, raw, fine),
                _ => decode_words::<4, 65>(base, symbols, raw, fine),
            }
        }
        Ok(())
    }
}

/// Maps the bits of a float of `W` bytes to integers in numeric order, one to one.
#[inline]
fn ordered<const W: usize>(bits: u32) -> u32 {
    let sign = 1 << (8 * W - 1);
    let mask = sign | (sign - 1);
    if bits & sign == 0 {
        bits | sign
    } else {
        !bits & mask
    }
}

/// Undoes [`ordered`].
#[inline]
fn unordered<const W: usize>(order: u32) -> u32 {
    let sign = 1 << (8 * W - 1);
    let mask = sign | (sign - 1);
    if order & sign == 0 {
        !order & mask
    } else {
        order & !sign
    }
}

#[inline]
fn load<const W: usize>(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..W].copy_from_slice(&bytes[..W]);
    u32::from_le_bytes(word)
}

/// Codes one tensor of `W`-byte floats with `N = 16 W + 1` symbols.
fn encode_words<const W: usize, const N: usize>(
    base: &[u8],
    fine: &[u8],
    symbols: &mut Vec<u8>,
    raw: &mut Vec<u8>,
) {
    let mut model = Model::<N>::new(false);
    let mut encoder = Encoder::new(symbols);
    let mut bits = BitWriter {
        out: raw,
        held: 0,
        count: 0,
    };
    for (b, f) in base.chunks_exact(W).zip(fine.chunks_exact(W)) {
        let from = ordered::<W>(load::<W>(b));
        let to = ordered::<W>(load::<W>(f));
        let distance = from.abs_diff(to);
        // 0 for no change, else one more than the position of the highest bit.
        let length = 32 - distance.leading_zeros();
        let symbol = if to < from {
            N as u32 / 2 - length
        } else {
            N as u32 / 2 + length
        };
        encoder.encode(symbol as usize, &mut model);
        if length > 1 {
            bits.write(distance ^ 1 << (length - 1), length - 1);
        }
    }
    encoder.finish();
    bits.finish();
}

/// Undoes [`encode_words`].
fn decode_words<const W: usize, const N: usize>(
    base: &[u8],
    symbols: &[u8],
    raw: &[u8],
    fine: &mut [u8],
) {
    let mut model = Model::<N>::new(true);
    let mut decoder = Decoder::new(symbols);
    let mut bits = BitReader {
        rest: raw,
        held: 0,
        count: 0,
    };
    for (b, f) in base.chunks_exact(W).zip(fine.chunks_exact_mut(W)) {
        let from = ordered::<W>(load::<W>(b));
        let symbol = decoder.decode(&mut model);
        let length = symbol.abs_diff(N / 2) as u32;
        let distance = match length {
            0 => 0,
            _ => 1 << (length - 1) | bits.read(length - 1),
        };
        let to = if symbol < N / 2 {
            from.wrapping_sub(distance)
        } else {
            from.wrapping_add(distance)
        };
        f.copy_from_slice(&unordered::<W>(to).to_le_bytes()[..W]);
    }
}

/// Low bits first, 32 at a time.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl BitWriter<'_> {
    #[inline]
    fn write(&mut self, value: u32, count: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out
                .extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn finish(self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.out
            .extend_from_slice(&self.held.to_le_bytes()[..bytes]);
    }
}

/// Reads what [`BitWriter`] wrote; past the end come zeros.
struct BitReader<'a> {
    rest: &'a [u8],
    held: u64,
    count: u32,
}

impl BitReader<'_> {
    #[inline]
    fn read(&mut self, count: u32) -> u32 {
        if self.count < count {
            self.refill();
        }
        let value = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.count -= count;
        value as u32
    }

    fn refill(&mut self) {
        let (word, rest) = match self.rest.split_first_chunk::<4>() {
            Some((word, rest)) => (*word, rest),
            None => {
                let mut word = [0; 4];
                word[..self.rest.len()].copy_from_slice(self.rest);
                (word, &[][..])
            }
        };
        self.rest = rest;
        self.held |= u64::from(u32::from_le_bytes(word)) << self.count;
        self.count += 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_bits_is_order_of_values() {
        let values = [
            f32::NEG_INFINITY,
            -2.0,
            -1e-40,
            -0.0,
            0.0,
            1e-40,
            1.5,
            f32::INFINITY,
        ];
        let orders = values.map(|v| ordered::<4>(v.to_bits()));
        assert!(orders.is_sorted_by(|a, b| a < b));
        for bits in 0..=0xffff {
            assert_eq!(unordered::<2>(ordered::<2>(bits)), bits);
        }
    }

    #[test]
    fn extreme_steps_survive() {
        let words = [0u16, 0xffff, 0x7fff, 0x8000, 0x3f80, 0xbf80];
        let (mut base, mut fine) = (Vec::new(), Vec::new());
        for a in words {
            for b in words {
                base.extend_from_slice(&a.to_le_bytes());
                fine.extend_from_slice(&b.to_le_bytes());
            }
        }
        let (mut symbols, mut raw, mut rebuilt) = (Vec::new(), Vec::new(), vec![0; fine.len()]);
        encode_words::<2, 33>(&base, &fine, &mut symbols, &mut raw);
        decode_words::<2, 33>(&base, &symbols, &raw, &mut rebuilt);
        assert_eq!(rebuilt, fine);
    }
}
