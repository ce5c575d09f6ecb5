//! YAML text → one tree of values.
//!
//! Tolerant where training programs are: unknown tags keep the value that they stand on, what Python's pickling YAML
//! writes becomes plain values (see `python`), aliases and merge keys (`<<`) are filled in. What aliases repeat counts as
//! often as it is repeated, so that a short text cannot make a large tree. Keys are texts, as they are written.

use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::convert::config::{ConfigError, DEEPEST, MOST_VALUES, python, scalars};
use crate::model::Json;

/// How much text aliases may repeat, in bytes.
const MOST_TEXT: usize = 16 << 20;
/// The namespace of the tags that are written `!!…`.
const YAML_NAMESPACE: &str = "tag:yaml.org,2002:";

/// Reads one document.
pub(super) fn parse(text: &str) -> Result<Json, ConfigError> {
    let options = granit_parser::options! { block_scalar_eof_without_line_feed: true };
    let mut tree = Tree::default();
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, _) = event.map_err(|error| ConfigError::Yaml(error.to_string()))?;
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(ConfigError::SeveralDocuments);
                }
            }
            event => tree.event(event)?,
        }
    }
    Ok(tree.root)
}

#[derive(Default)]
struct Tree {
    root: Json,
    open: Vec<Open>,
    anchors: HashMap<usize, (Json, Cost)>,
    spent: Cost,
}

/// A map or list that has not ended.
struct Open {
    tag: Option<String>,
    anchor: usize,
    /// What had been spent before it.
    before: Cost,
    content: Content,
}

enum Content {
    List(Vec<Json>),
    Map { members: BTreeMap<String, Json>, key: Option<Key>, merged: Vec<Json> },
}

enum Key {
    Text(String),
    /// `<<`
    Merge,
}

/// What a tree costs: its values, and the bytes of its texts.
#[derive(Clone, Copy, Default)]
struct Cost {
    values: usize,
    text: usize,
}

