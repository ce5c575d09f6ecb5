//! Verify: what is here of each run is read, the server is asked, and both are compared; several runs at once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, ApiError, ArtifactState, RunFile, VersionFacts};
use crate::artifact::hash_file;
use crate::checkpoint::Checkpoint;
use crate::model::{LogPosition, Skips};
use crate::pipeline::naming::chosen_target;
use crate::pipeline::segments;
use crate::state_file::place::StateHome;
use crate::upload::{Links, Overrides, RunContents, RunLog};
use crate::verify::{Expected, Finding, Found, Verdict, What, compare};

/// The pause before the server is asked again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A run that is to be looked for on the server.
#[derive(Debug, Default)]
pub struct RunToVerify {
    /// Where it comes from: the experiment's directory, or the log.
    pub source: PathBuf,
    /// Its logs, in the order of their start.
    pub logs: Vec<RunLog>,
    /// What replaces what the logs say.
    pub overrides: Overrides,
    /// Which links among its files were followed.
    pub links: Links,
    /// What is known without a log, or why nothing is.
    pub without_log: Option<Result<RunContents, String>>,
    /// What of its sources is in no log yet.
    pub not_recorded: Vec<Finding>,
    /// What of its sources can be on no server.
    pub skips: Skips,
}

/// What came of it.
#[derive(Debug)]
pub struct RunVerified {
    /// Where the run comes from.
    pub source: PathBuf,
    /// What was looked for.
    pub contents: RunContents,
    /// How it stands.
    pub standing: Standing,
    /// What is missing, and what was compared.
    pub verdict: Verdict,
    /// Who works on it now, where something is missing.
    pub held_by: Option<String>,
    /// Why it could not be told.
    pub error: Option<VerifyError>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All of it is there, and it has ended.
    Complete,
    /// All there is of it so far is there.
    Running,
    /// Something of it is not there.
    Incomplete,
    /// The server does not know the run.
    Missing,
    /// It could not be told.
    Unknown,
}

/// Why nothing can be said of a run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The server or the network.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A log cannot be read, or names no run.
    #[error("cannot read `{}`: {why}", log.display())]
    Log {
        /// The log.
        log: PathBuf,
        /// Why not.
        why: String,
    },
    /// It ended in a way that it must not: a mistake in this program.
    #[error("the comparison broke off: {0}")]
    Broken(String),
}

impl RunVerified {
    fn unknown(source: PathBuf) -> Self {
        Self {
            source,
            contents: RunContents::default(),
            standing: Standing::Unknown,
            verdict: Verdict::default(),
            held_by: None,
            error: None,
        }
    }
}

/// The runs that logs hold, ours or any W&B client's. Several logs of one run are one run.
pub fn runs_of_logs(logs: Vec<PathBuf>, state: &StateHome, overrides: &Overrides) -> Vec<RunToVerify> {
    let mut runs: Vec<RunToVerify> = Vec::new();
    for group in segments::in_turn(logs, state, overrides) {
        let mut is_first = true;
        for segment in group {
            let place = state.of_log(&segment.log);
            let checkpoint = match Checkpoint::load(&place) {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    let without_log = Some(Err(error.to_string()));
                    runs.push(RunToVerify { source: segment.log, without_log, ..RunToVerify::default() });
                    continue;
                }
            };
            // What was cut short before anything of it counted holds nothing.
            let cut_short = || Checkpoint::is_ours(&place).then_some(LogPosition(0));
            let limit = checkpoint.as_ref().map(|checkpoint| checkpoint.position).or_else(cut_short);
            let chosen = checkpoint.as_ref().map(chosen_target).unwrap_or_default();
            let log = RunLog { log: segment.log.clone(), state: place, limit };
            let goes_on = segment.foreign.is_some_and(|foreign| foreign.continues);
            match runs.last_mut().filter(|_| goes_on && !is_first) {
                Some(run) => run.logs.push(log),
                None => runs.push(RunToVerify {
                    source: segment.log,
                    logs: vec![log],
                    overrides: overrides.clone().or(chosen),
                    ..RunToVerify::default()
                }),
            }
            is_first = false;
        }
    }
    runs
}

