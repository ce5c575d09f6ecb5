//! Serde for [`Json`] inside of state files: as text, because W&B's JSON has numbers that JSON has not.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

use crate::model::Json;

/// Writes the value as one string.
pub fn serialize<S: Serializer>(value: &Json, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads the value from a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
    let text = String::deserialize(deserializer)?;
    Json::parse(&text).map_err(D::Error::custom)
}
