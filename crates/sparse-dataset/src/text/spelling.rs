//! How a writer of JSON spells strings and lists, so that decoded text can be
//! spelled again byte for byte.

use crate::wire::{Reader, put_bytes};

const ASCII: u8 = 1;
const SLASH: u8 = 2;
const UPPER: u8 = 4;
const HTML: u8 = 8;
const DELETE: u8 = 16;
const LONG: u8 = 32;
const SEPARATORS: u8 = 64;

/// Bytes of a string that are looked at together.
const PIECE: usize = 32;

/// The habits of one writer of JSON.
#[derive(Clone, Debug)]
pub(crate) struct Spelling {
    flags: u8,
    pub(crate) item_separator: Vec<u8>,
    pub(crate) key_separator: Vec<u8>,
    plain: [bool; 256],
}

impl Spelling {
    pub(crate) fn new(flags: u8, item_separator: &[u8], key_separator: &[u8]) -> Self {
        let mut plain = [true; 256];
        plain[..32].fill(false);
        for (byte, flag) in [
            (b'"', 255),
            (b'\\', 255),
            (b'/', SLASH),
            (b'<', HTML),
            (b'>', HTML),
            (b'&', HTML),
            (127, DELETE),
        ] {
            plain[usize::from(byte)] = flags & flag == 0 && flag != 255;
        }
        if flags & (ASCII | SEPARATORS) != 0 {
            // 0xE2 starts U+2028 and U+2029.
            let first = if flags & ASCII != 0 { 128 } else { 0xE2 };
            let last = if flags & ASCII != 0 { 255 } else { 0xE2 };
            plain[first..=last].fill(false);
        }
        Self {
            flags,
            item_separator: item_separator.to_vec(),
            key_separator: key_separator.to_vec(),
            plain,
        }
    }

    /// Compact JSON with as few escapes as possible: how lists are compared.
    pub(crate) fn canonical() -> Self {
        Self::new(0, b",", b":")
    }

