//! Where metrics are pushed to, in OpenTelemetry's own names and formats.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Flags, Reader, given, shown};
use crate::telemetry::Push;

const DEFAULT_INTERVAL_MS: u32 = 60_000;

impl Reader {
    pub(super) fn push(&mut self, flags: &Flags) -> Option<Push> {
        // Everything is checked, also what a disabled push would not use.
        let disabled = match given(flags.otel_sdk_disabled.as_deref()).map(str::to_ascii_lowercase) {
            None => false,
            Some(word) if word == "true" || word == "false" => word == "true",
            Some(other) => {
                let problem = format!("OTEL_SDK_DISABLED is `{}`: true or false", shown(&other));
                self.problems.push(problem);
                false
            }
        };
        let endpoint = self.endpoint(flags);
        let headers = self.headers(given(flags.otel_exporter_otlp_headers.as_deref()).unwrap_or_default());
        let interval = self.number(
            flags.otel_metric_export_interval.as_deref(),
            "OTEL_METRIC_EXPORT_INTERVAL",
            1000..=3_600_000,
        );
        let mut resource = BTreeMap::from([("service.name".to_owned(), "crm-event-processors".to_owned())]);
        let attributes = given(flags.otel_resource_attributes.as_deref()).unwrap_or_default();
        match pairs(attributes) {
            Some(pairs) => resource.extend(pairs),
            None => self.demand_pairs("OTEL_RESOURCE_ATTRIBUTES"),
        }
        if let Some(name) = given(flags.otel_service_name.as_deref()) {
            resource.insert("service.name".to_owned(), name.to_owned());
        }
        let push = Push {
            endpoint: endpoint?,
            headers,
            interval: Duration::from_millis(u64::from(interval.unwrap_or(DEFAULT_INTERVAL_MS))),
            resource,
        };
        (!disabled).then_some(push)
    }

    /// The address may hold a key: it is never shown.
    fn endpoint(&mut self, flags: &Flags) -> Option<Url> {
        let whole = given(flags.otel_exporter_otlp_metrics_endpoint.as_deref());
        let base = given(flags.otel_exporter_otlp_endpoint.as_deref());
        let (text, name) = match (whole, base) {
            (Some(whole), _) => (whole.to_owned(), "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
            (None, Some(base)) => {
                let whole = format!("{}/v1/metrics", base.trim_end_matches('/'));
                (whole, "OTEL_EXPORTER_OTLP_ENDPOINT")
            }
            (None, None) => return None,
        };
        let is_http = |url: &Url| ["http", "https"].contains(&url.scheme());
        let url = text.parse().ok().filter(is_http);
        if url.is_none() {
            let problem = format!("{name} is no address like https://otlp.example.com, for OTLP over HTTP");
            self.problems.push(problem);
        }
        url
    }

    fn headers(&mut self, text: &str) -> HeaderMap {
        let header = |(name, value): (String, String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        let headers = pairs(text).and_then(|pairs| pairs.into_iter().map(header).collect::<Option<HeaderMap>>());
        headers.unwrap_or_else(|| {
            self.demand_pairs("OTEL_EXPORTER_OTLP_HEADERS");
            HeaderMap::new()
        })
    }

    /// Without the text: headers are secrets.
    fn demand_pairs(&mut self, name: &str) {
        self.problems.push(format!(
            "{name} is no list like `name=value,other=value`; commas, blanks and other special characters in a value are \
             percent-encoded"
        ));
    }
}

/// `name=value` pairs separated by commas, values percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then_some(())?;
        Some((name.to_owned(), decoded(value.trim())?))
    };
    let given = text.split(',').filter(|pair| !pair.trim().is_empty());
    given.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (char::from(rest.next()?), char::from(rest.next()?));
            bytes.push(u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Problems;
    use super::*;

    fn read(set: impl FnOnce(&mut Flags)) -> Result<Option<Push>, Problems> {
        let mut flags = Flags::default();
        set(&mut flags);
        let mut reader = Reader { problems: Vec::new() };
        let push = reader.push(&flags);
        if reader.problems.is_empty() {
            Ok(push)
        } else {
            Err(Problems(reader.problems))
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn without_an_address_or_when_disabled_nothing_is_pushed() {
        assert!(read(|_| {}).expect("valid").is_none());
        let disabled = read(|flags| {
            flags.otel_exporter_otlp_endpoint = some("http://localhost:4318");
            flags.otel_sdk_disabled = some("TRUE");
        });
        assert!(disabled.expect("valid").is_none());
    }

    #[test]
    fn the_common_address_gets_the_path_of_metrics_and_the_special_one_is_taken_as_it_is() {
        let common = |flags: &mut Flags| flags.otel_exporter_otlp_endpoint = some("https://otlp.example.com/otlp/");
        let push = read(common).expect("valid").expect("a push");
        assert_eq!(push.endpoint.as_str(), "https://otlp.example.com/otlp/v1/metrics");
        assert_eq!(push.interval, Duration::from_secs(60));
        assert_eq!(push.resource["service.name"], "crm-event-processors");
        let special = read(|flags| {
            common(flags);
            flags.otel_exporter_otlp_metrics_endpoint = some("http://localhost:9090/api/v1/otlp/v1/metrics");
        });
        let special = special.expect("valid").expect("a push");
        assert_eq!(
            special.endpoint.as_str(),
            "http://localhost:9090/api/v1/otlp/v1/metrics"
        );
    }

    #[test]
    fn headers_and_attributes_are_lists_with_percent_encoded_values() {
        let push = read(|flags| {
            flags.otel_exporter_otlp_endpoint = some("http://localhost:4318");
            flags.otel_exporter_otlp_headers = some("Authorization=Basic%20c2VudGluZWw=, x-scope=a%2Cb");
            flags.otel_resource_attributes = some("deployment.environment=eu,service.name=other");
            flags.otel_service_name = some("crm-eu");
        });
        let push = push.expect("valid").expect("a push");
        assert_eq!(push.headers["authorization"], "Basic c2VudGluZWw=");
        assert_eq!(push.headers["x-scope"], "a,b");
        assert_eq!(push.resource["deployment.environment"], "eu");
        assert_eq!(push.resource["service.name"], "crm-eu", "the special name wins");
        assert!(!format!("{push:?}").contains("c2VudGluZWw"), "{push:?}");
    }

    #[test]
    fn every_problem_is_named_and_none_shows_a_secret() {
        let problems = read(|flags| {
            flags.otel_exporter_otlp_endpoint = some("sentinel-secret");
            flags.otel_exporter_otlp_headers = some("sentinel-secret");
            flags.otel_metric_export_interval = some("0");
            flags.otel_resource_attributes = some("a=%zz");
            flags.otel_sdk_disabled = some("maybe");
        });
        let problems = problems.expect_err("nothing is right").to_string();
        for name in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_SDK_DISABLED",
        ] {
            assert!(problems.contains(name), "{name} is not in {problems}");
        }
        assert!(!problems.contains("sentinel-secret"), "{problems}");
    }
}
