//! Which TensorBoard runs make one W&B run, and what their tags are called in it.
//!
//! A TB run is a directory with event files; a W&B run is an *experiment*. A directory is folded into another one only
//! on evidence: a split name (`train`, `validation`…) where the parent's own files or the siblings bear it out, or what
//! `add_scalars` or `add_hparams` leaves behind. Everything else is a run of its own: a stray event file in a folder of
//! five hundred experiments must never swallow them.

use std::collections::{BTreeMap, BTreeSet};

use crate::convert::keys::KeyRule;
use crate::model::WallTime;

/// Names of directories that hold a part of an experiment rather than an experiment.
const SPLITS: [&str; 9] = ["train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "dev"];

/// How directories become runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// By the rules of this module.
    #[default]
    Auto,
    /// Each directory with event files is a run.
    PerDirectory,
    /// All directories below the root are one run; tags are prefixed with the path below the root.
    Single,
}

/// What is known of one TB run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Path parts below the root; none for the root itself. Unique among the directories of a call.
    pub path: Vec<String>,
    /// What its files show; the default where nobody asked, see [`wants_evidence`] and [`owner_of`].
    pub evidence: Evidence,
}

/// What the beginning of a directory's files shows of how they were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The tag, if all values are of one.
    pub only_tag: Option<String>,
    /// Whether there is no value but descriptions of an experiment, `_hparams_/experiment`.
    pub is_bare: bool,
    /// The hyperparameter session that the directory holds.
    pub session: Option<Session>,
}

/// A session of TensorBoard's hparams: one set of hyperparameters, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Whether an earlier look made it a part of its owner's run: then it stays one.
    pub is_claimed: bool,
    /// When its first event happened.
    pub started: WallTime,
    /// Whether `add_hparams` wrote it, in one go: the experiment, the session's start and its end, then each metric
    /// once, and nothing else.
    pub in_one_go: bool,
}

/// A W&B run: its own path, and the directories that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Path parts below the root; none when the root is the experiment.
    pub path: Vec<String>,
    /// The path of the directory that it is a session of.
    pub session_of: Option<Vec<String>>,
    /// Its directories, as indexes into the list that was given, each with the rule for its tags.
    pub members: Vec<(usize, KeyRule)>,
}

/// The nearest directory with event files above a path.
pub fn owner_of<'a>(path: &'a [String], with_events: &BTreeSet<&[String]>) -> Option<&'a [String]> {
    (0..path.len()).rev().filter_map(|length| path.get(..length)).find(|ancestor| with_events.contains(ancestor))
}

/// Whether [`Directory::evidence`] can matter for this path: only below another directory with event files, and for the
/// owner of a session. Looking for it costs a read of the files, so it is asked only where the answer decides something.
pub fn wants_evidence(path: &[String], with_events: &BTreeSet<&[String]>) -> bool {
    owner_of(path, with_events).is_some()
}

/// Sorts directories into experiments. The order of the result is that of the experiments' paths.
pub fn experiments(directories: &[Directory], layout: Layout) -> Vec<Experiment> {
    match layout {
        Layout::PerDirectory => directories
            .iter()
            .enumerate()
            .map(|(index, directory)| Experiment {
                path: directory.path.clone(),
                session_of: None,
                members: vec![(index, KeyRule::default())],
            })
            .collect(),
        Layout::Single if directories.is_empty() => Vec::new(),
        Layout::Single => {
            let prefixed =
                |(index, directory): (usize, &Directory)| (index, KeyRule::prefix(&directory.path.join("/")));
            let members = directories.iter().enumerate().map(prefixed).collect();
            vec![Experiment { path: Vec::new(), session_of: None, members }]
        }
        Layout::Auto => Fold::new(directories).experiments(),
    }
}

/// The directory that another one belongs to, and what the step to it does to the tags.
struct Step {
    to: Vec<String>,
    rule: KeyRule,
}

