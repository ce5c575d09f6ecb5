//! From paths to the runs that would be made: discovery, first records, layout, names and ids.
//!
//! Reads directories and the beginning of files; a file's first record is read once, and again only when the file was
//! replaced. Writes nothing. Layout and ids are decided by the pure code in [`convert`](crate::convert).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rayon::prelude::*;

use crate::checkpoint::Shape;
use crate::convert::config::ConfigPlaces;
use crate::convert::keys::KeyRule;
use crate::convert::layout::{self, Directory, Evidence, Layout};
use crate::convert::run_filter::RunFilter;
use crate::convert::run_id::Fingerprint;
use crate::convert::template::{Place, Template};
use crate::listings::Listings;
use crate::model::{RunId, WallTime};
use crate::tfevents::file_name::start_of;
use crate::tfevents::{EventFileInfo, ask_anew, discover, peek};

mod draft;
mod evidence;
mod roots;
#[cfg(test)]
mod tests;

use draft::{Draft, Drafts, distinct_names, join_label};
use evidence::Beginnings;
use roots::{Member, Root, last_names, readable};

/// A directory in which nothing but the description of an experiment was written yet is not larger than this, in bytes.
const DESCRIPTION: u64 = 64 << 10;

/// A W&B run as the directories say it should be.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// The derived id.
    pub id: RunId,
    /// Names that were hashed into the id because another experiment has the same first record: a copy.
    pub copy_names: Vec<String>,
    /// The real name of the root it was found under.
    pub root: String,
    /// Path parts below the root; none when the root is the experiment.
    pub path: Vec<String>,
    /// Of a hyperparameter session: the path of the directory that it is a session of.
    pub session_of: Option<Vec<String>>,
    /// The experiment's directory.
    pub directory: PathBuf,
    /// The same, and those of the experiments that were joined to it.
    pub experiments: Vec<PathBuf>,
    /// What TensorBoard calls the TB runs that belong to it, also those that a filter leaves out.
    pub tb_runs: Vec<String>,
    /// Host name from the name of its first event file; empty when it has none.
    pub host: String,
    /// Wall time of its first event.
    pub started_at: WallTime,
    /// When one of its files was last written.
    pub modified: SystemTime,
    /// Its files, in the order that breaks ties between equal wall times.
    pub sources: Vec<PlannedSource>,
    /// Where its config files may lie.
    pub config: ConfigPlaces,
    /// What its directories held when it was looked at, and others with them. Empty where the plan may be older than what
    /// it is asked about.
    pub listings: Arc<Listings>,
}

impl PlannedRun {
    /// Where the experiment lies, for templates and the default name.
    pub fn place(&self) -> Place<'_> {
        Place { root: &self.root, path: &self.path }
    }

    /// What people call it when nobody says otherwise: its path. A session of the root is named after that, too.
    pub fn name(&self) -> String {
        match &self.session_of {
            Some(of) if of.is_empty() => join_label(&self.root, &self.path.join("/")),
            _ => self.place().name(),
        }
    }

    /// The group that it is in when nobody says otherwise: its parent. A session is grouped by what it is a session of.
    pub fn group(&self) -> String {
        match &self.session_of {
            Some(of) => Place { root: &self.root, path: of }.name(),
            None => self.place().parent(),
        }
    }

    /// The directories of its experiments, and what tells files below them apart: nothing, where there is one.
    pub fn roots(&self) -> Vec<(String, PathBuf)> {
        match self.experiments.as_slice() {
            [only] => vec![(String::new(), only.clone())],
            several => {
                let names = distinct_names(several.iter()).into_iter().map(|names| names.join("/"));
                names.zip(several.iter().cloned()).collect()
            }
        }
    }

    /// As many of the last names of the path of its directory, or all there are.
    pub fn last_names(&self, count: usize) -> Vec<String> {
        last_names(&self.directory, count)
    }
}

