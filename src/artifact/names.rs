//! Names, types, aliases and tags that W&B takes, and the ids by which a request that is sent again is known. Pure.

use sha2::{Digest as _, Sha256};

/// The longest name or type, in characters.
const LONGEST: usize = 128;

/// The length of a client's own id.
const CLIENT_ID: usize = 128;

/// A name that W&B refuses: have it changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It is too long.
    #[error("it has {0} characters, more than {LONGEST}")]
    TooLong(usize),
    /// A character has a meaning of its own.
    #[error("`{text}` holds `{found}`, which has a meaning of its own")]
    Character {
        /// The name.
        text: String,
        /// The character.
        found: char,
    },
    /// The official client keeps it for itself.
    #[error("`{0}` is W&B's own")]
    Reserved(String),
    /// Tags are words.
    #[error("`{0}` is no tag: letters, digits, `-`, `_` and single spaces make one")]
    Tag(String),
}

/// Checks the name of an artifact.
pub fn check_name(text: &str) -> Result<(), NameError> {
    // A colon is allowed by the server and read as the beginning of a version by everybody else.
    plain(text, &['/', ':'])
}

/// Checks a type, for an artifact of that name.
pub fn check_type(text: &str, name: &str) -> Result<(), NameError> {
    plain(text, &['/', ':'])?;
    let reserved = match text {
        "job" => true,
        "run_table" => name.starts_with("run-"),
        "code" => name.starts_with("source-"),
        _ => text.starts_with("wandb-"),
    };
    if reserved { Err(NameError::Reserved(text.to_owned())) } else { Ok(()) }
}

/// Checks an alias.
pub fn check_alias(text: &str) -> Result<(), NameError> {
    plain(text, &['/', ':'])?;
    // `v3` names a version, and the server gives it out itself.
    let is_version = text.strip_prefix('v').is_some_and(|rest| rest.parse::<u64>().is_ok());
    if is_version { Err(NameError::Reserved(text.to_owned())) } else { Ok(()) }
}

/// Checks a tag.
pub fn check_tag(text: &str) -> Result<(), NameError> {
    let word = |word: &str| word.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let begins_and_ends = |text: &str| !text.is_empty() && text.trim() == text;
    if begins_and_ends(text) && text.split(' ').all(word) { Ok(()) } else { Err(NameError::Tag(text.to_owned())) }
}

/// The nearest name that W&B takes.
pub fn safe_name(text: &str) -> String {
    let plain = |c: char| if matches!(c, '/' | ':' | '\\') || c.is_control() { '-' } else { c };
    text.chars().map(plain).take(LONGEST).collect()
}

/// An id of an artifact, or of the sequence of its versions, that a client makes: always the same for the same words.
pub fn stable_client_id(words: &[&str]) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digests = (0_u8..).flat_map(|block| {
        let mut hash = Sha256::new();
        hash.update([block]);
        feed(&mut hash, words);
        hash.finalize().to_vec()
    });
    digests.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).take(CLIENT_ID).collect()
}

/// The id of a run that is made for one version, always the same for the same words.
pub fn stable_run_id(words: &[&str]) -> String {
    let mut hash = Sha256::new();
    feed(&mut hash, words);
    let hex: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("put-{hex}")
}

fn feed(hash: &mut Sha256, words: &[&str]) {
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word.as_bytes());
    }
}

fn plain(text: &str, refused: &[char]) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let length = text.chars().count();
    if length > LONGEST {
        return Err(NameError::TooLong(length));
    }
    match text.chars().find(|c| refused.contains(c) || c.is_control()) {
        Some(found) => Err(NameError::Character { text: text.to_owned(), found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_official_client_does() {
        assert_eq!(check_name("model v1.0 (é)"), Ok(()));
        assert_eq!(check_name(&"x".repeat(128)), Ok(()));
        for bad in ["", "a/b", "a:v1", "a\nb", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_type("model", "x"), Ok(()));
        assert_eq!(check_type("code", "x"), Ok(()));
        for (bad, name) in [("job", "x"), ("run_table", "run-x"), ("code", "source-x"), ("wandb-x", "x"), ("a:b", "x")]
        {
            assert!(check_type(bad, name).is_err(), "{bad} {name}");
        }
        assert_eq!(check_alias("best"), Ok(()));
        assert_eq!(check_alias("version"), Ok(()));
        for bad in ["", "a:b", "a/b", "v3"] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
        for (tag, good) in [("a b-c_d", true), ("é", true), ("", false), (" a", false), ("a.b", false)] {
            assert_eq!(check_tag(tag).is_ok(), good, "{tag}");
        }
    }

    #[test]
    fn ids_are_stable_and_tell_words_apart() {
        let id = stable_client_id(&["a", "bc"]);
        assert_eq!(id, stable_client_id(&["a", "bc"]));
        assert_ne!(id, stable_client_id(&["ab", "c"]));
        assert!(id.len() == 128 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_eq!(stable_run_id(&["a"]), stable_run_id(&["a"]));
        assert_eq!(stable_run_id(&["a"]).len(), 20);
    }

    #[test]
    fn names_are_made_safe() {
        assert_eq!(safe_name("a/b:c\\d\ne"), "a-b-c-d-e");
        assert_eq!(check_name(&safe_name(&"/".repeat(200))), Ok(()));
    }
}
