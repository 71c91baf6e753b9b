//! What the generator knows about the merchants of the embedded program: its own constants, its own arithmetic.
//!
//! Takes cents and microseconds, gives points and due times. It is the second opinion the books rest on: it uses nothing
//! of the product's rules, and reads the program file only in its test, as plain JSON.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// One merchant: its versions are in the order of their beginning.
#[derive(Debug)]
pub(super) struct Merchant {
    pub(super) id: &'static str,
    zone: TimeZone,
    versions: &'static [Version],
}

#[derive(Debug)]
pub(super) struct Version {
    /// In force from here on.
    from_ms: i64,
    /// Points for one unit of the currency, as a fraction.
    rate: (i64, i64),
    round: Round,
    minimum_cents: i64,
    due: Due,
    /// What the tier ladder sums up, if there is one.
    pub(super) tier_metric: Option<&'static str>,
    pub(super) purchase_mission: Option<Mission>,
    pub(super) form_mission: Option<&'static str>,
}

/// The mission that looks at purchases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mission {
    Total(&'static str),
    Count(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Round {
    Down,
    HalfUp,
    HalfEven,
    Up,
}

#[derive(Debug, Clone, Copy)]
enum Due {
    AtOnce,
    Days(i64),
    At(i64),
    NextMonth,
}

/// The form that missions look at, and one that nobody looks at.
pub(super) const FORMS: [&str; 2] = ["welcome", "survey"];

const DEFAULT: &[Version] = &[Version {
    from_ms: i64::MIN,
    rate: (1, 1),
    round: Round::Down,
    minimum_cents: 0,
    due: Due::AtOnce,
    tier_metric: Some("spend"),
    purchase_mission: Some(Mission::Total("spend-100")),
    form_mission: Some("welcome-form"),
}];

/// The start of 2026 in Bangkok.
const INSTANT_REV_2_MS: i64 = 1_767_200_400_000;
/// The start of 2027-01-15 in New York.
const FIXED_DAY_MS: i64 = 1_799_989_200_000;

const INSTANT: &[Version] = &[
    Version {
        from_ms: i64::MIN,
        rate: (1, 2),
        round: Round::HalfUp,
        minimum_cents: 100,
        due: Due::AtOnce,
        tier_metric: None,
        purchase_mission: None,
        form_mission: None,
    },
    Version {
        from_ms: INSTANT_REV_2_MS,
        rate: (1, 1),
        round: Round::HalfUp,
        minimum_cents: 100,
        due: Due::AtOnce,
        tier_metric: Some("points"),
        purchase_mission: Some(Mission::Count("three-visits")),
        form_mission: None,
    },
];

const ROLLING: &[Version] = &[Version {
    from_ms: i64::MIN,
    rate: (1, 10),
    round: Round::Down,
    minimum_cents: 500,
    due: Due::Days(14),
    tier_metric: Some("spend"),
    purchase_mission: None,
    form_mission: None,
}];

const DATE: &[Version] = &[Version {
    from_ms: i64::MIN,
    rate: (2, 1),
    round: Round::HalfEven,
    minimum_cents: 0,
    due: Due::At(FIXED_DAY_MS),
    tier_metric: None,
    purchase_mission: None,
    form_mission: None,
}];

const MONTH: &[Version] = &[Version {
    from_ms: i64::MIN,
    rate: (1, 100),
    round: Round::Up,
    minimum_cents: 10_000,
    due: Due::NextMonth,
    tier_metric: None,
    purchase_mission: Some(Mission::Total("big-year")),
    form_mission: None,
}];

/// `m-cafe` and `m-books` are not listed in the file, so the default is theirs.
const ALL: [(&str, &str, &[Version]); 6] = [
    ("m-instant", "Asia/Bangkok", INSTANT),
    ("m-rolling", "Europe/Berlin", ROLLING),
    ("m-date", "America/New_York", DATE),
    ("m-month", "Asia/Tokyo", MONTH),
    ("m-cafe", "UTC", DEFAULT),
    ("m-books", "UTC", DEFAULT),
];

/// The place in the list of the merchant whose rate doubles amounts, of the one that had other rules before 2026, and of
/// one that gives a point a unit at once.
pub(super) const DOUBLING: u8 = 2;
pub(super) const CHANGED_RULES: u8 = 0;
pub(super) const PLAIN: u8 = 4;

/// # Errors
/// When a time zone is not in the bundled database.
pub(super) fn all() -> Result<Vec<Merchant>, jiff::Error> {
    let merchant = |(id, zone, versions)| {
        Ok(Merchant {
            id,
            zone: TimeZone::get(zone)?,
            versions,
        })
    };
    ALL.into_iter().map(merchant).collect()
}

impl Merchant {
    /// The rules in force at that time.
    pub(super) fn version_at(&self, at_us: i64) -> Option<&'static Version> {
        self.versions
            .iter()
            .rfind(|version| version.from_ms <= at_us.div_euclid(1000))
    }

    /// Points and due time (µs) of what is left of a purchase; `None` if it earns nothing.
    pub(super) fn award(&self, left_cents: i64, earned_us: i64) -> Option<(i64, i64)> {
        let version = self.version_at(earned_us)?;
        if left_cents <= 0 || left_cents < version.minimum_cents {
            return None;
        }
        let points = version.points(left_cents);
        (points > 0).then_some((points, self.due_us(version.due, earned_us)?))
    }

    fn due_us(&self, due: Due, earned_us: i64) -> Option<i64> {
        let local = || Some(Timestamp::from_microsecond(earned_us).ok()?.to_zoned(self.zone.clone()));
        let due = match due {
            Due::AtOnce => return Some(earned_us),
            Due::At(at_ms) => return Some(at_ms * 1000),
            Due::Days(days) => local()?.checked_add(Span::new().days(days)).ok()?,
            Due::NextMonth => {
                let day = local()?
                    .date()
                    .first_of_month()
                    .checked_add(Span::new().months(1))
                    .ok()?;
                day.to_zoned(self.zone.clone()).ok()?
            }
        };
        Some(due.timestamp().as_microsecond())
    }
}

impl Version {
    fn points(&self, cents: i64) -> i64 {
        let (numerator, denominator) = (cents * self.rate.0, 100 * self.rate.1);
        let (whole, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
        let up = match self.round {
            Round::Down => false,
            Round::Up => rest > 0,
            Round::HalfUp => 2 * rest >= denominator,
            Round::HalfEven => 2 * rest > denominator || (2 * rest == denominator && whole % 2 == 1),
        };
        whole + i64::from(up)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What the file says about one version, in the generator's words.
    fn constants_of(version: &Version) -> Value {
        let (kind, detail) = match version.due {
            Due::AtOnce => ("immediate", Value::Null),
            Due::Days(days) => ("rolling_days", json!(days)),
            Due::At(at_ms) => {
                let zone = TimeZone::get("America/New_York").expect("bundled");
                let at = Timestamp::from_millisecond(at_ms).expect("a time").to_zoned(zone);
                assert_eq!(at.time(), jiff::civil::Time::midnight());
                ("on", json!(at.date().to_string()))
            }
            Due::NextMonth => ("start_of_next_month", Value::Null),
        };
        let rounding = match version.round {
            Round::Down => "floor",
            Round::HalfUp => "half_up",
            Round::HalfEven => "half_even",
            Round::Up => "ceil",
        };
        let mut missions: Vec<Value> = Vec::new();
        match version.purchase_mission {
            Some(Mission::Total(id)) => missions.push(json!([id, "purchase_total", null])),
            Some(Mission::Count(id)) => missions.push(json!([id, "purchase_count", null])),
            None => {}
        }
        missions.extend(version.form_mission.map(|id| json!([id, "form", FORMS[0]])));
        let rate = version.rate.0 as f64 / version.rate.1 as f64;
        json!([
            rate,
            rounding,
            version.minimum_cents as f64 / 100.0,
            kind,
            detail,
            version.tier_metric,
            missions
        ])
    }

    fn file_says(version: &Value) -> Value {
        let number = |value: &Value| match value {
            Value::String(text) => text.parse::<f64>().expect("a number"),
            other => other.as_f64().expect("a number"),
        };
        let currency = &version["currency"];
        let activation = &currency["activation"];
        let detail = [&activation["days"], &activation["date"]]
            .into_iter()
            .find(|value| !value.is_null());
        let missions = version["missions"].as_array().cloned().unwrap_or_default();
        let missions: Vec<Value> = missions
            .iter()
            .map(|mission| json!([mission["id"], mission["trigger"]["kind"], mission["trigger"]["form_id"]]))
            .collect();
        json!([
            number(&currency["rate"]),
            currency["rounding"],
            number(&currency["minimum"]),
            activation["kind"],
            detail,
            version["tiers"]["metric"],
            missions,
        ])
    }

    #[test]
    fn the_generators_constants_agree_with_the_embedded_program() {
        let file: Value = serde_json::from_str(crate::loyalty::DEMO_PROGRAM).expect("JSON");
        let programs = file["programs"].as_array().expect("a list");
        for merchant in all().expect("zones") {
            let named = programs.iter().find(|program| program["merchant_id"] == merchant.id);
            let program = named.or_else(|| programs.iter().find(|program| program["merchant_id"] == "*"));
            let program = program.expect("listed, or the default");
            assert_eq!(
                program["time_zone"].as_str(),
                merchant.zone.iana_name(),
                "{}",
                merchant.id
            );
            let versions = program["versions"].as_array().expect("a list");
            assert_eq!(versions.len(), merchant.versions.len(), "{}", merchant.id);
            for (version, ours) in versions.iter().zip(merchant.versions) {
                assert_eq!(file_says(version), constants_of(ours), "{}", merchant.id);
            }
            if let [_, second] = merchant.versions {
                let zone = merchant.zone.clone();
                let from = Timestamp::from_millisecond(second.from_ms)
                    .expect("a time")
                    .to_zoned(zone);
                assert_eq!(versions[1]["effective_from"], from.date().to_string());
            }
        }
    }

    #[test]
    fn a_fraction_of_a_point_is_rounded_as_the_merchant_does() {
        let merchants = all().expect("zones");
        let now_us = 1_795_200_000_000_000;
        let points = |merchant: usize, cents| merchants[merchant].award(cents, now_us).map(|(points, _)| points);
        assert_eq!(
            (points(0, 150), points(0, 149), points(0, 99)),
            (Some(2), Some(1), None)
        );
        assert_eq!((points(1, 1999), points(1, 999), points(1, 499)), (Some(1), None, None));
        assert_eq!((points(2, 25), points(2, 75), points(2, 76)), (None, Some(2), Some(2)));
        assert_eq!(
            (points(3, 10_000), points(3, 10_001), points(3, 9_999)),
            (Some(1), Some(2), None)
        );
    }
}
