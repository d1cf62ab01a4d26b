//! Decoding the chunks of one tensor.

use std::ops::Range;

use sparse_checkpoint::{Checkpoint, Dtype, TensorInfo, TensorRef};
use sparse_codec::{Layout, Model, Reader, Scales, Scratch, TableSet, decode};

use crate::Error;
use crate::artifact::Artifact;
use crate::base::find;
use crate::digest::stored_check;
use crate::index::{
    BaseTensor, Coded, Content, RAW_CHUNK_BYTES, Source, Tensor, chunk_weights, chunks,
    common_weights, width,
};
use crate::plan::Prediction;
use crate::progress::{Progress, step};
use crate::raw;
use crate::source::read_words;
use crate::words::{Words, cast, layout};

/// What decoding needs beside the stored bytes: the base and the table sets.
pub(crate) struct Decoders<'a> {
    pub(crate) artifact: &'a Artifact,
    base: &'a Checkpoint,
    tables: Vec<TableSet>,
    empty: TableSet,
    /// For each file, where the stored bytes of each of its tensors start.
    offsets: Vec<Vec<u64>>,
}

/// A tensor ready to be decoded chunk by chunk.
pub(crate) struct TensorDecoder<'a> {
    name: &'a str,
    dtype: Dtype,
    base: Option<TensorRef<'a>>,
    /// Where the chunk's stored bytes are, its place in the tensor, and whether it has a base.
    pub(crate) chunks: Vec<StoredChunk>,
    how: How<'a>,
}

#[derive(Debug, Clone)]
pub(crate) struct StoredChunk {
    offset: u64,
    len: u64,
    /// Weights, or bytes where the tensor is not modelled.
    range: Range<u64>,
    with_base: bool,
}

enum How<'a> {
    Copy,
    Raw,
    Coded {
        layout: Layout,
        tables: &'a TableSet,
        scales: Scales,
        low_rank: Option<Prediction>,
    },
}

