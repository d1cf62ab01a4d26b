//! What the base says about new text: a lesson for the text model, or a
//! dictionary for zstd.

use std::io::Read;

use super::block::{ModelSize, Setup};
use super::row::RowCoder;
use super::texts::Texts;
use crate::coding::Silent;
use crate::error::Result;
use crate::matching::NEW;
use crate::table::{Kind, MAX_RECORD, Record, Rows};

/// The most base text given to zstd as a dictionary.
const DICTIONARY: usize = 1 << 20;
/// The end of a lesson, which is predicted as if it were to be coded.
const REHEARSAL: u64 = 128 << 10;
/// The most new text of one column in one block.
const MAX_BUFFER: u64 = 1 << 31;

/// Teaches the text model the base's language: rows spread over the base, so
/// that encoder and decoder see the same.
pub(super) fn teach(setup: &Setup, rows: &mut RowCoder, base: &mut Rows) -> Result<()> {
    let (Some(ModelSize { lesson: budget, .. }), Texts::Model(model)) =
        (setup.model, &mut rows.texts)
    else {
        return Ok(());
    };
    if budget == 0 {
        return Ok(());
    }
    let mut record = Record::default();
    let mut taught = 0u64;
    let count = u64::from(base.len());
    // About as many rows as the budget holds, judged by the first ones.
    let mut sampled = 0u64;
    for row in 0..count.min(32) {
        base.read(row as u32, &mut record)?;
        sampled += record
            .cells()
            .iter()
            .map(|&cell| record.bytes(cell).len() as u64)
            .sum::<u64>();
    }
    let wanted = (budget * count.min(32) / sampled.max(1)).max(1);
    let stride = (count / wanted).max(1);
    for row in (0..count).step_by(stride as usize) {
        if taught >= budget {
            break;
        }
        base.read(row as u32, &mut record)?;
        model.start_row();
        for &cell in record.cells() {
            let bytes = record.bytes(cell);
            if let Some(column) = setup
                .plan
                .column_like(cell.column)
                .filter(|_| cell.kind != Kind::Null)
            {
                // What contexts say is learned first, how far to trust them
                // from the rest.
                if taught + REHEARSAL < budget {
                    model.learn(column, bytes);
                } else {
                    model.text(&mut Silent, column, bytes, MAX_RECORD);
                }
                taught += bytes.len() as u64;
            }
        }
    }
    Ok(())
}

/// Base text of the rows of a block, as zstd's dictionary for its new text.
pub(super) fn dictionary(references: &[u32], base: &mut Rows) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut record = Record::default();
    for &row in references.iter().filter(|&&row| row != NEW) {
        if out.len() > DICTIONARY {
            break;
        }
        base.read(row, &mut record)?;
        for &cell in record.cells() {
            if cell.kind != Kind::Null {
                out.extend_from_slice(record.bytes(cell));
            }
        }
    }
    out.truncate(DICTIONARY);
    Ok(out)
}

/// Compresses a buffer; the first byte says how.
pub(super) fn pack(buffer: &[u8], dictionary: &[u8], level: i32) -> Vec<u8> {
    let packed =
        zstd::bulk::Compressor::with_dictionary(level, dictionary).and_then(|mut compressor| {
            // Our own frame is checked already: drop what it need not repeat.
            compressor.include_contentsize(false)?;
            compressor.include_checksum(false)?;
            compressor.include_dictid(false)?;
            compressor.compress(buffer)
        });
    match packed {
        Ok(packed) if packed.len() < buffer.len() => [&[1], packed.as_slice()].concat(),
        _ => [&[0], buffer].concat(),
    }
}

pub(super) fn unpack(packed: &[u8], length: u64, dictionary: &[u8]) -> Option<Vec<u8>> {
    if length > MAX_BUFFER {
        return None;
    }
    let (&how, packed) = packed.split_first()?;
    let mut out = Vec::new();
    match how {
        0 => out.extend_from_slice(packed),
        1 => {
            let decoder = zstd::stream::read::Decoder::with_dictionary(packed, dictionary).ok()?;
            decoder.take(length + 1).read_to_end(&mut out).ok()?;
        }
        _ => return None,
    }
    (out.len() as u64 == length).then_some(out)
}
