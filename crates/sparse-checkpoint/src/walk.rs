//! The files below a folder, in a fixed order, and opening them.

use std::fs::{self, File, FileType, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, RelPath};

/// Folders that hold a tool's own state, never part of a checkpoint.
const SKIPPED_FOLDERS: [&str; 2] = [".git", ".cache"];

pub(crate) struct Walk {
    /// Regular files, sorted by path.
    pub files: Vec<Found>,
    /// Links to folders, which are not followed, and folders of tools.
    pub skipped: Vec<RelPath>,
}

pub(crate) struct Found {
    pub path: RelPath,
    pub size: u64,
}

/// Lists the regular files below `root`. Links to files count as files; links to folders are not
/// followed, so that there are no cycles.
pub(crate) fn walk(root: &Path) -> Result<Walk, Error> {
    let mut walk = Walk {
        files: Vec::new(),
        skipped: Vec::new(),
    };
    let mut folders: Vec<(PathBuf, Option<RelPath>)> = vec![(root.to_path_buf(), None)];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let full = entry.path();
            let kind = entry.file_type().map_err(Error::io("read", &full))?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::FileNameEncoding { path: full });
            };
            let path = match &prefix {
                None => RelPath::parse(&name),
                Some(prefix) => RelPath::parse(&format!("{prefix}/{name}")),
            };
            let path = path.map_err(|cause| Error::FileName {
                path: full.clone(),
                cause,
            })?;
            if kind.is_dir() && SKIPPED_FOLDERS.contains(&name.as_str()) {
                walk.skipped.push(path);
                continue;
            }
            let metadata = followed(&full, kind)?;
            if metadata.is_file() {
                walk.files.push(Found {
                    path,
                    size: metadata.len(),
                });
            } else if kind.is_dir() {
                folders.push((full, Some(path)));
            } else if metadata.is_dir() {
                walk.skipped.push(path);
            } else {
                return Err(Error::NotRegular {
                    path: full,
                    what: special(metadata.file_type()),
                });
            }
        }
    }
    walk.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    walk.skipped.sort_unstable();
    Ok(walk)
}

/// Opens a file, and nothing else: opening a named pipe waits for somebody to write to it.
pub(crate) fn open_regular(path: &Path) -> Result<File, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if metadata.is_file() {
        return File::open(path).map_err(Error::io("open", path));
    }
    Err(Error::NotRegular {
        path: path.to_path_buf(),
        what: match metadata.is_dir() {
            true => "a folder",
            false => special(metadata.file_type()),
        },
    })
}

fn followed(path: &Path, kind: FileType) -> Result<Metadata, Error> {
    fs::metadata(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound if kind.is_symlink() => Error::NotRegular {
            path: path.to_path_buf(),
            what: "a link to a missing file",
        },
        _ => Error::Io {
            action: "read",
            path: path.to_path_buf(),
            cause,
        },
    })
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "a special file",
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "a special file"
}
