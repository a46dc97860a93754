//! Decimal numbers by their digits: which are the same, and which a double holds.
//!
//! JSON numbers are kept as texts, so that nothing is rounded on its way. A double stands for the shortest
//! decimal that is read as it, so `19.99` is held, and `0.1234567890123456789` is not.

use std::borrow::Cow;

use serde_json::Number;

/// Longest plain form of a number, in bytes. What would be longer has an exponent.
const MAX_PLAIN: usize = 1024;
/// Most digits that a double may need.
const MAX_DIGITS: u32 = 17;

/// `digits` times 10 to the power of `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal<'a> {
    negative: bool,
    /// Without zeros at either end, so none at all for zero.
    digits: Cow<'a, str>,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Reads a JSON number; `None` if it is none, or its exponent is beyond all reason.
    fn parse(text: &'a str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let has_leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !is_digits(whole) || has_leading_zero || fraction.is_some_and(|fraction| !is_digits(fraction)) {
            return None;
        }
        let fraction = fraction.unwrap_or_default();
        let all = match (whole, fraction) {
            (whole, "") => Cow::Borrowed(whole),
            ("0", fraction) => Cow::Borrowed(fraction),
            _ => Cow::Owned(format!("{whole}{fraction}")),
        };
        let digits = match all {
            Cow::Borrowed(all) => Cow::Borrowed(all.trim_matches('0')),
            Cow::Owned(ref text) => Cow::Owned(text.trim_matches('0').to_owned()),
        };
        let trimmed = all.len() - all.trim_end_matches('0').len();
        if digits.is_empty() {
            let is_exponent =
                exponent.is_none_or(|exponent| is_digits(exponent.trim_start_matches(['+', '-'])));
            return is_exponent.then_some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent: i64 = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
        let shift = i64::try_from(trimmed).ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        Some(Self { negative, digits, exponent: exponent.checked_add(shift)? })
    }

    /// Its one text: plain where that is not too long.
    fn canonical(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let digits = &*self.digits;
        let length = digits.len() as u64 + self.exponent.unsigned_abs();
        match (self.exponent, usize::try_from(self.exponent.unsigned_abs())) {
            _ if digits.is_empty() => "0".to_owned(),
            (_, Err(_)) => format!("{sign}{digits}e{}", self.exponent),
            _ if length > MAX_PLAIN as u64 - 3 => format!("{sign}{digits}e{}", self.exponent),
            (0.., Ok(zeros)) => format!("{sign}{digits}{}", "0".repeat(zeros)),
            (_, Ok(places)) => match digits.len().checked_sub(places) {
                Some(point @ 1..) => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
                _ => format!("{sign}0.{}{digits}", "0".repeat(places - digits.len())),
            },
        }
    }

    /// The digits as a number, with their sign.
    fn mantissa(&self) -> Option<i128> {
        match &*self.digits {
            "" => Some(0),
            digits => digits.parse::<i128>().ok().map(|digits| if self.negative { -digits } else { digits }),
        }
    }
}

/// The text that a number has whatever it is written as: `-0` is `0`, `7.0` is `7`, `1e2` is `100`.
pub(crate) fn canonical(number: &Number) -> Cow<'_, str> {
    let text = number.as_str();
    if is_plain_integer(text) {
        return Cow::Borrowed(text);
    }
    Decimal::parse(text).map_or(Cow::Borrowed(text), |decimal| Cow::Owned(decimal.canonical()))
}

/// Whether two numbers are the same, whatever they are written as.
pub(crate) fn is_same(one: &Number, other: &Number) -> bool {
    canonical(one) == canonical(other)
}

/// A text that is a JSON number, as that number with its digits.
pub(crate) fn of_text(text: &str) -> Option<Number> {
    Decimal::parse(text)?;
    text.parse().ok()
}

/// The double that stands for a number, if there is one.
pub(crate) fn exact_double(text: &str) -> Option<f64> {
    let double: f64 = text.parse().ok().filter(|double: &f64| double.is_finite())?;
    let shortest = shortest(double);
    (text == shortest || Decimal::parse(text)? == Decimal::parse(&shortest)?).then_some(double)
}

/// The number that a double stands for, with the digits that it is read again with; `None` if JSON has none.
pub(crate) fn of_double(double: f64) -> Option<Number> {
    let number = Number::from_f64(double)?;
    // An exponent is read with its sign, and written without.
    if number.as_str().contains('e') { number.as_str().parse().ok() } else { Some(number) }
}

/// The text of a double in JSON.
fn shortest(double: f64) -> String {
    Number::from_f64(double).map_or_else(String::new, |number| number.as_str().to_owned())
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// The result of an operation on the decimals that two doubles stand for: exact, or `None`. Of a quotient
/// whose digits have no end, or more than a double has, it is the nearest double.
pub(crate) fn compute(operation: Operation, left: f64, right: f64) -> Option<f64> {
    let nearest = match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide => left / right,
    };
    // What JSON cannot express is refused where it would be kept.
    if !left.is_finite() || !right.is_finite() || (operation == Operation::Divide && right == 0.0) {
        return Some(nearest);
    }
    let exact = exact(operation, left, right);
    match operation {
        Operation::Divide => Some(exact.unwrap_or(nearest)),
        _ => exact,
    }
}

