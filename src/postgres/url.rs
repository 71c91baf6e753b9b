//! `DATABASE_URL`: takes its text, gives what the client connects with, or what is wrong with it. Pure but for the file of
//! `sslrootcert`, which is read when the client is made. It never prints any of it.

use std::fmt;
use std::net::IpAddr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::consumers::fnv1a;

/// Where the database is, with its password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    config: Config,
    root_file: Option<String>,
}

/// How TLS is wanted, as the URL says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Disable,
    Verified,
}

impl DatabaseUrl {
    /// # Errors
    /// Not a `postgres://` address with a host, or one whose `sslmode` would let anybody listen.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("DATABASE_URL {problem}");
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(wrong("is not a postgres:// address"));
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut rest, mut mode, mut root_file) = (Vec::new(), None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", _)) if mode.is_some() => return Err(wrong("has sslmode twice: which one is meant?")),
                Some(("sslmode", "disable")) => mode = Some(Wanted::Disable),
                // Stricter than libpq, where `require` checks no certificate: encryption without it keeps nobody out.
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = Some(Wanted::Verified),
                Some(("sslmode", _)) => {
                    return Err(wrong(
                        "has an sslmode that is not understood, or that falls back to no TLS: disable, or require (which \
                         checks the certificate)",
                    ));
                }
                Some(("sslrootcert", file)) => root_file = Some(percent_decoded(file)),
                // Written for another client; no statement is prepared under a name here anyway.
                Some(("pgbouncer", _)) => {}
                _ => rest.push(pair),
            }
        }
        let plain = if rest.is_empty() {
            address.to_owned()
        } else {
            format!("{address}?{}", rest.join("&"))
        };
        // The client's own message is not passed on: it may quote the address.
        let Ok(mut config) = plain.parse::<Config>() else {
            return Err(wrong(
                "is not understood: special characters of user and password are percent-encoded, and behind the `?` stand \
                 only parameters of the client",
            ));
        };
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host"));
        }
        let local = is_local(&config);
        let wanted = mode.unwrap_or(if local { Wanted::Disable } else { Wanted::Verified });
        if wanted == Wanted::Disable && root_file.is_some() {
            return Err(wrong("has an sslrootcert that would not be used: add sslmode=require"));
        }
        config.ssl_mode(match wanted {
            Wanted::Disable => SslMode::Disable,
            Wanted::Verified => SslMode::Require,
        });
        // `system` is libpq's word for the roots of the machine, which are used anyway.
        let root_file = root_file.filter(|file| file != "system");
        Ok(Self { config, root_file })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Names the database, as far as its address does: hosts, ports, its name and the user, by which some poolers know whose
    /// database is meant. Without the password, which may change.
    pub(super) fn fingerprint(&self) -> u64 {
        let config = &self.config;
        let place = format!(
            "{:?} {:?} {:?}",
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports()
        );
        let name = format!("{:?} {:?}", config.get_user(), config.get_dbname());
        fnv1a([&place, &name])
    }

    /// The password, unless it is as well known as the user's or the database's name, which messages are full of.
    pub(super) fn secret(&self) -> String {
        let password = self
            .config
            .get_password()
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        let known = [self.config.get_user(), self.config.get_dbname()];
        if known.contains(&Some(&*password)) {
            return String::new();
        }
        password.into_owned()
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    /// The authorities to believe (PEM), instead of the machine's.
    pub(super) fn root_file(&self) -> Option<&str> {
        self.root_file.as_deref()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}

/// Whether nothing leaves this machine.
fn is_local(config: &Config) -> bool {
    let named = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    });
    named && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, decoded) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> bool {
        DatabaseUrl::parse(url).expect(url).uses_tls()
    }

    #[test]
    fn certificates_are_checked_unless_the_url_says_otherwise_or_the_host_is_this_machine() {
        assert!(tls("postgres://u:p@db.example/crm"));
        assert!(tls("postgresql://u:p@db.example/crm?sslmode=require"));
        assert!(tls("postgres://u:p@127.0.0.1/crm?sslmode=verify-full"));
        assert!(tls("postgres://u:p@localhost,db.example/crm"));
        assert!(tls("postgres://u:p@localhost/crm?hostaddr=203.0.113.7"));
        // Whatever the client makes of it, the URL's word is ours alone.
        assert!(tls("postgres://u:p@db.example/crm?ssl%6dode=disable"));
        assert!(!tls("postgres://u:p@127.0.0.1:31432/crm"));
        assert!(!tls("postgres://u:p@[::1]/crm"));
        assert!(!tls("postgres://u:p@localhost/crm"));
        assert!(!tls("postgres://u:p@%2Fvar%2Frun%2Fpostgresql/crm"));
        assert!(!tls("postgres://u:p@db.internal/crm?sslmode=disable"));
    }

    #[test]
    fn what_is_written_for_other_clients_is_understood() {
        let url = "postgres://u:p@db.example/crm?pgbouncer=true&application_name=x&sslrootcert=%2Fetc%2Fca%2Bx.pem";
        let url = DatabaseUrl::parse(url).expect("valid");
        assert_eq!(url.root_file(), Some("/etc/ca+x.pem"));
        assert_eq!(url.config().get_application_name(), Some("x"));
        let system = DatabaseUrl::parse("postgres://u@db.example/crm?sslrootcert=system").expect("valid");
        assert_eq!(system.root_file(), None);
    }

    #[test]
    fn databases_are_told_apart_and_a_new_password_makes_no_other() {
        let of = |url: &str| DatabaseUrl::parse(url).expect(url).fingerprint();
        let one = of("postgres://u:p@db.example:5432/crm");
        assert_eq!(one, of("postgres://u:other@db.example:5432/crm?sslmode=require"));
        for other in [
            "postgres://u:p@db.example:5432/other",
            "postgres://u:p@db.example:6432/crm",
            "postgres://u:p@other.example:5432/crm",
            "postgres://u.project:p@db.example:5432/crm",
        ] {
            assert_ne!(one, of(other), "{other}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_of_it_is_shown() {
        let url = DatabaseUrl::parse("postgres://u:sentinel@db.example/crm").expect("valid");
        assert!(!format!("{url:?}").contains("sentinel"));
        assert_eq!(url.secret(), "sentinel");
        let known = DatabaseUrl::parse("postgres://crm:crm@localhost/crm").expect("valid");
        assert_eq!(known.secret(), "", "what everybody knows is no secret");
        for (wrong, says) in [
            ("", "not a postgres:// address"),
            ("host=db password=sentinel", "not a postgres:// address"),
            ("postgres://u:sentinel@/crm", "names no host"),
            ("postgres://u:sentinel@db:port/crm", "is not understood"),
            ("postgres://u:p@db/crm?sentinel=1", "is not understood"),
            ("postgres://u:sentinel@db/crm?sslmode=prefer", "falls back to no TLS"),
            ("postgres://u:sentinel@db/crm?sslmode=allow", "falls back to no TLS"),
            ("postgres://u:sentinel@db/crm?sslmode=no-verify", "not understood"),
            ("postgres://u:sentinel@db/crm?sslmode=Disable", "not understood"),
            ("postgres://u:sentinel@db/crm?sslmode=", "not understood"),
            (
                "postgres://u:sentinel@db/crm?sslmode=require&sslmode=disable",
                "sslmode twice",
            ),
            (
                "postgres://u:sentinel@db/crm?sslmode=disable&sslrootcert=x",
                "would not be used",
            ),
        ] {
            let problem = DatabaseUrl::parse(wrong).expect_err(wrong);
            assert!(
                problem.contains(says) && problem.starts_with("DATABASE_URL "),
                "{problem}"
            );
            assert!(!problem.contains("sentinel"), "{problem}");
        }
    }
}
