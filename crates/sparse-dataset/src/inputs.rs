//! Opening bases and derivatives: a file, or a folder of splits.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::Sha256;

use crate::bytes;
use crate::columnar::{guarded, read_rows, scales};
use crate::digest::{Digester, Digests};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::matching::HashMatrix;
use crate::output::hex;
use crate::spec::{CompressSpec, Progress, Reading, step};
use crate::table::{Declared, Memory, Rows, Source, TextOptions};

/// Folders in folders are looked into so far.
const DEPTH: usize = 16;

/// A data file and what the delta calls it: its path within the folder, with
/// `/` between the parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DataFile {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

/// The data files that a path names, in order, and the names of what else is in
/// the folder.
#[derive(Debug, Default)]
pub(crate) struct DataFiles {
    pub(crate) files: Vec<DataFile>,
    pub(crate) skipped: Vec<String>,
}

impl DataFiles {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let mut found = Self::default();
        if path.is_dir() {
            found.add_folder(path, "", 0)?;
            if found.files.is_empty() {
                return Err(Error::EmptyFolder {
                    path: path.to_owned(),
                });
            }
            found.files.sort();
            found.skipped.sort();
            return Ok(found);
        }
        // A missing file is reported as such, not by its extension.
        std::fs::metadata(path).map_err(Error::io(path))?;
        Format::of(path)?;
        found.files.push(DataFile {
            path: path.to_owned(),
            name: name_of(path),
        });
        Ok(found)
    }

    /// Hidden folders, and those that are links, are left out.
    fn add_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<()> {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let entry = entry.map_err(Error::io(folder))?;
            let path = entry.path();
            let name = format!("{prefix}{}", name_of(&path));
            let is_folder = entry.file_type().map_err(Error::io(&path))?.is_dir();
            let looked_into = is_folder && depth < DEPTH && !name_of(&path).starts_with('.');
            let is_data = path.is_file() && Format::of(&path).is_ok();
            if (looked_into || is_data) && entry.file_name().to_str().is_none() {
                return Err(Error::FileName { path });
            }
            if looked_into {
                self.add_folder(&path, &format!("{name}/"), depth + 1)?;
            } else if is_data {
                self.files.push(DataFile { path, name });
            } else {
                self.skipped.push(name);
            }
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A base, opened.
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) rows: Rows,
    pub(crate) digests: Digests,
    /// Threads to read it with, and to rebuild files of it.
    pub(crate) threads: usize,
    files: Vec<PathBuf>,
}

impl Base {
    /// Opens a base; its digest is compared before its rows are looked at.
    pub(crate) fn open(
        path: &Path,
        options: TextOptions,
        expected: Option<&Digests>,
        reading: Reading<'_>,
    ) -> Result<Self> {
        let DataFiles { files, .. } = DataFiles::of(path)?;
        let mut memory = Memory::of_base();
        let (sources, digests) = match expected {
            None => {
                let (sources, (sha256, blake3)) =
                    open_all::<(Sha256, blake3::Hasher)>(&files, &mut memory, reading)?;
                let blake3 = Some(blake3);
                (sources, Some(Digests { sha256, blake3 }))
            }
            Some(&expected) => match expected.blake3 {
                Some(blake3) => {
                    let (sources, found) =
                        open_all::<blake3::Hasher>(&files, &mut memory, reading)?;
                    (sources, (found == blake3).then_some(expected))
                }
                None => {
                    let (sources, found) = open_all::<Sha256>(&files, &mut memory, reading)?;
                    (sources, (found == expected.sha256).then_some(expected))
                }
            },
        };
        let base = path.to_owned();
        let Some(digests) = digests else {
            // Other tools compute this one, so people can look for the right base.
            let (_, found) = open_all::<Sha256>(&files, &mut Memory::of_base(), reading)?;
            return Err(Error::WrongBase {
                path: base,
                what: "SHA-256",
                expected: expected.map_or_else(String::new, |digests| hex(&digests.sha256)),
                found: hex(&found),
            });
        };
        let files = files.into_iter().map(|file| file.path).collect();
        let mut rows = Rows::default();
        let mut seen: Vec<(PathBuf, Declared)> = Vec::new();
        for source in sources {
            let path = source.path.clone();
            let Some(declared) =
                add_file(&mut rows, source, options, true, (&mut memory, reading))?
            else {
                continue;
            };
            if let Some((first, expected, found)) = differs(&seen, &declared) {
                return Err(Error::MixedSchemas {
                    path,
                    first,
                    expected,
                    found,
                });
            }
            seen.push((path, declared));
        }
        Ok(Self {
            path: base,
            rows,
            digests,
            threads: reading.threads,
            files,
        })
    }

