//! Where the event key may be sent: takes the address of an event API, says what is wrong with it. The key is a part of every
//! request's address, so whoever reads a request on its way has the key.

use std::net::IpAddr;

use reqwest::Url;

/// Ends of names that no public server has.
const PRIVATE: [&str; 6] = [".internal", ".local", ".localhost", ".lan", ".home.arpa", ".svc"];

/// What is wrong, without the address: it may hold a password.
pub(super) fn check(base_url: &str, is_dev: bool) -> Result<(), &'static str> {
    let url = base_url.parse::<Url>().ok();
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
        return Err("must be an address that begins with https:// (or http:// for a dev server)");
    };
    let has_account = !url.username().is_empty() || url.password().is_some();
    if has_account || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no user, password, query or fragment: they would not be used, and they would be shown");
    }
    if url.scheme() == "http" && !is_dev && !url.host_str().is_some_and(is_private) {
        return Err(
            "would send the event key over the network for everybody to read: https://, or, for a dev server, INNGEST_DEV",
        );
    }
    Ok(())
}

/// Whether requests to this host stay within a network of one's own, as far as its name tells.
pub(super) fn is_private(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_name) => !host.contains('.') || PRIVATE.iter().any(|end| host.ends_with(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_key_crosses_no_public_network_without_tls() {
        for url in [
            "https://inn.gs",
            "https://inngest.example/base",
            "http://127.0.0.1:8288",
            "http://[::1]:8288",
            "http://localhost",
            "http://inngest:8288",
            "http://10.1.2.3",
            "http://[fd00::1]",
            "http://inngest.internal:8288/base",
            "http://inngest.tools.svc.cluster.local",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
        for url in [
            "http://inn.gs",
            "HTTP://INN.GS",
            "http://203.0.113.7",
            "http://127.0.0.1.example",
            "http://[2001:db8::1]",
            "http://localhost.example",
            "http://internal.example",
        ] {
            let problem = check(url, false).expect_err(url);
            assert!(problem.contains("https://"), "{problem}");
            assert_eq!(check(url, true), Ok(()), "{url}: a dev server is meant");
        }
    }

    #[test]
    fn an_address_with_more_than_a_place_is_refused_and_not_shown() {
        for url in [
            "https://user:sentinel@inn.gs",
            "https://sentinel@inn.gs",
            "https://inn.gs/?key=sentinel",
            "https://inn.gs/#sentinel",
            "ftp://sentinel",
            "sentinel",
            "",
        ] {
            for is_dev in [false, true] {
                let problem = check(url, is_dev).expect_err(url);
                assert!(!problem.contains("sentinel"), "{problem}");
            }
        }
    }
}
