//! Times of row columns. Takes RFC 3339 text, or an integer whose size tells its unit, gives an instant. Never accepts an
//! infinite or absurd time: nulls that a converter replaced by defaults arrive as 1970.

use jiff::Timestamp;

use super::cell::{Cell, is_integer};
use super::columns::Column;
use super::{Found, ValueError, shown};

/// 1980-01-01 and 2100-01-01, UTC, in seconds.
const FIRST_S: i64 = 315_532_800;
const LAST_S: i64 = 4_102_444_800;

/// Whether a time in ms is within 1980..2100.
#[must_use]
pub const fn plausible_ms(ms: i64) -> bool {
    within(ms, 1_000)
}

/// The ranges of the units do not meet: 1980 in us is 79 times 2100 in ms.
const fn within(value: i64, per_second: i64) -> bool {
    value >= FIRST_S.saturating_mul(per_second) && value < LAST_S.saturating_mul(per_second)
}

impl Column<'_> {
    /// A `timestamptz` (text), or a `timestamp` in ms, us or ns, which is read as UTC.
    ///
    /// # Errors
    /// Not a time, infinite, or outside 1980..2100.
    pub fn timestamp(self) -> Result<Timestamp, ValueError> {
        let column = self.name;
        match self.cell()? {
            Cell::Number(token) if is_integer(token) => {
                from_integer(token).ok_or_else(|| ValueError::ImplausibleTime {
                    column,
                    value: shown(token),
                })
            }
            Cell::Text(text) if matches!(&*text, "infinity" | "-infinity") => Err(ValueError::InfiniteTime { column }),
            Cell::Text(text) => {
                let found = Found::Text { bytes: text.len() };
                let time = from_text(&text).ok_or(ValueError::NotTime { column, found })?;
                if plausible_ms(time.as_millisecond()) {
                    Ok(time)
                } else {
                    Err(ValueError::ImplausibleTime {
                        column,
                        value: time.to_string().into(),
                    })
                }
            }
            other => Err(self.wrong_type("a time", &other)),
        }
    }
}

fn from_integer(token: &str) -> Option<Timestamp> {
    let value: i64 = token.parse().ok()?;
    let time = if within(value, 1_000) {
        Timestamp::from_millisecond(value)
    } else if within(value, 1_000_000) {
        Timestamp::from_microsecond(value)
    } else if within(value, 1_000_000_000) {
        Timestamp::from_nanosecond(i128::from(value))
    } else {
        return None;
    };
    time.ok()
}

/// RFC 3339. The parser knows more than that; a zone in brackets could contradict its offset.
fn from_text(text: &str) -> Option<Timestamp> {
    if text.contains('[') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_ms_us_and_ns_do_not_meet() {
        const { assert!(LAST_S * 1_000 < FIRST_S * 1_000_000 && LAST_S * 1_000_000 < FIRST_S * 1_000_000_000) };
        for (ms, plausible) in [
            (FIRST_S * 1_000 - 1, false),
            (FIRST_S * 1_000, true),
            (LAST_S * 1_000 - 1, true),
            (LAST_S * 1_000, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(plausible_ms(ms), plausible, "{ms}");
        }
    }
}
