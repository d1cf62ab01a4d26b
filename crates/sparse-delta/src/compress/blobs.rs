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

/// Read at once while two files are compared.
const PIECE_BYTES: u64 = 1 << 20;

pub(super) fn encode(
    plain: &PlainFile,
    base: &Checkpoint,
    digests: &mut BaseDigests,
    writer: &mut ArtifactWriter,
    progress: &dyn Progress,
) -> Result<File, Error> {
    encode_within(MAX_DICTIONARY, plain, base, digests, writer, progress)
}

/// [`encode`] with base files of up to `max_dictionary` bytes as dictionaries.
fn encode_within(
    max_dictionary: u64,
    plain: &PlainFile,
    base: &Checkpoint,
    digests: &mut BaseDigests,
    writer: &mut ArtifactWriter,
    progress: &dyn Progress,
) -> Result<File, Error> {
    let file = |size, digest, source, stored, stored_check| File {
        path: plain.path().clone(),
        size,
        digest,
        stored_check,
        content: Content::Blob(Blob { source, stored }),
    };
    let against = base
        .file(plain.path().as_str())
        .filter(|file| file.size() > 0);
    let mut dictionary = Vec::new();
    let mut base_file = None;
    if let Some(against) = against {
        let named = BaseFile {
            path: against.path().clone(),
            size: against.size(),
        };
        let name = against.path().as_str().to_owned();
        if let Some((sha256, blake3)) = equal(plain, against, progress)? {
            step(progress, plain.size())?;
            digests.files.insert(name, blake3);
            let source = BlobSource::Copy(named);
            return Ok(file(plain.size(), sha256, source, 0, [0; 4]));
        }
        if against.size() <= max_dictionary {
            dictionary = against.read(max_dictionary)?;
            digests.files.insert(name, TensorDigest::of(&dictionary));
            base_file = Some(named);
        }
    }
    let mut input = HashingReader {
        inner: plain.open()?,
        sha: sha2::Sha256::new(),
        read: 0,
        progress,
    };
    let mut output = StoredWriter::new(writer);
    let packed = raw::pack(&mut input, &dictionary, plain.size(), &mut output);
    packed.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(_) if input.read != plain.size() => changed(plain, input.read),
        Err(cause) => Error::io("compress", plain.full_path())(cause),
    })?;
    let source = match base_file {
        Some(base) => BlobSource::Against(base),
        None => BlobSource::Packed,
    };
    let digest = FileDigest(input.sha.finalize().into());
    let (stored, check) = output.finish();
    Ok(file(input.read, digest, source, stored, check))
}

/// The digests of two files, if they are equal.
pub(crate) fn equal(
    plain: &PlainFile,
    base: &PlainFile,
    progress: &dyn Progress,
) -> Result<Option<(FileDigest, TensorDigest)>, Error> {
    if plain.size() != base.size() {
        return Ok(None);
    }
    let (mut one, mut other) = (plain.open()?, base.open()?);
    let (mut sha, mut blake3) = (sha2::Sha256::new(), blake3::Hasher::new());
    let mut buffers = [Vec::new(), Vec::new()];
    let mut left = plain.size();
    while left > 0 {
        let len = left.min(PIECE_BYTES);
        let [piece, expected] = &mut buffers;
        for (file, open, buffer) in [(plain, &mut one, &mut *piece), (base, &mut other, expected)] {
            buffer.clear();
            let read = open.take(len).read_to_end(buffer);
            if read.map_err(Error::io("read", file.full_path()))? as u64 != len {
                return Err(changed(file, file.size() - left + buffer.len() as u64));
            }
        }
        if buffers[0] != buffers[1] {
            return Ok(None);
        }
        sha.update(&buffers[0]);
        blake3.update(&buffers[1]);
        left -= len;
        step(progress, 0)?;
    }
    let sha = FileDigest(sha.finalize().into());
    Ok(Some((sha, TensorDigest(*blake3.finalize().as_bytes()))))
}

fn changed(file: &PlainFile, found: u64) -> Error {
    Error::Checkpoint(sparse_checkpoint::Error::Changed {
        path: file.full_path().to_owned(),
        expected: file.size(),
        found,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use sparse_checkpoint::{Dtype, TensorSpec, WriteOptions, write_shards};

    /// A checkpoint with this side file.
    fn checkpoint(bytes: &[u8]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        let specs = [TensorSpec::new("w", Dtype::U8, [1])];
        write_shards(dir.path(), &specs, &WriteOptions::default(), |_, out| {
            out.write_all(&[0])
        })
        .unwrap();
        std::fs::write(dir.path().join("side.bin"), bytes).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        (dir, checkpoint)
    }

    fn encoded(max_dictionary: u64, base: &[u8], fine: &[u8]) -> (File, BaseDigests) {
        let ((_one, base), (_two, fine)) = (checkpoint(base), checkpoint(fine));
        let out = tempfile::tempdir().unwrap();
        let mut writer = ArtifactWriter::create(out.path(), out.path().to_owned()).unwrap();
        let mut digests = BaseDigests::default();
        let plain = fine.file("side.bin").unwrap();
        let (writer, seen) = (&mut writer, &mut digests);
        let file = encode_within(max_dictionary, plain, &base, seen, writer, &Silent).unwrap();
        (file, digests)
    }

    fn source(file: &File) -> &BlobSource {
        match &file.content {
            Content::Blob(blob) => &blob.source,
            Content::Shard(_) => panic!("a side file is no shard"),
        }
    }

    #[test]
    fn a_file_too_large_for_a_dictionary_is_still_a_copy_of_its_equal() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        for limit in [MAX_DICTIONARY, 1000] {
            let (file, digests) = encoded(limit, &bytes, &bytes);
            assert!(matches!(source(&file), BlobSource::Copy(_)), "{limit}");
            assert!(file.digest.0[..] == sha2::Sha256::digest(&bytes)[..]);
            assert!(digests.files["side.bin"] == TensorDigest::of(&bytes));
        }
        let mut other = bytes.clone();
        other[2_999_999] ^= 1;
        let (file, digests) = encoded(1000, &bytes, &other);
        assert!(matches!(source(&file), BlobSource::Packed));
        assert!(digests.files.is_empty(), "nothing of the base is needed");
        let (file, digests) = encoded(MAX_DICTIONARY, &bytes, &other);
        assert!(matches!(source(&file), BlobSource::Against(_)));
        assert!(digests.files["side.bin"] == TensorDigest::of(&bytes));
    }
}
