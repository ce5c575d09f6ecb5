//! The API key: checked once, never printed.
//!
//! Where a key comes from (environment, netrc, settings files) is not known here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;

/// A key in a form that a W&B server may accept. Its text cannot be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// Why a text cannot be an API key. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApiKey {
    /// Nothing was given.
    #[error("the API key is empty")]
    Empty,
    /// A copy that lost its end, usually.
    #[error("the API key has {0} characters; a W&B key has at least 40")]
    TooShort(usize),
    /// White space or quotes around it, or not a key at all.
    #[error("the API key has characters that no W&B key has")]
    Characters,
}

impl ApiKey {
    /// Checks the form of a key, as the official client does.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidApiKey> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidApiKey::Empty);
        }
        if is_token(&text) {
            return Ok(Self(text));
        }
        // Keys of private servers carry a prefix: `local-` and then the key.
        let key = text.split_once('-').map_or(text.as_str(), |(_, key)| key);
        if !key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return Err(InvalidApiKey::Characters);
        }
        match key.chars().count() {
            short @ 0..40 => Err(InvalidApiKey::TooShort(short)),
            _ => Ok(Self(text)),
        }
    }

    /// `Basic` authorization, marked so that nothing logs it.
    pub(crate) fn authorization(&self) -> HeaderValue {
        let text = format!("Basic {}", STANDARD.encode(format!("api:{}", self.0)));
        // Base64 holds nothing that a header may not.
        let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// A JSON Web Token: three segments of base64url.
fn is_token(text: &str) -> bool {
    let segments = text.split('.').map(|segment| {
        !segment.is_empty()
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'='))
    });
    let mut count = 0;
    segments.inspect(|_| count += 1).all(|valid| valid) && count == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_checked() {
        let key = "0123456789abcdef0123456789abcdef01234567";
        for good in [key.to_owned(), format!("local-{key}"), format!("{key}{key}"), "aGk.eyJh_-.c2ln".to_owned()] {
            assert!(ApiKey::new(good.clone()).is_ok(), "{good}");
        }
        assert_eq!(ApiKey::new(""), Err(InvalidApiKey::Empty));
        assert_eq!(ApiKey::new(&key[1..]), Err(InvalidApiKey::TooShort(39)));
        assert_eq!(ApiKey::new(format!("{key}\n")), Err(InvalidApiKey::Characters));
        assert_eq!(ApiKey::new(format!("\"{key}\"")), Err(InvalidApiKey::Characters));
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKey("0123456789abcdef0123456789abcdef01234567".to_owned());
        let text = format!("{key} {key:?} {:?}", key.authorization());
        assert!(!text.contains("0123") && !text.contains("Basic"), "{text}");
    }
}