impl<'a> Decoders<'a> {
    pub(crate) fn new(artifact: &'a Artifact, base: &'a Checkpoint) -> Result<Self, Error> {
        let tables = artifact
            .index()
            .tables
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let part = format!("table set {number}");
                let mut reader = Reader::new(bytes, "table set");
                let tables = TableSet::read(&mut reader)
                    .map_err(Error::damaged(artifact.path(), part.clone()))?;
                reader
                    .finish()
                    .map_err(Error::damaged(artifact.path(), part))?;
                Ok(tables)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            artifact,
            base,
            tables,
            empty: TableSet::none(),
            offsets: (0..artifact.index().files.len())
                .map(|file| artifact.tensor_offsets(file))
                .collect(),
        })
    }

    pub(crate) fn base(&self) -> &'a Checkpoint {
        self.base
    }

    /// What the index says of the base of a tensor; aliases are followed.
    pub(crate) fn base_of(&self, file: usize, number: usize) -> Option<&BaseTensor> {
        let Content::Shard(shard) = &self.artifact.index().files[file].content else {
            return None;
        };
        match shard.tensors[number].source {
            Source::Alias(file, number) => self.base_of(file, number),
            ref source => source.base(),
        }
    }

    /// Prepares tensor `number` of the shard that is file `file`; aliases are followed.
    pub(crate) fn tensor(&'a self, file: usize, number: usize) -> Result<TensorDecoder<'a>, Error> {
        let Content::Shard(shard) = &self.artifact.index().files[file].content else {
            // Aliases are checked to point into shards when the index is read.
            return Err(self.damaged("index", "an alias of a file that is no shard"));
        };
        let (tensor, info) = (&shard.tensors[number], &shard.header.tensors()[number]);
        if let Source::Alias(file, number) = tensor.source {
            return self.tensor(file, number);
        }
        let base = match tensor.source.base() {
            Some(base) => Some(find(self.base, base)?),
            None => None,
        };
        let mut decoder = TensorDecoder {
            name: info.name(),
            dtype: info.dtype(),
            base,
            chunks: Vec::new(),
            how: How::Copy,
        };
        let offset = self.offsets[file][number];
        match &tensor.source {
            Source::Copy(_) | Source::Alias(..) => {
                decoder.chunks = chunks(0, info.bytes(), RAW_CHUNK_BYTES)
                    .map(|range| StoredChunk {
                        offset: 0,
                        len: 0,
                        range,
                        with_base: true,
                    })
                    .collect();
            }
            Source::Raw(raw) => {
                decoder.how = How::Raw;
                let ranges = chunks(0, info.bytes(), RAW_CHUNK_BYTES).map(|r| (r, true));
                decoder.chunks = self.place(info, offset, &raw.chunks, ranges)?;
            }
            Source::Coded(coded) => self.coded(&mut decoder, info, coded, offset)?,
        }
        Ok(decoder)
    }

    /// Checks the stored bytes of a tensor against their digest.
    pub(crate) fn check_stored(&self, file: usize, number: usize) -> Result<(), Error> {
        let Content::Shard(shard) = &self.artifact.index().files[file].content else {
            return Ok(());
        };
        check_stored(
            self.artifact,
            self.offsets[file][number],
            &shard.tensors[number],
            &shard.header.tensors()[number],
        )
    }

    fn damaged(&self, part: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Damaged {
            path: self.artifact.path().to_owned(),
            part: part.into(),
            reason: reason.into(),
        }
    }

    fn coded(
        &'a self,
        decoder: &mut TensorDecoder<'a>,
        info: &'a TensorInfo,
        coded: &Coded,
        offset: u64,
    ) -> Result<(), Error> {
        let part = || format!("tensor {:?}", info.name());
        let damaged = Error::damaged(self.artifact.path(), part());
        let layout = layout(info.dtype())
            .and_then(|layout| layout.with_shift(u32::from(coded.shift)))
            .ok_or_else(|| self.damaged(part(), "its dtype has no such layout"))?;
        let width = width(info.shape());
        // Checked when the index was read: a base has a row length in common.
        let common = coded
            .base
            .as_ref()
            .and_then(|base| common_weights(&base.shape, info.shape()))
            .unwrap_or(0);
        let (mut scales, mut low_rank) = (Scales::flat(width), None);
        if coded.model > 0 {
            let bytes = self.artifact.read(offset, coded.model)?;
            (scales, low_rank) = read_model(&bytes, width, info, coded).map_err(damaged)?;
        } else if coded.low_rank {
            return Err(self.damaged(part(), "it has no low-rank factors"));
        }
        let chunk = chunk_weights(scales.segment() as u64);
        let ranges = chunks(common, info.elements(), chunk)
            .map(|range| (range.clone(), range.start < common));
        decoder.chunks = self.place(info, offset + coded.model, &coded.chunks, ranges)?;
        decoder.how = How::Coded {
            layout,
            tables: self.tables.get(coded.tables).unwrap_or(&self.empty),
            scales,
            low_rank,
        };
        Ok(())
    }

    /// Pairs the stored chunks with the ranges they must hold.
    fn place(
        &self,
        info: &TensorInfo,
        mut offset: u64,
        lengths: &[u64],
        ranges: impl Iterator<Item = (Range<u64>, bool)>,
    ) -> Result<Vec<StoredChunk>, Error> {
        let mut placed = Vec::with_capacity(lengths.len());
        let mut lengths = lengths.iter();
        for (range, with_base) in ranges {
            let Some(&len) = lengths.next() else { break };
            // A chunk is never much larger than what it holds: no huge reads on a lie.
            if len > (range.end - range.start) * 12 + (1 << 16) {
                let reason = format!("a chunk of {len} bytes");
                return Err(self.damaged(format!("tensor {:?}", info.name()), reason));
            }
            placed.push(StoredChunk {
                offset,
                len,
                range,
                with_base,
            });
            offset += len;
        }
        let held = placed.last().map_or(0, |chunk| chunk.range.end);
        let bits = u64::from(info.dtype().bits());
        if lengths.next().is_some()
            || (held != info.elements() && held * 8 != info.elements() * bits)
        {
            let reason = "its chunks do not make up the tensor";
            return Err(self.damaged(format!("tensor {:?}", info.name()), reason));
        }
        Ok(placed)
    }
}

fn read_model(
    bytes: &[u8],
    width: usize,
    info: &TensorInfo,
    coded: &Coded,
) -> Result<(Scales, Option<Prediction>), sparse_codec::CodecError> {
    let mut reader = Reader::new(bytes, "scales and factors");
    let scales = Scales::read(&mut reader, width)?;
    let mut low_rank = None;
    if coded.low_rank {
        low_rank = Some(Prediction::read(&mut reader, info.shape())?);
    }
    reader.finish()?;
    Ok((scales, low_rank))
}

/// Checks all stored bytes of an artifact against their digests; `found` is given what is damaged.
pub(crate) fn check_all_stored(
    artifact: &Artifact,
    progress: &dyn Progress,
    mut found: impl FnMut(Error) -> Result<(), Error>,
) -> Result<(), Error> {
    for (number, file) in artifact.index().files.iter().enumerate() {
        if let Content::Shard(shard) = &file.content {
            let mut offset = artifact.file_offset(number) + shard.gaps;
            for (tensor, info) in shard.tensors.iter().zip(shard.header.tensors()) {
                check_stored(artifact, offset, tensor, info).or_else(&mut found)?;
                offset += tensor.source.stored();
                step(progress, tensor.source.stored())?;
            }
        }
        check_file(artifact, number).or_else(&mut found)?;
        step(progress, file.stored())?;
    }
    Ok(())
}

