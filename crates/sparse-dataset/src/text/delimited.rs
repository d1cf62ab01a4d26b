//! CSV and TSV records.

use super::template::Template;
use crate::table::{Kind, Record};

/// How a writer of delimited text separates and quotes.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    /// Columns that are quoted whether they need it or not.
    pub(crate) always: Vec<bool>,
}

impl Dialect {
    /// The delimiter that occurs most in the first line, outside quotes.
    pub(crate) fn detect(first_line: &[u8], tab: bool) -> Self {
        let mut quoted = false;
        let mut counts = [0usize; 4];
        const CANDIDATES: [u8; 4] = [b',', b'\t', b';', b'|'];
        for &byte in first_line {
            quoted ^= byte == b'"';
            if let Some(which) = CANDIDATES.iter().position(|&c| c == byte && !quoted) {
                counts[which] += 1;
            }
        }
        let best = (0..4)
            .max_by_key(|&which| (counts[which], 4 - which))
            .unwrap_or(0);
        let delimiter = match (tab, counts[best]) {
            (true, _) => b'\t',
            (false, 0) => b',',
            _ => CANDIDATES[best],
        };
        Self {
            delimiter,
            always: Vec::new(),
        }
    }

    /// The end of the record that starts at `from`, its line end included;
    /// `None` where a quote stays open.
    pub(crate) fn record_end(&self, input: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            if input.get(at) == Some(&b'"') {
                at = quoted_end(input, at)?;
            }
            match memchr::memchr3(self.delimiter, b'\n', b'\r', &input[at..]) {
                None => return Some(input.len()),
                Some(offset) => {
                    at += offset + 1;
                    match input[at - 1] {
                        b'\n' => return Some(at),
                        b'\r' if input.get(at) == Some(&b'\n') => return Some(at + 1),
                        b'\r' => return Some(at),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The fields of a record as they are spelled, and its line end.
    pub(crate) fn fields<'a>(&self, record: &'a [u8]) -> (Vec<&'a [u8]>, &'a [u8]) {
        let body = record.len()
            - match record {
                [.., b'\r', b'\n'] => 2,
                [.., b'\n' | b'\r'] => 1,
                _ => 0,
            };
        let mut fields = Vec::new();
        let mut at = 0;
        loop {
            let mut end = at;
            if record.get(at) == Some(&b'"') {
                end = quoted_end(&record[..body], at).unwrap_or(body);
            }
            end += memchr::memchr(self.delimiter, &record[end..body]).unwrap_or(body - end);
            fields.push(&record[at..end]);
            if end >= body {
                break;
            }
            at = end + 1;
        }
        (fields, &record[body..])
    }

    /// Adds a field to a record, decoded where that can be undone.
    pub(crate) fn push(&self, record: &mut Record, column: usize, literal: &[u8]) {
        let quoted = literal.len() >= 2
            && literal[0] == b'"'
            && quoted_end(literal, 0) == Some(literal.len());
        let must = self.always.get(column).copied().unwrap_or(false);
        if !quoted {
            let kind = if must || self.needs_quotes(literal) {
                Kind::Raw
            } else {
                Kind::Text
            };
            return record.push(column as u32, kind, literal);
        }
        let inside = &literal[1..literal.len() - 1];
        if memchr::memchr(b'"', inside).is_none() {
            let kind = if must || self.needs_quotes(inside) {
                Kind::Text
            } else {
                Kind::Raw
            };
            let bytes = if kind == Kind::Text { inside } else { literal };
            return record.push(column as u32, kind, bytes);
        }
        record.push_with(column as u32, Kind::Text, |out| {
            let mut rest = inside;
            while let Some(at) = memchr::memchr(b'"', rest) {
                out.extend_from_slice(&rest[..=at]);
                rest = rest.get(at + 2..).unwrap_or_default();
            }
            out.extend_from_slice(rest);
        });
    }

    fn needs_quotes(&self, text: &[u8]) -> bool {
        memchr::memchr3(self.delimiter, b'"', b'\n', text).is_some()
            || memchr::memchr(b'\r', text).is_some()
    }

    pub(crate) fn spell(&self, column: usize, kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
        let quote = kind == Kind::Text
            && (self.always.get(column).copied().unwrap_or(false) || self.needs_quotes(bytes));
        if !quote {
            return out.extend_from_slice(bytes);
        }
        out.push(b'"');
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'"', rest) {
            out.extend_from_slice(&rest[..=at]);
            out.push(b'"');
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        out.push(b'"');
    }

    /// The template of a record with so many columns and this line end.
    pub(crate) fn template(&self, columns: usize, line_end: &[u8]) -> Template {
        let mut pieces = vec![vec![self.delimiter]; columns + 1];
        pieces[0].clear();
        pieces[columns] = line_end.to_vec();
        Template {
            pieces,
            columns: (0..columns as u32).collect(),
        }
    }

    /// Which columns are quoted without need in a sample of records.
    pub(crate) fn learn_quotes(&mut self, columns: usize, records: &[Vec<&[u8]>]) {
        self.always = (0..columns)
            .map(|column| {
                let cells = || records.iter().filter_map(|fields| fields.get(column));
                let quoted = |cell: &&&[u8]| cell.first() == Some(&b'"');
                let plain =
                    |cell: &&&[u8]| cell.len() >= 2 && !self.needs_quotes(&cell[1..cell.len() - 1]);
                cells().all(|cell| quoted(&cell))
                    && cells().any(|cell| quoted(&cell) && plain(&cell))
            })
            .collect();
    }
}

/// The end of the quoted field that starts at `at`.
fn quoted_end(input: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let quote = from + memchr::memchr(b'"', input.get(from..)?)?;
        if input.get(quote + 1) != Some(&b'"') {
            return Some(quote + 1);
        }
        from = quote + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back_as_it_was_spelled() {
        let dialect = Dialect {
            delimiter: b',',
            always: vec![false, true, false],
        };
        let line = b"\"a,\"\"b\"\"\nc\",\"x\",\"needless\"\r\n";
        let (fields, end) = dialect.fields(line);
        assert_eq!((fields.len(), end), (3, b"\r\n".as_slice()));
        let mut record = Record::default();
        let mut out = Vec::new();
        for (column, field) in fields.iter().enumerate() {
            dialect.push(&mut record, column, field);
        }
        for (index, &cell) in record.cells().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            dialect.spell(index, cell.kind, record.bytes(cell), &mut out);
        }
        assert_eq!(out, line[..line.len() - 2]);
        assert_eq!(record.get(0), Some((Kind::Text, b"a,\"b\"\nc".as_slice())));
        assert_eq!(dialect.record_end(line, 0), Some(line.len()));
        assert_eq!(dialect.record_end(b"a,\"open", 0), None);
    }
}
