//! Digests of the files of a base.

use sha2::{Digest, Sha256};

/// The digests that a delta holds of its base: of its file, or of the files'
/// digests in order where it has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) sha256: [u8; 32],
    /// Is found several times as fast. Writers before
    /// [`crate::artifact::REQUIRED_QUICK`] did not keep it.
    pub(crate) blake3: Option<[u8; 32]>,
}

impl Digests {
    /// The digests as an artifact holds them.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sha256);
        out.extend_from_slice(self.blake3.as_ref().map_or(&[], |digest| &digest[..]));
    }
}

/// A way to digest files.
pub(crate) trait Digester: Default {
    type Digest: Copy;

    fn update(&mut self, bytes: &[u8]);

    /// Takes in the digest of a file.
    fn add(&mut self, digest: Self::Digest);

    fn finish(self) -> Self::Digest;

    /// The digest of several files; of one it is its own.
    fn of_files(files: &[Self::Digest]) -> Self::Digest {
        if let [file] = files {
            return *file;
        }
        let mut all = Self::default();
        files.iter().for_each(|&file| all.add(file));
        all.finish()
    }
}

impl Digester for Sha256 {
    type Digest = [u8; 32];

    fn update(&mut self, bytes: &[u8]) {
        Digest::update(self, bytes);
    }

    fn add(&mut self, digest: [u8; 32]) {
        Digest::update(self, digest);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

impl Digester for blake3::Hasher {
    type Digest = [u8; 32];

    fn update(&mut self, bytes: &[u8]) {
        self.update(bytes);
    }

    fn add(&mut self, digest: [u8; 32]) {
        self.update(&digest);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

/// Both at once.
impl<A: Digester, B: Digester> Digester for (A, B) {
    type Digest = (A::Digest, B::Digest);

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
        self.1.update(bytes);
    }

    fn add(&mut self, digest: Self::Digest) {
        self.0.add(digest.0);
        self.1.add(digest.1);
    }

    fn finish(self) -> Self::Digest {
        (self.0.finish(), self.1.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_digested_by_their_digests() {
        let digests = [b"one", b"two"].map(|text| {
            let mut both = <(Sha256, blake3::Hasher)>::default();
            Digester::update(&mut both, text);
            both.finish()
        });
        let all = <(Sha256, blake3::Hasher)>::of_files(&digests);
        let slow: Vec<u8> = digests.iter().flat_map(|both| both.0).collect();
        let quick: Vec<u8> = digests.iter().flat_map(|both| both.1).collect();
        assert_eq!(all.0, *Sha256::digest(&slow));
        assert_eq!(all.1, *blake3::hash(&quick).as_bytes());
        assert_eq!(Sha256::of_files(&[digests[0].0]), *Sha256::digest("one"));
    }
}
