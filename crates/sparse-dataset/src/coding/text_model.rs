//! The text coder: predictions of several contexts and of earlier matches are
//! mixed per bit. It is the strongest coder here and the slowest (about a
//! megabyte a second), so it codes new text while there is little of it.

use super::mixer::{INPUTS, Logistic, Mixer, Refinement};
use super::range::BitCoder;

const ORDERS: usize = 8;
const END: u8 = 0;
const ESCAPE: u8 = 1;

/// A prediction with its confidence.
#[derive(Clone, Copy)]
struct Slot {
    p: u16,
    seen: u16,
}

const FRESH: Slot = Slot {
    p: 1 << 15,
    seen: 0,
};

/// Fifteen nodes of half a byte under one context; node 0 holds its check.
type Line = [Slot; 16];

/// Follows an earlier occurrence of the last bytes.
struct Match {
    minimum: usize,
    table: Vec<u32>,
    at: usize,
    length: usize,
    counters: [Slot; 64],
}

impl Match {
    fn new(minimum: usize, bits: u32) -> Self {
        Self {
            minimum,
            table: vec![0; 1 << bits],
            at: 0,
            length: 0,
            counters: [FRESH; 64],
        }
    }

    fn advance(&mut self, history: &[u8]) {
        let end = history.len();
        if self.length > 0 && history[self.at] == history[end - 1] {
            self.at += 1;
            self.length = (self.length + 1).min(400);
        } else {
            self.length = 0;
        }
        if end < self.minimum {
            return;
        }
        let key = hash(
            history[end - self.minimum..]
                .iter()
                .fold(0u64, |h, &b| h << 8 | u64::from(b)),
            1,
        );
        let index = (key >> (64 - self.table.len().trailing_zeros())) as usize;
        let slot = &mut self.table[index];
        if self.length == 0 {
            let candidate = *slot as usize;
            if candidate > 0 {
                let common = history[..candidate]
                    .iter()
                    .rev()
                    .zip(history.iter().rev())
                    .take(64)
                    .take_while(|(a, b)| a == b)
                    .count();
                if common >= self.minimum {
                    self.length = common;
                    self.at = candidate;
                }
            }
        }
        *slot = end as u32;
    }

    fn bucket(&self) -> usize {
        match self.length {
            0 => 0,
            length @ 1..16 => length,
            length @ 16..32 => 16 + (length - 16) / 4,
            length => (20 + (length - 32) / 32).min(31),
        }
    }
}