    /// The habits seen in a sample of a file.
    pub(crate) fn detect(sample: &[u8]) -> Self {
        let mut flags = 0;
        let mut escaped_wide = false;
        let mut skip = 0;
        for at in memchr::memchr_iter(b'\\', sample) {
            if at < skip {
                continue;
            }
            skip = at + 2;
            match sample.get(at + 1) {
                Some(b'/') => flags |= SLASH,
                Some(b'u') => {
                    let Some(digits) = sample.get(at + 2..at + 6) else {
                        continue;
                    };
                    if digits.iter().any(|digit| (b'A'..=b'F').contains(digit)) {
                        flags |= UPPER;
                    }
                    match digits.to_ascii_lowercase().as_slice() {
                        b"003c" | b"003e" | b"0026" => flags |= HTML,
                        b"007f" => flags |= DELETE,
                        b"0008" | b"000c" => flags |= LONG,
                        b"2028" | b"2029" => flags |= SEPARATORS,
                        wide if wide > b"007f".as_slice() => escaped_wide = true,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if escaped_wide || sample.is_ascii() {
            flags = (flags | ASCII) & !SEPARATORS;
        }
        let after = |mark: &[u8]| {
            memchr::memmem::find(sample, mark)
                .is_some_and(|at| sample.get(at + mark.len()) == Some(&b' '))
        };
        let item = if after(b"\",") || after(b"],") {
            b", ".as_slice()
        } else {
            b","
        };
        let key = if after(b"\":") {
            b": ".as_slice()
        } else {
            b":"
        };
        Self::new(flags, item, key)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.flags);
        put_bytes(out, &self.item_separator);
        put_bytes(out, &self.key_separator);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self::new(reader.byte()?, reader.sized()?, reader.sized()?))
    }

    /// Whether both leave the same strings as they are.
    pub(crate) fn escapes_alike(&self, other: &Self) -> bool {
        self.plain == other.plain
    }

    /// The length of the leading bytes that are spelled as they are.
    #[inline]
    pub(crate) fn plain_prefix(&self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.flags & (SLASH | HTML | DELETE) == 0 {
            let wide = self.flags & (ASCII | SEPARATORS) != 0;
            // Comparisons that the compiler does on many bytes at once.
            let high = if wide { 128 } else { 0 };
            for piece in bytes.chunks_exact(PIECE) {
                let odd = piece.iter().fold(0u8, |odd, &byte| {
                    odd | u8::from(byte < 32)
                        | u8::from(byte == b'"')
                        | u8::from(byte == b'\\')
                        | (byte & high)
                });
                if odd != 0 {
                    break;
                }
                at += PIECE;
            }
            // Where bytes beyond ASCII are escaped, all of them are, or (separators) few.
            if self.flags & SEPARATORS == 0 || self.flags & ASCII != 0 {
                let (words, _) = bytes[at..].as_chunks::<8>();
                for word in words {
                    let odd = odd_bytes(u64::from_le_bytes(*word), wide);
                    if odd != 0 {
                        return at + odd.trailing_zeros() as usize / 8;
                    }
                    at += 8;
                }
            }
        }
        bytes[at..]
            .iter()
            .position(|&byte| !self.plain[usize::from(byte)])
            .map_or(bytes.len(), |found| at + found)
    }

    /// Decodes the inside of a string that is spelled as this writer would spell it. `false`
    /// where it is not, or where only spelling it again would tell.
    pub(crate) fn decode(&self, mut inside: &[u8], out: &mut Vec<u8>) -> bool {
        loop {
            let plain = self.plain_prefix(inside);
            out.extend_from_slice(&inside[..plain]);
            inside = &inside[plain..];
            let mut length = 2;
            match *inside {
                [] => return true,
                [b'\\', letter @ (b'"' | b'\\'), ..] => out.push(letter),
                [b'\\', b'n', ..] => out.push(b'\n'),
                [b'\\', b't', ..] => out.push(b'\t'),
                [b'\\', b'r', ..] => out.push(b'\r'),
                [b'\\', b'u', ref digits @ ..] if self.flags & ASCII != 0 => {
                    let other_case = if self.flags & UPPER != 0 {
                        b'a'..=b'f'
                    } else {
                        b'A'..=b'F'
                    };
                    let character = hex_unit(digits)
                        .filter(|&unit| unit >= 128)
                        .and_then(char::from_u32);
                    let Some(character) = character else {
                        return false;
                    };
                    if digits[..4].iter().any(|digit| other_case.contains(digit)) {
                        return false;
                    }
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    length = 6;
                }
                _ => return false,
            }
            inside = &inside[length..];
        }
    }

    /// Spells a string, with its quotes.
    pub(crate) fn string(&self, mut text: &[u8], out: &mut Vec<u8>) {
        out.push(b'"');
        loop {
            let plain = self.plain_prefix(text);
            out.extend_from_slice(&text[..plain]);
            text = &text[plain..];
            let Some(&byte) = text.first() else { break };
            text = &text[self.escape(byte, text, out)..];
        }
        out.push(b'"');
    }

    /// Spells the character at the start of `text`; returns its length.
    fn escape(&self, byte: u8, text: &[u8], out: &mut Vec<u8>) -> usize {
        let short = match byte {
            b'"' | b'\\' | b'/' => Some(byte),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            8 if self.flags & LONG == 0 => Some(b'b'),
            12 if self.flags & LONG == 0 => Some(b'f'),
            _ => None,
        };
        if let Some(letter) = short {
            out.extend_from_slice(&[b'\\', letter]);
            return 1;
        }
        if byte < 128 {
            self.hex(u32::from(byte), out);
            return 1;
        }
        let length = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        let decoded = text
            .get(..length)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|s| s.chars().next());
        match decoded {
            Some(character)
                if self.flags & ASCII != 0 || matches!(character, '\u{2028}' | '\u{2029}') =>
            {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    self.hex(u32::from(*unit), out);
                }
                length
            }
            _ => {
                out.push(byte);
                1
            }
        }
    }

    fn hex(&self, unit: u32, out: &mut Vec<u8>) {
        let digits = if self.flags & UPPER != 0 {
            b"0123456789ABCDEF"
        } else {
            b"0123456789abcdef"
        };
        let digit = |shift: u32| digits[(unit >> shift & 15) as usize];
        out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
    }
}

/// Marks (in its highest bit) the first byte of a word that JSON escapes: control characters,
/// quotes, backslashes and, if `wide`, what is beyond ASCII. Later bytes may be marked wrongly.
fn odd_bytes(word: u64, wide: bool) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let control = below(word, 32);
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let high = if wide { word } else { 0 };
    (control | quote | backslash | high) & (ONES << 7)
}

