//! Which values of a source are taken: filters and superseded steps, decided once a tag wherever that is possible.
//!
//! Whatever is left out is counted here, by kind and with its reason. Nothing of it is a loss.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::convert::axes::Axes;
use crate::convert::filters::Filter;
use crate::convert::keys::KeyRule;
use crate::convert::kinds::metric_of;
use crate::convert::restarts::{FileSteps, Superseded, superseded};
use crate::convert::rows::RowBuilder;
use crate::model::{Kinds, SkippedReason, Skips};
use crate::recorder::tally::Tally;
use crate::survey::PlannedSource;
use crate::tfevents::{EventFile, FilePosition, Next, Point, SourceEvent, TagTable, ValueKind};

/// Judges the values of one source.
#[derive(Debug)]
pub struct Judge {
    filter: Arc<Filter>,
    superseded: Superseded,
    /// By the number of the tag.
    tags: Vec<Option<Tag>>,
    /// The metrics that were judged since they were asked for.
    new_metrics: Vec<Arc<str>>,
    /// Whether each value of the last event is taken.
    taken: Vec<bool>,
    scalars: u64,
    kinds: Kinds,
    skips: Skips,
}

#[derive(Debug, Clone)]
struct Tag {
    axis: Arc<str>,
    is_taken: bool,
}

impl Judge {
    /// Takes what the filter takes.
    pub fn new(filter: Arc<Filter>) -> Self {
        Self {
            filter,
            superseded: Superseded::default(),
            tags: Vec::new(),
            new_metrics: Vec::new(),
            taken: Vec::new(),
            scalars: 0,
            kinds: Kinds::default(),
            skips: Skips::default(),
        }
    }

    /// What later events of the directory superseded.
    pub fn set_superseded(&mut self, superseded: Superseded) {
        self.superseded = superseded;
    }

    /// Judges an event: for each of its values whether it is taken. `None` means all, without looking. `place` gives the
    /// key and the axis of a tag.
    pub fn judge(
        &mut self,
        event: &SourceEvent,
        path: &Path,
        mut place: impl FnMut(&Arc<str>) -> (Arc<str>, Arc<str>),
    ) -> Option<&[bool]> {
        if self.filter.takes_all() && self.superseded.is_empty() {
            return None;
        }
        let in_time = self.filter.takes_time(event.wall_time);
        self.taken.clear();
        for point in &event.points {
            let why = if in_time { self.why_not(event, point, &mut place) } else { Some(SkippedReason::LeftOut) };
            self.taken.push(why.is_none());
            let Some(why) = why else { continue };
            match &point.kind {
                ValueKind::Scalar | ValueKind::Bad(_) => self.scalars += 1,
                kind => {
                    let count = self.kinds.of(kind.name());
                    count.read += 1;
                    count.left_out += 1;
                }
            }
            self.skips.add(why, 1, || format!("`{}` at byte {}: `{}`", path.display(), event.at, point.tag));
        }
        Some(&self.taken)
    }

    /// What was left out since the last call.
    pub fn take_counts(&mut self, kinds: &mut Kinds, skips: &mut Skips) {
        let scalars = std::mem::take(&mut self.scalars);
        if scalars > 0 {
            let count = kinds.of(ValueKind::Scalar.name());
            count.read += scalars;
            count.left_out += scalars;
        }
        kinds.merge(&std::mem::take(&mut self.kinds));
        skips.merge(&std::mem::take(&mut self.skips));
    }

    /// The same, for a tally.
    pub(super) fn take_counts_into(&mut self, tally: &mut Tally) {
        if self.scalars > 0 || !self.kinds.is_empty() || !self.skips.is_empty() {
            let (kinds, skips) = tally.kinds_and_skips();
            self.take_counts(kinds, skips);
        }
    }

