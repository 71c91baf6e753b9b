//! Which ids came, beside which are owed: nobody is fast by losing or doubling.
//!
//! Takes the ids owed and those that came; gives what is missing, what came again, and what nobody owes. It never asks when.

use std::collections::HashMap;
use std::fmt;

/// How often something is wrong, and one id it is wrong with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) ids: u64,
    pub(crate) example: Option<String>,
}

/// What came, less what is owed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) missing: Wrong,
    /// Each time that an owed id came again.
    pub(crate) doubled: Wrong,
    /// Each time that an id came which nobody owes.
    pub(crate) foreign: Wrong,
}

impl Difference {
    /// `came` has an id in each line.
    pub(crate) fn of(owed: &[String], came: &str) -> Self {
        let mut times: HashMap<&str, u64> = HashMap::with_capacity(owed.len());
        for id in came.split_terminator('\n') {
            *times.entry(id).or_default() += 1;
        }
        let mut difference = Self::default();
        for id in owed {
            match times.remove(id.as_str()) {
                None => difference.missing.add(id, 1),
                Some(times) => difference.doubled.add(id, times - 1),
            }
        }
        for (id, times) in times {
            difference.foreign.add(id, times);
        }
        difference
    }

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Wrong {
    fn add(&mut self, id: &str, times: u64) {
        if times > 0 {
            self.ids += times;
            self.example.get_or_insert_with(|| id.to_owned());
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            missing,
            doubled,
            foreign,
        } = self;
        write!(f, "{missing} missing, {doubled} doubled, {foreign} that nobody owes")
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.example {
            None => write!(f, "{}", self.ids),
            Some(example) => write!(f, "{} ({example:?})", self.ids),
        }
    }
}
