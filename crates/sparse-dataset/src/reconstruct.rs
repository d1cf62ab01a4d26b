//! Rebuilding derivatives, and checking deltas.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::artifact::Artifact;
use crate::error::{Error, Result};
use crate::header::SplitHeader;
use crate::output::{Output, hex};
use crate::rebuild::{Check, rebuild};
use crate::spec::{Progress, Reading};

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
/// folder when the derivative was a folder or `output` is one. More than one of the `threads` are
/// used for Parquet.
///
/// # Errors
/// [`Error::WrongBase`], [`Error::Damaged`], [`Error::WrongOutput`] and the
/// errors of reading and writing; nothing is left half-written.
pub fn reconstruct(
    base: &Path,
    delta: &Path,
    output: &Path,
    threads: usize,
    progress: &dyn Progress,
) -> Result<ReconstructReport> {
    let artifact = Artifact::open(delta)?;
    let mut base = artifact.open_base(base, Reading { threads, progress })?;
    let into_folder = artifact.is_folder || output.is_dir();
    // Dropped after the files: folders that are empty then go.
    let mut folders = Folders::default();
    if into_folder {
        folders.create(output)?;
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
        if let Some(folder) = target.parent() {
            folders.create(folder)?;
        }
        // Now, not when other files have their names already.
        if target.is_dir() {
            return Err(Error::io(&target)(std::io::ErrorKind::IsADirectory.into()));
        }
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
pub fn verify(
    delta: &Path,
    base: Option<&Path>,
    threads: usize,
    progress: &dyn Progress,
) -> Result<()> {
    let artifact = Artifact::open(delta)?;
    let mut base = base
        .map(|base| artifact.open_base(base, Reading { threads, progress }))
        .transpose()?;
    artifact.each_split(|header, blocks, _| {
        let Some(base) = &mut base else { return Ok(()) };
        let mut check = Check(Sha256::new());
        rebuild(&artifact.path, header, blocks, base, &mut check, progress)?;
        check_digest(Path::new(&header.name), header, check.0.finalize().into())
    })
}

/// Folders that were created.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    /// Creates a folder and those around it.
    fn create(&mut self, folder: &Path) -> Result<()> {
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        if let Some(around) = folder.parent() {
            self.create(around)?;
        }
        std::fs::create_dir(folder).map_err(Error::io(folder))?;
        self.0.push(folder.to_owned());
        Ok(())
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // Those that hold a rebuilt file stay: they are not empty.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// A split's name must not lead out of the folder: each of its parts names a
/// file or folder.
fn plain_name<'a>(artifact: &Artifact, header: &'a SplitHeader) -> Result<&'a str> {
    let plain = |part: &str| Path::new(part).file_name().is_some_and(|name| name == part);
    if header.name.split('/').all(plain) {
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
