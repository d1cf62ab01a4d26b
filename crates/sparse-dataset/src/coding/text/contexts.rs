//! The contexts under which the next byte is predicted.

/// How many there are.
pub(super) const CONTEXTS: usize = 15;
/// The first of them, which say something beyond the row.
pub(super) const LASTING: usize = 12;

/// Mixes a value and a salt into 64 bits.
#[inline]
pub(super) fn hash(value: u64, salt: u64) -> u64 {
    let mixed =
        (value ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// What came before the next byte, seen in several ways.
#[derive(Clone)]
pub(super) struct Contexts {
    /// A hash for each way.
    pub(super) hashes: [u64; CONTEXTS],
    pub(super) column: usize,
    /// The word being written, and the two before it.
    word: u64,
    words: [u64; 2],
    length: usize,
    /// Differs from row to row.
    row: u64,
    /// The last bytes by class, a nibble each, runs taken together.
    shape: u64,
    /// The last byte that was neither letter, digit nor space.
    mark: u8,
    /// The first bytes' number within the text, up to a few.
    sentence: u64,
}

impl Contexts {
    pub(super) fn new() -> Self {
        Self {
            hashes: [0; CONTEXTS],
            column: 0,
            word: 0,
            words: [0; 2],
            length: 0,
            row: 0,
            shape: 0,
            mark: 0,
            sentence: 0,
        }
    }

    pub(super) fn start_row(&mut self) {
        self.row += 1;
    }

    pub(super) fn start_text(&mut self, column: usize, history: &[u8]) {
        self.column = column.min(63);
        self.word = 0;
        self.words = [0; 2];
        self.length = 0;
        self.shape = 0;
        self.mark = 0;
        self.sentence = 0;
        self.set(history);
    }

    pub(super) fn advance(&mut self, byte: u8, history: &[u8]) {
        let class = match byte {
            b'0'..=b'9' => 1,
            b'a'..=b'z' | 128.. => 2,
            b'A'..=b'Z' => 3,
            b' ' => 4,
            b'\n' => 5,
            b'.' | b',' | b'?' | b'!' => 6,
            b'<' | b'>' => 7,
            b'=' => 8,
            b'+' | b'-' | b'*' | b'/' => 9,
            b'$' | b'%' => 10,
            b'"' | b'\'' => 11,
            b'(' | b')' | b'[' | b']' | b'{' | b'}' => 12,
            _ => 13,
        };
        if self.shape & 15 != class || class > 4 {
            self.shape = self.shape << 4 | class;
        }
        if byte.is_ascii_alphanumeric() || byte >= 128 {
            self.word = hash(self.word ^ u64::from(byte.to_ascii_lowercase()), 3);
            self.length += 1;
        } else {
            if self.word != 0 {
                self.words = [self.word, self.words[0]];
                self.word = 0;
                self.sentence = self.sentence.saturating_add(1);
            }
            self.length = 0;
            if byte != b' ' {
                self.mark = byte;
            }
            if matches!(byte, b'.' | b'?' | b'!' | b'\n') {
                self.sentence = 0;
            }
        }
        self.set(history);
    }

    /// A small summary for the choice of weights, below 64.
    pub(super) fn state(&self) -> usize {
        let class = (self.shape & 15) as usize;
        class.min(15) * 4 + self.length.min(3)
    }

    fn set(&mut self, history: &[u8]) {
        let last = history
            .iter()
            .rev()
            .take(8)
            .fold((0u64, 0u32), |(all, at), &b| {
                (all | u64::from(b) << at, at + 8)
            })
            .0;
        let column = self.column as u64;
        let order = |bytes: u32| last & ((1u64 << (8 * bytes)) - 1);
        let [before, second] = self.words;
        let word = self.word ^ order(1) << 56;
        // Under these, what the row said before is told apart from all else.
        let row = hash(self.row, 5);
        self.hashes = [
            hash(column, 10),
            hash(order(1) | column << 32, 11),
            hash(order(2), 12),
            hash(order(3), 13),
            hash(order(4), 14),
            hash(order(4) >> 8 | column << 32, 15),
            hash(order(6), 16),
            hash(word, 17),
            hash(word.wrapping_add(before.rotate_left(17)), 18),
            hash(word.wrapping_add(second.rotate_left(34)), 19),
            hash(
                word.wrapping_add(self.sentence.min(4) << 8 | u64::from(self.mark)),
                20,
            ),
            hash(self.shape & 0xffff_ffff | order(1) << 32, 21),
            hash(order(3) | self.row << 32, 22),
            hash(word.wrapping_add(row), 23),
            hash(
                word.wrapping_add(before.rotate_left(17)).wrapping_add(row),
                24,
            ),
        ];
    }
}
