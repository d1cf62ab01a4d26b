//! From a repository on a hub to a snapshot in the cache.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::answers::{Blob, Listing};
use super::cache::{RepoCache, create_parents};
use super::client::{Answer, Client, Request, encode, header};
use super::fetch::fetch;
use super::files::{Wanted, is_weights, needed};
use super::watched::{Tell, watched};
use super::{HubConfig, HubError, OnProgress, Progress, RepoId};
use crate::{Error, MAX_HEADER_BYTES, RelPath};

/// More than the longest list of files of any repository.
const MAX_LISTING_BYTES: u64 = 64 << 20;

/// More than the largest tokenizer.
const MAX_SMALL_BYTES: u64 = 512 << 20;

/// Read between two reports.
const PIECE_BYTES: u64 = 256 << 10;

/// Fetches what the cache lacks of `repo` and returns its snapshot. The revision is noted last,
/// so that an interrupted download is not mistaken for a whole one.
pub(super) fn download(
    repo: RepoId,
    cache: RepoCache,
    config: &HubConfig,
    progress: OnProgress<'_>,
) -> Result<PathBuf, Error> {
    let hub = Hub {
        client: Client::new(config)?,
        repo,
    };
    watched(progress, move |tell| {
        let commit = hub.each_file(Wanted::Everything, tell, &mut |commit, file, report| {
            hub.get(&cache, commit, file, report)
        })?;
        if hub.repo.revision() != commit {
            cache.set_ref(hub.repo.revision(), &commit)?;
        }
        Ok(cache.snapshot(&commit))
    })
}

/// Fetches into the folder `into` what is needed of `repo`, of weights their headers only: the rest
/// of such a file is left empty.
pub(super) fn download_headers(
    repo: RepoId,
    into: &Path,
    config: &HubConfig,
    progress: OnProgress<'_>,
) -> Result<(), Error> {
    let hub = Hub {
        client: Client::new(config)?,
        repo,
    };
    let into = into.to_path_buf();
    watched(progress, move |tell| {
        hub.each_file(Wanted::ToRun, tell, &mut |commit, file, report| {
            hub.peek(&into, commit, file, report)
        })
        .map(drop)
    })
}

/// Takes bytes done and the size, where it is known; an error tells to stop.
pub(super) type Report<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> Result<(), Error>;

struct Hub {
    client: Client,
    repo: RepoId,
}

