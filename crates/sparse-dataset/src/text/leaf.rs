//! One JSON value inside a record: where it ends, and its cell.

use super::spelling::{Spelling, unescape};
use crate::table::{Kind, Record};

/// The first place from `at` on that is no white space.
pub(crate) fn past_space(input: &[u8], at: usize) -> usize {
    let rest = input.get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
        .count()
}

/// The end of the string that starts at `at` with its quote; nothing where it has
/// none, or an escape that JSON does not know.
pub(crate) fn string_end(input: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', input.get(from..)?)?;
        if input[found] == b'"' {
            return Some(found + 1);
        }
        from = match input.get(found + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => found + 2,
            b'u' => {
                let digits = input.get(found + 2..found + 6)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                found + 6
            }
            _ => return None,
        };
    }
}

/// What a key says, given what stands between its quotes.
pub(crate) fn key_name(spelled: &[u8]) -> String {
    let mut said = Vec::new();
    let is_valid = unescape(spelled, &mut said);
    String::from_utf8_lossy(if is_valid { &said } else { spelled }).into_owned()
}

/// The end of the number or word that starts at `at`, if it is one.
pub(crate) fn scalar_end(input: &[u8], at: usize) -> Option<usize> {
    let rest = input.get(at..)?;
    let length = rest
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')))
        .unwrap_or(rest.len());
    let word = &rest[..length];
    // Writers in several languages know the last three.
    let valid = is_number(word)
        || matches!(
            word,
            b"true" | b"false" | b"null" | b"NaN" | b"Infinity" | b"-Infinity"
        );
    valid.then_some(at + length)
}

/// Whether a word is a number as JSON spells them.
fn is_number(word: &[u8]) -> bool {
    let digits = |word: &[u8]| word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let word = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits(word);
    if whole == 0 || whole > 1 && word[0] == b'0' {
        return false;
    }
    let mut rest = &word[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    let [b'e' | b'E', exponent @ ..] = rest else {
        return rest.is_empty();
    };
    let exponent = exponent
        .strip_prefix(b"-")
        .or(exponent.strip_prefix(b"+"))
        .unwrap_or(exponent);
    !exponent.is_empty() && digits(exponent) == exponent.len()
}

/// The end of the list or object that starts at `at`, if it is valid.
pub(crate) fn nested_end(input: &[u8], at: usize) -> Option<usize> {
    /// What may come next.
    #[derive(PartialEq)]
    enum Next {
        /// The first value of a list or key of an object, or its end.
        First,
        Key,
        Value,
        /// A comma, or the end.
        More,
    }
    let mut open = Vec::new();
    let mut next = Next::Value;
    let mut from = at;
    loop {
        from = past_space(input, from);
        let byte = *input.get(from)?;
        let in_object = open.last() == Some(&b'{');
        match byte {
            b']' | b'}' if matches!(next, Next::First | Next::More) => {
                if open.pop()? != (if byte == b']' { b'[' } else { b'{' }) {
                    return None;
                }
                from += 1;
                if open.is_empty() {
                    return Some(from);
                }
                next = Next::More;
            }
            b',' if next == Next::More => {
                from += 1;
                next = if in_object { Next::Key } else { Next::Value };
            }
            _ if next == Next::More => return None,
            b'"' if in_object && next != Next::Value => {
                from = past_space(input, string_end(input, from)?);
                if input.get(from) != Some(&b':') {
                    return None;
                }
                from += 1;
                next = Next::Value;
            }
            _ if in_object && next != Next::Value => return None,
            b'[' | b'{' => {
                open.push(byte);
                from += 1;
                next = Next::First;
            }
            b'"' => {
                from = string_end(input, from)?;
                next = Next::More;
            }
            _ => {
                from = scalar_end(input, from)?;
                next = Next::More;
            }
        }
    }
}

/// Whether the list that starts at `at` holds objects alone, at least one and at
/// most `most`.
pub(crate) fn holds_objects(input: &[u8], at: usize, most: usize) -> bool {
    let mut from = at + 1;
    for _ in 0..most {
        from = past_space(input, from);
        if input.get(from) != Some(&b'{') {
            return false;
        }
        let Some(end) = nested_end(input, from) else {
            return false;
        };
        from = past_space(input, end);
        match input.get(from) {
            Some(b']') => return true,
            Some(b',') => from += 1,
            _ => return false,
        }
    }
    false
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
    fn only_what_json_allows_is_a_value() {
        let whole = |text: &str| value_end(text.as_bytes(), 0) == Some(text.len());
        for text in [
            "0",
            "-0",
            "10.50",
            "1e5",
            "-1.5E+10",
            "true",
            "null",
            "NaN",
            "-Infinity",
            r#""\u00e9\n""#,
            "[]",
            "{}",
            "[ 1 , [ ] , {\"a\" : {} } ]",
            r#"{"a":[{"b":"]"}],"c":null}"#,
        ] {
            assert!(whole(text), "{text}");
        }
        for text in [
            "01",
            "1.",
            ".5",
            "1.2.3",
            "--1",
            "-",
            "1e",
            "+1",
            "tru",
            "nan",
            r#""\q""#,
            r#""\u12g4""#,
            "[1 2]",
            "[1,]",
            "[,1]",
            "[1",
            r#"["k":1]"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{1:2}"#,
            "{]",
            r#"{"a" "b"}"#,
            "[tru]",
            "[01]",
            r#"["\x"]"#,
        ] {
            assert!(!whole(text), "{text}");
        }
    }

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
