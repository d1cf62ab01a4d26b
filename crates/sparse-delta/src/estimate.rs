//! `estimate`: how large a delta would be, from a sample of every tensor.

mod sample;

use std::io::{Read, Seek, SeekFrom};
use std::time::Instant;

use sparse_checkpoint::{Checkpoint, PlainFile};

use crate::Error;
use crate::artifact::artifact_bytes;
use crate::basedigest::BaseDigests;
use crate::compress::{equal, index};
use crate::digest::FileDigest;
use crate::index::{BaseFile, Blob, BlobSource, Content, File, Index, Shard, Source};
use crate::plan::{Effort, Search, plan};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};

use sample::Sample;

/// What belongs to no tensor, and a file beside the weights, is coded whole up to so many bytes; of
/// more, pieces spread over it.
const WHOLE_BYTES: u64 = 64 << 20;
const PIECES: u64 = 16;

/// How large a delta would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimated {
    /// Bytes of all files of the fine-tune.
    pub original_bytes: u64,
    /// Bytes of all files of the artifact.
    pub estimated_delta_bytes: u64,
    /// Share of the weights that equal the base's: of all of them, or where the fine-tune has more
    /// than 8 GiB of some in every tensor.
    pub unchanged_fraction: f64,
    /// Weights that were coded to find out.
    pub sampled_parameters: u64,
    /// Wall time.
    pub seconds: f64,
}

impl Estimated {
    /// Original over delta.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.original_bytes as f64 / self.estimated_delta_bytes.max(1) as f64
    }
}

