//! From paths to the runs that would be made: discovery, first records, layout, names and ids.
//!
//! Reads directories and the first record of each file; a file's first record is read once, and again only when the file
//! was replaced. Writes nothing. Layout and ids are decided by the pure code in [`convert`](crate::convert).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use rayon::prelude::*;

use crate::checkpoint::Shape;
use crate::convert::config::{ConfigPlaces, RunDirectories};
use crate::convert::keys::KeyRule;
use crate::convert::layout::{self, Directory, Layout};
use crate::convert::run_id::{self, Fingerprint, Origin};
use crate::convert::template::Place;
use crate::model::{RunId, WallTime};
use crate::tfevents::file_name::start_of;
use crate::tfevents::{EventFile, EventFileInfo, FilePosition, Next, TagTable, discover, host_of, peek};

/// How much of a file is read to see whether it holds one tag only, in bytes.
const ONLY_TAG_BYTES: u64 = 1 << 20;

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
    /// The experiment's directory.
    pub directory: PathBuf,
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
}

impl PlannedRun {
    /// Where the experiment lies, for templates and the default name.
    pub fn place(&self) -> Place<'_> {
        Place { root: &self.root, path: &self.path }
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
    /// Event files without a whole first record: they make no run yet.
    pub waiting: Vec<PathBuf>,
    /// Files with other names.
    pub other_files: u64,
    /// What could not be read, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Looks at directories, and remembers the first records between looks.
#[derive(Debug)]
pub struct Survey {
    layout: Layout,
    join: Option<crate::convert::template::Template>,
    generation: u32,
    peeked: HashMap<PathBuf, Peeked>,
    tags: HashMap<PathBuf, (u64, Tags)>,
}

#[derive(Debug, Clone)]
struct Peeked {
    identity: (u64, u64),
    /// Size of the file when it was looked at last.
    size: u64,
    first: Result<(Fingerprint, WallTime), String>,
}

/// The tags of a directory, as far as the beginning of its files shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// There is no value yet.
    NoneYet,
    /// All values are of this tag.
    One(Arc<str>),
    /// There are several, and that is final.
    Several,
}

impl Tags {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoneYet, tags) | (tags, Self::NoneYet) => tags,
            (Self::One(a), Self::One(b)) if a == b => Self::One(a),
            _ => Self::Several,
        }
    }
}

/// A root that was given, or the common parent of several.
struct Root {
    directory: PathBuf,
    /// Paths to look into; the root itself, or some of its children.
    targets: Vec<PathBuf>,
}

impl Survey {
    /// Experiments are made by `shape`, and their ids by `generation`.
    pub fn new(shape: &Shape, generation: u32) -> Self {
        Self {
            layout: shape.layout,
            join: shape.join.clone(),
            generation,
            peeked: HashMap::new(),
            tags: HashMap::new(),
        }
    }

    /// Looks into the paths, which must exist.
    pub fn look(&mut self, paths: &[PathBuf]) -> io::Result<Found> {
        let mut found = Found::default();
        // Each directory once, with its place: files of it that were named one by one are put together.
        let mut seen: HashMap<PathBuf, (usize, usize)> = HashMap::new();
        let mut groups: Vec<(Root, Vec<Member>)> = Vec::new();
        for root in roots(paths)? {
            let group = groups.len();
            let mut directories: Vec<Member> = Vec::new();
            for target in &root.targets {
                let discovery = discover(target)?;
                found.other_files += discovery.other_files;
                found.unreadable.extend(discovery.unreadable);
                // A file that was named itself belongs to its directory.
                for run in discovery.runs {
                    if let Some((known, index)) = seen.get(&run.directory).copied() {
                        let members = if known == group {
                            Some(&mut directories)
                        } else {
                            groups.get_mut(known).map(|(_, members)| members)
                        };
                        if let Some(member) = members.and_then(|members| members.get_mut(index)) {
                            member.add(run.files);
                        }
                    } else {
                        seen.insert(run.directory.clone(), (group, directories.len()));
                        let relative = run.directory.strip_prefix(&root.directory).unwrap_or(&run.relative);
                        let parts = relative.components().map(|part| readable(part.as_os_str())).collect();
                        directories.push(Member { parts, files: run.files });
                    }
                }
            }
            groups.push((root, directories));
        }
        self.peek_new(groups.iter().flat_map(|(_, directories)| directories));
        let mut drafts = Vec::new();
        for (root, directories) in groups {
            self.plan_root(&root, directories, &mut found, &mut drafts);
        }
        found.runs = self.identify(drafts);
        Ok(found)
    }

