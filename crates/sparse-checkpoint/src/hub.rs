//! From what a user types to a folder: a path, the Hugging Face cache, or a download into it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::{Checkpoint, Error};

#[cfg(feature = "hub")]
mod answers;
mod cache;
#[cfg(feature = "hub")]
mod client;
mod config;
#[cfg(feature = "hub")]
mod download;
mod error;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod files;
mod repo;
#[cfg(feature = "hub")]
mod watched;

pub use config::HubConfig;
pub use error::HubError;
pub use repo::RepoId;

#[cfg(all(fuzzing, feature = "hub"))]
pub(crate) use answers::fuzz as fuzz_answer;
use cache::RepoCache;

/// How far a download has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file being fetched, relative to the repository; empty until the hub has said which
    /// there are.
    pub file: &'a str,
    /// Bytes of it that are on disk.
    pub done: u64,
    /// Its size, where the server says.
    pub total: Option<u64>,
    /// Position of the file among those needed, from 0.
    pub position: usize,
    /// Number of files needed.
    pub files: usize,
}

/// Told how far a download has come, as bytes arrive and several times a second while none do;
/// [`ControlFlow::Break`] ends the download at once.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>;

/// Finds the folder that `spec` means: a path if it exists, otherwise a hub id
/// `owner/name[@revision]` in the Hugging Face cache, otherwise downloaded into that cache, where
/// other tools find it too.
///
/// A revision that is in the cache and whole is taken as it is, without asking the hub whether
/// its branch has moved on. An interrupted download goes on where it stopped.
///
/// # Errors
/// If `spec` is neither, or the hub cannot provide it; [`Error::hint`] says what to do.
/// [`Error::Interrupted`] if `progress` says so; what has arrived is kept for the next time.
pub fn resolve(spec: &str, config: &HubConfig, progress: OnProgress<'_>) -> Result<PathBuf, Error> {
    match locate(spec, config)? {
        Found::Here(path) => Ok(path),
        Found::OnHub(repo, cache) => fetch_from_hub(repo, cache, config, progress),
    }
}

/// [`resolve`] for those who need to know what tensors there are, not their values: of a repository
/// that the cache does not have only the small files and the headers of the weights are fetched, into
/// the folder `into`. The weights there are zeros in files of the right size, which take no room
/// where the file system knows holes.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_headers(
    spec: &str,
    config: &HubConfig,
    into: &Path,
    progress: OnProgress<'_>,
) -> Result<PathBuf, Error> {
    match locate(spec, config)? {
        Found::Here(path) => Ok(path),
        Found::OnHub(repo, _) => {
            fetch_headers_from_hub(repo, into, config, progress)?;
            Ok(into.to_path_buf())
        }
    }
}

/// Where a checkpoint is.
enum Found {
    Here(PathBuf),
    OnHub(RepoId, RepoCache),
}

fn locate(spec: &str, config: &HubConfig) -> Result<Found, Error> {
    let path = Path::new(spec);
    if path.exists() {
        return Ok(Found::Here(path.to_path_buf()));
    }
    if looks_like_a_path(spec) {
        return Err(Error::NotFound {
            path: path.to_path_buf(),
        });
    }
    let repo = RepoId::parse(spec)?;
    let Some(cache_dir) = &config.cache_dir else {
        return Err(HubError::NoCacheFolder {
            repo: repo.to_string(),
        }
        .into());
    };
    let cache = RepoCache::new(cache_dir, &repo);
    if let Some(snapshot) = cache.snapshot_of(repo.revision()) {
        match Checkpoint::open(&snapshot) {
            Ok(_) => return Ok(Found::Here(snapshot)),
            Err(error) if config.offline => return Err(error),
            Err(_) => {} // incomplete: fetch what is missing
        }
    }
    if config.offline {
        let (repo, cache) = (repo.to_string(), cache_dir.clone());
        return Err(HubError::Offline { repo, cache }.into());
    }
    Ok(Found::OnHub(repo, cache))
}

#[cfg(feature = "hub")]
use download::{download as fetch_from_hub, download_headers as fetch_headers_from_hub};

#[cfg(not(feature = "hub"))]
fn fetch_from_hub(
    repo: RepoId,
    _: RepoCache,
    _: &HubConfig,
    _: OnProgress<'_>,
) -> Result<PathBuf, Error> {
    Err(HubError::NoDownloads {
        repo: repo.to_string(),
    }
    .into())
}

#[cfg(not(feature = "hub"))]
fn fetch_headers_from_hub(
    repo: RepoId,
    _: &Path,
    _: &HubConfig,
    _: OnProgress<'_>,
) -> Result<(), Error> {
    Err(HubError::NoDownloads {
        repo: repo.to_string(),
    }
    .into())
}

/// Whether `spec` can only be meant as a path.
fn looks_like_a_path(spec: &str) -> bool {
    spec.is_empty()
        || spec.starts_with(['.', '/', '~'])
        || spec.ends_with('/')
        || spec.contains('\\')
        || spec
            .split('@')
            .next()
            .is_some_and(|id| id.matches('/').count() > 1)
        || Path::new(spec).is_absolute()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offline(cache_dir: &Path) -> HubConfig {
        HubConfig {
            cache_dir: Some(cache_dir.to_path_buf()),
            offline: true,
            ..HubConfig::default()
        }
    }

    fn no_progress(_: Progress<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn what_exists_is_taken_as_a_path_even_if_it_is_a_valid_id() {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().to_str().unwrap();
        let found = resolve(spec, &HubConfig::default(), &mut no_progress).unwrap();
        assert_eq!(found, dir.path());
    }

    #[test]
    fn what_can_only_be_a_path_never_reaches_the_hub() {
        for spec in [
            "./model", "/no/such", "../x", "a/b/c", "~/model", "model/", "a\\b", "",
        ] {
            let error = resolve(spec, &HubConfig::default(), &mut no_progress).unwrap_err();
            assert!(matches!(error, Error::NotFound { .. }), "{spec:?}: {error}");
        }
        assert!(!looks_like_a_path("owner/name@refs/pr/1"));
    }

    #[test]
    fn offline_says_where_it_looked() {
        let dir = tempfile::tempdir().unwrap();
        let error = resolve("owner/name", &offline(dir.path()), &mut no_progress).unwrap_err();
        assert!(
            error.to_string().contains(dir.path().to_str().unwrap()),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("HF_HUB_OFFLINE"), "{error}");
    }

    #[test]
    fn a_broken_snapshot_is_reported_as_such_when_offline() {
        let dir = tempfile::tempdir().unwrap();
        let commit = "a".repeat(40);
        let snapshot = dir.path().join("models--gpt2/snapshots").join(&commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::write(snapshot.join("model.safetensors"), b"short").unwrap();
        let spec = format!("gpt2@{commit}");
        let error = resolve(&spec, &offline(dir.path()), &mut no_progress).unwrap_err();
        assert!(matches!(error, Error::Header { .. }), "{error}");
    }
}
