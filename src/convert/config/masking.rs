//! Values that look like credentials become `***`, by the name of their key or by their own form.
//!
//! A config is seen by everyone who sees the project. A name decides only about texts (a password also about numbers):
//! `max_tokens: 512` and `use_auth_token: true` stay. Names that speak *about* a credential (`password_file`,
//! `token_type`) and the special tokens of language models (`pad_token`) stay, too. Forms are those of well-known keys;
//! in the middle of a longer text only the key itself is masked. Pure.

use crate::model::Json;

/// What stands in the place of a masked value.
const MASK: &str = "***";

/// The paths of masked values, as a person writes them.
pub type Masked = Vec<String>;

/// Masks a whole config. Returns where.
pub fn mask(config: &mut Json) -> Masked {
    let mut masked = Vec::new();
    let Json::Object(members) = config else { return masked };
    for (key, value) in members.iter_mut().filter(|(key, _)| *key != "_wandb") {
        mask_below(&mut vec![key.clone()], value, Name::of(key), &mut masked);
    }
    masked
}

/// Masks one value of a config at its path. Returns where.
pub fn mask_value(path: &[String], value: &mut Json) -> Masked {
    let mut masked = Vec::new();
    if path.first().is_none_or(|first| first != "_wandb") {
        let name = path.iter().map(|key| Name::of(key)).max().unwrap_or_default();
        mask_below(&mut path.to_vec(), value, name, &mut masked);
    }
    masked
}

fn mask_below(path: &mut Vec<String>, value: &mut Json, name: Name, masked: &mut Masked) {
    match value {
        Json::Object(members) => {
            for (key, member) in members {
                path.push(key.clone());
                mask_below(path, member, name.max(Name::of(key)), masked);
                path.pop();
            }
        }
        Json::Array(items) => {
            let mut flag = Name::Plain;
            for item in items {
                // `["--api-key", "…"]`: a command line.
                let of_flag = std::mem::take(&mut flag);
                if let Some(text) = item.as_str().and_then(|text| text.strip_prefix("--")) {
                    flag = Name::of(text);
                }
                mask_below(path, item, name.max(of_flag), masked);
            }
        }
        Json::String(text) => {
            let replacement = if name.masks_text(text) { Some(MASK.to_owned()) } else { mask_text(path, text) };
            if let Some(replacement) = replacement {
                *text = replacement;
                masked.push(path.join("."));
            }
        }
        Json::Number(_) if name == Name::Password => {
            *value = Json::from(MASK);
            masked.push(path.join("."));
        }
        Json::Number(_) | Json::Bool(_) | Json::Null => {}
    }
}

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Name {
    #[default]
    Plain,
    /// A token, which in this trade may also be a word of a language.
    Token,
    /// A key, a secret.
    Credential,
    /// Numbers are masked as well.
    Password,
}

/// A last word that makes a name speak about a credential instead of being one.
const ABOUT: &[&str] = &[
    "file",
    "path",
    "dir",
    "directory",
    "name",
    "names",
    "env",
    "var",
    "variable",
    "type",
    "kind",
    "length",
    "len",
    "size",
    "dim",
    "dims",
    "count",
    "num",
    "format",
    "field",
    "column",
    "index",
    "idx",
    "required",
    "enabled",
    "policy",
    "manager",
    "sharing",
    "provider",
    "class",
    "style",
    "mode",
    "timeout",
    "ttl",
    "expiry",
    "source",
    "embedding",
];
/// Words before `token` that name a part of a vocabulary.
const VOCABULARY: &[&str] = &[
    "pad",
    "eos",
    "bos",
    "unk",
    "sep",
    "cls",
    "mask",
    "special",
    "additional",
    "start",
    "end",
    "stop",
    "image",
    "audio",
    "video",
    "vision",
    "text",
    "begin",
    "eot",
    "eod",
    "sot",
    "prompt",
    "word",
    "class",
    "target",
    "trigger",
    "placeholder",
    "initializer",
    "padding",
    "suffix",
    "prefix",
    "middle",
    "fim",
    "blank",
    "separator",
    "user",
    "assistant",
    "system",
    "think",
    "thinking",
    "tool",
    "control",
    "reserved",
    "instance",
    "new",
    "space",
    "delimiter",
    "unknown",
    "speech",
];
/// Words before `key` that make it a credential.
const KEYS: &[&str] = &[
    "api",
    "access",
    "private",
    "secret",
    "ssh",
    "signing",
    "encryption",
    "auth",
    "account",
    "subscription",
    "storage",
    "wandb",
    "openai",
    "anthropic",
    "comet",
    "neptune",
    "hf",
    "github",
    "azure",
    "gcp",
    "aws",
    "license",
    "client",
    "deploy",
    "master",
    "admin",
    "service",
];
/// What names of an `aws_…` setting end with that is no credential.
const AWS_PLAIN: &[&str] = &["region", "profile", "bucket", "zone", "endpoint", "url", "prefix", "partition", "output"];