/// Estimates the size of `fine` as a delta of `base`, without writing anything.
///
/// `base_id` is what the delta would call its base. The plan is the one that compressing would
/// make, but of many layers only some are searched for low-rank changes and stand for the others:
/// what a prediction saves there it is taken to save in these. Then each tensor is compared with its base, pieces of what differs are coded, and their
/// sizes scaled up. The index is built in full, with the digests of small tensors and blank ones of
/// the others.
///
/// # Errors
/// If a checkpoint cannot be read.
pub fn estimate(
    base: &Checkpoint,
    fine: &Checkpoint,
    base_id: &str,
    effort: Effort,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Estimated, Error> {
    let started = Instant::now();
    let plan = plan(base, fine, effort, Search::Some, threads, progress)?;
    progress.start("estimate", fine.total_bytes());
    let mut sample = Sample::new(&plan, fine.total_bytes())?;
    let mut data = 0;
    let mut files = Vec::new();
    let mut number = 0;
    for shard in fine.shards() {
        let mut tensors = Vec::new();
        for tensor in &plan.tensors[number..number + shard.tensors().len()] {
            step(progress, tensor.fine.info().bytes())?;
            tensors.push(sample.tensor(tensor)?);
        }
        number += tensors.len();
        let gaps = estimate_gaps(shard)?;
        data += gaps + tensors.iter().map(|t| t.source.stored()).sum::<u64>();
        files.push(File {
            path: shard.path().clone(),
            size: shard.size(),
            digest: FileDigest(sample.blank()),
            stored_check: sample.blank(),
            content: Content::Shard(Shard {
                header: shard.header().clone(),
                tensors,
                gaps,
            }),
        });
    }
    for plain in fine.files() {
        step(progress, plain.size())?;
        let blob = estimate_blob(plain, base, progress)?;
        data += blob.stored;
        files.push(File {
            path: plain.path().clone(),
            size: plain.size(),
            digest: FileDigest(sample.blank()),
            stored_check: sample.blank(),
            content: Content::Blob(blob),
        });
    }
    let mut index = index(&plan, files, base_id, &BaseDigests::default());
    leave_out_unused(&mut index);
    let estimated = artifact_bytes(data, &index).map_err(Error::io("estimate", fine.root()))?;
    Ok(Estimated {
        original_bytes: fine.total_bytes(),
        estimated_delta_bytes: estimated,
        unchanged_fraction: sample.unchanged_fraction(),
        sampled_parameters: sample.coded(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Leaves out the tables of fits that nothing would be coded with: those without predictions, where
/// all tensors have some.
fn leave_out_unused(index: &mut Index) {
    let mut used = vec![false; index.tables.len()];
    for file in &index.files {
        if let Content::Shard(shard) = &file.content {
            for tensor in &shard.tensors {
                if let Source::Coded(coded) = &tensor.source
                    && coded.base.is_some()
                {
                    used[coded.tables] = true;
                }
            }
        }
    }
    for (tables, used) in index.tables.iter_mut().zip(used) {
        if !used {
            tables.clear();
        }
    }
}

/// Estimated bytes of what belongs to no tensor.
fn estimate_gaps(shard: &sparse_checkpoint::Shard) -> Result<u64, Error> {
    let total: u64 = shard.gaps().iter().map(|gap| gap.end - gap.start).sum();
    let mut bytes = Vec::new();
    for gap in shard.gaps() {
        let take = (gap.end - gap.start).min(WHOLE_BYTES - bytes.len() as u64);
        let at = bytes.len();
        bytes.resize(at + take as usize, 0);
        shard.read_at(shard.data_start() + gap.start, &mut bytes[at..])?;
    }
    if bytes.is_empty() {
        return Ok(0);
    }
    let packed = packed_bytes(&bytes, &[]).map_err(Error::io("estimate", shard.full_path()))?;
    Ok((packed as f64 * total as f64 / bytes.len() as f64) as u64)
}

fn packed_bytes(bytes: &[u8], dictionary: &[u8]) -> std::io::Result<u64> {
    let mut packed = Vec::new();
    raw::pack(bytes, dictionary, bytes.len() as u64, &mut packed)?;
    Ok(packed.len() as u64)
}

/// A file's bytes, or of a large one pieces from all over it.
fn pieces(plain: &PlainFile) -> Result<Vec<u8>, Error> {
    let mut file = plain.open()?;
    let read = |file: &mut dyn Read, len: u64, bytes: &mut Vec<u8>| {
        let read = file.take(len).read_to_end(bytes);
        read.map_err(Error::io("read", plain.full_path()))
    };
    let mut bytes = Vec::new();
    if plain.size() <= WHOLE_BYTES {
        read(&mut file, WHOLE_BYTES, &mut bytes)?;
        return Ok(bytes);
    }
    let piece = WHOLE_BYTES / PIECES;
    for number in 0..PIECES {
        let start = (plain.size() - piece) / (PIECES - 1) * number;
        file.seek(SeekFrom::Start(start))
            .map_err(Error::io("read", plain.full_path()))?;
        read(&mut file, piece, &mut bytes)?;
    }
    Ok(bytes)
}

fn estimate_blob(
    plain: &PlainFile,
    base: &Checkpoint,
    progress: &dyn Progress,
) -> Result<Blob, Error> {
    let against = base
        .file(plain.path().as_str())
        .filter(|file| file.size() > 0);
    let named = |file: &PlainFile| BaseFile {
        path: file.path().clone(),
        size: file.size(),
    };
    if let Some(file) = against
        && equal(plain, file, progress)?.is_some()
    {
        return Ok(Blob {
            source: BlobSource::Copy(named(file)),
            stored: 0,
        });
    }
    let bytes = pieces(plain)?;
    let mut dictionary = Vec::new();
    let mut source = BlobSource::Packed;
    if let Some(file) = against.filter(|file| file.size() <= MAX_DICTIONARY) {
        dictionary = file.read(MAX_DICTIONARY)?;
        source = BlobSource::Against(named(file));
    }
    let packed =
        packed_bytes(&bytes, &dictionary).map_err(Error::io("estimate", plain.full_path()))?;
    let stored = (packed as f64 * plain.size() as f64 / bytes.len().max(1) as f64) as u64;
    Ok(Blob { source, stored })
}
