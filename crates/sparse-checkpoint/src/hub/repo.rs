//! The name of a model on the hub.

use std::fmt;

use super::HubError;
use crate::RelPath;

/// `owner/name` or `name`, with an optional revision: a branch, tag, pull request or commit.
///
/// ```
/// use sparse_checkpoint::RepoId;
/// let repo = RepoId::parse("Qwen/Qwen2-0.5B@refs/pr/4")?;
/// assert_eq!((repo.id(), repo.revision()), ("Qwen/Qwen2-0.5B", "refs/pr/4"));
/// assert_eq!(RepoId::parse("gpt2")?.revision(), "main");
/// # Ok::<(), sparse_checkpoint::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RepoId {
    id: String,
    revision: Option<RelPath>,
}

impl RepoId {
    /// Checks `spec` against the hub's rules for names.
    ///
    /// # Errors
    /// If the hub could have no such repository or revision.
    pub fn parse(spec: &str) -> Result<RepoId, HubError> {
        let bad = |reason| HubError::BadId {
            spec: spec.chars().take(200).collect(),
            reason,
        };
        let (id, revision) = match spec.split_once('@') {
            None => (spec, None),
            Some((id, revision)) => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+/".contains(c);
                let path = RelPath::parse(revision)
                    .ok()
                    .filter(|_| revision.chars().all(allowed));
                (
                    id,
                    Some(path.ok_or_else(|| bad("its revision is not a valid name"))?),
                )
            }
        };
        if id.split('/').count() > 2 {
            return Err(bad("it has more than one slash"));
        }
        if !id.split('/').all(is_name) {
            return Err(bad("names have 1 to 96 letters, digits, '-', '_' and '.'"));
        }
        Ok(RepoId {
            id: id.to_owned(),
            revision,
        })
    }

    /// `owner/name`, or just the name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision asked for; `main` where none was.
    pub fn revision(&self) -> &str {
        self.revision.as_ref().map_or("main", RelPath::as_str)
    }

    /// The folder of this repository in a Hugging Face cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }
}

/// The hub's rule, which also keeps the name a single, harmless path component.
fn is_name(name: &str) -> bool {
    (1..=96).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && !name.contains("--")
        && !name.contains("..")
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            None => f.write_str(&self.id),
            Some(revision) => write!(f, "{}@{revision}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        for spec in [
            "gpt2",
            "openai-community/gpt2",
            "a/b@main",
            "a/b_c.d-e@refs/pr/12",
            "a@v1.0",
        ] {
            assert_eq!(RepoId::parse(spec).unwrap().to_string(), spec);
        }
        assert_eq!(RepoId::parse("a/b").unwrap().folder(), "models--a--b");
    }

    #[test]
    fn what_the_hub_would_refuse_is_refused() {
        for spec in [
            "", "/", "a/", "/a", "a/b/c", "a//b", ".a", "a-", "a--b", "a/..", "a b", "ä", "a@",
            "a@../b", "a@/b", "a@b c", "a@b?x", "a@b%2f", "@main",
        ] {
            assert!(RepoId::parse(spec).is_err(), "{spec:?} was accepted");
        }
        assert!(RepoId::parse(&"a".repeat(97)).is_err());
    }
}
