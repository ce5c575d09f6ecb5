//! Where to look: paths that belong together have one root, below which TB runs have their names.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::listings::Listings;
use crate::survey::Found;
use crate::tfevents::{EventFileInfo, Known, discover_knowing};

/// A root that was given, or the common parent of several.
pub(super) struct Root {
    pub(super) directory: PathBuf,
    /// Its real name.
    pub(super) name: String,
    /// Paths to look into; the root itself, or some of its children.
    targets: Vec<PathBuf>,
}

/// A TB run with its place below the root.
pub(super) struct Member {
    pub(super) parts: Vec<String>,
    pub(super) files: Vec<EventFileInfo>,
}

/// Looks into the paths, which must exist. Each directory is there once, with its place: files of it that were named one
/// by one are put together.
///
/// Of files that are `known` well enough the file system is not asked. What directories hold goes into `listings`.
pub(super) fn gather(
    paths: &[PathBuf],
    known: Known<'_>,
    found: &mut Found,
    listings: &mut Listings,
) -> io::Result<Vec<(Root, Vec<Member>)>> {
    let mut seen: HashMap<PathBuf, (usize, usize)> = HashMap::new();
    let mut groups: Vec<(Root, Vec<Member>)> = Vec::new();
    for root in roots(paths)? {
        let group = groups.len();
        let mut members: Vec<Member> = Vec::new();
        for target in &root.targets {
            let discovery = discover_knowing(target, known)?;
            found.directories += discovery.directories;
            found.other_files += discovery.other_files;
            found.unreadable.extend(discovery.unreadable);
            listings.extend(discovery.listings);
            // A file that was named itself belongs to its directory.
            for run in discovery.runs {
                if let Some((other, index)) = seen.get(&run.directory).copied() {
                    let there = if other == group {
                        Some(&mut members)
                    } else {
                        groups.get_mut(other).map(|(_, members)| members)
                    };
                    if let Some(member) = there.and_then(|members| members.get_mut(index)) {
                        member.add(run.files);
                    }
                } else {
                    seen.insert(run.directory.clone(), (group, members.len()));
                    let relative = run.directory.strip_prefix(&root.directory).unwrap_or(&run.relative);
                    let parts = relative.components().map(|part| readable(part.as_os_str())).collect();
                    members.push(Member { parts, files: run.files });
                }
            }
        }
        groups.push((root, members));
    }
    Ok(groups)
}

/// Paths with the same parent are looked at below that parent, so that `logs/*` means the same as `logs`. One that lies
/// below another comes behind it, so that the order of paths changes neither names nor what belongs together.
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
    let root = |(parent, targets): (Option<PathBuf>, Vec<PathBuf>)| {
        let directory = match (parent, targets.as_slice()) {
            (Some(parent), [only]) if only.is_file() => parent,
            (Some(parent), [_, _, ..]) => parent,
            (_, [only]) => only.clone(),
            (parent, _) => parent.unwrap_or_default(),
        };
        let name = directory.file_name().map_or_else(|| "root".to_owned(), readable);
        Root { directory, name, targets }
    };
    let roots: Vec<Root> = by_parent.into_iter().map(root).collect();
    let place = |(index, root): (usize, &Root)| {
        let outer = roots.iter().rposition(|outer| root.lies_below(outer));
        outer.filter(|outer| *outer > index).map_or((index, false), |outer| (outer, true))
    };
    let places: Vec<(usize, bool)> = roots.iter().enumerate().map(place).collect();
    let mut placed: Vec<((usize, bool), Root)> = places.into_iter().zip(roots).collect();
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, root)| root).collect())
}

impl Root {
    /// Whether it looks at something that another root looks at too.
    fn lies_below(&self, outer: &Self) -> bool {
        let is_below = |own: &PathBuf| outer.targets.iter().any(|target| own != target && own.starts_with(target));
        self.targets.iter().any(is_below)
    }

    /// The directories beside an experiment that were not looked at: where only some children of a directory were named, a
    /// copy may lie there.
    pub(super) fn beside(&self, experiment: &[String], known: &mut Option<(PathBuf, Rc<[PathBuf]>)>) -> Rc<[PathBuf]> {
        let parent = match experiment.len() {
            0 => self.directory.parent(),
            1 if self.targets != [self.directory.clone()] => Some(self.directory.as_path()),
            _ => None,
        };
        match (known, parent) {
            (_, None) => Rc::default(),
            (Some((known, beside)), Some(parent)) if known == parent => beside.clone(),
            (place, Some(parent)) => place.insert((parent.to_owned(), self.directories_beside(parent))).1.clone(),
        }
    }

    /// Directories in `parent` that this root leaves out: none when all of it was looked at.
    fn directories_beside(&self, parent: &Path) -> Rc<[PathBuf]> {
        let targets: HashSet<&PathBuf> = self.targets.iter().collect();
        let Ok(entries) = std::fs::read_dir(parent) else { return Rc::default() };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| entry.path()).filter(|path| !targets.contains(path)).collect()
    }
}

impl Member {
    /// What TensorBoard calls it.
    pub(super) fn tb_run(&self) -> String {
        if self.parts.is_empty() { ".".to_owned() } else { self.parts.join("/") }
    }

    /// Adds files that are not there yet.
    fn add(&mut self, files: Vec<EventFileInfo>) {
        self.files.extend(files);
        self.files.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        self.files.dedup_by(|a, b| a.path == b.path);
    }
}

/// A name that people can read and that is still another for another file: bytes that are not UTF-8 are spelled out.
pub(super) fn readable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}

/// As many of the last names of a path, or all there are.
pub(super) fn last_names(directory: &Path, count: usize) -> Vec<String> {
    let names: Vec<String> = directory.components().map(|part| readable(part.as_os_str())).collect();
    names.get(names.len().saturating_sub(count)..).unwrap_or_default().to_vec()
}