/// One event file of a run.
#[derive(Debug, Clone)]
pub struct PlannedSource {
    /// Where to open it.
    pub path: PathBuf,
    /// Path below the experiment's directory.
    pub label: String,
    /// The TB run's part of the label: files of one directory share what is known about their tags.
    pub directory: String,
    /// The file's name.
    pub file_name: String,
    /// Hash of its first record.
    pub fingerprint: Fingerprint,
    /// Wall time of its first event.
    pub first_due: WallTime,
    /// Size in bytes when it was looked at.
    pub size: u64,
    /// When it was last written, as the file system says.
    pub modified: SystemTime,
    /// Device and inode.
    pub identity: (u64, u64),
    /// What its tags are called.
    pub rule: KeyRule,
    /// Whether TensorFlow 2's writer made it.
    pub from_tf2_writer: bool,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Found {
    /// The runs, by root and path.
    pub runs: Vec<PlannedRun>,
    /// Event files whose writers have only begun, so that they make no run yet.
    pub waiting: Vec<PathBuf>,
    /// Event files that `--include` and `--exclude` leave out.
    pub left_out: Vec<PathBuf>,
    /// Patterns of `--include` and `--exclude` that match no TB run, with their flags.
    pub idle_patterns: Vec<String>,
    /// How many directories were read.
    pub directories: usize,
    /// Files with other names.
    pub other_files: u64,
    /// What could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// What the directories held.
    pub listings: Arc<Listings>,
}

/// Looks at directories, and remembers the beginnings of files between looks.
#[derive(Debug)]
pub struct Survey {
    layout: Layout,
    join: Option<Template>,
    filter: RunFilter,
    generation: u32,
    peeked: HashMap<PathBuf, Peeked>,
    beginnings: Beginnings,
    /// The files as they were at the last look.
    last: HashMap<PathBuf, EventFileInfo>,
}

#[derive(Debug, Clone)]
struct Peeked {
    identity: (u64, u64),
    /// Size of the file when it was looked at last.
    size: u64,
    /// When it was last written, as of then.
    modified: Option<SystemTime>,
    first: Result<(Fingerprint, WallTime), String>,
}

impl Survey {
    /// Experiments are made by `shape`, and their ids by `generation`.
    pub fn new(shape: &Shape, generation: u32) -> Self {
        Self {
            layout: shape.layout,
            join: shape.join.clone(),
            filter: shape.runs.clone(),
            generation,
            peeked: HashMap::new(),
            beginnings: Beginnings::default(),
            last: HashMap::new(),
        }
    }

    /// Looks into the paths, which must exist.
    pub fn look(&mut self, paths: &[PathBuf]) -> io::Result<Found> {
        self.look_knowing(paths, &HashSet::new())
    }

    /// The same, where these files, by name and first record, were made parts of their owners' runs before. Of several
    /// sessions of a directory it is then one of them that stays with it, whichever came first.
    pub fn look_knowing(&mut self, paths: &[PathBuf], claimed: &HashSet<(String, Fingerprint)>) -> io::Result<Found> {
        let mut found = self.look_at_due(paths, claimed, &mut |_, _| true)?;
        for run in &mut found.runs {
            run.listings = found.listings.clone();
        }
        Ok(found)
    }

    /// The same, but of files that are not due by their path and the time of their last write, only their directory is
    /// asked: they are as they were. For who keeps the plans: they do not say what the directories held.
    pub fn look_at_due(
        &mut self,
        paths: &[PathBuf],
        claimed: &HashSet<(String, Fingerprint)>,
        is_due: &mut dyn FnMut(&Path, SystemTime) -> bool,
    ) -> io::Result<Found> {
        let mut found = Found::default();
        let mut known = std::mem::take(&mut self.last);
        known.retain(|path, file| !is_due(path, file.modified.unwrap_or(SystemTime::UNIX_EPOCH)));
        let mut listings = Listings::default();
        let groups = roots::gather(paths, &|path| known.get(path).cloned(), &mut found, &mut listings)?;
        found.listings = Arc::new(listings);
        let files = groups.iter().flat_map(|(_, members)| members).flat_map(|member| &member.files);
        self.last = files.map(|file| (file.path.clone(), file.clone())).collect();
        self.peek_new(groups.iter().flat_map(|(_, members)| members));
        let mut drafts = Drafts::default();
        let mut tb_runs: BTreeSet<String> = BTreeSet::new();
        for (root, members) in &groups {
            if !self.filter.is_empty() {
                tb_runs.extend(members.iter().map(Member::tb_run));
            }
            self.plan_root(root, members, claimed, &mut found, &mut drafts);
        }
        found.idle_patterns = self.filter.idle(tb_runs.iter().map(String::as_str));
        found.runs = drafts.identify(self.generation);
        leave_out(&mut found);
        self.forget(&groups);
        Ok(found)
    }

    /// Size, time of the last change, and device and inode of one event file; `None` when it is not there any more.
    pub fn stat(&self, path: &Path) -> Option<(u64, SystemTime, (u64, u64))> {
        let file = discover(path).ok()?.runs.into_iter().next()?.files.into_iter().next()?;
        Some((file.size, file.modified.unwrap_or(SystemTime::UNIX_EPOCH), (file.dev, file.inode)))
    }

    /// Asks about the files of a plan once more, where nothing may be missed any more.
    pub fn ask_anew(plan: &mut PlannedRun) {
        for source in &mut plan.sources {
            // What is gone is known soon enough.
            if let Ok(found) = ask_anew(&source.path) {
                (source.size, source.modified) = found;
            }
        }
    }

