//! Listens to the pipeline, and turns what it says into lines, JSON objects, sums and an exit code.

mod report;
mod trouble;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::project_url;
use crate::artifact::Attached;
use crate::commands::attach::Finds;
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::reporter::report::{attached_of, planned, report};
use crate::commands::reporter::trouble::{Common, common};
use crate::commands::ui::{
    Addresses, Destination, Found, Progress as Shown, Report, RunReport, Totals, Ui, counted, elapsed, first_lines,
    last_lines, named, printable,
};
use crate::convert::artifact_rule::ArtifactRule;
use crate::model::{RunId, Skips};
use crate::pipeline::{Note, Recorded, RunEnd, Watcher};
use crate::upload::Progress;

/// Reports the runs of one command.
pub(super) struct Reporter {
    ui: Arc<Ui>,
    destination: Destination,
    app_url: String,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    addresses: Addresses,
    shown: Shown,
    codes: Vec<ExitCode>,
    /// Names and addresses of runs that the server knows but has no row of yet.
    opened: HashMap<RunId, (String, String)>,
    /// Runs that the server has rows of.
    shown_at: HashSet<RunId>,
    repeated: u64,
    keys: BTreeSet<String>,
    finds: Finds,
    /// What was said once for all runs.
    said: HashSet<Common>,
}

