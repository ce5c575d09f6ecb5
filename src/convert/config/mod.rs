//! Config of a run from files and flags: text in, one tree of typed values out.
//!
//! Promises that no text makes it panic, recurse without end or take much more memory than the text itself, and that
//! nested maps stay nested. Several sources are laid over each other: the nearer one wins each value, and what it does
//! not say comes from the others. Does not know where files lie and does not read them.

mod flag;
mod masking;
mod places;
mod python;
mod scalars;
mod yaml;

pub use flag::{ConfigFlag, ConfigFlagError};
pub use masking::{Masked, mask, mask_value};
pub use places::{ConfigPlaces, FILE_NAMES, Format, RunDirectories};

use crate::model::Json;
use crate::model::json::JsonError;

/// A config file that is larger than this is none, in bytes.
pub const LARGEST_FILE: u64 = 4 << 20;
/// How deep maps and lists may nest.
const DEEPEST: usize = 64;
/// How many values a config may hold, those that YAML aliases repeat included.
const MOST_VALUES: usize = 100_000;

/// Why a text is not a config. The file that holds it is left out, and named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not YAML; the parser's words, with the place.
    #[error("not YAML: {0}")]
    Yaml(String),
    /// A list or a single value.
    #[error("it holds {0} where a map of names and values is wanted")]
    NotAMap(&'static str),
    /// A YAML stream of several documents: nobody knows which is meant.
    #[error("it holds several documents")]
    SeveralDocuments,
    /// Nesting that no config has.
    #[error("it is nested more than {DEEPEST} levels deep")]
    TooDeep,
    /// More values than a config has, or aliases that multiply.
    #[error("it holds more than {MOST_VALUES} values, those of aliases included")]
    TooLarge,
    /// An alias inside of what it repeats.
    #[error("an alias in it refers to itself")]
    EndlessAlias,
}

/// Reads the content of a config file: a map, empty for an empty file. The shells that W&B puts around values in its own
/// config files are taken off.
pub fn parse(content: &[u8], format: Format) -> Result<Json, ConfigError> {
    let text = std::str::from_utf8(content).map_err(|_| ConfigError::Encoding)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value = match format {
        _ if text.trim().is_empty() => Json::object(),
        Format::Json => Json::parse(text)?,
        Format::Yaml => yaml::parse(text)?,
    };
    check_size(&value, 0, &mut 0)?;
    match value {
        Json::Null => Ok(Json::object()),
        Json::Object(_) => Ok(without_shells(value)),
        Json::Array(_) => Err(ConfigError::NotAMap("a list")),
        _ => Err(ConfigError::NotAMap("a single value")),
    }
}

/// Lays `nearer` over `config`: each value of it wins, and what it does not say stays. Maps are laid over each other key
/// by key; lists are one value.
pub fn lay_over(config: &mut Json, nearer: Json) {
    match (config, nearer) {
        (Json::Object(members), Json::Object(nearer)) => {
            for (key, value) in nearer {
                lay_over(members.entry(key).or_default(), value);
            }
        }
        // An empty map says nothing of what is in it.
        (place, value) => *place = value,
    }
}

/// The values at and below a path, each with its own path. An empty map has none.
pub fn leaves(path: &[String], value: &Json) -> Vec<(Vec<String>, Json)> {
    fn collect(value: &Json, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, Json)>) {
        let Json::Object(members) = value else {
            return leaves.push((path.clone(), value.clone()));
        };
        for (key, member) in members {
            path.push(key.clone());
            collect(member, path, leaves);
            path.pop();
        }
    }
    let mut found = Vec::new();
    // A config is a map.
    if !path.is_empty() || value.as_object().is_some() {
        collect(value, &mut path.to_vec(), &mut found);
    }
    found
}

/// The values of `now` that are not in `before`.
pub fn changes(before: &Json, now: &Json) -> Vec<(Vec<String>, Json)> {
    let mut leaves = leaves(&[], now);
    // As text, in which a NaN is itself.
    leaves.retain(|(path, value)| at(before, path).is_none_or(|known| known.to_string() != value.to_string()));
    leaves
}

