//! What a JSON document is made of: which of its arrays are the records.

use std::collections::{BTreeMap, HashSet};

use super::leaf::{key_name, scalar_end, string_end};

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

/// Looks a document through, window by window.
#[derive(Default)]
pub(crate) struct Survey {
    seen: BTreeMap<String, Seen>,
    stack: Vec<Frame>,
    key: Option<String>,
    order: u64,
    /// Set where the document is not JSON; the parser will say what is wrong.
    stopped: bool,
}

impl Survey {
    /// Looks at the next bytes and returns how many are done with; the rest is
    /// to be shown again with more behind it. `last` says that none follow.
    pub(crate) fn feed(&mut self, input: &[u8], last: bool) -> usize {
        let mut at = 0;
        while let (false, Some(&byte)) = (self.stopped, input.get(at)) {
            let scalar = byte == b'-' || byte.is_ascii_alphanumeric();
            let end = match byte {
                b'"' => string_end(input, at),
                // A number or word that touches the end may go on.
                _ if scalar => scalar_end(input, at).filter(|&end| end < input.len() || last),
                _ => Some(at + 1),
            };
            let Some(end) = end else {
                self.stopped = last;
                break;
            };
            match byte {
                b'{' | b'[' => self.open(byte == b'{'),
                b'}' | b']' => self.close(),
                b'"' => match input[end..].iter().find(|b| !b.is_ascii_whitespace()) {
                    None if !last => break,
                    Some(b':') if self.stack.last().is_some_and(|top| top.object) => {
                        self.key = Some(key_name(&input[at + 1..end - 1]));
                    }
                    _ => self.count(),
                },
                _ if scalar => self.count(),
                _ => {}
            }
            at = end;
        }
        if self.stopped { input.len() } else { at }
    }

    fn count(&mut self) {
        if let Some(top) = self.stack.last_mut() {
            top.elements += 1;
        }
    }

    fn open(&mut self, object: bool) {
        let path = match (self.stack.last(), self.key.take()) {
            (Some(top), Some(key)) if top.object && !top.path.is_empty() => {
                format!("{}.{key}", top.path)
            }
            (Some(top), Some(key)) if top.object => key,
            (Some(top), _) => top.path.clone(),
            (None, _) => String::new(),
        };
        if let Some(top) = self.stack.last_mut() {
            top.elements += 1;
            top.objects += u64::from(object);
        }
        if self.stack.len() >= 64 {
            self.stopped = true;
            return;
        }
        if !object {
            self.order += 1;
            let order = self.order;
            self.seen.entry(path.clone()).or_insert_with(|| Seen {
                first_at: order,
                ..Seen::default()
            });
        }
        self.stack.push(Frame {
            object,
            path,
            objects: 0,
            elements: 0,
        });
    }

    fn close(&mut self) {
        if let Some(frame) = self.stack.pop()
            && !frame.object
            && let Some(entry) = self.seen.get_mut(&frame.path)
        {
            entry.arrays += 1;
            entry.objects += frame.objects;
            entry.others += frame.elements - frame.objects;
            entry.longest = entry.longest.max(frame.elements);
        }
    }

    /// The arrays to walk into, and the one whose elements are the records:
    /// the array of objects with the most elements, the outermost where they tie.
    pub(crate) fn finish(self) -> (HashSet<String>, String) {
        let seen = self.seen;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_the_records_of_squad() {
        let document = br#"{"data":[{"title":"t","paragraphs":[{"context":"c","qas":[
            {"id":"1","answers":[{"text":"a"}]},{"id":"2","answers":[{"text":"b"}]}]}]}],"tags":[1,2,3]}"#;
        // Whole, and in windows of every size.
        for window in 1..=document.len() {
            let mut survey = Survey::default();
            let (mut at, mut grown) = (0, window);
            while at < document.len() {
                let end = (at + grown).min(document.len());
                let done = survey.feed(&document[at..end], end == document.len());
                grown = if done == 0 { grown * 2 } else { window };
                at += done;
            }
            let (walked, record) = survey.finish();
            assert_eq!(record, "data.paragraphs.qas");
            assert!(
                walked.contains("data.paragraphs.qas.answers")
                    && walked.contains("data")
                    && !walked.contains("tags")
            );
        }
    }
}
