//! A connector's configuration: names and texts. It never shows its secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::template::Platform;
use crate::fields::Fields;

/// Flat, as both platforms take it; the connector's name is one of its keys.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Config(BTreeMap<String, String>);

/// What a secret is shown as. Confluent Cloud does the same, so that what was shown is found out if it is sent.
pub const MASK: &str = "****************";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("not a JSON object")]
    NotAnObject,
    #[error("`{0}` is there twice, and only one of them would count")]
    Doubled(String),
    #[error("`{0}` is neither a text nor a number nor true or false")]
    NotAText(String),
}

impl Config {
    /// A flat object, or `{"name": ..., "config": {...}}`, as files of both platforms are written.
    ///
    /// # Errors
    /// Neither, or a key that nobody can tell the value of.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let Fields(fields) = serde_json::from_str(text).map_err(|_invalid| ConfigError::NotAnObject)?;
        let inner = fields.iter().find(|(key, _)| key == "config");
        let Some((_, inner)) = inner.filter(|(_, value)| value.get().starts_with('{')) else {
            return Self::of(fields);
        };
        let Fields(inner) = serde_json::from_str(inner.get()).map_err(|_invalid| ConfigError::NotAnObject)?;
        let mut config = Self::of(inner)?;
        if let Some((_, name)) = fields.iter().find(|(key, _)| key == "name")
            && !config.0.contains_key("name")
        {
            config.0.insert("name".to_owned(), text_of("name", name.get())?);
        }
        Ok(config)
    }

    fn of(fields: Vec<(String, &serde_json::value::RawValue)>) -> Result<Self, ConfigError> {
        let mut config = BTreeMap::new();
        for (key, value) in fields {
            let value = text_of(&key, value.get())?;
            if config.insert(key.clone(), value).is_some() {
                return Err(ConfigError::Doubled(key));
            }
        }
        Ok(Self(config))
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The connector's name; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get("name").unwrap_or_default()
    }

    /// Whose connector it is, whether it is the right one or not: Confluent's plugins have names, those of Kafka Connect are
    /// Java classes. `None` if it says nothing.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        let class = self.get("connector.class")?;
        Some(if class.contains('.') {
            Platform::KafkaConnect
        } else {
            Platform::ConfluentCloud
        })
    }

    /// Puts values in place of `${NAME}`. What nobody gave stays.
    pub fn fill(&mut self, values: &BTreeMap<&'static str, String>) {
        for text in self.0.values_mut() {
            let mut filled = String::with_capacity(text.len());
            let mut rest = text.as_str();
            // Once from left to right: a password that looks like a placeholder stays what it is.
            while let Some((before, name, behind)) = placeholder(rest) {
                filled.push_str(before);
                match values.get(name) {
                    Some(value) => filled.push_str(value),
                    None => filled.extend(["${", name, "}"]),
                }
                rest = behind;
            }
            filled.push_str(rest);
            *text = filled;
        }
    }

    /// The placeholders that are left.
    #[must_use]
    pub fn placeholders(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for text in self.0.values() {
            let mut rest = text.as_str();
            while let Some((_, name, behind)) = placeholder(rest) {
                found.insert(name);
                rest = behind;
            }
        }
        found
    }

    /// The texts that nobody may see.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        let secret = self.iter().filter(|(key, value)| is_secret(key) && !is_open(value));
        secret.map(|(_, value)| value).collect()
    }

    /// Whether somebody put asterisks in the place of a value, so that it must not be sent.
    #[must_use]
    pub fn is_masked(&self) -> bool {
        self.iter().any(|(_, value)| is_mask(value))
    }

    /// The same with its secrets masked.
    #[must_use]
    pub fn masked(&self) -> Self {
        let shown = |(key, value): (&String, &String)| (key.clone(), shown(key, value).to_owned());
        Self(self.0.iter().map(shown).collect())
    }

    /// As it is sent: with its secrets.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.json(false)
    }

    /// As it is written to a file: with its secrets, a key a line.
    #[must_use]
    pub fn to_file(&self) -> String {
        self.json(true)
    }

    fn json(&self, lines: bool) -> String {
        let (open, between, close) = if lines {
            ("{\n  ", ",\n  ", "\n}\n")
        } else {
            ("{", ",", "}")
        };
        let pair = |(key, value): (&String, &String)| {
            format!("{}: {}", Value::from(key.as_str()), Value::from(value.as_str()))
        };
        let pairs: Vec<String> = self.0.iter().map(pair).collect();
        format!("{open}{}{close}", pairs.join(between))
    }
}

/// Only the names of its keys.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether the value of this key is nobody's business. Too many rather than too few.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    const PARTS: [&str; 9] = [
        "password",
        "passphrase",
        "secret",
        "token",
        "credential",
        "api.key",
        "private.key",
        "jaas",
        "user.info",
    ];
    let key = key.to_ascii_lowercase();
    PARTS.iter().any(|part| key.contains(part))
}

