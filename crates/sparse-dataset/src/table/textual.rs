//! A text file as a table: where its records are, each parsed when asked for.

use std::sync::Arc;

use super::ends::Ends;
use super::record::Record;
use super::source::Source;
use super::spans;
use super::window::Window;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::text::{Columns, Dialect, Fault, JsonScanner, RecordParser, Spelling, value_end};

/// The sample from which the habits of a writer are read.
const SAMPLE: u64 = 4 << 20;

/// An opened text file.
pub(crate) struct TextTable {
    pub(super) source: Source,
    /// The end of each record.
    pub(crate) ends: Arc<Ends>,
    pub(crate) parser: RecordParser,
    /// Records before the first row (the header line).
    pub(super) header: u32,
    pub(super) window: Window,
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
                let ends = match source.lines.clone() {
                    Some(ends) => ends,
                    None => Arc::new(spans::lines(&source)?),
                };
                Self::new(source, ends, parser, 0)
            }
        }
    }

    fn new(source: Source, ends: Arc<Ends>, parser: RecordParser, header: u32) -> Result<Self> {
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
            window: Window::default(),
        })
    }

    fn document(source: Source, spelling: Spelling, options: TextOptions) -> Result<Self> {
        let (walked, path) = spans::survey(&source)?.finish();
        let mut parser = RecordParser::json(
            spelling,
            JsonScanner::document(walked, path),
            options.lenient,
        );
        let ends = Arc::new(spans::document(&source, &mut parser)?);
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
                    line: Some(1),
                    column: name.clone(),
                });
            }
        }
        dialect.learn_quotes(
            names.len(),
            &records[(header as usize).min(records.len())..],
        );
        let ends = Arc::new(spans::delimited(&source, &dialect, options.lenient)?);
        let parser = RecordParser::delimited(dialect, &names, options.lenient);
        Self::new(source, ends, parser, header)
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.parser.columns
    }

    pub(crate) fn rows(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The bytes of a record.
    pub(crate) fn line(&mut self, row: u32) -> Result<&[u8]> {
        let (start, end) = self.ends.span(row);
        self.window.row(&self.source, start, end)
    }

    /// Parses a record.
    pub(crate) fn read(&mut self, row: u32, record: &mut Record) -> Result<()> {
        let (start, end) = self.ends.span(row);
        let bytes = self.window.row(&self.source, start, end)?;
        let parsed = if row < self.header {
            self.parser.literal(bytes, record)
        } else if self.parser.is_document() {
            self.parser.step(bytes, row == 0, record).map(drop)
        } else {
            self.parser.line(bytes, record)
        };
        parsed.map_err(|fault| fault_error(&self.source, start, bytes, fault))
    }
}

/// The error for what is wrong in the record `bytes` that starts at `start`.
pub(super) fn fault_error(source: &Source, start: u64, bytes: &[u8], fault: Fault) -> Error {
    let path = source.path.clone();
    let before = &bytes[..fault.at.min(bytes.len().saturating_sub(1))];
    // A file that cannot be read again gets the line within the record.
    let line = 1 + count_lines(source, start).unwrap_or(0) + lines(before);
    if let Some(column) = fault.duplicate {
        let line = Some(line);
        return Error::DuplicateColumn { path, line, column };
    }
    Error::Malformed {
        path,
        line,
        expected: fault.expected.to_owned(),
        found: excerpt(bytes, fault.at),
    }
}

/// Whether a `.json` file holds lines of JSON, as many do.
fn holds_several_values(sample: &[u8]) -> bool {
    let sample = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample);
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

/// How many lines end in `bytes`, at LF, CR or both.
fn lines(bytes: &[u8]) -> u64 {
    let ends = memchr::memchr2_iter(b'\n', b'\r', bytes);
    let whole = |&at: &usize| bytes[at] == b'\n' || bytes.get(at + 1) != Some(&b'\n');
    ends.filter(whole).count() as u64
}

pub(super) fn count_lines(source: &Source, end: u64) -> Result<u64> {
    let (mut count, mut at, mut after_cr) = (0, 0, false);
    source.chunks(|chunk| {
        let wanted = end.saturating_sub(at).min(chunk.len() as u64) as usize;
        let chunk_lines = &chunk[..wanted];
        count += lines(chunk_lines);
        // CR and LF in two pieces are one end.
        count -= u64::from(after_cr && chunk_lines.starts_with(b"\n"));
        after_cr = chunk_lines.ends_with(b"\r");
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
