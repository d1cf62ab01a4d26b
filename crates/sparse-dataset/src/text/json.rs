//! JSON records: by the template of the record before where it fits, by a
//! full scan where not.

use std::collections::HashSet;

use super::leaf::{nested_end, push_leaf, push_value, string_end, value_end};
use super::spelling::Spelling;
use super::template::{Columns, Template};
use crate::table::Record;

/// Deeper nesting than this is kept as one value.
const MAX_DEPTH: usize = 64;

/// An array or object that the scan is inside of.
#[derive(Clone, Debug)]
struct Frame {
    object: bool,
    /// Dotted path of the array or object.
    path: String,
    keys: HashSet<Vec<u8>>,
}

/// What was wrong, and where in the record.
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
    pub(crate) duplicate: Option<String>,
}

/// Scans JSON into templates and cells. For a document, records end with each
/// element of the array at `record_path`.
#[derive(Clone)]
pub(crate) struct JsonScanner {
    stack: Vec<Frame>,
    /// Arrays that are walked into; others are one value.
    pub(crate) walked: HashSet<String>,
    pub(crate) record_path: Option<String>,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

impl JsonScanner {
    pub(crate) fn lines() -> Self {
        Self {
            stack: Vec::new(),
            walked: HashSet::new(),
            record_path: None,
        }
    }

    pub(crate) fn document(walked: HashSet<String>, record_path: String) -> Self {
        Self {
            stack: Vec::new(),
            walked,
            record_path: Some(record_path),
        }
    }

    /// Scans one record from the start of `input`; returns its length.
    pub(crate) fn scan(
        &mut self,
        input: &[u8],
        columns: &mut Columns,
        spelling: &Spelling,
        template: &mut Template,
        record: &mut Record,
    ) -> Result<usize, Fault> {
        let fault = |at, expected| {
            Err(Fault {
                at,
                expected,
                duplicate: None,
            })
        };
        let mut at = if input.starts_with(b"\xEF\xBB\xBF") {
            3
        } else {
            0
        };
        let mut piece_start = 0;
        // Right after a record's element only `,`, `]` or `}` can follow.
        let mut after_value = !self.stack.is_empty();
        let mut path = String::new();
        loop {
            while input.get(at).copied().is_some_and(is_space) {
                at += 1;
            }
            let Some(&byte) = input.get(at) else {
                if !self.stack.is_empty() || (!after_value && self.record_path.is_some()) {
                    return fault(at, "more of the value");
                }
                break;
            };
            if after_value {
                let Some(top) = self.stack.last_mut() else {
                    return fault(at, "the end of the value");
                };
                match byte {
                    b',' => {
                        at += 1;
                        after_value = false;
                        if !top.object {
                            path.clone_from(&top.path);
                        }
                        // A value or key must follow, not a bracket.
                        let next = input[at..].iter().copied().find(|&b| !is_space(b));
                        if matches!(next, None | Some(b'}' | b']' | b',')) {
                            return fault(at, "a value after the comma");
                        }
                    }
                    b'}' | b']' if top.object == (byte == b'}') => {
                        at += 1;
                        self.stack.pop();
                        let in_array = self.stack.last().filter(|frame| !frame.object);
                        if byte == b'}'
                            && in_array
                                .is_some_and(|frame| Some(&frame.path) == self.record_path.as_ref())
                        {
                            break;
                        }
                    }
                    _ => return fault(at, "`,` or a closing bracket"),
                }
                continue;
            }
            if let Some(top) = self.stack.last_mut().filter(|top| top.object) {
                if byte == b'}' {
                    after_value = true;
                    continue;
                }
                if byte != b'"' {
                    return fault(at, "a key in quotes");
                }
                let Some(end) = string_end(input, at) else {
                    return fault(at, "the end of the key");
                };
                let key = &input[at + 1..end - 1];
                if !top.keys.insert(key.to_vec()) {
                    let name = String::from_utf8_lossy(key).into_owned();
                    return Err(Fault {
                        at,
                        expected: "each key once",
                        duplicate: Some(name),
                    });
                }
                path.clone_from(&top.path);
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&String::from_utf8_lossy(key));
                at = end;
                while input.get(at).copied().is_some_and(is_space) {
                    at += 1;
                }
                if input.get(at) != Some(&b':') {
                    return fault(at, "`:` after the key");
                }
                at += 1;
                while input.get(at).copied().is_some_and(is_space) {
                    at += 1;
                }
            } else if let Some(top) = self.stack.last() {
                path.clone_from(&top.path);
                if byte == b']' {
                    after_value = true;
                    continue;
                }
            }
            // A value starts here.
            let Some(&byte) = input.get(at) else {
                return fault(at, "a value");
            };
            let walk = self.stack.len() < MAX_DEPTH
                && (byte == b'{' || byte == b'[' && self.walked.contains(&path));
            if walk {
                self.stack.push(Frame {
                    object: byte == b'{',
                    path: path.clone(),
                    keys: HashSet::new(),
                });
                at += 1;
                continue;
            }
            let Some(end) = value_end(input, at) else {
                return fault(at, "a value");
            };
            if matches!(byte, b'[' | b'{') && !well_formed(&input[at..end]) {
                return fault(at, "a list that is valid JSON");
            }
            let column = columns.intern(&path);
            template.pieces.push(input[piece_start..at].to_vec());
            template.columns.push(column);
            push_leaf(record, column, &input[at..end], spelling);
            piece_start = end;
            at = end;
            after_value = true;
        }
        template.pieces.push(input[piece_start..at].to_vec());
        Ok(at)
    }

    /// Forgets the place inside the document (for the next line).
    pub(crate) fn reset(&mut self) {
        self.stack.clear();
    }

    /// Whether the document has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.stack.is_empty()
    }

    /// Objects that span records repeat their keys from one to the next.
    pub(crate) fn forget_keys(&mut self) {
        for frame in &mut self.stack {
            frame.keys.clear();
        }
    }
}

/// Whether brackets, strings and scalars of a nested value parse.
fn well_formed(value: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        at = match byte {
            b'"' => match string_end(value, at) {
                Some(end) => end,
                None => return false,
            },
            b'[' | b']' | b'{' | b'}' | b',' | b':' => at + 1,
            _ if is_space(byte) => at + 1,
            _ => match super::leaf::scalar_end(value, at) {
                Some(end) => end,
                None => return false,
            },
        };
    }
    nested_end(value, 0) == Some(value.len())
}

/// Fits a record to a template it may have; returns the record's length.
pub(crate) fn fit(
    template: &Template,
    input: &[u8],
    spelling: &Spelling,
    record: &mut Record,
) -> Option<usize> {
    let mut at = 0;
    for (piece, &column) in template.pieces.iter().zip(&template.columns) {
        if !input[at..].starts_with(piece) {
            return None;
        }
        at += piece.len();
        match *input.get(at)? {
            b'{' => return None,
            b'[' if !well_formed(&input[at..nested_end(input, at)?]) => return None,
            _ => at = push_value(record, column, input, at, spelling)?,
        }
    }
    let last = template.pieces.last()?;
    (!template.columns.is_empty() && input[at..].starts_with(last)).then_some(at + last.len())
}
