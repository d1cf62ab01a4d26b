//! RANKED chunks: as DELTA, in rank codes instead of an entropy coder's.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod read;
mod write;

use std::cell::OnceCell;

use super::Model;
use crate::Layout;
use crate::context::Contexts;
use crate::ranks::RankCodes;
pub(super) use read::decode;
pub(super) use write::{RankBuffers, RankCoder};

/// How many bits more than by the frequencies a chunk may take: one in so many.
const PRICE: u64 = 8;

/// The codes for one layout.
pub(super) struct Ranks<'a> {
    codes: &'a RankCodes,
    layout: Layout,
    /// For each context, how many low bits differences have.
    low_bits: [u8; 256],
    written: OnceCell<Box<write::Codes>>,
    read: OnceCell<Box<read::Codes>>,
}

impl<'a> Ranks<'a> {
    pub(super) fn new(model: &Model<'a>) -> Self {
        let (codes, contexts) = (model.tables.ranks(), Contexts::new(model.layout));
        Self {
            codes,
            layout: model.layout,
            low_bits: std::array::from_fn(|c| contexts.low_bits_of(c as u8) + codes.coarse[c]),
            written: OnceCell::new(),
            read: OnceCell::new(),
        }
    }

    /// Whether rank codes take little more than an entropy coder for weights of these contexts.
    pub(super) fn suit(&self, contexts: &[u8]) -> bool {
        let rules = Contexts::new(self.layout);
        let [mut entropy, mut bits] = [0u64; 2];
        for &context in contexts {
            let [least, coded] = self.codes.bits[usize::from(context)];
            let low = 256 * rules.low_bits(context);
            entropy += u64::from(least + low);
            bits += u64::from(coded + low);
        }
        (bits.saturating_sub(entropy)) * PRICE <= entropy
    }
}

#[cfg(test)]
mod tests;