    /// Size, time of the last change, and device and inode of one event file; `None` when it is not there any more.
    pub fn stat(&self, path: &Path) -> Option<(u64, SystemTime, (u64, u64))> {
        let file = discover(path).ok()?.runs.into_iter().next()?.files.into_iter().next()?;
        Some((file.size, file.modified.unwrap_or(SystemTime::UNIX_EPOCH), (file.dev, file.inode)))
    }

    /// Reads the first record of every file that is new or was replaced.
    fn peek_new<'a>(&mut self, members: impl Iterator<Item = &'a Member>) {
        let files: Vec<&EventFileInfo> = members.flat_map(|member| &member.files).collect();
        let wanted: Vec<&EventFileInfo> = files
            .iter()
            .copied()
            .filter(|file| {
                self.peeked.get(&file.path).is_none_or(|peeked| {
                    // A file that is shorter than before may have been written anew.
                    peeked.identity != (file.dev, file.inode) || peeked.size > file.size || peeked.first.is_err()
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
                Some((file.path.clone(), Peeked { identity: (file.dev, file.inode), size: file.size, first }))
            })
            .collect();
        for file in wanted {
            self.peeked.remove(&file.path);
        }
        self.peeked.extend(fresh);
        for file in files {
            if let Some(peeked) = self.peeked.get_mut(&file.path) {
                peeked.size = file.size;
            }
        }
    }

    fn plan_root(&mut self, root: &Root, members: Vec<Member>, found: &mut Found, drafts: &mut Vec<Draft>) {
        let root_name = root.directory.file_name().map_or_else(|| "root".to_owned(), readable);
        let with_events: BTreeSet<&[String]> = members.iter().map(|member| member.parts.as_slice()).collect();
        let mut directories = Vec::with_capacity(members.len());
        let mut decided = Vec::with_capacity(members.len());
        for member in &members {
            let asked = self.layout == Layout::Auto && layout::wants_only_tag(&member.parts, &with_events);
            let tags = if asked { self.tags_of(member) } else { Tags::Several };
            let only_tag = match tags {
                // What it is shows with its first value: its writer may be one that `add_scalars` made.
                Tags::NoneYet => {
                    found.waiting.extend(member.files.iter().map(|file| file.path.clone()));
                    continue;
                }
                Tags::One(tag) => Some(tag.to_string()),
                Tags::Several => None,
            };
            directories.push(Directory { path: member.parts.clone(), only_tag });
            decided.push(member);
        }
        let members = decided;
        let mut joined: BTreeMap<String, usize> = BTreeMap::new();
        let mut beside: Option<(PathBuf, Rc<[PathBuf]>)> = None;
        for experiment in layout::experiments(&directories, self.layout) {
            let place = Place { root: &root_name, path: &experiment.path };
            let value = self.join.as_ref().map(|join| join.expand(place));
            let directory = experiment.path.iter().fold(root.directory.clone(), |path, part| path.join(part));
            let mut sources = Vec::new();
            let mut modified = SystemTime::UNIX_EPOCH;
            for (index, rule) in &experiment.members {
                let Some(member) = members.get(*index) else { continue };
                for file in &member.files {
                    match self.peeked.get(&file.path).map(|peeked| &peeked.first) {
                        None => found.waiting.push(file.path.clone()),
                        Some(Err(why)) => found.unreadable.push((file.path.clone(), why.clone())),
                        Some(Ok((fingerprint, first_due))) => {
                            modified = modified.max(file.modified.unwrap_or(SystemTime::UNIX_EPOCH));
                            sources.push(member.source(file, &experiment.path, rule, fingerprint, *first_due));
                        }
                    }
                }
            }
            if sources.is_empty() {
                continue;
            }
            if let Some(value) = value {
                // Files of joined experiments are told apart by the whole path below the root.
                for source in &mut sources {
                    let prefix = experiment.path.join("/");
                    source.label = join_label(&prefix, &source.label);
                    source.directory = join_label(&prefix, &source.directory);
                }
                if let Some(draft) = joined.get(&value).and_then(|index| drafts.get_mut(*index)) {
                    draft.sources.append(&mut sources);
                    draft.modified = draft.modified.max(modified);
                    draft.experiments.push(directory);
                    continue;
                }
                joined.insert(value.clone(), drafts.len());
                drafts.push(Draft {
                    root: root_name.clone(),
                    root_directory: root.directory.clone(),
                    path: vec![value],
                    experiments: vec![directory.clone()],
                    directory,
                    sources,
                    modified,
                    beside: Rc::default(),
                });
                continue;
            }
            // Where only some children of a directory were named, a copy may lie beside them.
            let parent = match experiment.path.len() {
                0 => root.directory.parent(),
                1 if root.targets != [root.directory.clone()] => Some(root.directory.as_path()),
                _ => None,
            };
            let beside = match (&mut beside, parent) {
                (_, None) => Rc::default(),
                (Some((known, beside)), Some(parent)) if known == parent => beside.clone(),
                (place, Some(parent)) => place.insert((parent.to_owned(), directories_beside(parent, root))).1.clone(),
            };
            drafts.push(Draft {
                root: root_name.clone(),
                root_directory: root.directory.clone(),
                path: experiment.path,
                experiments: vec![directory.clone()],
                directory,
                sources,
                modified,
                beside,
            });
        }
    }

    /// The tags of a directory, as far as the beginning of its files shows. A file is read again only while it may tell
    /// more.
    fn tags_of(&mut self, member: &Member) -> Tags {
        let mut tags = Tags::NoneYet;
        for file in &member.files {
            let seen = file.size.min(ONLY_TAG_BYTES);
            let known = self.tags.get(&file.path).filter(|(size, tags)| *size >= seen || *tags == Tags::Several);
            let of_file = match known {
                Some((_, tags)) => tags.clone(),
                None => {
                    let read = tags_of_file(&file.path);
                    self.tags.insert(file.path.clone(), (seen, read.clone()));
                    read
                }
            };
            tags = tags.and(of_file);
        }
        tags
    }

    /// Gives every draft its id; experiments that look the same to a hash of their first record are told apart.
    fn identify(&self, drafts: Vec<Draft>) -> Vec<PlannedRun> {
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
            // As many of the last names of the path as it takes to tell them apart.
            for count in 1..64 {
                let names: Vec<Vec<String>> = indexes
                    .iter()
                    .filter_map(|index| drafts.get(*index))
                    .map(|draft| draft.last_names(count))
                    .collect();
                let distinct: HashSet<&Vec<String>> = names.iter().collect();
                if distinct.len() == names.len() || count == 63 {
                    for (index, names) in indexes.iter().zip(names) {
                        if let Some(place) = copy_names.get_mut(*index) {
                            *place = names;
                        }
                    }
                    break;
                }
            }
        }
        let directories: Vec<RunDirectories<'_>> = drafts.iter().map(Draft::directories).collect();
        let places = ConfigPlaces::of_all(&directories);
        let plan =
            |(((draft, origin), copy_names), config): (((Draft, Origin), Vec<String>), ConfigPlaces)| PlannedRun {
                id: run_id::derive(&origin, self.generation, &copy_names),
                copy_names,
                host: draft.first().and_then(|first| host_of(&first.file_name)).unwrap_or_default().to_owned(),
                started_at: draft.sources.iter().map(|source| source.first_due).min().unwrap_or_default(),
                root: draft.root,
                path: draft.path,
                directory: draft.directory,
                modified: draft.modified,
                sources: draft.sources,
                config,
            };
        drafts.into_iter().zip(origins).zip(copy_names).zip(places).map(plan).collect()
    }
}

