//! Texts that look like credentials, and keys in the middle of longer texts.

use super::MASK;
use super::names::{Name, words};

/// The text with the keys in it masked; `None` when there are none.
pub(super) fn mask_text(path: &[String], text: &str) -> Option<String> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY") {
        return Some(MASK.to_owned());
    }
    if is_wandb_key(text.trim()) && !path.iter().any(|key| names_a_hash(key)) {
        return Some(MASK.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut name = Name::Plain;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_delimiter).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let delimiter = behind.chars().next();
        let (separator, behind) = behind.split_at(delimiter.map_or(0, char::len_utf8));
        let assigned = std::mem::take(&mut name);
        if !word.is_empty() && (assigned.masks_text(word) || is_key(word)) {
            out.push_str(MASK);
            changed = true;
        } else if let Some(masked) = without_user(word) {
            out.push_str(&masked);
            changed = true;
        } else {
            out.push_str(word);
        }
        if delimiter == Some('=') {
            name = Name::of(word);
        }
        out.push_str(separator);
        rest = behind;
    }
    changed.then_some(out)
}

fn is_delimiter(character: char) -> bool {
    character.is_whitespace() || "\"'`=,;()<>[]{}&?|".contains(character)
}

/// Forty hex digits are a W&B key, or a commit: then the name says so.
fn is_wandb_key(text: &str) -> bool {
    let text = text.strip_prefix("local-").unwrap_or(text);
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn names_a_hash(key: &str) -> bool {
    const HASHES: &[&str] = &[
        "sha",
        "sha1",
        "commit",
        "git",
        "rev",
        "revision",
        "hash",
        "checksum",
        "digest",
        "version",
        "head",
        "branch",
        "tree",
        "fingerprint",
        "etag",
        "id",
        "ref",
        "md5",
    ];
    words(key).iter().any(|word| HASHES.contains(&word.as_str()) || word.ends_with("hash"))
}

/// Whether a word has the form of a well-known key.
fn is_key(word: &str) -> bool {
    // What follows the prefix, and how much of it there is at least.
    const PREFIXES: &[(&str, usize)] = &[
        ("sk-", 20),
        ("sk_live_", 16),
        ("rk_live_", 16),
        ("hf_", 30),
        ("ghp_", 30),
        ("gho_", 30),
        ("ghu_", 30),
        ("ghs_", 30),
        ("ghr_", 30),
        ("github_pat_", 30),
        ("glpat-", 16),
        ("xoxb-", 16),
        ("xoxp-", 16),
        ("xoxa-", 16),
        ("xoxs-", 16),
        ("AIza", 30),
        ("npm_", 30),
        ("pypi-", 40),
        ("wandb_v1_", 30),
    ];
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let mixed = |text: &str| {
        text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    let has_prefix = PREFIXES.iter().any(|(prefix, least)| {
        word.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least && is_plain(rest) && mixed(rest))
    });
    let is_aws = word.len() == 20
        && (word.starts_with("AKIA") || word.starts_with("ASIA"))
        && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let is_jwt = word.starts_with("eyJ") && {
        let parts: Vec<&str> = word.split('.').collect();
        matches!(parts.as_slice(), [_, payload, signature] if payload.starts_with("eyJ") && signature.len() >= 16)
            && is_plain(word)
    };
    has_prefix || is_aws || is_jwt || is_hook(word)
}

/// Addresses that are a key as a whole.
fn is_hook(word: &str) -> bool {
    ["https://hooks.slack.com/services/", "https://discord.com/api/webhooks/"].iter().any(|hook| word.starts_with(hook))
}

/// `scheme://user:password@host` without the user and the password.
fn without_user(word: &str) -> Option<String> {
    let (scheme, rest) = word.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    if password.is_empty() || password == MASK {
        return None;
    }
    Some(format!("{scheme}://{MASK}{}", rest.get(user.len()..)?))
}
