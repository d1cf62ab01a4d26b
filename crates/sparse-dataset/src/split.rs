//! One file of a derivative as a split of the artifact.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::artifact::{Blocks, NewBlocks};
use crate::bytes;
use crate::columnar::{Recipe, equal_files, guarded};
use crate::decide::decide;
use crate::delta::{BlockEncoder, Levels, Setup};
use crate::descriptions::Descriptions;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::header::{Body, SplitHeader};
use crate::inputs::{Base, DataFile, add_file};
use crate::matching::HashMatrix;
use crate::output::Output;
use crate::plan::Plan;
use crate::rebuild::{Check, rebuild, rebuild_with};
use crate::spec::{CompressSpec, Effort, Progress, step};
use crate::table::{Memory, Rows, Source};
use crate::text::Template;
use crate::wire::{put_bytes, put_number};

/// Rows of a block.
const BLOCK_ROWS: usize = 1 << 15;
/// zstd at its highest levels makes files smaller than at a fast one, but not
/// by more than this factor.
const HARDER: u64 = 3;

/// What may always be kept of a file's pages, headers and footer.
const SMALL_FRAME: u64 = 4 << 10;

/// A split, ready to be written.
pub(crate) struct Split {
    pub(crate) header: SplitHeader,
    blocks: Blocks,
}

impl Split {
    /// Its bytes in the artifact, about.
    fn len(&self, descriptions: &Descriptions) -> u64 {
        self.header.write(&mut descriptions.clone()).len() as u64
            + self.blocks.bytes()
            + 4 * self.blocks.rows().count() as u64
    }

    pub(crate) fn write(
        &self,
        artifact: &mut Output,
        descriptions: &mut Descriptions,
    ) -> Result<()> {
        let mut out = Vec::new();
        put_bytes(&mut out, &self.header.write(descriptions));
        let mut buffer = Vec::new();
        for (index, rows) in self.blocks.rows().enumerate() {
            let block = self.blocks.read(index, &mut buffer)?;
            put_number(&mut out, u64::from(rows));
            put_bytes(&mut out, block);
            artifact.write(&out)?;
            out.clear();
        }
        put_number(&mut out, 0);
        artifact.write(&out)
    }
}

/// A file of a derivative, read.
pub(crate) struct Opened {
    pub(crate) source: Source,
    sha256: [u8; 32],
    pub(crate) rows: Rows,
    /// Whether the format declares its columns, and rows can be made of all of them.
    declared: bool,
}

impl Opened {
    pub(crate) fn new(path: &Path, spec: &CompressSpec, progress: &dyn Progress) -> Result<Self> {
        let mut memory = Memory::of_split(Format::of(path)?);
        let mut digest = Sha256::new();
        let source = Source::open(path, &mut memory, progress, |chunk| digest.update(chunk))?;
        let mut rows = Rows::default();
        let memory = (&mut memory, spec.reading(progress));
        let declared = add_file(&mut rows, source.clone(), spec.text(), false, memory)?;
        Ok(Self {
            source,
            sha256: digest.finalize().into(),
            rows,
            declared: declared.is_some(),
        })
    }
}

/// Compresses a file, beside the artifact that it goes into and whose descriptions so far it
/// follows.
pub(crate) fn compress_split(
    base: &mut Base,
    base_hashes: &HashMatrix,
    file: &DataFile,
    opened: Opened,
    spec: &CompressSpec,
    (artifact, descriptions): (&Output, &Descriptions),
    progress: &dyn Progress,
) -> Result<Split> {
    let path = file.path.as_path();
    let Opened {
        source: whole,
        sha256,
        mut rows,
        declared,
    } = opened;
    rows.take_apart(&base.rows.columns.names);
    let decided = decide(base, base_hashes, path, &mut rows, spec, progress)?;
    let dropped = base
        .rows
        .columns
        .names
        .iter()
        .filter(|name| rows.columns.find(name).is_none())
        .cloned()
        .collect();
    let (layout, templates) = match rows.text() {
        Some(table) => (
            Some(table.parser.layout.clone()),
            table.parser.templates.list.clone(),
        ),
        None => (None, vec![Template::columnar(decided.columns.len())]),
    };
    let format = Format::of(path)?;
    let mut setup = Setup::new(
        &decided.plan,
        &decided.columns,
        &rows.scales,
        templates.clone(),
        decided.model,
        &mut base.rows,
    );
    setup.paragraphs = format.has_paragraphs();
    setup.key = decided.key;
    let levels = Levels::new(spec.effort, whole.len);
    let mut encoder = BlockEncoder::new(setup, &mut base.rows, levels)?;
    let mut blocks = NewBlocks::default();
    let total = decided.references.len() as u64;
    let mut first = 0u32;
    for references in decided.references.chunks(BLOCK_ROWS) {
        step(progress, "writing", u64::from(first), total)?;
        let block = encoder.block(first, references, &mut rows, &mut base.rows)?;
        blocks.push(references.len() as u32, &block, path)?;
        first += references.len() as u32;
    }
    let splices = encoder.take_splices();
    let (counts, unused) = (encoder.counts(), encoder.into_unused());
    let before = base.rows.unused();
    let header = SplitHeader {
        name: file.name.clone(),
        format,
        bytes: whole.len,
        sha256,
        byte_exact: true,
        body: Body::Text,
        layout,
        model: decided.model,
        plan: decided.plan,
        templates,
        columns: decided.columns,
        dropped,
        counts,
        casts: decided.casts,
        reordered: decided.reordered,
        patch: None,
        splices,
        paragraphs: format.has_paragraphs(),
        key: decided.key,
    };
    drop(rows);
    let mut split = Split {
        header,
        blocks: blocks.finish(path)?,
    };
    let comes_back = split.header.format.is_text()
        || declared && columnar_body(&mut split, path, base, spec, artifact, progress)?;
    let level = if spec.effort == Effort::Fast { 3 } else { 19 };
    let most = if comes_back {
        split.len(descriptions)
    } else {
        u64::MAX
    };
    // Where rows are clearly smaller, the slow setting is not worth its time.
    let smaller = if comes_back && bytes::quickly_exceeds(&whole, &[], most * HARDER, progress)? {
        None
    } else {
        let other = as_bytes(&split, &whole, sha256, base, level, most, progress)?;
        other.filter(|other| other.len(descriptions) < most)
    };
    // Bytes use no rows.
    let is_bytes = smaller.is_some();
    base.rows.set_unused(if is_bytes { before } else { unused });
    Ok(smaller.unwrap_or(split))
}

