//! From rules to what they mean for one run: names filled in, and where its files are looked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::artifact::{Attachment, safe_name};
use crate::checkpoint::Checkpoint;
use crate::convert::artifact_rule::ArtifactRule;
use crate::convert::template::Place;
use crate::state_file::place::StateHome;
use crate::survey::PlannedRun;
use crate::upload::run_start;

/// What is to be attached to a run that is imported: files below the directories of its experiments.
pub(super) fn to_planned(rules: &[ArtifactRule], plan: &PlannedRun) -> Vec<Attachment> {
    if rules.is_empty() {
        return Vec::new();
    }
    let directories: BTreeSet<&Path> = plan.sources.iter().filter_map(|source| source.path.parent()).collect();
    let own = directories.into_iter().filter_map(|directory| fs::canonicalize(directory).ok()).collect();
    attachments(rules, plan.place(), plan.roots(), Some(own))
}

/// What is to be attached to a run of which there is a log: files below the experiments that it was made of, where this
/// program recorded it, and those in its `files/` otherwise. Placeholders stand for its name, and for its id where it has
/// none.
pub fn to_log(rules: &[ArtifactRule], log: &Path, state: &StateHome) -> Vec<Attachment> {
    if rules.is_empty() {
        return Vec::new();
    }
    let directory = log.parent().unwrap_or(Path::new("."));
    let start = run_start(log);
    let (id, named) = start.map(|start| (start.run_id, start.name)).unwrap_or_default();
    // One that cannot be read is told of by the upload.
    let checkpoint = Checkpoint::load(&state.of_log(log)).ok().flatten();
    let name = checkpoint.as_ref().map_or(named, |checkpoint| checkpoint.description.name.clone());
    let parts: Vec<String> = name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let place = Place { root: &id, path: &parts };
    match checkpoint.filter(|checkpoint| !checkpoint.experiments.is_empty()) {
        Some(checkpoint) => {
            let at = |(prefix, way): &(String, PathBuf)| (prefix.clone(), directory.join(way));
            let roots: Vec<_> = checkpoint.experiments.iter().map(at).collect();
            let own = match roots.as_slice() {
                [(_, root)] => {
                    let below = checkpoint.sources.iter().map(|source| root.join(source.directory()));
                    Some(below.filter_map(|directory| fs::canonicalize(directory).ok()).collect())
                }
                // Their sources are named from elsewhere.
                _ => None,
            };
            attachments(rules, place, roots, own)
        }
        None => attachments(rules, place, vec![(String::new(), directory.join("files"))], None),
    }
}

fn attachments(
    rules: &[ArtifactRule],
    place: Place<'_>,
    roots: Vec<(String, PathBuf)>,
    own: Option<BTreeSet<PathBuf>>,
) -> Vec<Attachment> {
    let attachment = |rule: &ArtifactRule| Attachment {
        rule: rule.text.clone(),
        kind: rule.kind.clone(),
        name: safe_name(&rule.name.expand(place)),
        files: rule.files.clone(),
        roots: roots.clone(),
        own: own.clone(),
    };
    rules.iter().map(attachment).collect()
}
