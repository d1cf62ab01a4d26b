//! Hidden names of unfinished outputs, and what killed processes left under such names.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::Path;

/// How an output's hidden names begin: `.NAME.sparse-`, then numbers and `.tmp`, or `.old` for a
/// folder that is being replaced.
pub(super) struct Hidden(OsString);

/// What an unfinished output is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its hidden name has the number of the process, and another.
    File,
    /// Its hidden name has the number of the process.
    Folder,
}

/// So much of a long name is kept, that the hidden one is not too long.
const NAME_CHARACTERS: usize = 50;

impl Hidden {
    pub(super) fn of(name: &OsStr) -> Hidden {
        let mut prefix = OsString::from(".");
        if name.len() <= NAME_CHARACTERS {
            prefix.push(name);
        } else {
            let start = name.to_string_lossy();
            prefix.push(start.chars().take(NAME_CHARACTERS).collect::<String>());
        }
        prefix.push(".sparse-");
        Hidden(prefix)
    }

    pub(super) fn name(&self, numbers: &[u64]) -> OsString {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let mut name = self.0.clone();
        name.push(numbers.join("-"));
        name.push(".tmp");
        name
    }

    fn is_of(&self, name: &OsStr, kind: Kind, suffix: &[u8]) -> bool {
        let numbers = name
            .as_encoded_bytes()
            .strip_prefix(self.0.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(suffix));
        let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        numbers.is_some_and(|numbers| {
            let mut parts = numbers.split(|&byte| byte == b'-');
            let expected = if kind == Kind::File { 2 } else { 1 };
            parts.clone().count() == expected && parts.all(is_number)
        })
    }

    /// Gives an output back that a process had put aside to replace it, and was killed before it
    /// had done so. Where the new one is there, the old one goes.
    pub(super) fn restore(&self, target: &Path) {
        for entry in beside(target) {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
            let in_use = || File::open(&path).is_ok_and(|open| open.try_lock().is_err());
            if !self.is_of(&entry.file_name(), Kind::Folder, b".old") || is_folder && in_use() {
                continue;
            }
            let _ = match fs::symlink_metadata(target) {
                Err(_) => fs::rename(&path, target),
                Ok(_) if is_folder => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
            };
        }
    }

    /// Removes what killed processes left beside `target`.
    ///
    /// Only what holds something and nobody has locked: what is empty may belong to a process that
    /// has just made it and not locked it yet. Whatever goes wrong here does not matter to the new
    /// output.
    pub(super) fn remove_abandoned(&self, target: &Path, kind: Kind) {
        for entry in beside(target) {
            let is_kind = entry.file_type().is_ok_and(|found| match kind {
                Kind::File => found.is_file(),
                Kind::Folder => found.is_dir(),
            });
            if !is_kind || !self.is_of(&entry.file_name(), kind, b".tmp") {
                continue;
            }
            let path = entry.path();
            let Ok(opened) = File::open(&path) else {
                continue;
            };
            let is_empty = match kind {
                Kind::File => opened.metadata().is_ok_and(|meta| meta.len() == 0),
                Kind::Folder => fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_none()),
            };
            if is_empty || opened.try_lock().is_err() {
                continue;
            }
            let _ = match kind {
                Kind::File => fs::remove_file(&path),
                Kind::Folder => fs::remove_dir_all(&path),
            };
        }
    }
}

/// What is in the folder that `target` is in, or is to be in.
fn beside(target: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or(Path::new(".")));
    entries.into_iter().flatten().flatten()
}
