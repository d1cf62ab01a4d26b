//! From the bytes of a record to its template and cells, and back.

use super::delimited::Dialect;
use super::json::{Fault, JsonScanner, fit};
use super::spelling::Spelling;
use super::template::{Columns, Template, Templates};
use crate::table::{Kind, Record};
use crate::wire::{Reader, put_number};

/// How the cells of a text file are spelled.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    Json(Box<Spelling>),
    Delimited(Dialect),
}

impl Layout {
    /// Writes a cell as it stands in the file.
    #[inline]
    pub(crate) fn spell(&self, column: usize, kind: Kind, bytes: &[u8], out: &mut Vec<u8>) {
        match (self, kind) {
            (_, Kind::Raw) => out.extend_from_slice(bytes),
            (Self::Delimited(dialect), _) => dialect.spell(column, kind, bytes, out),
            (Self::Json(spelling), Kind::Text) => spelling.string(bytes, out),
            (Self::Json(_), Kind::Null) => out.extend_from_slice(b"null"),
            (Self::Json(spelling), Kind::Nested) => {
                // Only a damaged delta holds a list that cannot be spelled;
                // the digest of the output reports it.
                let _ = super::leaf::respell(bytes, spelling, out);
            }
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json(spelling) => {
                out.push(0);
                spelling.write(out);
            }
            Self::Delimited(dialect) => {
                out.push(1);
                out.push(dialect.delimiter);
                let last = dialect
                    .always
                    .iter()
                    .rposition(|&always| always)
                    .map_or(0, |last| last + 1);
                put_number(out, last as u64);
                out.extend(
                    dialect.always[..last]
                        .iter()
                        .map(|&always| u8::from(always)),
                );
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Self::Json(Box::new(Spelling::read(reader)?)),
            1 => {
                let delimiter = reader.byte()?;
                let always = reader.sized()?.iter().map(|&byte| byte == 1).collect();
                Self::Delimited(Dialect { delimiter, always })
            }
            _ => return None,
        })
    }
}

/// Parses the records of one file, in any order once each template was seen.
pub(crate) struct RecordParser {
    pub(crate) layout: Layout,
    pub(crate) columns: Columns,
    pub(crate) templates: Templates,
    /// Store malformed records as they are instead of refusing them.
    pub(crate) lenient: bool,
    scanner: JsonScanner,
    /// The scanner as it stands after each record but the last of a document.
    boundary: Option<JsonScanner>,
    last: u32,
    second_last: u32,
    width: usize,
}

const VERBATIM: &str = "(record)";

impl RecordParser {
    pub(crate) fn json(spelling: Spelling, scanner: JsonScanner, lenient: bool) -> Self {
        Self::new(Layout::Json(Box::new(spelling)), scanner, 0, lenient)
    }

    /// `names` are the columns; the dialect must have learned its quotes.
    pub(crate) fn delimited(dialect: Dialect, names: &[String], lenient: bool) -> Self {
        let mut parser = Self::new(
            Layout::Delimited(dialect),
            JsonScanner::lines(),
            names.len(),
            lenient,
        );
        for name in names {
            parser.columns.intern(name);
        }
        parser
    }

    fn new(layout: Layout, scanner: JsonScanner, width: usize, lenient: bool) -> Self {
        Self {
            layout,
            columns: Columns::default(),
            templates: Templates::default(),
            lenient,
            scanner,
            boundary: None,
            last: 0,
            second_last: 0,
            width,
        }
    }

    /// Takes lists of a few objects apart but for those under a name in `whole`:
    /// turns of a conversation, say. For lines of JSON, before the first is parsed.
    pub(crate) fn take_apart(&mut self, whole: &[String]) {
        if matches!(self.layout, Layout::Json(_)) && !self.is_document() {
            self.scanner.whole = Some(whole.iter().cloned().collect());
        }
    }

    pub(crate) fn is_document(&self) -> bool {
        self.scanner.record_path.is_some()
    }

