//! What telemetry records say together, in the form that a run's config carries it (`_wandb.t`).
//!
//! Switches that this program has never heard of are kept, because they are told apart by their numbers alone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::Json;
use crate::proto::wandb_internal::TelemetryRecord;
use crate::wandb_format::wire::{Fields, Value};

/// A fold of telemetry records. Serialized, it can be kept between two uploads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// The switches that are on, by the number of the field that holds them.
    switches: BTreeMap<u32, BTreeSet<u32>>,
    /// The texts, by the number of their field.
    texts: BTreeMap<u32, String>,
    labels: BTreeMap<u32, String>,
    labeled: bool,
}

impl Telemetry {
    /// Adds a record: switches join those that are on, texts replace earlier ones.
    pub fn add(&mut self, record: &TelemetryRecord) {
        let switches = [
            (1, &record.imports_init),
            (2, &record.imports_finish),
            (3, &record.feature),
            (8, &record.env),
            (10, &record.deprecated),
        ];
        for (number, message) in switches.into_iter().filter(|(_, message)| !message.is_empty()) {
            self.switches.entry(number).or_default().extend(switched_on(message));
        }
        let texts = [
            (PYTHON_VERSION, &record.python_version),
            (CLI_VERSION, &record.cli_version),
            (6, &record.huggingface_version),
            (CORE_VERSION, &record.core_version),
            (13, &record.platform),
        ];
        for (number, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            self.texts.insert(number, text.clone());
        }
        for field in Fields::new(&record.label) {
            self.labeled = true;
            if let Ok((number, Value::Bytes(text))) = field {
                self.labels.insert(number, String::from_utf8_lossy(text).into_owned());
            }
        }
    }

    /// Sets the version of the uploading program (`"12"`), as the official uploader does with its own.
    pub fn set_core_version(&mut self, version: &str) {
        self.texts.insert(CORE_VERSION, version.to_owned());
    }

    /// Switches on a feature (`"3"`), by its number.
    pub fn set_feature(&mut self, number: u32) {
        self.switches.entry(3).or_default().insert(number);
    }

    /// The version of the Python client that made the run; also `_wandb.cli_version`.
    pub fn cli_version(&self) -> Option<&str> {
        self.texts.get(&CLI_VERSION).map(String::as_str)
    }

    /// The version of Python that made the run; also `_wandb.python_version`.
    pub fn python_version(&self) -> Option<&str> {
        self.texts.get(&PYTHON_VERSION).map(String::as_str)
    }

    /// The value of `_wandb.t`.
    pub fn to_json(&self) -> Json {
        let numbers = |numbers: &BTreeSet<u32>| {
            Json::Array(numbers.iter().map(|number| Json::from(i64::from(*number))).collect())
        };
        let texts = |texts: &BTreeMap<u32, String>| {
            texts
                .iter()
                .map(|(number, text)| (number.to_string(), Json::from(text.as_str())))
                .collect::<BTreeMap<_, _>>()
        };
        let mut members = texts(&self.texts);
        members.extend(self.switches.iter().map(|(number, on)| (number.to_string(), numbers(on))));
        if self.labeled {
            members.insert("9".to_owned(), Json::Object(texts(&self.labels)));
        }
        Json::Object(members)
    }
}

const PYTHON_VERSION: u32 = 4;
const CLI_VERSION: u32 = 5;
const CORE_VERSION: u32 = 12;

/// The numbers of the fields that are true in a message of booleans.
fn switched_on(message: &[u8]) -> impl Iterator<Item = u32> {
    Fields::new(message).filter_map(|field| match field {
        Ok((number, Value::Varint(value))) if value != 0 => Some(number),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::wandb_internal::record::RecordType;

    #[test]
    fn records_join() {
        let mut telemetry = Telemetry::default();
        // Features 2 and 700 (of a client to come); a label whose code_string is "x".
        telemetry.add(&TelemetryRecord {
            feature: vec![0x10, 1, 0xe0, 0x2b, 1].into(),
            label: vec![0x0a, 1, b'x'].into(),
            python_version: "3.11".into(),
            cli_version: "0.30.0".into(),
            ..TelemetryRecord::default()
        });
        telemetry.add(&TelemetryRecord {
            feature: vec![0x20, 1].into(),
            cli_version: "0.31.0".into(),
            ..TelemetryRecord::default()
        });
        telemetry.set_core_version("1");
        telemetry.set_feature(76);
        let expected = r#"{"12":"1","3":[2,4,76,700],"4":"3.11","5":"0.31.0","9":{"1":"x"}}"#;
        assert_eq!(telemetry.to_json().to_string(), expected);
        assert_eq!(telemetry.cli_version(), Some("0.31.0"));
        let kept = serde_json::to_string(&telemetry).unwrap();
        assert_eq!(serde_json::from_str::<Telemetry>(&kept).unwrap(), telemetry);
    }

    #[test]
    fn our_own_record_says_where_the_run_comes_from() {
        let RecordType::Telemetry(record) = crate::wandb_format::telemetry_record() else { unreachable!() };
        let mut telemetry = Telemetry::default();
        telemetry.add(&record);
        assert_eq!(telemetry.to_json().to_string(), r#"{"3":[49]}"#);
    }
}
