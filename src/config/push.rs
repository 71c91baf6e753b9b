//! Where metrics and traces are pushed to, in OpenTelemetry's own names and formats.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Flags, Reader, given, shown};
use crate::telemetry::{Push, TracePush};

const DEFAULT_INTERVAL_MS: u32 = 60_000;

/// What metrics and traces have in common.
#[derive(Debug, Clone)]
pub(super) struct Outward {
    pub(super) metrics: Option<Push>,
    pub(super) traces: Option<TracePush>,
}

impl Reader {
    /// Everything is checked, also what a disabled push would not use.
    pub(super) fn outward(&mut self, flags: &Flags, group: &str) -> Outward {
        let disabled = match given(flags.otel_sdk_disabled.as_deref()).map(str::to_ascii_lowercase) {
            None => false,
            Some(word) if word == "true" || word == "false" => word == "true",
            Some(other) => {
                let problem = format!("OTEL_SDK_DISABLED is `{}`: true or false", shown(&other));
                self.problems.push(problem);
                false
            }
        };
        let common = self.address(
            flags.otel_exporter_otlp_endpoint.as_deref(),
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        );
        let metrics = self.address(
            flags.otel_exporter_otlp_metrics_endpoint.as_deref(),
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        );
        let own_traces = self.address(
            flags.otel_exporter_otlp_traces_endpoint.as_deref(),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        );
        let ratio = self.ratio(flags);
        // Whoever has metrics pushed has not asked for traces yet.
        let common_traces = common.clone().filter(|_| ratio.is_some());
        let metrics = metrics.or_else(|| below(common, "v1/metrics"));
        let traces = own_traces.or_else(|| below(common_traces, "v1/traces"));
        let headers = self.headers(given(flags.otel_exporter_otlp_headers.as_deref()).unwrap_or_default());
        let interval = self.number(
            flags.otel_metric_export_interval.as_deref(),
            "OTEL_METRIC_EXPORT_INTERVAL",
            1000..=3_600_000,
        );
        let resource = self.resource(flags);
        let ratio = ratio.unwrap_or(1.0);
        let traces = traces.filter(|_| !disabled && ratio > 0.0).map(|endpoint| TracePush {
            endpoint,
            headers: headers.clone(),
            resource: resource.clone(),
            ratio,
            group: group.to_owned(),
        });
        let metrics = metrics.filter(|_| !disabled).map(|endpoint| Push {
            endpoint,
            headers,
            interval: Duration::from_millis(u64::from(interval.unwrap_or(DEFAULT_INTERVAL_MS))),
            resource,
        });
        Outward { metrics, traces }
    }

