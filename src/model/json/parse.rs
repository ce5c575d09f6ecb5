//! A text becomes a value, or is only checked. Strict but for `NaN` and the infinities; nesting is limited.

use std::collections::BTreeMap;

use super::{Json, JsonError, MAX_DEPTH};
use crate::model::Number;

/// A text, and how far it was read.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn error<T>(&self, why: &'static str) -> Result<T, JsonError> {
        Err(JsonError { at: self.at, why })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn finish(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.error("something follows the value") }
    }

    pub(super) fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return self.error("nested too deeply");
        }
        self.space();
        match self.peek() {
            Some(b'{') => {
                let mut members = BTreeMap::new();
                self.members(b'}', |parser| {
                    let key = parser.string()?;
                    parser.colon()?;
                    members.insert(key, parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::Object(members))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.members(b']', |parser| {
                    items.push(parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::Array(items))
            }
            Some(b'"') => self.string().map(Json::String),
            _ => self.word(),
        }
    }

    pub(super) fn skip_value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return self.error("nested too deeply");
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.members(b'}', |parser| {
                parser.string()?;
                parser.colon()?;
                parser.skip_value(depth + 1)
            }),
            Some(b'[') => self.members(b']', |parser| parser.skip_value(depth + 1)),
            Some(b'"') => self.string().map(drop),
            _ => self.word().map(drop),
        }
    }

    /// Reads a bracketed list; the opening bracket is at hand.
    fn members(
        &mut self,
        close: u8,
        mut member: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            member(self)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.error("expected `,` or a closing bracket"),
            }
        }
    }

    fn colon(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.eat(":") { Ok(()) } else { self.error("expected `:`") }
    }

    fn word(&mut self) -> Result<Json, JsonError> {
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.number();
        }
        for (word, value) in [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Number(Number::F64(f64::NAN))),
            ("Infinity", Json::Number(Number::F64(f64::INFINITY))),
            ("-Infinity", Json::Number(Number::F64(f64::NEG_INFINITY))),
        ] {
            if self.eat(word) {
                return Ok(value);
            }
        }
        self.number()
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let rest = self.rest();
        let length =
            rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let text = rest.get(..length).unwrap_or_default();
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let well_formed = digits.first().is_some_and(u8::is_ascii_digit)
            && !(digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit());
        if !well_formed {
            return self.error("expected a value");
        }
        let is_whole = digits.iter().all(u8::is_ascii_digit);
        let number = if let Some(whole) = is_whole.then(|| text.parse().ok()).flatten() {
            Number::I64(whole)
        } else if let Some(whole) = is_whole.then(|| text.parse().ok()).flatten() {
            Number::U64(whole)
        } else if let Ok(float) = text.parse::<f64>() {
            Number::F64(float)
        } else {
            return self.error("malformed number");
        };
        self.at += length;
        Ok(Json::Number(number))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if !self.eat("\"") {
            return self.error("expected a string");
        }
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
            let Some(plain) = plain else { return self.error("unterminated string") };
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return self.error("raw control character in a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(byte) = self.peek() else { return self.error("unterminated escape") };
        let plain = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.error("unknown escape"),
        };
        self.at += 1;
        Ok(plain)
    }

    /// A surrogate without its other half becomes U+FFFD, as most parsers do.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let high = self.hex4()?;
        if !(0xD800..0xDC00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self.eat("\\u") {
            let low = self.hex4()?;
            if (0xDC00..0xE000).contains(&low) {
                let joined = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                return Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return self.error("expected four hex digits");
        };
        self.at += 4;
        Ok(code)
    }
}
