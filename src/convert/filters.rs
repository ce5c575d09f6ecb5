//! What of the files is to be carried at all: filters by name, kind and time.
//!
//! Pure: what the time is now comes in. What a filter leaves out is counted by whoever asks it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::{Span, Timestamp, ZonedDateTime};
use serde::{Deserialize, Serialize};

use crate::convert::globs::MetricGlob;
use crate::model::WallTime;
use crate::tfevents::ValueKind;

/// Filters as they were asked for. Equal means: the same text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// `--tags-include`: none is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags_include: Vec<MetricGlob>,
    /// `--tags-exclude`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags_exclude: Vec<MetricGlob>,
    /// `--kinds`: none is all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub kinds: BTreeSet<KindName>,
    /// `--since`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// `--until`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

/// Filters, ready to be asked. The default takes everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    filters: Filters,
    /// Seconds since the Unix epoch.
    since: Option<f64>,
    until: Option<f64>,
}

impl Filter {
    /// `now` is what times such as `2d` count back from; its time zone is that of dates.
    pub fn new(filters: &Filters, now: &ZonedDateTime) -> Self {
        let seconds = |moment: &Option<Moment>| moment.as_ref().map(|moment| moment.seconds(now));
        Self { since: seconds(&filters.since), until: seconds(&filters.until), filters: filters.clone() }
    }

    /// Whether nothing is ever left out.
    pub fn takes_all(&self) -> bool {
        self.filters == Filters::default()
    }

    /// Whether an event of that time is taken: not before `since`, and before `until`.
    pub fn takes_time(&self, time: WallTime) -> bool {
        let time = time.seconds();
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// Whether all events up to that time are left out, because they are too old.
    pub fn is_before(&self, time: WallTime) -> bool {
        self.since.is_some_and(|since| time.seconds() < since)
    }

    /// Whether values of a kind are taken.
    pub fn takes_kind(&self, kind: &ValueKind) -> bool {
        self.takes(KindName::of(kind))
    }

    /// The same for what is no value.
    pub fn takes(&self, kind: KindName) -> bool {
        self.filters.kinds.is_empty() || self.filters.kinds.contains(&kind)
    }

    /// Whether a kind was asked for by its name.
    pub fn asks_for(&self, kind: KindName) -> bool {
        self.filters.kinds.contains(&kind)
    }

    /// Whether a metric is taken, by its final name.
    pub fn takes_key(&self, key: &str) -> bool {
        let any = |globs: &[MetricGlob]| globs.iter().any(|glob| glob.is_match(key));
        let Filters { tags_include, tags_exclude, .. } = &self.filters;
        (tags_include.is_empty() || any(tags_include)) && !any(tags_exclude)
    }
}

/// A kind of data by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// Numbers.
    Scalars,
    /// Also animated.
    Images,
    /// Sound.
    Audio,
    /// Of any form.
    Histograms,
    /// Markdown.
    Text,
    /// Precision and recall by threshold.
    PrCurves,
    /// Parts of three-dimensional bodies.
    Mesh,
    /// Hyperparameters.
    #[serde(rename = "hparams")]
    HParams,
    /// Layout of the custom scalars dashboard.
    CustomScalars,
    /// Graphs and what was measured of them.
    Graphs,
    /// Tensors that no plugin claims.
    Tensors,
    /// Data of plugins that are not known.
    Plugins,
    /// Files of the embedding projector, which lie beside event files.
    Projector,
    /// Files of the profiler, which lie beside event files.
    Profile,
}

/// A name that is not one of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a kind of data; known are {}", KindName::list())]
pub struct UnknownKind {
    name: String,
}

