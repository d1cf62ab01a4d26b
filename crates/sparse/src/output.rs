//! Where an output really goes.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::context::Hinted;

/// Refuses an output that is, or is inside, or holds, one of the inputs: replacing it would
/// destroy what is read.
pub fn check_apart(output: &Path, inputs: &[&Path]) -> anyhow::Result<()> {
    let Ok(out) = real_path(output) else {
        return Ok(());
    };
    for input in inputs {
        if let Ok(path) = real_path(input)
            && (out.starts_with(&path) || path.starts_with(&out))
        {
            return Err(Hinted {
                message: format!(
                    "the output {} overlaps {}",
                    output.display(),
                    input.display()
                ),
                hint: "choose another output with -o".to_owned(),
            }
            .into());
        }
    }
    Ok(())
}

/// The path without links and `..`, of which the end need not exist yet.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                real.pop();
            }
            component => real.push(component),
        }
        if let Ok(followed) = real.canonicalize() {
            real = followed;
        }
    }
    Ok(real)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn an_output_below_a_link_is_where_the_link_leads() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("base/sub")).unwrap();
        fs::create_dir(path("other")).unwrap();
        symlink(path("base"), path("link")).unwrap();
        symlink(path("base/sub"), path("other/deep")).unwrap();
        for inside in [
            "base",
            "base/new",
            "link/new",
            "link/no/such/folder",
            "other/deep/new",
            "other/deep/../new",
            "no/../link/new",
            "link/sub/../../base/new",
        ] {
            let (base, output) = (path("base"), path(inside));
            assert!(check_apart(&output, &[&base]).is_err(), "{inside}");
        }
        for apart in ["new", "link2/new", "other/new", "link/../new", "base2"] {
            check_apart(&path(apart), &[&path("base")]).unwrap();
        }
        // The input may be given through a link too.
        assert!(check_apart(&path("base/new"), &[&path("link")]).is_err());
        assert!(
            check_apart(dir.path(), &[&path("link")]).is_err(),
            "holds it"
        );
    }
}