/// What becomes of a directory that has to do with sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    /// Config and summary of the directory that it is a session of.
    Of(&'a [String]),
    /// A run of its own, a session of that directory.
    SessionOf(&'a [String]),
    /// Only describes its sessions, and goes with the first of them.
    Describes(&'a [String]),
}

struct Fold<'a> {
    directories: &'a [Directory],
    by_path: BTreeMap<&'a [String], usize>,
    /// Parents below which something lies that is not a split and was not folded away.
    mixed_parents: BTreeSet<&'a [String]>,
    parts: BTreeMap<&'a [String], Part<'a>>,
}

impl<'a> Fold<'a> {
    fn new(directories: &'a [Directory]) -> Self {
        let by_path: BTreeMap<_, _> =
            directories.iter().enumerate().map(|(index, directory)| (directory.path.as_slice(), index)).collect();
        let mut fold = Self { directories, by_path, mixed_parents: BTreeSet::new(), parts: BTreeMap::new() };
        fold.find_sessions();
        for directory in directories {
            let folded = matches!(fold.parts.get(directory.path.as_slice()), Some(Part::Of(_)));
            if folded || fold.add_scalars(directory).is_some() {
                continue;
            }
            for (depth, part) in directory.path.iter().enumerate() {
                if !is_split(part) {
                    fold.mixed_parents.extend(directory.path.get(..depth));
                }
            }
        }
        fold
    }

    /// Decides about sessions below directories with event files.
    fn find_sessions(&mut self) {
        let mut sessions: BTreeMap<&'a [String], Vec<(Session, &'a [String])>> = BTreeMap::new();
        let mut with_parts: BTreeSet<&'a [String]> = BTreeSet::new();
        for directory in self.directories {
            let path = directory.path.as_slice();
            let Some(owner) = self.owner_of(path) else { continue };
            let is_split = path.len() == owner.len() + 1 && path.last().is_some_and(|name| is_split(name));
            match directory.evidence.session {
                Some(session) if session.in_one_go || !is_split => {
                    sessions.entry(owner).or_default().push((session, path));
                }
                _ if is_split || self.add_scalars(directory).is_some() => {
                    with_parts.insert(owner);
                }
                _ => {}
            }
        }
        for (owner, mut sessions) in sessions {
            sessions.sort_by_key(|(session, path)| (!session.is_claimed, session.started, *path));
            let Some(of_owner) = self.by_path.get(owner).and_then(|index| self.directories.get(*index)) else {
                continue;
            };
            let first = sessions.first().map(|(session, path)| (session.in_one_go, *path));
            let first_in_one_go = sessions.iter().find(|(session, _)| session.in_one_go).map(|(_, path)| *path);
            let is_bare = of_owner.evidence.is_bare && !with_parts.contains(owner);
            let of_owner = match (of_owner.evidence.session, is_bare, sessions.len(), first) {
                (Some(_), ..) => None,
                // `add_hparams` before the first value of a run that has begun.
                (None, true, 1, Some((true, path))) => Some(path),
                (None, true, _, Some((_, first))) => {
                    self.parts.insert(owner, Part::Describes(first));
                    None
                }
                _ => first_in_one_go,
            };
            for (_, path) in sessions {
                let part = if Some(path) == of_owner { Part::Of(owner) } else { Part::SessionOf(owner) };
                self.parts.insert(path, part);
            }
        }
    }

    fn experiments(&self) -> Vec<Experiment> {
        let mut experiments: BTreeMap<Vec<String>, Vec<(usize, KeyRule)>> = BTreeMap::new();
        for (index, directory) in self.directories.iter().enumerate() {
            let mut rule = KeyRule::default();
            let mut path = directory.path.clone();
            let mut step = self.add_scalars(directory).or_else(|| self.step(&path));
            // Each step leads to a shorter path, or to the run of a session, from which none leads on; so this ends.
            while let Some(taken) = step {
                rule = rule.within(&taken.rule);
                path = taken.to;
                step = self.step(&path);
            }
            experiments.entry(path).or_default().push((index, rule));
        }
        let experiment = |(path, members): (Vec<String>, _)| {
            let session_of = match self.parts.get(path.as_slice()) {
                Some(Part::SessionOf(owner)) => Some(owner.to_vec()),
                _ => None,
            };
            Experiment { path, session_of, members }
        };
        experiments.into_iter().map(experiment).collect()
    }

    fn step(&self, path: &[String]) -> Option<Step> {
        match self.parts.get(path) {
            Some(Part::Of(to) | Part::Describes(to)) => Some(Step { to: to.to_vec(), rule: KeyRule::default() }),
            Some(Part::SessionOf(_)) => None,
            None => self.split(path),
        }
    }

    /// `model/eval` beside event files of `model` itself, or `exp/train` beside nothing but other splits.
    fn split(&self, path: &[String]) -> Option<Step> {
        let (own, parent) = path.split_last()?;
        let folds = is_split(own) && (self.by_path.contains_key(parent) || !self.mixed_parents.contains(parent));
        folds.then(|| Step { to: parent.to_vec(), rule: KeyRule::prefix(own) })
    }

    /// `add_scalars(T, {k: …})` makes a writer per k, whose only tag is T: in the directory `T_k` with slashes as
    /// underscores (torch), or `T/k` (tensorboardX), below the directory of the writer it was called on.
    fn add_scalars(&self, directory: &Directory) -> Option<Step> {
        let tag = directory.evidence.only_tag.as_deref()?;
        // The nearest directory with event files above is the writer's own: torch and tensorboardX always make one.
        let owner = self.owner_of(&directory.path)?;
        let below = directory.path.get(owner.len()..)?.join("/");
        let torch = clean(&tag.replace('/', "_")) + "_";
        let tensorboardx = clean(tag) + "/";
        let length = [torch, tensorboardx]
            .iter()
            .find(|start| clean(&below).starts_with(*start))
            .map(|start| start.chars().count())?;
        let name: String = below.chars().skip(length).collect();
        (!name.is_empty()).then(|| Step { to: owner.to_vec(), rule: KeyRule::rename(tag, &format!("{tag}/{name}")) })
    }

    /// The nearest directory with event files above.
    fn owner_of<'b>(&self, path: &'b [String]) -> Option<&'b [String]> {
        (0..path.len()).rev().filter_map(|length| path.get(..length)).find(|above| self.by_path.contains_key(above))
    }
}

