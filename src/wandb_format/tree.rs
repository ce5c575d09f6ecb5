//! The trees that config and summary records build up, by the official client's rules.
//!
//! Pure. Does not know where a tree is kept or sent.

use crate::model::Json;
use crate::model::json::MAX_DEPTH;
use crate::proto::wandb_internal::ConfigRecord;
use crate::wandb_format::wire::{Fields, Value};

/// Applies a config record. Returns how many items could not be, because their value is not JSON or their path is too
/// long.
///
/// An object is merged leaf by leaf, so an empty one changes nothing.
pub fn apply_config(tree: &mut Json, record: &ConfigRecord) -> u64 {
    let mut skipped = 0;
    for item in &record.update {
        match item_path(&item.key, &item.nested_key).zip(Json::parse(&item.value_json).ok()).filter(fits) {
            Some((path, value)) => merge_leaves(tree, &mut path.to_vec(), value),
            None => skipped += 1,
        }
    }
    for item in &record.remove {
        match item_path(&item.key, &item.nested_key) {
            Some(path) => drop(remove(tree, path)),
            None => skipped += 1,
        }
    }
    skipped
}

/// Applies a summary record. Returns how many items could not be, because their value is not JSON or their path is too
/// long. The record is given by its bytes; what follows a malformed field is one malformed item.
///
/// An object is one value that replaces the earlier one. A null takes the value out.
pub fn apply_summary(tree: &mut Json, record: &[u8]) -> u64 {
    let mut skipped = 0;
    let mut path = Vec::new();
    let mut removes = false;
    for field in Fields::new(record) {
        match field {
            Ok((1, Value::Bytes(item))) => {
                let value = summary_item(item, &mut path).and_then(|text| Json::parse(text).ok());
                match value.filter(|value| path.len() + value.depth() <= MAX_DEPTH) {
                    Some(Json::Null) => {
                        tree.set_path(&path, Json::Null);
                        remove(tree, &path);
                    }
                    Some(value) => tree.set_path(&path, value),
                    None => skipped += 1,
                }
            }
            Ok((number, _)) => removes |= number == 2,
            Err(_) => skipped += 1,
        }
    }
    // Wherever they stand, they come behind what is set.
    for field in Fields::new(record).filter(|_| removes) {
        let Ok((2, Value::Bytes(item))) = field else { continue };
        match summary_item(item, &mut path) {
            Some(_) => drop(remove(tree, &path)),
            None => skipped += 1,
        }
    }
    skipped
}