/// Looks for runs, so many at once, and tells of each as it is done. What is missing is asked for again until `wait` has
/// passed. Those that are left when it is cancelled are not told of.
pub async fn verify(
    runs: Vec<RunToVerify>,
    api: &Arc<ApiClient>,
    at_once: usize,
    wait: Duration,
    cancel: &CancellationToken,
    each: impl FnMut(RunVerified),
) {
    let until = Instant::now() + wait;
    let verify = |run| verify_run(run, api.clone(), until, cancel.clone());
    side_by_side(runs, verify, at_once, cancel, each).await;
}

/// So many at once, each told of as it is done, whatever became of it.
async fn side_by_side<F: Future<Output = RunVerified> + Send + 'static>(
    runs: Vec<RunToVerify>,
    verify: impl Fn(RunToVerify) -> F,
    at_once: usize,
    cancel: &CancellationToken,
    mut each: impl FnMut(RunVerified),
) {
    let mut sources = HashMap::new();
    let mut waiting = runs.into_iter();
    let mut going = JoinSet::new();
    loop {
        while going.len() < at_once.max(1)
            && !cancel.is_cancelled()
            && let Some(run) = waiting.next()
        {
            let source = run.source.clone();
            sources.insert(going.spawn(verify(run)).id(), source);
        }
        match going.join_next_with_id().await {
            None => return,
            Some(Ok((task, run))) => {
                sources.remove(&task);
                if !matches!(run.error, Some(VerifyError::Api(ApiError::Cancelled))) {
                    each(run);
                }
            }
            Some(Err(error)) => {
                let source = sources.remove(&error.id()).unwrap_or_default();
                let error = Some(VerifyError::Broken(error.to_string()));
                each(RunVerified { error, ..RunVerified::unknown(source) });
            }
        }
    }
}

async fn verify_run(run: RunToVerify, api: Arc<ApiClient>, until: Instant, cancel: CancellationToken) -> RunVerified {
    let RunToVerify { source, logs, overrides, links, without_log, not_recorded, skips } = run;
    let (server, first) = (api.base_url().clone(), logs.first().map_or_else(|| source.clone(), |log| log.log.clone()));
    let read = spawn_blocking(move || match without_log {
        Some(known) => known,
        None => RunContents::read(&logs, &server, &overrides, links).map_err(|error| error.to_string()),
    });
    let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
    let mut verified = RunVerified::unknown(source);
    match read {
        Ok(contents) if !contents.name.run_id.is_empty() => verified.contents = contents,
        Ok(_) => verified.error = Some(VerifyError::Log { log: first, why: "it names no run".to_owned() }),
        Err(why) => verified.error = Some(VerifyError::Log { log: first, why }),
    }
    verified.contents.skips.merge(&skips);
    if verified.error.is_none() {
        verified = look(verified, &api, until, &cancel).await;
    }
    for Finding { what, name, why } in not_recorded {
        verified.verdict.add(what, name, why);
    }
    if !verified.verdict.is_whole() && matches!(verified.standing, Standing::Complete | Standing::Running) {
        verified.standing = Standing::Incomplete;
    }
    if !verified.verdict.is_whole() {
        verified.held_by = verified.contents.held_by();
    }
    verified
}

