//! Rebuilding whole files.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc;

use sha2::Digest as _;
use sparse_checkpoint::{OutputDir, PlainFile};
use sparse_codec::Scratch;

use super::decode::{Decoders, StoredChunk, TensorDecoder};
use crate::Error;
use crate::digest::FileDigest;
use crate::index::{BaseFile, Blob, BlobSource, Content, File, RAW_CHUNK_BYTES, Shard};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};
use crate::words::Words;

/// Pieces of a file that may wait to be hashed.
const UNHASHED: usize = 4;

/// Where the bytes of a file go, in order.
pub(crate) trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error>;
}

struct FileSink<'a> {
    file: fs::File,
    shown: &'a Path,
}

impl Sink for FileSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(Error::io("write", self.shown))
    }
}

/// Rebuilds file `number` in `folder`; returns its size.
pub(super) fn write_file(
    decoders: &Decoders<'_>,
    number: usize,
    folder: &OutputDir,
    threads: usize,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let file = &decoders.artifact.index().files[number];
    let path = file.path.join_to(folder.path());
    let shown = folder.target().join(file.path.as_str());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", &shown))?;
    }
    let mut sink = FileSink {
        file: fs::File::create_new(&path).map_err(Error::io("create", &shown))?,
        shown: &shown,
    };
    rebuild(decoders, number, threads, progress, &mut sink)?;
    Ok(file.size)
}

