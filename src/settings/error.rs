//! What can be wrong with settings.

use std::fmt;

use super::value::Source;
use crate::api::InvalidApiKey;

/// A setting that cannot be used. No text of it ever holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsError {
    /// A value that makes no sense: have it changed where it comes from.
    Value {
        /// Where the value comes from.
        source: Source,
        /// What is wrong with it.
        why: String,
    },
    /// A server address that cannot be one: have it changed where it comes from.
    BaseUrl {
        /// Where the address comes from.
        source: Source,
        /// What is wrong with it.
        why: String,
        /// The address that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// `sync --mode offline` contradicts itself.
    OfflineSync,
    /// An artifact is not kept for later.
    OfflineArtifact,
    /// There is no key: have one set, or work offline.
    NoKey {
        /// The machine, as it would be named in netrc.
        host: String,
    },
    /// There is a key, and it cannot be one.
    MalformedKey {
        /// Where the key comes from.
        source: Source,
        /// What is wrong with it.
        why: InvalidApiKey,
    },
}

impl SettingsError {
    /// Whether the key is the matter, and not how the program is used.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self, Self::NoKey { .. } | Self::MalformedKey { .. })
    }

    /// Whether the command line itself is wrong. `watch -- CMD` runs its command in all other cases.
    pub fn is_in_the_command_line(&self) -> bool {
        match self {
            Self::Value { source, .. } | Self::BaseUrl { source, .. } => matches!(source, Source::Flag(_)),
            Self::OfflineSync | Self::OfflineArtifact => true,
            Self::NoKey { .. } | Self::MalformedKey { .. } => false,
        }
    }

    /// One thing that a person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Value { .. } => None,
            Self::BaseUrl { suggestion, .. } => suggestion.map(|url| format!("use `{url}`")),
            Self::OfflineSync | Self::OfflineArtifact => {
                Some("use `--dry-run` to see what would be uploaded".to_owned())
            }
            Self::NoKey { .. } => {
                Some("set `WANDB_API_KEY`, or use `--mode offline` now and `wandb-bridge sync` later".to_owned())
            }
            Self::MalformedKey { source, .. } => Some(format!(
                "copy the key anew into {source}, or use `--mode offline` now and `wandb-bridge sync` later"
            )),
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { source, why } => write!(formatter, "{source} cannot be used: {why}"),
            Self::BaseUrl { source, why, .. } => {
                write!(formatter, "the server address from {source} cannot be used: {why}")
            }
            Self::OfflineSync => formatter.write_str("`sync` uploads, so it cannot be used with `--mode offline`"),
            Self::OfflineArtifact => formatter.write_str(
                "`artifact put` uploads, and keeps nothing for later: it cannot be used with `--mode offline`",
            ),
            Self::NoKey { host } => write!(formatter, "there is no W&B API key for `{host}`"),
            Self::MalformedKey { source, why } => {
                write!(formatter, "the W&B API key from {source} cannot be used: {why}")
            }
        }
    }
}

impl std::error::Error for SettingsError {}
