//! The artifact: one file, `dataset.delta`. See `docs/dataset-format.md`.
//!
//! ```text
//! magic[8] version[1] required[1] optional[1] base_sha256[32]
//! splits: number, then for each: header, blocks
//! checksum[8]
//! ```

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::coding::{Decoder, Encoder, TextModel};
use crate::delta::{Counts, ModelSize};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::output::hex;
use crate::plan::Plan;
use crate::table::TextOptions;
use crate::text::{Layout, Template};
use crate::wire::{Reader, put_bytes, put_number};

/// The name of the artifact inside its folder.
pub const FILE_NAME: &str = "dataset.delta";

pub(crate) const MAGIC: &[u8; 8] = b"SPARSEDS";
/// The format version that this crate writes, and the newest it reads.
pub const FORMAT_VERSION: u8 = 1;
/// Feature bits that a reader must know: columnar splits.
pub(crate) const REQUIRED_COLUMNAR: u8 = 1;
/// Feature bits that a reader must know: byte-level splits.
pub(crate) const REQUIRED_BYTES: u8 = 2;
/// Feature bits that a reader must know: malformed lines of the base are rows.
pub(crate) const REQUIRED_LENIENT: u8 = 4;
/// Feature bits that a reader must know: the base's CSV files have no header.
pub(crate) const REQUIRED_NO_HEADER: u8 = 8;
const KNOWN_REQUIRED: u8 =
    REQUIRED_COLUMNAR | REQUIRED_BYTES | REQUIRED_LENIENT | REQUIRED_NO_HEADER;
const CHECKSUM: usize = 8;
/// A header larger than this is not read.
const MAX_HEADER: usize = 256 << 20;

/// How a split is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Rows of a text file.
    Text,
    /// Rows of a columnar file: what is needed to write it again.
    Columnar(Vec<u8>),
    /// The bytes of the file, compressed against the base's first bytes.
    Bytes,
}

/// Everything about one split but its rows.
#[derive(Clone, Debug)]
pub(crate) struct SplitHeader {
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
    /// Whether the rebuilt file's bytes are those of the original.
    pub(crate) byte_exact: bool,
    pub(crate) body: Body,
    pub(crate) layout: Option<Layout>,
    pub(crate) model: Option<ModelSize>,
    pub(crate) plan: Plan,
    pub(crate) templates: Vec<Template>,
    pub(crate) columns: Vec<String>,
    pub(crate) dropped: Vec<String>,
    pub(crate) counts: Counts,
    /// What makes the original of the file that the recipe leads to.
    pub(crate) patch: Option<Vec<u8>>,
}

const FORMATS: [Format; 6] = [
    Format::JsonLines,
    Format::Json,
    Format::Csv,
    Format::Tsv,
    Format::Parquet,
    Format::Arrow,
];

impl SplitHeader {
    /// The header's bytes: the digest, then the rest through the text model.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        put_bytes(&mut plain, self.name.as_bytes());
        let format = FORMATS
            .iter()
            .position(|&format| format == self.format)
            .unwrap_or(0);
        plain.push(format as u8 | u8::from(self.byte_exact) << 7);
        put_number(&mut plain, self.bytes);
        match &self.body {
            Body::Text => plain.push(0),
            Body::Columnar(recipe) => {
                plain.push(1);
                put_bytes(&mut plain, recipe);
            }
            Body::Bytes => plain.push(2),
        }
        plain.push(u8::from(self.layout.is_some()));
        if let Some(layout) = &self.layout {
            layout.write(&mut plain);
        }
        put_number(&mut plain, self.model.map_or(0, |size| size.bytes + 1));
        put_number(&mut plain, self.model.map_or(0, |size| size.lesson));
        put_number(&mut plain, self.columns.len() as u64);
        for name in &self.columns {
            put_bytes(&mut plain, name.as_bytes());
        }
        self.plan.write(&mut plain);
        put_number(&mut plain, self.templates.len() as u64);
        for template in &self.templates {
            put_number(&mut plain, template.columns.len() as u64);
            for (piece, &column) in template.pieces.iter().zip(&template.columns) {
                put_bytes(&mut plain, piece);
                put_number(&mut plain, u64::from(column));
            }
            put_bytes(
                &mut plain,
                template.pieces.last().map_or(&[][..], Vec::as_slice),
            );
        }
        put_number(&mut plain, self.dropped.len() as u64);
        for name in &self.dropped {
            put_bytes(&mut plain, name.as_bytes());
        }
        let Counts {
            rows,
            referenced,
            moved,
            edited,
            new,
        } = self.counts;
        for count in [rows, referenced, moved, edited, new] {
            put_number(&mut plain, count);
        }
        let mut coder = Encoder::new();
        TextModel::new(1 << 12).text(&mut coder, 0, &plain, MAX_HEADER);
        let coded = coder.finish();
        let mut out = self.sha256.to_vec();
        put_bytes(&mut out, &coded);
        out.extend_from_slice(self.patch.as_deref().unwrap_or_default());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (sha256, rest) = bytes.split_first_chunk::<32>()?;
        let mut outer = Reader::new(rest);
        let coded = outer.sized()?;
        let patch = outer.bytes(outer.left())?;
        let plain = TextModel::new(1 << 12).text(&mut Decoder::new(coded), 0, &[], MAX_HEADER)?;
        let mut reader = Reader::new(&plain);
        let name = reader.string()?;
        let format = reader.byte()?;
        let bytes = reader.number()?;
        let body = match reader.byte()? {
            0 => Body::Text,
            1 => Body::Columnar(reader.sized()?.to_vec()),
            2 => Body::Bytes,
            _ => return None,
        };
        let layout = if reader.byte()? == 1 {
            Some(Layout::read(&mut reader)?)
        } else {
            None
        };
        let (bytes_expected, lesson) = (reader.number()?, reader.number()?);
        let model = bytes_expected
            .checked_sub(1)
            .map(|bytes| ModelSize { bytes, lesson });
        let mut columns = Vec::new();
        for _ in 0..reader.count()? {
            columns.push(reader.string()?);
        }
        let plan = Plan::read(&mut reader)?;
        if plan.columns.len() != columns.len() && body != Body::Bytes {
            return None;
        }
        let mut templates = Vec::new();
        for _ in 0..reader.count()? {
            templates.push(read_template(&mut reader, columns.len())?);
        }
        let mut dropped = Vec::new();
        for _ in 0..reader.count()? {
            dropped.push(reader.string()?);
        }
        let counts = Counts {
            rows: reader.number()?,
            referenced: reader.number()?,
            moved: reader.number()?,
            edited: reader.number()?,
            new: reader.number()?,
        };
        Some(Self {
            name,
            format: *FORMATS.get(usize::from(format & 127))?,
            bytes,
            sha256: *sha256,
            byte_exact: format >> 7 == 1,
            body,
            layout,
            model,
            plan,
            templates,
            columns,
            dropped,
            counts,
            patch: (!patch.is_empty()).then(|| patch.to_vec()),
        })
    }
}

