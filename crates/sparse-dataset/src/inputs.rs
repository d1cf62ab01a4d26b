//! Opening bases and derivatives: a file, or a folder of splits.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::bytes;
use crate::columnar::{guarded, read_rows, scales};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::output::hex;
use crate::table::{Memory, Rows, Source, TextOptions};

/// The data files that a path names, by name.
pub(crate) fn data_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        // A missing file is reported as such, not by its extension.
        std::fs::metadata(path).map_err(Error::io(path))?;
        Format::of(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        if file.is_file() && Format::of(&file).is_ok() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::EmptyFolder {
            path: path.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

/// A base, opened.
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) rows: Rows,
    pub(crate) sha256: [u8; 32],
    files: Vec<PathBuf>,
}

impl Base {
    /// Opens a base; its digest is compared before its rows are looked at.
    pub(crate) fn open(
        path: &Path,
        options: TextOptions,
        expected: Option<[u8; 32]>,
    ) -> Result<Self> {
        let mut memory = Memory::of_base();
        let mut sources = Vec::new();
        let mut all = Sha256::new();
        let mut sha256 = [0; 32];
        for file in data_files(path)? {
            let (source, digest) = Source::open(&file, &mut memory)?;
            all.update(digest);
            sha256 = digest;
            sources.push(source);
        }
        if sources.len() > 1 {
            sha256 = all.finalize().into();
        }
        if let Some(expected) = expected.filter(|&expected| expected != sha256) {
            return Err(Error::WrongBase {
                path: path.to_owned(),
                what: "SHA-256",
                expected: hex(&expected),
                found: hex(&sha256),
            });
        }
        let base = path.to_owned();
        let files = sources.iter().map(|source| source.path.clone()).collect();
        let mut rows = Rows::default();
        let mut first: Option<(PathBuf, String)> = None;
        for source in sources {
            let path = source.path.clone();
            let Some(found) = add_file(&mut rows, source, options, true, &mut memory)? else {
                continue;
            };
            match &first {
                Some((first, expected)) if *expected != found => {
                    let (first, expected) = (first.clone(), expected.clone());
                    return Err(Error::MixedSchemas {
                        path,
                        first,
                        expected,
                        found,
                    });
                }
                Some(_) => {}
                None => first = Some((path, found)),
            }
        }
        Ok(Self {
            path: base,
            rows,
            sha256,
            files,
        })
    }

    /// The bytes of the base's files, as far as a byte-level delta of a file of
    /// so many bytes uses them.
    pub(crate) fn prefix(&self, file: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if file > bytes::LARGEST {
            return Ok(out);
        }
        for path in &self.files {
            let left = bytes::LARGEST - out.len() as u64;
            let file = File::open(path).map_err(Error::io(path))?;
            file.take(left)
                .read_to_end(&mut out)
                .map_err(Error::io(path))?;
        }
        Ok(out)
    }
}

/// Adds a file's rows. Gives its columns where the format declares them.
pub(crate) fn add_file(
    rows: &mut Rows,
    source: Source,
    options: TextOptions,
    fill: bool,
    memory: &mut Memory,
) -> Result<Option<String>> {
    let format = Format::of(&source.path)?;
    if format.is_text() {
        // A delimited file declares its columns; JSON objects need not agree.
        return rows.add_text(source, format, options, fill, memory);
    }
    let path = source.path.clone();
    drop(source);
    let (stored, columns, schema) = guarded(&path, || read_rows(&path, memory.left()))?;
    rows.add_stored(stored, columns, &path, memory)?;
    rows.scales.extend(scales(&schema));
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{}: {}", field.name(), field.data_type()))
        .collect();
    Ok(Some(names.join(", ")))
}
