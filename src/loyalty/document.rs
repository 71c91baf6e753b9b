//! A JSON document read by path: takes nodes, gives typed values, and collects every problem on the way.
//!
//! Used instead of a derived reader because that one stops at the first problem, and instead of a value tree because that
//! one holds numbers as floats. It knows nothing about programs and never stops early.

use std::fmt;

use rust_decimal::Decimal;
use serde_json::value::RawValue;

use crate::fields::Fields;
use crate::inert::clean;

/// One thing that is wrong in a program file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Like `programs[2].versions[0].currency.rate`, or `line 3, column 7` for a syntax error.
    pub path: String,
    pub wrong: String,
    /// What to do about it.
    pub remedy: String,
}

/// Everything that is wrong in a program file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ProgramErrors {
    pub problems: Vec<Problem>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Problem>);

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) path: String,
    raw: &'a RawValue,
}

/// An object of which fields are taken one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pub(super) path: String,
    fields: Vec<(String, &'a RawValue)>,
    known: Vec<&'static str>,
}

impl Findings {
    pub(super) fn add(&mut self, path: &str, wrong: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem {
            path: short(path),
            wrong: short(&wrong.into()),
            remedy: remedy.into(),
        });
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, ProgramErrors> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(ProgramErrors { problems: self.0 })
        }
    }
}

impl<'a> Node<'a> {
    /// The whole document; a syntax error names its line and column.
    pub(super) fn root(text: &'a str) -> Result<Self, ProgramErrors> {
        match serde_json::from_str(text) {
            Ok(raw) => Ok(Self {
                path: String::new(),
                raw,
            }),
            Err(error) => Err(ProgramErrors {
                problems: vec![Problem {
                    path: format!("line {}, column {}", error.line(), error.column()),
                    wrong: format!("not JSON: {error}"),
                    remedy: "mend the syntax there".to_owned(),
                }],
            }),
        }
    }

    fn wanted<T>(&self, what: &str, findings: &mut Findings) -> Option<T> {
        let text = self.raw.get();
        let shown: String = text.chars().take(40).collect();
        let dots = if shown.len() < text.len() { "…" } else { "" };
        findings.add(
            &self.path,
            format!("`{shown}{dots}` is not understood"),
            format!("write {what}"),
        );
        None
    }

    pub(super) fn object(&self, findings: &mut Findings) -> Option<Object<'a>> {
        let Ok(Fields(fields)) = serde_json::from_str(self.raw.get()) else {
            return self.wanted("an object", findings);
        };
        for (index, (name, _)) in fields.iter().enumerate() {
            if fields.iter().take(index).any(|(earlier, _)| earlier == name) {
                findings.add(&join(&self.path, name), "the field is given twice", "keep one of them");
            }
        }
        Some(Object {
            path: self.path.clone(),
            fields,
            known: Vec::new(),
        })
    }

    pub(super) fn array(&self, findings: &mut Findings) -> Option<Vec<Self>> {
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(self.raw.get()) else {
            return self.wanted("a list", findings);
        };
        let at = |(index, raw)| Self {
            path: format!("{}[{index}]", self.path),
            raw,
        };
        Some(items.into_iter().enumerate().map(at).collect())
    }

    /// A text that is not empty.
    pub(super) fn text(&self, findings: &mut Findings) -> Option<String> {
        match serde_json::from_str::<String>(self.raw.get()) {
            Ok(text) if !text.trim().is_empty() => Some(text),
            _ => self.wanted("a text that is not empty", findings),
        }
    }

    /// A whole number within the range, written as a JSON number.
    pub(super) fn integer(&self, least: u32, most: u32, findings: &mut Findings) -> Option<u32> {
        match self.raw.get().parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => self.wanted(&format!("a whole number from {least} to {most}"), findings),
        }
    }

    /// A decimal from 0 to `most` with at most 12 decimals, written as a number or a text; taken from its digits.
    pub(super) fn decimal(&self, most: Decimal, findings: &mut Findings) -> Option<Decimal> {
        let token = serde_json::from_str::<String>(self.raw.get()).unwrap_or_else(|_| self.raw.get().to_owned());
        let plain = token.strip_prefix('-').unwrap_or(&token);
        let digits = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match Decimal::from_str_exact(&token) {
            Ok(number) if digits && number.normalize().scale() <= 12 && number >= Decimal::ZERO && number <= most => {
                Some(number.normalize())
            }
            _ => self.wanted(
                &format!("a decimal from 0 to {most} with at most 12 decimals and no exponent"),
                findings,
            ),
        }
    }

    /// One of the words; gives what the word stands for.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let given = serde_json::from_str::<String>(self.raw.get()).ok();
        let found = words.iter().find(|(word, _)| given.as_deref() == Some(word));
        match found {
            Some((_, meaning)) => Some(*meaning),
            None => {
                let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.wanted(&format!("one of {}", all.join(", ")), findings)
            }
        }
    }
}

impl<'a> Object<'a> {
    /// The field, unless it is absent or null.
    pub(super) fn optional(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.known.push(name);
        let index = self.fields.iter().position(|(field, _)| field == name)?;
        let (_, raw) = self.fields.remove(index);
        (raw.get() != "null").then(|| Node {
            path: join(&self.path, name),
            raw,
        })
    }

    pub(super) fn required(&mut self, name: &'static str, findings: &mut Findings) -> Option<Node<'a>> {
        let node = self.optional(name);
        if node.is_none() {
            findings.add(&join(&self.path, name), "the field is missing", "add it");
        }
        node
    }

    /// Names every field that nobody asked for.
    pub(super) fn finish(self, findings: &mut Findings) {
        for (name, _) in &self.fields {
            if !self.known.contains(&name.as_str()) {
                let remedy = format!("remove it or mend its name; known here: {}", self.known.join(", "));
                findings.add(&join(&self.path, name), "unknown field", remedy);
            }
        }
    }
}

/// Names and values of the file are shown on one line, and no longer than a person reads.
fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", clean(text.get(..end).unwrap_or_default())),
        None => clean(text),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.wrong, self.remedy)
    }
}

impl fmt::Display for ProgramErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}
