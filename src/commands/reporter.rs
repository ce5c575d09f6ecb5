//! Listens to the pipeline, and turns what it says into lines, JSON objects, sums and an exit code.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ApiError, Class, project_url};
use crate::artifact::Attached;
use crate::cleaned::CleanError;
use crate::commands::attach::Finds;
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::ui::{
    Addresses, AttachedReport, Destination, Found, Progress as Shown, Report, RunReport, RunState, Totals, Ui, counted,
    elapsed, first_lines, grouped, last_lines, named, on_one_line, printable, size,
};
use crate::convert::artifact_rule::ArtifactRule;
use crate::model::{RunId, Skips};
use crate::pipeline::{Note, Recorded, RunEnd, Watcher};
use crate::recorder::RecordError;
use crate::state_file::StateFileError;
use crate::state_file::lock::LockError;
use crate::upload::{Progress, RunState as Uploaded, UploadError, UploadOutcome};
use crate::wandb_format::LogError;

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

/// What is the same for all runs that meet it, but for a few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Common {
    KeyRefused,
    NoSpace,
    NoAnswer,
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
            state.totals.bytes += recorded.pass.bytes;
            // What was not carried before its last end was counted then.
            if !state.totals.has(&report) {
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
        if let Some(left_out) = &run.left_out {
            state.totals.bytes += left_out.pass.bytes;
            state.keys.extend(left_out.keys.iter().cloned());
        }
        state.finds.add(attached_of(&run));
        state.totals.add(&report, &skips);
        state.shown.runs_done += 1;
        state.shown.runs = state.shown.runs.max(state.shown.runs_done);
        if let Some(trouble) = trouble {
            if trouble.code != ExitCode::Success && trouble.code != ExitCode::Failed {
                state.codes.push(trouble.code);
            }
            if trouble.code == ExitCode::Usage {
                // The same command would be refused again.
                state.totals.again = None;
            }
            let is_news = common(&run, &trouble).is_none_or(|common| state.said.insert(common));
            match (is_news, trouble.code) {
                (false, _) => {}
                (true, ExitCode::Authentication) => self.ui.error(&trouble),
                (true, _) => self.ui.warn_of(&trouble),
            }
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

fn common(run: &RunEnd, trouble: &CommandError) -> Option<Common> {
    let uploaded = run.uploaded.as_ref().map(|uploaded| &uploaded.state);
    if trouble.code == ExitCode::Authentication {
        Some(Common::KeyRefused)
    } else if matches!(run.record_error, Some(RecordError::LowSpace(_) | RecordError::SpoolFull)) {
        Some(Common::NoSpace)
    } else if matches!(uploaded, Some(Uploaded::Failed(UploadError::Api(ApiError::NoAnswer { .. })))) {
        Some(Common::NoAnswer)
    } else {
        None
    }
}

/// What a dry run says of a run: what it would be called, and what is new since it was recorded last.
fn planned(report: &RunReport, recorded: &Recorded) -> String {
    let mut text = format!("{} ({})", on_one_line(&report.name), report.run_id);
    if let Some(group) = &report.group {
        let _ = write!(text, ", group {}", on_one_line(group));
    }
    let _ = writeln!(text, ", project {}", on_one_line(&recorded.project));
    let _ = writeln!(text, "  from `{}`: {}", on_one_line(&report.source), counted(recorded.files, "file"));
    if recorded.rows_before > 0 {
        let _ = writeln!(
            text,
            "  recorded before in `{}`: {}",
            on_one_line(&recorded.directory.display().to_string()),
            counted(recorded.rows_before, "row")
        );
    }
    let kinds: Vec<String> = report
        .kinds
        .iter()
        .filter(|(_, count)| count.read > 0)
        .map(|(kind, count)| {
            let fates = [(count.kept, "kept as files"), (count.left_out, "left out"), (count.lost, "lost")];
            let fates =
                fates.iter().filter(|(count, _)| *count > 0).map(|(n, fate)| format!(", {} {fate}", grouped(*n)));
            format!("{} {}{}", grouped(count.read), on_one_line(kind), fates.collect::<String>())
        })
        .collect();
    if kinds.is_empty() {
        text.push_str("  nothing new\n");
    } else {
        let _ = writeln!(
            text,
            "  new: {}, {} of log; {}",
            counted(report.rows, "row"),
            size(report.log_bytes),
            kinds.join("; ")
        );
    }
    report.attached.iter().for_each(|artifact| text.push_str(&artifact.line()));
    if report.run_files > 0 {
        let _ = writeln!(text, "  new files: {}, {}", grouped(report.run_files), size(report.run_file_bytes));
    }
    text
}

/// A run's object, what was skipped of it, and what a person must hear.
fn report(run: &RunEnd) -> (RunReport, Skips, Option<CommandError>) {
    let mut skips = Skips::default();
    let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut report = RunReport::new(run.source.display().to_string(), id);
    report.attached = attached_of(run).iter().filter(|attached| attached.files > 0).map(AttachedReport::from).collect();
    if let Some(recorded) = &run.recorded {
        skips.merge(&recorded.pass.skips);
        report.name.clone_from(&recorded.name);
        report.group = Some(recorded.group.clone()).filter(|group| !group.is_empty());
        report.dir = Some(recorded.directory.display().to_string());
        report.rows = recorded.pass.rows;
        report.kinds.clone_from(&recorded.pass.kinds);
        report.events = report.kinds.sum().sent;
        report.run_files = recorded.pass.files.files;
        report.run_file_bytes = recorded.pass.files.bytes;
        report.log_bytes = recorded.pass.log_bytes;
    }
    if let Some(left_out) = &run.left_out {
        report.state = RunState::Skipped;
        report.name.clone_from(&left_out.name);
        report.kinds.clone_from(&left_out.pass.kinds);
        skips.merge(&left_out.pass.skips);
    }
    let mut trouble = None;
    if let Some(uploaded) = &run.uploaded {
        trouble = add_upload(&mut report, run, uploaded);
        skips.merge(&uploaded.skips);
        if report.state == RunState::Synced && skips.any_loss() {
            report.state = RunState::Partial;
        }
    }
    if let Some(error) = &run.record_error {
        report.state = RunState::Failed;
        trouble = Some(record_trouble(error, &run.source));
    }
    report.error = trouble.as_ref().map(|trouble| {
        [trouble.message.as_str()]
            .into_iter()
            .chain(trouble.causes.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(": ")
    });
    let mut all = skips.clone();
    if let Some(recorded) = &run.recorded {
        all.merge(&recorded.pass.known);
        // What was damaged before this pass is not on the server after it either.
        if report.state == RunState::Synced && recorded.pass.known.any_loss() {
            report.state = RunState::Partial;
        }
    }
    report.skipped = all.report();
    (report, skips, trouble)
}

/// What there was of what is to be attached to a run.
fn attached_of(run: &RunEnd) -> &[Attached] {
    let recorded = run.recorded.as_ref().map(|recorded| recorded.attached.as_slice());
    recorded.or(run.uploaded.as_ref().map(|uploaded| uploaded.attached.as_slice())).unwrap_or_default()
}

fn add_upload(report: &mut RunReport, run: &RunEnd, uploaded: &UploadOutcome) -> Option<CommandError> {
    if report.run_id.is_empty() {
        report.run_id.clone_from(&uploaded.run_id);
    }
    report.run_path = format!("{}/{}/{}", uploaded.entity, uploaded.project, uploaded.run_id);
    if report.name.is_empty() {
        report.name.clone_from(&uploaded.display_name);
    }
    report.url = Some(uploaded.url.clone()).filter(|url| !url.is_empty());
    report.files = uploaded.files_sent;
    report.artifacts = uploaded.artifacts_sent;
    if run.recorded.is_none() {
        report.rows = uploaded.rows_sent;
        report.group = Some(uploaded.group.clone()).filter(|group| !group.is_empty());
        report.dir = run.source.parent().map(|directory| directory.display().to_string());
    }
    match &uploaded.state {
        Uploaded::Synced => report.state = RunState::Synced,
        Uploaded::Partial => {
            report.state = RunState::Partial;
            return uploaded.later.as_ref().map(|error| {
                let what = format!("cannot upload all files of `{}` now", run.source.display());
                CommandError::new(ExitCode::Temporary, what).caused_by(error).hint(AGAIN)
            });
        }
        Uploaded::Running => report.state = RunState::Running,
        Uploaded::Skipped(error) => {
            report.state = RunState::Skipped;
            let trouble = CommandError::new(ExitCode::Success, format!("`{}` is skipped", run.source.display()));
            return Some(trouble.caused_by(error));
        }
        Uploaded::Failed(error) => {
            report.state = RunState::Failed;
            return Some(upload_trouble(error, &run.source));
        }
    }
    None
}

/// What a person reads when a run could not be recorded.
fn record_trouble(error: &RecordError, source: &Path) -> CommandError {
    let code = match error {
        _ if disk_is_full(error) => ExitCode::Temporary,
        RecordError::LowSpace(_) | RecordError::SpoolFull => ExitCode::Temporary,
        RecordError::Locked(LockError::Held(_)) | RecordError::Making(_) => ExitCode::Held,
        RecordError::OtherShape(_)
        | RecordError::OtherGeneration { .. }
        | RecordError::Id(_)
        | RecordError::SameId(_)
        | RecordError::NoLocks(_) => ExitCode::Usage,
        _ => ExitCode::Failed,
    };
    let what = match error {
        RecordError::CutShort | RecordError::Shorter { .. } => "upload",
        // It is a log that `sync` was given.
        RecordError::State(_) | RecordError::Locked(_)
            if source.extension().is_some_and(|extension| extension == "wandb") =>
        {
            "upload"
        }
        _ => "record",
    };
    let trouble = CommandError::new(code, format!("cannot {what} `{}`", source.display())).caused_by(error);
    match error {
        RecordError::OtherShape(_) => {
            trouble.hint("use the same options as before, or `--generation 1` to make a fresh run beside the old one")
        }
        RecordError::CutShort => trouble.hint("run the `wandb-bridge import` or `watch` that was cut short again"),
        RecordError::OtherGeneration { there: 0, .. } => {
            trouble.hint("choose another id, such as with `--run-id`, for a fresh run beside the old one")
        }
        RecordError::OtherGeneration { there, .. } => {
            trouble.hint(format!("use `--generation {there}` to go on with it, or choose another id for a fresh run"))
        }
        RecordError::NoLocks(_) => trouble.hint(NO_LOCKS),
        RecordError::State(StateFileError::Damaged { .. }) => trouble.hint(
            "import the event files again: the log is set aside then, and made anew; what the server has is not sent again",
        ),
        RecordError::State(StateFileError::Version { .. }) => trouble.hint("use the version that wrote it, or a later one"),
        RecordError::Locked(_) | RecordError::Making(_) => trouble.hint("wait for the other process, or end it; nothing was lost"),
        RecordError::LowSpace(_) => trouble.hint(
            "free some space, or choose another `--min-free`: what is recorded is kept, and the same command goes on from there",
        ),
        RecordError::SpoolFull => {
            trouble.hint("run the same command again later: what is recorded is kept, and it goes on from there")
        }
        _ => trouble,
    }
}

/// What helps where locks do not work.
const NO_LOCKS: &str = "keep the state on another file system with `--state-dir DIR`; or see to it that no other process \
     works on these runs, and use `--no-lock`";

/// Whether the disk is full, wherever in the causes that stands: space comes back without anybody changing the command.
fn disk_is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let error_of_system = match error.downcast_ref::<LogError>() {
            // It says what its cause says, and so hides it.
            Some(LogError::Io(error)) => Some(error),
            _ => error.downcast_ref::<io::Error>(),
        };
        let kind = error_of_system.map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// What a person reads when a run could not be uploaded.
fn upload_trouble(error: &UploadError, source: &Path) -> CommandError {
    match error.class() {
        Some(Class::Auth) => {
            let hint = "set `WANDB_API_KEY`, or use `--mode offline` now and `wandb-bridge sync` later";
            return CommandError::new(ExitCode::Authentication, "W&B did not accept the API key")
                .caused_by(error)
                .hint(hint);
        }
        Some(Class::Temporary | Class::Cancelled) => {
            return CommandError::new(ExitCode::Temporary, format!("cannot upload `{}` now", source.display()))
                .caused_by(error)
                .hint(AGAIN);
        }
        _ => {}
    }
    let code = match error {
        UploadError::Held(_) | UploadError::Cleaning(CleanError::Held(LockError::Held(_))) => ExitCode::Held,
        UploadError::NoLocks(_) => ExitCode::Usage,
        _ if disk_is_full(error) => ExitCode::Temporary,
        _ => ExitCode::Failed,
    };
    let trouble = CommandError::new(code, format!("cannot upload `{}`", source.display())).caused_by(error);
    match error {
        UploadError::NoLocks(_) => trouble.hint(NO_LOCKS),
        UploadError::State(StateFileError::Version { .. }) => {
            trouble.hint("use the version that wrote it, or a later one")
        }
        UploadError::Cleaned { .. } => trouble.hint(
            "with another `--dir`, or without this run directory, the whole run is made again from its event files",
        ),
        UploadError::Place { .. } => trouble.hint("choose another with `-e` or `-p`"),
        UploadError::Conflict { .. } => trouble.hint(format!("nothing was sent; {OTHER_RUN}")),
        UploadError::Vanished { .. } => trouble.hint(OTHER_RUN),
        UploadError::Behind { .. } => {
            trouble.hint("nothing was sent; a larger `--max-spool` gives room to all of its log")
        }
        _ if error.class() == Some(Class::RunGone) => {
            trouble.hint(format!("the run may have been deleted on the server: {OTHER_RUN}"))
        }
        _ => trouble,
    }
}

/// What to do when the weather is bad.
const AGAIN: &str = "run the same command again later: what is recorded is kept, and only what is missing is sent";

/// What to do when an id is of no use any more.
const OTHER_RUN: &str = "`import` and `watch` make a fresh run beside it with `--generation 1` (or the next number), \
    `--on-conflict new-id` uploads it under another id, and `append` and `skip` are the other choices";

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
        let ui = Arc::new(Ui::with_writers(&Output::default(), Box::new(io::sink()), Box::new(io::sink())));
        let reporter = Reporter::new(ui, Destination::Nowhere, "", Totals::default());
        reporter.note(Note::Found { growing: 1, ended: 0, left_out: 0 });
        reporter.note(Note::Known(10));
        assert_eq!(reporter.state().shown.runs, 10);
        reporter.note(Note::Known(9));
        assert_eq!(reporter.state().shown.runs, 10, "one ended");
    }
}
