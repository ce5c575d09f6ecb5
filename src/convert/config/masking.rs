//! Values that look like credentials become `***`, by the name of their key or by their own form.
//!
//! A config is seen by everyone who sees the project. A name decides only about texts (a password also about numbers):
//! `max_tokens: 512` and `use_auth_token: true` stay. Names that speak *about* a credential (`password_file`,
//! `token_type`) and the special tokens of language models (`pad_token`) stay, too. Forms are those of well-known keys;
//! in the middle of a longer text only the key itself is masked. Pure.

mod forms;
mod names;

use crate::model::Json;
use forms::mask_text;
use names::Name;

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