impl KindName {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Scalars, "scalars"),
        (Self::Images, "images"),
        (Self::Audio, "audio"),
        (Self::Histograms, "histograms"),
        (Self::Text, "text"),
        (Self::PrCurves, "pr_curves"),
        (Self::Mesh, "mesh"),
        (Self::HParams, "hparams"),
        (Self::CustomScalars, "custom_scalars"),
        (Self::Graphs, "graphs"),
        (Self::Tensors, "tensors"),
        (Self::Plugins, "plugins"),
        (Self::Projector, "projector"),
        (Self::Profile, "profile"),
    ];

    /// The name of a value's kind. What should have been a scalar counts as one.
    fn of(kind: &ValueKind) -> Self {
        match kind {
            ValueKind::Scalar | ValueKind::Bad(_) => Self::Scalars,
            ValueKind::Images => Self::Images,
            ValueKind::Audio => Self::Audio,
            ValueKind::Histograms | ValueKind::OldHistograms => Self::Histograms,
            ValueKind::Text => Self::Text,
            ValueKind::PrCurves => Self::PrCurves,
            ValueKind::Mesh => Self::Mesh,
            ValueKind::HParams => Self::HParams,
            ValueKind::CustomScalars => Self::CustomScalars,
            ValueKind::Graphs => Self::Graphs,
            ValueKind::Tensors => Self::Tensors,
            ValueKind::Plugin(_) => Self::Plugins,
        }
    }

    fn list() -> String {
        Self::ALL.map(|(_, name)| format!("`{name}`")).join(", ")
    }
}

impl FromStr for KindName {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let name = text.trim().to_ascii_lowercase().replace('-', "_");
        let plural = format!("{name}s");
        let named = |(_, known): &&(Self, &str)| *known == name || *known == plural;
        let alias = match name.as_str() {
            "distributions" | "distribution" => Some(Self::Histograms),
            "video" | "videos" => Some(Self::Images),
            "meshes" => Some(Self::Mesh),
            "texts" => Some(Self::Text),
            _ => None,
        };
        alias
            .or_else(|| Self::ALL.iter().find(named).map(|(kind, _)| *kind))
            .ok_or_else(|| UnknownKind { name: text.to_owned() })
    }
}

/// A point in time as it was written: a time, a date, or how long ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment {
    text: String,
    form: Form,
}

/// A text that is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: write `2026-07-14`, `2026-07-14T08:30`, `2026-07-14T08:30:00Z`, or how long ago: `2d`, `36h`"
)]
pub struct NoMoment(String);

#[derive(Debug, Clone, Copy)]
enum Form {
    At(Timestamp),
    /// In whatever time zone it is read.
    Local(DateTime),
    Ago(Span),
}

