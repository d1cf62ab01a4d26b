//! Files beside the weights: equal to the base's, or packed with the base's as dictionary.

use std::io::{self, Read, Write};

use sha2::Digest as _;
use sparse_checkpoint::{Checkpoint, PlainFile};

use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::digest::{FileDigest, TensorDigest, stored_check};
use crate::index::{BaseFile, Blob, BlobSource, Content, File};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};

pub(super) fn encode(
    plain: &PlainFile,
    base: &Checkpoint,
    digests: &mut BaseDigests,
    writer: &mut ArtifactWriter,
    progress: &dyn Progress,
) -> Result<File, Error> {
    let against = base
        .file(plain.path().as_str())
        .filter(|file| file.size() <= MAX_DICTIONARY && file.size() > 0);
    let mut dictionary = Vec::new();
    let mut base_file = None;
    if let Some(file) = against {
        dictionary = file.read(MAX_DICTIONARY)?;
        digests.files.insert(
            file.path().as_str().to_owned(),
            TensorDigest::of(&dictionary),
        );
        base_file = Some(BaseFile {
            path: file.path().clone(),
            size: file.size(),
        });
    }
    let file = |size, digest, source, stored, stored_check| File {
        path: plain.path().clone(),
        size,
        digest,
        stored_check,
        content: Content::Blob(Blob { source, stored }),
    };
    if let Some(base) = &base_file
        && base.size == plain.size()
        && plain.read(MAX_DICTIONARY)? == dictionary
    {
        step(progress, plain.size())?;
        let source = BlobSource::Copy(base.clone());
        let digest = FileDigest::of(&dictionary);
        return Ok(file(plain.size(), digest, source, 0, [0; 4]));
    }
    let mut input = HashingReader {
        inner: plain.open()?,
        sha: sha2::Sha256::new(),
        read: 0,
        progress,
    };
    let mut output = StoredWriter::new(writer);
    raw::pack(&mut input, &dictionary, plain.size(), &mut output)
        .map_err(Error::of_io("compress", plain.full_path()))?;
    let source = match base_file {
        Some(base) => BlobSource::Against(base),
        None => BlobSource::Packed,
    };
    let digest = FileDigest(input.sha.finalize().into());
    let (stored, check) = output.finish();
    Ok(file(input.read, digest, source, stored, check))
}

struct HashingReader<'a, R> {
    inner: R,
    sha: sha2::Sha256,
    read: u64,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for HashingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        step(self.progress, len as u64).map_err(io::Error::other)?;
        self.sha.update(&buffer[..len]);
        self.read += len as u64;
        Ok(len)
    }
}

/// Stores bytes, counted and digested.
pub(super) struct StoredWriter<'a> {
    writer: &'a mut ArtifactWriter,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl<'a> StoredWriter<'a> {
    pub(super) fn new(writer: &'a mut ArtifactWriter) -> Self {
        Self {
            writer,
            bytes: 0,
            hasher: blake3::Hasher::new(),
        }
    }

    /// How many bytes were stored, and their check; of none it is zeros.
    pub(super) fn finish(self) -> (u64, [u8; 4]) {
        match self.bytes {
            0 => (0, [0; 4]),
            bytes => (bytes, stored_check(&self.hasher)),
        }
    }
}

impl Write for StoredWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).map_err(io::Error::other)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
