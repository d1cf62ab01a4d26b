//! Folders around an output.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Folders that were made for an output. Dropped, those go that are still empty: the output did not
/// come to be.
#[derive(Debug)]
pub struct NewParents(Vec<PathBuf>);

impl NewParents {
    /// Makes the folders that `target` is to be in, where they are missing.
    ///
    /// # Errors
    /// If the system refuses; those made until then are gone again.
    pub fn of(target: &Path) -> Result<NewParents, Error> {
        let missing = target
            .ancestors()
            .skip(1)
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir());
        let missing: Vec<&Path> = missing.collect();
        let mut made = NewParents(Vec::new());
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => made.0.push(folder.to_owned()),
                // Another process was faster, or the path has a `..` in it.
                Err(_) if folder.is_dir() => {}
                Err(cause) => return Err(Error::io("create", folder)(cause)),
            }
        }
        Ok(made)
    }
}

impl Drop for NewParents {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // Fails where something is in it.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stay_only_around_something() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b/c");
        drop(NewParents::of(&target).unwrap());
        assert!(!dir.path().join("a").exists());

        let made = NewParents::of(&target).unwrap();
        fs::write(dir.path().join("a/kept"), "").unwrap();
        drop(made);
        assert!(dir.path().join("a/kept").exists() && !dir.path().join("a/b").exists());

        let below_a_file = NewParents::of(&dir.path().join("a/kept/x/y"));
        assert!(matches!(below_a_file, Err(Error::Io { .. })));
        drop(NewParents::of(Path::new("name")).unwrap());
    }
}
