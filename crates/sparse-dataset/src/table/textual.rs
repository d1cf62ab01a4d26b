//! A text file as a table: where its records are, each parsed when asked for.

use std::path::Path;

use super::record::{MAX_RECORD, Record};
use super::source::Source;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::text::{Columns, Dialect, JsonScanner, RecordParser, Spelling, survey, value_end};

/// The sample from which the habits of a writer are read.
const SAMPLE: u64 = 4 << 20;

/// An opened text file.
pub(crate) struct TextTable {
    source: Source,
    /// The end of each record.
    pub(crate) ends: Vec<u64>,
    pub(crate) parser: RecordParser,
    /// Records before the first row (the header line).
    header: u32,
    buffer: Vec<u8>,
}

impl TextTable {
    pub(crate) fn open(source: Source, format: Format, options: TextOptions) -> Result<Self> {
        let mut buffer = Vec::new();
        let sample = source.read(0, SAMPLE, &mut buffer)?;
        match format {
            Format::Json if !holds_several_values(sample) => {
                let spelling = Spelling::detect(sample);
                Self::document(source, spelling, options)
            }
            Format::Csv | Format::Tsv => Self::delimited(source, format, options),
            _ => {
                let spelling = Spelling::detect(sample);
                let parser = RecordParser::json(spelling, JsonScanner::lines(), options.lenient);
                let mut ends = Vec::new();
                let mut at = 0u64;
                source.chunks(|chunk| {
                    ends.extend(
                        memchr::memchr_iter(b'\n', chunk).map(|offset| at + offset as u64 + 1),
                    );
                    at += chunk.len() as u64;
                    Ok(())
                })?;
                if ends.last().copied().unwrap_or(0) < source.len {
                    ends.push(source.len);
                }
                Self::new(source, ends, parser, 0)
            }
        }
    }

    fn new(source: Source, ends: Vec<u64>, parser: RecordParser, header: u32) -> Result<Self> {
        let mut start = 0;
        for &end in &ends {
            if end - start > MAX_RECORD as u64 {
                return Err(Error::TooLarge {
                    path: source.path,
                    what: "a record".to_owned(),
                    found: end - start,
                    limit: MAX_RECORD as u64,
                });
            }
            start = end;
        }
        if ends.len() as u64 >= u64::from(u32::MAX) {
            let found = ends.len() as u64;
            return Err(Error::TooLarge {
                path: source.path,
                what: "the number of records".to_owned(),
                found,
                limit: u64::from(u32::MAX) - 1,
            });
        }
        Ok(Self {
            source,
            ends,
            parser,
            header,
            buffer: Vec::new(),
        })
    }

    fn document(source: Source, spelling: Spelling, options: TextOptions) -> Result<Self> {
        let Some(bytes) = source.in_memory() else {
            let (path, found) = (source.path.clone(), source.len);
            return Err(Error::TooLarge {
                path,
                what: "a .json document".to_owned(),
                found,
                limit: 192 << 20,
            });
        };
        let (walked, path) = survey(bytes);
        let mut parser = RecordParser::json(
            spelling,
            JsonScanner::document(walked, path),
            options.lenient,
        );
        let mut ends = Vec::new();
        let mut record = Record::default();
        let mut at = 0usize;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let length = parser.step(rest, at == 0, &mut record).map_err(|fault| {
                malformed(
                    &source.path,
                    bytes,
                    at + fault.at,
                    fault.expected,
                    fault.duplicate,
                )
            })?;
            at += length.max(1);
            ends.push(at as u64);
        }
        Self::new(source, ends, parser, 0)
    }

    fn delimited(source: Source, format: Format, options: TextOptions) -> Result<Self> {
        let mut buffer = Vec::new();
        let sample = source.read(0, SAMPLE, &mut buffer)?;
        let first_line = sample
            .split(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let mut dialect = Dialect::detect(first_line, format == Format::Tsv);
        let mut records = Vec::new();
        let mut at = 0;
        while at < sample.len() && records.len() < 1000 {
            let Some(end) = dialect.record_end(sample, at) else {
                break;
            };
            records.push(dialect.fields(&sample[at..end]).0);
            at = end;
        }
        let header = u32::from(options.header && !records.is_empty());
        let mut names: Vec<String> = match records.first() {
            Some(fields) if options.header => {
                fields.iter().map(|field| header_name(field)).collect()
            }
            Some(fields) => (0..fields.len())
                .map(|column| format!("column_{column}"))
                .collect(),
            None => Vec::new(),
        };
        if let Some(first) = names.first_mut()
            && let Some(stripped) = first.strip_prefix('\u{FEFF}')
        {
            *first = stripped.trim_matches('"').to_owned();
        }
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(Error::DuplicateColumn {
                    path: source.path,
                    column: name.clone(),
                });
            }
        }
        dialect.learn_quotes(
            names.len(),
            &records[(header as usize).min(records.len())..],
        );
        let ends = record_ends(&source, &dialect)?;
        let parser = RecordParser::delimited(dialect, &names, options.lenient);
        Self::new(source, ends, parser, header)
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.parser.columns
    }

    pub(crate) fn rows(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The place of a record in the file.
    pub(crate) fn span(&self, row: u32) -> (u64, u64) {
        let start = if row == 0 {
            0
        } else {
            self.ends[row as usize - 1]
        };
        (start, self.ends[row as usize])
    }

    /// Parses a record.
    pub(crate) fn read(&mut self, row: u32, record: &mut Record) -> Result<()> {
        let (start, end) = self.span(row);
        let bytes = self.source.read(start, end, &mut self.buffer)?;
        let parsed = if row < self.header {
            self.parser.literal(bytes, record)
        } else if self.parser.is_document() {
            self.parser.step(bytes, row == 0, record).map(drop)
        } else {
            self.parser.line(bytes, record)
        };
        parsed.map_err(|fault| {
            if let Some(column) = fault.duplicate {
                return Error::DuplicateColumn {
                    path: self.source.path.clone(),
                    column,
                };
            }
            let mut line = 1;
            let found = excerpt(bytes, fault.at);
            line += count_lines(&self.source, start).unwrap_or(0)
                + lines(&bytes[..fault.at.min(bytes.len().saturating_sub(1))]);
            Error::Malformed {
                path: self.source.path.clone(),
                line,
                expected: fault.expected.to_owned(),
                found,
            }
        })
    }
}

