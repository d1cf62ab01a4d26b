//! Expects the results of sums: after `48/2=` comes `24`. Worked solutions
//! also repeat a sum in brackets, and its result behind them
//! (`48/2 = <<48/2=24>>24`), and end in the last result (`#### 24`).

use super::slots::Slot;

/// How far back a sum may begin.
const REACH: usize = 64;

/// What is expected, and why.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Result = 1,
    Sum = 2,
    Again = 3,
    Last = 4,
}

/// Follows sums and expects what they come to.
#[derive(Clone)]
pub(super) struct Arithmetic {
    expected: Vec<u8>,
    at: usize,
    kind: Option<Kind>,
    result: Vec<u8>,
    counters: [Slot; 64],
}

impl Arithmetic {
    pub(super) fn new() -> Self {
        Self {
            expected: Vec::new(),
            at: 0,
            kind: None,
            result: Vec::new(),
            counters: [Slot::FRESH; 64],
        }
    }

    /// A new text starts: no result is known.
    pub(super) fn start(&mut self) {
        self.kind = None;
        self.result.clear();
    }

    /// Moves on by the byte that ends the history.
    pub(super) fn advance(&mut self, history: &[u8]) {
        let Some((&byte, before)) = history.split_last() else {
            return;
        };
        if self.kind.is_some() {
            if self.expected.get(self.at) == Some(&byte) {
                self.at += 1;
                if self.at == self.expected.len() {
                    self.kind = None;
                }
            } else if !(self.at == 0 && matches!(byte, b' ' | b'$')) {
                self.kind = None;
            }
        }
        let tail = &before[before.len().saturating_sub(REACH)..];
        match byte {
            b'=' => {
                let sum = sum_before(tail);
                if let Some(value) = evaluate(&sum) {
                    self.result = written(value);
                    let mut expected = self.result.clone();
                    if tail[..tail.len() - sum.len().min(tail.len())].ends_with(b"<<") {
                        expected.extend_from_slice(b">>");
                    }
                    self.expect(expected, Kind::Result);
                }
            }
            b'<' if tail.last() == Some(&b'<') => {
                let end = tail
                    .iter()
                    .rposition(|byte| !matches!(byte, b'<' | b' ' | b'$' | b'='))
                    .map_or(0, |last| last + 1);
                let mut sum: Vec<u8> = sum_before(&tail[..end])
                    .into_iter()
                    .filter(|byte| !matches!(byte, b' ' | b'$' | b','))
                    .map(|byte| if byte == b'x' { b'*' } else { byte })
                    .collect();
                if !sum.is_empty() {
                    sum.push(b'=');
                    self.expect(sum, Kind::Sum);
                }
            }
            b'>' if tail.last() == Some(&b'>') => {
                // What stands in the brackets counts, whatever was expected.
                if let Some(equals) = tail.iter().rposition(|&byte| byte == b'=') {
                    self.result = tail[equals + 1..tail.len() - 1].to_vec();
                }
                self.expect(self.result.clone(), Kind::Again);
            }
            b' ' if tail.ends_with(b"####") => self.expect(self.result.clone(), Kind::Last),
            _ => {}
        }
    }

    fn expect(&mut self, expected: Vec<u8>, kind: Kind) {
        self.kind = (!expected.is_empty()).then_some(kind);
        self.expected = expected;
        self.at = 0;
    }

    /// The byte that should come next.
    #[inline]
    pub(super) fn expected(&self) -> Option<u8> {
        self.kind.and_then(|_| self.expected.get(self.at).copied())
    }

    /// Which expectation it is, 0 where there is none.
    #[inline]
    pub(super) fn kind(&self) -> usize {
        self.kind.map_or(0, |kind| kind as usize)
    }

    fn counter(&self) -> usize {
        self.kind() * 8 + self.at.min(7)
    }

    /// The probability that the expected bit is right.
    #[inline]
    pub(super) fn trust(&self) -> u16 {
        self.counters[self.counter()].p()
    }

    /// Takes note of whether the expected bit was right.
    #[inline]
    pub(super) fn learn(&mut self, right: bool) {
        let counter = self.counter();
        self.counters[counter].learn(right, 250);
    }
}

fn belongs(byte: u8) -> bool {
    byte.is_ascii_digit()
        || matches!(
            byte,
            b'.' | b',' | b'+' | b'-' | b'*' | b'/' | b'x' | b'(' | b')' | b' ' | b'$' | b'%'
        )
}

