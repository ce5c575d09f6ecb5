//! Which keys of one object are not in another as they are.
//!
//! Objects in objects are compared leaf by leaf: servers tell `{"a": {"b": 1}}` also as `{"a.b": 1}`.

use std::collections::BTreeMap;

use crate::model::Json;

/// A key that is not there, or not with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) key: String,
    pub(super) why: String,
}

/// The leaves of `here` that `there` does not hold. What `there` has besides does not matter, and neither does a null.
pub(super) fn differences(here: &Json, there: &Json) -> Vec<Difference> {
    let there = leaves(there);
    let mut found = Vec::new();
    for (key, value) in leaves(here) {
        if *value == Json::Null {
            continue;
        }
        let why = match there.get(&key) {
            None if is_empty(value) => continue,
            None => "missing".to_owned(),
            Some(other) if value.is_same_value(other) => continue,
            Some(other) => format!("is {} there, and {} here", short(other), short(value)),
        };
        found.push(Difference { key, why });
    }
    found
}

/// How many leaves an object has.
pub(super) fn count(object: &Json) -> u64 {
    leaves(object).len() as u64
}

fn is_empty(value: &Json) -> bool {
    value.as_object().is_some_and(BTreeMap::is_empty)
}

fn leaves(json: &Json) -> BTreeMap<String, &Json> {
    let mut leaves = BTreeMap::new();
    if let Json::Object(members) = json {
        members.iter().for_each(|(key, value)| add(key.clone(), value, &mut leaves));
    }
    leaves
}

fn add<'a>(path: String, value: &'a Json, into: &mut BTreeMap<String, &'a Json>) {
    match value {
        Json::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| add(format!("{path}.{key}"), value, into));
        }
        leaf => {
            into.insert(path, leaf);
        }
    }
}

/// As much of a value as a person reads.
fn short(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(here: &str, there: &str, expected: &[&str]) {
        let differences = differences(&Json::parse(here).unwrap(), &Json::parse(there).unwrap());
        let found: Vec<String> = differences.iter().map(|it| format!("{} {}", it.key, it.why)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn leaves_are_compared_whatever_they_lie_in() {
        check(r#"{"a":{"b":1,"c":[1]},"n":NaN}"#, r#"{"a.b":1.0,"a":{"c":[1]},"n":"NaN","more":1}"#, &[]);
        check(r#"{"a":null,"e":{}}"#, "{}", &[]);
        check(
            r#"{"a":1,"b":{"c":"x"},"d":2}"#,
            r#"{"a":2,"b":{"e":0}}"#,
            &["a is 2 there, and 1 here", "b.c missing", "d missing"],
        );
        check(
            &format!(r#"{{"a":"{}"}}"#, "ü".repeat(100)),
            r#"{"a":1}"#,
            &[&format!("a is 1 there, and \"{}… here", "ü".repeat(59))],
        );
    }
}