fn hash(value: u64, salt: u64) -> u64 {
    let mixed =
        (value ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// The model of one stream of texts; an encoder and a decoder hold equal ones.
pub(crate) struct TextModel {
    logistic: Logistic,
    lines: Vec<Line>,
    contexts: [u64; ORDERS],
    current: [usize; ORDERS],
    history: Vec<u8>,
    matches: [Match; 2],
    mixers: [Mixer; 3],
    refinements: [Refinement; 2],
    word: u64,
    previous_word: u64,
    column: usize,
}

impl TextModel {
    /// A model sized for about `bytes` of text.
    pub(crate) fn new(bytes: usize) -> Self {
        let logistic = Logistic::new();
        let bits = (bytes.max(512) * 2)
            .next_power_of_two()
            .trailing_zeros()
            .clamp(10, 18);
        Self {
            lines: vec![[FRESH; 16]; ORDERS << bits],
            contexts: [0; ORDERS],
            current: [0; ORDERS],
            history: Vec::new(),
            matches: [Match::new(5, bits + 1), Match::new(8, bits + 1)],
            mixers: [
                Mixer::new(32 * 32, 0.18),
                Mixer::new(256, 0.18),
                Mixer::new(64 * 256, 0.18),
            ],
            refinements: [
                Refinement::new(1 << 16, &logistic),
                Refinement::new(1 << 16, &logistic),
            ],
            logistic,
            word: 0,
            previous_word: 0,
            column: 0,
        }
    }

    /// Lets the following text match this one, at no cost in the stream.
    pub(crate) fn remember(&mut self, text: &[u8]) {
        for &byte in text {
            self.history.push(byte);
            for model in &mut self.matches {
                model.advance(&self.history);
            }
        }
    }

    /// Codes one text of a column, its end included. A decoder ignores `text`.
    /// `None` if the decoded text would be longer than `limit`.
    pub(crate) fn text<C: BitCoder>(
        &mut self,
        coder: &mut C,
        column: usize,
        text: &[u8],
        limit: usize,
    ) -> Option<Vec<u8>> {
        self.column = column.min(63);
        self.start_text();
        let mut out = Vec::new();
        let mut input = text.iter();
        loop {
            let next = input.next();
            let symbol = match next {
                None => END,
                Some(&byte) if byte <= ESCAPE => ESCAPE,
                Some(&byte) => byte,
            };
            match self.byte(coder, symbol) {
                END => return Some(out),
                ESCAPE => {
                    let byte = self.byte(coder, next.map_or(0, |byte| byte + 2));
                    out.push(byte.wrapping_sub(2));
                }
                byte => out.push(byte),
            }
            if out.len() > limit || coder.overrun() {
                return None;
            }
        }
    }

    fn start_text(&mut self) {
        self.word = 0;
        self.previous_word = 0;
        self.set_contexts();
    }

    fn byte<C: BitCoder>(&mut self, coder: &mut C, byte: u8) -> u8 {
        let mut node = 1usize;
        for index in (0..8).rev() {
            if index == 7 || index == 3 {
                self.find_lines(node);
            }
            let bit = byte >> index & 1 == 1;
            node = node << 1 | usize::from(self.bit(coder, node, index, bit));
        }
        let byte = (node & 255) as u8;
        self.history.push(byte);
        for model in &mut self.matches {
            model.advance(&self.history);
        }
        if byte.is_ascii_alphanumeric() || byte >= 128 {
            self.word = hash(self.word ^ u64::from(byte.to_ascii_lowercase()), 3);
        } else if self.word != 0 {
            self.previous_word = self.word;
            self.word = 0;
        }
        self.set_contexts();
        for mixer in &mut self.mixers {
            mixer.settle();
        }
        byte
    }

    fn set_contexts(&mut self) {
        let last = self
            .history
            .iter()
            .rev()
            .take(8)
            .fold((0u64, 0u32), |(all, at), &b| {
                (all | u64::from(b) << at, at + 8)
            })
            .0;
        let column = self.column as u64;
        let order = |bytes: u32| last & ((1u64 << (8 * bytes)) - 1);
        self.contexts = [
            hash(column, 10),
            hash(order(1) | column << 32, 11),
            hash(order(2), 12),
            hash(order(3), 13),
            hash(order(4), 14),
            hash(order(6), 15),
            hash(self.word ^ order(1) << 56, 16),
            hash(
                self.word.wrapping_add(self.previous_word.rotate_left(17)) ^ order(1) << 56,
                17,
            ),
        ];
    }

    /// Picks each context's line for the coming half byte, taking over the
    /// less used of two places when neither is its own.
    fn find_lines(&mut self, node: usize) {
        let per_order = self.lines.len() / ORDERS;
        for order in 0..ORDERS {
            let key = hash(self.contexts[order], node as u64 + 100);
            let check = (key >> 48) as u16 | 1;
            let first = order * per_order + (key as usize & (per_order - 1));
            let second = order * per_order + ((key as usize & (per_order - 1)) ^ 1);
            self.current[order] = if self.lines[first][0].p == check {
                first
            } else if self.lines[second][0].p == check {
                second
            } else {
                let victim = if self.lines[first][1].seen <= self.lines[second][1].seen {
                    first
                } else {
                    second
                };
                self.lines[victim] = [FRESH; 16];
                self.lines[victim][0].p = check;
                victim
            };
        }
    }

    fn bit<C: BitCoder>(&mut self, coder: &mut C, node: usize, index: u32, bit: bool) -> bool {
        let half = if index >= 4 {
            node
        } else {
            node & ((1 << (3 - index)) - 1) | 1 << (3 - index)
        };
        let mut inputs = [0f32; INPUTS];
        for order in 0..ORDERS {
            let slot = self.lines[self.current[order]][half];
            if slot.seen > 0 {
                let stretched = self.logistic.stretch(slot.p);
                inputs[2 * order] = stretched;
                let confidence = CONFIDENCE[usize::from(slot.seen.min(7))];
                inputs[2 * order + 1] = (f32::from(slot.p) / 65_536.0 - 0.5) * confidence;
            }
        }
        let mut expected = [None; 2];
        for (which, model) in self.matches.iter().enumerate() {
            if model.length > 0 {
                let byte = usize::from(self.history[model.at]) | 256;
                if byte >> (index + 1) == node {
                    let bit = byte >> index & 1 == 1;
                    expected[which] = Some(bit);
                    let p = model.counters[model.bucket()].p;
                    let stretched = self.logistic.stretch(p);
                    inputs[2 * ORDERS + 2 * which] = if bit { stretched } else { -stretched };
                    let certain = (f32::from(p) / 65_536.0 - 0.5) * 4.0;
                    inputs[2 * ORDERS + 2 * which + 1] = if bit { certain } else { -certain };
                }
            }
        }
        inputs[INPUTS - 1] = 0.3;
        let matched = |which: usize| {
            if expected[which].is_some() {
                self.matches[which].bucket()
            } else {
                0
            }
        };
        let (short, long) = (matched(0), matched(1));
        let agree = usize::from(expected[0] == expected[1]);
        let selectors = [
            short * 32 + (long.min(15) * 2 + agree),
            node,
            self.column * 256 + node,
        ];
        let mut sum = 0.0;
        for (mixer, selector) in self.mixers.iter_mut().zip(selectors) {
            sum += mixer.mix(&inputs, selector);
        }
        let mixed = sum / 3.0;
        let last = usize::from(self.history.last().copied().unwrap_or(0));
        let order2 = (hash(self.contexts[2], node as u64) >> 48) as usize;
        let first = self.refinements[0].refine(mixed, last << 8 | node);
        let second = self.refinements[1].refine(mixed, order2);
        let p = (2 * u32::from(self.logistic.squash(mixed)) + first + second) / 4;
        let bit = coder.bit(bit, p.clamp(16, 65_520));

        for (mixer, _) in self.mixers.iter_mut().zip(selectors) {
            mixer.update(&inputs, &self.logistic, bit);
        }
        for refinement in &mut self.refinements {
            refinement.update(bit);
        }
        for order in 0..ORDERS {
            learn(&mut self.lines[self.current[order]][half], bit, 250);
        }
        for (model, expected) in self.matches.iter_mut().zip(expected) {
            if let Some(expected) = expected {
                let bucket = model.bucket();
                learn(&mut model.counters[bucket], expected == bit, 250);
                if expected != bit {
                    model.length = 0;
                }
            }
        }
        bit
    }
}

const CONFIDENCE: [f32; 8] = [0.0, 1.0, 2.0, 2.6, 3.0, 3.4, 3.7, 4.0];

#[inline]
fn learn(slot: &mut Slot, bit: bool, limit: u16) {
    let target = if bit { 65_535 } else { 0 };
    let delta = (target - i32::from(slot.p)) * 2 / (2 * i32::from(slot.seen) + 3);
    slot.p = (i32::from(slot.p) + delta) as u16;
    if slot.seen < limit {
        slot.seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::range::{Decoder, Encoder};
    use super::*;

    #[test]
    fn texts_with_any_bytes_come_back() {
        let texts: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            vec![0, 1, 2, 255, 0],
            (0..=255).collect(),
            "añb".repeat(99).into_bytes(),
        ];
        let mut encoder = Encoder::new();
        let mut model = TextModel::new(4096);
        for text in &texts {
            model.remember(b"any");
            assert_eq!(
                model.text(&mut encoder, 3, text, usize::MAX).as_ref(),
                Some(text)
            );
        }
        let bytes = encoder.finish();
        assert!(bytes.len() < 350, "{}", bytes.len());
        let mut decoder = Decoder::new(&bytes);
        let mut model = TextModel::new(4096);
        for text in &texts {
            model.remember(b"any");
            assert_eq!(
                model.text(&mut decoder, 3, &[], 1 << 20).as_ref(),
                Some(text)
            );
        }
    }
}