impl Reporter {
    pub(super) fn new(ui: Arc<Ui>, destination: Destination, app_url: &str, totals: Totals) -> Arc<Self> {
        let state = State { totals, ..State::default() };
        Arc::new(Self {
            ui,
            destination,
            app_url: app_url.to_owned(),
            started: Instant::now(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where runs go and how many there are.
    pub(super) fn found(&self, growing: usize, ended: usize, left_out: usize) {
        let mut state = self.state();
        state.addresses.found(growing + ended);
        state.shown.runs = (growing + ended) as u64;
        drop(state);
        let found = Found {
            destination: self.destination.clone(),
            growing: growing as u64,
            ended: ended as u64,
            left_out: left_out as u64,
        };
        self.ui.notes(&first_lines(&found));
    }

    /// How many bytes of input there are.
    pub(super) fn expect_bytes(&self, bytes: u64) {
        self.state().shown.total = bytes;
    }

    /// Counts what was skipped outside of any run.
    pub(super) fn skip(&self, skips: &Skips) {
        self.state().totals.add_skips(skips);
    }

    /// All keys that were met.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.state().keys.clone()
    }

    /// Notes what rules about artifacts find of a run that is left out.
    pub(super) fn left_out(&self, attached: &[Attached]) {
        self.state().finds.add(attached);
    }

    /// Says which rules about artifacts found nothing, and counts those that found nothing of any run.
    pub(super) fn say_idle(&self, rules: &[ArtifactRule]) {
        let (skips, notes) = self.state().finds.idle(rules);
        self.skip(&skips);
        self.ui.notes(&notes);
    }

    /// Says the last lines. `more` are exit codes that the command itself knows of.
    pub(super) fn finish(&self, verb: &str, more: impl IntoIterator<Item = ExitCode>) -> ExitCode {
        self.ui.finish_progress();
        let state = self.state();
        let codes = state.codes.iter().copied().chain(more).chain([state.totals.exit_code()]);
        let code = ExitCode::combine(codes);
        let took = self.started.elapsed();
        if state.repeated > 0 {
            self.ui.note(format!(
                "{} at steps that their metric had passed already (a restart, or several writers); all are kept",
                counted(state.repeated, "value")
            ));
        }
        self.ui.notes(&last_lines(&state.totals, verb, took));
        self.ui.report(&Report::Summary(state.totals.summary(took, code)));
        code
    }

    /// Adds up what was recorded of a run, and says what is odd about it.
    fn recorded(&self, state: &mut State, run: &RunEnd, recorded: &Recorded, report: &RunReport) {
        state.totals.bytes += recorded.pass.bytes;
        // What was not carried before its last end was counted then.
        if !state.totals.has(report) {
            state.totals.add_known(&recorded.pass.known);
        }
        state.repeated += recorded.repeated;
        state.keys.extend(recorded.keys.iter().cloned());
        if !recorded.masked.is_empty() {
            let names: Vec<String> = recorded.masked.iter().map(|name| format!("`{name}`")).collect();
            let text = format!("config values that look like credentials are masked: {}", names.join(", "));
            self.ui.warn_once(&text.clone(), || text);
        }
        if recorded.is_copy {
            self.ui.note(format!(
                "`{}` begins like another directory, so its own name is part of its run id",
                run.source.display()
            ));
        }
    }

    /// Says what went wrong with a run, once where it is the same for all, and notes what it means for the exit code.
    fn trouble(&self, state: &mut State, run: &RunEnd, trouble: &CommandError) {
        if trouble.code != ExitCode::Success && trouble.code != ExitCode::Failed {
            state.codes.push(trouble.code);
        }
        if trouble.code == ExitCode::Usage {
            // The same command would be refused again.
            state.totals.again = None;
        }
        let is_news = common(run, trouble).is_none_or(|common| state.said.insert(common));
        match (is_news, trouble.code) {
            (false, _) => {}
            (true, ExitCode::Authentication) => self.ui.error(trouble),
            (true, _) => self.ui.warn_of(trouble),
        }
    }

    fn show_progress(&self, state: &State) {
        self.ui.progress(&state.shown);
    }
}

impl Watcher for Reporter {
    fn ended(&self, run: RunEnd) {
        let mut state = self.state();
        let (mut report, skips, trouble) = report(&run);
        if self.destination == Destination::Nowhere {
            // A dry run makes no directory.
            report.dir = None;
            if let Some(recorded) = &run.recorded {
                report.rows_before = Some(recorded.rows_before);
                if !self.ui.is_json() {
                    self.ui.data(&printable(&planned(&report, recorded)));
                }
            }
        }
        // A run that came nowhere has no address.
        if let Some(uploaded) = &run.uploaded
            && !uploaded.url.is_empty()
        {
            let project = project_url(&self.app_url, &uploaded.entity, &uploaded.project);
            state.totals.destinations.insert(project);
        }
        if let Some(recorded) = &run.recorded {
            self.recorded(&mut state, &run, recorded, &report);
        }
        if let Some(left_out) = &run.left_out {
            state.totals.bytes += left_out.pass.bytes;
            state.keys.extend(left_out.keys.iter().cloned());
        }
        state.finds.add(attached_of(&run));
        state.totals.add(&report, &skips);
        state.shown.runs_done += 1;
        state.shown.runs = state.shown.runs.max(state.shown.runs_done);
        if let Some(trouble) = trouble {
            self.trouble(&mut state, &run, &trouble);
        }
        self.show_progress(&state);
        drop(state);
        self.ui.report(&Report::Run(report));
    }

    fn progress(&self, run: &RunId, progress: Progress) {
        let mut state = self.state();
        match progress {
            Progress::Opened { url, display_name } => {
                state.opened.insert(run.clone(), (display_name, url));
            }
            Progress::Unmarked { why } => self.ui.warning(format!(
                "run `{run}` is on the server, and cannot be marked so: the official client may send it again: {why}"
            )),
            Progress::Deleted { .. } | Progress::FilesRefused { .. } => {}
            Progress::Acknowledged { rows, .. } => {
                if rows > 0
                    && let Some((name, url)) = state.opened.remove(run)
                    && state.shown_at.insert(run.clone())
                    && let Some(line) = state.addresses.line(&name, &url)
                {
                    self.ui.note(line);
                }
                *state.shown.sent.get_or_insert(0) += rows;
                self.show_progress(&state);
            }
        }
    }

    fn note(&self, note: Note) {
        match note {
            Note::Waiting(paths) => {
                self.ui.note(format!("waiting for {} to appear", named(&paths)));
            }
            Note::Found { growing, ended, left_out } => self.found(growing, ended, left_out),
            Note::Known(runs) => {
                let mut state = self.state();
                state.shown.runs = state.shown.runs.max(runs as u64);
            }
            Note::Odd { path, what } => {
                let path = path.display();
                self.ui.warn_once(&format!("{path} {what}"), || format!("`{path}` {what}"));
            }
            Note::Ending(at_most) => self.ui.note(format!(
                "ending: what is left is sent, for at most {}; a second signal ends at once",
                elapsed(at_most)
            )),
            Note::Trouble(text) => self.ui.warn_once(&text.clone(), || text),
            Note::Recorded(pass) => {
                let mut state = self.state();
                state.shown.read += pass.bytes;
                state.shown.rows += pass.rows;
                self.show_progress(&state);
            }
        }
    }
}

/// How long a command may take, as a deadline.
pub(super) fn deadline(limit: Option<Duration>) -> Option<tokio::time::Instant> {
    limit.map(|limit| tokio::time::Instant::now() + limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Output;

    #[test]
    fn runs_that_appear_later_are_counted_in_the_progress() {
        let ui = Arc::new(Ui::with_writers(&Output::default(), Box::new(std::io::sink()), Box::new(std::io::sink())));
        let reporter = Reporter::new(ui, Destination::Nowhere, "", Totals::default());
        reporter.note(Note::Found { growing: 1, ended: 0, left_out: 0 });
        reporter.note(Note::Known(10));
        assert_eq!(reporter.state().shown.runs, 10);
        reporter.note(Note::Known(9));
        assert_eq!(reporter.state().shown.runs, 10, "one ended");
    }
}