    /// Reads the first record of every file that is new or was replaced.
    fn peek_new<'a>(&mut self, members: impl Iterator<Item = &'a Member>) {
        let files: Vec<&EventFileInfo> = members.flat_map(|member| &member.files).collect();
        let wanted: Vec<&EventFileInfo> = files
            .iter()
            .copied()
            .filter(|file| {
                self.peeked.get(&file.path).is_none_or(|peeked| {
                    // A file that was written to may have been written anew, and one that is gone leaves its number to
                    // the next.
                    let as_it_was = (peeked.identity, peeked.size, peeked.modified);
                    as_it_was != ((file.dev, file.inode), file.size, file.modified) || peeked.first.is_err()
                })
            })
            .collect();
        let fresh: Vec<(PathBuf, Peeked)> = wanted
            .par_iter()
            .filter_map(|file| {
                let first = match peek(&file.path) {
                    Ok(Some(first)) => {
                        let named =
                            || start_of(&file.name.to_string_lossy()).and_then(|seconds| WallTime::new(seconds as f64));
                        Ok((Fingerprint::of(&first.payload), first.wall_time.or_else(named).unwrap_or_default()))
                    }
                    Ok(None) => return None,
                    Err(error) => Err(error.to_string()),
                };
                let (identity, size, modified) = ((file.dev, file.inode), file.size, file.modified);
                Some((file.path.clone(), Peeked { identity, size, modified, first }))
            })
            .collect();
        for file in wanted {
            self.peeked.remove(&file.path);
        }
        self.peeked.extend(fresh);
    }

    fn plan_root(
        &mut self,
        root: &Root,
        members: &[Member],
        claimed: &HashSet<(String, Fingerprint)>,
        found: &mut Found,
        drafts: &mut Drafts,
    ) {
        let mut evidence = self.evidence(members);
        if !claimed.is_empty() {
            let is_claimed = |file: &EventFileInfo| {
                let first = self.peeked.get(&file.path).and_then(|peeked| peeked.first.as_ref().ok());
                first.is_some_and(|(first, _)| claimed.contains(&(readable(&file.name), first.clone())))
            };
            for (member, evidence) in members.iter().zip(&mut evidence) {
                if let Some(Evidence { session: Some(session), .. }) = evidence {
                    session.is_claimed = member.files.iter().any(is_claimed);
                }
            }
        }
        let mut directories = Vec::with_capacity(members.len());
        let mut decided = Vec::with_capacity(members.len());
        for (member, evidence) in members.iter().zip(evidence) {
            let admitted = self.filter.is_empty() || self.filter.admits(&member.tb_run());
            let files = || member.files.iter().map(|file| file.path.clone());
            if !admitted {
                found.left_out.extend(files());
            }
            match evidence {
                Some(evidence) => {
                    directories.push(Directory { path: member.parts.clone(), evidence });
                    decided.push((member, admitted));
                }
                // What it is shows with its first values: its writer may be one that `add_scalars` or `add_hparams` made.
                None if admitted => found.waiting.extend(files()),
                None => {}
            }
        }
        let mut beside = None;
        for experiment in layout::experiments(&directories, self.layout) {
            let value = self.join.as_ref().map(|join| join.expand(Place { root: &root.name, path: &experiment.path }));
            // A text that is empty joins nothing: it says nothing about what belongs together.
            let value = value.filter(|value| !value.is_empty());
            // Files of joined experiments are told apart by the whole path below the root.
            let base: &[String] = if value.is_some() { &[] } else { &experiment.path };
            let mut sources = Vec::new();
            let mut tb_runs = Vec::new();
            for (index, rule) in &experiment.members {
                let Some((member, admitted)) = decided.get(*index).copied() else { continue };
                tb_runs.push(member.tb_run());
                for file in &member.files {
                    match self.peeked.get(&file.path).map(|peeked| &peeked.first) {
                        Some(Ok((fingerprint, first_due))) => {
                            sources.push(source(member, file, base, rule, fingerprint, *first_due));
                        }
                        None if admitted => found.waiting.push(file.path.clone()),
                        Some(Err(why)) if admitted => found.unreadable.push((file.path.clone(), why.clone())),
                        None | Some(Err(_)) => {}
                    }
                }
            }
            if sources.is_empty() {
                continue;
            }
            let directory = experiment.path.iter().fold(root.directory.clone(), |path, part| path.join(part));
            let draft = Draft {
                root: root.name.clone(),
                root_directory: root.directory.clone(),
                session_of: experiment.session_of,
                experiments: vec![directory.clone()],
                directory,
                tb_runs,
                sources,
                beside: root.beside(&experiment.path, &mut beside),
                path: experiment.path,
            };
            match value {
                Some(value) => drafts.join(value, root, draft),
                None => drafts.add(draft),
            }
        }
    }

