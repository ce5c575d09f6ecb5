//! Which TensorBoard runs make one W&B run, and what their tags are called in it.
//!
//! A TB run is a directory with event files; a W&B run is an *experiment*. A directory is folded into another one only
//! on evidence: a split name (`train`, `validation`…) where the parent's own files or the siblings bear it out, or what
//! `add_scalars` leaves behind. Everything else is a run of its own: a stray event file in a folder of five hundred
//! experiments must never swallow them.

use std::collections::{BTreeMap, BTreeSet};

use crate::convert::keys::KeyRule;

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
    /// The tag of the directory if it holds values of one tag only; see [`wants_only_tag`].
    pub only_tag: Option<String>,
}

/// A W&B run: its own path, and the directories that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Path parts below the root; none when the root is the experiment.
    pub path: Vec<String>,
    /// Its directories, as indexes into the list that was given, each with the rule for its tags.
    pub members: Vec<(usize, KeyRule)>,
}

/// Whether [`Directory::only_tag`] can matter for this path: only below another directory with event files. Looking
/// for it costs a read of the files, so it is asked only where the answer decides something.
pub fn wants_only_tag(path: &[String], with_events: &BTreeSet<&[String]>) -> bool {
    (0..path.len()).any(|length| path.get(..length).is_some_and(|ancestor| with_events.contains(ancestor)))
}

/// Sorts directories into experiments. The order of the result is that of the experiments' paths.
pub fn experiments(directories: &[Directory], layout: Layout) -> Vec<Experiment> {
    match layout {
        Layout::PerDirectory => directories
            .iter()
            .enumerate()
            .map(|(index, directory)| Experiment {
                path: directory.path.clone(),
                members: vec![(index, KeyRule::default())],
            })
            .collect(),
        Layout::Single if directories.is_empty() => Vec::new(),
        Layout::Single => {
            let prefixed =
                |(index, directory): (usize, &Directory)| (index, KeyRule::prefix(&directory.path.join("/")));
            vec![Experiment { path: Vec::new(), members: directories.iter().enumerate().map(prefixed).collect() }]
        }
        Layout::Auto => Fold::new(directories).experiments(),
    }
}

/// The parent of a directory in the sense of the layout, and what the step to it does to the tags.
struct Step {
    parent: Vec<String>,
    rule: KeyRule,
}

struct Fold<'a> {
    directories: &'a [Directory],
    by_path: BTreeMap<&'a [String], usize>,
    /// Parents below which something lies that is not a split and was not folded away by `add_scalars`.
    mixed_parents: BTreeSet<&'a [String]>,
}

impl<'a> Fold<'a> {
    fn new(directories: &'a [Directory]) -> Self {
        let by_path: BTreeMap<_, _> =
            directories.iter().enumerate().map(|(index, directory)| (directory.path.as_slice(), index)).collect();
        let mut fold = Self { directories, by_path, mixed_parents: BTreeSet::new() };
        for directory in directories {
            if fold.add_scalars(directory).is_some() {
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

    fn experiments(&self) -> Vec<Experiment> {
        let mut experiments: BTreeMap<Vec<String>, Vec<(usize, KeyRule)>> = BTreeMap::new();
        for (index, directory) in self.directories.iter().enumerate() {
            let mut rule = KeyRule::default();
            let mut path = directory.path.clone();
            let mut step = self.add_scalars(directory).or_else(|| self.split(&path));
            // Each step leads to a shorter path, so this ends.
            while let Some(taken) = step {
                rule = rule.within(&taken.rule);
                path = taken.parent;
                step = self.split(&path);
            }
            experiments.entry(path).or_default().push((index, rule));
        }
        experiments.into_iter().map(|(path, members)| Experiment { path, members }).collect()
    }

    /// `model/eval` beside event files of `model` itself, or `exp/train` beside nothing but other splits.
    fn split(&self, path: &[String]) -> Option<Step> {
        let (own, parent) = path.split_last()?;
        let folds = is_split(own) && (self.by_path.contains_key(parent) || !self.mixed_parents.contains(parent));
        folds.then(|| Step { parent: parent.to_vec(), rule: KeyRule::prefix(own) })
    }

    /// `add_scalars(T, {k: …})` makes a writer per k, whose only tag is T: in the directory `T_k` with slashes as
    /// underscores (torch), or `T/k` (tensorboardX), below the directory of the writer it was called on.
    fn add_scalars(&self, directory: &Directory) -> Option<Step> {
        let tag = directory.only_tag.as_deref()?;
        // The nearest directory with event files above is the writer's own: torch and tensorboardX always make one.
        let depth = (0..directory.path.len())
            .rev()
            .find(|&depth| directory.path.get(..depth).is_some_and(|ancestor| self.by_path.contains_key(ancestor)))?;
        let (parent, below) = directory.path.split_at_checked(depth)?;
        let below = below.join("/");
        let torch = clean(&tag.replace('/', "_")) + "_";
        let tensorboardx = clean(tag) + "/";
        let length = [torch, tensorboardx]
            .iter()
            .find(|start| clean(&below).starts_with(*start))
            .map(|start| start.chars().count())?;
        let name: String = below.chars().skip(length).collect();
        (!name.is_empty())
            .then(|| Step { parent: parent.to_vec(), rule: KeyRule::rename(tag, &format!("{tag}/{name}")) })
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

    /// `directories` are `path` or `path=only tag`; the result is one line an experiment: `path: member(rule) …`.
    fn check(directories: &[&str], layout: Layout, expected: &[&str]) {
        let directories: Vec<Directory> = directories
            .iter()
            .map(|text| {
                let (path, only_tag) =
                    text.split_once('=').map_or((*text, None), |(path, tag)| (path, Some(tag.to_owned())));
                let path = path.split('/').filter(|part| *part != ".").map(str::to_owned).collect();
                Directory { path, only_tag }
            })
            .collect();
        let lines: Vec<String> = experiments(&directories, layout)
            .iter()
            .map(|experiment| {
                let member = |(index, rule): &(usize, KeyRule)| {
                    format!(" {}→{}", directories[*index].path.join("/"), rule.key("t"))
                };
                format!("{}:{}", experiment.path.join("/"), experiment.members.iter().map(member).collect::<String>())
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
        let directories = [
            Directory { path: vec![], only_tag: None },
            Directory { path: vec!["x_loss_a".to_owned()], only_tag: Some("x/loss".to_owned()) },
            Directory { path: vec!["my loss".to_owned(), "b".to_owned()], only_tag: Some("my_loss".to_owned()) },
            Directory { path: vec!["other".to_owned()], only_tag: Some("x/loss".to_owned()) },
        ];
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
        let directories = [
            Directory { path: vec!["train".to_owned()], only_tag: None },
            Directory { path: vec!["train".to_owned(), "loss_a".to_owned()], only_tag: Some("loss".to_owned()) },
        ];
        let found = experiments(&directories, Layout::Auto);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].members[1].1.key("loss"), "train/loss/a");
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
        assert!(!wants_only_tag(&path, &BTreeSet::from([path.as_slice()])));
        assert!(wants_only_tag(&path, &BTreeSet::from([path.as_slice(), &path[..1]])));
        assert!(wants_only_tag(&path, &BTreeSet::from([&path[..0]])));
    }
}
