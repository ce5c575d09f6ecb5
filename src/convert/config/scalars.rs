//! What a plain YAML scalar is: null, a boolean, a number, or a text.
//!
//! As PyYAML reads it (YAML 1.1: `yes` is true, `0x10`, `017` and `1_000` are numbers), because that is what the training
//! program read. Two exceptions, where people and PyYAML disagree: `1e-3` is a number although it has no point, and
//! `12:30` is a text and not 750. Dates are texts as they stand.

use crate::model::{Json, Number};

/// Digits before the exponent of a number without a point. With more it is more likely to be a hash, such as `83419e21`.
const MANTISSA_DIGITS: usize = 4;

/// The value of a scalar that was written without quotes and tag.
pub(super) fn plain(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Json::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Json::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Json::from(text), Json::Number)
}

/// The number that a text spells.
pub(super) fn number(text: &str) -> Option<Number> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => {
            return Some(Number::F64(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
        }
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some(Number::F64(f64::NAN)),
        _ => {}
    }
    let first = *unsigned.as_bytes().first()?;
    if !first.is_ascii_digit() && first != b'.' {
        return None;
    }
    if let Some(whole) = whole(unsigned, negative) {
        return Some(whole);
    }
    let digits = unsigned.replace('_', "");
    is_float(&digits)
        .then(|| digits.parse::<f64>().ok())
        .flatten()
        .filter(|float| float.is_finite())
        .map(|float| Number::F64(if negative { -float } else { float }))
}

fn whole(unsigned: &str, negative: bool) -> Option<Number> {
    let digits = unsigned.replace('_', "");
    let (radix, digits) = if let Some(digits) = digits.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = digits.strip_prefix("0b") {
        (2, digits)
    } else if let Some(digits) = digits.strip_prefix("0o") {
        (8, digits)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, digits.as_str())
    } else {
        (10, digits.as_str())
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    match u64::from_str_radix(digits, radix) {
        Ok(value) if negative => match 0_i64.checked_sub_unsigned(value) {
            Some(value) => Some(Number::I64(value)),
            None => Some(Number::F64(-(value as f64))),
        },
        Ok(value) => Some(i64::try_from(value).map_or(Number::U64(value), Number::I64)),
        // Too large for any integer: as near as a double comes, as JSON readers do.
        Err(_) if radix == 10 => digits
            .parse()
            .ok()
            .filter(|float: &f64| float.is_finite())
            .map(|float| Number::F64(if negative { -float } else { float })),
        Err(_) => None,
    }
}

/// `1.`, `.5`, `1.5e3`, and with few digits `1e-3`.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_digits = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    if exponent_digits.is_some_and(|digits| !(1..=3).contains(&digits.len()) || !is_digits(digits)) {
        return false;
    }
    match mantissa.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction) && whole.len() + fraction.len() > 0,
        None => exponent.is_some() && is_digits(mantissa) && (1..=MANTISSA_DIGITS).contains(&mantissa.len()),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_the_training_program_read() {
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("None", "\"None\""),
            ("yes", "true"),
            ("Off", "false"),
            ("y", "\"y\""),
            ("12", "12"),
            ("-12", "-12"),
            ("+12", "12"),
            ("0", "0"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("0o17", "15"),
            ("017", "15"),
            ("08", "\"08\""),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("-18446744073709551615", "-1.8446744073709552e+19"),
            ("100000000000000000000", "100000000000000000000"),
            ("1.", "1"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("1.5e3", "1500"),
            ("1.0e-05", "0.00001"),
            ("1e-3", "0.001"),
            ("2E5", "200000"),
            ("83419e21", "\"83419e21\""),
            ("1e4567", "\"1e4567\""),
            ("1.0e999", "\"1.0e999\""),
            ("1e", "\"1e\""),
            ("e5", "\"e5\""),
            (".", "\".\""),
            ("-", "\"-\""),
            ("-.inf", "-Infinity"),
            (".NaN", "NaN"),
            ("-.nan", "\"-.nan\""),
            ("nan", "\"nan\""),
            ("inf", "\"inf\""),
            ("12:30", "\"12:30\""),
            ("2024-01-02", "\"2024-01-02\""),
            ("1.2.3", "\"1.2.3\""),
            ("--1", "\"--1\""),
            ("0x", "\"0x\""),
            ("1-2", "\"1-2\""),
        ] {
            let value = plain(text);
            let same = match (&value, expected.parse::<f64>()) {
                // How a double is printed is not the matter here.
                (Json::Number(Number::F64(float)), Ok(expected)) => {
                    float.total_cmp(&expected).is_eq() || float.is_nan() && expected.is_nan()
                }
                _ => value.to_string() == expected,
            };
            assert!(same, "{text} is {value}, not {expected}");
        }
    }
}