fn read_template(reader: &mut Reader<'_>, columns: usize) -> Option<Template> {
    let mut template = Template::default();
    for _ in 0..reader.count()? {
        template.pieces.push(reader.sized()?.to_vec());
        let column = reader.number()?;
        if column >= columns as u64 {
            return None;
        }
        template.columns.push(column as u32);
    }
    template.pieces.push(reader.sized()?.to_vec());
    Some(template)
}

/// The checksum that ends an artifact.
pub(crate) fn checksum(digest: [u8; 32]) -> [u8; CHECKSUM] {
    let mut out = [0; CHECKSUM];
    out.copy_from_slice(&digest[..CHECKSUM]);
    out
}

/// An artifact read into memory (it is small beside what it describes).
pub(crate) struct Artifact {
    pub(crate) path: PathBuf,
    pub(crate) base_sha256: [u8; 32],
    /// How the base's text files are to be read.
    pub(crate) base_options: TextOptions,
    bytes: Vec<u8>,
    /// Where the splits start.
    start: usize,
    pub(crate) splits: u64,
}

impl Artifact {
    /// Opens a delta's folder, or the artifact itself.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Self::parse(&path, bytes)
    }

    pub(crate) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        if !bytes.starts_with(MAGIC) {
            let found = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
            let expected = String::from_utf8_lossy(MAGIC).into_owned();
            return Err(Error::NotADelta {
                path: path.to_owned(),
                expected,
                found,
            });
        }
        let cut = |found: usize| Error::Damaged {
            path: path.to_owned(),
            what: "length",
            expected: format!("more than {found} bytes"),
            found: format!("{found} bytes"),
        };
        let Some(head) = bytes.get(8..43) else {
            return Err(cut(bytes.len()));
        };
        let unsupported = |what: String| Error::Unsupported {
            path: path.to_owned(),
            what,
        };
        if head[0] != FORMAT_VERSION {
            return Err(unsupported(format!(
                "format version {} (this one reads {FORMAT_VERSION})",
                head[0]
            )));
        }
        if head[1] & !KNOWN_REQUIRED != 0 {
            return Err(unsupported(format!(
                "feature bits {:#010b}",
                head[1] & !KNOWN_REQUIRED
            )));
        }
        let Some(body) = bytes.len().checked_sub(CHECKSUM).filter(|&body| body >= 43) else {
            return Err(cut(bytes.len()));
        };
        let found = checksum(Sha256::digest(&bytes[..body]).into());
        if bytes[body..] != found {
            return Err(Error::Damaged {
                path: path.to_owned(),
                what: "checksum",
                expected: hex(&bytes[body..]),
                found: hex(&found),
            });
        }
        let mut base_sha256 = [0; 32];
        base_sha256.copy_from_slice(&head[3..35]);
        let mut reader = Reader::new(&bytes[43..body]);
        let splits = reader.number().ok_or_else(|| cut(bytes.len()))?;
        let start = body - reader.left();
        let base_options = TextOptions {
            lenient: head[1] & REQUIRED_LENIENT != 0,
            header: head[1] & REQUIRED_NO_HEADER == 0,
        };
        Ok(Self {
            path: path.to_owned(),
            base_sha256,
            base_options,
            start,
            splits,
            bytes,
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.bytes[self.start..self.bytes.len() - CHECKSUM])
    }

    /// A part that makes no sense.
    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        damaged(&self.path, what)
    }
}

/// A part of the delta at `path` that makes no sense.
pub(crate) fn damaged(path: &Path, what: &'static str) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        what,
        expected: "what a writer of this format stores".to_owned(),
        found: "something else".to_owned(),
    }
}