impl Tree {
    fn event(&mut self, event: Event<'_>) -> Result<(), ConfigError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(Cost { values: 1, text: text.len() })?;
                let tag = tag.as_deref().map(tag_name);
                let is_plain = style == ScalarStyle::Plain;
                if let Some(key) = self.wanted_key() {
                    *key = Some(if is_plain && tag.is_none() && text == "<<" {
                        Key::Merge
                    } else {
                        Key::Text(text.clone().into_owned())
                    });
                    return self.remember(anchor, || Json::from(&*text), Cost { values: 1, text: text.len() });
                }
                let value = scalar(&text, is_plain, tag.as_deref());
                self.remember(anchor, || value.clone(), Cost { values: 1, text: text.len() })?;
                self.put(value);
            }
            Event::SequenceStart(_, anchor, tag) => self.open(anchor, tag.as_deref(), Content::List(Vec::new()))?,
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map { members: BTreeMap::new(), key: None, merged: Vec::new() };
                self.open(anchor, tag.as_deref(), content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => {
                let (value, cost) = self.anchors.get(&anchor).ok_or(ConfigError::EndlessAlias)?;
                let (value, cost) = (value.clone(), *cost);
                self.spend(cost)?;
                self.put(value);
            }
            // Nothing but the structure of the stream: the other events are asked for by options.
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, content: Content) -> Result<(), ConfigError> {
        if self.open.len() >= DEEPEST {
            return Err(ConfigError::TooDeep);
        }
        let before = self.spent;
        self.spend(Cost { values: 1, text: 0 })?;
        self.open.push(Open { tag: tag.map(tag_name), anchor, before, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), ConfigError> {
        let Some(Open { tag, anchor, before, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Json::Array(items),
            Content::Map { mut members, merged, .. } => {
                for map in merged {
                    // What is written in the map itself wins, and then what is merged first.
                    let Json::Object(map) = map else { continue };
                    for (key, value) in map {
                        members.entry(key).or_insert(value);
                    }
                }
                Json::Object(members)
            }
        };
        let value = match tag {
            Some(tag) => python::plain(&tag, value),
            None => value,
        };
        let cost = Cost { values: self.spent.values - before.values, text: self.spent.text - before.text };
        self.remember(anchor, || value.clone(), cost)?;
        self.put(value);
        Ok(())
    }

    /// Puts a value where it belongs.
    fn put(&mut self, value: Json) {
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = value,
            Some(Content::List(items)) => items.push(value),
            Some(Content::Map { members, key, merged }) => match key.take() {
                None => {
                    *key = Some(Key::Text(match value {
                        Json::String(text) => text,
                        other => other.to_string(),
                    }));
                }
                Some(Key::Text(key)) => drop(members.insert(key, value)),
                Some(Key::Merge) => match value {
                    Json::Object(_) => merged.push(value),
                    Json::Array(maps) if maps.iter().all(|map| map.as_object().is_some()) => merged.extend(maps),
                    other => drop(members.insert("<<".to_owned(), other)),
                },
            },
        }
    }

    /// The place of the key that a map waits for.
    fn wanted_key(&mut self) -> Option<&mut Option<Key>> {
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(Content::Map { key: key @ None, .. }) => Some(key),
            _ => None,
        }
    }

    /// Keeps what an alias may repeat. The copy is memory, too.
    fn remember(&mut self, anchor: usize, value: impl FnOnce() -> Json, cost: Cost) -> Result<(), ConfigError> {
        if anchor != 0 {
            self.spend(cost)?;
            self.anchors.insert(anchor, (value(), cost));
        }
        Ok(())
    }

    fn spend(&mut self, cost: Cost) -> Result<(), ConfigError> {
        self.spent.values += cost.values;
        self.spent.text += cost.text;
        if self.spent.values > 2 * MOST_VALUES || self.spent.text > MOST_TEXT {
            return Err(ConfigError::TooLarge);
        }
        Ok(())
    }
}

/// `python/tuple` for `!!python/tuple`, and for what is not of YAML's own namespace the tag as it stands.
fn tag_name(tag: &Tag) -> String {
    match tag.suffix_in_namespace(YAML_NAMESPACE) {
        Some(name) => name.into_owned(),
        None => format!("!{}", tag.suffix().trim_start_matches('!')),
    }
}

fn scalar(text: &str, is_plain: bool, tag: Option<&str>) -> Json {
    match tag {
        None if is_plain => scalars::plain(text),
        None => Json::from(text),
        Some(tag) => python::scalar(tag, text, is_plain),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|value| value.to_string()).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn nested_maps_stay_nested_and_typed() {
        check(
            "model:\n  name: 'resnet'\n  layers: [1, 2.5, true, \"3\"]\n  ? [a, 1]\n  : x\nlr: 1e-3\nempty:\n1: one\non: 2\n",
            r#"{"1":"one","empty":null,"lr":0.001,"model":{"[\"a\",1]":"x","layers":[1,2.5,true,"3"],"name":"resnet"},"on":2}"#,
        );
        check("text: |\n  a\n  b", r#"{"text":"a\nb"}"#);
        check("text: >-\n  a\n  b\n", r#"{"text":"a b"}"#);
        check("a: 1\na: 2\n", r#"{"a":2}"#);
        check("...\n", "null");
    }

    #[test]
    fn aliases_and_merge_keys_are_filled_in() {
        check(
            "base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\nd: *b\n",
            r#"{"base":{"x":1,"y":2},"c":{"x":1,"y":3},"d":{"x":1,"y":2}}"#,
        );
        check(
            "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n",
            r#"{"a":{"x":1},"b":{"x":2,"y":2},"c":{"x":1,"y":2}}"#,
        );
        check("&k key: &v value\n*k : *v\n", r#"{"key":"value"}"#);
        check("'<<': 1\n", r#"{"<<":1}"#);
        check("<<: 1\n", r#"{"<<":1}"#);
        assert_eq!(parse("&a [*a]"), Err(ConfigError::EndlessAlias));
        assert!(matches!(parse("a: *nothing\n"), Err(ConfigError::Yaml(_))));
    }

    #[test]
    fn a_short_text_makes_no_large_tree() {
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}, ", level - 1).repeat(9);
            laughs.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert_eq!(parse(&laughs), Err(ConfigError::TooLarge));
        let mut merges = "a0: &a0 {k: v}\n".to_owned();
        for level in 1..40 {
            merges
                .push_str(&format!("a{level}: &a{level} {{k{level}: {{<<: [*a{0}, *a{0}]}}, <<: *a{0}}}\n", level - 1));
        }
        assert_eq!(parse(&merges), Err(ConfigError::TooLarge));
        let long = "x".repeat(1 << 20);
        assert_eq!(parse(&format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(50))), Err(ConfigError::TooLarge));
        for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)] {
            assert!(parse(&deep).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[a-c0-9:\\-\\[\\]{}&*!<|>?,'\"#%\\n ~.]{0,80}") {
            let _ = parse(&text);
        }
    }
}