/// A TB run with its place below the root.
struct Member {
    parts: Vec<String>,
    files: Vec<EventFileInfo>,
}

impl Member {
    /// Adds files that are not there yet.
    fn add(&mut self, files: Vec<EventFileInfo>) {
        self.files.extend(files);
        self.files.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        self.files.dedup_by(|a, b| a.path == b.path);
    }

    fn source(
        &self,
        file: &EventFileInfo,
        experiment: &[String],
        rule: &KeyRule,
        fingerprint: &Fingerprint,
        first_due: WallTime,
    ) -> PlannedSource {
        let file_name = readable(&file.name);
        let directory = self.parts.get(experiment.len()..).unwrap_or_default().join("/");
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
}

/// A run that has no id yet. Has at least one source.
struct Draft {
    root: String,
    root_directory: PathBuf,
    path: Vec<String>,
    directory: PathBuf,
    /// Its directory, and those of the experiments that were joined to it.
    experiments: Vec<PathBuf>,
    sources: Vec<PlannedSource>,
    modified: SystemTime,
    /// Directories beside it that were not looked at.
    beside: Rc<[PathBuf]>,
}

impl Draft {
    /// The first event file: by its first event, then by name, then by place.
    fn first(&self) -> Option<&PlannedSource> {
        self.sources.iter().min_by_key(|source| (source.first_due, &source.file_name, &source.label))
    }

