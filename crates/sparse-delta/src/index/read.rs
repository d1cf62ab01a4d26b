//! Reading an index: the only way from bytes to an [`Index`].

use sparse_checkpoint::{Dtype, RelPath, TensorInfo, parse_header};
use sparse_codec::{CodecError, Reader};

use super::write::{
    BASE_NONE, BASE_OTHER, BASE_OTHER_NAME, BASE_SAME, FILE_AGAINST, FILE_COPY, FILE_PACKED,
    FILE_SHARD, TENSOR_ALIAS, TENSOR_CODED, TENSOR_COPY, TENSOR_RAW,
};
use super::{
    BaseFile, BaseTensor, Blob, BlobSource, Coded, Content, File, Index, MAX_TENSORS, Raw, Shard,
    Source, Tensor, common_weights, is_modelled,
};
use crate::digest::{BaseDigest, Check, FileDigest};
use crate::words::castable;

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Other(String),
}

fn other(message: impl Into<String>) -> IndexError {
    IndexError::Other(message.into())
}

/// Each entry of a list takes at least this much of the index, so no list is longer than it.
fn count(reader: &mut Reader<'_>, what: &'static str) -> Result<usize, CodecError> {
    reader.length(what, reader.remaining())
}

impl Index {
    /// Reads what [`Index::write`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader::new(bytes, "index");
        let required = reader.varint()?;
        let optional = reader.varint()?;
        let creator = text(&mut reader)?;
        let base_id = text(&mut reader)?;
        let table_sets = count(&mut reader, "number of table sets")?;
        let file_count = count(&mut reader, "number of files")?;
        let mut files = Vec::new();
        let mut tensors = 0;
        for number in 0..file_count {
            let file = read_file(&mut reader, number, table_sets, &files)?;
            if let Content::Shard(shard) = &file.content {
                tensors += shard.tensors.len();
            }
            too_many(tensors)?;
            files.push(file);
        }
        let mut tables = Vec::new();
        for _ in 0..table_sets {
            let len = reader.length("table set length", reader.remaining())?;
            tables.push(reader.take(len)?.to_vec());
        }
        let base_digest = BaseDigest(fixed(&mut reader)?);
        for file in &mut files {
            read_digests(&mut reader, file)?;
        }
        reader.finish()?;
        no_path_twice(&files)?;
        total(files.iter().map(|file| file.size))?;
        Ok(Self {
            required,
            optional,
            creator,
            base_id,
            base_digest,
            tables,
            files,
        })
    }
}

fn too_many(tensors: usize) -> Result<(), IndexError> {
    match tensors {
        0..=MAX_TENSORS => Ok(()),
        _ => Err(other(format!(
            "{tensors} tensors, of {MAX_TENSORS} at most"
        ))),
    }
}

fn fixed<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], CodecError> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(reader.take(N)?);
    Ok(bytes)
}

fn text(reader: &mut Reader<'_>) -> Result<String, IndexError> {
    let len = count(reader, "text length")?;
    let bytes = reader.take(len)?.to_vec();
    String::from_utf8(bytes).map_err(|_| other("a text is not UTF-8"))
}

fn path(reader: &mut Reader<'_>) -> Result<RelPath, IndexError> {
    let path = text(reader)?;
    RelPath::parse(&path).map_err(|error| other(format!("path {path:?}: {error}")))
}

/// No file twice, and none where another has a folder.
fn no_path_twice(files: &[File]) -> Result<(), IndexError> {
    let mut paths: Vec<String> = files.iter().map(|f| format!("{}/", f.path)).collect();
    paths.sort();
    match paths.windows(2).find(|p| p[1].starts_with(&p[0])) {
        None => Ok(()),
        Some(pair) => Err(other(format!(
            "paths {} and {} cannot both be files",
            pair[0].trim_end_matches('/'),
            pair[1].trim_end_matches('/')
        ))),
    }
}

