//! Where the records of a text file end, found window by window.

use super::ends::Ends;
use super::record::{MAX_RECORD, Record};
use super::source::Source;
use super::textual::{count_lines, fault_error};
use crate::error::{Error, Result};
use crate::text::{Dialect, RecordParser, Survey};

/// Bytes looked at together; a record that does not end in them gets more.
const WINDOW: u64 = 8 << 20;

/// Goes through a file by windows. `visit` is given a window, its place and
/// whether the file ends with it, and returns how many bytes it is done with;
/// where it is done with none the window grows. Stops at windows that are
/// larger than a record may be, and gives how far it came.
fn windows(
    source: &Source,
    mut visit: impl FnMut(u64, &[u8], bool) -> Result<usize>,
) -> Result<u64> {
    let mut buffer = Vec::new();
    let (mut at, mut window) = (0, WINDOW);
    while at < source.len && window <= 2 * MAX_RECORD as u64 {
        let end = (at + window).min(source.len);
        let done = visit(at, source.read(at, end, &mut buffer)?, end == source.len)?;
        if done == 0 && end == source.len {
            break;
        }
        window = if done == 0 { window * 2 } else { WINDOW };
        at += done as u64;
    }
    Ok(at)
}

fn too_large(source: &Source, at: u64) -> Error {
    Error::TooLarge {
        path: source.path.clone(),
        what: format!("the record at byte {at}"),
        found: source.len - at,
        limit: MAX_RECORD as u64,
    }
}

/// Notes where a record ends.
fn push(source: &Source, ends: &mut Ends, end: u64) -> Result<()> {
    let found = end - ends.last();
    if found <= MAX_RECORD as u64 && ends.push(end) {
        return Ok(());
    }
    Err(Error::TooLarge {
        path: source.path.clone(),
        what: format!("the record at byte {}", ends.last()),
        found,
        limit: MAX_RECORD as u64,
    })
}

/// The ends of lines.
pub(super) fn lines(source: &Source) -> Result<Ends> {
    let mut ends = Ends::default();
    let mut at = 0u64;
    source.chunks(|chunk| {
        for offset in memchr::memchr_iter(b'\n', chunk) {
            push(source, &mut ends, at + offset as u64 + 1)?;
        }
        at += chunk.len() as u64;
        Ok(())
    })?;
    if ends.last() < source.len {
        push(source, &mut ends, source.len)?;
    }
    Ok(ends)
}

/// What a JSON document is made of.
pub(super) fn survey(source: &Source) -> Result<Survey> {
    let mut survey = Survey::default();
    windows(source, |_, bytes, last| Ok(survey.feed(bytes, last)))?;
    Ok(survey)
}

/// The ends of the records of a JSON document.
pub(super) fn document(source: &Source, parser: &mut RecordParser) -> Result<Ends> {
    let mut ends = Ends::default();
    let mut record = Record::default();
    let reached = windows(source, |at, bytes, last| {
        let mut done = 0;
        while done < bytes.len() {
            match parser.step(&bytes[done..], at == 0 && done == 0, &mut record) {
                // What touches the end of the window may go on.
                Ok(length) if done + length < bytes.len() || last => {
                    done += length.max(1);
                    push(source, &mut ends, at + done as u64)?;
                }
                Err(fault) if last => {
                    return Err(fault_error(source, at + done as u64, &bytes[done..], fault));
                }
                _ => break,
            }
        }
        Ok(done)
    })?;
    if reached < source.len {
        return Err(too_large(source, reached));
    }
    Ok(ends)
}

/// The ends of the records of a delimited file.
pub(super) fn delimited(source: &Source, dialect: &Dialect, lenient: bool) -> Result<Ends> {
    let mut ends = Ends::default();
    let reached = windows(source, |at, bytes, last| {
        let mut done = 0;
        while done < bytes.len() {
            match dialect.record_end(bytes, done) {
                Some(end) if end < bytes.len() || last => {
                    push(source, &mut ends, at + end as u64)?;
                    done = end;
                }
                None if last && lenient => {
                    // The quote is one without a partner: its line is a record.
                    let rest = &bytes[done..];
                    done += memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    push(source, &mut ends, at + done as u64)?;
                }
                None if last => {
                    return Err(Error::Malformed {
                        path: source.path.clone(),
                        line: 1 + count_lines(source, at + done as u64)?,
                        expected: "a closing quote".to_owned(),
                        found: "the end of the file".to_owned(),
                    });
                }
                _ => break,
            }
        }
        Ok(done)
    })?;
    if reached < source.len {
        return Err(too_large(source, reached));
    }
    Ok(ends)
}