impl Name {
    fn of(key: &str) -> Self {
        // A flag's value is not a part of its name.
        let words = words(key.split('=').next().unwrap_or(key));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((last, before)) = words.split_last() else { return Self::Plain };
        if ABOUT.contains(last) {
            return Self::Plain;
        }
        let any = |test: &dyn Fn(&str) -> bool| words.iter().any(|word| test(word));
        if any(&|word| {
            word.contains("password") || word.contains("passwd") || matches!(word, "passphrase" | "passcode" | "pwd")
        }) || (*last == "pass"
            && before.iter().any(|word| matches!(*word, "db" | "smtp" | "mail" | "ftp" | "user" | "proxy")))
        {
            return Self::Password;
        }
        let key_of = |pair: &[&str]| matches!(pair, [first, "key" | "keys"] if KEYS.contains(first));
        let is_credential = any(&|word| {
            word.contains("credential") || matches!(word, "secret" | "secrets" | "authorization" | "cookie" | "cookies")
        }) || words.windows(2).any(key_of)
            || any(&|word| matches!(word, "apikey" | "apikeys" | "privatekey" | "secretkey" | "accesskey" | "sshkey"))
            || (words.first() == Some(&"aws") && !before.is_empty() && !AWS_PLAIN.contains(last));
        if is_credential {
            return Self::Credential;
        }
        let is_token = matches!(*last, "token" | "pat" | "bearer" | "jwt")
            || (*last == "tokens" && before.iter().any(|word| matches!(*word, "access" | "api" | "auth" | "refresh")));
        let is_vocabulary = before.iter().any(|word| VOCABULARY.contains(word));
        if is_token && !is_vocabulary { Self::Token } else { Self::Plain }
    }

    fn masks_text(self, text: &str) -> bool {
        let text = text.trim();
        match self {
            Self::Plain => false,
            // `<s>`, `[MASK]`, `▁the`: no credential looks like that, and none is that short.
            Self::Token => {
                text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>[]|{}$".contains(&byte))
            }
            // Something that is filled in elsewhere (`${oc.env:KEY}`) or was masked before.
            Self::Credential | Self::Password => !text.is_empty() && !text.starts_with("${") && text != MASK,
        }
    }
}

