//! JSON records: by the template of the record before where it fits, by a
//! full scan where not.

use std::collections::HashSet;

use super::leaf::{
    holds_objects, key_name, past_space, push_leaf, push_value, string_end, value_end,
};
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
    /// Of an array that is taken apart, which element comes.
    element: Option<usize>,
    keys: HashSet<String>,
}

impl Frame {
    /// Dotted path of the value that comes in an array.
    fn element_path(&self) -> String {
        match self.element {
            Some(element) => format!("{}.{element}", self.path),
            None => self.path.clone(),
        }
    }
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
    /// Where lists of a few objects are taken apart, each object with columns of
    /// its own: those that are not.
    pub(crate) whole: Option<HashSet<String>>,
}

/// Objects in a list that is taken apart, at most: lists of other lengths make
/// templates of their own.
const APART: usize = 8;

impl JsonScanner {
    pub(crate) fn lines() -> Self {
        Self {
            stack: Vec::new(),
            walked: HashSet::new(),
            record_path: None,
            whole: None,
        }
    }

    pub(crate) fn document(walked: HashSet<String>, record_path: String) -> Self {
        Self {
            stack: Vec::new(),
            walked,
            record_path: Some(record_path),
            whole: None,
        }
    }

    /// Whether the list at `at`, whose path is `path`, is taken apart.
    fn takes_apart(&self, path: &str, input: &[u8], at: usize) -> bool {
        let Some(whole) = &self.whole else {
            return false;
        };
        !whole.contains(path) && holds_objects(input, at, APART)
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
            at = past_space(input, at);
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
                            top.element = top.element.map(|element| element + 1);
                            path = top.element_path();
                        }
                        // A value or key must follow, not a bracket.
                        let next = input.get(past_space(input, at)).copied();
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
                let key = key_name(key);
                if !top.keys.insert(key.clone()) {
                    return Err(Fault {
                        at,
                        expected: "each key once",
                        duplicate: Some(key),
                    });
                }
                path.clone_from(&top.path);
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
                at = past_space(input, end);
                if input.get(at) != Some(&b':') {
                    return fault(at, "`:` after the key");
                }
                at = past_space(input, at + 1);
            } else if let Some(top) = self.stack.last() {
                path = top.element_path();
                if byte == b']' {
                    after_value = true;
                    continue;
                }
            }
            // A value starts here.
            let Some(&byte) = input.get(at) else {
                return fault(at, "a value");
            };
            let apart = byte == b'[' && self.takes_apart(&path, input, at);
            let walk = self.stack.len() < MAX_DEPTH
                && (byte == b'{' || apart || byte == b'[' && self.walked.contains(&path));
            if walk {
                self.stack.push(Frame {
                    object: byte == b'{',
                    path: path.clone(),
                    element: apart.then_some(0),
                    keys: HashSet::new(),
                });
                at += 1;
                continue;
            }
            let Some(end) = value_end(input, at) else {
                return fault(at, "a value");
            };
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

/// Fits a record to a template it may have; returns the record's length.
pub(crate) fn fit(
    template: &Template,
    scanner: &JsonScanner,
    columns: &Columns,
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
            b'[' if scanner.takes_apart(&columns.names[column as usize], input, at) => return None,
            _ => at = push_value(record, column, input, at, spelling)?,
        }
    }
    let last = template.pieces.last()?;
    (!template.columns.is_empty() && input[at..].starts_with(last)).then_some(at + last.len())
}
