//! Checking that a checkpoint is the base a delta was made from.

use std::io::Read;

use sha2::Digest as _;

use sparse_checkpoint::{Checkpoint, PlainFile, TensorRef};

use crate::Error;
use crate::artifact::Artifact;
use crate::basedigest::BaseDigests;
use crate::digest::{FileDigest, TensorDigest};
use crate::index::{BaseTensor, Blob, BlobSource, Content, RAW_CHUNK_BYTES};
use crate::progress::{Progress, step};

/// Compares every tensor and file that the delta refers to with the digests in it.
///
/// # Errors
/// [`Error::BaseLacks`], [`Error::BaseLacksFile`] or [`Error::BaseDiffers`] naming the first that is wrong.
pub(crate) fn check_base(
    artifact: &Artifact,
    base: &Checkpoint,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let index = artifact.index();
    let tensors = index
        .base_tensors()
        .into_iter()
        .map(|expected| Ok((expected, find(base, expected)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    progress.start(
        "check base",
        tensors.iter().map(|(_, t)| t.info().bytes()).sum(),
    );
    let mut digests = BaseDigests::default();
    crate::pipeline::ordered(
        threads,
        tensors.into_iter().map(Ok),
        || vec![0u8; RAW_CHUNK_BYTES as usize],
        |buffer, (expected, tensor)| Ok((expected, hash(&tensor, buffer, progress)?)),
        // Here they come in order, so that it is the first that is named, not the fastest.
        |(expected, digest)| {
            check(base, expected, &digest)?;
            digests.tensors.insert(expected.name.clone(), digest);
            Ok::<_, Error>(())
        },
    )?;
    for expected in index.base_files() {
        let path = expected.path.as_str();
        let file = base.file(path).ok_or_else(|| Error::BaseLacksFile {
            path: base.root().to_owned(),
            file: path.to_owned(),
        })?;
        if file.size() != expected.size {
            return Err(differs(
                base,
                format!("file {path}"),
                format!("{} bytes", expected.size),
                format!("{} bytes", file.size()),
            ));
        }
        let mut hasher = blake3::Hasher::new();
        in_pieces(file, progress, |piece| {
            hasher.update(piece);
        })?;
        let digest = TensorDigest(*hasher.finalize().as_bytes());
        digests.files.insert(path.to_owned(), digest);
    }
    let found = digests.combine(index);
    if found != index.base_digest {
        // Each tensor's own check held, so it must be a file: they have none.
        let files: Vec<&str> = index.base_files().iter().map(|f| f.path.as_str()).collect();
        if let Some(error) = changed_copy(artifact, base, progress)? {
            return Err(error);
        }
        let what = match files[..] {
            [] => "the base as a whole".to_owned(),
            [file] => format!("file {file}"),
            _ => format!("one of the files {}", files.join(", ")),
        };
        return Err(differs(
            base,
            what,
            index.base_digest.to_string(),
            found.to_string(),
        ));
    }
    Ok(())
}

/// The first file of the base that the delta copies, and that has another digest than the copy is
/// to have.
fn changed_copy(
    artifact: &Artifact,
    base: &Checkpoint,
    progress: &dyn Progress,
) -> Result<Option<Error>, Error> {
    for file in &artifact.index().files {
        let Content::Blob(Blob {
            source: BlobSource::Copy(from),
            ..
        }) = &file.content
        else {
            continue;
        };
        let Some(found) = base.file(from.path.as_str()) else {
            continue;
        };
        let mut sha = sha2::Sha256::new();
        in_pieces(found, progress, |piece| sha.update(piece))?;
        let found = FileDigest(sha.finalize().into());
        if found != file.digest {
            return Ok(Some(differs(
                base,
                format!("file {}", from.path),
                format!("SHA-256 {}", file.digest),
                found.to_string(),
            )));
        }
    }
    Ok(None)
}

/// Reads a file a piece at a time: a copy may be of any size.
fn in_pieces(
    file: &PlainFile,
    progress: &dyn Progress,
    mut visit: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let mut open = file.open()?.take(file.size());
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let read = open.by_ref().take(RAW_CHUNK_BYTES).read_to_end(&mut piece);
        if read.map_err(Error::io("read", file.full_path()))? == 0 {
            return Ok(());
        }
        visit(&piece);
        step(progress, 0)?;
    }
}

fn differs(base: &Checkpoint, what: String, expected: String, found: String) -> Error {
    Error::BaseDiffers {
        path: base.root().to_owned(),
        what,
        expected,
        found,
    }
}

/// The base's tensor of that name, dtype and shape.
pub(crate) fn find<'b>(
    base: &'b Checkpoint,
    expected: &BaseTensor,
) -> Result<TensorRef<'b>, Error> {
    let what = format!("tensor {:?}", expected.name);
    let tensor = base
        .tensor(&expected.name)
        .ok_or_else(|| Error::BaseLacks {
            path: base.root().to_owned(),
            what: what.clone(),
        })?;
    let info = tensor.info();
    if info.dtype() != expected.dtype || info.shape() != expected.shape {
        return Err(differs(
            base,
            what,
            format!("{} {:?}", expected.dtype, expected.shape),
            format!("{} {:?}", info.dtype(), info.shape()),
        ));
    }
    Ok(tensor)
}

/// Checks one tensor's digest against the first bytes that the delta has of it.
pub(crate) fn check(
    base: &Checkpoint,
    expected: &BaseTensor,
    digest: &TensorDigest,
) -> Result<(), Error> {
    if digest.0[..4] == expected.check {
        return Ok(());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Err(differs(
        base,
        format!("tensor {:?}", expected.name),
        format!("BLAKE3 {}...", hex(&expected.check)),
        format!("{}...", hex(&digest.0[..4])),
    ))
}

/// BLAKE3 of a tensor's bytes, read a piece at a time.
pub(crate) fn hash(
    tensor: &TensorRef<'_>,
    buffer: &mut [u8],
    progress: &dyn Progress,
) -> Result<TensorDigest, Error> {
    let mut hasher = blake3::Hasher::new();
    let total = tensor.info().bytes();
    for at in (0..total).step_by(buffer.len()) {
        let len = (total - at).min(buffer.len() as u64);
        let piece = &mut buffer[..len as usize];
        tensor.read_range(at..at + len, piece)?;
        hasher.update(piece);
        step(progress, len)?;
    }
    Ok(TensorDigest(*hasher.finalize().as_bytes()))
}
