//! What an `UpsertBucket` says of a run, and where the run goes. Pure.

use crate::api::UpsertBucket;
use crate::upload::fold::{Fold, RunParameters};
use crate::upload::job::Overrides;
use crate::upload::state::Target;

/// The longest run id that W&B takes.
const LONGEST_ID: usize = 128;

/// The parts of an `UpsertBucket` that are to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parts<'a> {
    /// What describes the run, as far as it differs from what the server was told before.
    pub(crate) told: Option<&'a RunParameters>,
    /// The whole config.
    pub(crate) config: bool,
}

/// Where a log is to go.
pub(crate) fn target(run: &RunParameters, overrides: &Overrides) -> Target {
    let chosen = |over: &Option<String>, own: &str| over.clone().unwrap_or_else(|| own.to_owned());
    Target {
        entity: chosen(&overrides.entity, &run.entity),
        project: chosen(&overrides.project, &run.project),
        run_id: chosen(&overrides.run_id, &run.run_id),
    }
}

/// The target with the `number`th id, counted from 1, which is its own.
pub(crate) fn with_other_id(target: &Target, number: u32) -> Target {
    if number <= 1 {
        return target.clone();
    }
    let suffix = format!("-{number}");
    let mut id = target.run_id.clone();
    while id.len() + suffix.len() > LONGEST_ID {
        id.pop();
    }
    Target { run_id: id + &suffix, ..target.clone() }
}

/// What describes the run, with what the user chose instead.
pub(crate) fn description(fold: &Fold, overrides: &Overrides) -> Option<RunParameters> {
    let mut run = fold.run.clone()?;
    if let Some(job_type) = &overrides.job_type {
        run.job_type.clone_from(job_type);
    }
    run.tags = overrides.tags(&run.tags);
    Some(run)
}

/// The variables of an `UpsertBucket` for a run as it is folded.
pub(crate) fn variables(
    fold: &Fold,
    target: &Target,
    storage_id: Option<&str>,
    overrides: &Overrides,
    parts: Parts<'_>,
) -> UpsertBucket {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut variables = UpsertBucket {
        id: storage_id.and_then(set),
        name: set(&target.run_id),
        project: set(&target.project),
        entity: set(&target.entity),
        config: parts.config.then(|| fold.config_json().to_string()),
        ..UpsertBucket::default()
    };
    if let Some(run) = description(fold, overrides) {
        // What the server was told already is not told again: somebody may have changed it there.
        let new = |part: fn(&RunParameters) -> &String| {
            let is_new = parts.told.is_none_or(|told| part(told) != part(&run));
            set(part(&run)).filter(|_| is_new)
        };
        variables.group_name = new(|run| &run.group);
        variables.display_name = new(|run| &run.display_name);
        variables.notes = new(|run| &run.notes);
        variables.commit = new(|run| &run.commit);
        variables.repo = new(|run| &run.repository);
        variables.host = new(|run| &run.host);
        variables.job_type = new(|run| &run.job_type);
        variables.sweep = new(|run| &run.sweep);
        let tags_are_new = parts.told.is_none_or(|told| told.tags != run.tags);
        variables.tags = (tags_are_new && !run.tags.is_empty()).then_some(run.tags);
    }
    variables
}

#[cfg(test)]
mod tests {
    #![allow(clippy::field_reassign_with_default, reason = "the other fields are not for here")]

    use super::*;

    #[test]
    fn other_ids_are_steady_and_fit() {
        let target = |id: &str| Target { entity: "e".into(), project: "p".into(), run_id: id.into() };
        assert_eq!(with_other_id(&target("abc"), 1), target("abc"));
        assert_eq!(with_other_id(&target("abc"), 2), target("abc-2"));
        assert_eq!(with_other_id(&target(&"é".repeat(64)), 3), target(&("é".repeat(63) + "-3")));
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let run = RunParameters { display_name: "a".into(), tags: vec!["t".into()], ..RunParameters::default() };
        let mut fold = Fold::default();
        fold.run = Some(run.clone());
        let target = target(&run, &Overrides::default());
        let told = |told: Option<&RunParameters>| {
            let parts = Parts { told, config: false };
            variables(&fold, &target, None, &Overrides::default(), parts)
        };
        assert_eq!((told(None).display_name.as_deref(), told(None).tags), (Some("a"), Some(vec!["t".to_owned()])));
        assert_eq!((told(Some(&run)).display_name, told(Some(&run)).tags), (None, None));
        let before = RunParameters { display_name: "b".into(), ..run };
        assert_eq!((told(Some(&before)).display_name.as_deref(), told(Some(&before)).tags), (Some("a"), None));
    }
}
