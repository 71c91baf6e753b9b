//! Points: takes amounts and a rate, gives whole points.
//!
//! All arithmetic is on integers (unscaled value and scale), so a product is exact before it is rounded once. Decimal
//! arithmetic of the library is not used here: it rounds in silence where a result needs more than 96 bits.
//! It never panics, wraps or saturates: what does not fit is refused.

use rust_decimal::Decimal;

use crate::consumers::Refusal;

/// Whole points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Points(i64);

/// How a fraction of a point is rounded; the rate applies to the whole remaining amount, so there is one rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    Floor,
    HalfUp,
    HalfEven,
    Ceil,
}

/// What of a purchase is not refunded, never below zero.
///
/// # Errors
/// A negative refund is not guessed at, and a difference that cannot be held exactly is not rounded.
pub fn remaining(final_amount: Decimal, refunded_amount: Decimal) -> Result<Decimal, Refusal> {
    if refunded_amount.is_zero() {
        return Ok(final_amount.max(Decimal::ZERO));
    }
    if refunded_amount.is_sign_negative() {
        return Err(Refusal::NegativeRefund);
    }
    if refunded_amount >= final_amount {
        return Ok(Decimal::ZERO);
    }
    let scale = final_amount.scale().max(refunded_amount.scale());
    let difference = || {
        let units = units_at(final_amount, scale)?.checked_sub(units_at(refunded_amount, scale)?)?;
        Decimal::try_from_i128_with_scale(units, scale).ok()
    };
    difference().ok_or(Refusal::AmountTooPrecise)
}

/// `amount × rate`, rounded once.
///
/// # Errors
/// Refused if the exact product or the points do not fit.
pub fn points_for(amount: Decimal, rate: Decimal, rounding: Rounding) -> Result<Points, Refusal> {
    let (amount, rate) = (amount.normalize(), rate.normalize());
    let product = amount
        .mantissa()
        .checked_mul(rate.mantissa())
        .ok_or(Refusal::PointsOverflow)?;
    let scale = amount
        .scale()
        .checked_add(rate.scale())
        .ok_or(Refusal::PointsOverflow)?;
    // Beyond 10^38 the divisor exceeds any product tenfold: what is left is a fraction nearer to zero than to a half.
    let divisor = 10_i128.checked_pow(scale).unwrap_or(i128::MAX);
    let whole = product.div_euclid(divisor);
    let rest = product.rem_euclid(divisor);
    let half = rest.cmp(&divisor.saturating_sub(rest));
    let up = match rounding {
        Rounding::Floor => false,
        Rounding::Ceil => rest != 0,
        Rounding::HalfUp => half.is_ge(),
        Rounding::HalfEven => half.is_gt() || (half.is_eq() && whole.rem_euclid(2) == 1),
    };
    let whole = whole.checked_add(i128::from(up)).ok_or(Refusal::PointsOverflow)?;
    i64::try_from(whole).map(Points).or(Err(Refusal::PointsOverflow))
}

fn units_at(amount: Decimal, scale: u32) -> Option<i128> {
    let factor = 10_i128.checked_pow(scale.checked_sub(amount.scale())?)?;
    amount.mantissa().checked_mul(factor)
}

impl Points {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn new(points: i64) -> Self {
        Self(points)
    }

    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl std::fmt::Display for Points {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::from_str_exact(text).expect("a decimal")
    }

    fn points(amount: &str, rate: &str, rounding: Rounding) -> Result<i64, Refusal> {
        points_for(decimal(amount), decimal(rate), rounding).map(Points::get)
    }

    #[test]
    fn a_fraction_is_rounded_as_the_program_says() {
        for (amount, floor, half_up, half_even, ceil) in [
            ("2.5", 2, 3, 2, 3),
            ("3.5", 3, 4, 4, 4),
            ("2.49", 2, 2, 2, 3),
            ("2.51", 2, 3, 3, 3),
            ("3", 3, 3, 3, 3),
            ("0.0000000000000000000000000001", 0, 0, 0, 1),
        ] {
            let all = [Rounding::Floor, Rounding::HalfUp, Rounding::HalfEven, Rounding::Ceil]
                .map(|rounding| points(amount, "1", rounding));
            assert_eq!(all, [Ok(floor), Ok(half_up), Ok(half_even), Ok(ceil)], "{amount}");
        }
    }

    // Edge case 15: currencies with 0, 2 and 3 decimals; never a float.
    #[test]
    fn decimals_stay_exact_where_a_float_would_not() {
        assert_eq!(points("0.29", "100", Rounding::Floor), Ok(29), "28 as a float");
        assert_eq!(points("1500", "0.1", Rounding::Floor), Ok(150));
        assert_eq!(points("12.345", "1000", Rounding::Floor), Ok(12_345));
        assert_eq!(
            points("9007199254740993", "1", Rounding::Floor),
            Ok(9_007_199_254_740_993)
        );
        let tiny = points("0.0000000000000000000000000001", "0.000000000001", Rounding::HalfUp);
        assert_eq!(tiny, Ok(0), "the scale of the product exceeds what a decimal holds");
        let tiny = points("0.0000000000000000000000000001", "0.000000000001", Rounding::Ceil);
        assert_eq!(tiny, Ok(1));
    }

    #[test]
    fn points_that_do_not_fit_are_refused_and_never_wrap() {
        let most = i64::MAX.to_string();
        assert_eq!(points(&most, "1", Rounding::Ceil), Ok(i64::MAX));
        assert_eq!(points(&most, "1.1", Rounding::Floor), Err(Refusal::PointsOverflow));
        let amount = "79228162514264337593543950335";
        assert_eq!(
            points(amount, "123456789.123456789", Rounding::Floor),
            Err(Refusal::PointsOverflow)
        );
    }

    #[test]
    fn what_remains_is_exact_and_never_below_zero() {
        let remaining = |a: &str, b: &str| remaining(decimal(a), decimal(b)).map(|left| left.to_string());
        assert_eq!(remaining("100.00", "0"), Ok("100.00".into()));
        assert_eq!(remaining("100.00", "33.335"), Ok("66.665".into()));
        assert_eq!(remaining("100", "100.00"), Ok("0".into()));
        assert_eq!(remaining("100", "150"), Ok("0".into()));
        assert_eq!(remaining("-5", "0"), Ok("0".into()));
        assert_eq!(remaining("-5", "1"), Ok("0".into()));
        assert_eq!(remaining("5", "-1"), Err(Refusal::NegativeRefund));
        let wide = remaining("79228162514264337593543950335", "0.1");
        assert_eq!(wide, Err(Refusal::AmountTooPrecise), "the library would round it");
    }

    #[test]
    fn sums_of_points_are_checked() {
        let most = Points::new(i64::MAX);
        assert_eq!(most.checked_add(Points::new(1)), None);
        assert_eq!(Points::new(i64::MIN).checked_sub(Points::new(1)), None);
        assert_eq!(Points::new(5).checked_sub(Points::new(7)), Some(Points::new(-2)));
        assert_eq!(most.checked_add(Points::ZERO), Some(most));
    }
}
