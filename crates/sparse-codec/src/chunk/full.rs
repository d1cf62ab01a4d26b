//! FULL chunks: magnitudes on a quarter-octave grid given the segment's mean, the rest raw.

use super::{Scratch, TAG_FULL, rows};
use crate::bits::{BitReader, BitWriter};
use crate::bytes::put_varint;
use crate::context::{DIRECT, ESCAPE, UNCHANGED};
use crate::rans::{self, Decoder, Lanes};
use crate::tables::{TableSet, frequencies};
use crate::{CodecError, Layout, Reader, Word};

/// Symbol of positive zero, which has no raw bits.
const ZERO: u8 = 255;
/// Mantissa bits that are modelled with the exponent.
const MODELLED: u32 = 2;
const REACH: i32 = 1 << 12;

/// Raw bits below the modelled ones, without the sign.
fn raw_bits(layout: Layout) -> u32 {
    layout.mantissa().saturating_sub(MODELLED)
}

/// The magnitude in steps of the modelled grid.
#[inline(always)]
fn coarse(layout: Layout, word: u32) -> i32 {
    (((word >> layout.shift()) & layout.magnitude_mask()) >> raw_bits(layout)) as i32
}

pub(super) fn encode<W: Word>(layout: Layout, segment: usize, fine: &[W], out: &mut Vec<u8>) {
    let layout = layout
        .with_shift(common_zeros(layout, fine))
        .unwrap_or(layout);
    let means: Vec<i32> = fine.chunks(segment).map(|run| mean(layout, run)).collect();
    let one = vec![mean(layout, fine); 1];
    // One scale for all where the rows do not differ enough to pay for theirs.
    let (rows, segment) = [(one, fine.len()), (means, segment)]
        .into_iter()
        .map(|(rows, segment)| (cost(layout, &rows, segment, fine), rows, segment))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or((Vec::new(), 1), |(_, rows, segment)| (rows, segment));

    let counts = count(layout, &rows, segment, fine);
    let tables = TableSet::from_frequencies(vec![0], vec![frequencies(&counts, false)]);
    let costs = &tables.costs()[0];
    let raw = raw_bits(layout);
    let mut symbols = Vec::with_capacity(fine.len());
    let mut low = BitWriter::default();
    let mut escapes = Vec::new();
    let sign_at = layout.width() - 1;
    for (run, &row) in fine.chunks(segment).zip(&rows) {
        for word in run {
            let word = word.widen();
            let symbol = symbol(layout, word, row);
            if symbol == ESCAPE || costs[usize::from(symbol)] == u16::MAX {
                symbols.push(ESCAPE);
                put_varint(&mut escapes, u64::from(word >> layout.shift()));
                continue;
            }
            symbols.push(symbol);
            if symbol != ZERO {
                let bits = word >> layout.shift();
                low.put(
                    u64::from((bits & ((1 << raw) - 1)) << 1 | bits >> sign_at),
                    raw + 1,
                );
            }
        }
    }
    let mut stream = Vec::new();
    let contexts = vec![0; symbols.len()];
    let lanes = Lanes::for_size(symbols.len() / 3);
    rans::encode(
        tables.encoder(),
        &contexts,
        &symbols,
        lanes,
        &mut Vec::new(),
        &mut stream,
    );
    let row_bytes = rows::encode(&rows);
    let low = low.finish();
    let mut table_bytes = Vec::new();
    tables.write(&mut table_bytes);
    out.extend_from_slice(&[TAG_FULL, layout.shift() as u8, lanes.count() as u8]);
    put_varint(out, segment as u64);
    for part in [&table_bytes, &row_bytes, &stream, &low, &escapes] {
        put_varint(out, part.len() as u64);
    }
    for part in [&table_bytes, &row_bytes, &stream, &low, &escapes] {
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

fn mean<W: Word>(layout: Layout, run: &[W]) -> i32 {
    let (sum, count) = run.iter().fold((0i64, 0i64), |(sum, count), w| {
        let c = coarse(layout, w.widen());
        (sum + i64::from(c), count + i64::from(c > 0))
    });
    ((sum + count / 2) / count.max(1)).clamp(0, i64::from(REACH)) as i32
}

#[inline(always)]
fn symbol(layout: Layout, word: u32, row: i32) -> u8 {
    if word == 0 {
        return ZERO;
    }
    let offset = coarse(layout, word) - row;
    if (-DIRECT..=DIRECT).contains(&offset) {
        (offset + i32::from(UNCHANGED)) as u8
    } else {
        ESCAPE
    }
}

fn count<W: Word>(layout: Layout, rows: &[i32], segment: usize, fine: &[W]) -> [u32; 256] {
    let mut counts = [0u32; 256];
    for (run, &row) in fine.chunks(segment).zip(rows) {
        for word in run {
            counts[usize::from(symbol(layout, word.widen(), row))] += 1;
        }
    }
    counts
}

/// Bits of the symbols and of the scales.
fn cost<W: Word>(layout: Layout, rows: &[i32], segment: usize, fine: &[W]) -> f64 {
    let counts = count(layout, rows, segment, fine);
    let total = fine.len() as f64;
    let symbols: f64 = counts
        .iter()
        .filter(|&&n| n > 0)
        .map(|&n| -f64::from(n) * (f64::from(n) / total).log2())
        .sum();
    symbols + 8.0 * rows::encode(rows).len() as f64
}

pub(super) fn decode<W: Word>(
    layout: Layout,
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
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
    let mut decoder = Decoder::new(tables.decoder(), reader.take(lengths[2])?, lanes)?;
    let mut low = BitReader::new(reader.take(lengths[3])?);
    let mut escapes = Reader::new(reader.take(lengths[4])?, "escapes");
    reader.finish()?;

    scratch.contexts.clear();
    scratch.contexts.resize(out.len(), 0);
    scratch.symbols.resize(out.len(), 0);
    decoder.decode(&scratch.contexts, &mut scratch.symbols)?;
    decoder.finish()?;
    let raw = raw_bits(layout);
    let sign_at = layout.width() - 1;
    for ((run, symbols), &row) in out
        .chunks_mut(segment)
        .zip(scratch.symbols.chunks(segment))
        .zip(&rows)
    {
        for (out, &symbol) in run.iter_mut().zip(symbols) {
            let bits = match symbol {
                ESCAPE => escapes.varint()? as u32,
                ZERO => 0,
                _ => {
                    let rest = low.take(raw + 1);
                    let coarse = row + i32::from(symbol) - i32::from(UNCHANGED);
                    (coarse as u32) << raw & layout.magnitude_mask()
                        | rest >> 1
                        | (rest & 1) << sign_at
                }
            };
            *out = W::narrow(bits << layout.shift());
        }
    }
    low.finish("raw bits")?;
    escapes.finish()
}
