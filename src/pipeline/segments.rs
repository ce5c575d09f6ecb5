//! Several logs of one run: which there are, and in which order they belong.
//!
//! A run that was resumed offline has a log for every time it was started, each in a directory of its own. They are told
//! by the run id, and go to the server in the order of their start. Logs that this program records are not such: it goes on
//! in the log that is there. A log that was deleted because all of it had arrived is still before the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoint;
use crate::cleaned::Cleaned;
use crate::pipeline::sync::id_of;
use crate::state_file::place::StateHome;
use crate::upload::{Foreign, Overrides, RunLog, RunStart, run_start};
use crate::wandb_format::RunDirIndex;

/// A log and its place among those of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) log: PathBuf,
    /// Where another client wrote it.
    pub(super) foreign: Option<Foreign>,
    /// The logs of the run before it, in the order of their start.
    pub(super) earlier: Vec<RunLog>,
    /// Another log goes on with the run.
    pub(super) continued: bool,
    /// It says when its run was started. Until it does, its place among other logs cannot be told.
    pub(super) begun: bool,
}

/// Puts logs of one run together, in the order of their start. Runs stay in the order in which they are found. All logs
/// that are to go to one chosen run are one run.
pub(super) fn in_turn(logs: Vec<PathBuf>, state: &StateHome, overrides: &Overrides) -> Vec<Vec<Segment>> {
    let is_ours = |log: &Path| Checkpoint::is_ours(&state.of_log(log));
    let mut groups: Vec<Vec<PathBuf>> = Vec::new();
    let mut by_id: HashMap<String, usize> = HashMap::new();
    for log in logs {
        let id = overrides.run_id.clone().or_else(|| id_of(&log).map(|id| id.to_string()));
        match id.filter(|_| !is_ours(&log)).map(|id| by_id.entry(id)) {
            Some(Entry::Occupied(known)) => groups[*known.get()].push(log),
            Some(Entry::Vacant(new)) => {
                new.insert(groups.len());
                groups.push(vec![log]);
            }
            None => groups.push(vec![log]),
        }
    }
    let mut neighbors = Neighbors::default();
    groups.into_iter().map(|group| segments(group, (state, &is_ours), overrides, &mut neighbors)).collect()
}

fn segments(
    logs: Vec<PathBuf>,
    (state, is_ours): (&StateHome, &dyn Fn(&Path) -> bool),
    overrides: &Overrides,
    neighbors: &mut Neighbors,
) -> Vec<Segment> {
    // All logs that may be of the run, also those that are not to be sent now.
    let mut known = logs.clone();
    if overrides.run_id.is_none() {
        logs.iter().for_each(|log| neighbors.of(log, (state, is_ours), &mut known));
    }
    if known.len() == 1 {
        let foreign = |log: &Path| (!is_ours(log)).then(Foreign::default);
        let alone =
            |log: PathBuf| Segment { foreign: foreign(&log), earlier: Vec::new(), continued: false, begun: true, log };
        return logs.into_iter().map(alone).collect();
    }
    let mut starts: Vec<(Option<RunStart>, PathBuf)> =
        known.into_iter().map(|log| (start_of(&log, state), log)).collect();
    starts.sort_by(|(one, a), (other, b)| {
        // One that says nothing yet is the newest.
        let time = |start: &Option<RunStart>| (start.is_none(), start.as_ref().map(|start| start.time));
        (time(one), a).cmp(&(time(other), b))
    });
    let same_run = |one: &Option<RunStart>, other: &Option<RunStart>| {
        let (Some(one), Some(other)) = (one, other) else { return false };
        (overrides.project.is_some() || one.project == other.project)
            && (overrides.entity.is_some() || one.entity == other.entity)
    };
    let mut segments = Vec::new();
    for (place, (start, log)) in starts.iter().enumerate().filter(|(_, (_, log))| logs.contains(log)) {
        let (before, behind) = starts.split_at(place);
        let earlier = before.iter().filter(|(other, _)| same_run(start, other));
        let earlier: Vec<RunLog> =
            earlier.map(|(_, log)| RunLog { log: log.clone(), state: state.of_log(log), limit: None }).collect();
        let continued = behind.iter().skip(1).any(|(other, _)| same_run(start, other));
        let foreign = (!is_ours(log)).then(|| Foreign { continues: !earlier.is_empty(), ..Foreign::default() });
        segments.push(Segment { log: log.clone(), foreign, earlier, continued, begun: start.is_some() });
    }
    segments
}

/// How a log begins, or began.
fn start_of(log: &Path, state: &StateHome) -> Option<RunStart> {
    let cleaned = || {
        let Cleaned { started, entity, project, run_id, .. } = Cleaned::load(&state.of_log(log)).ok()??;
        Some(RunStart { time: started, entity, project, run_id, name: String::new() })
    };
    run_start(log).or_else(cleaned)
}

/// The run directories beside a log's, each folder read once.
#[derive(Debug, Default)]
struct Neighbors(HashMap<PathBuf, RunDirIndex>);

impl Neighbors {
    /// Adds the logs of the same id that lie beside a log and are not known.
    fn of(&mut self, log: &Path, (state, is_ours): (&StateHome, &dyn Fn(&Path) -> bool), known: &mut Vec<PathBuf>) {
        let (Some(id), Some(folder)) = (id_of(log), log.parent().and_then(Path::parent)) else { return };
        let read = |folder: &PathBuf| RunDirIndex::read(folder).unwrap_or_default();
        let index = self.0.entry(folder.to_owned()).or_insert_with_key(read);
        let was_there = |log: &PathBuf| log.is_file() || Cleaned::is_there(&state.of_log(log));
        for other in index.named(&id).into_iter().map(|run| run.log()) {
            if known.contains(&other) || !was_there(&other) {
                continue;
            }
            // The same place may have two names.
            let real = other.canonicalize().ok();
            let same = |log: &PathBuf| real.is_some() && log.canonicalize().ok() == real;
            if !known.iter().any(same) && !is_ours(&other) {
                known.push(other);
            }
        }
    }
}