/// Whether a `.json` file holds lines of JSON, as many do.
fn holds_several_values(sample: &[u8]) -> bool {
    let Some(start) = sample.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return false;
    };
    let end = if matches!(sample[start], b'{' | b'[') {
        value_end(sample, start)
    } else {
        None
    };
    end.is_some_and(|end| sample[end..].iter().any(|byte| !byte.is_ascii_whitespace()))
}

/// How text files are to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextOptions {
    pub(crate) lenient: bool,
    pub(crate) header: bool,
}

fn header_name(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    match text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(inside) => inside.replace("\"\"", "\""),
        None => text.into_owned(),
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn count_lines(source: &Source, end: u64) -> Result<u64> {
    let (mut count, mut at) = (0, 0);
    source.chunks(|chunk| {
        let wanted = end.saturating_sub(at).min(chunk.len() as u64) as usize;
        count += lines(&chunk[..wanted]);
        at += chunk.len() as u64;
        Ok(())
    })?;
    Ok(count)
}

fn excerpt(bytes: &[u8], at: usize) -> String {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return "the end".to_owned();
    }
    format!("{:?}", String::from_utf8_lossy(&rest[..rest.len().min(40)]))
}

fn malformed(
    path: &Path,
    bytes: &[u8],
    at: usize,
    expected: &str,
    duplicate: Option<String>,
) -> Error {
    if let Some(column) = duplicate {
        return Error::DuplicateColumn {
            path: path.to_owned(),
            column,
        };
    }
    let line = 1 + lines(&bytes[..at.min(bytes.len())]);
    Error::Malformed {
        path: path.to_owned(),
        line,
        expected: expected.to_owned(),
        found: excerpt(bytes, at),
    }
}

/// The end of each record of a delimited file, read window by window.
fn record_ends(source: &Source, dialect: &Dialect) -> Result<Vec<u64>> {
    let mut ends = Vec::new();
    let mut buffer = Vec::new();
    let mut start = 0u64;
    let mut window = 8u64 << 20;
    while start < source.len {
        let stop = (start + window).min(source.len);
        let bytes = source.read(start, stop, &mut buffer)?;
        let mut at = 0usize;
        let mut open = false;
        while at < bytes.len() {
            match dialect.record_end(bytes, at) {
                // A record that reaches the end of the window may go on.
                Some(end) if end < bytes.len() || stop == source.len => {
                    ends.push(start + end as u64);
                    at = end;
                }
                Some(_) => break,
                None => {
                    open = true;
                    break;
                }
            }
        }
        if at == 0 {
            if stop == source.len && open || window > MAX_RECORD as u64 {
                let line = 1 + count_lines(source, start)?;
                return Err(Error::Malformed {
                    path: source.path.clone(),
                    line,
                    expected: "a closing quote".to_owned(),
                    found: "the end of the file".to_owned(),
                });
            }
            window *= 2;
        } else {
            window = 8 << 20;
        }
        start += at as u64;
    }
    Ok(ends)
}
