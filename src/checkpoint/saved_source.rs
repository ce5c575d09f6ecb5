//! A source as it is written down: without what follows from the rest, because a run may have ten thousand of them and
//! its checkpoint is replaced at every commit.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::checkpoint::SourceCheckpoint;
use crate::convert::keys::KeyRule;
use crate::convert::run_id::Fingerprint;
use crate::model::{Count, SkippedReason, WallTime};
use crate::tfevents::FilePosition;

#[derive(Serialize, Deserialize)]
pub(super) struct SavedSource<'a> {
    /// The directory's part of the label; none for the experiment's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<Cow<'a, str>>,
    /// The label, where it is not the directory and the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
    file_name: Cow<'a, str>,
    fingerprint: Cow<'a, Fingerprint>,
    #[serde(default, skip_serializing_if = "is_default")]
    rule: Cow<'a, KeyRule>,
    position: Cow<'a, FilePosition>,
    /// None where it is the time in the position.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    latest: Option<Option<WallTime>>,
    /// None where it is the offset in the position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen_size: Option<u64>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    lost: Cow<'a, [(SkippedReason, Count)]>,
}

fn is_default(rule: &KeyRule) -> bool {
    *rule == KeyRule::default()
}

/// A `null` that stands there is not the same as nothing.
fn there<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<Option<WallTime>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl<'a> SavedSource<'a> {
    pub(super) fn of(source: &'a SourceCheckpoint) -> Self {
        let directory = Some(source.directory()).filter(|directory| !directory.is_empty());
        let is_label = label(directory, &source.file_name) == source.label;
        Self {
            directory: directory.filter(|_| is_label).map(Cow::Borrowed),
            label: (!is_label).then_some(Cow::Borrowed(&source.label)),
            file_name: Cow::Borrowed(&source.file_name),
            fingerprint: Cow::Borrowed(&source.fingerprint),
            rule: Cow::Borrowed(&source.rule),
            position: Cow::Borrowed(&source.position),
            latest: (source.latest != source.position.wall_time).then_some(source.latest),
            seen_size: (source.seen_size != source.position.offset).then_some(source.seen_size),
            lost: Cow::Borrowed(&source.lost),
        }
    }
}

impl From<SavedSource<'_>> for SourceCheckpoint {
    fn from(saved: SavedSource<'_>) -> Self {
        let label = saved.label.map_or_else(|| label(saved.directory.as_deref(), &saved.file_name), Cow::into_owned);
        let position = saved.position.into_owned();
        Self {
            label,
            file_name: saved.file_name.into_owned(),
            fingerprint: saved.fingerprint.into_owned(),
            rule: saved.rule.into_owned(),
            latest: saved.latest.unwrap_or(position.wall_time),
            seen_size: saved.seen_size.unwrap_or(position.offset),
            position,
            lost: saved.lost.into_owned(),
        }
    }
}

fn label(directory: Option<&str>, file_name: &str) -> String {
    directory.map_or_else(|| file_name.to_owned(), |directory| format!("{directory}/{file_name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn source(label: &str) -> SourceCheckpoint {
        SourceCheckpoint {
            label: label.to_owned(),
            file_name: "events.out.tfevents.1.h".to_owned(),
            fingerprint: Fingerprint::of(b"record"),
            rule: KeyRule::default(),
            position: FilePosition { offset: 70, wall_time: WallTime::new(5.0), ..FilePosition::default() },
            latest: WallTime::new(5.0),
            seen_size: 70,
            lost: Vec::new(),
        }
    }

    #[track_caller]
    fn check(source: &SourceCheckpoint) -> String {
        let text = serde_json::to_string(source).unwrap();
        assert_eq!(serde_json::from_str::<SourceCheckpoint>(&text).unwrap(), *source, "{text}");
        text
    }

    #[test]
    fn what_follows_from_the_rest_is_left_out() {
        let text = check(&source("train/events.out.tfevents.1.h"));
        for left_out in ["label", "rule", "latest", "seen_size", "lost", "writer"] {
            assert!(!text.contains(left_out), "{left_out}: {text}");
        }
        check(&source("events.out.tfevents.1.h"));
    }

    #[test]
    fn what_does_not_follow_is_kept() {
        let plain = || source("events.out.tfevents.1.h");
        for label in
            ["elsewhere", "", "/events.out.tfevents.1.h", "a//events.out.tfevents.1.h", "xevents.out.tfevents.1.h"]
        {
            check(&source(label));
        }
        check(&SourceCheckpoint { latest: None, ..plain() });
        check(&SourceCheckpoint { latest: WallTime::new(9.0), ..plain() });
        check(&SourceCheckpoint { seen_size: 75, ..plain() });
        check(&SourceCheckpoint { position: FilePosition::default(), latest: None, seen_size: 0, ..plain() });
        let lost = vec![(SkippedReason::File, Count { count: 2, first: "here".to_owned() })];
        check(&SourceCheckpoint { lost, ..plain() });
        let rule = serde_json::from_str(r#"{"prefix":"train"}"#).unwrap();
        check(&SourceCheckpoint { rule, ..plain() });
    }

    #[test]
    fn what_was_written_in_full_is_still_read() {
        let text = r#"{"label":"a/f","file_name":"f","fingerprint":"00","rule":{},"position":{"offset":3,"wall_time":1.0,
            "writer":null},"latest":null,"seen_size":4}"#;
        let source: SourceCheckpoint = serde_json::from_str(text).unwrap();
        assert_eq!((source.label.as_str(), source.latest, source.seen_size), ("a/f", None, 4));
    }
}
