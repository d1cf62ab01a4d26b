//! FULL chunks: magnitudes on a quarter-octave grid given the segment's mean, the rest raw.

use super::pack::GROUP;
use super::symbols::put_wide;
use super::{TAG_FULL, rows};
use crate::bits::{BitReader, BitWriter};
use crate::bytes::put_varint;
use crate::context::{BLOCK, DIRECT, ESCAPE, UNCHANGED};
use crate::rans::{self, DecodeTables, Decoder, EncodeTables, Lanes};
use crate::simd::vectorised;
use crate::tables::{TableSet, frequencies};
use crate::{CodecError, Layout, Reader, Word};

/// Symbol of positive zero, which has no raw bits.
const ZERO: u8 = 255;
/// Mantissa bits that are modelled with the exponent.
const MODELLED: u32 = 2;
const REACH: i32 = 1 << 12;

/// What stands for positive zero among magnitudes.
const NOTHING: u16 = 1 << 15;

/// Raw bits below the modelled ones, without the sign.
fn raw_bits(layout: Layout) -> u32 {
    layout.mantissa().saturating_sub(MODELLED)
}

pub(super) fn encode<W: Word>(layout: Layout, segment: usize, fine: &[W], out: &mut Vec<u8>) {
    let layout = layout
        .with_shift(common_zeros(layout, fine))
        .unwrap_or(layout);
    let mut magnitudes = vec![0; fine.len()];
    measure(layout, fine, &mut magnitudes);
    // One scale for all where the rows do not differ enough to pay for theirs.
    let one = Scaled::new(fine.len().max(1), &magnitudes);
    let scaled = if segment < fine.len() {
        let each = Scaled::new(segment, &magnitudes);
        if each.cost < one.cost { each } else { one }
    } else {
        one
    };

    let frequencies = frequencies(&scaled.counts, false);
    let mut low = BitWriter::default();
    let mut escapes = Vec::new();
    for (words, symbols) in fine.chunks(GROUP).zip(scaled.symbols.chunks(GROUP)) {
        let (mut rests, mut counts) = ([0; GROUP], [0; GROUP]);
        split(layout, words, symbols, &mut rests, &mut counts);
        put_wide(&rests, &counts, &mut low);
        for (word, _) in words.iter().zip(symbols).filter(|&(_, &s)| s == ESCAPE) {
            put_varint(&mut escapes, u64::from(word.widen() >> layout.shift()));
        }
    }
    let mut stream = Vec::new();
    let lanes = Lanes::for_size(fine.len() / 3);
    rans::encode(
        &EncodeTables::new(&[frequencies]),
        &vec![0; fine.len()],
        &scaled.symbols,
        lanes,
        &mut Vec::new(),
        &mut stream,
    );
    let low = low.finish();
    let mut table_bytes = Vec::new();
    TableSet::from_frequencies(vec![0], vec![frequencies]).write(&mut table_bytes);
    out.extend_from_slice(&[TAG_FULL, layout.shift() as u8, lanes.count() as u8]);
    put_varint(out, scaled.segment as u64);
    let parts = [&table_bytes, &scaled.rows, &stream, &low, &escapes];
    for part in parts {
        put_varint(out, part.len() as u64);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Low bits that are zero in every word, as many as a layout can leave out.
fn common_zeros<W: Word>(layout: Layout, fine: &[W]) -> u32 {
    let any = fine.iter().fold(0, |any, w| any | w.widen());
    (0..=any.trailing_zeros().min(layout.mantissa()))
        .rev()
        .find(|&shift| layout.with_shift(shift).is_some())
        .unwrap_or(0)
}

vectorised! {
    /// The magnitudes in steps of the modelled grid.
    fn measure<W: Word>(layout: Layout, fine: &[W], out: &mut [u16]) {
        let (mask, below) = (layout.magnitude_mask(), raw_bits(layout));
        for (out, word) in out.iter_mut().zip(fine) {
            let word = word.widen();
            let magnitude = ((word >> layout.shift()) & mask) >> below;
            *out = if word == 0 { NOTHING } else { magnitude as u16 };
        }
    }
}

vectorised! {
    /// The sum of magnitudes, and how many are not zero.
    fn sum(magnitudes: &[u16]) -> (u32, u32) {
        magnitudes.iter().fold((0, 0), |(sum, count), &m| {
            let magnitude = u32::from(m & (NOTHING - 1));
            (sum + magnitude, count + u32::from(magnitude > 0))
        })
    }
}

fn mean(magnitudes: &[u16]) -> i32 {
    let sums = magnitudes.chunks(BLOCK).map(sum);
    let (sum, count) = sums.fold((0i64, 0i64), |all, here| {
        (all.0 + i64::from(here.0), all.1 + i64::from(here.1))
    });
    ((sum + count / 2) / count.max(1)).clamp(0, i64::from(REACH)) as i32
}

vectorised! {
    /// Symbols of magnitudes that share a scale.
    fn symbols_of(magnitudes: &[u16], row: i32, symbols: &mut [u8]) {
        for (symbol, &magnitude) in symbols.iter_mut().zip(magnitudes) {
            let offset = (magnitude as i16).wrapping_sub(row as i16);
            let near = (-DIRECT as i16..=DIRECT as i16).contains(&offset);
            let found = if near { (offset + i16::from(UNCHANGED)) as u8 } else { ESCAPE };
            *symbol = if magnitude == NOTHING { ZERO } else { found };
        }
    }
}

/// Magnitudes given the scales of segments.
struct Scaled {
    segment: usize,
    rows: Vec<u8>,
    symbols: Vec<u8>,
    counts: [u32; 256],
    /// Bits of the symbols and of the scales.
    cost: f64,
}

impl Scaled {
    fn new(segment: usize, magnitudes: &[u16]) -> Self {
        let mut symbols = vec![0; magnitudes.len()];
        let mut means = Vec::with_capacity(magnitudes.len().div_ceil(segment));
        for (run, symbols) in magnitudes.chunks(segment).zip(symbols.chunks_mut(segment)) {
            let row = mean(run);
            symbols_of(run, row, symbols);
            means.push(row);
        }
        let (rows, counts) = (rows::encode(&means), count(&symbols));
        let total = symbols.len() as f64;
        let bits: f64 = counts
            .iter()
            .filter(|&&n| n > 0)
            .map(|&n| -f64::from(n) * (f64::from(n) / total).log2())
            .sum();
        Self {
            segment,
            cost: bits + 8.0 * rows.len() as f64,
            rows,
            symbols,
            counts,
        }
    }
}

fn count(symbols: &[u8]) -> [u32; 256] {
    // Neighbours count into tables of their own: a count need not wait for the one before it.
    let mut tables = [[0u32; 256]; 4];
    let (fours, rest) = symbols.as_chunks::<4>();
    for four in fours {
        for (table, &symbol) in tables.iter_mut().zip(four) {
            table[usize::from(symbol)] += 1;
        }
    }
    for &symbol in rest {
        tables[0][usize::from(symbol)] += 1;
    }
    std::array::from_fn(|symbol| tables.iter().map(|table| table[symbol]).sum())
}

vectorised! {
    /// The sign and the raw bits of words whose symbol is neither zero nor an escape, and how many
    /// these are.
    fn split<W: Word>(layout: Layout, words: &[W], symbols: &[u8], rests: &mut [u32; GROUP], counts: &mut [u32; GROUP]) {
        let (raw, sign_at) = (raw_bits(layout), layout.width() - 1);
        let parts = rests.iter_mut().zip(counts);
        for ((rest, count), (word, &symbol)) in parts.zip(words.iter().zip(symbols)) {
            let bits = word.widen() >> layout.shift();
            let known = u32::from(symbol != ESCAPE && symbol != ZERO);
            *rest = ((bits & ((1 << raw) - 1)) << 1 | bits >> sign_at) * known;
            *count = (raw + 1) * known;
        }
    }
}

pub(super) fn decode<W: Word>(
    layout: Layout,
    mut reader: Reader<'_>,
    out: &mut [W],
) -> Result<(), CodecError> {
    let shift = reader.u8()?;
    let layout = layout
        .with_shift(u32::from(shift))
        .ok_or(CodecError::Invalid {
            field: "zero bits",
            found: u64::from(shift),
            expected: "fewer than the mantissa has",
        })?;
    let lanes = reader.u8()?;
    let lanes = Lanes::from_count(lanes).ok_or(CodecError::Invalid {
        field: "lanes",
        found: u64::from(lanes),
        expected: "1, 8 or 32",
    })?;
    let segment = reader.length("segment length", usize::MAX)?.max(1);
    let mut lengths = [0; 5];
    for length in &mut lengths {
        *length = reader.length("section length", reader.remaining())?;
    }
    let mut table_reader = Reader::new(reader.take(lengths[0])?, "table");
    let tables = TableSet::read(&mut table_reader)?;
    table_reader.finish()?;
    let rows = rows::decode(reader.take(lengths[1])?, out.len().div_ceil(segment), REACH)?;
    let tables = DecodeTables::new(&[tables.first()]);
    let mut decoder = Decoder::new(&tables, reader.take(lengths[2])?, lanes)?;
    let mut low = BitReader::new(reader.take(lengths[3])?);
    let mut escapes = Reader::new(reader.take(lengths[4])?, "escapes");
    reader.finish()?;

    let (contexts, mut symbols) = ([0; BLOCK], [0; BLOCK]);
    for (i, block) in out.chunks_mut(BLOCK).enumerate() {
        let len = block.len();
        decoder.decode(&contexts[..len], &mut symbols[..len])?;
        let mut at = 0;
        while at < len {
            let row = (i * BLOCK + at) / segment;
            let end = ((row + 1).saturating_mul(segment) - i * BLOCK)
                .min(at + GROUP)
                .min(len);
            let (out, symbols) = (&mut block[at..end], &symbols[at..end]);
            let row = rows[row];
            at = end;
            let mut rests = [0; GROUP];
            if are_known(symbols) {
                take(raw_bits(layout) + 1, &mut low, &mut rests[..out.len()]);
                join(layout, row, symbols, &rests, out);
                continue;
            }
            for (out, &symbol) in out.iter_mut().zip(symbols) {
                if symbol == ESCAPE {
                    *out = W::narrow((escapes.varint()? as u32) << layout.shift());
                } else if symbol == ZERO {
                    *out = W::narrow(0);
                } else {
                    rests[0] = low.take(raw_bits(layout) + 1);
                    let out = std::slice::from_mut(out);
                    join(layout, row, &[symbol], &rests, out);
                }
            }
        }
    }
    decoder.finish()?;
    low.finish("raw bits")?;
    escapes.finish()
}

vectorised! {
    /// Whether no symbol is zero or an escape.
    fn are_known(symbols: &[u8]) -> bool {
        symbols.iter().fold(true, |known, &s| known & (s != ESCAPE) & (s != ZERO))
    }
}

vectorised! {
    /// So many bits for each of up to 64 words; at most 22.
    fn take(count: u32, low: &mut BitReader<'_>, rests: &mut [u32]) {
        for rests in rests.chunks_mut(16) {
            let (bytes, bit) = low.window();
            let mut at = bit;
            for rest in &mut *rests {
                let word = bytes[at / 8 % 64..].first_chunk().unwrap_or(&[0; 8]);
                *rest = (u64::from_le_bytes(*word) >> (at % 8)) as u32 & ((1 << count) - 1);
                at += count as usize;
            }
            low.skip(at - bit);
        }
    }
}

vectorised! {
    /// Words of symbols that are neither zero nor escapes.
    fn join<W: Word>(layout: Layout, row: i32, symbols: &[u8], rests: &[u32; GROUP], out: &mut [W]) {
        let (raw, sign_at, mask) = (raw_bits(layout), layout.width() - 1, layout.magnitude_mask());
        for ((out, &symbol), &rest) in out.iter_mut().zip(symbols).zip(rests) {
            let coarse = row + i32::from(symbol) - i32::from(UNCHANGED);
            let bits = (coarse as u32) << raw & mask | rest >> 1 | (rest & 1) << sign_at;
            *out = W::narrow(bits << layout.shift());
        }
    }
}