/// The text says all.
impl PartialEq for Form {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Form {}

impl Moment {
    /// Seconds since the Unix epoch.
    fn seconds(&self, now: &ZonedDateTime) -> f64 {
        let timestamp = match self.form {
            Form::At(timestamp) => timestamp,
            Form::Local(time) => now
                .time_zone()
                .to_ambiguous_zoned_datetime(time)
                .compatible()
                .map_or(Timestamp::MAX, |time| time.timestamp()),
            // Longer ago than the calendar goes.
            Form::Ago(span) => now.checked_sub(span).map_or(Timestamp::MIN, |time| time.timestamp()),
        };
        timestamp.as_duration().as_secs_f64()
    }
}

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let trimmed = text.trim();
        let at = trimmed.parse().map(Form::At);
        let local = |_| trimmed.parse().map(Form::Local);
        // `2d` and `2 days ago` are the same.
        let ago = |_| trimmed.parse::<Span>().map(|span| Form::Ago(span.abs()));
        let form = at.or_else(local).or_else(ago).map_err(|_: jiff::Error| NoMoment(text.to_owned()))?;
        Ok(Self { text: trimmed.to_owned(), form })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl TryFrom<String> for Moment {
    type Error = NoMoment;

    fn try_from(text: String) -> Result<Self, NoMoment> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> Self {
        moment.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn globs(texts: &[&str]) -> Vec<MetricGlob> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn now() -> ZonedDateTime {
        "2026-07-14T12:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn names_are_included_and_then_excluded() {
        let check = |include: &[&str], exclude: &[&str], expected: &[&str]| {
            let filters = Filters { tags_include: globs(include), tags_exclude: globs(exclude), ..Filters::default() };
            let filter = Filter::new(&filters, &now());
            let keys = ["loss", "val/loss", "val/acc", "lr"];
            let taken: Vec<&str> = keys.into_iter().filter(|key| filter.takes_key(key)).collect();
            assert_eq!(taken, expected);
            assert_eq!(filter.takes_all(), include.is_empty() && exclude.is_empty());
        };
        check(&[], &[], &["loss", "val/loss", "val/acc", "lr"]);
        check(&["val/*"], &[], &["val/loss", "val/acc"]);
        check(&["val/*", "lr"], &["*acc"], &["val/loss", "lr"]);
        check(&[], &["*"], &[]);
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2026-07-14T08:30:00Z", "2026-07-14T08:30:00Z"),
            ("2026-07-14 08:30:00+05:30", "2026-07-14T03:00:00Z"),
            ("2026-07-14", "2026-07-13T22:00:00Z"),
            ("2026-07-14T08:30", "2026-07-14T06:30:00Z"),
            ("2d", "2026-07-12T10:00:00Z"),
            ("36h", "2026-07-12T22:00:00Z"),
            ("1h30m", "2026-07-14T08:30:00Z"),
            ("2 weeks ago", "2026-06-30T10:00:00Z"),
            ("1mo", "2026-06-14T10:00:00Z"),
        ] {
            let moment: Moment = text.parse().unwrap();
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(moment.seconds(&now()), expected.as_second() as f64, "{text}");
            assert_eq!(moment.to_string(), text);
        }
        for bad in ["", "yesterday", "2", "d", "14.07.2026", "2026-13-01", "2x"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        assert_eq!("19000y".parse::<Moment>().unwrap().seconds(&now()), Timestamp::MIN.as_second() as f64);
    }

    #[test]
    fn times_are_half_open() {
        let moment = |text: &str| Some(text.parse().unwrap());
        let filters = Filters {
            since: moment("2026-07-01T00:00:00Z"),
            until: moment("2026-07-02T00:00:00Z"),
            ..Filters::default()
        };
        let filter = Filter::new(&filters, &now());
        let first: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        let first = first.as_second() as f64;
        for (time, taken) in [(first - 0.5, false), (first, true), (first + 86_399.5, true), (first + 86_400.0, false)]
        {
            assert_eq!(filter.takes_time(WallTime::new(time).unwrap()), taken, "{time}");
        }
        assert!(filter.is_before(WallTime::new(first - 1.0).unwrap()));
    }

    #[test]
    fn kinds_have_names_and_other_names() {
        for (name, kind) in [
            ("scalars", KindName::Scalars),
            ("scalar", KindName::Scalars),
            ("pr-curves", KindName::PrCurves),
            ("PR_curve", KindName::PrCurves),
            ("hparams", KindName::HParams),
            ("distributions", KindName::Histograms),
            ("video", KindName::Images),
            ("meshes", KindName::Mesh),
            (" text ", KindName::Text),
            ("plugins", KindName::Plugins),
            ("profile", KindName::Profile),
        ] {
            assert_eq!(name.parse(), Ok(kind), "{name}");
        }
        let error = "pictures".parse::<KindName>().unwrap_err().to_string();
        assert!(error.contains("`pictures`") && error.contains("`images`") && error.contains("`plugins`"), "{error}");
        for (kind, name) in KindName::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{name}\""));
        }
        let filters = Filters { kinds: BTreeSet::from([KindName::Scalars, KindName::Text]), ..Filters::default() };
        let filter = Filter::new(&filters, &now());
        assert!(filter.takes_kind(&ValueKind::Text) && !filter.takes_kind(&ValueKind::Images));
        assert!(!filter.takes_kind(&ValueKind::Plugin("x".into())));
        assert!(!filter.takes(KindName::Profile) && Filter::default().takes(KindName::Profile));
        assert!(filter.asks_for(KindName::Text) && !Filter::default().asks_for(KindName::Text));
    }

    #[test]
    fn filters_come_back_as_they_were_saved() {
        let filters = Filters {
            tags_include: globs(&["a*"]),
            kinds: BTreeSet::from([KindName::HParams]),
            since: Some("2d".parse().unwrap()),
            ..Filters::default()
        };
        let saved = serde_json::to_string(&filters).unwrap();
        assert_eq!(saved, r#"{"tags_include":["a*"],"kinds":["hparams"],"since":"2d"}"#);
        assert_eq!(serde_json::from_str::<Filters>(&saved).unwrap(), filters);
        let other = Filters { since: Some("48h".parse().unwrap()), ..filters.clone() };
        assert_ne!(other, filters);
    }
}