/// Asks the server until nothing is missing, or there is no time left.
async fn look(mut run: RunVerified, api: &ApiClient, until: Instant, cancel: &CancellationToken) -> RunVerified {
    let mut pause = FIRST_PAUSE;
    loop {
        match ask(api, &mut run.contents, cancel).await {
            Err(error) => {
                run.error = Some(error.into());
                return run;
            }
            Ok(None) => {
                let rows = run.contents.expected.all_rows();
                run.standing = Standing::Missing;
                run.verdict = Verdict::default();
                run.verdict.compared.rows.here = rows;
                run.verdict.add(What::Run, run.contents.name.run_id.clone(), "the server does not know this run");
            }
            Ok(Some(found)) => {
                run.contents.name = found.run.name.clone();
                run.verdict = compare(&run.contents.expected, &found);
                run.standing = match (run.verdict.is_whole(), run.contents.expected.exit) {
                    (false, _) => Standing::Incomplete,
                    (true, Some(_)) => Standing::Complete,
                    // What was recorded without a log here ended there.
                    (true, None) if found.run.state != "running" => Standing::Complete,
                    (true, None) => Standing::Running,
                };
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if run.verdict.is_whole() || left.is_zero() {
            return run;
        }
        tokio::select! {
            () = cancel.cancelled() => return run,
            () = sleep(pause.min(left)) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// What the server has of a run; `None` when it does not know it.
async fn ask(
    api: &ApiClient,
    contents: &mut RunContents,
    cancel: &CancellationToken,
) -> Result<Option<Found>, ApiError> {
    let expected = &mut contents.expected;
    // Most runs are seen whole with one request.
    let mut ranges = expected.rows.ranges().into_iter();
    let (first, wants_files) = (ranges.next(), !expected.files.is_empty());
    let Some(seen) = api.run_facts(&contents.name, first, wants_files, cancel).await? else { return Ok(None) };
    let run = seen.facts;
    let mut rows = vec![seen.rows];
    for range in ranges {
        rows.push(api.history_page(&run.name, range, cancel).await?);
    }
    let mut files: BTreeMap<String, RunFile> = seen.files.into_iter().map(|file| (file.path.clone(), file)).collect();
    if let Some(more) = seen.more_files {
        let found = api.run_files(&run.name, more, cancel).await?;
        files.extend(found.into_iter().map(|file| (file.path.clone(), file)));
    }
    hash_what_can_be_compared(expected, &files).await;
    let artifacts = artifacts(api, expected, [&run.name.entity, &run.name.project], cancel).await?;
    Ok(Some(Found { run, rows, files, artifacts }))
}

/// For each version that is expected, the one that is there.
async fn artifacts(
    api: &ApiClient,
    expected: &Expected,
    place: [&str; 2],
    cancel: &CancellationToken,
) -> Result<Vec<Option<VersionFacts>>, ApiError> {
    let mut known: HashMap<(&str, &str), Vec<VersionFacts>> = HashMap::new();
    let mut found = Vec::new();
    for artifact in &expected.artifacts {
        if let Some(id) = &artifact.id {
            found.push(api.artifact_facts(id, cancel).await?);
            continue;
        }
        let name = (artifact.kind.as_str(), artifact.name.as_str());
        let versions = match known.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(api.artifact_versions(place, name.0, name.1, cancel).await?),
        };
        let same = |version: &&VersionFacts| version.digest == artifact.digest;
        let versions = versions.iter().filter(same);
        found.push(versions.min_by_key(|version| version.state != ArtifactState::Committed).cloned());
    }
    Ok(found)
}

/// Hashes the files here whose digests the server tells. Those of another size differ anyway.
async fn hash_what_can_be_compared(expected: &mut Expected, files: &BTreeMap<String, RunFile>) {
    let mut wanted = Vec::new();
    for (path, file) in expected.files.iter().filter(|(_, file)| file.md5.is_none()) {
        let is_told = files.get(path).is_some_and(|there| there.md5.is_some() && Some(there.size) == file.size);
        if let Some(local) = file.local.clone().filter(|_| is_told) {
            wanted.push((path.clone(), local));
        }
    }
    let hash = move || {
        // One that cannot be read, or is written to, is compared by its size.
        let hash = |(path, local): (String, PathBuf)| Some((path, hash_file(&local).ok()?.digest));
        wanted.into_iter().filter_map(hash).collect::<Vec<_>>()
    };
    for (path, digest) in spawn_blocking(hash).await.unwrap_or_default() {
        if let Some(file) = expected.files.get_mut(&path) {
            file.md5 = Some(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_that_breaks_off_is_told_of() {
        let run = |name: &str| RunToVerify { source: name.into(), ..RunToVerify::default() };
        let runs = ["a", "b", "c"].map(run).into();
        let verify = async |run: RunToVerify| {
            assert_ne!(run.source, PathBuf::from("b"), "a mistake");
            RunVerified::unknown(run.source)
        };
        let mut told = Vec::new();
        let each = |run: RunVerified| {
            let error = run.error.map(|error| error.to_string()).unwrap_or_default();
            told.push((run.source.display().to_string(), error.contains("broke off") && error.contains("a mistake")));
        };
        side_by_side(runs, verify, 1, &CancellationToken::new(), each).await;
        assert_eq!(told, [("a", false), ("b", true), ("c", false)].map(|(name, broken)| (name.to_owned(), broken)));
    }
}
