//! Requests to a hub: who is asked, with which token, how often, and what the answers mean.

use std::fs;
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::{HubConfig, HubError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 8;

/// A connection to a hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    retries: u32,
    retry_delay: Duration,
}

pub(super) type Answer = Response<Body>;

/// What a request is for.
#[derive(Clone, Copy)]
pub(super) enum Request {
    /// The headers, of the first answer that describes the file itself.
    Head,
    /// The content, from this byte on.
    GetFrom(u64),
}

impl Client {
    pub(super) fn new(config: &HubConfig) -> Result<Client, HubError> {
        let setup = |message: String| HubError::Setup { message };
        let proxy = config.proxy.as_deref().map(Proxy::new).transpose();
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.ca_bundle {
            let pem =
                fs::read(path).map_err(|error| setup(format!("{}: {error}", path.display())))?;
            let certificates: Vec<_> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let agent = Agent::config_builder()
            .proxy(proxy.map_err(|error| setup(error.to_string()))?)
            .tls_config(tls.build())
            .user_agent(concat!("sparse/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity") // sizes and digests are of the bytes as stored
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .build()
            .new_agent();
        let from_file = || {
            let token = fs::read_to_string(config.token_file.as_ref()?).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Ok(Client {
            agent,
            endpoint: config.endpoint.trim_end_matches('/').to_owned(),
            token: config.token.clone().or_else(from_file),
            retries: config.retries,
            retry_delay: config.retry_delay,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Sends a request until an answer comes that is not a passing failure. Redirects are
    /// followed; statuses are the caller's business.
    pub(super) fn send(&self, url: &str, request: Request) -> Result<Answer, HubError> {
        let mut attempt = 0;
        loop {
            let result = self.follow(url, request);
            let passing = match &result {
                Ok(answer) => matches!(answer.status().as_u16(), 429 | 500 | 502 | 503 | 504),
                Err(HubError::Transport { .. }) => true,
                Err(_) => false,
            };
            if !passing || attempt == self.retries {
                return result;
            }
            self.pause(attempt);
            attempt += 1;
        }
    }

    /// Waits before another attempt.
    pub(super) fn pause(&self, attempt: u32) {
        let delay = self.retry_delay.saturating_mul(1 << attempt.min(10));
        thread::sleep(delay.min(LONGEST_DELAY));
    }

    fn follow(&self, url: &str, request: Request) -> Result<Answer, HubError> {
        let mut current = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.once(&current, request)?;
            // Large files redirect to a store that knows nothing of the hub's etags.
            let described = matches!(request, Request::Head)
                && header(answer.headers(), "x-linked-etag").is_some();
            if !answer.status().is_redirection() || described {
                return Ok(answer);
            }
            let Some(location) = header(answer.headers(), "location") else {
                let message = "a redirect without a location".to_owned();
                return Err(HubError::Protocol {
                    url: current,
                    message,
                });
            };
            let next = absolute(&current, location);
            if current.starts_with("https:") && !next.starts_with("https:") {
                let message = "a redirect to an unencrypted address".to_owned();
                return Err(HubError::Protocol {
                    url: current,
                    message,
                });
            }
            current = next;
        }
        let message = format!("more than {MAX_REDIRECTS} redirects");
        Err(HubError::Protocol {
            url: url.to_owned(),
            message,
        })
    }

    fn once(&self, url: &str, request: Request) -> Result<Answer, HubError> {
        let mut builder = match request {
            Request::Head => self.agent.head(url),
            Request::GetFrom(_) => self.agent.get(url),
        };
        if let Request::GetFrom(start @ 1..) = request {
            builder = builder.header("range", format!("bytes={start}-"));
        }
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|_| origin(url) == origin(&self.endpoint))
        {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        builder.call().map_err(|error| {
            let (url, message) = (without_query(url), error.to_string());
            match error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                    HubError::Protocol { url, message }
                }
                _ => HubError::Transport { url, message },
            }
        })
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Percent-encodes what may not stand in a path; slashes too, unless they separate components.
pub(super) fn encode(text: &str, keep_slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (byte == b'/' && keep_slashes) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    &url[..end]
}

fn absolute(base: &str, location: &str) -> String {
    if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        let scheme = base.split("://").next().unwrap_or("https");
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let path = without_query(base);
        let folder = path.rfind('/').filter(|&at| at >= origin(base).len());
        format!("{}/{location}", &path[..folder.unwrap_or(path.len())])
    }
}

/// Queries of redirects hold signatures: they do not belong in a message.
fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or(url).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_against_where_they_came_from() {
        let base = "https://hub.co:8/a/b?x=/y";
        assert_eq!(absolute(base, "/c?d=e://f"), "https://hub.co:8/c?d=e://f");
        assert_eq!(absolute(base, "https://cdn/x"), "https://cdn/x");
        assert_eq!(absolute(base, "//cdn/x"), "https://cdn/x");
        assert_eq!(absolute(base, "c"), "https://hub.co:8/a/c");
        assert_eq!(absolute("https://hub.co", "c"), "https://hub.co/c");
    }

    #[test]
    fn the_token_goes_to_one_origin() {
        assert_eq!(origin("https://hub.co/x"), origin("https://hub.co"));
        assert_ne!(origin("https://hub.co.evil/x"), origin("https://hub.co"));
        assert_ne!(origin("http://hub.co/x"), origin("https://hub.co"));
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü#.json", true), "a%20b/%C3%BC%23.json");
    }
}