/// Whether somebody put asterisks in the place of the value.
pub(super) fn is_mask(value: &str) -> bool {
    value.starts_with("**")
}

/// Whether there is a placeholder of ours in it.
pub(super) fn has_placeholder(value: &str) -> bool {
    placeholder(value).is_some()
}

/// A value as it may be shown.
pub(super) fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    if is_secret(key) && !is_open(value) { MASK } else { value }
}

/// Nothing to hide: empty, or only the name of where the secret is.
fn is_open(value: &str) -> bool {
    value.is_empty() || (value.starts_with("${") && value.ends_with('}') && value.matches('$').count() == 1)
}

/// The first `${NAME}` with what stands before and behind it. `${file:/etc/x:password}` is no placeholder of ours: Kafka
/// Connect itself looks there.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text.get(from..)?.find("${") {
        let begin = from + at;
        let inner = text.get(begin + 2..)?;
        if let Some((name, behind)) = inner.split_once('}') {
            let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            if !name.is_empty() && name.chars().all(is_name) {
                return Some((text.get(..begin)?, name, behind));
            }
        }
        from = begin + 2;
    }
    None
}

fn text_of(key: &str, json: &str) -> Result<String, ConfigError> {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => Ok(text),
        // As it is written: `1e3` stays so.
        Ok(Value::Number(_) | Value::Bool(_)) => Ok(json.to_owned()),
        _ => Err(ConfigError::NotAText(key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text).expect("a configuration")
    }

    #[test]
    fn a_file_is_flat_or_has_the_name_outside_and_numbers_are_texts() {
        let flat = config(r#"{"name": "a", "tasks.max": 1, "x": true, "y": "z"}"#);
        let nested = config(r#"{"name": "a", "config": {"tasks.max": "1", "x": "true", "y": "z"}}"#);
        assert_eq!(flat, nested);
        assert_eq!((flat.name(), flat.get("tasks.max")), ("a", Some("1")));
        assert_eq!(flat.to_json(), r#"{"name": "a","tasks.max": "1","x": "true","y": "z"}"#);
        assert_eq!(config(&flat.to_file()), flat);
        assert_eq!(flat.platform(), None);
        let old = config(r#"{"connector.class": "PostgresCdcSource"}"#);
        assert_eq!(old.platform(), Some(Platform::ConfluentCloud));
        // A key of that name is not a configuration.
        assert_eq!(config(r#"{"config": "x"}"#).get("config"), Some("x"));
    }

    #[test]
    fn what_nobody_can_tell_the_value_of_is_refused() {
        let table = [
            ("[]", ConfigError::NotAnObject),
            ("{", ConfigError::NotAnObject),
            (r#"{"a": "1", "a": "2"}"#, ConfigError::Doubled("a".to_owned())),
            (r#"{"a": null}"#, ConfigError::NotAText("a".to_owned())),
            (r#"{"config": {"a": ["x"]}}"#, ConfigError::NotAText("a".to_owned())),
        ];
        for (text, error) in table {
            assert_eq!(Config::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn placeholders_are_filled_once_and_what_is_not_ours_stays() {
        let mut config = config(
            r#"{"a": "${HOST}:${PORT}", "b": "${file:/etc/x:y}", "c": "${UNKNOWN}", "d": "${", "e": "${lower} ${HOST}", "f": "$${HOST}"}"#,
        );
        assert_eq!(
            config.placeholders().into_iter().collect::<Vec<_>>(),
            ["HOST", "PORT", "UNKNOWN"]
        );
        // A value that looks like a placeholder is a value.
        config.fill(&BTreeMap::from([
            ("HOST", "${PORT}".to_owned()),
            ("PORT", "1".to_owned()),
        ]));
        let values: Vec<&str> = config.iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [
                "${PORT}:1",
                "${file:/etc/x:y}",
                "${UNKNOWN}",
                "${",
                "${lower} ${PORT}",
                "$${PORT}"
            ]
        );
    }

    #[test]
    fn secrets_are_masked_and_never_in_debug_output() {
        let config = config(
            r#"{"database.user": "u", "database.password": "sentinel-1", "kafka.api.key": "sentinel-2",
                "signing.SECRET": "sentinel-3", "ssl.keystore.password": "${file:/x:y}", "sasl.jaas.config": ""}"#,
        );
        assert_eq!(config.secrets(), ["sentinel-1", "sentinel-2", "sentinel-3"]);
        let shown = config.masked().to_json();
        assert!(!shown.contains("sentinel"), "{shown}");
        assert!(shown.contains("${file:/x:y}") && shown.contains(MASK), "{shown}");
        assert!(config.masked().is_masked() && !config.is_masked());
        assert!(is_mask(MASK) && is_mask("************") && !is_mask("*"));
        assert!(!format!("{config:?}").contains("sentinel"));
    }
}