/// The sum that ends the text, as it is written.
fn sum_before(text: &[u8]) -> Vec<u8> {
    let start = text
        .iter()
        .rposition(|&byte| !belongs(byte))
        .map_or(0, |last| last + 1);
    let sum = &text[start..];
    let first = sum
        .iter()
        .position(|byte| byte.is_ascii_digit() || matches!(byte, b'(' | b'.' | b'-'))
        .unwrap_or(sum.len());
    sum[first..].to_vec()
}

/// A number as such solutions write it.
fn written(value: f64) -> Vec<u8> {
    // Rounded to four places: exact in every float this can hold.
    let rounded = (value * 10_000.0).round() / 10_000.0;
    format!("{rounded}").into_bytes()
}

/// What a sum comes to; nothing for a lone number or what is not a sum.
fn evaluate(sum: &[u8]) -> Option<f64> {
    let mut parser = Parser {
        rest: sum,
        operations: 0,
    };
    let value = parser.terms(0)?;
    parser.space();
    (parser.rest.is_empty() && parser.operations > 0 && value.is_finite() && value.abs() < 1e12)
        .then_some(value)
}

struct Parser<'a> {
    rest: &'a [u8],
    operations: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        while let [b' ' | b'$', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn terms(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.factors(depth)?;
        loop {
            self.space();
            let (sign, rest) = match self.rest {
                [b'+', rest @ ..] => (1.0, rest),
                [b'-', rest @ ..] => (-1.0, rest),
                _ => return Some(value),
            };
            self.rest = rest;
            self.operations += 1;
            value += sign * self.factors(depth)?;
        }
    }

    fn factors(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.number(depth)?;
        loop {
            self.space();
            let (divide, rest) = match self.rest {
                [b'*' | b'x', rest @ ..] => (false, rest),
                [b'/', rest @ ..] => (true, rest),
                [b'(', ..] => (false, self.rest),
                _ => return Some(value),
            };
            self.rest = rest;
            self.operations += 1;
            let other = self.number(depth)?;
            value = if divide { value / other } else { value * other };
        }
    }

    fn number(&mut self, depth: usize) -> Option<f64> {
        self.space();
        if let [b'(', rest @ ..] = self.rest {
            if depth > 8 {
                return None;
            }
            self.rest = rest;
            let value = self.terms(depth + 1)?;
            self.space();
            self.rest = self.rest.strip_prefix(b")")?;
            return Some(value);
        }
        if let [b'-', rest @ ..] = self.rest {
            self.rest = rest;
            return self
                .number(depth + 1)
                .filter(|_| depth <= 8)
                .map(|value| -value);
        }
        let length = self
            .rest
            .iter()
            .position(|byte| !(byte.is_ascii_digit() || matches!(byte, b'.' | b',')))
            .unwrap_or(self.rest.len());
        let digits: Vec<u8> = self.rest[..length]
            .iter()
            .copied()
            .filter(|&b| b != b',')
            .collect();
        self.rest = &self.rest[length..];
        let mut value: f64 = std::str::from_utf8(&digits).ok()?.parse().ok()?;
        if let [b'%', rest @ ..] = self.rest {
            self.rest = rest;
            value /= 100.0;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is expected after `text`.
    fn after(text: &str) -> String {
        let mut arithmetic = Arithmetic::new();
        for end in 1..=text.len() {
            arithmetic.advance(&text.as_bytes()[..end]);
        }
        match arithmetic.kind {
            Some(_) => String::from_utf8_lossy(&arithmetic.expected[arithmetic.at..]).into_owned(),
            None => String::new(),
        }
    }

    #[test]
    fn sums_are_worked_out() {
        assert_eq!(after("so 48/2="), "24");
        assert_eq!(after("She has 2 + 3*(4 - 1) ="), "11");
        assert_eq!(after("a $1,200 - 10% of it"), "");
        assert_eq!(after("<<200*15%="), "30>>");
        assert_eq!(after("<<.5+.75=1"), ".25>>");
        assert_eq!(after("7 = "), "");
        assert_eq!(after("1/0="), "");
    }

    #[test]
    fn sums_and_results_are_repeated() {
        assert_eq!(after("sold 48 / 2 = $<<"), "48/2=");
        assert_eq!(after("<<48/2=25>>"), "25");
        assert_eq!(after("<<48/2=24>>24 clips\n#### "), "24");
    }
}