/// The file as bytes where that takes less than `most`: a delta is never much
/// larger than what a byte compressor makes of the file.
fn as_bytes(
    split: &Split,
    file: &Source,
    sha256: [u8; 32],
    base: &Base,
    level: i32,
    most: u64,
    progress: &dyn Progress,
) -> Result<Option<Split>> {
    let header = SplitHeader {
        body: Body::Bytes,
        sha256,
        byte_exact: true,
        layout: None,
        model: None,
        plan: Plan::default(),
        templates: Vec::new(),
        columns: Vec::new(),
        casts: Vec::new(),
        reordered: false,
        key: None,
        patch: None,
        splices: Vec::new(),
        ..split.header.clone()
    };
    let Some(packed) = bytes::pack(file, &base.prefix(file.len)?, level, most, progress)? else {
        return Ok(None);
    };
    let blocks = NewBlocks::single(packed).finish(&file.path)?;
    Ok(Some(Split { header, blocks }))
}

/// Finds out whether a file comes back page by page; if so, `header` says how.
fn by_pages(
    header: &mut SplitHeader,
    blocks: &Blocks,
    recipe: &Recipe,
    file: &Path,
    base: &mut Base,
    most: u64,
    progress: &dyn Progress,
) -> Result<bool> {
    let found = guarded(file, || recipe.clone().by_pages(file, most))?;
    let Some((recipe, learner)) = found else {
        return Ok(false);
    };
    header.body = Body::Columnar(guarded(file, || recipe.write(file))?);
    let mut check = Check(Sha256::new());
    let shared = Some(learner.clone());
    match rebuild_with(file, header, blocks, base, &mut check, shared, progress) {
        Err(error @ Error::Interrupted) => return Err(error),
        // Whatever our writer could not make of it, there are other ways.
        Err(_) => return Ok(false),
        Ok(()) => {}
    }
    let digest: [u8; 32] = check.0.finalize().into();
    header.patch = learner.into_frame().filter(|_| digest == header.sha256);
    Ok(header.patch.is_some())
}

/// Finds how a columnar file is rebuilt, by rebuilding it: with its bytes, by
/// a patch with its bytes, or with its content. `false` if its rows do not even
/// lead to that, as where categories have an order that the writer changes.
fn columnar_body(
    split: &mut Split,
    file: &Path,
    base: &mut Base,
    spec: &CompressSpec,
    artifact: &Output,
    progress: &dyn Progress,
) -> Result<bool> {
    let Split { header, blocks } = split;
    let small = header.bytes / 50 + blocks.bytes() / 4;
    let recipe = guarded(file, || Recipe::of(file))?;
    let unused = base.rows.unused();
    let most = small.max(SMALL_FRAME);
    if !spec.logical && by_pages(header, blocks, &recipe, file, base, most, progress)? {
        return Ok(true);
    }
    base.rows.set_unused(unused);
    header.body = Body::Columnar(guarded(file, || recipe.write(file))?);
    let mut rebuilt = Output::create(&artifact.beside("rebuilt"))?;
    rebuild(file, header, blocks, base, &mut rebuilt, progress)?;
    let found = rebuilt.digest();
    if found == header.sha256 {
        return Ok(true);
    }
    let rebuilt_path = rebuilt.flushed()?;
    if !guarded(file, || equal_files(file, rebuilt_path, header.format))? {
        return Ok(false);
    }
    if !spec.logical && header.bytes <= bytes::LARGEST {
        let again = std::fs::read(rebuilt_path).map_err(Error::io(rebuilt_path))?;
        let original = Source::unread(file)?;
        // Pages that another compressor made have nothing in common, which shows at once.
        let strangers = bytes::quickly_exceeds(&original, &again, small * HARDER, progress)?;
        if !strangers && let Some(patch) = bytes::pack_small(&original, &again, small, progress)? {
            header.patch = Some(patch);
            return Ok(true);
        }
    }
    header.byte_exact = false;
    header.sha256 = found;
    Ok(true)
}
