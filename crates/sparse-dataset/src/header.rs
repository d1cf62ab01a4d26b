//! The header of a split: everything about a file but its rows. See
//! `docs/dataset-format.md`.

use crate::delta::{Counts, ModelSize, Splice};
use crate::descriptions::Descriptions;
use crate::format::Format;
use crate::plan::{Cast, Plan};
use crate::text::{Layout, Template};
use crate::wire::{Reader, put_bytes, put_number};

/// A header larger than this is not read.
pub(crate) const MAX_HEADER: usize = 256 << 20;

/// How a split is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Rows of a text file.
    Text,
    /// Rows of a columnar file: what is needed to write it again.
    Columnar(Vec<u8>),
    /// The bytes of the file, compressed; against the base's where both are
    /// small enough.
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
    /// Columns whose values are of another type than in the base.
    pub(crate) casts: Vec<Cast>,
    /// Whether columns stand in another order than in the base.
    pub(crate) reordered: bool,
    /// The column by which the user told rows apart.
    pub(crate) key: Option<u32>,
    /// What makes the original of the file that the recipe leads to.
    pub(crate) patch: Option<Vec<u8>>,
    /// What makes the lines of whole rows of those of the base, in order of the
    /// templates.
    pub(crate) splices: Vec<Splice>,
    /// Whether templates go by the base's rows, which the artifact says.
    pub(crate) paragraphs: bool,
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
    /// The header's bytes: the digest, the description through the text model, a patch.
    pub(crate) fn write(&self, descriptions: &mut Descriptions) -> Vec<u8> {
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
        plain.push(u8::from(self.reordered) | u8::from(self.key.is_some()) << 1);
        put_number(&mut plain, self.casts.len() as u64);
        for cast in &self.casts {
            put_number(&mut plain, u64::from(cast.column));
            plain.extend_from_slice(&[cast.types.0, cast.types.1]);
        }
        plain.extend_from_slice(&self.plan.shares);
        if let Some(key) = self.key {
            put_number(&mut plain, u64::from(key));
        }
        for splice in &self.splices {
            put_number(&mut plain, u64::from(splice.template));
            put_number(&mut plain, splice.cut as u64);
            put_bytes(&mut plain, &splice.tail);
        }
        let mut out = self.sha256.to_vec();
        put_bytes(&mut out, &descriptions.encode(&plain));
        out.extend_from_slice(self.patch.as_deref().unwrap_or_default());
        out
    }

    pub(crate) fn read(bytes: &[u8], descriptions: &mut Descriptions) -> Option<Self> {
        let (sha256, rest) = bytes.split_first_chunk::<32>()?;
        let mut outer = Reader::new(rest);
        let coded = outer.sized()?;
        let patch = outer.bytes(outer.left())?;
        let plain = descriptions.decode(coded)?;
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
        let mut plan = Plan::read(&mut reader)?;
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
        let (mut reordered, mut casts, mut splices) = (false, Vec::new(), Vec::new());
        let mut key = None;
        // Rows are coded the same without what follows; the first writers did not
        // add it.
        if reader.left() > 0 {
            let flags = reader.byte().filter(|&flags| flags < 4)?;
            reordered = flags & 1 == 1;
            for _ in 0..reader.count()? {
                let column = u32::try_from(reader.number()?).ok()?;
                let types = (reader.byte()?, reader.byte()?);
                casts.push(Cast { column, types });
            }
            plan.shares = reader.bytes(plan.columns.len())?.to_vec();
            if flags & 2 == 2 {
                key = Some(u32::try_from(reader.number()?).ok()?);
            }
        }
        while reader.left() > 0 {
            splices.push(Splice {
                template: u32::try_from(reader.number()?).ok()?,
                cut: usize::try_from(reader.number()?).ok()?,
                tail: reader.sized()?.to_vec(),
            });
        }
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
            casts,
            reordered,
            key,
            patch: (!patch.is_empty()).then(|| patch.to_vec()),
            splices,
            paragraphs: true,
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
