//! Tools that run outside this process: their input is files, their time includes
//! what the tool itself does besides coding, and a missing one is a row that says
//! how to install it.

mod python;
mod xdelta;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::measure::Contender;
use crate::pair::Pair;

/// The tensor data of a pair as two files, in a folder that goes away with it.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Writes both buffers, to memory where the system has a place for that.
    pub fn new(pair: &Pair) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::Builder::new()
            .prefix("bench-delta-")
            .tempdir_in(&parent);
        let workspace = Self {
            folder: folder.with_context(|| format!("cannot write to {}", parent.display()))?,
        };
        fs::write(workspace.base(), &pair.base)?;
        fs::write(workspace.fine(), &pair.fine)?;
        Ok(workspace)
    }

    /// File of the base's tensors.
    pub fn base(&self) -> PathBuf {
        self.folder.path().join("base.bin")
    }

    /// File of the fine-tune's tensors.
    pub fn fine(&self) -> PathBuf {
        self.folder.path().join("fine.bin")
    }

    /// A file for a tool to write.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Names of the external contenders, for `--methods`.
pub const NAMES: [&str; 4] = ["xdelta3", "zipnn", "zipnn-xor", "sparse-llm"];

/// The external contenders of a run.
#[derive(Default)]
pub struct External {
    /// Those asked for, installed or not.
    pub contenders: Vec<Box<dyn Contender>>,
    /// Versions of the tools that are installed.
    pub versions: BTreeMap<String, String>,
}

impl External {
    /// Prepares those that are `wanted`; `python` is to have the packages of
    /// requirements.txt.
    pub fn prepare(pair: &Pair, python: &Path, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut external = Self::default();
        if !NAMES.iter().any(|name| wanted(name)) {
            return Ok(external);
        }
        let workspace = Rc::new(Workspace::new(pair)?);
        if wanted("xdelta3") {
            let version = xdelta::version().map(|version| ("xdelta3".to_owned(), version));
            external.versions.extend(version);
            let xdelta = xdelta::Xdelta::new(workspace.clone());
            external.contenders.push(Box::new(xdelta));
        }
        if python::PEERS.iter().any(|peer| wanted(peer.name)) {
            let (peers, versions) = python::start(python, &workspace);
            external.versions.extend(versions);
            for peer in peers.into_iter().filter(|peer| wanted(peer.name())) {
                external.contenders.push(Box::new(peer));
            }
        }
        Ok(external)
    }
}
