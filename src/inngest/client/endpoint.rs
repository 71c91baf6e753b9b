//! Where events are sent: base address, event key, environment.
//!
//! Takes settings, gives the one URL of all requests. The key is a part of that URL, so the URL is never shown whole.

use std::fmt;

use reqwest::Url;
use reqwest::header::HeaderValue;

/// An event key. It authorises by itself, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct EventKey(Box<str>);

/// As configured.
#[derive(Debug, Clone, Default)]
pub struct EndpointSettings {
    /// `INNGEST_BASE_URL`; by default Cloud, or the dev server on this machine.
    pub base_url: Option<String>,
    /// `INNGEST_EVENT_KEY`; the dev server takes any.
    pub event_key: Option<EventKey>,
    /// `INNGEST_ENV`: the branch environment.
    pub env: Option<String>,
    /// `INNGEST_DEV`.
    pub dev: bool,
}

/// Base address + `/e/<key>`.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    key: EventKey,
    env: Option<HeaderValue>,
}

/// Why no client can be made of the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("INNGEST_EVENT_KEY is missing (or set INNGEST_DEV=1 for the dev server)")]
    MissingKey,
    #[error("INNGEST_EVENT_KEY is empty")]
    EmptyKey,
    #[error("INNGEST_BASE_URL must be an http:// or https:// address without user, query and fragment")]
    BaseUrl,
    #[error("INNGEST_ENV holds characters that no HTTP header may hold")]
    Env,
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

const CLOUD_BASE_URL: &str = "https://inn.gs";
const DEV_BASE_URL: &str = "http://localhost:8288";
/// The dev server asks for some key and checks none.
const DEV_KEY: &str = "dev";

impl EventKey {
    /// # Errors
    /// An empty key: its URL would be another one.
    pub fn new(key: &str) -> Result<Self, EndpointError> {
        match key.trim() {
            "" => Err(EndpointError::EmptyKey),
            key => Ok(Self(key.into())),
        }
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventKey(..)")
    }
}

impl Endpoint {
    /// # Errors
    /// No key outside of dev mode, or an address or environment that cannot be sent.
    pub fn new(settings: &EndpointSettings) -> Result<Self, EndpointError> {
        let default_base = if settings.dev { DEV_BASE_URL } else { CLOUD_BASE_URL };
        let base = settings.base_url.as_deref().unwrap_or(default_base);
        let key = match &settings.event_key {
            Some(key) => key.clone(),
            None if settings.dev => EventKey::new(DEV_KEY)?,
            None => return Err(EndpointError::MissingKey),
        };
        let env = settings.env.as_deref().map(HeaderValue::from_str).transpose();
        Ok(Self {
            url: event_url(base, &key)?,
            key,
            env: env.map_err(|_invalid| EndpointError::Env)?,
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn key(&self) -> &EventKey {
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

fn event_url(base: &str, key: &EventKey) -> Result<Url, EndpointError> {
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

    fn settings(base_url: Option<&str>, key: Option<&str>, dev: bool) -> EndpointSettings {
        EndpointSettings {
            base_url: base_url.map(str::to_owned),
            event_key: key.map(|key| EventKey::new(key).expect("not empty")),
            env: None,
            dev,
        }
    }

    fn url(base_url: Option<&str>, key: Option<&str>, dev: bool) -> Result<String, EndpointError> {
        Endpoint::new(&settings(base_url, key, dev)).map(|endpoint| endpoint.url.to_string())
    }

    #[test]
    fn the_address_follows_from_the_settings() {
        assert_eq!(url(None, Some("k"), false).as_deref(), Ok("https://inn.gs/e/k"));
        assert_eq!(url(None, None, true).as_deref(), Ok("http://localhost:8288/e/dev"));
        assert_eq!(url(None, None, false), Err(EndpointError::MissingKey));
        let own = "http://inngest.internal:8288/base/";
        assert_eq!(
            url(Some(own), Some("k"), false).as_deref(),
            Ok("http://inngest.internal:8288/base/e/k")
        );
        // A key cannot change the path.
        assert_eq!(
            url(None, Some("a/../b?c"), false).as_deref(),
            Ok("https://inn.gs/e/a%2F..%2Fb%3Fc")
        );
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
            assert_eq!(url(Some(base), Some("k"), false), Err(EndpointError::BaseUrl), "{base}");
        }
        let mut bad_env = settings(None, Some("k"), false);
        bad_env.env = Some("a\nb".to_owned());
        assert!(matches!(Endpoint::new(&bad_env), Err(EndpointError::Env)));
        assert_eq!(EventKey::new(" "), Err(EndpointError::EmptyKey));
    }

    #[test]
    fn neither_key_nor_url_is_printed() {
        let settings = settings(None, Some("sentinel-key"), false);
        let endpoint = Endpoint::new(&settings).expect("valid");
        let shown = format!("{settings:?} {endpoint:?}");
        assert!(!shown.contains("sentinel"), "{shown}");
        assert!(shown.contains("https://inn.gs"), "{shown}");
    }
}
