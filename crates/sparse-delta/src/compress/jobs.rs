//! Reading a shard in the order of its bytes, hashing as it goes, cut into jobs.

use std::ops::Range;

use sha2::Digest as _;
use sparse_checkpoint::{Shard, TensorRef};

use crate::Error;
use crate::digest::{FileDigest, TensorDigest};
use crate::index::{RAW_CHUNK_BYTES, chunk_weights, chunks};
use crate::plan::{Kind, TensorPlan};
use crate::source::read_words;
use crate::words::{Words, cast};

/// A chunk to code.
pub(super) struct Job {
    pub(super) tensor: usize,
    pub(super) start: u64,
    pub(super) input: Input,
}

pub(super) enum Input {
    /// Weights of the fine-tune, and of the base where there are any.
    Weights(Option<Words>, Words),
    /// Bytes of the fine-tune, and of the base where there are any.
    Bytes(Option<Vec<u8>>, Vec<u8>),
    /// The tensor is complete: digests of its bytes and of its base's.
    End(TensorDigest, Option<TensorDigest>),
}

/// A part of a shard's data.
enum Piece {
    Tensor(usize),
    Gap(Range<u64>),
}

/// The bytes of a shard that belong to no tensor, one gap after the other.
pub(super) fn gap_bytes(shard: &Shard) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for gap in shard.gaps() {
        let at = all.len();
        all.resize(at + (gap.end - gap.start) as usize, 0);
        shard.read_at(shard.data_start() + gap.start, &mut all[at..])?;
    }
    Ok(all)
}

/// Reads a shard once from start to end.
pub(super) struct ShardReader<'a> {
    shard: &'a Shard,
    plans: &'a [TensorPlan<'a>],
    /// What of [`gap_bytes`] has not been passed yet.
    gaps: &'a [u8],
    sha: sha2::Sha256,
}

impl<'a> ShardReader<'a> {
    /// `gaps` is what [`gap_bytes`] has read of the shard.
    pub(super) fn new(shard: &'a Shard, plans: &'a [TensorPlan<'a>], gaps: &'a [u8]) -> Self {
        let mut sha = sha2::Sha256::new();
        sha.update((shard.header_text().len() as u64).to_le_bytes());
        sha.update(shard.header_text().as_bytes());
        Self {
            shard,
            plans,
            gaps,
            sha,
        }
    }

    /// The digest of the whole file, once everything has been read.
    pub(super) fn digest(self) -> FileDigest {
        FileDigest(self.sha.finalize().into())
    }

    /// Calls `job` with every job of the shard, in order; stops when it returns false.
    pub(super) fn run(&mut self, job: &mut dyn FnMut(Result<Job, Error>) -> bool) {
        for piece in self.pieces() {
            let done = match piece {
                Piece::Gap(range) => {
                    let (gap, rest) = self.gaps.split_at((range.end - range.start) as usize);
                    self.sha.update(gap);
                    self.gaps = rest;
                    Ok(true)
                }
                Piece::Tensor(number) => self.tensor(number, &mut |next| job(Ok(next))),
            };
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    job(Err(error));
                    return;
                }
            }
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces: Vec<(u64, Piece)> = self
            .shard
            .tensors()
            .iter()
            .enumerate()
            .map(|(number, info)| (info.range().start, Piece::Tensor(number)))
            .chain(
                self.shard
                    .gaps()
                    .into_iter()
                    .map(|gap| (gap.start, Piece::Gap(gap))),
            )
            .collect();
        pieces.sort_by_key(|p| p.0);
        pieces.into_iter().map(|p| p.1).collect()
    }

    fn tensor(&mut self, number: usize, job: &mut dyn FnMut(Job) -> bool) -> Result<bool, Error> {
        let plan = &self.plans[number];
        let mut hasher = blake3::Hasher::new();
        let mut base_hasher = blake3::Hasher::new();
        let mut send = |start: u64, input: Input| {
            job(Job {
                tensor: number,
                start,
                input,
            })
        };
        let info = plan.fine.info();
        let base = match &plan.kind {
            Kind::Delta(delta) => {
                let segment = delta.scales.segment() as u64;
                for range in chunks(delta.common, info.elements(), chunk_weights(segment)) {
                    let fine = self.words(&plan.fine, &range, &mut hasher)?;
                    let base = if range.start < delta.common {
                        let words = read_words(&delta.base, range.start, range.end - range.start)?;
                        base_hasher.update(words.bytes());
                        Some(cast(words, delta.base.info().dtype(), info.dtype()))
                    } else {
                        None
                    };
                    if !send(range.start, Input::Weights(base, fine)) {
                        return Ok(false);
                    }
                }
                let each = u64::from(delta.base.info().dtype().bits()) / 8;
                hash_rest(&delta.base, delta.common * each, &mut base_hasher)?;
                Some(())
            }
            Kind::Full => {
                let segment = sparse_codec::Scales::segment_for(crate::index::width(info.shape()));
                for range in chunks(0, info.elements(), chunk_weights(segment as u64)) {
                    let fine = self.words(&plan.fine, &range, &mut hasher)?;
                    if !send(range.start, Input::Weights(None, fine)) {
                        return Ok(false);
                    }
                }
                None
            }
            Kind::Raw(base) => {
                for range in chunks(0, info.bytes(), RAW_CHUNK_BYTES) {
                    let fine = read_bytes(&plan.fine, &range)?;
                    self.sha.update(&fine);
                    hasher.update(&fine);
                    let base = base.as_ref().map(|b| read_bytes(b, &range)).transpose()?;
                    if let Some(base) = &base {
                        base_hasher.update(base);
                    }
                    if !send(range.start, Input::Bytes(base, fine)) {
                        return Ok(false);
                    }
                }
                base.as_ref().map(|_| ())
            }
            Kind::Alias(_) => {
                for range in chunks(0, info.bytes(), RAW_CHUNK_BYTES) {
                    let fine = read_bytes(&plan.fine, &range)?;
                    self.sha.update(&fine);
                    hasher.update(&fine);
                }
                None
            }
        };
        let digest = |h: blake3::Hasher| TensorDigest(*h.finalize().as_bytes());
        let end = Input::End(digest(hasher), base.map(|()| digest(base_hasher)));
        Ok(send(info.elements(), end))
    }

    fn words(
        &mut self,
        tensor: &TensorRef<'_>,
        range: &Range<u64>,
        hasher: &mut blake3::Hasher,
    ) -> Result<Words, Error> {
        let words = read_words(tensor, range.start, range.end - range.start)?;
        self.sha.update(words.bytes());
        hasher.update(words.bytes());
        Ok(words)
    }
}

fn read_bytes(tensor: &TensorRef<'_>, range: &Range<u64>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    tensor.read_range(range.clone(), &mut bytes)?;
    Ok(bytes)
}

/// Hashes the bytes of a tensor from `start` on.
fn hash_rest(tensor: &TensorRef<'_>, start: u64, hasher: &mut blake3::Hasher) -> Result<(), Error> {
    let total = tensor.info().bytes();
    for at in (start..total).step_by(RAW_CHUNK_BYTES as usize) {
        hasher.update(&read_bytes(
            tensor,
            &(at..(at + RAW_CHUNK_BYTES).min(total)),
        )?);
    }
    Ok(())
}
