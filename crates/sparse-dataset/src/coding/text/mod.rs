//! The text coder: predictions of several contexts, of earlier matches and of
//! sums worked out are mixed per bit. It is the strongest coder here and the
//! slowest (about a megabyte a second), so it codes new text while there is
//! little of it.

mod arithmetic;
mod contexts;
mod mixer;
mod slots;

use super::range::BitCoder;
use arithmetic::Arithmetic;
use contexts::{CONTEXTS, Contexts, LASTING, hash};
use mixer::{INPUTS, Logistic, Mixer, Refinement};
use slots::{Lines, Match, Slot};

const END: u8 = 0;
const ESCAPE: u8 = 1;
const MATCHES: usize = 2;
const SETS: usize = 6;
/// Where the inputs of matches, of sums and of nothing begin.
const OF_MATCHES: usize = 2 * CONTEXTS;
const OF_SUMS: usize = OF_MATCHES + 2 * MATCHES;
const OF_NOTHING: usize = OF_SUMS + 2;
const _: () = assert!(OF_NOTHING < INPUTS);
/// Observations that weigh in at most.
const LIMIT: u32 = 250;
/// Counts and probabilities that are told apart when a slot is judged.
const COUNTS: usize = 12;
const STEPS: usize = 64;

/// The model of one stream of texts; an encoder and a decoder hold equal ones.
#[derive(Clone)]
pub(crate) struct TextModel {
    logistic: Logistic,
    lines: Lines,
    contexts: Contexts,
    current: [usize; CONTEXTS],
    /// How slots of a context that were seen so often and say so much turn
    /// out: by context, count and probability.
    judged: Vec<Slot>,
    history: Vec<u8>,
    matches: [Match; MATCHES],
    arithmetic: Arithmetic,
    mixers: [Mixer; SETS],
    last_mixer: Mixer,
    refinements: [Refinement; 2],
}

