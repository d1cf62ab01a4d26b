//! A path inside a checkpoint that is safe to join to any root, on any system.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A relative, `/`-separated path: checked once, then trusted.
///
/// It has no `..`, `.` or empty component, is not absolute, and holds nothing that Windows would
/// read as a drive, a stream, a device or a separator, so that joining it to a root stays below
/// that root wherever the checkpoint is unpacked.
///
/// ```
/// use sparse_checkpoint::RelPath;
/// assert_eq!(RelPath::parse("unet/model.safetensors")?.file_name(), "model.safetensors");
/// assert!(RelPath::parse("../outside").is_err());
/// # Ok::<(), sparse_checkpoint::RelPathError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Box<str>);

/// Why a string is not a [`RelPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsafe path {path:?}: {reason}")]
pub struct RelPathError {
    path: String,
    reason: &'static str,
}

/// The longest path and component that the usual file systems take.
const MAX_PATH_BYTES: usize = 4096;
const MAX_COMPONENT_BYTES: usize = 255;

impl RelPath {
    /// Checks `path`.
    ///
    /// # Errors
    /// If it could leave the folder that it is joined to, or could not be created on some system.
    pub fn parse(path: &str) -> Result<RelPath, RelPathError> {
        match Self::fault(path) {
            None => Ok(RelPath(path.into())),
            Some(reason) => {
                let path = path.chars().take(256).collect();
                Err(RelPathError { path, reason })
            }
        }
    }

    fn fault(path: &str) -> Option<&'static str> {
        if path.is_empty() {
            return Some("it is empty");
        }
        if path.len() > MAX_PATH_BYTES {
            return Some("it is longer than 4096 bytes");
        }
        if path.starts_with('/') {
            return Some("it is absolute");
        }
        path.split('/').find_map(component_fault)
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folder that the file is in, or `None` at the root.
    pub fn parent(&self) -> Option<RelPath> {
        let (parent, _) = self.0.rsplit_once('/')?;
        Some(RelPath(parent.into()))
    }

    /// The path of `name` in the same folder as this file.
    ///
    /// # Errors
    /// If `name` is not a valid relative path, or the two together are too long.
    pub fn sibling(&self, name: &str) -> Result<RelPath, RelPathError> {
        let name = RelPath::parse(name)?;
        match self.parent() {
            None => Ok(name),
            Some(parent) => RelPath::parse(&format!("{parent}/{name}")),
        }
    }

    /// Number of components, at least one.
    pub fn depth(&self) -> usize {
        self.0.split('/').count()
    }

    /// Where the file lies below `root`.
    pub fn join_to(&self, root: &Path) -> PathBuf {
        let mut path = root.to_path_buf();
        path.extend(self.0.split('/'));
        path
    }
}

fn component_fault(component: &str) -> Option<&'static str> {
    // Devices that Windows opens whatever the folder and the extension.
    const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
    let stem = component.split('.').next().unwrap_or(component).trim_end();
    let numbered = |prefix: &str| {
        stem.len() == 4
            && stem
                .get(..3)
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && stem.as_bytes()[3].is_ascii_digit()
    };
    if component.is_empty() {
        Some("it has an empty component")
    } else if component == ".." || component == "." {
        Some("it has a . or .. component")
    } else if component.len() > MAX_COMPONENT_BYTES {
        Some("it has a component longer than 255 bytes")
    } else if component.contains('\\') {
        Some("it has a backslash")
    } else if component.contains(':') {
        Some("it has a colon, which Windows reads as a drive or a stream")
    } else if component.contains(|c: char| c.is_control()) {
        Some("it has a control character")
    } else if component.ends_with(['.', ' ']) {
        Some("it has a component that ends in a dot or a space, which Windows drops")
    } else if DEVICES
        .iter()
        .any(|device| stem.eq_ignore_ascii_case(device))
        || numbered("com")
        || numbered("lpt")
    {
        Some("it names a Windows device")
    } else {
        None
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RelPath {
    type Error = RelPathError;

    fn try_from(path: String) -> Result<RelPath, RelPathError> {
        RelPath::parse(&path)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> String {
        path.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_kept_as_they_are() {
        for path in [
            "model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            ".gitattributes",
            "a b/ü.json",
            "...x",
            "console.txt",
            "com10.txt",
        ] {
            assert_eq!(RelPath::parse(path).unwrap().as_str(), path);
        }
    }

    #[test]
    fn whatever_could_escape_or_is_not_portable_is_refused() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "C:",
            "C:/a",
            "c:a",
            "a\0b",
            "a\nb",
            "NUL",
            "nul.txt",
            "a/Com1",
            "LPT9.tar.gz",
            "a.",
            "a ",
            "x:y",
        ] {
            assert!(RelPath::parse(path).is_err(), "{path:?} was accepted");
        }
        assert!(RelPath::parse(&"a".repeat(256)).is_err());
        assert!(RelPath::parse(&"a/".repeat(4000)).is_err());
    }

    #[test]
    fn parts() {
        let path = RelPath::parse("unet/sub/model.safetensors").unwrap();
        assert_eq!(path.file_name(), "model.safetensors");
        assert_eq!(path.parent().unwrap().as_str(), "unet/sub");
        assert_eq!(path.depth(), 3);
        assert_eq!(path.sibling("x.json").unwrap().as_str(), "unet/sub/x.json");
        assert!(path.sibling("../x.json").is_err());
        assert_eq!(
            path.join_to(Path::new("root")),
            ["root", "unet", "sub", "model.safetensors"]
                .iter()
                .collect::<PathBuf>()
        );
    }

    #[test]
    fn stored_paths_are_checked_when_read() {
        assert!(serde_json::from_str::<RelPath>("\"a/b\"").is_ok());
        assert!(serde_json::from_str::<RelPath>("\"../b\"").is_err());
    }
}
