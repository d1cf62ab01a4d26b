//! The artifact: a folder with one safetensors file of two byte tensors, `data` and `index`.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sparse_checkpoint::{Dtype, RelPath, Shard};

use crate::Error;
use crate::index::{Content, Index, KNOWN_FEATURES, MAX_INDEX_BYTES};

/// The file in the artifact's folder.
pub(crate) const FILE_NAME: &str = "delta.safetensors";
/// Version of the format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u64 = 1;
const FORMAT: &str = "sparse-delta";
/// The safetensors header is padded to this many bytes, so that it can be written last.
const HEADER_BYTES: usize = 256;
const INDEX_LEVEL: i32 = 19;

/// Writes an artifact: stored bytes as they come, then the index.
#[derive(Debug)]
pub(crate) struct ArtifactWriter {
    file: BufWriter<File>,
    path: PathBuf,
    shown: PathBuf,
    data: u64,
}

impl ArtifactWriter {
    /// Starts the artifact's file in `folder`; messages call it `shown`.
    pub(crate) fn create(folder: &Path, shown: PathBuf) -> Result<Self, Error> {
        let path = folder.join(FILE_NAME);
        let file = File::create_new(&path).map_err(Error::io("create", &shown))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER_BYTES])
            .map_err(Error::io("write", &shown))?;
        Ok(Self {
            file,
            path,
            shown,
            data: 0,
        })
    }

    /// Appends stored bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.data += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", &self.shown))
    }

    /// Writes index and header; returns the size of the file.
    pub(crate) fn finish(mut self, index: &Index) -> Result<u64, Error> {
        let packed = pack_index(index).map_err(Error::io("write", &self.shown))?;
        self.file
            .write_all(&packed)
            .map_err(Error::io("write", &self.shown))?;
        let end = self.data + packed.len() as u64;
        let text = format!(
            concat!(
                r#"{{"__metadata__":{{"format":"{}","format_version":"{}"}},"#,
                r#""data":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}},"#,
                r#""index":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}}"#
            ),
            FORMAT,
            FORMAT_VERSION,
            self.data,
            self.data,
            packed.len(),
            self.data,
            end
        );
        let mut header = ((HEADER_BYTES - 8) as u64).to_le_bytes().to_vec();
        header.extend_from_slice(text.as_bytes());
        debug_assert!(header.len() <= HEADER_BYTES);
        header.resize(HEADER_BYTES, b' ');
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .map_err(Error::io("write", &self.shown))?;
        std::fs::metadata(&self.path)
            .map(|meta| meta.len())
            .map_err(Error::io("read", &self.shown))
    }
}

/// The index as it is stored.
pub(crate) fn pack_index(index: &Index) -> std::io::Result<Vec<u8>> {
    let bytes = index.write();
    fits(bytes.len())?;
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), INDEX_LEVEL)?;
    encoder.include_checksum(true)?;
    // Known beforehand, the size makes for a small context: most indexes are a few kilobytes.
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.write_all(&bytes)?;
    let packed = encoder.finish()?;
    fits(packed.len())?;
    Ok(packed)
}

/// Refuses an index that no reader would take.
fn fits(len: usize) -> std::io::Result<()> {
    if len as u64 <= MAX_INDEX_BYTES {
        return Ok(());
    }
    Err(std::io::Error::other(format!(
        "the index, which holds the headers of all shards, would have {len} bytes, of \
         {MAX_INDEX_BYTES} at most"
    )))
}

/// Bytes of an artifact with so much data and this index.
pub(crate) fn artifact_bytes(data: u64, index: &Index) -> std::io::Result<u64> {
    Ok(HEADER_BYTES as u64 + data + pack_index(index)?.len() as u64)
}

/// An artifact on disk: its index, checked as a whole, and access to the stored bytes.
#[derive(Debug)]
pub(crate) struct Artifact {
    path: PathBuf,
    shard: Shard,
    index: Index,
    /// Where each file's stored bytes start.
    offsets: Vec<u64>,
    data_start: u64,
}