    /// The part of all batches that is traced, if somebody says so. They are roots, so that whose parents decide is the same.
    fn ratio(&mut self, flags: &Flags) -> Option<f64> {
        let text = flags.otel_traces_sampler_arg.as_deref();
        let ratio: Option<f64> = self.parsed(text, "OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1");
        let is_one = ratio.is_none_or(|ratio| (0.0..=1.0).contains(&ratio));
        self.demand(is_one, "OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1");
        let sampler = given(flags.otel_traces_sampler.as_deref());
        self.demand(
            sampler.is_some() || ratio.is_none(),
            "OTEL_TRACES_SAMPLER_ARG without OTEL_TRACES_SAMPLER says nothing: set it to traceidratio",
        );
        let sampler = sampler?;
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => Some(1.0),
            "always_off" => Some(0.0),
            "traceidratio" => Some(ratio.unwrap_or(1.0)),
            _ => {
                let known = "always_on, always_off, traceidratio, or one of them behind parentbased_";
                self.problems
                    .push(format!("OTEL_TRACES_SAMPLER is `{}`: {known}", shown(sampler)));
                None
            }
        }
    }

    fn resource(&mut self, flags: &Flags) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([("service.name".to_owned(), "crm-event-processors".to_owned())]);
        let attributes = given(flags.otel_resource_attributes.as_deref()).unwrap_or_default();
        match pairs(attributes) {
            Some(pairs) => resource.extend(pairs),
            None => self.demand_pairs("OTEL_RESOURCE_ATTRIBUTES"),
        }
        if let Some(name) = given(flags.otel_service_name.as_deref()) {
            resource.insert("service.name".to_owned(), name.to_owned());
        }
        resource
    }

    /// It may hold a key: it is never shown.
    fn address(&mut self, text: Option<&str>, name: &str) -> Option<Url> {
        let text = given(text)?;
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

/// The path of the common address goes on.
fn below(common: Option<Url>, path: &str) -> Option<Url> {
    let mut common = common?;
    // Its query, which may be a key, stays behind the path.
    common.path_segments_mut().ok()?.pop_if_empty().extend(path.split('/'));
    Some(common)
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

    fn outward(set: impl FnOnce(&mut Flags)) -> Result<Outward, Problems> {
        let mut flags = Flags::default();
        set(&mut flags);
        let mut reader = Reader { problems: Vec::new() };
        let outward = reader.outward(&flags, "a-group");
        if reader.problems.is_empty() {
            Ok(outward)
        } else {
            Err(Problems(reader.problems))
        }
    }

    fn read(set: impl FnOnce(&mut Flags)) -> Result<Option<Push>, Problems> {
        Ok(outward(set)?.metrics)
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
        for (given, expected) in [
            ("https://otlp.example.com", "https://otlp.example.com/v1/metrics"),
            (
                "https://otlp.example.com/a?key=k%2F1",
                "https://otlp.example.com/a/v1/metrics?key=k%2F1",
            ),
            (
                "https://otlp.example.com/a/?key=k",
                "https://otlp.example.com/a/v1/metrics?key=k",
            ),
        ] {
            let push = read(|flags| flags.otel_exporter_otlp_endpoint = some(given));
            let push = push.expect("valid").expect("a push");
            assert_eq!(push.endpoint.as_str(), expected);
        }
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
    fn traces_are_pushed_only_if_somebody_asks_for_them() {
        let traces = |endpoint: Option<&str>, own: Option<&str>, sampler: Option<&str>, argument: Option<&str>| {
            let read = outward(|flags| {
                flags.otel_exporter_otlp_endpoint = endpoint.map(ToOwned::to_owned);
                flags.otel_exporter_otlp_traces_endpoint = own.map(ToOwned::to_owned);
                flags.otel_traces_sampler = sampler.map(ToOwned::to_owned);
                flags.otel_traces_sampler_arg = argument.map(ToOwned::to_owned);
            });
            let traces = read.expect("valid").traces;
            traces.map(|traces| (traces.endpoint.path().to_owned(), traces.ratio))
        };
        let (common, own) = (Some("http://localhost:4318"), Some("http://localhost:4319/own"));
        let told = |path: &str, ratio| Some((path.to_owned(), ratio));
        for (endpoint, own, sampler, argument, expected) in [
            (common, None, None, None, None),
            (None, None, Some("always_on"), None, None),
            (
                common,
                None,
                Some("parentbased_always_on"),
                None,
                told("/v1/traces", 1.0),
            ),
            (
                common,
                None,
                Some("traceidratio"),
                Some("0.05"),
                told("/v1/traces", 0.05),
            ),
            (common, None, Some("traceidratio"), Some("0"), None),
            (common, own, Some("always_off"), None, None),
            (None, own, None, None, told("/own", 1.0)),
        ] {
            let read = traces(endpoint, own, sampler, argument);
            assert_eq!(read, expected, "{endpoint:?} {own:?} {sampler:?} {argument:?}");
        }
    }

    #[test]
    fn a_ratio_without_a_sampler_is_refused_for_it_would_be_taken_for_one() {
        let alone = outward(|flags| {
            flags.otel_exporter_otlp_traces_endpoint = some("http://localhost:4318/v1/traces");
            flags.otel_traces_sampler_arg = some("0.01");
        });
        let problem = alone.expect_err("every batch would be traced").to_string();
        assert!(problem.contains("set it to traceidratio"), "{problem}");
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
            flags.otel_traces_sampler = some("jaeger_remote");
            flags.otel_traces_sampler_arg = some("2");
            flags.otel_exporter_otlp_traces_endpoint = some("ftp://sentinel-secret");
        });
        let problems = problems.expect_err("nothing is right").to_string();
        for name in [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_METRIC_EXPORT_INTERVAL",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OTEL_SDK_DISABLED",
            "OTEL_TRACES_SAMPLER is `jaeger_remote`",
            "OTEL_TRACES_SAMPLER_ARG",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ] {
            assert!(problems.contains(name), "{name} is not in {problems}");
        }
        assert!(!problems.contains("sentinel-secret"), "{problems}");
    }
}
