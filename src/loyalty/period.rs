//! Periods of missions: takes an instant and the program's zone, gives the name of the period it falls in.
//!
//! The name is part of an effect key, so it is fixed for ever. It never looks at any other time than the row's own.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How often a mission can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Lifetime,
    CalendarDay,
    /// ISO week, Monday to Sunday.
    CalendarWeek,
    CalendarMonth,
    CalendarYear,
}

impl Period {
    /// `lifetime`, `2026-11-20`, `2026-W47`, `2026-11` or `2026`.
    #[must_use]
    pub fn name_at(self, at: Timestamp, zone: &TimeZone) -> String {
        let date = at.to_zoned(zone.clone()).date();
        match self {
            Self::Lifetime => "lifetime".to_owned(),
            Self::CalendarDay => date.to_string(),
            Self::CalendarWeek => {
                let week = date.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::CalendarMonth => format!("{:04}-{:02}", date.year(), date.month()),
            Self::CalendarYear => format!("{:04}", date.year()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Edge case 26 as far as a pure decision goes: the boundary is a local one.
    #[test]
    fn a_period_is_named_by_the_local_calendar() {
        let zone = TimeZone::get("Asia/Bangkok").expect("a zone");
        let name = |period: Period, at: &str| period.name_at(at.parse().expect("a timestamp"), &zone);
        assert_eq!(name(Period::CalendarMonth, "2026-11-30T16:59:59.999Z"), "2026-11");
        assert_eq!(name(Period::CalendarMonth, "2026-11-30T17:00:00Z"), "2026-12");
        assert_eq!(name(Period::CalendarDay, "2026-11-30T17:00:00Z"), "2026-12-01");
        assert_eq!(name(Period::CalendarYear, "2026-12-31T17:00:00Z"), "2027");
        assert_eq!(
            name(Period::CalendarWeek, "2027-01-01T12:00:00Z"),
            "2026-W53",
            "the week's own year"
        );
        assert_eq!(name(Period::Lifetime, "2026-11-30T17:00:00Z"), "lifetime");
    }
}
