//! What the hub's answers mean. Whoever answers may be anybody: nothing here is trusted.

use serde::Deserialize;
use ureq::http::HeaderMap;

use super::cache::is_commit;
use super::client::header;
use crate::RelPath;

/// A revision: its commit, and the names of its files as the hub gave them.
pub(super) struct Listing {
    /// The commit, safe as the name of a folder.
    pub(super) commit: String,
    /// The names, which may be anything.
    pub(super) files: Vec<String>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Listing {
    /// Reads the answer to the question for a revision; an error says what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Listing, String> {
        let revision: Revision = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if !is_commit(&revision.sha) {
            return Err(format!("{:.50?} is not a commit id", revision.sha));
        }
        let names = revision.siblings.into_iter().map(|file| file.rfilename);
        Ok(Listing {
            commit: revision.sha,
            files: names.collect(),
        })
    }
}

/// A file as the hub identifies it.
pub(super) struct Blob {
    /// The SHA-256 of a large file, the git object id of a small one: a single path component, next
    /// to which names that are derived from it may stand.
    pub(super) etag: RelPath,
    /// Its size, where the hub says.
    pub(super) size: Option<u64>,
}

impl Blob {
    /// What the headers say about a file; `None` without a usable etag.
    pub(super) fn described(headers: &HeaderMap) -> Option<Blob> {
        let linked = header(headers, "x-linked-etag");
        let etag = linked.or_else(|| header(headers, "etag"))?;
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let valid = (1..=128).contains(&etag.len())
            && etag
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !valid {
            return None;
        }
        // Behind a redirect that names the file, Content-Length is that of the redirect.
        let size = match linked {
            Some(_) => header(headers, "x-linked-size"),
            None => header(headers, "content-length"),
        };
        Some(Blob {
            etag: RelPath::parse(etag).ok()?,
            size: size.and_then(|size| size.parse().ok()),
        })
    }
}

/// The first byte of a partial answer: `bytes 5-9/10` begins at 5.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = header(headers, "content-range")?
        .trim()
        .strip_prefix("bytes")?;
    range.trim_start().split('-').next()?.parse().ok()
}

/// Reads an answer as a listing, and as the headers of a file, a line each.
#[cfg(fuzzing)]
pub(crate) fn fuzz(answer: &[u8]) {
    if let Ok(listing) = Listing::parse(answer) {
        assert!(is_commit(&listing.commit));
        for name in super::files::needed(&listing.files, super::files::Wanted::Everything) {
            assert!(listing.files.iter().any(|file| file == name));
            let _ = RelPath::parse(name);
        }
    }
    let mut headers = HeaderMap::new();
    for line in answer.split(|&byte| byte == b'\n') {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        if let (Some(name), Some(value)) = (parts.next(), parts.next())
            && let Ok(name) = ureq::http::HeaderName::from_bytes(name)
            && let Ok(value) = ureq::http::HeaderValue::from_bytes(value)
        {
            headers.insert(name, value);
        }
    }
    let _ = range_start(&headers);
    if let Some(blob) = Blob::described(&headers) {
        assert_eq!(blob.etag.depth(), 1);
        assert!(!blob.etag.as_str().contains('.'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_large_file_is_described_by_what_the_redirect_says_of_it() {
        let blob = Blob::described(&headers(&[
            ("etag", "\"of-the-redirect\""),
            ("content-length", "100"),
            ("x-linked-etag", "\"abc\""),
            ("x-linked-size", "7"),
        ]));
        let blob = blob.unwrap();
        assert_eq!((blob.etag.as_str(), blob.size), ("abc", Some(7)));
        let weak = Blob::described(&headers(&[("etag", "W/\"abc\""), ("content-length", "x")]));
        let weak = weak.unwrap();
        assert_eq!((weak.etag.as_str(), weak.size), ("abc", None));
    }

    #[test]
    fn ranges_begin_at_their_first_number() {
        for (range, start) in [
            ("bytes 5-9/10", Some(5)),
            (" bytes 0-", Some(0)),
            ("bytes */10", None),
            ("items 5-9", None),
            ("bytes 99999999999999999999-", None),
        ] {
            let found = range_start(&headers(&[("content-range", range)]));
            assert_eq!(found, start, "{range}");
        }
        assert_eq!(range_start(&HeaderMap::new()), None);
    }
}