impl Hub {
    /// Calls `get` with the commit for every file that is needed; returns the commit.
    fn each_file(
        &self,
        wanted: Wanted,
        tell: Tell<'_>,
        get: &mut dyn FnMut(&str, &RelPath, Report<'_>) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let listing = self.listing()?;
        let files = needed(&listing.files, wanted);
        if !files.iter().any(|file| is_weights(file)) {
            return Err(HubError::NoSafetensors {
                repo: self.repo.to_string(),
                found: listing.files.into_iter().take(10).collect(),
            }
            .into());
        }
        let files: Vec<RelPath> = files
            .into_iter()
            .map(RelPath::parse)
            .collect::<Result<_, _>>()
            .map_err(|cause| HubError::FileName {
                repo: self.repo.to_string(),
                cause,
            })?;
        for (position, file) in files.iter().enumerate() {
            let report = &mut |done, total| {
                let (file, files) = (file.as_str(), files.len());
                tell(Progress {
                    file,
                    done,
                    total,
                    position,
                    files,
                })
            };
            get(&listing.commit, file, report)?;
        }
        Ok(listing.commit)
    }

    /// The commit that the revision means, and its files.
    fn listing(&self) -> Result<Listing, HubError> {
        let revision = encode(self.repo.revision(), false);
        let url = format!(
            "{}/api/models/{}/revision/{revision}",
            self.client.endpoint(),
            self.repo.id()
        );
        // The first question to the hub: without an answer, the name may as well be a mistyped path.
        let sent = self.client.send(&url, Request::GetFrom(0));
        let answer = sent.map_err(|error| match error {
            HubError::Transport { url, message } => HubError::Unreachable {
                repo: self.repo.to_string(),
                url,
                message,
            },
            error => error,
        })?;
        let mut answer = self.checked(&url, answer)?;
        let mut text = Vec::new();
        let mut body = answer.body_mut().as_reader().take(MAX_LISTING_BYTES);
        body.read_to_end(&mut text)
            .map_err(|error| HubError::Transport {
                url: url.clone(),
                message: error.to_string(),
            })?;
        let protocol = |message| HubError::Protocol {
            url: url.clone(),
            message,
        };
        Listing::parse(&text).map_err(protocol)
    }

    /// Makes one file of the commit appear in the snapshot.
    fn get(
        &self,
        cache: &RepoCache,
        commit: &str,
        file: &RelPath,
        report: Report<'_>,
    ) -> Result<(), Error> {
        if let Ok(present) = file.join_to(&cache.snapshot(commit)).metadata() {
            return report(present.len(), Some(present.len())); // a commit never changes
        }
        let url = self.url(commit, file);
        let answer = self.checked(&url, self.client.send(&url, Request::Head)?)?;
        let blob = Blob::described(answer.headers()).ok_or_else(|| HubError::Protocol {
            url: url.clone(),
            message: "the answer has no usable ETag: this is not a Hugging Face hub".to_owned(),
        })?;
        let target = cache.blob(&blob.etag);
        let _lock = cache.lock(&blob.etag)?;
        if let Ok(present) = target.metadata() {
            report(present.len(), Some(present.len()))?;
        } else {
            fetch(&self.client, &url, &blob, &target, report)?;
        }
        cache.link(commit, file, &blob.etag)
    }

    /// Writes one file of the commit into a folder; of weights only the header, and no more is asked
    /// for than has arrived by then.
    fn peek(
        &self,
        into: &Path,
        commit: &str,
        file: &RelPath,
        report: Report<'_>,
    ) -> Result<(), Error> {
        let url = self.url(commit, file);
        let mut answer = self.checked(&url, self.client.send(&url, Request::GetFrom(0))?)?;
        let length = header(answer.headers(), "content-length").and_then(|size| size.parse().ok());
        let broken = |error: std::io::Error| HubError::Transport {
            url: url.clone(),
            message: error.to_string(),
        };
        let mut body = answer.body_mut().as_reader();
        let mut bytes = Vec::new();
        let most = if is_weights(file.as_str()) {
            let mut start = [0; 8];
            body.read_exact(&mut start).map_err(broken)?;
            bytes.extend(start);
            u64::from_le_bytes(start).min(MAX_HEADER_BYTES)
        } else {
            MAX_SMALL_BYTES
        };
        // What follows a header is a hole. A file that ends before its header says is refused when
        // it is opened.
        let size = length.filter(|_| is_weights(file.as_str()));
        let total = if is_weights(file.as_str()) {
            Some(8 + most)
        } else {
            length
        };
        let mut body = body.take(most);
        loop {
            let piece = body.by_ref().take(PIECE_BYTES);
            let read = { piece }.read_to_end(&mut bytes).map_err(broken)?;
            report(bytes.len() as u64, total)?;
            if read == 0 {
                break;
            }
        }
        let path = file.join_to(into);
        create_parents(&path)?;
        let mut target = File::create_new(&path).map_err(Error::io("create", &path))?;
        target
            .write_all(&bytes)
            .and_then(|()| target.set_len(size.unwrap_or(bytes.len() as u64)))
            .map_err(Error::io("write", &path))
    }

    fn url(&self, commit: &str, file: &RelPath) -> String {
        format!(
            "{}/{}/resolve/{commit}/{}",
            self.client.endpoint(),
            self.repo.id(),
            encode(file.as_str(), true)
        )
    }

    /// Turns a refusal into an error that says what it means.
    fn checked(&self, url: &str, answer: Answer) -> Result<Answer, HubError> {
        let status = answer.status().as_u16();
        let (repo, endpoint) = (self.repo.to_string(), self.client.endpoint().to_owned());
        match (status, header(answer.headers(), "x-error-code")) {
            (200..=399, _) => Ok(answer),
            (404, Some("RevisionNotFound")) => Err(HubError::NoRevision { repo, endpoint }),
            (404, code) if code == Some("RepoNotFound") || url.contains("/api/models/") => {
                Err(HubError::NoRepo { repo, endpoint })
            }
            (401 | 403, _) => {
                let with_token = self.client.has_token();
                Err(HubError::Denied {
                    repo,
                    endpoint,
                    status,
                    with_token,
                })
            }
            _ => Err(HubError::Status {
                url: url.to_owned(),
                status,
            }),
        }
    }
}
