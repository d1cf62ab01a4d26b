//! Writing an index.

use sparse_codec::put_varint;

use super::{BaseFile, BaseTensor, Blob, BlobSource, Content, File, Index, Shard, Source};

pub(super) const FILE_SHARD: u64 = 0;
pub(super) const FILE_PACKED: u64 = 1;
pub(super) const FILE_AGAINST: u64 = 2;
pub(super) const FILE_COPY: u64 = 3;

pub(super) const TENSOR_COPY: u64 = 0;
pub(super) const TENSOR_ALIAS: u64 = 1;
pub(super) const TENSOR_CODED: u64 = 2;
pub(super) const TENSOR_RAW: u64 = 3;

pub(super) const BASE_NONE: u64 = 0;
pub(super) const BASE_SAME: u64 = 1;
pub(super) const BASE_OTHER_NAME: u64 = 2;
pub(super) const BASE_OTHER: u64 = 3;

impl Index {
    /// The index as bytes, before compression.
    ///
    /// Digests come last: they do not compress, and would part what does.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.required);
        put_varint(&mut out, self.optional);
        text(&mut out, &self.creator);
        text(&mut out, &self.base_id);
        put_varint(&mut out, self.tables.len() as u64);
        put_varint(&mut out, self.files.len() as u64);
        let mut digests = self.base_digest.0.to_vec();
        for file in &self.files {
            write_file(file, &mut out, &mut digests);
        }
        for tables in &self.tables {
            put_varint(&mut out, tables.len() as u64);
            out.extend_from_slice(tables);
        }
        out.extend_from_slice(&digests);
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn write_file(file: &File, out: &mut Vec<u8>, digests: &mut Vec<u8>) {
    text(out, file.path.as_str());
    digests.extend_from_slice(&file.digest.0);
    if file.stored() > 0 {
        digests.extend_from_slice(&file.stored_check);
    }
    match &file.content {
        Content::Shard(shard) => {
            put_varint(out, FILE_SHARD);
            write_shard(shard, out, digests);
        }
        Content::Blob(Blob { source, stored }) => match source {
            BlobSource::Packed => {
                put_varint(out, FILE_PACKED);
                put_varint(out, file.size);
                put_varint(out, *stored);
            }
            BlobSource::Against(base) => {
                put_varint(out, FILE_AGAINST);
                put_varint(out, file.size);
                put_varint(out, *stored);
                write_base_file(base, out);
            }
            BlobSource::Copy(base) => {
                put_varint(out, FILE_COPY);
                write_base_file(base, out);
            }
        },
    }
}

fn write_base_file(base: &BaseFile, out: &mut Vec<u8>) {
    text(out, base.path.as_str());
    put_varint(out, base.size);
}

fn write_shard(shard: &Shard, out: &mut Vec<u8>, digests: &mut Vec<u8>) {
    text(out, shard.header.text());
    put_varint(out, shard.header.data_len());
    put_varint(out, shard.gaps);
    for (tensor, info) in shard.tensors.iter().zip(shard.header.tensors()) {
        digests.extend_from_slice(&tensor.check.0);
        if tensor.source.stored() > 0 {
            digests.extend_from_slice(&tensor.stored_check);
        }
        let mut base_ref = |base: Option<&BaseTensor>, out: &mut Vec<u8>| {
            let Some(base) = base else {
                return put_varint(out, BASE_NONE);
            };
            // A copy's base has the copy's own digest.
            if !matches!(tensor.source, Source::Copy(_)) {
                digests.extend_from_slice(&base.check);
            }
            let same = base.dtype == info.dtype() && base.shape == info.shape();
            if same && base.name == info.name() {
                return put_varint(out, BASE_SAME);
            }
            put_varint(out, if same { BASE_OTHER_NAME } else { BASE_OTHER });
            text(out, &base.name);
            if !same {
                text(out, base.dtype.name());
                put_varint(out, base.shape.len() as u64);
                for &side in &base.shape {
                    put_varint(out, side);
                }
            }
        };
        match &tensor.source {
            Source::Copy(base) => {
                put_varint(out, TENSOR_COPY);
                base_ref(Some(base), out);
            }
            Source::Alias(file, tensor) => {
                put_varint(out, TENSOR_ALIAS);
                put_varint(out, *file as u64);
                put_varint(out, *tensor as u64);
            }
            Source::Coded(coded) => {
                put_varint(out, TENSOR_CODED);
                base_ref(coded.base.as_ref(), out);
                out.push(coded.shift);
                put_varint(out, coded.tables as u64 * 2 + u64::from(coded.low_rank));
                put_varint(out, coded.model);
                put_varint(out, coded.chunks.len() as u64);
                for &chunk in &coded.chunks {
                    put_varint(out, chunk);
                }
            }
            Source::Raw(raw) => {
                put_varint(out, TENSOR_RAW);
                base_ref(raw.base.as_ref(), out);
                put_varint(out, raw.chunks.len() as u64);
                for &chunk in &raw.chunks {
                    put_varint(out, chunk);
                }
            }
        }
    }
}