    fn origin(&self) -> Option<Origin> {
        let first = self.first()?;
        Some(Origin { file_name: first.file_name.clone().into_bytes(), first_record: first.fingerprint.clone() })
    }

    fn last_names(&self, count: usize) -> Vec<String> {
        last_names(&self.directory, count)
    }

    fn directories(&self) -> RunDirectories<'_> {
        RunDirectories { root: &self.root_directory, experiments: &self.experiments }
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

/// Paths with the same parent are looked at below that parent, so that `logs/*` means the same as `logs`.
fn roots(paths: &[PathBuf]) -> io::Result<Vec<Root>> {
    let mut by_parent: Vec<(Option<PathBuf>, Vec<PathBuf>)> = Vec::new();
    for path in paths {
        let real = path.canonicalize()?;
        let parent = real.parent().map(Path::to_owned);
        match by_parent.iter_mut().find(|(known, _)| *known == parent && parent.is_some()) {
            Some((_, targets)) if targets.contains(&real) => {}
            Some((_, targets)) => targets.push(real),
            None => by_parent.push((parent, vec![real])),
        }
    }
    let root = |(parent, targets): (Option<PathBuf>, Vec<PathBuf>)| match (parent, targets.as_slice()) {
        (Some(parent), [only]) if only.is_file() => Root { directory: parent, targets },
        (Some(parent), [_, _, ..]) => Root { directory: parent, targets },
        (_, [only]) => Root { directory: only.clone(), targets },
        (parent, _) => Root { directory: parent.unwrap_or_default(), targets },
    };
    Ok(by_parent.into_iter().map(root).collect())
}

fn last_names(directory: &Path, count: usize) -> Vec<String> {
    let names: Vec<String> = directory.components().map(|part| readable(part.as_os_str())).collect();
    names.get(names.len().saturating_sub(count)..).unwrap_or_default().to_vec()
}

fn join_label(directory: &str, name: &str) -> String {
    match (directory.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => directory.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

/// Directories in `parent` that a root leaves out: none when all of it was looked at.
fn directories_beside(parent: &Path, root: &Root) -> Rc<[PathBuf]> {
    let targets: HashSet<&PathBuf> = root.targets.iter().collect();
    let Ok(entries) = std::fs::read_dir(parent) else { return Rc::default() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).filter(|path| !targets.contains(path)).collect()
}

/// The tags of a file, as far as its beginning shows. A file that cannot be read is no evidence for anything.
fn tags_of_file(path: &Path) -> Tags {
    let Ok(mut file) = EventFile::open(path, &FilePosition::default()) else { return Tags::Several };
    let mut table = TagTable::default();
    let mut tags = Tags::NoneYet;
    while file.offset() < ONLY_TAG_BYTES && tags != Tags::Several {
        match file.next_event(&mut table) {
            Ok(Next::Event) => {
                for point in &file.event().points {
                    tags = tags.and(Tags::One(point.tag.clone()));
                }
            }
            Ok(Next::BadRecord { .. }) => {}
            Ok(_) => break,
            Err(_) => return Tags::Several,
        }
    }
    tags
}

/// A name that people can read and that is still another for another file: bytes that are not UTF-8 are spelled out.
fn readable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}
