//! The API key: where it is looked for, and what was found.

use super::error::SettingsError;
use super::netrc;
use super::server::Server;
use super::value::{Lookup, Source};
use crate::api::{ApiKey, InvalidApiKey};

/// What was found when a key was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLookup {
    /// A key that looks like one.
    Found {
        /// The key.
        key: ApiKey,
        /// Where it comes from.
        source: Source,
    },
    /// There is none anywhere, or nobody looked because the mode is not online.
    Missing {
        /// The machine it was looked for.
        host: String,
    },
    /// There is something that cannot be a key.
    Malformed {
        /// Where it comes from.
        source: Source,
        /// What is wrong with it.
        why: InvalidApiKey,
    },
}

impl KeyLookup {
    /// The key, or why there is none.
    pub fn require(&self) -> Result<&ApiKey, SettingsError> {
        match self {
            Self::Found { key, .. } => Ok(key),
            Self::Missing { host } => Err(SettingsError::NoKey { host: host.clone() }),
            Self::Malformed { source, why } => Err(SettingsError::MalformedKey { source: source.clone(), why: *why }),
        }
    }
}

/// Looks in `WANDB_API_KEY`, netrc, and the settings files, in this order.
pub(super) fn look_up(
    server: &Server,
    lookup: &Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<KeyLookup, SettingsError> {
    let host = server.netloc();
    let found = match lookup.variable("API_KEY")? {
        Some(found) => Some(found),
        None => netrc::find_key(lookup.environment, host, warnings).or_else(|| lookup.files.get("api_key")),
    };
    let Some(found) = found else {
        if lookup.environment.is_empty("WANDB_API_KEY") {
            warnings.push("`WANDB_API_KEY` is set, but empty".to_owned());
        }
        if lookup.environment.get("WANDB_IDENTITY_TOKEN_FILE").is_some() {
            warnings.push("`WANDB_IDENTITY_TOKEN_FILE` is ignored: only API keys are supported".to_owned());
        }
        return Ok(KeyLookup::Missing { host: host.to_owned() });
    };
    Ok(match ApiKey::new(found.value) {
        Ok(key) => KeyLookup::Found { key, source: found.source },
        Err(why) => KeyLookup::Malformed { source: found.source, why },
    })
}