fn read_file(
    reader: &mut Reader<'_>,
    number: usize,
    table_sets: usize,
    before: &[File],
) -> Result<File, IndexError> {
    let path = path(reader)?;
    let kind = reader.varint()?;
    let (size, content) = match kind {
        FILE_SHARD => {
            let shard = read_shard(reader, number, table_sets, before)
                .map_err(|error| other(format!("{path}: {error}")))?;
            let size = (shard.header.text().len() as u64 + 8)
                .checked_add(shard.header.data_len())
                .ok_or_else(|| other(format!("{path}: size overflows")))?;
            (size, Content::Shard(shard))
        }
        FILE_PACKED | FILE_AGAINST => {
            let size = reader.varint()?;
            let stored = reader.varint()?;
            let source = if kind == FILE_AGAINST {
                BlobSource::Against(base_file(reader)?)
            } else {
                BlobSource::Packed
            };
            (size, Content::Blob(Blob { source, stored }))
        }
        FILE_COPY => {
            let base = base_file(reader)?;
            let size = base.size;
            let source = BlobSource::Copy(base);
            (size, Content::Blob(Blob { source, stored: 0 }))
        }
        _ => return Err(other(format!("{path}: unknown kind of file {kind}"))),
    };
    Ok(File {
        path,
        size,
        digest: FileDigest([0; 32]),
        stored_check: [0; 4],
        content,
    })
}

fn base_file(reader: &mut Reader<'_>) -> Result<BaseFile, IndexError> {
    Ok(BaseFile {
        path: path(reader)?,
        size: reader.varint()?,
    })
}

fn read_shard(
    reader: &mut Reader<'_>,
    number: usize,
    table_sets: usize,
    before: &[File],
) -> Result<Shard, IndexError> {
    let header = text(reader)?;
    let data_len = reader.varint()?;
    let header =
        parse_header(header.as_bytes(), data_len).map_err(|error| other(error.to_string()))?;
    too_many(header.tensors().len())?;
    let gaps = reader.varint()?;
    if (gaps > 0) == header.gaps().is_empty() {
        return Err(other("bytes between tensors are missing or superfluous"));
    }
    let mut tensors = Vec::new();
    for info in header.tensors() {
        let source = read_source(reader, info, table_sets)
            .map_err(|error| other(format!("tensor {:?}: {error}", info.name())))?;
        if let Source::Alias(file, tensor) = source {
            let (header, tensors) = match before.get(file).map(|file| &file.content) {
                Some(Content::Shard(shard)) => (&shard.header, &shard.tensors),
                None if file == number => (&header, &tensors),
                _ => {
                    return Err(other(format!(
                        "tensor {:?}: an alias of no shard",
                        info.name()
                    )));
                }
            };
            // Never of another alias: following them takes one step.
            let aliased = header
                .tensors()
                .get(tensor)
                .zip(tensors.get(tensor))
                .filter(|(_, tensor)| !matches!(tensor.source, Source::Alias(..)))
                .map(|(info, _)| info);
            if aliased.is_none_or(|a| a.bytes() != info.bytes()) {
                return Err(other(format!(
                    "tensor {:?}: an alias of a tensor that is not before it",
                    info.name()
                )));
            }
        }
        tensors.push(Tensor {
            check: Check([0; 8]),
            stored_check: [0; 4],
            source,
        });
    }
    Ok(Shard {
        header,
        tensors,
        gaps,
    })
}