impl TextModel {
    /// A model sized for about `bytes` of text.
    pub(crate) fn new(bytes: usize) -> Self {
        let logistic = Logistic::new();
        let bits = (bytes.max(512) * 2)
            .next_power_of_two()
            .trailing_zeros()
            .clamp(10, 22);
        Self {
            lines: Lines::new((bits + 3).min(22)),
            contexts: Contexts::new(),
            current: [0; CONTEXTS],
            judged: vec![Slot::FRESH; CONTEXTS * COUNTS * STEPS],
            history: Vec::new(),
            matches: [Match::new(5, bits.min(20)), Match::new(10, bits.min(20))],
            arithmetic: Arithmetic::new(),
            mixers: [
                Mixer::new(32 * 8, 0.14),
                Mixer::new(256, 0.14),
                Mixer::new(64 * 256, 0.14),
                Mixer::new(256 * 8, 0.14),
                Mixer::new(64 * 8, 0.14),
                Mixer::new(256, 0.14),
            ],
            last_mixer: Mixer::new(256, 1.0 / SETS as f32),
            refinements: [
                Refinement::new(1 << 16, &logistic),
                Refinement::new(1 << 16, &logistic),
            ],
            logistic,
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

    /// A new row starts: what was said in the row before matters less.
    pub(crate) fn start_row(&mut self) {
        self.contexts.start_row();
    }

    /// Learns a text of a column without predicting it, which is faster.
    pub(crate) fn learn(&mut self, column: usize, text: &[u8]) {
        self.start_text(column);
        for &byte in text {
            if byte <= ESCAPE {
                self.learn_byte(ESCAPE);
                self.learn_byte(byte + 2);
            } else {
                self.learn_byte(byte);
            }
        }
        self.learn_byte(END);
    }

    fn learn_byte(&mut self, byte: u8) {
        let mut node = 1usize;
        for half in [byte >> 4, byte & 15] {
            self.find_lines(node, LASTING);
            let mut place = 1;
            for index in (0..4).rev() {
                let bit = half >> index & 1 == 1;
                for &line in &self.current[..LASTING] {
                    self.lines.learn(line, place, bit, LIMIT);
                }
                place = place << 1 | usize::from(bit);
            }
            node = place;
        }
        self.push(byte);
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
        self.start_text(column);
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

    fn start_text(&mut self, column: usize) {
        self.arithmetic.start();
        self.contexts.start_text(column, &self.history);
    }

    /// Moves on by a byte.
    fn push(&mut self, byte: u8) {
        self.history.push(byte);
        for model in &mut self.matches {
            model.advance(&self.history);
        }
        self.arithmetic.advance(&self.history);
        self.contexts.advance(byte, &self.history);
    }

    fn byte<C: BitCoder>(&mut self, coder: &mut C, byte: u8) -> u8 {
        let mut node = 1usize;
        for index in (0..8).rev() {
            if index == 7 || index == 3 {
                self.find_lines(node, CONTEXTS);
            }
            let bit = byte >> index & 1 == 1;
            node = node << 1 | usize::from(self.bit(coder, node, index, bit));
        }
        let byte = (node & 255) as u8;
        self.push(byte);
        for mixer in &mut self.mixers {
            mixer.settle();
        }
        self.last_mixer.settle();
        byte
    }

    /// Picks the line of the first contexts for the coming half byte.
    fn find_lines(&mut self, node: usize, count: usize) {
        let current = self.current.iter_mut().take(count);
        for (line, &context) in current.zip(&self.contexts.hashes) {
            *line = self.lines.find(hash(context, node as u64));
        }
    }

    fn bit<C: BitCoder>(&mut self, coder: &mut C, node: usize, index: u32, bit: bool) -> bool {
        let half = if index >= 4 {
            node
        } else {
            node & ((1 << (3 - index)) - 1) | 1 << (3 - index)
        };
        let mut inputs = [0f32; INPUTS];
        let mut judged = [0usize; CONTEXTS];
        for (context, place) in judged.iter_mut().enumerate() {
            let slot = self.lines.slot(self.current[context], half);
            let seen = slot.seen();
            let count = if seen < 8 {
                seen
            } else {
                (8 + (seen >= 16) as usize + (seen >= 48) as usize + (seen >= 160) as usize)
                    .min(COUNTS - 1)
            };
            let at = (context * COUNTS + count) * STEPS + usize::from(slot.p() >> 10);
            *place = at;
            if seen > 0 {
                inputs[2 * context] = self.logistic.stretch(slot.p());
                inputs[2 * context + 1] = self.logistic.stretch(self.judged[at].p());
            }
        }
        let fits = |expected: Option<u8>| {
            let byte = usize::from(expected?) | 256;
            (byte >> (index + 1) == node).then_some(byte >> index & 1 == 1)
        };
        let mut expected = [None; MATCHES];
        for (which, model) in self.matches.iter().enumerate() {
            expected[which] = fits(model.expected(&self.history));
            if let Some(bit) = expected[which] {
                self.put(&mut inputs, OF_MATCHES + 2 * which, model.trust(), bit);
            }
        }
        let sum = fits(self.arithmetic.expected());
        if let Some(bit) = sum {
            self.put(&mut inputs, OF_SUMS, self.arithmetic.trust(), bit);
        }
        inputs[OF_NOTHING] = 0.3;

        let matched = |which: usize| expected[which].map_or(0, |_| self.matches[which].bucket());
        let (short, long) = (matched(0), matched(1));
        let last = usize::from(self.history.last().copied().unwrap_or(0));
        let told = sum.map_or(0, |_| self.arithmetic.kind());
        let selectors = [
            short * 8
                + if told > 0 {
                    3 + told
                } else {
                    (long > 0) as usize
                        + (long >= 20) as usize
                        + (expected[0].is_some() && expected[0] == expected[1]) as usize
                },
            node,
            self.contexts.column * 256 + node,
            last * 8 + (7 - index as usize),
            self.contexts.state() * 8 + (7 - index as usize),
            usize::from(self.matches[0].expected(&self.history).unwrap_or(0)),
        ];
        let mut opinions = [0f32; INPUTS];
        for ((mixer, selector), opinion) in self.mixers.iter_mut().zip(selectors).zip(&mut opinions)
        {
            *opinion = mixer.mix(&inputs, selector);
        }
        let mixed = self.last_mixer.mix(&opinions, node);
        let order2 = (hash(self.contexts.hashes[2], node as u64) >> 48) as usize;
        let first = self.refinements[0].refine(mixed, last << 8 | node);
        let second = self.refinements[1].refine(mixed, order2);
        let p = (2 * u32::from(self.logistic.squash(mixed)) + first + second) / 4;
        let bit = coder.bit(bit, p.clamp(16, 65_520));

        for mixer in &mut self.mixers {
            mixer.update(&inputs, &self.logistic, bit);
        }
        self.last_mixer.update(&opinions, &self.logistic, bit);
        for refinement in &mut self.refinements {
            refinement.update(bit);
        }
        for (&place, &line) in judged.iter().zip(&self.current) {
            self.judged[place].learn(bit, LIMIT);
            self.lines.learn(line, half, bit, LIMIT);
        }
        for (model, expected) in self.matches.iter_mut().zip(expected) {
            if let Some(expected) = expected {
                model.learn(expected == bit);
            }
        }
        if let Some(expected) = sum {
            self.arithmetic.learn(expected == bit);
        }
        bit
    }

    /// Puts in that a bit is expected, with the trust in it.
    fn put(&self, inputs: &mut [f32; INPUTS], at: usize, trust: u16, bit: bool) {
        let stretched = self.logistic.stretch(trust);
        let certain = (f32::from(trust) / 65_536.0 - 0.5) * 4.0;
        (inputs[at], inputs[at + 1]) = if bit {
            (stretched, certain)
        } else {
            (-stretched, -certain)
        };
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
        model.learn(3, b"a\0\x01b");
        for text in &texts {
            model.remember(b"any");
            model.start_row();
            assert_eq!(
                model.text(&mut encoder, 3, text, usize::MAX).as_ref(),
                Some(text)
            );
        }
        let bytes = encoder.finish();
        assert!(bytes.len() < 360, "{}", bytes.len());
        let mut decoder = Decoder::new(&bytes);
        let mut model = TextModel::new(4096);
        model.learn(3, b"a\0\x01b");
        for text in &texts {
            model.remember(b"any");
            model.start_row();
            assert_eq!(
                model.text(&mut decoder, 3, &[], 1 << 20).as_ref(),
                Some(text)
            );
        }
    }
}