    /// The metrics that were judged since the last call, taken or not.
    pub fn take_new_metrics(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.new_metrics)
    }

    fn why_not(
        &mut self,
        event: &SourceEvent,
        point: &Point,
        place_of: &mut impl FnMut(&Arc<str>) -> (Arc<str>, Arc<str>),
    ) -> Option<SkippedReason> {
        if !self.filter.takes_kind(&point.kind) {
            return Some(SkippedReason::LeftOut);
        }
        let index = point.tag_id.index();
        if index >= self.tags.len() {
            self.tags.resize(index + 1, None);
        }
        let place = self.tags.get_mut(index)?;
        let (filter, new_metrics) = (&self.filter, &mut self.new_metrics);
        let tag = place.get_or_insert_with(|| {
            let (key, axis) = place_of(&point.tag);
            let metric = metric_of(point, &key).map_or(key, Arc::from);
            let is_taken = has_no_metric(&point.kind) || filter.takes_key(&metric);
            new_metrics.push(metric);
            Tag { is_taken, axis }
        });
        if !tag.is_taken {
            Some(SkippedReason::LeftOut)
        } else if self.superseded.has(event.at, &tag.axis, event.step.0) {
            Some(SkippedReason::Superseded)
        } else {
            None
        }
    }
}

/// Kinds whose tags are no names of metrics, so that no glob over these can mean them.
fn has_no_metric(kind: &ValueKind) -> bool {
    matches!(kind, ValueKind::HParams | ValueKind::CustomScalars)
}

/// One file of a pass, for [`find_superseded`].
#[derive(Debug, Clone, Copy)]
pub struct ToScan<'a> {
    /// The file.
    pub plan: &'a PlannedSource,
    /// What its tags are called.
    pub rule: &'a KeyRule,
}

/// Reads all files for what restarts superseded. A file that cannot be read says nothing: reading it again will tell.
pub fn find_superseded(files: &[ToScan<'_>], axes: &Arc<Axes>, max_record: u64) -> Vec<Superseded> {
    let mut found = vec![Superseded::default(); files.len()];
    let mut directories: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        directories.entry(&file.plan.directory).or_default().push(index);
    }
    for mut indexes in directories.into_values() {
        indexes.sort_by_key(|index| files.get(*index).map(|file| (file.plan.first_due, &file.plan.file_name)));
        let mut table = TagTable::default();
        let steps: Vec<FileSteps> = indexes
            .iter()
            .filter_map(|index| files.get(*index))
            .map(|file| {
                let mut steps = FileSteps::default();
                if let Err(error) = scan(file, axes, max_record, &mut table, &mut steps) {
                    tracing::warn!(%error, path = %file.plan.path.display(), "cannot look for restarts");
                }
                steps
            })
            .collect();
        for (index, superseded) in indexes.iter().zip(superseded(&steps)) {
            if let Some(place) = found.get_mut(*index) {
                *place = superseded;
            }
        }
    }
    found
}

fn scan(
    file: &ToScan<'_>,
    axes: &Arc<Axes>,
    max_record: u64,
    table: &mut TagTable,
    steps: &mut FileSteps,
) -> io::Result<()> {
    let mut names = RowBuilder::new(file.rule.clone(), axes.clone(), file.plan.from_tf2_writer, None);
    let mut places: HashMap<usize, (Arc<str>, Arc<str>)> = HashMap::new();
    let mut events = EventFile::open(&file.plan.path, &FilePosition::default())?.with_limit(max_record);
    loop {
        match events.next_event(table)? {
            Next::Event => {
                let event = events.event();
                if event.starts_session() {
                    steps.start(event.at, event.step.0);
                }
                for point in event.points.iter().filter(|point| point.number.is_some()) {
                    let place = places.entry(point.tag_id.index()).or_insert_with(|| names.place(&point.tag));
                    steps.scalar(&place.0, &place.1, event.step.0, event.wall_time);
                }
            }
            Next::BadRecord { .. } => {}
            Next::BadLength { .. } | Next::Incomplete { .. } | Next::NothingYet | Next::Zeros { .. } => return Ok(()),
        }
    }
}