/// The path and the JSON text of a `SummaryItem`; `None` when it cannot be read, or its path is so long that a tree of it
/// could exhaust the stack.
fn summary_item<'a>(item: &'a [u8], path: &mut Vec<&'a str>) -> Option<&'a str> {
    path.clear();
    let (mut key, mut text) = ("", "");
    for field in Fields::new(item) {
        match field.ok()? {
            (1, Value::Bytes(bytes)) => key = std::str::from_utf8(bytes).ok()?,
            (2, Value::Bytes(bytes)) => path.push(std::str::from_utf8(bytes).ok()?),
            (16, Value::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok()?,
            _ => {}
        }
    }
    if path.is_empty() {
        path.push(key);
    }
    (path.len() <= MAX_DEPTH).then_some(text)
}

/// Sets every leaf of `value` at its place below `path`. A leaf in the way is replaced; an empty object leaves no trace.
pub(crate) fn merge_leaves(tree: &mut Json, path: &mut Vec<String>, value: Json) {
    match value {
        Json::Object(members) => {
            for (key, member) in members {
                path.push(key);
                merge_leaves(tree, path, member);
                path.pop();
            }
        }
        leaf => tree.set_path(path, leaf),
    }
}

/// The path of an item; `None` when it is so long that a tree of it could exhaust the stack.
fn item_path<'a>(key: &'a String, nested_key: &'a [String]) -> Option<&'a [String]> {
    let path = if nested_key.is_empty() { std::slice::from_ref(key) } else { nested_key };
    (path.len() <= MAX_DEPTH).then_some(path)
}

/// Whether a tree with a value at a path can be read back.
fn fits((path, value): &(&[String], Json)) -> bool {
    path.len() + value.depth() <= MAX_DEPTH
}

/// Takes out the node at `path`, and the objects above it that it leaves empty.
fn remove<S: AsRef<str>>(tree: &mut Json, path: &[S]) -> Option<Json> {
    let (first, rest) = path.split_first()?;
    let Json::Object(members) = tree else { return None };
    if rest.is_empty() {
        return members.remove(first.as_ref());
    }
    let child = members.get_mut(first.as_ref())?;
    let removed = remove(child, rest)?;
    if child.as_object().is_some_and(std::collections::BTreeMap::is_empty) {
        members.remove(first.as_ref());
    }
    Some(removed)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto::wandb_internal::{ConfigItem, SummaryItem, SummaryRecord};

    fn config(tree: &mut Json, updates: &[(&[&str], &str)], removes: &[&[&str]]) -> u64 {
        let path = |path: &[&str]| path.iter().map(|key| (*key).to_owned()).collect();
        let update = |(keys, value): &(&[&str], &str)| ConfigItem {
            nested_key: path(keys),
            value_json: (*value).to_owned(),
            ..ConfigItem::default()
        };
        let removed = |keys: &&[&str]| ConfigItem { nested_key: path(keys), ..ConfigItem::default() };
        let record = ConfigRecord {
            update: updates.iter().map(update).collect(),
            remove: removes.iter().map(removed).collect(),
        };
        apply_config(tree, &record)
    }

    fn summary(tree: &mut Json, updates: &[(&str, &str)], removes: &[&str]) -> u64 {
        let update = |(key, value): &(&str, &str)| SummaryItem {
            key: (*key).to_owned(),
            value_json: (*value).to_owned(),
            ..SummaryItem::default()
        };
        let removed = |key: &&str| SummaryItem { key: (*key).to_owned(), ..SummaryItem::default() };
        let record = SummaryRecord {
            update: updates.iter().map(update).collect(),
            remove: removes.iter().map(removed).collect(),
        };
        apply_summary(tree, &record.encode_to_vec())
    }

    #[test]
    fn config_objects_are_merged_leaf_by_leaf() {
        let mut tree = Json::object();
        config(&mut tree, &[(&["a"], r#"{"x":1,"y":{"z":2}}"#), (&["a"], r#"{"y":{"w":3},"e":{}}"#)], &[]);
        assert_eq!(tree.to_string(), r#"{"a":{"x":1,"y":{"w":3,"z":2}}}"#);
        config(&mut tree, &[(&["a"], "{}"), (&["b", "c"], "[{}]"), (&["a", "x", "deep"], "null")], &[]);
        assert_eq!(tree.to_string(), r#"{"a":{"x":{"deep":null},"y":{"w":3,"z":2}},"b":{"c":[{}]}}"#);
        config(&mut tree, &[], &[&["a", "x", "deep"], &["b"], &["not", "there"], &["a", "y", "w", "leaf"]]);
        assert_eq!(tree.to_string(), r#"{"a":{"y":{"w":3,"z":2}}}"#);
        config(&mut tree, &[(&["a"], "1")], &[]);
        assert_eq!(tree.to_string(), r#"{"a":1}"#);
    }

    #[test]
    fn summary_objects_are_replaced_whole() {
        let mut tree = Json::object();
        summary(&mut tree, &[("a.b/c", r#"{"min":1,"max":2}"#), ("n", "NaN"), ("gone", "1")], &["gone"]);
        summary(&mut tree, &[("a.b/c", r#"{"min":0}"#)], &[]);
        assert_eq!(tree.to_string(), r#"{"a.b/c":{"min":0},"n":NaN}"#);
        summary(&mut tree, &[("n", "null"), ("other", "null"), ("list", "[null]")], &[]);
        assert_eq!(tree.to_string(), r#"{"a.b/c":{"min":0},"list":[null]}"#);
    }

    #[test]
    fn what_is_malformed_costs_only_itself() {
        let item = |key: &str| SummaryItem { key: key.to_owned(), value_json: "1".to_owned(), ..Default::default() };
        let set = |key| SummaryRecord { update: vec![item(key)], ..SummaryRecord::default() }.encode_to_vec();
        let removed = SummaryRecord { remove: vec![item("b")], ..SummaryRecord::default() }.encode_to_vec();
        // Its key is not UTF-8, then an item ends in mid-way.
        let (no_text, cut) = ([10, 3, 10, 1, 0xff], [10, 9, 10]);
        let record = [&removed[..], &set("a"), &no_text, &set("b"), &cut].concat();
        let mut tree = Json::object();
        assert_eq!(apply_summary(&mut tree, &record), 2);
        assert_eq!(tree.to_string(), r#"{"a":1}"#, "what is removed goes last");
    }

    #[test]
    fn an_item_that_is_not_json_costs_only_itself() {
        let mut tree = Json::object();
        assert_eq!(summary(&mut tree, &[("a", "1"), ("b", ""), ("c", "[")], &[]), 2);
        let long = vec!["k"; MAX_DEPTH + 1];
        assert_eq!(config(&mut tree, &[(&["d"], "oops"), (&long, "1")], &[&long]), 3);
        assert_eq!(tree.to_string(), r#"{"a":1}"#);
    }

    #[test]
    fn a_tree_never_grows_so_deep_that_it_cannot_be_read_back() {
        let mut tree = Json::object();
        let path = vec!["k"; 300];
        let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        assert_eq!(config(&mut tree, &[(&path, &deep), (&path[..200], &deep)], &[]), 1);
        assert_eq!(summary(&mut tree, &[("s", &format!("[{}]", "[".repeat(499) + &"]".repeat(499)))], &[]), 1);
        assert!(Json::parse(&tree.to_string()).is_ok());
        assert_eq!(tree.depth(), 500);
    }
}