/// Checks the stored bytes of a tensor against their digest.
fn check_stored(
    artifact: &Artifact,
    offset: u64,
    tensor: &Tensor,
    info: &TensorInfo,
) -> Result<(), Error> {
    let part = || format!("tensor {:?}", info.name());
    check_bytes(
        artifact,
        offset,
        tensor.source.stored(),
        tensor.stored_check,
        part,
    )
}

/// Checks the stored bytes of file `number` that belong to no tensor.
fn check_file(artifact: &Artifact, number: usize) -> Result<(), Error> {
    let file = &artifact.index().files[number];
    let part = || format!("file {}", file.path);
    let offset = artifact.file_offset(number);
    check_bytes(artifact, offset, file.stored(), file.stored_check, part)
}

fn check_bytes(
    artifact: &Artifact,
    offset: u64,
    total: u64,
    expected: [u8; 4],
    part: impl Fn() -> String,
) -> Result<(), Error> {
    let mut hasher = blake3::Hasher::new();
    for at in (0..total).step_by(RAW_CHUNK_BYTES as usize) {
        hasher.update(&artifact.read(offset + at, RAW_CHUNK_BYTES.min(total - at))?);
    }
    if total > 0 && stored_check(&hasher) != expected {
        return Err(Error::Damaged {
            path: artifact.path().to_owned(),
            part: part(),
            reason: "its stored bytes have another digest".to_owned(),
        });
    }
    Ok(())
}

impl<'a> TensorDecoder<'a> {
    pub(crate) fn base(&self) -> Option<TensorRef<'a>> {
        self.base
    }

    /// Decodes one of [`TensorDecoder::chunks`] to the bytes of the tensor that it holds.
    pub(crate) fn decode(
        &self,
        artifact: &Artifact,
        chunk: &StoredChunk,
        scratch: &mut Scratch,
    ) -> Result<Words, Error> {
        let (start, len) = (chunk.range.start, chunk.range.end - chunk.range.start);
        let damaged = |reason: String| Error::Damaged {
            path: artifact.path().to_owned(),
            part: format!("tensor {:?}", self.name),
            reason,
        };
        let base_bytes = || -> Result<Option<Vec<u8>>, Error> {
            let Some(base) = &self.base else {
                return Ok(None);
            };
            let mut bytes = vec![0; len as usize];
            base.read_range(chunk.range.clone(), &mut bytes)?;
            Ok(Some(bytes))
        };
        match &self.how {
            How::Copy => match base_bytes()? {
                Some(bytes) => Ok(Words::W8(bytes)),
                None => Err(damaged("a copy of nothing".to_owned())),
            },
            How::Raw => {
                let stored = artifact.read(chunk.offset, chunk.len)?;
                let mut out = vec![0; len as usize];
                let element = (self.dtype.bits() as usize / 8).max(1);
                raw::decode(base_bytes()?.as_deref(), &stored, element, &mut out)
                    .map_err(damaged)?;
                Ok(Words::W8(out))
            }
            How::Coded {
                layout,
                tables,
                scales,
                low_rank,
            } => {
                let stored = artifact.read(chunk.offset, chunk.len)?;
                let mut out = Words::zeros(layout.bytes(), len as usize);
                let mut base = Words::zeros(layout.bytes(), 0);
                if let Some(tensor) = self.base.filter(|_| chunk.with_base) {
                    let words = read_words(&tensor, start, len)?;
                    base = cast(words, tensor.info().dtype(), self.dtype);
                    if let Some(low_rank) = low_rank {
                        base = low_rank.predict(*layout, start, base);
                    }
                }
                let model = Model::new(*layout, tables, scales);
                let start = start as usize;
                match (&base, &mut out) {
                    (Words::W8(b), Words::W8(o)) => decode(&model, start, b, &stored, scratch, o),
                    (Words::W16(b), Words::W16(o)) => decode(&model, start, b, &stored, scratch, o),
                    (Words::W32(b), Words::W32(o)) => decode(&model, start, b, &stored, scratch, o),
                    // The base has been cast to the tensor's dtype.
                    _ => return Err(damaged("its base has another width".to_owned())),
                }
                .map_err(|error| damaged(error.to_string()))?;
                Ok(out)
            }
        }
    }
}
