//! `--config KEY=VALUE`.

use std::str::FromStr;

use crate::convert::config::{scalars, yaml};
use crate::model::Json;

/// One value of the config, as a flag gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigFlag {
    /// The keys; dots of the flag nest.
    pub path: Vec<String>,
    /// The value, typed as YAML would type it.
    pub value: Json,
}

/// Why a flag gives no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFlagError {
    /// There is no `=`, or nothing before it.
    #[error("expected `KEY=VALUE`, where dots in KEY nest: `model.depth=3`")]
    Form,
    /// A key that belongs to W&B's own notes.
    #[error("`_wandb` is W&B's own")]
    Reserved,
    /// A list, a map or a quoted text that does not end.
    #[error("the value is not a list, a map or a quoted text: {0}")]
    Value(String),
}

impl FromStr for ConfigFlag {
    type Err = ConfigFlagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or(ConfigFlagError::Form)?;
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(ConfigFlagError::Form);
        }
        if path.first().is_some_and(|first| first == "_wandb") {
            return Err(ConfigFlagError::Reserved);
        }
        let value = value.trim();
        let value = if value.starts_with(['[', '{', '"', '\'']) {
            yaml::parse(value).map_err(|error| ConfigFlagError::Value(error.to_string()))?
        } else {
            // Anything else is one word or one text, whatever it holds: `note=a: b #1`.
            scalars::plain(value)
        };
        Ok(Self { path, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_typed_and_nested() {
        for (text, path, value) in [
            ("lr=1e-3", vec!["lr"], "0.001"),
            ("model.depth = 3", vec!["model", "depth"], "3"),
            ("a=true", vec!["a"], "true"),
            ("a=", vec!["a"], "null"),
            ("a=null", vec!["a"], "null"),
            ("a=\"1\"", vec!["a"], "\"1\""),
            ("a='x y'", vec!["a"], "\"x y\""),
            ("a=[1, b, {c: 2}]", vec!["a"], "[1,\"b\",{\"c\":2}]"),
            ("a={\"b\": 1}", vec!["a"], "{\"b\":1}"),
            ("note=a: b #1", vec!["note"], "\"a: b #1\""),
            ("url=x=y", vec!["url"], "\"x=y\""),
            ("a=-", vec!["a"], "\"-\""),
        ] {
            let flag: Result<ConfigFlag, _> = text.parse();
            let flag = flag.map(|flag| (flag.path, flag.value.to_string()));
            assert_eq!(flag, Ok((path.into_iter().map(str::to_owned).collect(), value.to_owned())), "{text}");
        }
        for bad in ["", "lr", "=1", "a..b=1", ".a=1", "a.=1", "_wandb.t=1", "a=[1", "a='x", "a={b"] {
            assert!(bad.parse::<ConfigFlag>().is_err(), "{bad}");
        }
    }
}
