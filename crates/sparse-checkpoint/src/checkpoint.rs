//! A checkpoint directory, validated once.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::walk::{Found, open_regular, walk};
use crate::{Error, RelPath, Shard, TensorRef, index};

/// A directory with safetensors weights and whatever lies beside them.
///
/// Opening reads every shard's header and every index; what it hands out is trusted afterwards.
/// `config.json` is not required: a folder of adapters or a pipeline of several models is a
/// checkpoint too.
#[derive(Debug)]
pub struct Checkpoint {
    root: PathBuf,
    shards: Vec<Shard>,
    files: Vec<PlainFile>,
    skipped: Vec<RelPath>,
    /// One place (shard, tensor) per distinct tensor name, sorted by name.
    by_name: Vec<(u32, u32)>,
}

/// A file that is not a shard: configuration, tokenizer, index, licence.
#[derive(Clone, Debug)]
pub struct PlainFile {
    path: RelPath,
    full_path: PathBuf,
    size: u64,
}

/// Enough for any configuration or tokenizer.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

impl Checkpoint {
    /// Opens the checkpoint in `dir`: lists its files, reads the headers of its shards and checks
    /// its indexes against them.
    ///
    /// Files in `.git` and `.cache` do not belong to it. Links to files are followed, as the hub's
    /// cache needs; links to folders are left out, see [`Checkpoint::skipped`].
    ///
    /// # Errors
    /// If there is no `*.safetensors` file, a file is unreadable or has a name that could not be
    /// restored everywhere, a header is invalid, or an index names what is not there.
    pub fn open(dir: &Path) -> Result<Checkpoint, Error> {
        let checkpoint = Checkpoint::open_any(dir)?;
        if checkpoint.shards.is_empty() {
            return Err(no_safetensors(dir, &checkpoint.files));
        }
        Ok(checkpoint)
    }

    /// Opens a folder as [`Checkpoint::open`] does, but one without `*.safetensors` too: weights
    /// may be in a file of another kind beside the configuration and the tokenizer.
    ///
    /// # Errors
    /// See [`Checkpoint::open`].
    pub fn open_any(dir: &Path) -> Result<Checkpoint, Error> {
        match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Error::NotADirectory {
                    path: dir.to_path_buf(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    path: dir.to_path_buf(),
                });
            }
            Err(error) => return Err(Error::io("open", dir)(error)),
        }
        let listing = walk(dir)?;
        let (weights, others): (Vec<Found>, Vec<Found>) = listing
            .files
            .into_iter()
            .partition(|file| file.path.as_str().ends_with(".safetensors"));
        let shards = weights
            .into_iter()
            .map(|file| Shard::open(dir, file.path))
            .collect::<Result<Vec<_>, _>>()?;
        let files: Vec<PlainFile> = others
            .into_iter()
            .map(|file| PlainFile::new(dir, file))
            .collect();
        let by_name = names(&shards, &files)?;
        let root = dir.to_path_buf();
        Ok(Checkpoint {
            root,
            shards,
            files,
            skipped: listing.skipped,
            by_name,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every `*.safetensors` file, sorted by path.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// All other files, sorted by path.
    pub fn files(&self) -> &[PlainFile] {
        &self.files
    }

    /// Folders that are not part of this: links, which are not followed, and those of tools (`.git`,
    /// `.cache`).
    pub fn skipped(&self) -> &[RelPath] {
        &self.skipped
    }

    /// All tensors: shard by shard, each by ascending offset. A name that is in several shards
    /// comes several times.
    pub fn tensors(&self) -> impl Iterator<Item = TensorRef<'_>> {
        self.shards
            .iter()
            .flat_map(|shard| (0..shard.tensors().len()).map(|at| shard.tensor_at(at)))
    }

    /// The tensor with this name. Where several shards hold the name, the one that an index
    /// points to, otherwise the first in path order.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let at = self
            .by_name
            .binary_search_by(|&place| place_name(&self.shards, place).cmp(name))
            .ok()?;
        let (shard, tensor) = self.by_name[at];
        Some(self.shards[shard as usize].tensor_at(tensor as usize))
    }

    /// The file at this path, if it is there and not a shard.
    pub fn file(&self, path: &str) -> Option<&PlainFile> {
        let at = self
            .files
            .binary_search_by(|file| file.path.as_str().cmp(path))
            .ok()?;
        Some(&self.files[at])
    }

    /// `config.json`, parsed.
    ///
    /// # Errors
    /// If it is missing or not JSON.
    pub fn config(&self) -> Result<serde_json::Value, Error> {
        let Some(file) = self.file("config.json") else {
            return Err(Error::NotFound {
                path: self.root.join("config.json"),
            });
        };
        serde_json::from_slice(&file.read(MAX_CONFIG_BYTES)?).map_err(|error| Error::Json {
            path: file.full_path.clone(),
            message: error.to_string(),
        })
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        let shards = self.shards.iter().map(Shard::size);
        shards.chain(self.files.iter().map(PlainFile::size)).sum()
    }
}

