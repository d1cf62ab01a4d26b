//! The artifact: one file, `dataset.delta`. See `docs/dataset-format.md`.
//!
//! ```text
//! magic[8] version[1] required[1] optional[1] base_sha256[32] base_blake3[32] more[1]
//! splits: number, then for each: header, blocks
//! checksum[8]
//! ```

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::descriptions::Descriptions;
use crate::digest::Digests;
use crate::error::{Error, Result};
use crate::header::{MAX_HEADER, SplitHeader};
use crate::inputs::Base;
use crate::output::hex;
use crate::spec::Reading;
use crate::table::{Source, Spill, TextOptions};
use crate::wire::Reader;

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
/// Feature bits that a reader must know: Arrow files keep their dictionaries.
pub(crate) const REQUIRED_DICTIONARIES: u8 = 16;
/// Feature bits that a reader must know: rows may be told as the row before or
/// the one before that, and files count on from each other which rows are used.
pub(crate) const REQUIRED_REFERENCES: u8 = 32;
/// Feature bits that a reader must know: what rebuilds quickly. The base's BLAKE3
/// follows its SHA-256, and only in documents the template of a row goes by its
/// base row.
pub(crate) const REQUIRED_QUICK: u8 = 64;
/// Feature bits that a reader must know: another byte of them follows the base's digests.
pub(crate) const REQUIRED_MORE: u8 = 128;
/// Of those in the other byte: Parquet files may be written page by page.
pub(crate) const MORE_PAGES: u8 = 1;
/// Of those in the other byte: descriptions are told by those before, see [`Descriptions`].
pub(crate) const MORE_PRIMED: u8 = 2;
/// Of those in the other byte: descriptions name the key that the user named.
pub(crate) const MORE_KEYED: u8 = 4;
/// All of those in the other byte.
const MORE_KNOWN: u8 = MORE_PAGES | MORE_PRIMED | MORE_KEYED;
/// Feature bits that a reader may ignore: the derivative is a folder, of one file too.
pub(crate) const OPTIONAL_FOLDER: u8 = 1;
const CHECKSUM: usize = 8;
/// Magic, version and feature bits, then the base's digests.
const HEAD: usize = 11;
const DIGEST: usize = 32;
/// The longest number.
const NUMBER: u64 = 10;

/// The checksum that ends an artifact.
pub(crate) fn checksum(digest: [u8; 32]) -> [u8; CHECKSUM] {
    let mut out = [0; CHECKSUM];
    out.copy_from_slice(&digest[..CHECKSUM]);
    out
}

/// Where the blocks of a split are: for each its rows, and its bytes' place.
pub(crate) struct Blocks {
    source: Source,
    list: Vec<(u32, u64, u64)>,
}

impl Blocks {
    /// For each block how many rows it holds.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().map(|block| block.0)
    }

    /// The bytes of a block, through `buffer` where they are not in memory.
    pub(crate) fn read<'a>(&'a self, block: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let (_, at, len) = self.list[block];
        self.source.read(at, at + len, buffer)
    }

    /// The blocks' bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.list.iter().map(|block| block.2).sum()
    }

    /// The place of all bytes, for a split of one block.
    pub(crate) fn span(&self) -> (&Source, u64, u64) {
        let (_, at, len) = self.list.first().copied().unwrap_or_default();
        (&self.source, at, at + len)
    }
}

/// Blocks being made.
#[derive(Default)]
pub(crate) struct NewBlocks {
    bytes: Spill,
    list: Vec<(u32, u64, u64)>,
}

impl NewBlocks {
    pub(crate) fn push(&mut self, rows: u32, block: &[u8], path: &Path) -> Result<()> {
        let at = self.bytes.len();
        self.bytes.push(path, |out| out.extend_from_slice(block))?;
        self.list.push((rows, at, block.len() as u64));
        Ok(())
    }

    /// Bytes of one block that stand in `bytes`.
    pub(crate) fn single(bytes: Spill) -> Self {
        let len = bytes.len();
        Self {
            bytes,
            list: vec![(1, 0, len)],
        }
    }

    pub(crate) fn finish(self, path: &Path) -> Result<Blocks> {
        Ok(Blocks {
            source: self.bytes.finish(path)?,
            list: self.list,
        })
    }
}

/// An artifact, open; its checksum is right.
pub(crate) struct Artifact {
    pub(crate) path: PathBuf,
    pub(crate) base: Digests,
    /// How the base's text files are to be read.
    base_options: TextOptions,
    /// Whether files count on from each other, see [`REQUIRED_REFERENCES`].
    carries: bool,
    /// Whether templates go by base rows in all files, see [`REQUIRED_QUICK`].
    paragraphs: bool,
    /// Whether descriptions are told by those before, see [`MORE_PRIMED`].
    primed: bool,
    source: Source,
    /// Where the splits start, and where the checksum does.
    start: u64,
    end: u64,
    pub(crate) splits: u64,
    /// Whether the derivative is a folder, see [`OPTIONAL_FOLDER`].
    pub(crate) is_folder: bool,
}

