//! Outputs that appear only when they are complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

static COUNTER: AtomicU64 = AtomicU64::new(0);

fn unique(prefix: &str) -> String {
    format!(
        "{prefix}.{}.{}.tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// A temporary file without a name, gone when it is closed.
pub(crate) fn unlinked_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(unique("sparse-dataset"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// A file being written beside its target, digested on the way.
pub(crate) struct Output {
    target: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
    digest: Sha256,
    pub(crate) written: u64,
}

impl Output {
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let name = target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let temporary = target.with_file_name(unique(&format!(".{name}")));
        let file = File::create_new(&temporary).map_err(Error::io(&temporary))?;
        Ok(Self {
            target: target.to_owned(),
            temporary,
            // Less than a piece of a rebuilt text file, which is written as it is.
            file: Some(BufWriter::with_capacity(1 << 17, file)),
            digest: Sha256::new(),
            written: 0,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.written += bytes.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(Error::io(&self.temporary)),
            None => Ok(()),
        }
    }

    /// A name beside the target, for a file that is not kept.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.target.with_file_name(name)
    }

    /// The digest of what was written so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// The file as it is so far, for reading.
    pub(crate) fn flushed(&mut self) -> Result<&Path> {
        if let Some(file) = &mut self.file {
            file.flush().map_err(Error::io(&self.temporary))?;
        }
        Ok(&self.temporary)
    }

    /// Gives the file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        // Taken only once it has its name: until then, dropping it leaves nothing behind.
        if let Some(file) = &mut self.file {
            file.flush().map_err(Error::io(&self.temporary))?;
            file.get_ref()
                .sync_all()
                .map_err(Error::io(&self.temporary))?;
            fs::rename(&self.temporary, &self.target).map_err(Error::io(&self.target))?;
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Not committed: leave nothing behind. There is nobody to tell if the
        // removal fails as well.
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A digest as text.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
