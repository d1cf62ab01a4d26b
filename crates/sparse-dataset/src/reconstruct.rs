//! Rebuilding derivatives, and checking deltas.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::artifact::Artifact;
use crate::error::{Error, Result};
use crate::header::SplitHeader;
use crate::inputs::Base;
use crate::output::{Output, hex};
use crate::rebuild::{Check, rebuild};
use crate::spec::Progress;

/// What a reconstruction did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReconstructReport {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// Whether all of them have the original's bytes.
    pub byte_exact: bool,
}

/// Rebuilds the files of the delta at `delta`. `output` names the file, or the
/// folder when the delta has several files or `output` is a folder.
///
/// # Errors
/// [`Error::WrongBase`], [`Error::Damaged`], [`Error::WrongOutput`] and the
/// errors of reading and writing; nothing is left half-written.
pub fn reconstruct(
    base: &Path,
    delta: &Path,
    output: &Path,
    progress: &dyn Progress,
) -> Result<ReconstructReport> {
    let artifact = Artifact::open(delta)?;
    let mut base = open_base(base, &artifact)?;
    let into_folder = artifact.splits != 1 || output.is_dir();
    if into_folder {
        std::fs::create_dir_all(output).map_err(Error::io(output))?;
    }
    let mut done: Vec<Output> = Vec::new();
    let mut report = ReconstructReport {
        files: Vec::new(),
        bytes: 0,
        byte_exact: true,
    };
    artifact.each_split(|header, blocks, _| {
        let target = if into_folder {
            output.join(plain_name(&artifact, header)?)
        } else {
            output.to_owned()
        };
        let mut file = Output::create(&target)?;
        rebuild(
            &artifact.path,
            header,
            blocks,
            &mut base,
            &mut file,
            progress,
        )?;
        check_digest(&target, header, file.digest())?;
        report.bytes += file.written;
        report.byte_exact &= header.byte_exact;
        report.files.push(target);
        done.push(file);
        Ok(())
    })?;
    // All splits are right: now they appear.
    for file in done {
        file.commit()?;
    }
    Ok(report)
}

/// Checks a delta: its form, and with a base that every file comes back.
///
/// # Errors
/// The first problem found.
pub fn verify(delta: &Path, base: Option<&Path>, progress: &dyn Progress) -> Result<()> {
    let artifact = Artifact::open(delta)?;
    let mut base = base.map(|base| open_base(base, &artifact)).transpose()?;
    artifact.each_split(|header, blocks, _| {
        let Some(base) = &mut base else { return Ok(()) };
        let mut check = Check(Sha256::new());
        rebuild(&artifact.path, header, blocks, base, &mut check, progress)?;
        check_digest(Path::new(&header.name), header, check.0.finalize().into())
    })
}

fn open_base(path: &Path, artifact: &Artifact) -> Result<Base> {
    Base::open(path, artifact.base_options, Some(artifact.base_sha256))
}

/// A split's name must not lead out of the folder.
fn plain_name<'a>(artifact: &Artifact, header: &'a SplitHeader) -> Result<&'a str> {
    let plain = Path::new(&header.name)
        .file_name()
        .is_some_and(|name| name == header.name.as_str());
    if plain {
        Ok(&header.name)
    } else {
        Err(artifact.damaged("name of a split"))
    }
}

fn check_digest(path: &Path, header: &SplitHeader, found: [u8; 32]) -> Result<()> {
    if found == header.sha256 {
        return Ok(());
    }
    Err(Error::WrongOutput {
        path: path.to_owned(),
        expected: hex(&header.sha256),
        found: hex(&found),
    })
}