    /// Parses one line (or CSV record) of which `bytes` is the whole.
    pub(crate) fn line(&mut self, bytes: &[u8], record: &mut Record) -> Result<(), Fault> {
        record.clear();
        if let Layout::Delimited(dialect) = &self.layout {
            let (fields, line_end) = dialect.fields(bytes);
            if fields.len() != self.width && !bytes[..bytes.len() - line_end.len()].is_empty() {
                let fault = Fault {
                    at: 0,
                    expected: "as many fields as the header",
                    duplicate: None,
                };
                return self.verbatim(bytes, record, fault);
            }
            if fields.len() != self.width {
                return self.literal(bytes, record);
            }
            for (column, field) in fields.iter().enumerate() {
                dialect.push(record, column, field);
            }
            let known = self.templates.list.get(self.last as usize);
            if known.is_none_or(|t| {
                t.columns.len() != self.width
                    || t.pieces.last().map(Vec::as_slice) != Some(line_end)
            }) {
                let template = dialect.template(self.width, line_end);
                self.last = self.templates.intern(template).unwrap_or(0);
            }
            record.template = self.last;
            return Ok(());
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return self.literal(bytes, record);
        }
        if self.fit(bytes, record) == Some(bytes.len()) {
            return Ok(());
        }
        self.scanner.reset();
        match self.scan(bytes, record) {
            Ok(_) => Ok(()),
            Err(fault) => self.verbatim(bytes, record, fault),
        }
    }

    /// Parses the record of a document that starts with `bytes`; returns its
    /// length.
    pub(crate) fn step(
        &mut self,
        bytes: &[u8],
        first: bool,
        record: &mut Record,
    ) -> Result<usize, Fault> {
        record.clear();
        if !first && let Some(length) = self.fit(bytes, record) {
            return Ok(length);
        }
        match (&self.boundary, first) {
            (Some(boundary), false) => self.scanner = boundary.clone(),
            _ => self.scanner.reset(),
        }
        let length = self.scan(bytes, record)?;
        if self.boundary.is_none() && !self.scanner.is_closed() {
            let mut boundary = self.scanner.clone();
            boundary.forget_keys();
            self.boundary = Some(boundary);
        }
        Ok(length)
    }

    /// Tries the last two templates.
    fn fit(&mut self, bytes: &[u8], record: &mut Record) -> Option<usize> {
        let Layout::Json(spelling) = &self.layout else {
            return None;
        };
        for index in [self.last, self.second_last] {
            let Some(template) = self.templates.list.get(index as usize) else {
                continue;
            };
            record.clear();
            let found = fit(
                template,
                &self.scanner,
                &self.columns,
                bytes,
                spelling,
                record,
            );
            if let Some(length) = found {
                record.template = index;
                if index != self.last {
                    self.second_last = self.last;
                    self.last = index;
                }
                return Some(length);
            }
        }
        None
    }

    fn scan(&mut self, bytes: &[u8], record: &mut Record) -> Result<usize, Fault> {
        let Layout::Json(spelling) = &self.layout else {
            return Ok(0);
        };
        record.clear();
        let mut template = Template::default();
        let length =
            self.scanner
                .scan(bytes, &mut self.columns, spelling, &mut template, record)?;
        match self.templates.intern(template) {
            Some(index) => {
                record.template = index;
                self.second_last = self.last;
                self.last = index;
            }
            None => self.store_verbatim(&bytes[..length], record),
        }
        Ok(length)
    }

    /// A record without cells: a header or a blank line.
    pub(crate) fn literal(&mut self, bytes: &[u8], record: &mut Record) -> Result<(), Fault> {
        record.clear();
        match self.templates.intern(Template::literal(bytes)) {
            Some(index) => record.template = index,
            None => self.store_verbatim(bytes, record),
        }
        Ok(())
    }

    fn verbatim(&mut self, bytes: &[u8], record: &mut Record, fault: Fault) -> Result<(), Fault> {
        if !self.lenient {
            return Err(fault);
        }
        self.store_verbatim(bytes, record);
        Ok(())
    }

    fn store_verbatim(&mut self, bytes: &[u8], record: &mut Record) {
        record.clear();
        let column = self.columns.intern(VERBATIM);
        record.push(column, Kind::Raw, bytes);
        record.template = self
            .templates
            .intern(Template::verbatim(column))
            .unwrap_or(0);
    }
}