impl PlainFile {
    fn new(root: &Path, found: Found) -> PlainFile {
        PlainFile {
            full_path: found.path.join_to(root),
            path: found.path,
            size: found.size,
        }
    }

    /// Where the file is, relative to the checkpoint.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// Where the file is on this machine.
    pub fn full_path(&self) -> &Path {
        &self.full_path
    }

    /// Size in bytes, when the checkpoint was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// If the system refuses, or it has become something else than a file.
    pub fn open(&self) -> Result<File, Error> {
        open_regular(&self.full_path)
    }

    /// Reads it whole.
    ///
    /// # Errors
    /// If it is longer than `limit`, or its size changed since the checkpoint was opened.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, Error> {
        let path = self.full_path.clone();
        if self.size > limit {
            return Err(Error::TooLarge {
                path,
                found: self.size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        let mut file = self.open()?.take(self.size + 1);
        file.read_to_end(&mut bytes)
            .map_err(Error::io("read", &path))?;
        if bytes.len() as u64 != self.size {
            let found = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            return Err(Error::Changed {
                path,
                expected: self.size,
                found,
            });
        }
        Ok(bytes)
    }
}

fn place_name(shards: &[Shard], (shard, tensor): (u32, u32)) -> &str {
    shards[shard as usize].tensors()[tensor as usize].name()
}

/// One place per name: what the indexes say, in path order, then the shards in path order.
fn names(shards: &[Shard], files: &[PlainFile]) -> Result<Vec<(u32, u32)>, Error> {
    let mut places = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.as_str().ends_with(index::SUFFIX))
    {
        places.extend(index::read(file, shards)?);
    }
    for (at, shard) in shards.iter().enumerate() {
        places.extend((0..shard.tensors().len()).map(|tensor| (at as u32, tensor as u32)));
    }
    places.sort_by(|&a, &b| place_name(shards, a).cmp(place_name(shards, b))); // stable
    places.dedup_by(|a, b| place_name(shards, *a) == place_name(shards, *b));
    Ok(places)
}

fn no_safetensors(dir: &Path, others: &[PlainFile]) -> Error {
    const SHOWN: usize = 10;
    const OTHER_FORMATS: [&str; 8] = [
        ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt",
    ];
    let mut found: Vec<String> = others
        .iter()
        .take(SHOWN)
        .map(|file| file.path().to_string())
        .collect();
    if others.len() > SHOWN {
        found.push(format!("and {} more", others.len() - SHOWN));
    }
    let other_weights = others.iter().any(|file| {
        OTHER_FORMATS
            .iter()
            .any(|suffix| file.path().as_str().ends_with(suffix))
    });
    Error::NoSafetensors {
        path: dir.to_path_buf(),
        found,
        other_weights,
    }
}
