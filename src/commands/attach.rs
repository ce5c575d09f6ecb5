//! `--artifact` of `import` and `sync`: whether the rules can be meant, and what is said of those that find nothing.

use std::collections::HashMap;
use std::path::Path;

use crate::artifact::{Attached, check_type};
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::ui::{counted, grouped};
use crate::convert::artifact_rule::ArtifactRule;
use crate::model::{SkippedReason, Skips};
use crate::pipeline::attachments_of_log;
use crate::state_file::place::StateHome;

/// Refuses types that W&B refuses. Names are known only when their placeholders are filled in.
pub(super) fn check(rules: &[ArtifactRule]) -> Result<(), CommandError> {
    for rule in rules {
        check_type(&rule.kind, rule.name.as_str()).map_err(|error| {
            CommandError::new(ExitCode::Usage, format!("`--artifact {}` cannot be used: {error}", rule.text))
        })?;
    }
    Ok(())
}

/// What there is of a run that is left out. It is not sent, but a rule that it is for finds something.
pub(super) fn of_left_out(rules: &[ArtifactRule], log: &Path, state: &StateHome) -> Vec<Attached> {
    let attachments = attachments_of_log(rules, log, state).into_iter();
    attachments.filter_map(|attachment| Some(Attached::new(&attachment, &attachment.find().ok()?))).collect()
}

/// Of how many runs rules found something, and of how many nothing.
#[derive(Debug, Default)]
pub(super) struct Finds(HashMap<String, (u64, u64)>);

impl Finds {
    /// Counts what there was of one run.
    pub(super) fn add(&mut self, attached: &[Attached]) {
        for attached in attached {
            let (some, none) = self.0.entry(attached.rule.clone()).or_default();
            *if attached.files > 0 { some } else { none } += 1;
        }
    }

    /// A rule that found nothing of any run is a loss; what to say of those that found nothing of some comes with it.
    pub(super) fn idle(&self, rules: &[ArtifactRule]) -> (Skips, Vec<String>) {
        let (mut skips, mut notes) = (Skips::default(), Vec::new());
        for rule in rules {
            match self.0.get(&rule.text).copied().unwrap_or_default() {
                (_, 0) => {}
                (0, _) => skips.add(SkippedReason::NoFiles, 1, || format!("`{}`", rule.text)),
                (some, none) => notes.push(format!(
                    "`--artifact {}` finds no file of {} of {}",
                    rule.text,
                    grouped(none),
                    counted(some + none, "run")
                )),
            }
        }
        (skips, notes)
    }
}
