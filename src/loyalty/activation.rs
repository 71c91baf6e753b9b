//! Activation: takes the time a purchase was earned at and the program's zone, gives the time its points are due.
//!
//! Local rules are computed on local calendar days, so they survive changes of the clock. A local time that does not
//! exist is moved forward by the gap, one that exists twice is the earlier one ("compatible", as in RFC 5545).
//! It never reads a clock: whether a due time has passed is decided elsewhere.

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

use crate::consumers::Refusal;

/// When points become spendable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Immediate,
    /// The same local time that many calendar days later; at least 1.
    RollingDays(u32),
    /// The local start of that day, even if it has passed when the purchase is made: then it is due at once.
    On(Date),
    /// The first local midnight of the next month.
    StartOfNextMonth,
}

/// An instant and the offset of the program's zone at that instant; printed as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DueAt {
    at: Timestamp,
    offset: Offset,
}

/// # Errors
/// Refused if the time lies beyond the year 9999.
pub fn due_at(activation: Activation, earned: Timestamp, zone: &TimeZone) -> Result<DueAt, Refusal> {
    let at = match activation {
        Activation::Immediate => Ok(earned),
        Activation::RollingDays(days) => rolling_days(days, earned, zone),
        Activation::On(date) => date.to_zoned(zone.clone()).map(|start| start.timestamp()),
        Activation::StartOfNextMonth => start_of_next_month(earned, zone),
    };
    let at = at.or(Err(Refusal::DueTimeOutOfRange))?;
    Ok(DueAt {
        at,
        offset: zone.to_offset(at),
    })
}

fn rolling_days(days: u32, earned: Timestamp, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let span = Span::new().try_days(days)?;
    let due = earned.to_zoned(zone.clone()).checked_add(span)?.timestamp();
    // A zone that crosses the date line repeats a day; points are never due before they are earned.
    Ok(due.max(earned))
}

fn start_of_next_month(earned: Timestamp, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let month = earned.to_zoned(zone.clone()).date().first_of_month();
    let next = month.checked_add(Span::new().try_months(1)?)?;
    Ok(next.to_zoned(zone.clone())?.timestamp())
}

impl DueAt {
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        self.at
    }
}

impl std::fmt::Display for DueAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // RFC 3339 has no seconds in an offset (local mean times do): rather another offset than another instant.
        let whole_minutes = self.offset.seconds().checked_rem(60) == Some(0);
        let offset = if whole_minutes { self.offset } else { Offset::UTC };
        self.at.display_with_offset(offset).fmt(f)
    }
}

impl serde::Serialize for DueAt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(activation: Activation, earned: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone");
        let earned = earned.parse().expect("a timestamp");
        due_at(activation, earned, &zone).map_or_else(|refusal| refusal.to_string(), |due| due.to_string())
    }

    #[test]
    fn immediate_points_are_due_when_they_are_earned() {
        let due = due(Activation::Immediate, "2026-11-20T10:00:00.123456Z", "Asia/Bangkok");
        assert_eq!(due, "2026-11-20T17:00:00.123456+07:00");
    }

    // Edge case 17: a change of the clock does not move the local time.
    #[test]
    fn rolling_days_keep_the_local_time_over_a_change_of_the_clock() {
        for (days, earned, expected) in [
            (14, "2026-03-20T09:30:00+01:00", "2026-04-03T09:30:00+02:00"),
            (14, "2026-10-20T09:30:00+02:00", "2026-11-03T09:30:00+01:00"),
            // 02:30 does not exist on 29 March: moved forward by the gap.
            (1, "2026-03-28T02:30:00+01:00", "2026-03-29T03:30:00+02:00"),
            // 02:30 exists twice on 25 October: the earlier one.
            (1, "2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00"),
            // Earned in the second 02:30.
            (1, "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"),
            (365, "2024-02-29T12:00:00+01:00", "2025-02-28T12:00:00+01:00"),
        ] {
            assert_eq!(
                due(Activation::RollingDays(days), earned, "Europe/Berlin"),
                expected,
                "{earned}"
            );
        }
    }

    // Edge case 17: a fixed date is a date in the program's zone, not in UTC.
    #[test]
    fn a_fixed_date_starts_at_local_midnight_whether_or_not_it_has_passed() {
        let date = "2026-12-24".parse().expect("a date");
        for (zone, expected) in [
            ("Asia/Bangkok", "2026-12-24T00:00:00+07:00"),
            ("America/New_York", "2026-12-24T00:00:00-05:00"),
            ("UTC", "2026-12-24T00:00:00+00:00"),
        ] {
            assert_eq!(due(Activation::On(date), "2026-11-20T10:00:00Z", zone), expected);
            assert_eq!(
                due(Activation::On(date), "2027-11-20T10:00:00Z", zone),
                expected,
                "passed"
            );
        }
        // Midnight does not exist there on that day.
        let date = "2018-11-04".parse().expect("a date");
        let start = due(Activation::On(date), "2018-11-01T00:00:00Z", "America/Sao_Paulo");
        assert_eq!(start, "2018-11-04T01:00:00-02:00");
    }

    // Edge case 18: the last millisecond of a local month counts for the old month, wherever UTC is.
    #[test]
    fn the_next_month_begins_at_the_first_local_midnight() {
        for (earned, zone, expected) in [
            (
                "2026-11-30T23:59:59.999-05:00",
                "America/New_York",
                "2026-12-01T00:00:00-05:00",
            ),
            (
                "2026-12-01T00:00:00-05:00",
                "America/New_York",
                "2027-01-01T00:00:00-05:00",
            ),
            ("2026-11-30T17:00:00Z", "Asia/Bangkok", "2027-01-01T00:00:00+07:00"),
            ("2026-11-30T16:59:59.999Z", "Asia/Bangkok", "2026-12-01T00:00:00+07:00"),
            ("2026-01-31T12:00:00Z", "UTC", "2026-02-01T00:00:00+00:00"),
            (
                "2026-03-05T12:00:00+01:00",
                "Europe/Berlin",
                "2026-04-01T00:00:00+02:00",
            ),
        ] {
            assert_eq!(due(Activation::StartOfNextMonth, earned, zone), expected, "{earned}");
        }
    }

    #[test]
    fn a_due_time_beyond_the_year_9999_is_refused() {
        let refused = Refusal::DueTimeOutOfRange.to_string();
        assert_eq!(due(Activation::RollingDays(30), "9999-12-20T00:00:00Z", "UTC"), refused);
        assert_eq!(
            due(Activation::StartOfNextMonth, "9999-12-20T00:00:00Z", "UTC"),
            refused
        );
        assert_eq!(
            due(Activation::RollingDays(u32::MAX), "2026-12-20T00:00:00Z", "UTC"),
            refused
        );
    }

    #[test]
    fn an_offset_with_seconds_is_printed_in_utc_so_that_the_instant_stays() {
        let due = due(Activation::Immediate, "1960-01-01T00:00:00Z", "Africa/Monrovia");
        assert_eq!(due, "1960-01-01T00:00:00+00:00");
    }
}