/// Decodes the inside of a JSON string; false where an escape has no meaning.
pub(crate) fn unescape(mut inside: &[u8], out: &mut Vec<u8>) -> bool {
    while let Some(at) = memchr::memchr(b'\\', inside) {
        out.extend_from_slice(&inside[..at]);
        let Some(&letter) = inside.get(at + 1) else {
            return false;
        };
        let mut used = at + 2;
        match letter {
            b'"' | b'\\' | b'/' => out.push(letter),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let Some(mut unit) = hex_unit(&inside[used..]) else {
                    return false;
                };
                used += 4;
                if (0xD800..0xDC00).contains(&unit) && inside[used..].starts_with(b"\\u") {
                    let Some(low) = hex_unit(&inside[used + 2..]) else {
                        return false;
                    };
                    if !(0xDC00..0xE000).contains(&low) {
                        return false;
                    }
                    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    used += 6;
                }
                let Some(character) = char::from_u32(unit) else {
                    return false;
                };
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return false,
        }
        inside = &inside[used..];
    }
    out.extend_from_slice(inside);
    true
}

fn hex_unit(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_as_the_sample_does() {
        for literal in [
            r#""caf\u00e9 \ud83d\ude00 a/b""#,
            r#""café <b>""#,
            r#""\u00E9 x""#,
            r#""a\/b""#,
            r#""\u003cb\u003e é""#,
            r#""tab\t \u0001""#,
        ] {
            let spelling = Spelling::detect(literal.as_bytes());
            let mut text = Vec::new();
            assert!(unescape(
                &literal.as_bytes()[1..literal.len() - 1],
                &mut text
            ));
            let mut out = Vec::new();
            spelling.string(&text, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), literal);
        }
    }

    #[test]
    fn pieces_and_bytes_agree_on_what_is_plain() {
        for flags in [0, ASCII, SLASH, HTML, SEPARATORS, DELETE] {
            let spelling = Spelling::new(flags, b",", b":");
            for odd in 0..=255u8 {
                for at in [0, 31, 32, 70] {
                    let mut text = [b'a'; 99];
                    text[at] = odd;
                    let plain = text
                        .iter()
                        .position(|&byte| !spelling.plain[usize::from(byte)]);
                    assert_eq!(spelling.plain_prefix(&text), plain.unwrap_or(99));
                }
            }
        }
    }

    #[test]
    fn what_is_decoded_at_once_is_spelled_the_same_again() {
        let pieces = [
            "a",
            "é",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "/",
            "\\u00e9",
            "\\u00E9",
            "\\u2028",
            "\u{2028}",
            "\\b",
            "\\u0008",
            "\\ud83d\\ude00",
            "<",
            "\\u003c",
            "\u{7f}",
            "\\u",
            "\\ud800",
            "\t",
            "long enough for words",
        ];
        for flags in [
            0,
            ASCII,
            SLASH,
            HTML,
            SEPARATORS,
            DELETE,
            LONG,
            ASCII | UPPER,
            ASCII | SEPARATORS,
        ] {
            let spelling = Spelling::new(flags, b",", b":");
            for first in pieces {
                for second in pieces {
                    let inside = format!("{first}{second}");
                    let mut text = Vec::new();
                    if !spelling.decode(inside.as_bytes(), &mut text) {
                        continue;
                    }
                    let (mut slow, mut again) = (Vec::new(), Vec::new());
                    assert!(unescape(inside.as_bytes(), &mut slow));
                    assert_eq!(text, slow);
                    spelling.string(&text, &mut again);
                    assert_eq!(String::from_utf8_lossy(&again), format!("\"{inside}\""));
                }
            }
        }
        let usual = Spelling::new(ASCII, b",", b":");
        assert!(usual.decode(br#"it\u2019s \"so\"\n"#, &mut Vec::new()));
    }

    #[test]
    fn lone_surrogates_are_left_to_the_caller() {
        assert!(!unescape(br"\ud800", &mut Vec::new()));
        assert!(!unescape(br"\ud800\u0041", &mut Vec::new()));
        assert!(!unescape(br"\u12", &mut Vec::new()));
    }
}
