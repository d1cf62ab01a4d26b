//! Why a model could not be had from the hub.

use std::path::PathBuf;

use crate::RelPathError;

/// Why a hub id did not lead to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither an existing path nor a possible hub id.
    #[error("{spec:?} is neither an existing path nor a hub id: {reason}")]
    BadId {
        /// What was asked for.
        spec: String,
        /// What is wrong with it as a hub id.
        reason: &'static str,
    },
    /// No folder is known to look in or download to.
    #[error("no cache folder is configured to look for {repo} in")]
    NoCacheFolder {
        /// The repository.
        repo: String,
    },
    /// Not in the cache, and the network is not to be used.
    #[error("{repo} is neither a folder here nor in the cache {}, and downloads are off", .cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// This build has no network code.
    #[error("{repo} is neither a folder here nor in the cache, and this build cannot download")]
    NoDownloads {
        /// The repository.
        repo: String,
    },
    /// The hub does not know the repository.
    #[error("{repo} is neither a folder here nor a model at {endpoint}")]
    NoRepo {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
    },
    /// The hub knows the repository, but not the revision.
    #[error("{repo} at {endpoint} has no such revision")]
    NoRevision {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
    },
    /// The repository is private or gated.
    #[error("{endpoint} denies access to {repo} (HTTP {status})")]
    Denied {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository holds no safetensors.
    #[error("{repo} holds no *.safetensors file; it has {}", .found.join(", "))]
    NoSafetensors {
        /// The repository.
        repo: String,
        /// Some of the files that it does hold.
        found: Vec<String>,
    },
    /// A file that the checkpoint needs has a name that could not be stored everywhere.
    #[error("{repo}: {cause}")]
    FileName {
        /// The repository.
        repo: String,
        /// What is wrong with the name.
        cause: RelPathError,
    },
    /// The connection failed, again and again.
    #[error("{url}: {message}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What happened.
        message: String,
    },
    /// Nothing by that name is here, and the hub cannot be reached.
    #[error(
        "{repo} is neither a folder here nor in the cache, and the hub does not answer: {url}: {message}"
    )]
    Unreachable {
        /// The repository.
        repo: String,
        /// What was asked for.
        url: String,
        /// What happened.
        message: String,
    },
    /// An answer with an unexpected status.
    #[error("{url}: the server answered HTTP {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// An answer that does not mean what it should.
    #[error("{url}: {message}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// A file of the wrong size arrived.
    #[error("{url}: expected {expected} bytes, received {found}")]
    WrongSize {
        /// What was asked for.
        url: String,
        /// The size that the server announced.
        expected: u64,
        /// The bytes that came.
        found: u64,
    },
    /// A file with the wrong content arrived.
    #[error("{url}: expected SHA-256 {expected}, received {found}")]
    WrongDigest {
        /// What was asked for.
        url: String,
        /// The digest that the server announced.
        expected: String,
        /// The digest of what came.
        found: String,
    },
    /// The proxy or certificate settings are unusable.
    #[error("cannot set up the connection: {message}")]
    Setup {
        /// What is wrong.
        message: String,
    },
}

impl HubError {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            HubError::BadId { .. } => "a hub id has the form owner/name[@revision]",
            HubError::NoCacheFolder { .. } => "set HF_HOME or HF_HUB_CACHE",
            HubError::Offline { .. } => {
                "check the path, or unset HF_HUB_OFFLINE to download the model"
            }
            HubError::NoDownloads { .. } => {
                "check the path, or fetch the model with `hf download` first"
            }
            HubError::NoRepo { .. } => "check the spelling; for a private model set HF_TOKEN",
            HubError::NoRevision { .. } => "check the part after the @",
            HubError::Denied {
                with_token: false, ..
            } => {
                "check the spelling; if the model is gated or private, accept its terms on its \
                 page and set HF_TOKEN"
            }
            HubError::Denied { .. } => {
                "accept the model's terms on its page, and check that HF_TOKEN may read it"
            }
            HubError::NoSafetensors { .. } => "convert the weights to safetensors first",
            HubError::FileName { .. } => {
                "the file must be renamed in the repository before the model can be used"
            }
            HubError::Transport { .. } => {
                "check the network and HF_ENDPOINT, then run again: the download goes on where it \
                 stopped"
            }
            HubError::Unreachable { .. } => {
                "check the path; for a model on the hub, the network and HF_ENDPOINT"
            }
            HubError::WrongDigest { .. } | HubError::WrongSize { .. } => {
                "run again; if it stays, a proxy or mirror alters the file"
            }
            HubError::Setup { .. } => "check HTTPS_PROXY and SSL_CERT_FILE",
            HubError::Status { .. } | HubError::Protocol { .. } => {
                "check that HF_ENDPOINT is a Hugging Face hub, and try again later"
            }
        })
    }
}