impl Artifact {
    /// Opens a delta's folder, or the artifact itself.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        Self::parse(Source::unread(&path)?)
    }

    fn parse(source: Source) -> Result<Self> {
        let path = source.path.clone();
        let mut buffer = Vec::new();
        let head = source.read(0, (HEAD + 2 * DIGEST + 1) as u64, &mut buffer)?;
        if !head.starts_with(MAGIC) {
            return Err(Error::NotADelta {
                path,
                expected: String::from_utf8_lossy(MAGIC).into_owned(),
                found: String::from_utf8_lossy(&head[..head.len().min(8)]).into_owned(),
            });
        }
        let cut = || Error::Damaged {
            path: path.clone(),
            what: "length",
            expected: format!("more than {} bytes", source.len),
            found: format!("{} bytes", source.len),
        };
        let unsupported = |what: String| Error::Unsupported {
            path: path.clone(),
            what,
        };
        let &[version, required, optional, ref digests @ ..] = &head[8..] else {
            return Err(cut());
        };
        if version != FORMAT_VERSION {
            return Err(unsupported(format!(
                "format version {version} (this one reads {FORMAT_VERSION})"
            )));
        }
        let quick = required & REQUIRED_QUICK != 0;
        let (sha256, rest) = digests.split_first_chunk().ok_or_else(cut)?;
        let base = Digests {
            sha256: *sha256,
            blake3: match quick {
                true => Some(*rest.first_chunk().ok_or_else(cut)?),
                false => None,
            },
        };
        let mut primed = false;
        let mut start = (HEAD + DIGEST * (1 + usize::from(quick))) as u64;
        if required & REQUIRED_MORE != 0 {
            let &more = head.get(start as usize).ok_or_else(cut)?;
            if more & !MORE_KNOWN != 0 {
                let unknown = more & !MORE_KNOWN;
                return Err(unsupported(format!("further feature bits {unknown:#010b}")));
            }
            primed = more & MORE_PRIMED != 0;
            start += 1;
        }
        let end = source
            .len
            .checked_sub(CHECKSUM as u64)
            .filter(|&end| end >= start)
            .ok_or_else(cut)?;
        let mut digest = Sha256::new();
        let mut at = 0;
        source.chunks(|chunk| {
            let wanted = chunk.len().min((end - at) as usize);
            digest.update(&chunk[..wanted]);
            at += wanted as u64;
            Ok(())
        })?;
        let found = checksum(digest.finalize().into());
        let stored = source.read(end, source.len, &mut buffer)?;
        if stored != found {
            return Err(Error::Damaged {
                what: "checksum",
                expected: hex(stored),
                found: hex(&found),
                path,
            });
        }
        let splits = number(&source, end, &mut start)?.ok_or_else(cut)?;
        Ok(Self {
            base,
            carries: required & REQUIRED_REFERENCES != 0,
            paragraphs: !quick,
            primed,
            base_options: TextOptions {
                lenient: required & REQUIRED_LENIENT != 0,
                header: required & REQUIRED_NO_HEADER == 0,
            },
            path,
            source,
            start,
            end,
            splits,
            is_folder: splits != 1 || optional & OPTIONAL_FOLDER != 0,
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.source.len
    }

    /// Opens the base, which must be the one that the delta was made from.
    pub(crate) fn open_base(&self, path: &Path, reading: Reading<'_>) -> Result<Base> {
        let mut base = Base::open(path, self.base_options, Some(&self.base), reading)?;
        if self.carries {
            base.rows.carry();
        }
        Ok(base)
    }

    /// Calls `visit` with one split after the other: its header, its blocks
    /// and its bytes in the artifact.
    pub(crate) fn each_split(
        &self,
        mut visit: impl FnMut(&SplitHeader, &Blocks, u64) -> Result<()>,
    ) -> Result<()> {
        let mut at = self.start;
        let mut descriptions = Descriptions::new(self.primed);
        for _ in 0..self.splits {
            let start = at;
            let header = self
                .header(&mut at, &mut descriptions)?
                .ok_or_else(|| self.damaged("header of a split"))?;
            let blocks = self
                .blocks(&mut at)?
                .ok_or_else(|| self.damaged("list of blocks"))?;
            visit(&header, &blocks, at - start)?;
        }
        if at < self.end {
            return Err(self.damaged("end"));
        }
        Ok(())
    }

    fn header(&self, at: &mut u64, descriptions: &mut Descriptions) -> Result<Option<SplitHeader>> {
        let Some(len) = number(&self.source, self.end, at)? else {
            return Ok(None);
        };
        if len > self.end - *at || len > MAX_HEADER as u64 {
            return Ok(None);
        }
        let mut buffer = Vec::new();
        let bytes = self.source.read(*at, *at + len, &mut buffer)?;
        let mut header = SplitHeader::read(bytes, descriptions);
        if let Some(header) = &mut header {
            header.paragraphs = self.paragraphs || header.format.has_paragraphs();
        }
        *at += len;
        Ok(header)
    }

    fn blocks(&self, at: &mut u64) -> Result<Option<Blocks>> {
        let mut list = Vec::new();
        loop {
            let rows =
                number(&self.source, self.end, at)?.and_then(|rows| u32::try_from(rows).ok());
            match rows {
                None => return Ok(None),
                Some(0) => break,
                Some(rows) => {
                    let len = match number(&self.source, self.end, at)? {
                        Some(len) if len <= self.end - *at => len,
                        _ => return Ok(None),
                    };
                    list.push((rows, *at, len));
                    *at += len;
                }
            }
        }
        Ok(Some(Blocks {
            source: self.source.clone(),
            list,
        }))
    }

    /// A part that makes no sense.
    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        damaged(&self.path, what)
    }
}

/// Reads a number at `at` and moves behind it; nothing where none ends before
/// `end`.
fn number(source: &Source, end: u64, at: &mut u64) -> Result<Option<u64>> {
    let mut buffer = Vec::new();
    let bytes = source.read(*at, (*at + NUMBER).min(end), &mut buffer)?;
    let mut reader = Reader::new(bytes);
    let number = reader.number();
    *at += (bytes.len() - reader.left()) as u64;
    Ok(number)
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