/// Whether `config` says something at the path, above it, or below it: then nothing else may be set there.
pub fn speaks_of(config: &Json, path: &[String]) -> bool {
    let mut place = config;
    for key in path {
        match place {
            Json::Object(members) => match members.get(key) {
                Some(member) => place = member,
                None => return false,
            },
            // A single value stands above.
            _ => return true,
        }
    }
    match place {
        Json::Object(members) => !members.is_empty(),
        _ => true,
    }
}

fn at<'a>(config: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(config, |place, key| place.get(key))
}

fn check_size(value: &Json, depth: usize, values: &mut usize) -> Result<(), ConfigError> {
    *values += 1;
    if depth > DEEPEST {
        return Err(ConfigError::TooDeep);
    }
    if *values > MOST_VALUES {
        return Err(ConfigError::TooLarge);
    }
    match value {
        Json::Array(items) => items.iter().try_for_each(|item| check_size(item, depth + 1, values)),
        Json::Object(members) => members.values().try_for_each(|member| check_size(member, depth + 1, values)),
        _ => Ok(()),
    }
}

/// A `config.yaml` that a W&B client wrote holds `{value: …}`, in older versions with `desc: …` beside it, around each
/// value, and its own notes under `_wandb`.
fn without_shells(config: Json) -> Json {
    let Json::Object(mut members) = config else { return config };
    let is_shell = |value: &Json| {
        value.as_object().is_some_and(|shell| {
            shell.contains_key("value") && shell.keys().all(|key| matches!(key.as_str(), "value" | "desc"))
        })
    };
    let marked = members.remove("_wandb").is_some() | members.remove("wandb_version").is_some();
    let described = |value: &Json| value.get("desc").is_some();
    let shells = !members.is_empty() && members.values().all(is_shell) && (marked || members.values().all(described));
    if shells {
        for value in members.values_mut() {
            if let Json::Object(shell) = value {
                *value = shell.remove("value").unwrap_or_default();
            }
        }
    }
    Json::Object(members)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    #[test]
    fn nearer_values_win_and_the_rest_stays() {
        let mut config = json(r#"{"a":1,"model":{"depth":3,"width":4},"b":{"c":1},"d":1,"e":{"f":1}}"#);
        lay_over(&mut config, json(r#"{"a":2,"model":{"depth":5},"b":7,"d":{"x":1},"list":[1],"e":{}}"#));
        assert_eq!(
            config.to_string(),
            r#"{"a":2,"b":7,"d":{"x":1},"e":{"f":1},"list":[1],"model":{"depth":5,"width":4}}"#
        );
    }

    #[test]
    fn leaves_have_their_paths() {
        let leaves: Vec<String> = leaves(&[], &json(r#"{"a.b":1,"c":{"d":[1,{"x":2}],"e":{}},"f":null}"#))
            .into_iter()
            .map(|(path, value)| format!("{}={value}", path.join("/")))
            .collect();
        let below = super::leaves(&["x".to_owned()], &json(r#"{"y":1}"#));
        assert_eq!(below, [(vec!["x".to_owned(), "y".to_owned()], Json::from(1))]);
        assert_eq!(super::leaves(&[], &Json::Null), []);
        assert_eq!(leaves, ["a.b=1", "c/d=[1,{\"x\":2}]", "f=null"]);
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let changed = |before: &str, now: &str| changes(&json(before), &json(now)).len();
        assert_eq!(changed(r#"{"a":NaN,"b":{"c":1}}"#, r#"{"a":NaN,"b":{"c":1}}"#), 0);
        assert_eq!(changed(r#"{"a":NaN,"b":{"c":1}}"#, r#"{"a":1,"b":{"c":1,"d":2}}"#), 2);
        assert_eq!(changed(r#"{"a":1,"b":2}"#, r#"{"a":1}"#), 0);
        assert_eq!(changed(r#"{"a":{"b":1}}"#, r#"{"a":3}"#), 1);
    }

    #[test]
    fn what_is_spoken_of_is_known_above_and_below() {
        let config = json(r#"{"lr":1,"model":{"depth":2},"empty":{}}"#);
        for (path, expected) in [
            (vec!["lr"], true),
            (vec!["lr", "x"], true),
            (vec!["model"], true),
            (vec!["model", "depth"], true),
            (vec!["model", "width"], false),
            (vec!["other"], false),
            (vec!["empty"], false),
        ] {
            let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
            assert_eq!(speaks_of(&config, &path), expected, "{path:?}");
        }
    }

    #[test]
    fn contents_become_maps() {
        let check = |content: &str, format, expected: &str| {
            assert_eq!(parse(content.as_bytes(), format).unwrap().to_string(), expected, "{content}");
        };
        check("", Format::Json, "{}");
        check(" \n", Format::Yaml, "{}");
        check("# nothing\n", Format::Yaml, "{}");
        check("null", Format::Json, "{}");
        check("\u{feff}{\"a\": NaN}", Format::Json, r#"{"a":NaN}"#);
        check("\u{feff}a: 1\n", Format::Yaml, r#"{"a":1}"#);
        // Shells of W&B clients, new and old.
        check(
            "_wandb:\n  value: {t: 1}\nlr:\n  value: 0.1\nm:\n  value: {d: 1}\n",
            Format::Yaml,
            r#"{"lr":0.1,"m":{"d":1}}"#,
        );
        check("wandb_version: 1\nlr:\n  desc: null\n  value: 3\n", Format::Yaml, r#"{"lr":3}"#);
        check(r#"{"lr":{"desc":"rate","value":3}}"#, Format::Json, r#"{"lr":3}"#);
        // A config of a person who likes the word.
        check(r#"{"lr":{"value":3},"b":{"value":1}}"#, Format::Json, r#"{"b":{"value":1},"lr":{"value":3}}"#);
        check(r#"{"_wandb":{},"lr":{"value":3,"unit":"s"}}"#, Format::Json, r#"{"lr":{"unit":"s","value":3}}"#);
    }

    #[test]
    fn what_is_no_config_is_refused_with_a_reason() {
        let check = |content: &[u8], format, words: &str| {
            let why = parse(content, format).unwrap_err().to_string();
            assert!(why.contains(words), "{why}");
        };
        check(b"\xff\xfe", Format::Yaml, "UTF-8");
        check(b"[1]", Format::Json, "a list");
        check(b"just words\n", Format::Yaml, "a single value");
        check(b"{", Format::Json, "byte 1");
        check(b"a: [1\nb: 2\n", Format::Yaml, "line");
        check(b"a: 1\n---\nb: 2\n", Format::Yaml, "several documents");
        check(format!("{}1{}", "{\"a\":".repeat(70), "}".repeat(70)).as_bytes(), Format::Json, "deep");
        check(format!("[{}1]", "1,".repeat(200_000)).as_bytes(), Format::Json, "100000 values");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".{0,200}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for content in [text.as_bytes(), &bytes] {
                let _ = (parse(content, Format::Json), parse(content, Format::Yaml));
            }
        }

        #[test]
        fn json_is_yaml(numbers in proptest::collection::btree_map("[a-z]{1,6}", proptest::num::i64::ANY, 0..6), text in "[ -~]{0,20}") {
            let mut members: std::collections::BTreeMap<String, Json> =
                numbers.into_iter().map(|(key, value)| (key, Json::from(value))).collect();
            members.insert("text".to_owned(), Json::from(text));
            let config = Json::Object(members).to_string();
            let (a, b) = (parse(config.as_bytes(), Format::Json), parse(config.as_bytes(), Format::Yaml));
            proptest::prop_assert_eq!(a, b);
        }
    }
}
