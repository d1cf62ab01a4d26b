//! One JSON value inside a record: where it ends, and its cell.

use super::spelling::{Spelling, unescape};
use crate::table::{Kind, Record};

/// The end of the string that starts at `at` with its quote.
pub(crate) fn string_end(input: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', input.get(from..)?)?;
        if input[found] == b'"' {
            return Some(found + 1);
        }
        from = found + 2;
    }
}

/// The end of the number or word that starts at `at`, if it is one.
pub(crate) fn scalar_end(input: &[u8], at: usize) -> Option<usize> {
    let rest = input.get(at..)?;
    let length = rest
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    let valid = match word.first()? {
        b'-' | b'0'..=b'9' => {
            matches!(word, b"-Infinity")
                || word
                    .iter()
                    .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
        }
        _ => matches!(word, b"true" | b"false" | b"null" | b"NaN" | b"Infinity"),
    };
    valid.then_some(at + length)
}

/// The end of the list or object that starts at `at`; brackets must match.
pub(crate) fn nested_end(input: &[u8], at: usize) -> Option<usize> {
    let mut open = Vec::new();
    let mut from = at;
    loop {
        match *input.get(from)? {
            b'"' => {
                from = string_end(input, from)?;
                continue;
            }
            bracket @ (b'[' | b'{') => open.push(bracket),
            bracket @ (b']' | b'}') => {
                if open.pop()? != if bracket == b']' { b'[' } else { b'{' } {
                    return None;
                }
                if open.is_empty() {
                    return Some(from + 1);
                }
            }
            _ => {}
        }
        from += 1;
    }
}

/// The end of the value that starts at `at`.
pub(crate) fn value_end(input: &[u8], at: usize) -> Option<usize> {
    match *input.get(at)? {
        b'"' => string_end(input, at),
        b'[' | b'{' => nested_end(input, at),
        _ => scalar_end(input, at),
    }
}

/// Adds the value that starts at `at` to the record; returns its end.
pub(crate) fn push_value(
    record: &mut Record,
    column: u32,
    input: &[u8],
    at: usize,
    spelling: &Spelling,
) -> Option<usize> {
    let end = if input.get(at) == Some(&b'"') {
        // Most strings are plain: then looking for what is not finds the end.
        let inside = &input[at + 1..];
        let plain = spelling.plain_prefix(inside);
        if inside.get(plain) == Some(&b'"') {
            record.push_plain(column, &inside[..plain]);
            return Some(at + plain + 2);
        }
        string_end(input, at + plain)?
    } else {
        value_end(input, at)?
    };
    push_leaf(record, column, &input[at..end], spelling);
    Some(end)
}

/// Adds the value spelled `literal` to the record, decoded where the usual
/// spelling leads back to the same bytes.
pub(crate) fn push_leaf(record: &mut Record, column: u32, literal: &[u8], spelling: &Spelling) {
    match literal[0] {
        b'"' => {
            let inside = &literal[1..literal.len() - 1];
            if record.try_push(column, Kind::Text, |out| spelling.decode(inside, out)) {
                return;
            }
            let mut text = Vec::new();
            let mut again = Vec::new();
            if unescape(inside, &mut text) {
                spelling.string(&text, &mut again);
                if again == literal {
                    return record.push(column, Kind::Text, &text);
                }
            }
            record.push(column, Kind::Raw, literal);
        }
        b'[' | b'{' => {
            let mut compact = Vec::new();
            let mut again = Vec::new();
            if respell(literal, &Spelling::canonical(), &mut compact).is_some()
                && respell(&compact, spelling, &mut again).is_some()
                && again == literal
            {
                return record.push(column, Kind::Nested, &compact);
            }
            record.push(column, Kind::Raw, literal);
        }
        b'n' if literal == b"null" => record.push(column, Kind::Null, b""),
        _ => record.push(column, Kind::Raw, literal),
    }
}

/// Writes a JSON value in another spelling.
pub(crate) fn respell(literal: &[u8], spelling: &Spelling, out: &mut Vec<u8>) -> Option<()> {
    let mut at = 0;
    let mut text = Vec::new();
    while let Some(&byte) = literal.get(at) {
        match byte {
            b'"' => {
                let end = string_end(literal, at)?;
                text.clear();
                if !unescape(&literal[at + 1..end - 1], &mut text) {
                    return None;
                }
                spelling.string(&text, out);
                at = end;
                continue;
            }
            b',' => out.extend_from_slice(&spelling.item_separator),
            b':' => out.extend_from_slice(&spelling.key_separator),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => out.push(byte),
        }
        at += 1;
    }
    Some(())
}

/// The elements of a list in compact JSON.
pub(crate) fn elements(list: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let mut at = 1;
    while list.first() == Some(&b'[') {
        let Some(end) = value_end(list, at) else {
            break;
        };
        out.push(&list[at..end]);
        at = end + 1;
    }
    out
}

/// The keys and values of an object in compact JSON.
pub(crate) fn members(object: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut out = Vec::new();
    let mut at = 1;
    while object.first() == Some(&b'{') && object.get(at) == Some(&b'"') {
        let Some(key_end) = string_end(object, at) else {
            break;
        };
        let Some(end) = value_end(object, key_end + 1) else {
            break;
        };
        out.push((&object[at..key_end], &object[key_end + 1..end]));
        at = end + 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_compact_and_spelled_as_found() {
        let literal = br#"[{"a": "x\u00e9", "b": 1.50}, []]"#;
        let spelling = Spelling::detect(literal);
        let mut record = Record::default();
        push_leaf(&mut record, 0, literal, &spelling);
        let (kind, bytes) = record
            .get(0)
            .map(|(kind, bytes)| (kind, bytes.to_vec()))
            .unwrap_or((Kind::Null, vec![]));
        assert_eq!(kind, Kind::Nested);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            r#"[{"a":"xé","b":1.50},[]]"#
        );
        assert_eq!(elements(&bytes).len(), 2);
        assert_eq!(
            elements(b"[1,\"a,b\",[2,3]]"),
            [b"1".as_slice(), b"\"a,b\"", b"[2,3]"]
        );
        assert!(elements(b"[]").is_empty());
    }
}
