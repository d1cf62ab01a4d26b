//! A file that appears only when it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::abandoned::{Hidden, Kind};
use crate::Error;

/// A file written under another name beside its target, and renamed when it is complete.
///
/// Dropped before [`AtomicFile::commit`], it leaves nothing behind. What a killed process left is
/// removed by the next one with the same target. An existing target is replaced, and is whole at
/// every moment.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    /// Locked as long as it is open: how others know that it is in use. `None` once everything has
    /// been written.
    file: Option<BufWriter<File>>,
    renamed: bool,
}

const BUFFER_BYTES: usize = 256 << 10;

impl AtomicFile {
    /// Starts a file that will appear at `target`, whose folder must exist.
    ///
    /// # Errors
    /// If there is a folder at `target`, or the file cannot be created.
    pub fn create(target: &Path) -> Result<AtomicFile, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(name) = target.file_name().filter(|_| !target.is_dir()) else {
            return Err(Error::IsADirectory {
                path: target.to_path_buf(),
            });
        };
        let hidden = Hidden::of(name);
        hidden.remove_abandoned(target, Kind::File);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let temporary = target.with_file_name(hidden.name(&[process::id().into(), number]));
            match File::options()
                .write(true)
                .create_new(true)
                .open(&temporary)
            {
                Ok(file) => {
                    // Some file systems know no locks: what is left there stays.
                    let _ = file.try_lock();
                    let file = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
                    let target = target.to_path_buf();
                    return Ok(AtomicFile {
                        target,
                        temporary,
                        file,
                        renamed: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // left by a crash
                Err(error) => return Err(Error::io("create", target)(error)),
            }
        }
    }

    /// Where the file will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Hands everything to the system and closes the file, without making it appear. Several
    /// files can so be completed first and committed together.
    ///
    /// # Errors
    /// If the system refuses, for example because the disk is full.
    pub fn complete(&mut self) -> Result<(), Error> {
        match self.file.take() {
            None => Ok(()),
            Some(mut file) => file.flush().map_err(Error::io("write", &self.target)),
        }
    }

    /// Completes the file and makes it appear at its target.
    ///
    /// It survives the end of this process, not a power failure: the system is not asked to wait
    /// for the disk.
    ///
    /// # Errors
    /// If the system refuses; nothing is left behind then.
    pub fn commit(mut self) -> Result<(), Error> {
        // Still open, and so locked, until it has its name.
        if let Some(file) = &mut self.file {
            file.flush().map_err(Error::io("write", &self.target))?;
        }
        fs::rename(&self.temporary, &self.target).map_err(Error::io("create", &self.target))?;
        self.renamed = true;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut BufWriter<File>> {
        let closed = || io::Error::other("the file has been completed");
        self.file.as_mut().ok_or_else(closed)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed {
            self.file = None; // some systems do not delete open files
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_committed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!target.exists());
        file.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");

        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"other").unwrap();
        file.complete().unwrap();
        assert!(file.write_all(b"late").is_err());
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"whole", "abandoned");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing left behind"
        );
    }

    #[test]
    #[cfg(unix)]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "half").unwrap();
            path
        };
        let left = make(".out.sparse-999999999-0.tmp");
        let others = [
            make(".out.sparse-x-0.tmp"),
            make(".out.sparse-1.tmp"),
            make(".out2.sparse-1-0.tmp"),
            make("out.sparse-1-0.tmp"),
        ];
        let target = dir.path().join("out");
        let mut used = AtomicFile::create(&target).unwrap();
        assert!(!left.exists());
        used.write_all(&vec![0; 2 * BUFFER_BYTES]).unwrap();
        drop(AtomicFile::create(&target).unwrap());
        used.commit().unwrap();
        assert!(others.iter().all(|other| other.exists()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
    }

    #[test]
    fn a_folder_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(dir.path()).unwrap_err();
        assert!(matches!(error, Error::IsADirectory { .. }), "{error}");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = AtomicFile::create(&dir.path().join("no/out")).unwrap_err();
        assert!(error.to_string().contains("no/out"), "{error}");
    }
}
