//! W&B's extended JSON: JSON in which `NaN`, `Infinity` and `-Infinity` are numbers.
//!
//! Reading and writing of whole values, and a check of a text without building anything. Integers of up to 64 bits stay
//! integers. Nesting is limited to [`MAX_DEPTH`], so no input can exhaust the stack.

mod parse;

use std::collections::BTreeMap;

use crate::model::Number;
use parse::Parser;

/// How deep arrays and objects may nest; the official parser's limit.
pub const MAX_DEPTH: usize = 500;

/// One JSON value. Objects are sorted by key, so the same value always has the same text.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Any number; whole numbers that fit are kept as integers.
    Number(Number),
    /// A text
    String(String),
    /// `[…]`
    Array(Vec<Json>),
    /// `{…}`
    Object(BTreeMap<String, Json>),
}

/// Where and why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}: {why}")]
pub struct JsonError {
    /// Byte offset in the text.
    pub at: usize,
    /// What was wrong there.
    pub why: &'static str,
}

impl Json {
    /// No number has a longer text: 17 digits, a sign, a point and an exponent.
    pub(super) const NUMBER_SIZE: usize = 25;

    /// An empty object.
    pub fn object() -> Self {
        Self::Object(BTreeMap::new())
    }

    /// Reads one value that fills the text but for white space around it.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut parser = Parser::new(text);
        let value = parser.value(0)?;
        parser.finish()?;
        Ok(value)
    }

    /// Checks that a text is one JSON value, without building it.
    pub fn check(text: &str) -> Result<(), JsonError> {
        // Numbers and short words are nearly all that history holds.
        if text.len() <= 17 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return if text.len() > 1 && text.starts_with('0') {
                Err(JsonError { at: 0, why: "leading zero" })
            } else {
                Ok(())
            };
        }
        let mut parser = Parser::new(text);
        parser.skip_value(0)?;
        parser.finish()
    }

    /// The members of an object; `None` for anything else.
    pub fn as_object(&self) -> Option<&BTreeMap<String, Json>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The text of a string; `None` for anything else.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The member of an object; `None` where there is none.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.as_object()?.get(key)
    }

    /// Sets the value at a path of keys. What is in the way and is not an object is replaced by one.
    pub fn set_path<S: AsRef<str>>(&mut self, path: &[S], value: Json) {
        let mut place = self;
        for key in path {
            if !matches!(place, Self::Object(_)) {
                *place = Self::object();
            }
            let Self::Object(members) = place else { return };
            // Nearly always it is there, and nothing is to be allocated.
            if !members.contains_key(key.as_ref()) {
                members.insert(key.as_ref().to_owned(), Self::Null);
            }
            let Some(member) = members.get_mut(key.as_ref()) else { return };
            place = member;
        }
        *place = value;
    }

    /// How many levels of arrays and objects there are.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Object(members) => 1 + members.values().map(Self::depth).max().unwrap_or_default(),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => 0,
        }
    }

    /// A bound of the length of its text, which costs less than the text.
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Number(_) => Self::NUMBER_SIZE,
            Self::String(text) => text_size(text),
            Self::Array(items) => 2 + items.iter().map(|item| item.size() + 1).sum::<usize>(),
            Self::Object(members) => {
                2 + members.iter().map(|(key, value)| text_size(key) + value.size() + 2).sum::<usize>()
            }
        }
    }

    /// Appends the compact text of the value.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(number) => number.write_json(out),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(key, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::new();
        self.write(&mut out);
        formatter.write_str(&String::from_utf8_lossy(&out))
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<Number> for Json {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

impl From<i64> for Json {
    fn from(number: i64) -> Self {
        Self::Number(Number::I64(number))
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>, const N: usize> From<[(K, Json); N]> for Json {
    fn from(members: [(K, Json); N]) -> Self {
        Self::Object(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

/// A bound of the length of a text as a JSON string, quotes included.
pub fn text_size(text: &str) -> usize {
    let escaped = text.bytes().filter(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')).count();
    2 + text.len() + 5 * escaped
}

/// Appends a text as a JSON string, quotes included. Only what JSON demands is escaped.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(written..index).unwrap_or_default());
        written = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(bytes.get(written..).unwrap_or_default());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Json::parse(text).map(|value| value.to_string()), Ok(expected.to_owned()), "{text}");
        assert_eq!(Json::check(text), Ok(()), "{text}");
    }

    fn check_bad(text: &str) {
        assert!(Json::parse(text).is_err(), "{text}");
        assert!(Json::check(text).is_err(), "{text}");
    }

    #[test]
    fn values_survive() {
        check(" null ", "null");
        check("[NaN, Infinity,-Infinity ,1e-05]", "[NaN,Infinity,-Infinity,0.00001]");
        check(r#"{"b":[1,{"c":"x\u00e9\ud83d\ude00\n"}],"a":-3}"#, r#"{"a":-3,"b":[1,{"c":"xé😀\n"}]}"#);
        check("18446744073709551615", "18446744073709551615");
        check(r#""\ud800""#, "\"\u{fffd}\"");
        check("{}", "{}");
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            "[",
            "{\"a\"}",
            "01",
            "1 2",
            "nul",
            "\"a",
            "\"\n\"",
            "[1,]",
            "\"\\x\"",
            "--1",
            "1e",
            "-",
            "+1",
            "\"\\u12\"",
        ] {
            check_bad(bad);
        }
        check_bad(&"[".repeat(100_000));
    }

    #[test]
    fn paths_are_made_as_needed() {
        let mut value = Json::from([("a", Json::from(1))]);
        value.set_path(&["a", "b"], Json::from("x"));
        value.set_path(&["c"], Json::Null);
        assert_eq!(value.to_string(), r#"{"a":{"b":"x"},"c":null}"#);
    }

    proptest::proptest! {
        #[test]
        fn strings_survive(text in ".*") {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            let written = String::from_utf8(out).unwrap_or_default();
            proptest::prop_assert!(written.len() <= text_size(&text));
            proptest::prop_assert_eq!(Json::parse(&written), Ok(Json::String(text)));
        }

        #[test]
        fn nothing_panics(text in ".*") {
            proptest::prop_assert_eq!(Json::parse(&text).is_ok(), Json::check(&text).is_ok());
        }
    }
}