fn read_source(
    reader: &mut Reader<'_>,
    info: &TensorInfo,
    table_sets: usize,
) -> Result<Source, IndexError> {
    match reader.varint()? {
        TENSOR_COPY => {
            let base = base_tensor(reader, info)?.ok_or_else(|| other("a copy of nothing"))?;
            if base.dtype != info.dtype() || base.shape != info.shape() {
                return Err(other("a copy of a tensor of another dtype or shape"));
            }
            Ok(Source::Copy(base))
        }
        TENSOR_ALIAS => {
            let file = reader.length("file number", usize::MAX)?;
            let tensor = reader.length("tensor number", usize::MAX)?;
            Ok(Source::Alias(file, tensor))
        }
        TENSOR_CODED => {
            let base = base_tensor(reader, info)?;
            if !is_modelled(info.dtype()) {
                return Err(other(format!(
                    "dtype {} is not modelled",
                    info.dtype().name()
                )));
            }
            if let Some(base) = &base
                && (!castable(base.dtype, info.dtype())
                    || common_weights(&base.shape, info.shape()).is_none())
            {
                return Err(other("a base of another kind"));
            }
            let shift = reader.u8()?;
            let tables = reader.length("table set", usize::MAX)?;
            let (tables, low_rank) = (tables / 2, tables % 2 == 1);
            if base.is_some() && tables >= table_sets {
                return Err(other(format!("table set {tables} of {table_sets}")));
            }
            if low_rank && base.is_none() {
                return Err(other("a low-rank prediction without a base"));
            }
            let model = reader.varint()?;
            // What follows from scales is allocated for the base's rows, which are known to exist.
            if base.is_none() && model > 0 {
                return Err(other("scales without a base"));
            }
            let chunks = chunk_lengths(reader)?;
            total(chunks.iter().copied().chain([model]))?;
            Ok(Source::Coded(Coded {
                base,
                shift,
                tables,
                low_rank,
                model,
                chunks,
            }))
        }
        TENSOR_RAW => {
            let base = base_tensor(reader, info)?;
            if let Some(base) = &base
                && (base.dtype != info.dtype() || base.shape != info.shape())
            {
                return Err(other("a base of another dtype or shape"));
            }
            let chunks = chunk_lengths(reader)?;
            total(chunks.iter().copied())?;
            Ok(Source::Raw(Raw { base, chunks }))
        }
        kind => Err(other(format!("unknown kind of tensor {kind}"))),
    }
}

fn chunk_lengths(reader: &mut Reader<'_>) -> Result<Vec<u64>, CodecError> {
    let chunks = count(reader, "number of chunks")?;
    (0..chunks).map(|_| reader.varint()).collect()
}

fn total(lengths: impl IntoIterator<Item = u64>) -> Result<u64, IndexError> {
    lengths
        .into_iter()
        // Far above any disk, and sums of such sums do not overflow.
        .try_fold(0u64, |sum, len| {
            sum.checked_add(len).filter(|&sum| sum < 1 << 50)
        })
        .ok_or_else(|| other("sizes overflow"))
}

fn base_tensor(
    reader: &mut Reader<'_>,
    info: &TensorInfo,
) -> Result<Option<BaseTensor>, IndexError> {
    let kind = reader.varint()?;
    let mut base = BaseTensor {
        name: info.name().to_owned(),
        dtype: info.dtype(),
        shape: info.shape().to_vec(),
        check: [0; 4],
    };
    match kind {
        BASE_NONE => return Ok(None),
        BASE_SAME => {}
        BASE_OTHER_NAME | BASE_OTHER => {
            base.name = text(reader)?;
            if kind == BASE_OTHER {
                let dtype = text(reader)?;
                base.dtype = dtype
                    .parse::<Dtype>()
                    .map_err(|_| other(format!("unknown dtype {dtype:?}")))?;
                let sides = count(reader, "number of dimensions")?;
                base.shape = (0..sides)
                    .map(|_| reader.varint())
                    .collect::<Result<_, _>>()?;
                base.shape
                    .iter()
                    .try_fold(1u64, |product, &side| product.checked_mul(side))
                    .filter(|&elements| elements < 1 << 50)
                    .ok_or_else(|| other("the base's shape overflows"))?;
            }
        }
        _ => return Err(other(format!("unknown kind of base {kind}"))),
    }
    Ok(Some(base))
}

fn read_digests(reader: &mut Reader<'_>, file: &mut File) -> Result<(), IndexError> {
    file.digest = FileDigest(fixed(reader)?);
    if file.stored() > 0 {
        file.stored_check = fixed(reader)?;
    }
    if let Content::Shard(shard) = &mut file.content {
        for tensor in &mut shard.tensors {
            tensor.check = Check(fixed(reader)?);
            if tensor.source.stored() > 0 {
                tensor.stored_check = fixed(reader)?;
            }
            match &mut tensor.source {
                // A copy's base has the copy's own digest.
                Source::Copy(base) => base.check.copy_from_slice(&tensor.check.0[..4]),
                Source::Coded(Coded {
                    base: Some(base), ..
                })
                | Source::Raw(Raw {
                    base: Some(base), ..
                }) => base.check = fixed(reader)?,
                _ => {}
            }
        }
    }
    Ok(())
}