    /// What the files of each directory show, where it matters; `None` for those that have to wait.
    fn evidence(&mut self, members: &[Member]) -> Vec<Option<Evidence>> {
        if self.layout != Layout::Auto {
            return members.iter().map(|_| Some(Evidence::default())).collect();
        }
        let with_events: BTreeSet<&[String]> = members.iter().map(|member| member.parts.as_slice()).collect();
        let asked: Vec<bool> =
            members.iter().map(|member| layout::wants_evidence(&member.parts, &with_events)).collect();
        let below = || members.iter().zip(&asked).filter(|(_, asked)| **asked).map(|(member, _)| member);
        self.beginnings.read(below().flat_map(|member| &member.files));
        let is_small = |member: &&Member| member.files.iter().map(|file| file.size).sum::<u64>() <= DESCRIPTION;
        let small = members.iter().zip(&asked).filter(|(_, asked)| !**asked).map(|(member, _)| member).filter(is_small);
        self.beginnings.read(small.flat_map(|member| &member.files));
        let started = |member: &Member| {
            let first = |file: &EventFileInfo| Some(self.peeked.get(&file.path)?.first.as_ref().ok()?.1);
            member.files.iter().filter_map(first).min().unwrap_or_default()
        };
        let mut evidence: Vec<Option<Evidence>> = members
            .iter()
            .zip(&asked)
            .map(|(member, asked)| match asked {
                true => self.beginnings.of_directory(&member.files, started(member)),
                false if self.beginnings.only_describe(&member.files) => None,
                false => Some(Evidence::default()),
            })
            .collect();
        // Of the owner of a session it matters, too.
        let is_session = |(_, evidence): &(&Member, &Option<Evidence>)| {
            evidence.as_ref().is_some_and(|evidence| evidence.session.is_some())
        };
        let sessions = members.iter().zip(&evidence).filter(is_session);
        let owners: HashSet<&[String]> =
            sessions.filter_map(|(member, _)| layout::owner_of(&member.parts, &with_events)).collect();
        let is_owner = |member: &Member| owners.contains(member.parts.as_slice());
        self.beginnings.read(members.iter().filter(|member| is_owner(member)).flat_map(|member| &member.files));
        for (member, evidence) in members.iter().zip(&mut evidence).filter(|(member, _)| is_owner(member)) {
            *evidence = Some(self.beginnings.so_far(&member.files, started(member)));
        }
        evidence
    }

    /// Forgets files that are not there any more.
    fn forget(&mut self, groups: &[(Root, Vec<Member>)]) {
        let files = groups.iter().flat_map(|(_, members)| members).flat_map(|member| &member.files);
        let there: HashSet<&Path> = files.map(|file| file.path.as_path()).collect();
        self.peeked.retain(|path, _| there.contains(path.as_path()));
        self.beginnings.keep(|path| there.contains(path));
    }
}

/// Takes the files that are left out away from the runs, which have their ids and names by now.
fn leave_out(found: &mut Found) {
    let left_out: HashSet<&PathBuf> = found.left_out.iter().collect();
    if left_out.is_empty() {
        return;
    }
    for run in &mut found.runs {
        run.sources.retain(|source| !left_out.contains(&source.path));
        if let Some(started) = run.sources.iter().map(|source| source.first_due).min() {
            run.started_at = started;
        }
        run.modified = run.sources.iter().map(|source| source.modified).max().unwrap_or(run.modified);
    }
    found.runs.retain(|run| !run.sources.is_empty());
}

/// A file of an experiment that lies at `base`.
fn source(
    member: &Member,
    file: &EventFileInfo,
    base: &[String],
    rule: &KeyRule,
    fingerprint: &Fingerprint,
    first_due: WallTime,
) -> PlannedSource {
    let file_name = readable(&file.name);
    let directory = way(base, &member.parts);
    PlannedSource {
        path: file.path.clone(),
        label: join_label(&directory, &file_name),
        directory,
        fingerprint: fingerprint.clone(),
        first_due,
        size: file.size,
        modified: file.modified.unwrap_or(SystemTime::UNIX_EPOCH),
        identity: (file.dev, file.inode),
        rule: rule.clone(),
        from_tf2_writer: file_name.ends_with(".v2"),
        file_name,
    }
}

/// The way from one directory to another.
fn way(from: &[String], to: &[String]) -> String {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(common).map(|_| "..");
    up.chain(to.iter().skip(common).map(String::as_str)).collect::<Vec<_>>().join("/")
}
