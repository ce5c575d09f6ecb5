//! Experiments on their way to be runs: joined, told apart from their copies, and given their ids.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::convert::config::{ConfigPlaces, RunDirectories};
use crate::convert::run_id::{self, Fingerprint, Origin};
use crate::survey::roots::{Root, last_names};
use crate::survey::{PlannedRun, PlannedSource};
use crate::tfevents::{host_of, peek};

/// A run that has no id yet. Has at least one source.
pub(super) struct Draft {
    pub(super) root: String,
    pub(super) path: Vec<String>,
    pub(super) session_of: Option<Vec<String>>,
    pub(super) directory: PathBuf,
    pub(super) root_directory: PathBuf,
    /// Its directory, and those of the experiments that were joined to it.
    pub(super) experiments: Vec<PathBuf>,
    pub(super) tb_runs: Vec<String>,
    pub(super) sources: Vec<PlannedSource>,
    /// Directories beside it that were not looked at.
    pub(super) beside: Rc<[PathBuf]>,
}

/// All drafts of a look.
#[derive(Default)]
pub(super) struct Drafts {
    drafts: Vec<Draft>,
    joined: HashMap<String, Joined>,
}

/// Which draft holds what was joined, and from which roots it comes: where its sources begin, and the root's directory.
struct Joined {
    draft: usize,
    roots: Vec<(usize, PathBuf)>,
}

impl Drafts {
    pub(super) fn add(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    /// Adds an experiment to those for which `--join` gives the same text. Its sources are labeled from the root on.
    pub(super) fn join(&mut self, value: String, root: &Root, mut draft: Draft) {
        if let Some(joined) = self.joined.get_mut(&value)
            && let Some(there) = self.drafts.get_mut(joined.draft)
        {
            if joined.roots.last().is_none_or(|(_, directory)| *directory != root.directory) {
                joined.roots.push((there.sources.len(), root.directory.clone()));
            }
            there.sources.append(&mut draft.sources);
            there.tb_runs.append(&mut draft.tb_runs);
            there.experiments.append(&mut draft.experiments);
            return;
        }
        let roots = vec![(0, root.directory.clone())];
        self.joined.insert(value.clone(), Joined { draft: self.drafts.len(), roots });
        self.drafts.push(Draft { path: vec![value], session_of: None, beside: Rc::default(), ..draft });
    }

    /// Gives every draft its id; experiments that look the same to a hash of their first record are told apart.
    pub(super) fn identify(mut self, generation: u32) -> Vec<PlannedRun> {
        self.tell_roots_apart();
        let drafts = self.drafts;
        let origins: Vec<Origin> = drafts.iter().filter_map(Draft::origin).collect();
        let mut same: HashMap<&Origin, Vec<usize>> = HashMap::new();
        for (index, origin) in origins.iter().enumerate() {
            same.entry(origin).or_default().push(index);
        }
        let mut copy_names: Vec<Vec<String>> = vec![Vec::new(); drafts.len()];
        for indexes in same.values() {
            let alone = indexes.len() == 1;
            let copied_beside = || indexes.iter().any(|index| drafts.get(*index).is_some_and(Draft::has_copy_beside));
            if alone && !copied_beside() {
                continue;
            }
            let directories = indexes.iter().filter_map(|index| drafts.get(*index)).map(|draft| &draft.directory);
            for (index, names) in indexes.iter().zip(distinct_names(directories)) {
                if let Some(place) = copy_names.get_mut(*index) {
                    *place = names;
                }
            }
        }
        let directories: Vec<RunDirectories<'_>> = drafts.iter().map(Draft::directories).collect();
        let places = ConfigPlaces::of_all(&directories);
        type Known = (((Draft, Origin), Vec<String>), ConfigPlaces);
        let plan = |(((draft, origin), copy_names), config): Known| PlannedRun {
            id: run_id::derive(&origin, generation, &copy_names),
            copy_names,
            host: draft.first().and_then(|first| host_of(&first.file_name)).unwrap_or_default().to_owned(),
            started_at: draft.sources.iter().map(|source| source.first_due).min().unwrap_or_default(),
            modified: draft.sources.iter().map(|source| source.modified).max().unwrap_or(std::time::UNIX_EPOCH),
            root: draft.root,
            path: draft.path,
            session_of: draft.session_of,
            directory: draft.directory,
            experiments: draft.experiments,
            tb_runs: draft.tb_runs,
            sources: draft.sources,
            config,
            listings: Arc::default(),
        };
        drafts.into_iter().zip(origins).zip(copy_names).zip(places).map(plan).collect()
    }

    /// Below several roots there may be the same path: then labels begin with the names of the roots.
    fn tell_roots_apart(&mut self) {
        for Joined { draft, roots } in self.joined.values().filter(|joined| joined.roots.len() > 1) {
            let Some(draft) = self.drafts.get_mut(*draft) else { continue };
            let names = distinct_names(roots.iter().map(|(_, directory)| directory));
            for (index, source) in draft.sources.iter_mut().enumerate() {
                let root = roots.iter().rposition(|(begin, _)| *begin <= index);
                let Some(names) = root.and_then(|root| names.get(root)) else { continue };
                source.label = join_label(&names.join("/"), &source.label);
                source.directory = join_label(&names.join("/"), &source.directory);
            }
        }
    }
}

/// As many of the last names of each path as it takes to tell them apart.
pub(super) fn distinct_names<'a>(directories: impl Iterator<Item = &'a PathBuf> + Clone) -> Vec<Vec<String>> {
    let names = |count: usize| directories.clone().map(|directory| last_names(directory, count)).collect::<Vec<_>>();
    let distinct = |names: &Vec<Vec<String>>| names.iter().collect::<HashSet<_>>().len() == names.len();
    (1..64).map(names).find(distinct).unwrap_or_else(|| names(64))
}

impl Draft {
    /// The first event file: by its first event, then by name, then by place. What only describes the experiment that it
    /// is a session of lies above it, and is not there when it is looked at alone.
    fn first(&self) -> Option<&PlannedSource> {
        let order = |source: &&PlannedSource| (source.first_due, source.file_name.clone(), source.label.clone());
        let own = self.sources.iter().filter(|source| !source.label.starts_with("../"));
        own.min_by_key(order).or_else(|| self.sources.iter().min_by_key(order))
    }

    fn directories(&self) -> RunDirectories<'_> {
        RunDirectories { root: &self.root_directory, experiments: &self.experiments }
    }

    fn origin(&self) -> Option<Origin> {
        let first = self.first()?;
        Some(Origin { file_name: first.file_name.clone().into_bytes(), first_record: first.fingerprint.clone() })
    }

    /// Whether a directory beside this one, outside of what was looked at, holds a file of the same name with the same
    /// first record. Without this look a copy would have another id when it is named alone.
    fn has_copy_beside(&self) -> bool {
        let Some(first) = self.first() else { return false };
        let Ok(below) = first.path.strip_prefix(&self.directory) else { return false };
        self.beside.iter().filter(|beside| **beside != self.directory).any(|beside| {
            let same = |payload: &[u8]| Fingerprint::of(payload) == first.fingerprint;
            matches!(peek(&beside.join(below)), Ok(Some(record)) if same(&record.payload))
        })
    }
}

/// Puts two parts of a path together, each of which may be empty.
pub(super) fn join_label(directory: &str, name: &str) -> String {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => directory.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}
