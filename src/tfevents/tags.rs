//! The tags of one TB run: their names, and the plugin that an earlier value named.
//!
//! Shared by all files of a TB run and kept across restarts, because writers may give metadata only with the first
//! value of a tag. Knows no events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::tfevents::kind::ValueKind;

/// The number of a tag in its [`TagTable`]: dense, from 0. Two tags with the same name
/// have the same number. Not stable across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagId(u32);

impl TagId {
    /// For use as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The tags of one TB run.
///
/// As data it is a map of those tags whose plugin is known, to the plugin's name.
#[derive(Debug, Clone, Default)]
pub struct TagTable {
    /// By the bytes in the file, which need not be UTF-8.
    ids: HashMap<Box<[u8]>, TagId>,
    tags: Vec<Tag>,
    /// The tag that was looked up last.
    last: usize,
}

#[derive(Debug, Clone)]
struct Tag {
    name: Arc<str>,
    plugin: Option<ValueKind>,
    /// The tag that followed this one last time. Training loops write their tags in the same order again and again, so
    /// that one comparison mostly finds what would take a hash.
    next: TagId,
}

impl TagTable {
    /// Returns the number of a tag, which is new when it was not seen before.
    #[inline]
    pub fn intern(&mut self, raw: &[u8]) -> TagId {
        if let Some(last) = self.tags.get(self.last) {
            let next = last.next;
            if self.tags.get(next.index()).is_some_and(|tag| tag.name.as_bytes() == raw) {
                self.last = next.index();
                return next;
            }
        }
        let id = self.find(raw);
        if let Some(last) = self.tags.get_mut(self.last) {
            last.next = id;
        }
        self.last = id.index();
        id
    }

    /// The name of a tag; what is not UTF-8 in it is replaced.
    pub fn name(&self, id: TagId) -> Arc<str> {
        self.tags.get(id.index()).map(|tag| Arc::clone(&tag.name)).unwrap_or_default()
    }

    /// The plugin that the first value with metadata named.
    pub fn plugin(&self, id: TagId) -> Option<&ValueKind> {
        self.tags.get(id.index())?.plugin.as_ref()
    }

    /// Takes down the plugin of a tag, unless one is known already.
    pub fn remember(&mut self, id: TagId, plugin: &ValueKind) {
        if let Some(tag) = self.tags.get_mut(id.index()) {
            tag.plugin.get_or_insert_with(|| plugin.clone());
        }
    }

    /// How many tags there are.
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    #[cold]
    fn find(&mut self, raw: &[u8]) -> TagId {
        if let Some(&id) = self.ids.get(raw) {
            return id;
        }
        let name = String::from_utf8_lossy(raw);
        let id = match self.ids.get(name.as_bytes()) {
            Some(&id) => id,
            None => {
                let id = TagId(u32::try_from(self.tags.len()).unwrap_or(u32::MAX));
                self.tags.push(Tag { name: Arc::from(&*name), plugin: None, next: TagId(0) });
                self.ids.insert(name.as_bytes().into(), id);
                id
            }
        };
        self.ids.insert(raw.into(), id);
        id
    }
}

impl Serialize for TagTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = self.tags.iter().filter_map(|tag| Some((&*tag.name, tag.plugin.as_ref()?.name())));
        known.collect::<BTreeMap<&str, &str>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TagTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Self::default();
        for (name, plugin) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let id = table.find(name.as_bytes());
            if let Some(plugin) = ValueKind::of_plugin(plugin.as_bytes()) {
                table.remember(id, &plugin);
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_that_read_the_same_are_the_same() {
        let mut table = TagTable::default();
        let first = table.intern(b"a\xff");
        assert_eq!(table.intern(b"b").index(), 1);
        assert_eq!(table.intern(b"a\xfe"), first);
        assert_eq!(table.intern("a\u{fffd}".as_bytes()), first);
        assert_eq!(&*table.name(first), "a\u{fffd}");
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_first_plugin_stays_also_when_saved() {
        let mut table = TagTable::default();
        let id = table.intern(b"a");
        table.intern(b"unknown");
        table.remember(id, &ValueKind::Text);
        table.remember(id, &ValueKind::Mesh);
        let saved = serde_json::to_string(&table).unwrap();
        assert_eq!(saved, r#"{"a":"text"}"#);
        let mut table: TagTable = serde_json::from_str(&saved).unwrap();
        let id = table.intern(b"a");
        assert_eq!(table.plugin(id), Some(&ValueKind::Text));
    }

    proptest! {
        #[test]
        fn names_come_back(tags in proptest::collection::vec(proptest::collection::vec(97_u8..100, 0..3), 0..40)) {
            let mut table = TagTable::default();
            for tag in &tags {
                let id = table.intern(tag);
                let name = table.name(id);
                prop_assert_eq!(name.as_bytes(), tag.as_slice());
            }
            let mut distinct = tags.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(table.len(), distinct.len());
        }
    }
}
