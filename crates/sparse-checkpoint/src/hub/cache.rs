//! The layout of the Hugging Face cache, shared with every other tool that uses it.
//!
//! ```text
//! models--owner--name/
//!   blobs/<etag>                    the bytes; <etag>.incomplete while they arrive
//!   refs/<revision>                 the commit that a branch or tag meant
//!   snapshots/<commit>/<file>  ->   ../../blobs/<etag>
//! .locks/models--owner--name/<etag>.lock
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::RepoId;

/// The folder of one repository in the cache.
pub(super) struct RepoCache {
    pub(super) dir: PathBuf,
    #[cfg(feature = "hub")]
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache_dir: &Path, repo: &RepoId) -> RepoCache {
        RepoCache {
            dir: cache_dir.join(repo.folder()),
            #[cfg(feature = "hub")]
            locks: cache_dir.join(".locks").join(repo.folder()),
        }
    }

    /// The folder for the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// The folder that holds a revision, if the cache knows it. It need not be complete.
    pub(super) fn snapshot_of(&self, revision: &str) -> Option<PathBuf> {
        let by_name = || {
            let commit = fs::read_to_string(self.dir.join("refs").join(revision)).ok()?;
            let commit = commit.trim();
            is_commit(commit).then(|| self.snapshot(commit))
        };
        let by_commit = || is_commit(revision).then(|| self.snapshot(revision));
        by_name()
            .or_else(by_commit)
            .filter(|snapshot| snapshot.is_dir())
    }
}

/// Whether this is a full commit id, and so safe as a folder name.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(feature = "hub")]
mod writing {
    use std::fs::{self, File};
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};

    use super::RepoCache;
    use crate::{AtomicFile, Error, RelPath};

    impl RepoCache {
        /// Where the bytes with this etag are or will be. The etag has been checked.
        pub(in crate::hub) fn blob(&self, etag: &RelPath) -> PathBuf {
            self.dir.join("blobs").join(etag.as_str())
        }

        /// Waits until no other process fetches this blob, and keeps others waiting until the
        /// returned file is dropped.
        pub(in crate::hub) fn lock(&self, etag: &RelPath) -> Result<File, Error> {
            let path = self.locks.join(format!("{etag}.lock"));
            create_parents(&path)?;
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(Error::io("create", &path))?;
            match file.lock() {
                // A network file system without locks: two downloads at once end in a digest
                // that does not match, not in a wrong file.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
                Err(error) => Err(Error::io("lock", &path)(error)),
                Ok(()) => Ok(file),
            }
        }

        /// Makes `file` of `commit` appear, with the bytes of the blob.
        pub(in crate::hub) fn link(
            &self,
            commit: &str,
            file: &RelPath,
            etag: &RelPath,
        ) -> Result<(), Error> {
            let path = file.join_to(&self.snapshot(commit));
            create_parents(&path)?;
            // Up from the file's folder to the repository's, then down.
            let target = format!("{}blobs/{etag}", "../".repeat(file.depth() + 1));
            match fs::symlink_metadata(&path) {
                Ok(_) if path.exists() => return Ok(()),
                Ok(_) => fs::remove_file(&path).map_err(Error::io("replace", &path))?,
                Err(_) => {}
            }
            match symlink(Path::new(&target), &self.blob(etag), &path) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result.map_err(Error::io("link", &path)),
            }
        }

        /// Notes which commit a branch or tag means.
        pub(in crate::hub) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), Error> {
            let path = self.dir.join("refs").join(revision);
            create_parents(&path)?;
            let mut file = AtomicFile::create(&path)?;
            file.write_all(commit.as_bytes())
                .map_err(Error::io("write", &path))?;
            file.commit()
        }
    }

    pub(in crate::hub) fn create_parents(path: &Path) -> Result<(), Error> {
        match path.parent() {
            None => Ok(()),
            Some(parent) => fs::create_dir_all(parent).map_err(Error::io("create", parent)),
        }
    }

    #[cfg(unix)]
    fn symlink(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    /// Links need a privilege there that users often lack; the blob itself does as well.
    #[cfg(not(unix))]
    fn symlink(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
        fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
    }
}

#[cfg(feature = "hub")]
pub(super) use writing::create_parents;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_found_by_name_or_by_commit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(dir.path(), &RepoId::parse("o/n").unwrap());
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(cache.snapshot_of("main"), None);
        fs::create_dir_all(cache.dir.join("refs/refs/pr")).unwrap();
        fs::write(cache.dir.join("refs/refs/pr/1"), commit).unwrap();
        assert_eq!(cache.snapshot_of("refs/pr/1"), None, "its files are gone");
        fs::create_dir_all(cache.snapshot(commit)).unwrap();
        assert_eq!(cache.snapshot_of("refs/pr/1"), Some(cache.snapshot(commit)));
        assert_eq!(cache.snapshot_of(commit), Some(cache.snapshot(commit)));
        fs::write(cache.dir.join("refs/odd"), "../../elsewhere").unwrap();
        assert_eq!(cache.snapshot_of("odd"), None);
    }
}