fn exact(operation: Operation, left: f64, right: f64) -> Option<f64> {
    let (left, right) = (shortest(left), shortest(right));
    let (left, right) = (Decimal::parse(&left)?, Decimal::parse(&right)?);
    let (mut a, mut b) = (left.mantissa()?, right.mantissa()?);
    let (mantissa, exponent) = match operation {
        Operation::Multiply => (a.checked_mul(b)?, left.exponent + right.exponent),
        Operation::Divide => {
            // As many digits as there is room for: a quotient with fewer leaves no rest.
            const ROOM: u32 = 20;
            a = a.checked_mul(10_i128.pow(ROOM))?;
            if a % b != 0 {
                return None;
            }
            (a / b, left.exponent - right.exponent - i64::from(ROOM))
        }
        _ if a == 0 || b == 0 => {
            let b = if operation == Operation::Subtract { -b } else { b };
            if a == 0 { (b, right.exponent) } else { (a, left.exponent) }
        }
        _ => {
            let exponent = left.exponent.min(right.exponent);
            let scale = |mantissa: i128, own: i64| {
                mantissa.checked_mul(10_i128.checked_pow(u32::try_from(own - exponent).ok()?)?)
            };
            a = scale(a, left.exponent)?;
            b = scale(b, right.exponent)?;
            let sum = if operation == Operation::Add { a.checked_add(b)? } else { a.checked_sub(b)? };
            (sum, exponent)
        }
    };
    let mut digits = mantissa;
    while digits != 0 && digits % 10 == 0 {
        digits /= 10;
    }
    let fits = digits.unsigned_abs() < 10_u128.pow(MAX_DIGITS);
    fits.then(|| exact_double(&format!("{mantissa}e{exponent}"))).flatten()
}

fn is_plain_integer(text: &str) -> bool {
    text != "-0" && text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical_of(text: &str) -> String {
        canonical(&serde_json::from_str(text).unwrap()).into_owned()
    }

    #[test]
    fn a_number_has_one_canonical_text_whatever_it_is_written_as() {
        for (text, expected) in [
            ("7", "7"),
            ("7.0", "7"),
            ("70e-1", "7"),
            ("-0", "0"),
            ("-0.00e7", "0"),
            ("0e99999999999999999999", "0"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("12.50", "12.5"),
            ("-0.0012e1", "-0.012"),
            ("123456789012345678901", "123456789012345678901"),
            ("1e400", &format!("1{}", "0".repeat(400))),
            ("1e5000", "1e5000"),
            ("-10e5000", "-1e5001"),
            ("1e-5000", "1e-5000"),
        ] {
            assert_eq!(canonical_of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_double_stands_for_its_shortest_decimal() {
        for (text, double) in [("12.50", 12.5), ("19.99", 19.99), ("1e2", 100.0), ("-0", -0.0), ("7.0", 7.0)]
        {
            assert_eq!(exact_double(text), Some(double), "{text}");
        }
        for text in
            ["123456789012345678901", "0.1234567890123456789", "1e400", "1e-400", "19.990000000000000001"]
        {
            assert_eq!(exact_double(text), None, "{text}");
        }
    }

    #[test]
    fn sums_and_products_are_exact_or_there_are_none() {
        use Operation::{Add, Divide, Multiply, Subtract};

        for (operation, left, right, result) in [
            (Multiply, 19.99, 3.0, Some(59.97)),
            (Add, 0.1, 0.2, Some(0.3)),
            (Subtract, 0.3, 0.1, Some(0.2)),
            (Subtract, 0.0, 1.5, Some(-1.5)),
            (Add, 1e13, 0.25, Some(10_000_000_000_000.25)),
            (Add, 1e15, 0.25, None),
            (Add, 1e300, 1.0, None),
            (Multiply, 99_999_999.99, 99_999_999.99, None),
            (Multiply, 1e300, 1e300, None),
            (Divide, 10.0, 4.0, Some(2.5)),
            (Divide, 10.0, 3.0, Some(10.0 / 3.0)),
            (Divide, 59.97, 3.0, Some(19.99)),
        ] {
            assert_eq!(compute(operation, left, right), result, "{left} {operation:?} {right}");
        }
    }

    proptest! {
        #[test]
        fn zeros_and_exponents_that_say_nothing_change_no_number(
            digits in "[1-9][0-9]{0,30}", zeros in 0_usize..20, places in 0_usize..20,
        ) {
            let plain = canonical_of(&digits);
            let padded = format!("{digits}{}e-{zeros}", "0".repeat(zeros));
            prop_assert_eq!(canonical_of(&padded), plain.clone());
            prop_assert_eq!(canonical_of(&format!("{digits}.{}", "0".repeat(zeros + 1))), plain);
            let small = format!("{digits}e-{places}");
            prop_assert_eq!(canonical_of(&canonical_of(&small)), canonical_of(&small));
        }

        #[test]
        fn every_double_is_what_its_own_text_says(double in any::<f64>().prop_filter("finite", |d| d.is_finite())) {
            prop_assert_eq!(exact_double(&shortest(double)), Some(double));
        }

        #[test]
        fn amounts_are_added_and_multiplied_to_the_last_digit(a in -9_999_999_i64..9_999_999, b in 0_i64..99_999) {
            let cents = |cents: i64| cents as f64 / 100.0;
            prop_assert_eq!(compute(Operation::Add, cents(a), cents(b)), Some(cents(a + b)));
            let product = compute(Operation::Multiply, cents(a), cents(b)).map(shortest);
            let expected = Decimal::parse(&format!("{}e-4", a * b)).map(|decimal| decimal.canonical());
            let product = product.and_then(|text| Decimal::parse(&text).map(|decimal| decimal.canonical()));
            prop_assert_eq!(product, expected);
        }
    }
}
