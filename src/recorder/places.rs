//! Which files are known already, and which are new. Pure: who asks looks into files.

use std::collections::HashMap;
use std::path::Path;

use crate::checkpoint::{Checkpoint, SourceCheckpoint};
use crate::convert::keys::KeyRule;
use crate::convert::run_id::Fingerprint;
use crate::survey::PlannedSource;
use crate::tfevents::FilePosition;

/// What the tags of planned sources are called: as at the first look, where the run was recorded before.
pub fn rules(recorded: Option<&Checkpoint>, planned: &[PlannedSource]) -> Vec<KeyRule> {
    let mut sources = recorded.map(|recorded| recorded.sources.clone()).unwrap_or_default();
    let places = places_of(&mut sources, planned, |_, _| true);
    let rule =
        |(plan, index): (&PlannedSource, usize)| sources.get(index).map_or(&plan.rule, |saved| &saved.rule).clone();
    planned.iter().zip(places).map(rule).collect()
}

/// The sources that planned ones continue, by their place in the checkpoint; new ones are added.
///
/// A source is known by its file name and first record; where copies share both, the one at the same place comes
/// first. Each is continued once. A file with a new name continues one with the same first record that is not there any
/// more, if `goes_on` finds in it what was read: it was renamed. A new file in a directory that is known follows the rule
/// of that directory.
pub(super) fn places_of(
    sources: &mut Vec<SourceCheckpoint>,
    planned: &[PlannedSource],
    goes_on: impl Fn(&SourceCheckpoint, &PlannedSource) -> bool,
) -> Vec<usize> {
    let mut by_file: HashMap<(&str, &Fingerprint), Vec<usize>> = HashMap::new();
    for (index, source) in sources.iter().enumerate() {
        by_file.entry((&source.file_name, &source.fingerprint)).or_default().push(index);
    }
    let mut places: Vec<Option<usize>> = vec![None; planned.len()];
    for exactly in [true, false] {
        for (plan, place) in planned.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
            let Some(left) = by_file.get_mut(&(plan.file_name.as_str(), &plan.fingerprint)) else { continue };
            let same = |index: &usize| sources.get(*index).is_some_and(|source| source.label == plan.label);
            let found = left.iter().position(|index| !exactly || same(index));
            *place = found.map(|position| left.remove(position));
        }
    }
    let mut gone: HashMap<&Fingerprint, Vec<usize>> = HashMap::new();
    if places.contains(&None) {
        for ((_, fingerprint), left) in &by_file {
            gone.entry(fingerprint).or_default().extend(left);
        }
    }
    let mut renamed = Vec::new();
    for (plan, place) in planned.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
        let Some(gone) = gone.get_mut(&plan.fingerprint) else { continue };
        let goes_on = |index: &usize| sources.get(*index).is_some_and(|source| goes_on(source, plan));
        if let Some(position) = gone.iter().position(goes_on) {
            let index = gone.swap_remove(position);
            *place = Some(index);
            renamed.push((index, plan.file_name.clone()));
        }
    }
    for (index, file_name) in renamed {
        if let Some(source) = sources.get_mut(index) {
            source.rename(file_name);
        }
    }
    let mut of_directory: HashMap<&Path, usize> = HashMap::new();
    for (plan, place) in planned.iter().zip(&places) {
        if let (Some(directory), Some(index)) = (plan.path.parent(), place) {
            of_directory.insert(directory, *index);
        }
    }
    let mut added = Vec::new();
    for (plan, place) in planned.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
        let beside = plan.path.parent().and_then(|directory| of_directory.get(directory));
        let beside = beside.and_then(|index| sources.get(*index));
        let label = beside.map_or_else(
            || plan.label.clone(),
            |beside| match beside.directory() {
                "" => plan.file_name.clone(),
                directory => format!("{directory}/{}", plan.file_name),
            },
        );
        *place = Some(sources.len() + added.len());
        added.push(SourceCheckpoint {
            label,
            file_name: plan.file_name.clone(),
            fingerprint: plan.fingerprint.clone(),
            rule: beside.map_or_else(|| plan.rule.clone(), |beside| beside.rule.clone()),
            position: FilePosition::default(),
            latest: None,
            seen_size: 0,
            lost: Vec::new(),
        });
    }
    sources.extend(added);
    places.into_iter().flatten().collect()
}
