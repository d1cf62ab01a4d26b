//! Where the hub and its cache are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What [`resolve`](crate::resolve) needs to know of the world. This crate reads no environment:
/// a command fills this in with [`HubConfig::from_vars`].
#[derive(Clone)]
pub struct HubConfig {
    /// The folder that holds `models--owner--name` folders.
    pub cache_dir: Option<PathBuf>,
    /// The hub, without a slash at the end.
    pub endpoint: String,
    /// An access token, for private and gated models. Sent to the endpoint only.
    pub token: Option<String>,
    /// A file with the token, read when a download needs it and `token` is not set.
    pub token_file: Option<PathBuf>,
    /// Use the cache only.
    pub offline: bool,
    /// A proxy for all requests.
    pub proxy: Option<String>,
    /// Certificates (PEM) to trust in place of those built in.
    pub ca_bundle: Option<PathBuf>,
    /// How often a request is tried again without any progress in between.
    pub retries: u32,
    /// Pause before the first retry; each further one is twice as long.
    pub retry_delay: Duration,
}

impl Default for HubConfig {
    fn default() -> HubConfig {
        HubConfig {
            cache_dir: None,
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            token_file: None,
            offline: false,
            proxy: None,
            ca_bundle: None,
            retries: 4,
            retry_delay: Duration::from_millis(500),
        }
    }
}

impl HubConfig {
    /// Reads the variables that the Hugging Face tools read: `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and their older names, and
    /// the usual ones for proxies and certificates. `var` looks one up.
    ///
    /// ```
    /// let config = sparse_checkpoint::HubConfig::from_vars(|name| match name {
    ///     "HF_HOME" => Some("/data/hf".to_owned()),
    ///     "HF_HUB_OFFLINE" => Some("1".to_owned()),
    ///     _ => None,
    /// });
    /// assert_eq!(config.cache_dir.as_deref(), Some("/data/hf/hub".as_ref()));
    /// assert!(config.offline);
    /// ```
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> HubConfig {
        let first = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| var(name))
                .find(|value| !value.trim().is_empty())
        };
        let user = first(&["HOME", "USERPROFILE"]).map(PathBuf::from);
        let folder = |names: &[&str]| first(names).map(|path| expand(&path, user.as_deref()));

        let home = folder(&["HF_HOME"]).or_else(|| {
            let cache = folder(&["XDG_CACHE_HOME"])
                .or_else(|| user.as_ref().map(|user| user.join(".cache")));
            cache.map(|cache| cache.join("huggingface"))
        });
        let cache_dir = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| home.as_ref().map(|home| home.join("hub")));
        let token_file =
            folder(&["HF_TOKEN_PATH"]).or_else(|| home.as_ref().map(|home| home.join("token")));

        let mut config = HubConfig {
            cache_dir,
            token_file,
            ..HubConfig::default()
        };
        if let Some(endpoint) = first(&["HF_ENDPOINT"]) {
            config.endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        }
        config.token =
            first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).map(|token| token.trim().to_owned());
        config.offline =
            first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(|value| is_true(&value));
        config.ca_bundle = folder(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]);
        let proxies: &[&str] = if config.endpoint.starts_with("https:") {
            &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        } else {
            &["http_proxy", "ALL_PROXY", "all_proxy"] // HTTP_PROXY can be set by a CGI client
        };
        let direct = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        config.proxy = first(proxies).filter(|_| !bypasses_proxy(&config.endpoint, &direct));
        config
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"]
        .iter()
        .any(|word| value.trim().eq_ignore_ascii_case(word))
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// Whether the endpoint's host is this machine or on the list of hosts to reach directly.
fn bypasses_proxy(endpoint: &str, direct: &str) -> bool {
    let authority = endpoint.split("://").last().unwrap_or(endpoint);
    let authority = authority.split('/').next().unwrap_or(authority);
    let host = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or(authority),
    }
    .to_ascii_lowercase();
    let local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    local
        || direct
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .any(|entry| {
                let entry = entry.to_ascii_lowercase();
                let suffix = entry.trim_start_matches('*').trim_start_matches('.');
                suffix.is_empty() || host == suffix || host.ends_with(&format!(".{suffix}"))
            })
}

impl fmt::Debug for HubConfig {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("token_file", &self.token_file)
            .field("offline", &self.offline)
            .field("proxy", &self.proxy.as_ref().map(|_| "..."))
            .field("ca_bundle", &self.ca_bundle)
            .field("retries", &self.retries)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_vars(|name| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_found_in_the_order_of_the_hugging_face_tools() {
        let mut vars = vec![("HOME", "/u")];
        let cache = |vars: &[_]| config(vars).cache_dir.unwrap();
        assert_eq!(cache(&vars), Path::new("/u/.cache/huggingface/hub"));
        vars.push(("XDG_CACHE_HOME", "/x"));
        assert_eq!(cache(&vars), Path::new("/x/huggingface/hub"));
        vars.push(("HF_HOME", "~/hf"));
        assert_eq!(cache(&vars), Path::new("/u/hf/hub"));
        assert_eq!(config(&vars).token_file.unwrap(), Path::new("/u/hf/token"));
        vars.push(("HF_HUB_CACHE", "/c"));
        assert_eq!(cache(&vars), Path::new("/c"));
        assert_eq!(
            config(&[("HF_HOME", "")]).cache_dir,
            None,
            "nothing to go by"
        );
    }

    #[test]
    fn endpoint_token_and_offline() {
        let found = config(&[
            ("HF_ENDPOINT", "http://hub.local/ "),
            ("HF_TOKEN", " hf_secret\n"),
            ("HF_HUB_OFFLINE", "True"),
        ]);
        assert_eq!(found.endpoint, "http://hub.local");
        assert_eq!(found.token.as_deref(), Some("hf_secret"));
        assert!(found.offline);
        assert!(!format!("{found:?}").contains("secret"));
        assert!(!config(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_proxy_is_used_unless_the_hub_is_near() {
        let proxy = |endpoint, direct| {
            config(&[
                ("HTTPS_PROXY", "http://proxy:3128"),
                ("http_proxy", "http://proxy:3128"),
                ("HF_ENDPOINT", endpoint),
                ("NO_PROXY", direct),
            ])
            .proxy
            .is_some()
        };
        assert!(proxy("https://huggingface.co", ""));
        assert!(proxy("http://hub.corp:8080/x", "other.corp"));
        assert!(proxy("https://notcorp", "corp"));
        for (endpoint, direct) in [
            ("http://127.0.0.1:8080", ""),
            ("http://[::1]:8080", ""),
            ("http://localhost", ""),
            ("https://hub.corp", "x, .corp"),
            ("https://hub.corp:1/", "hub.corp"),
            ("https://hub.corp", "*"),
        ] {
            assert!(!proxy(endpoint, direct), "{endpoint} {direct}");
        }
    }
}
