//! Reading a shard in the order of its bytes, hashing as it goes, cut into jobs.

use std::io::Read;
use std::ops::Range;

use sha2::Digest as _;
use sparse_checkpoint::{Shard, TensorRef};

use crate::Error;
use crate::digest::{FileDigest, TensorDigest};
use crate::index::{RAW_CHUNK_BYTES, chunk_weights, chunks};
use crate::plan::{Kind, TensorPlan};
use crate::progress::{Progress, step};
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

/// The bytes of a shard that belong to no tensor, one gap after the other: read in pieces, for
/// they can be as many as there are bytes in a file.
pub(super) struct Gaps<'a> {
    shard: &'a Shard,
    gaps: Vec<Range<u64>>,
    progress: &'a dyn Progress,
    hasher: blake3::Hasher,
}

impl<'a> Gaps<'a> {
    pub(super) fn new(shard: &'a Shard, progress: &'a dyn Progress) -> Self {
        let mut gaps = shard.gaps();
        gaps.reverse();
        Self {
            shard,
            gaps,
            progress,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Bytes that are left to read.
    pub(super) fn len(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// The digest of what was read.
    pub(super) fn digest(&self) -> TensorDigest {
        TensorDigest(*self.hasher.finalize().as_bytes())
    }
}

impl Read for Gaps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.gaps.last().is_some_and(Range::is_empty) {
            self.gaps.pop();
        }
        let Some(gap) = self.gaps.last_mut() else {
            return Ok(0);
        };
        let len = (buffer.len() as u64).min(gap.end - gap.start);
        let piece = &mut buffer[..len as usize];
        step(self.progress, len)
            .and_then(|()| {
                let at = self.shard.data_start() + gap.start;
                Ok(self.shard.read_at(at, piece)?)
            })
            .map_err(std::io::Error::other)?;
        gap.start += len;
        self.hasher.update(piece);
        Ok(piece.len())
    }
}

/// Reads a shard once from start to end.
pub(super) struct ShardReader<'a> {
    shard: &'a Shard,
    plans: &'a [TensorPlan<'a>],
    gaps: blake3::Hasher,
    sha: sha2::Sha256,
}

impl<'a> ShardReader<'a> {
    pub(super) fn new(shard: &'a Shard, plans: &'a [TensorPlan<'a>]) -> Self {
        let mut sha = sha2::Sha256::new();
        sha.update((shard.header_text().len() as u64).to_le_bytes());
        sha.update(shard.header_text().as_bytes());
        Self {
            shard,
            plans,
            gaps: blake3::Hasher::new(),
            sha,
        }
    }

    /// The digest of the whole file, once everything has been read.
    pub(super) fn digest(self) -> FileDigest {
        FileDigest(self.sha.finalize().into())
    }

    /// The digest of the bytes that belong to no tensor, as [`Gaps::digest`].
    pub(super) fn gaps_digest(&self) -> TensorDigest {
        TensorDigest(*self.gaps.finalize().as_bytes())
    }

    /// Calls `job` with every job of the shard, in order; stops when it returns false.
    pub(super) fn run(&mut self, job: &mut dyn FnMut(Result<Job, Error>) -> bool) {
        for piece in self.pieces() {
            let done = match piece {
                Piece::Gap(range) => self.gap(range).map(|()| true),
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

    fn gap(&mut self, range: Range<u64>) -> Result<(), Error> {
        let mut piece = Vec::new();
        for at in range.clone().step_by(RAW_CHUNK_BYTES as usize) {
            piece.resize(RAW_CHUNK_BYTES.min(range.end - at) as usize, 0);
            self.shard
                .read_at(self.shard.data_start() + at, &mut piece)?;
            self.sha.update(&piece);
            self.gaps.update(&piece);
        }
        Ok(())
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
