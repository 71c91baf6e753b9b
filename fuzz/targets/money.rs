//! Money as it is taught at school: digits in a row, multiplied and subtracted one by one. The slow oracle that amounts and
//! points are compared with.

use crm_event_processors::loyalty::Rounding;
use rust_decimal::Decimal;

/// A number as it is written: its digits without zeros at either end, and the power of ten of the last one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    is_negative: bool,
    digits: String,
    power: i64,
}

impl Written {
    /// The grammar of JSON; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let _one: &serde_json::value::RawValue = serde_json::from_str(text).ok()?;
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if !unsigned.starts_with(|first: char| first.is_ascii_digit()) || text.ends_with(char::is_whitespace) {
            return None;
        }
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let is_huge = exponent.trim_start_matches(['+', '-', '0']).len() > 9;
        let exponent = match (is_huge, exponent.starts_with('-')) {
            (false, _) => exponent.parse::<i64>().ok()?,
            (true, false) => 1 << 40,
            (true, true) => -(1 << 40),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let power = exponent - i64::try_from(fraction.len()).ok()?;
        Some(Self::of(is_negative, &all, power))
    }

    fn of(is_negative: bool, digits: &str, power: i64) -> Self {
        let short = digits.trim_end_matches('0');
        let cut = i64::try_from(digits.len() - short.len()).expect("short");
        let digits = short.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self {
                is_negative: false,
                digits,
                power: 0,
            };
        }
        Self {
            is_negative,
            digits,
            power: power + cut,
        }
    }

    pub(super) fn is(&self, decimal: Decimal) -> bool {
        let digits = decimal.mantissa().unsigned_abs().to_string();
        *self == Self::of(decimal.mantissa() < 0, &digits, -i64::from(decimal.scale()))
    }

    /// Whether 28 digits hold it exactly, before and behind the point.
    pub(super) fn fits(&self) -> bool {
        let digits = i64::try_from(self.digits.len()).expect("short");
        digits == 0 || (self.power >= -28 && digits <= 28 && digits + self.power.max(0) <= 28)
    }
}

/// `(amount − refunded) × rate`, rounded once to whole points; `None` where more is refunded than was paid.
pub(super) fn points(amount: Decimal, refunded: Decimal, rate: Decimal, rounding: Rounding) -> Option<String> {
    let scale = amount.scale().max(refunded.scale());
    let units = |decimal: Decimal| {
        let mut digits = digits_of(decimal.mantissa().unsigned_abs());
        // At the low end, which comes first.
        let zeros = usize::try_from(scale - decimal.scale()).expect("short");
        digits.splice(0..0, std::iter::repeat_n(0, zeros));
        digits
    };
    let left = subtract(units(amount), &units(refunded))?;
    let mut product = multiply(&left, &digits_of(rate.mantissa().unsigned_abs()));
    let behind = usize::try_from(scale + rate.scale()).expect("short");
    product.resize(product.len().max(behind + 1), 0);
    let (rest, whole) = product.split_at(behind);
    let is_exact = rest.iter().all(|digit| *digit == 0);
    let (first, others) = rest.split_last().unwrap_or((&0, &[]));
    let is_half = *first == 5 && others.iter().all(|digit| *digit == 0);
    let up = match rounding {
        Rounding::Floor => false,
        Rounding::Ceil => !is_exact,
        Rounding::HalfUp => *first >= 5,
        Rounding::HalfEven => *first >= 5 && (!is_half || whole.first().is_some_and(|last| last % 2 == 1)),
    };
    let whole = if up { add_one(whole.to_vec()) } else { whole.to_vec() };
    let text: String = whole.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
    let text = text.trim_start_matches('0');
    Some(if text.is_empty() {
        "0".to_owned()
    } else {
        text.to_owned()
    })
}

/// The last one first.
fn digits_of(number: u128) -> Vec<u8> {
    number.to_string().bytes().rev().map(|digit| digit - b'0').collect()
}

/// `None` below zero.
fn subtract(mut from: Vec<u8>, what: &[u8]) -> Option<Vec<u8>> {
    from.resize(from.len().max(what.len()), 0);
    let mut borrowed = 0;
    for (at, digit) in from.iter_mut().enumerate() {
        let less = what.get(at).copied().unwrap_or(0) + borrowed;
        borrowed = u8::from(*digit < less);
        *digit = *digit + 10 * borrowed - less;
    }
    (borrowed == 0).then_some(from)
}

fn multiply(left: &[u8], right: &[u8]) -> Vec<u8> {
    let mut sums = vec![0_u32; left.len() + right.len() + 1];
    for (at, digit) in left.iter().enumerate() {
        for (by, other) in right.iter().enumerate() {
            sums[at + by] += u32::from(*digit) * u32::from(*other);
        }
    }
    let mut carried = 0;
    let digit = |sum: &u32| {
        let all = sum + carried;
        carried = all / 10;
        u8::try_from(all % 10).expect("a digit")
    };
    sums.iter().map(digit).collect()
}

fn add_one(mut digits: Vec<u8>) -> Vec<u8> {
    for digit in &mut digits {
        if *digit < 9 {
            *digit += 1;
            return digits;
        }
        *digit = 0;
    }
    digits.push(1);
    digits
}
