//! A number as a log states it, with its own width, and its JSON text.

use serde::{Deserialize, Serialize};

/// A number with the width that its writer gave it.
///
/// The width matters for the text: an f32 is printed in the shortest form that reads back as the same f32 (`0.1`, not
/// `0.10000000149011612`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Number {
    /// Also half and bfloat16, which an f32 holds exactly.
    F32(f32),
    /// A double.
    F64(f64),
    /// Every signed integer type.
    I64(i64),
    /// Every unsigned integer type, and booleans as 0 and 1.
    U64(u64),
}

impl Number {
    /// Appends the number as W&B's extended JSON, in which `NaN`, `Infinity` and `-Infinity` are bare words.
    pub fn write_json(self, out: &mut Vec<u8>) {
        match self {
            Self::F32(value) if value.is_finite() => write_finite(zmij::Buffer::new().format_finite(value), out),
            Self::F32(value) => out.extend_from_slice(non_finite(f64::from(value))),
            Self::F64(value) => match short_whole(value) {
                Some(whole) => Self::I64(whole).write_json(out),
                None if value.is_finite() => write_finite(zmij::Buffer::new().format_finite(value), out),
                None => out.extend_from_slice(non_finite(value)),
            },
            Self::I64(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            Self::U64(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        }
    }

    /// The number as a double: integers above 2^53 are rounded.
    #[expect(clippy::cast_precision_loss, reason = "that is what it says")]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::F32(value) => f64::from(value),
            Self::F64(value) => value,
            Self::I64(value) => value as f64,
            Self::U64(value) => value as f64,
        }
    }

    /// Whether this is a NaN. Infinities are numbers like any other.
    pub fn is_nan(self) -> bool {
        match self {
            Self::F32(value) => value.is_nan(),
            Self::F64(value) => value.is_nan(),
            Self::I64(_) | Self::U64(_) => false,
        }
    }
}

/// A whole number that is printed without an exponent, as counts are: to print an integer takes a fraction of the time
/// that the shortest digits of a double take.
fn short_whole(value: f64) -> Option<i64> {
    // Saturates, and then differs. A negative zero keeps its sign.
    let whole = value as i64;
    (whole as f64 == value && whole.unsigned_abs() < 1_000_000_000_000_000 && (whole != 0 || value.is_sign_positive()))
        .then_some(whole)
}

/// `2.0` is written as `2`, as the official client does; `-0.0` keeps its fraction so that it keeps its sign.
fn write_finite(text: &str, out: &mut Vec<u8>) {
    let whole = text.strip_suffix(".0").filter(|whole| *whole != "-0");
    out.extend_from_slice(whole.unwrap_or(text).as_bytes());
}

fn non_finite(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: Number, expected: &str) {
        let mut out = Vec::new();
        number.write_json(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn numbers_are_printed_shortest_in_their_own_width() {
        check(Number::F32(0.1), "0.1");
        check(Number::F64(f64::from(0.1_f32)), "0.10000000149011612");
        check(Number::F32(1.0 / 3.0), "0.33333334");
        check(Number::F32(2.0), "2");
        check(Number::F64(-0.0), "-0.0");
        check(Number::F32(f32::NAN), "NaN");
        check(Number::F64(f64::NEG_INFINITY), "-Infinity");
        check(Number::I64(i64::MIN), "-9223372036854775808");
        check(Number::U64(u64::MAX), "18446744073709551615");
    }

    proptest::proptest! {
        #[test]
        fn whole_doubles_have_the_text_of_any_double(whole in -1e17..1e17_f64, digits in 0..18) {
            let value = (whole / 10_f64.powi(digits)).round();
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            Number::F64(value).write_json(&mut out);
            write_finite(zmij::Buffer::new().format_finite(value), &mut expected);
            proptest::prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
        }

        #[test]
        fn every_f32_reads_back_as_itself(bits in proptest::num::u32::ANY) {
            let value = f32::from_bits(bits);
            if value.is_finite() {
                let mut out = Vec::new();
                Number::F32(value).write_json(&mut out);
                let text = String::from_utf8(out).unwrap_or_default();
                proptest::prop_assert_eq!(text.parse::<f32>().map(f32::to_bits), Ok(bits));
                // Readers of JSON parse an f64 and may round once more.
                proptest::prop_assert_eq!(text.parse::<f64>().map(|wide| (wide as f32).to_bits()), Ok(bits));
            }
        }
    }
}