impl Artifact {
    /// Opens the artifact in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE_NAME);
        let not = |reason: &str| Error::NotADelta {
            path: folder.to_owned(),
            reason: reason.to_owned(),
        };
        match std::fs::symlink_metadata(folder) {
            Err(_) => return Err(not("it does not exist")),
            Ok(meta) if meta.is_file() => return Err(not("it is a file, not a folder")),
            Ok(_) => {}
        }
        // Links are followed: in a Hugging Face cache every file is one.
        match std::fs::metadata(&path) {
            Err(_) => return Err(not("it has no delta.safetensors")),
            Ok(meta) if !meta.is_file() => {
                return Err(not("its delta.safetensors is not a regular file"));
            }
            Ok(_) => {}
        }
        let name = RelPath::parse(FILE_NAME).map_err(|e| not(&e.to_string()))?;
        let shard = Shard::open(folder, name)?;
        let metadata = shard.header().metadata();
        let damaged_part = |part: &str, reason: String| Error::Damaged {
            path: path.clone(),
            part: part.to_owned(),
            reason,
        };
        let names: Vec<_> = shard.tensors().iter().map(|t| t.name()).collect();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            // A model with such tensors and no others is hardly to be met.
            return Err(match names.as_slice() {
                ["data", "index"] => damaged_part("header", "it names no format".to_owned()),
                _ => not("its delta.safetensors is of another format"),
            });
        }
        match metadata.get("format_version").map(|v| v.parse::<u64>()) {
            Some(Ok(1..=FORMAT_VERSION)) => {}
            Some(Ok(found)) if found > 0 => {
                return Err(Error::Version {
                    path,
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            _ => {
                return Err(damaged_part(
                    "header",
                    "it names no format version".to_owned(),
                ));
            }
        }
        let damaged = |reason: String| damaged_part("index", reason);
        let section = |name: &str| {
            shard
                .tensor(name)
                .filter(|t| t.info().dtype() == Dtype::U8)
                .ok_or_else(|| damaged(format!("no {name} section")))
        };
        if !shard.gaps().is_empty() {
            return Err(damaged("bytes belong to no section".to_owned()));
        }
        let (data, packed) = (section("data")?.info().range(), section("index")?);
        if packed.info().bytes() > MAX_INDEX_BYTES {
            return Err(damaged("it is too large".to_owned()));
        }
        let mut bytes = vec![0; packed.info().bytes() as usize];
        packed.read_range(0..packed.info().bytes(), &mut bytes)?;
        let index = unpack_index(&bytes).map_err(&damaged)?;
        if index.required & !KNOWN_FEATURES != 0 {
            return Err(Error::Features {
                path,
                features: index.required & !KNOWN_FEATURES,
            });
        }
        let offsets = index
            .file_offsets()
            .ok_or_else(|| damaged("sizes overflow".to_owned()))?;
        let stored = offsets.last().copied().unwrap_or(0);
        if stored != data.end - data.start {
            return Err(damaged(format!(
                "it accounts for {stored} bytes of data, there are {}",
                data.end - data.start
            )));
        }
        let data_start = shard.data_start() + data.start;
        Ok(Self {
            path,
            shard,
            index,
            offsets,
            data_start,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Size of the artifact's file.
    pub(crate) fn bytes(&self) -> u64 {
        self.shard.size()
    }

    /// Where the stored bytes of a file start in the data section.
    pub(crate) fn file_offset(&self, file: usize) -> u64 {
        self.offsets[file]
    }

    /// Where the stored bytes of each tensor of a file start in the data section.
    pub(crate) fn tensor_offsets(&self, file: usize) -> Vec<u64> {
        let Content::Shard(shard) = &self.index.files[file].content else {
            return Vec::new();
        };
        let mut at = self.file_offset(file) + shard.gaps;
        let tensors = shard.tensors.iter().map(|tensor| {
            let start = at;
            at += tensor.source.stored();
            start
        });
        tensors.collect()
    }

    /// Reads `len` stored bytes at `offset` of the data section, which lie in it: the index has
    /// been checked against it.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len as usize];
        self.shard.read_at(self.data_start + offset, &mut bytes)?;
        Ok(bytes)
    }

    /// A stream of `len` stored bytes.
    pub(crate) fn stream(&self, offset: u64, len: u64) -> impl Read + '_ {
        StoredBytes {
            artifact: self,
            at: offset,
            end: offset + len,
        }
    }
}

/// Unpacks and checks an index; the memory it takes is bounded by what is really there.
pub(crate) fn unpack_index(packed: &[u8]) -> Result<Index, String> {
    let mut bytes = Vec::new();
    let mut decoder = zstd::stream::Decoder::new(packed).map_err(|e| e.to_string())?;
    decoder.window_log_max(27).map_err(|e| e.to_string())?;
    decoder
        .take(MAX_INDEX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(format!("it unpacks to more than {MAX_INDEX_BYTES} bytes"));
    }
    Index::read(&bytes).map_err(|e| e.to_string())
}

struct StoredBytes<'a> {
    artifact: &'a Artifact,
    at: u64,
    end: u64,
}

impl Read for StoredBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = (buffer.len() as u64).min(self.end - self.at) as usize;
        self.artifact
            .shard
            .read_at(self.artifact.data_start + self.at, &mut buffer[..len])
            .map_err(std::io::Error::other)?;
        self.at += len as u64;
        Ok(len)
    }
}
