//! What a JSON document is made of: which of its arrays are the records.

use std::collections::{BTreeMap, HashSet};

use super::leaf::{scalar_end, string_end};

#[derive(Default)]
struct Seen {
    arrays: u64,
    objects: u64,
    others: u64,
    longest: u64,
    first_at: u64,
}

struct Frame {
    object: bool,
    path: String,
    objects: u64,
    elements: u64,
}

/// The arrays to walk into, and the one whose elements are the records: the
/// array of objects with the most elements, the outermost where they tie.
pub(crate) fn survey(input: &[u8]) -> (HashSet<String>, String) {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut stack: Vec<Frame> = Vec::new();
    let mut key: Option<String> = None;
    let mut order = 0;
    let mut at = 0;
    while let Some(&byte) = input.get(at) {
        let end = match byte {
            b'"' => string_end(input, at),
            b'{' | b'[' => {
                let path = match (stack.last(), key.take()) {
                    (Some(top), Some(key)) if top.object && !top.path.is_empty() => {
                        format!("{}.{key}", top.path)
                    }
                    (Some(top), Some(key)) if top.object => key,
                    (Some(top), _) => top.path.clone(),
                    (None, _) => String::new(),
                };
                if let Some(top) = stack.last_mut() {
                    top.elements += 1;
                    top.objects += u64::from(byte == b'{');
                }
                if stack.len() >= 64 {
                    break;
                }
                if byte == b'[' {
                    order += 1;
                    seen.entry(path.clone()).or_insert_with(|| Seen {
                        first_at: order,
                        ..Seen::default()
                    });
                }
                stack.push(Frame {
                    object: byte == b'{',
                    path,
                    objects: 0,
                    elements: 0,
                });
                Some(at + 1)
            }
            b'}' | b']' => {
                if let Some(frame) = stack.pop()
                    && !frame.object
                    && let Some(entry) = seen.get_mut(&frame.path)
                {
                    entry.arrays += 1;
                    entry.objects += frame.objects;
                    entry.others += frame.elements - frame.objects;
                    entry.longest = entry.longest.max(frame.elements);
                }
                Some(at + 1)
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => scalar_end(input, at),
            _ => Some(at + 1),
        };
        let Some(end) = end else { break };
        if end > at + 1 || byte.is_ascii_alphanumeric() {
            let is_key = byte == b'"'
                && stack.last().is_some_and(|top| top.object)
                && input[end..]
                    .iter()
                    .copied()
                    .find(|b| !b.is_ascii_whitespace())
                    == Some(b':');
            if is_key {
                key = Some(String::from_utf8_lossy(&input[at + 1..end - 1]).into_owned());
            } else if let Some(top) = stack.last_mut() {
                top.elements += 1;
            }
        }
        at = end;
    }
    let of_objects = |seen: &Seen| seen.others == 0 && seen.objects > 0;
    let record = seen
        .iter()
        .filter(|(_, seen)| of_objects(seen))
        .max_by_key(|(_, seen)| (seen.objects, u64::MAX - seen.first_at))
        .map(|(path, _)| path.clone());
    let Some(record) = record else {
        return (HashSet::new(), "\0".to_owned());
    };
    let walked = seen
        .iter()
        .filter(|(path, seen)| {
            let around = record.as_str() == path.as_str()
                || path.is_empty()
                || record.starts_with(&format!("{path}."));
            of_objects(seen) && (around || seen.longest == 1 && seen.objects == seen.arrays)
        })
        .map(|(path, _)| path.clone())
        .collect();
    (walked, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_the_records_of_squad() {
        let document = br#"{"data":[{"title":"t","paragraphs":[{"context":"c","qas":[
            {"id":"1","answers":[{"text":"a"}]},{"id":"2","answers":[{"text":"b"}]}]}]}],"tags":[1,2,3]}"#;
        let (walked, record) = survey(document);
        assert_eq!(record, "data.paragraphs.qas");
        assert!(
            walked.contains("data.paragraphs.qas.answers")
                && walked.contains("data")
                && !walked.contains("tags")
        );
    }
}