fn is_split(name: &str) -> bool {
    SPLITS.contains(&name)
}

/// tensorboardX writes these characters of a tag as `_`, but not in the directory's name. One character stays one.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '/' | '_' | '.') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One directory: `path`, `path=only tag`, or `path!…` with a letter each for what is known: `b`are, `s`ession,
    /// session in one `g`o, `c`laimed. Sessions start in the order they are given.
    fn directory(text: &str, position: usize) -> Directory {
        let (path, known) = text.split_once('!').unwrap_or((text, ""));
        let (path, only_tag) = path.split_once('=').map_or((path, None), |(path, tag)| (path, Some(tag.to_owned())));
        let path = path.split('/').filter(|part| *part != ".").map(str::to_owned).collect();
        let started = WallTime::new(position as f64).unwrap_or_default();
        let session = known.contains(['s', 'g']).then(|| Session {
            is_claimed: known.contains('c'),
            started,
            in_one_go: known.contains('g'),
        });
        Directory { path, evidence: Evidence { only_tag, is_bare: known.contains('b'), session } }
    }

    /// The result is one line an experiment: `path[, session of path]: member(rule) …`.
    fn check(directories: &[&str], layout: Layout, expected: &[&str]) {
        let directories: Vec<Directory> =
            directories.iter().enumerate().map(|(position, text)| directory(text, position)).collect();
        let lines: Vec<String> = experiments(&directories, layout)
            .iter()
            .map(|experiment| {
                let member = |(index, rule): &(usize, KeyRule)| {
                    format!(" {}→{}", directories[*index].path.join("/"), rule.key("t"))
                };
                let of = experiment.session_of.as_ref().map(|of| format!(", session of {}", of.join("/")));
                let members: String = experiment.members.iter().map(member).collect();
                format!("{}{}:{members}", experiment.path.join("/"), of.unwrap_or_default())
            })
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn splits_fold_on_evidence_only() {
        check(&["exp/train", "exp/validation"], Layout::Auto, &["exp: exp/train→train/t exp/validation→validation/t"]);
        check(&["train", "validation"], Layout::Auto, &[": train→train/t validation→validation/t"]);
        check(&["model", "model/eval"], Layout::Auto, &["model: model→t model/eval→eval/t"]);
        // Beside other experiments a split is a run of its own.
        check(&["test", "ppo", "dqn"], Layout::Auto, &["dqn: dqn→t", "ppo: ppo→t", "test: test→t"]);
        check(&["a/train", "a/ppo"], Layout::Auto, &["a/ppo: a/ppo→t", "a/train: a/train→t"]);
    }

    #[test]
    fn a_stray_file_swallows_nothing() {
        check(&[".", "a", "b/c"], Layout::Auto, &[": →t", "a: a→t", "b/c: b/c→t"]);
    }

    #[test]
    fn add_scalars_fold_into_their_writer() {
        check(&[".", "loss_a=loss", "loss_b=loss"], Layout::Auto, &[": →t loss_a→t loss_b→t"]);
        let directories = [".", "x_loss_a=x/loss", "my loss/b=my_loss", "other=x/loss"].map(|text| directory(text, 0));
        let found = experiments(&directories, Layout::Auto);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].members[1].1.key("x/loss"), "x/loss/a");
        assert_eq!(found[0].members[2].1.key("my_loss"), "my_loss/b");
        assert_eq!(found[1].path, ["other"]);
        // Without a writer above it, it is a run like any other.
        check(&["loss_a=loss", "loss_b=loss"], Layout::Auto, &["loss_a: loss_a→t", "loss_b: loss_b→t"]);
    }

    #[test]
    fn folding_goes_on_upwards() {
        let directories = ["train", "train/loss_a=loss"].map(|text| directory(text, 0));
        let found = experiments(&directories, Layout::Auto);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].members[1].1.key("loss"), "train/loss/a");
    }

    #[test]
    fn the_first_session_is_its_writers() {
        // `add_hparams` at the end of a run, and twice more.
        check(
            &["exp", "exp/1.5!g", "exp/0.5!g", "exp/named!g"],
            Layout::Auto,
            &["exp: exp→t exp/1.5→t", "exp/0.5, session of exp: exp/0.5→t", "exp/named, session of exp: exp/named→t"],
        );
        check(&[".", "1.5!g", "2.5!g"], Layout::Auto, &[": →t 1.5→t", "2.5, session of : 2.5→t"]);
        // What was decided stays, although an earlier one has come since.
        check(
            &["exp", "exp/0.5!g", "exp/1.5!gc"],
            Layout::Auto,
            &["exp: exp→t exp/1.5→t", "exp/0.5, session of exp: exp/0.5→t"],
        );
        // Its writer has written nothing yet.
        check(&["exp!b", "exp/1.5!g"], Layout::Auto, &["exp: exp→t exp/1.5→t"]);
        // Its writer is part of a larger run.
        check(
            &["m", "m/train", "m/train/1.5!g", "m/eval"],
            Layout::Auto,
            &["m: m→t m/train→train/t m/train/1.5→train/t m/eval→eval/t"],
        );
        // Another writer's run that only begins like it, and a parent that is a session.
        check(
            &["exp", "exp/a!s", "exp/b"],
            Layout::Auto,
            &["exp: exp→t", "exp/a, session of exp: exp/a→t", "exp/b: exp/b→t"],
        );
        check(&["exp!s", "exp/1.5!g"], Layout::Auto, &["exp: exp→t", "exp/1.5, session of exp: exp/1.5→t"]);
    }

    #[test]
    fn sessions_of_a_parent_without_data_are_runs() {
        check(
            &["exp!b", "exp/2.5!g", "exp/1.5!g"],
            Layout::Auto,
            &["exp/1.5, session of exp: exp/1.5→t", "exp/2.5, session of exp: exp→t exp/2.5→t"],
        );
        check(
            &[".!b", "run-0!s", "run-0/validation", "run-1!s"],
            Layout::Auto,
            &["run-0, session of : →t run-0→t run-0/validation→validation/t", "run-1, session of : run-1→t"],
        );
        // Without event files above them, they are runs like any other.
        check(&["exp/a!s", "exp/b!s"], Layout::Auto, &["exp/a: exp/a→t", "exp/b: exp/b→t"]);
        // What has parts has data: `train` of the first is no session of its own.
        check(
            &["exp!b", "exp/train!s", "exp/1.5!g", "exp/2.5!g"],
            Layout::Auto,
            &["exp: exp→t exp/train→train/t exp/1.5→t", "exp/2.5, session of exp: exp/2.5→t"],
        );
    }

    #[test]
    fn sessions_with_names_of_splits_lead_in_no_circle() {
        check(
            &[".!b", "val/train!s", "val/test!g"],
            Layout::Auto,
            &["val/test, session of : val/test→t", "val/train, session of : →t val/train→t"],
        );
    }

    #[test]
    fn other_layouts() {
        check(
            &["exp/train", "exp/validation"],
            Layout::PerDirectory,
            &["exp/train: exp/train→t", "exp/validation: exp/validation→t"],
        );
        check(&[".", "a/b"], Layout::Single, &[": →t a/b→a/b/t"]);
        check(&[], Layout::Single, &[]);
    }

    #[test]
    fn evidence_is_asked_for_below_event_files_only() {
        let path: Vec<String> = vec!["a".to_owned(), "b".to_owned()];
        assert!(!wants_evidence(&path, &BTreeSet::from([path.as_slice()])));
        assert!(wants_evidence(&path, &BTreeSet::from([path.as_slice(), &path[..1]])));
        assert!(wants_evidence(&path, &BTreeSet::from([&path[..0]])));
    }
}
