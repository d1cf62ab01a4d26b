//! From a repository on a hub to a snapshot in the cache.

use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;

use super::cache::{RepoCache, is_commit};
use super::client::{Answer, Client, Request, encode, header};
use super::fetch::{Blob, fetch};
use super::files::{is_weights, needed};
use super::{HubConfig, HubError, Progress, RepoId};
use crate::{Error, RelPath};

/// More than the longest list of files of any repository.
const MAX_LISTING_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: RelPath,
}

/// Fetches what the cache lacks of `repo` and returns its snapshot. The revision is noted last,
/// so that an interrupted download is not mistaken for a whole one.
pub(super) fn download(
    repo: &RepoId,
    cache: &RepoCache,
    config: &HubConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, Error> {
    let hub = Hub {
        client: Client::new(config)?,
        repo,
    };
    let listing = hub.listing()?;
    let all: Vec<RelPath> = listing
        .siblings
        .into_iter()
        .map(|file| file.rfilename)
        .collect();
    let files = needed(&all);
    if !files.iter().any(|file| is_weights(file)) {
        let found = all.iter().take(10).map(RelPath::to_string).collect();
        return Err(HubError::NoSafetensors {
            repo: repo.to_string(),
            found,
        }
        .into());
    }
    for (position, file) in files.iter().enumerate() {
        let report = &mut |done, total| {
            let (file, files) = (file.as_str(), files.len());
            progress(Progress {
                file,
                done,
                total,
                position,
                files,
            });
        };
        hub.get(cache, &listing.sha, file, report)?;
    }
    if repo.revision() != listing.sha {
        cache.set_ref(repo.revision(), &listing.sha)?;
    }
    Ok(cache.snapshot(&listing.sha))
}

struct Hub<'a> {
    client: Client,
    repo: &'a RepoId,
}

impl Hub<'_> {
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
        let listing: Listing =
            serde_json::from_slice(&text).map_err(|error| protocol(error.to_string()))?;
        if !is_commit(&listing.sha) {
            return Err(protocol(format!("{:.50?} is not a commit id", listing.sha)));
        }
        Ok(listing)
    }

    /// Makes one file of the commit appear in the snapshot.
    fn get(
        &self,
        cache: &RepoCache,
        commit: &str,
        file: &RelPath,
        report: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Error> {
        if let Ok(present) = file.join_to(&cache.snapshot(commit)).metadata() {
            report(present.len(), Some(present.len())); // a commit never changes
            return Ok(());
        }
        let url = format!(
            "{}/{}/resolve/{commit}/{}",
            self.client.endpoint(),
            self.repo.id(),
            encode(file.as_str(), true)
        );
        let answer = self.checked(&url, self.client.send(&url, Request::Head)?)?;
        let blob = describe(&url, &answer)?;
        let target = cache.blob(&blob.etag);
        let _lock = cache.lock(&blob.etag)?;
        if let Ok(present) = target.metadata() {
            report(present.len(), Some(present.len()));
        } else {
            fetch(&self.client, &url, &blob, &target, report)?;
        }
        cache.link(commit, file, &blob.etag)
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

/// What the headers say about a file.
fn describe(url: &str, answer: &Answer) -> Result<Blob, HubError> {
    let headers = answer.headers();
    let linked = header(headers, "x-linked-etag");
    let etag = linked
        .or_else(|| header(headers, "etag"))
        .unwrap_or_default();
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    // It becomes a file name, next to names that are derived from it.
    let valid = (1..=128).contains(&etag.len())
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let name = RelPath::parse(etag)
        .ok()
        .filter(|_| valid)
        .ok_or_else(|| HubError::Protocol {
            url: url.to_owned(),
            message: "the answer has no usable ETag: this is not a Hugging Face hub".to_owned(),
        })?;
    // Behind a redirect that names the file, Content-Length is that of the redirect.
    let size = match linked {
        Some(_) => header(headers, "x-linked-size"),
        None => header(headers, "content-length"),
    };
    Ok(Blob {
        etag: name,
        size: size.and_then(|size| size.parse().ok()),
    })
}
