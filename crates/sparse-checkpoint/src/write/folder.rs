//! An output folder that appears only when it is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::NewParents;
use super::abandoned::{Hidden, Kind};
use crate::Error;

/// What to do about something that is already where the output should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail.
    Keep,
    /// Replace it once the output is complete.
    Replace,
}

/// A folder written under another name beside its target.
///
/// Dropped before [`OutputDir::commit`], it leaves nothing behind. What a killed process left is
/// removed by the next one with the same target.
#[derive(Debug)]
pub struct OutputDir {
    target: PathBuf,
    temporary: PathBuf,
    /// Locked as long as this process lives: how others know that the folder is in use. `None`
    /// where the system does not lock folders.
    _in_use: Option<File>,
    existing: Existing,
    committed: bool,
    /// Dropped last.
    _parents: NewParents,
}

impl OutputDir {
    /// Starts the folder that will be `target`; its parents are made.
    ///
    /// # Errors
    /// If something is at `target` and is to be kept, or the system refuses.
    pub fn create(target: &Path, existing: Existing) -> Result<OutputDir, Error> {
        let Some(name) = target.file_name() else {
            return Err(Error::IsADirectory {
                path: target.to_owned(),
            });
        };
        let hidden = Hidden::of(name);
        hidden.restore(target);
        if existing == Existing::Keep && fs::symlink_metadata(target).is_ok() {
            return Err(Error::OutputExists {
                path: target.to_owned(),
            });
        }
        let parents = NewParents::of(target)?;
        hidden.remove_abandoned(target, Kind::Folder);
        let temporary = target.with_file_name(hidden.name(&[std::process::id().into()]));
        // Left by a killed process that had the same number, on a system without locks.
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir(&temporary).map_err(Error::io("create", target))?;
        let in_use = File::open(&temporary).ok();
        Ok(OutputDir {
            _in_use: in_use.filter(|folder| folder.try_lock().is_ok()),
            target: target.to_owned(),
            temporary,
            existing,
            committed: false,
            _parents: parents,
        })
    }

    /// Where files are written until the folder is complete.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Where the folder will appear.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the folder appear at its target.
    ///
    /// # Errors
    /// If something has come to be at the target meanwhile, or the system refuses.
    pub fn commit(mut self) -> Result<(), Error> {
        let target = &self.target;
        let aside = self.temporary.with_extension("old");
        // Locked, so that nobody takes it for abandoned while it is aside; only a folder, as opening
        // a named pipe would wait.
        let found = fs::symlink_metadata(target);
        let is_folder = found.as_ref().is_ok_and(|found| found.is_dir());
        let old = is_folder.then(|| File::open(target).ok()).flatten();
        let _in_use = old.filter(|old| old.try_lock().is_ok());
        let replaced = match found {
            Err(_) => false,
            Ok(_) if self.existing == Existing::Keep => {
                return Err(Error::OutputExists {
                    path: target.clone(),
                });
            }
            Ok(_) => {
                fs::rename(target, &aside).map_err(Error::io("replace", target))?;
                true
            }
        };
        if let Err(cause) = fs::rename(&self.temporary, target) {
            if replaced {
                let _ = fs::rename(&aside, target);
            }
            return Err(Error::io("create", target)(cause));
        }
        self.committed = true;
        if replaced {
            let _ = match fs::symlink_metadata(&aside) {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&aside),
                _ => fs::remove_file(&aside),
            };
        }
        Ok(())
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_output_that_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let target = dir.path().join("a/b/c");
        let output = OutputDir::create(&target, Existing::Keep).unwrap();
        fs::write(output.path().join("x"), "half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("part"), "half").unwrap();
            folder
        };
        let left = make(".out.sparse-999999999.tmp");
        let others = [
            make(".out.sparse-x.tmp"),
            make(".out2.sparse-1.tmp"),
            make("out.sparse-1.tmp"),
        ];
        let used = make(".out.sparse-1.tmp");
        let lock = File::open(&used).unwrap();
        lock.try_lock().unwrap();

        let target = dir.path().join("out");
        drop(OutputDir::create(&target, Existing::Keep).unwrap());
        assert!(!left.exists() && used.exists());
        assert!(others.iter().all(|other| other.exists()));
        drop(lock);
        drop(OutputDir::create(&target, Existing::Keep).unwrap());
        assert!(!used.exists());
    }

    #[test]
    #[cfg(unix)]
    fn what_was_being_replaced_when_a_process_was_killed_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let (target, aside) = (dir.path().join("out"), ".out.sparse-999999999.old");
        let aside = dir.path().join(aside);
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("x"), "1").unwrap();
        let lock = File::open(&aside).unwrap();
        lock.try_lock().unwrap();
        drop(OutputDir::create(&target, Existing::Keep).unwrap());
        assert!(aside.exists(), "somebody is at it");
        drop(lock);
        let kept = OutputDir::create(&target, Existing::Keep);
        assert!(matches!(kept, Err(Error::OutputExists { .. })));
        assert!(target.join("x").exists() && !aside.exists());
        // Where the new one came to be, nobody needs the old one.
        fs::create_dir(&aside).unwrap();
        drop(OutputDir::create(&target, Existing::Replace).unwrap());
        assert!(target.join("x").exists() && !aside.exists());
    }

    #[test]
    fn an_existing_output_is_kept_or_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "1").unwrap();
        assert!(matches!(
            OutputDir::create(&target, Existing::Keep),
            Err(Error::OutputExists { .. })
        ));
        let output = OutputDir::create(&target, Existing::Replace).unwrap();
        fs::write(output.path().join("new"), "2").unwrap();
        output.commit().unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