    /// Opens a base that a delta is to be made from, and hashes its cells.
    pub(crate) fn hashed(
        path: &Path,
        spec: &CompressSpec,
        progress: &dyn Progress,
    ) -> Result<(Self, HashMatrix)> {
        let mut base = Self::open(path, spec.text(), None, spec.reading(progress))?;
        let total = u64::from(base.rows.len());
        let hashes = HashMatrix::of(&mut base.rows, |done| {
            step(progress, "reading the base", done, total)
        })?;
        Ok((base, hashes))
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

/// Opens files and digests them.
fn open_all<D: Digester>(
    files: &[DataFile],
    memory: &mut Memory,
    reading: Reading<'_>,
) -> Result<(Vec<Source>, D::Digest)> {
    let (mut sources, mut digests) = (Vec::new(), Vec::new());
    for file in files {
        let mut digester = D::default();
        let see = |chunk: &[u8]| digester.update(chunk);
        sources.push(Source::open(&file.path, memory, reading.progress, see)?);
        digests.push(digester.finish());
    }
    Ok((sources, D::of_files(&digests)))
}

/// The first file that declares other columns, with what it and the new one
/// declare. Types are compared where both have any.
fn differs(seen: &[(PathBuf, Declared)], new: &Declared) -> Option<(PathBuf, String, String)> {
    seen.iter().find_map(|(path, first)| {
        let (expected, found) = match (&first.typed, &new.typed) {
            (Some(expected), Some(found)) => (expected, found),
            _ => (&first.names, &new.names),
        };
        (expected != found).then(|| (path.clone(), expected.clone(), found.clone()))
    })
}

/// Adds a file's rows. Gives its columns where the format declares them.
pub(crate) fn add_file(
    rows: &mut Rows,
    source: Source,
    options: TextOptions,
    fill: bool,
    (memory, reading): (&mut Memory, Reading<'_>),
) -> Result<Option<Declared>> {
    let format = Format::of(&source.path)?;
    if format.is_text() {
        // A delimited file declares its columns; JSON objects need not agree.
        return rows.add_text(source, format, options, fill, memory);
    }
    let path = source.path.clone();
    drop(source);
    let read = || read_rows(&path, memory.left(), reading);
    // Rows of types that are not read are none: such a file is bytes.
    let Some((stored, columns, schema)) = guarded(&path, read)? else {
        return Ok(None);
    };
    rows.add_stored(stored, columns, &path, memory)?;
    rows.scales.extend(scales(&schema));
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let typed = schema
        .fields()
        .iter()
        .map(|field| format!("{}: {}", field.name(), field.data_type()));
    Ok(Some(Declared {
        typed: Some(typed.collect::<Vec<_>>().join(", ")),
        ..Declared::names(&names)
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_folders_are_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        for name in ["data/test.jsonl", "train.csv", "README.md", ".cache/x.json"] {
            put(name);
        }
        let found = DataFiles::of(folder.path()).unwrap();
        let names: Vec<String> = found.files.into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["data/test.jsonl", "train.csv"]);
        assert_eq!(found.skipped, [".cache", "README.md"]);
    }
}
