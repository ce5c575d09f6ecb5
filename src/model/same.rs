//! When two values are the same, however they were written.

use crate::model::Json;

impl Json {
    /// Whether two values are the same. Servers write numbers in their own way, also the ones that JSON has no word for, and
    /// order keys as they like.
    pub fn is_same_value(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => is_same_number(a.as_f64(), b.as_f64()),
            (Self::Number(number), Self::String(text)) | (Self::String(text), Self::Number(number)) => {
                non_finite(text).is_some_and(|said| is_same_number(number.as_f64(), said))
            }
            (Self::Array(a), Self::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same_value(b)),
            (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other, b))| key == other && a.is_same_value(b))
            }
            _ => self == other,
        }
    }
}

/// Other writers print -0.0 as -0, which reads back as the integer 0.
fn is_same_number(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// W&B's API tells these as texts.
fn non_finite(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn values_are_compared_however_they_are_written() {
        let same = |a: &str, b: &str| Json::parse(a).unwrap().is_same_value(&Json::parse(b).unwrap());
        assert!(same(r#"{"a":1,"b":[0.00001,NaN]}"#, r#"{"b":[1e-05,"NaN"],"a":1.0}"#));
        assert!(same(r#"["-Infinity"]"#, "[-Infinity]") && same("-0.0", "0"));
        for (a, b) in [("1", "2"), ("1", "\"1\""), ("NaN", "null"), ("[1]", "[1,1]"), (r#"{"a":1}"#, r#"{"b":1}"#)] {
            assert!(!same(a, b) && !same(b, a), "{a} {b}");
        }
    }
}