/// Rebuilds file `number` into `sink` and compares its SHA-256 with the original's.
pub(crate) fn rebuild(
    decoders: &Decoders<'_>,
    number: usize,
    threads: usize,
    progress: &dyn Progress,
    sink: &mut dyn Sink,
) -> Result<(), Error> {
    let file = &decoders.artifact.index().files[number];
    let mut written = 0;
    // Hashing takes as long as writing: a thread of its own does it meanwhile.
    let (sender, receiver) = mpsc::sync_channel::<Words>(UNHASHED);
    let found = std::thread::scope(|scope| {
        let hasher = scope.spawn(move || {
            let mut sha = sha2::Sha256::new();
            for words in receiver {
                sha.update(words.bytes());
            }
            FileDigest(sha.finalize().into())
        });
        let mut put = |words: Words| {
            let len = words.bytes().len() as u64;
            step(progress, len)?;
            written += len;
            sink.put(words.bytes())?;
            // The hasher is there until the sender is dropped, unless it panicked; joining tells.
            let _ = sender.send(words);
            Ok(())
        };
        let done = match &file.content {
            Content::Shard(shard) => rebuild_shard(decoders, number, shard, threads, &mut put),
            Content::Blob(blob) => rebuild_blob(decoders, number, file, blob, &mut put),
        };
        drop(sender);
        let found = hasher.join();
        done?;
        match found {
            Ok(found) => Ok::<_, Error>(found),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    if written != file.size || found != file.digest {
        return Err(Error::Mismatch {
            what: format!("file {}", file.path),
            expected: format!("{} bytes, SHA-256 {}", file.size, file.digest),
            found: format!("{written} bytes, {found}"),
        });
    }
    Ok(())
}

/// A part of a shard's data, in order.
enum Part<'a> {
    Bytes(Vec<u8>),
    Chunk(std::sync::Arc<TensorDecoder<'a>>, StoredChunk),
}

fn rebuild_shard(
    decoders: &Decoders<'_>,
    number: usize,
    shard: &Shard,
    threads: usize,
    put: &mut dyn FnMut(Words) -> Result<(), Error>,
) -> Result<(), Error> {
    let text = shard.header.text();
    put(Words::W8((text.len() as u64).to_le_bytes().to_vec()))?;
    put(Words::W8(text.as_bytes().to_vec()))?;
    let artifact = decoders.artifact;
    let mut gaps: Box<dyn Read> = Box::new(std::io::empty());
    if shard.gaps > 0 {
        let stored = artifact.stream(artifact.file_offset(number), shard.gaps);
        gaps = Box::new(raw::unpack(stored, &[]).map_err(damaged(decoders, "gaps"))?);
    }
    let gaps = RefCell::new(gaps);
    let mut pieces: Vec<(u64, Option<usize>, u64)> = shard
        .header
        .tensors()
        .iter()
        .enumerate()
        .map(|(i, info)| (info.range().start, Some(i), 0))
        .chain(
            shard
                .header
                .gaps()
                .into_iter()
                .map(|gap| (gap.start, None, gap.end - gap.start)),
        )
        .collect();
    pieces.sort_by_key(|p| p.0);
    let parts = pieces
        .into_iter()
        .flat_map(|(_, tensor, len)| match tensor {
            Some(tensor) => match decoders.tensor(number, tensor) {
                Ok(decoder) => {
                    let decoder = std::sync::Arc::new(decoder);
                    let chunks = decoder.chunks.clone();
                    let parts = chunks
                        .into_iter()
                        .map(move |chunk| Ok(Part::Chunk(decoder.clone(), chunk)));
                    Box::new(parts) as Box<dyn Iterator<Item = Result<Part<'_>, Error>>>
                }
                Err(error) => Box::new(std::iter::once(Err(error))),
            },
            None => {
                // Piece by piece: a gap can be as large as a file.
                let gaps = &gaps;
                Box::new((0..len).step_by(RAW_CHUNK_BYTES as usize).map(move |at| {
                    let mut bytes = vec![0; RAW_CHUNK_BYTES.min(len - at) as usize];
                    gaps.borrow_mut()
                        .read_exact(&mut bytes)
                        .map_err(damaged(decoders, "gaps"))?;
                    Ok(Part::Bytes(bytes))
                }))
            }
        });
    crate::pipeline::ordered(
        threads,
        parts,
        Scratch::default,
        |scratch, part| match part {
            Part::Bytes(bytes) => Ok(Words::W8(bytes)),
            Part::Chunk(decoder, chunk) => decoder.decode(artifact, &chunk, scratch),
        },
        put,
    )
}

fn damaged<'a>(
    decoders: &'a Decoders<'_>,
    part: &'a str,
) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |cause| Error::Damaged {
        path: decoders.artifact.path().to_owned(),
        part: part.to_owned(),
        reason: cause.to_string(),
    }
}

fn rebuild_blob(
    decoders: &Decoders<'_>,
    number: usize,
    file: &File,
    blob: &Blob,
    put: &mut dyn FnMut(Words) -> Result<(), Error>,
) -> Result<(), Error> {
    let find = |base: &BaseFile| {
        let found = decoders.base().file(base.path.as_str());
        found.ok_or_else(|| Error::BaseLacksFile {
            path: decoders.base().root().to_owned(),
            file: base.path.to_string(),
        })
    };
    let base = match &blob.source {
        BlobSource::Packed => Vec::new(),
        BlobSource::Against(base) => find(base)?.read(MAX_DICTIONARY)?,
        BlobSource::Copy(base) => return copy(find(base)?, file.size, put),
    };
    let artifact = decoders.artifact;
    let stored = artifact.stream(artifact.file_offset(number), blob.stored);
    let name = format!("file {}", file.path);
    let mut unpacked = raw::unpack(stored, &base).map_err(damaged(decoders, &name))?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = file.size;
    loop {
        let len = unpacked
            .read(&mut buffer)
            .map_err(damaged(decoders, &name))?;
        if len == 0 {
            return Ok(());
        }
        // A damaged stream could go on for ever.
        left = left.checked_sub(len as u64).ok_or_else(|| Error::Damaged {
            path: artifact.path().to_owned(),
            part: name.clone(),
            reason: format!("it unpacks to more than {} bytes", file.size),
        })?;
        put(Words::W8(buffer[..len].to_vec()))?;
    }
}

/// Hands on what `base` holds, up to `size` bytes; the digest tells whether it is the right file.
fn copy(
    base: &PlainFile,
    size: u64,
    put: &mut dyn FnMut(Words) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = base.open()?.take(size);
    loop {
        let mut piece = Vec::new();
        left.by_ref()
            .take(RAW_CHUNK_BYTES)
            .read_to_end(&mut piece)
            .map_err(Error::io("read", base.full_path()))?;
        if piece.is_empty() {
            return Ok(());
        }
        put(Words::W8(piece))?;
    }
}
