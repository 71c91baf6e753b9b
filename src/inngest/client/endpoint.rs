//! Where events are sent: base address, event key, environment.
//!
//! Takes settings, gives the one URL of all requests. The key is a part of that URL, so the URL is never shown whole.

use std::fmt;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::config::Secret;

/// Base address + `/e/<key>`.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    key: Secret,
    env: Option<HeaderValue>,
}

/// Why no client can be made of the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("INNGEST_EVENT_KEY is empty")]
    EmptyKey,
    /// It would travel in another form than we know it, and an answer that quotes the address would show it.
    #[error(
        "INNGEST_EVENT_KEY holds characters that no event key has, such as / ? # % or a blank: was more copied than the key?"
    )]
    Key,
    #[error("INNGEST_BASE_URL must be an http:// or https:// address without user, query and fragment")]
    BaseUrl,
    #[error("INNGEST_ENV holds characters that no HTTP header may hold")]
    Env,
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

impl Endpoint {
    /// # Errors
    /// An empty key (its URL would be another one), or an address or environment that cannot be sent.
    pub fn new(base_url: &str, key: &Secret, env: Option<&str>) -> Result<Self, EndpointError> {
        if key.expose().trim().is_empty() {
            return Err(EndpointError::EmptyKey);
        }
        let env = env.map(HeaderValue::from_str).transpose();
        let url = event_url(base_url, key)?;
        if url.path_segments().and_then(|mut parts| parts.next_back()) != Some(key.expose()) {
            return Err(EndpointError::Key);
        }
        Ok(Self {
            url,
            key: key.clone(),
            env: env.map_err(|_invalid| EndpointError::Env)?,
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The address without the key.
    pub(super) fn front(&self) -> Url {
        let mut front = self.url.clone();
        front.set_path("/");
        front
    }

    pub(super) fn key(&self) -> &Secret {
        &self.key
    }

    pub(super) fn env(&self) -> Option<&HeaderValue> {
        self.env.as_ref()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("origin", &self.url.origin().ascii_serialization())
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

fn event_url(base: &str, key: &Secret) -> Result<Url, EndpointError> {
    let mut url = Url::parse(base.trim()).map_err(|_invalid| EndpointError::BaseUrl)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return Err(EndpointError::BaseUrl);
    }
    match url.path_segments_mut() {
        Ok(mut path) => drop(path.pop_if_empty().extend(["e", key.expose()])),
        Err(()) => return Err(EndpointError::BaseUrl),
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base_url: &str, key: &str) -> Result<String, EndpointError> {
        Endpoint::new(base_url, &Secret::new(key), None).map(|endpoint| endpoint.url.to_string())
    }

    #[test]
    fn the_key_is_the_last_part_of_the_address_and_cannot_change_the_rest() {
        assert_eq!(url("https://inn.gs", "k").as_deref(), Ok("https://inn.gs/e/k"));
        let own = "http://inngest.internal:8288/base/";
        assert_eq!(url(own, "k").as_deref(), Ok("http://inngest.internal:8288/base/e/k"));
        for key in ["a/../b?c", "..", "a b", "a%41", "\u{e9}", "\"k\"", "a\nb"] {
            assert_eq!(url("https://inn.gs", key), Err(EndpointError::Key), "{key}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused() {
        for base in [
            "",
            "inn.gs",
            "ftp://inn.gs",
            "https://user:pw@inn.gs",
            "https://inn.gs/?a=b",
            "data:x",
        ] {
            assert_eq!(url(base, "k"), Err(EndpointError::BaseUrl), "{base}");
        }
        let bad_env = Endpoint::new("https://inn.gs", &Secret::new("k"), Some("a\nb"));
        assert!(matches!(bad_env, Err(EndpointError::Env)));
        assert_eq!(url("https://inn.gs", " "), Err(EndpointError::EmptyKey));
    }

    #[test]
    fn neither_key_nor_url_is_printed() {
        let endpoint = Endpoint::new("https://inn.gs", &Secret::new("sentinel-key"), None);
        let shown = format!("{:?}", endpoint.expect("valid"));
        assert!(!shown.contains("sentinel"), "{shown}");
        assert!(shown.contains("https://inn.gs"), "{shown}");
    }
}
