//! An output folder that appears only when it is complete.

use std::fs;
use std::path::{Path, PathBuf};

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
/// Dropped before [`OutputDir::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct OutputDir {
    target: PathBuf,
    temporary: PathBuf,
    existing: Existing,
    committed: bool,
}

impl OutputDir {
    /// Starts the folder that will be `target`; its parents are made.
    ///
    /// # Errors
    /// If something is at `target` and is to be kept, or the system refuses.
    pub fn create(target: &Path, existing: Existing) -> Result<OutputDir, Error> {
        let exists = || Error::OutputExists {
            path: target.to_owned(),
        };
        let Some(name) = target.file_name() else {
            return Err(exists());
        };
        if existing == Existing::Keep && fs::symlink_metadata(target).is_ok() {
            return Err(exists());
        }
        if let Some(parent) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".sparse-{}.tmp", std::process::id()));
        let temporary = target.with_file_name(hidden);
        // Left by a killed process that had the same number.
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir(&temporary).map_err(Error::io("create", &temporary))?;
        Ok(OutputDir {
            target: target.to_owned(),
            temporary,
            existing,
            committed: false,
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
        let replaced = match fs::symlink_metadata(target) {
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
        let output = OutputDir::create(&dir.path().join("a/b"), Existing::Keep).unwrap();
        fs::write(output.path().join("x"), "half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
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
