//! What the name of a key says of its value.

use super::MASK;

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Name {
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
    pub(super) fn of(key: &str) -> Self {
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

    pub(super) fn masks_text(self, text: &str) -> bool {
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
pub(super) fn words(name: &str) -> Vec<String> {
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