/// The words of a name, in lower case: `apiKey`, `API-KEY` and `api_key` are the same two.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = ' ';
    for character in name.chars().take(256) {
        let starts = !previous.is_alphanumeric() || (previous.is_lowercase() && character.is_uppercase());
        if character.is_alphanumeric() {
            if starts || words.is_empty() {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
        previous = character;
    }
    words
}

/// The text with the keys in it masked; `None` when there are none.
fn mask_text(path: &[String], text: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef01234567";

    fn masked(key: &str, value: &str) -> String {
        let mut value = Json::parse(value).unwrap_or_else(|_| Json::from(value));
        mask_value(&[key.to_owned()], &mut value);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    #[test]
    fn names_of_credentials_mask_their_texts() {
        for key in [
            "api_key",
            "apiKey",
            "API-KEY",
            "WANDB_API_KEY",
            "openai_api_key",
            "apikey",
            "wandb_key",
            "password",
            "db.password",
            "dbPassword",
            "smtp_pass",
            "passphrase",
            "secret",
            "client_secret",
            "secrets",
            "aws_secret_access_key",
            "AWS_SESSION_TOKEN",
            "aws_anything",
            "credentials",
            "gcp_credentials",
            "private_key",
            "ssh_key",
            "hf_token",
            "token",
            "auth_token",
            "accessToken",
            "access_tokens",
            "github_pat",
            "authorization",
        ] {
            assert_eq!(masked(key, "correct-horse-1"), MASK, "{key}");
        }
        assert_eq!(masked("password", "1234"), MASK);
        assert_eq!(
            masked("credentials", r#"{"user":"u","more":["x",1,true]}"#),
            r#"{"more":["***",1,true],"user":"***"}"#
        );
    }

    #[test]
    fn other_names_leave_their_values_alone() {
        for key in [
            "tokenizer",
            "tokenizer_name",
            "max_tokens",
            "num_tokens",
            "tokens",
            "token_type",
            "pad_token",
            "eos_token",
            "additional_special_tokens",
            "token_embedding",
            "key",
            "query_key",
            "monitor_key",
            "primary_key",
            "keys",
            "secretary",
            "password_file",
            "secret_name",
            "api_key_env",
            "aws_region",
            "aws_profile",
            "passes",
            "n_pass",
            "bypass",
            "author",
            "authors",
            "compass",
            "pattern",
            "image_token",
            "wandb_project",
            "turkey",
            "monkey_key",
        ] {
            assert_eq!(masked(key, "correct-horse-1"), "correct-horse-1", "{key}");
        }
        for (key, value) in [
            ("max_tokens", "512"),
            ("use_auth_token", "true"),
            ("token", "7"),
            ("token", "<s>"),
            ("token", "[MASK]xxxx"),
            ("token", "the"),
            ("secret", "null"),
            ("secret_dim", "4"),
            ("password", "${oc.env:PASSWORD}"),
            ("password", ""),
        ] {
            assert_eq!(masked(key, value), value, "{key}");
        }
    }

    #[test]
    fn forms_of_credentials_are_masked_whatever_the_name() {
        let long = "aB3".repeat(12);
        for value in [
            HEX.to_owned(),
            format!("local-{HEX}"),
            format!("sk-{long}"),
            format!("sk-proj-{long}"),
            format!("hf_{long}"),
            format!("ghp_{long}"),
            format!("github_pat_{long}"),
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            format!("eyJhbGciOi.eyJzdWIiOi.{long}"),
            "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n".to_owned(),
            "https://hooks.slack.com/services/T0/B0/x".to_owned(),
        ] {
            assert_eq!(masked("x", &value), MASK, "{value}");
        }
        for (value, expected) in [
            (format!("train.py --key sk-{long} --lr 1"), "train.py --key *** --lr 1".to_owned()),
            ("train.py --password=hunter2 --x=1".to_owned(), "train.py --password=*** --x=1".to_owned()),
            ("postgres://me:pw@db.example.com/x".to_owned(), "postgres://***@db.example.com/x".to_owned()),
            ("see http://a:b@h and http://c/d".to_owned(), "see http://***@h and http://c/d".to_owned()),
        ] {
            assert_eq!(masked("cmd", &value), expected);
        }
        assert_eq!(masked("argv", r#"["x","--api-key","abc","--lr","1"]"#), r#"["x","--api-key","***","--lr","1"]"#);
    }

    #[test]
    fn harmless_forms_stay() {
        for (key, value) in [
            ("commit", HEX),
            ("git_sha", HEX),
            ("model_revision", HEX),
            ("x", "0123456789abcdef"),
            ("x", "0123456789ABCDEF0123456789ABCDEF01234567"),
            ("x", "sk-learn"),
            ("x", "hf_hub_model_that_has_a_rather_long_name"),
            ("x", "sk-resnet-with-a-long-description-of-words"),
            ("x", "https://example.com/a@b:c"),
            ("x", "git@github.com:a/b.git"),
            ("x", "ssh://git@github.com/a"),
            ("x", "eyJ"),
            ("x", "AKIA"),
            ("x", "-----BEGIN CERTIFICATE-----"),
            ("x", "a = b, c; d"),
        ] {
            assert_eq!(masked(key, value), value);
        }
    }

    #[test]
    fn places_are_told_and_w_and_b_s_own_stays() {
        let mut config =
            Json::parse(r#"{"a":{"api_key":"x","b":[{"password":1}]},"_wandb":{"token":"abcdefghij"},"lr":1}"#)
                .unwrap();
        assert_eq!(mask(&mut config), ["a.api_key", "a.b.password"]);
        assert_eq!(
            config.to_string(),
            r#"{"_wandb":{"token":"abcdefghij"},"a":{"api_key":"***","b":[{"password":"***"}]},"lr":1}"#
        );
        assert_eq!(mask(&mut config), Masked::new());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_masking_twice_is_masking_once(key in ".{0,20}", text in ".{0,80}") {
            let mut value = Json::from([(key, Json::from(text))]);
            mask(&mut value);
            let once = value.clone();
            mask(&mut value);
            proptest::prop_assert_eq!(value, once);
        }
    }
}
