//! Logs on their way to the tests' server: what it holds at the end is what the log says, whatever happened in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;
use wandb_bridge::api::{ApiClient, ApiKey, ApiOptions, Class, RetryPolicy};
use wandb_bridge::model::FileCategory;
use wandb_bridge::model::{
    Exit, Host, Json, LogPosition, MetricDefinition, Number, Row, RunId, RunInfo, RunUpdate, SummaryItem,
};
use wandb_bridge::state_file::place::StateHome;
use wandb_bridge::upload::{
    Cleaning, Close, Fleet, LogEnd, OnConflict, Overrides, Progress, RunState, UploadError, UploadJob, UploadOutcome,
    upload_run,
};
use wandb_bridge::wandb_format::{
    LogWriter, RecordEncoder, environment_record, files_record, header_record, is_synced, telemetry_record,
};

use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, official_offline_run, official_sync};
use crate::support::server::{FakeServer, Fault, Gate, RequestRecord, Route, RunSnapshot, RunStatus};

const ID: &str = "run-1";

/// A run directory whose log is written step by step.
struct Log {
    directory: TempDir,
    writer: LogWriter,
    encoder: RecordEncoder,
    rows: u64,
    before_exit: Option<(LogPosition, i64)>,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let writer = LogWriter::create(&directory.path().join("run-run-1.wandb")).unwrap();
        let mut log = Self { directory, writer, encoder: RecordEncoder::default(), rows: 0, before_exit: None };
        log.writer.append(header_record()).unwrap();
        log.update(&RunUpdate::Run(Box::new(RunInfo {
            id: RunId::new(ID).unwrap(),
            entity: String::new(),
            project: "demo".to_owned(),
            name: "first".to_owned(),
            group: "some group".to_owned(),
            job_type: String::new(),
            notes: String::new(),
            tags: vec!["a".to_owned()],
            start_time: 1_700_000_000.0,
            host: Host("node-1".to_owned()),
        })));
        log.writer.append(telemetry_record()).unwrap();
        log.writer.append(environment_record("node-1", 1_700_000_000.0)).unwrap();
        log.update(&RunUpdate::Config(vec![(vec!["lr".to_owned()], Number::F64(0.1).into())]));
        for (name, axis) in [("global_step", None), ("loss", Some("global_step"))] {
            let (name, step_metric) = (name.into(), axis.map(Into::into));
            log.update(&RunUpdate::Metric(MetricDefinition { name, step_metric, summary: None, anew: false }));
        }
        log
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run-run-1.wandb")
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    fn update(&mut self, update: &RunUpdate) {
        let mut body = Vec::new();
        self.encoder.encode(update, &mut body);
        self.writer.append_encoded(&body).unwrap();
    }

    fn rows(&mut self, count: u64) -> &mut Self {
        for _ in 0..count {
            let index = self.rows;
            self.rows += 1;
            self.update(&RunUpdate::Row(Row {
                index,
                timestamp: 1_700_000_000.0 + index as f64,
                runtime: index as f64,
                axis: "global_step".into(),
                axis_value: 10 * index as i64,
                values: vec![("loss".into(), Number::F32(1.0 / (index + 1) as f32).into())],
            }));
        }
        let value = Json::from(self.rows as i64);
        self.update(&RunUpdate::Summary(vec![SummaryItem { path: vec!["rows".to_owned()], value }]));
        self.writer.flush().unwrap();
        self
    }

    fn exit(&mut self) {
        self.before_exit = Some((self.writer.position(), self.writer.next_num()));
        self.update(&RunUpdate::Exit(Exit { code: 0, runtime: 60 }));
        self.writer.flush().unwrap();
    }

    /// Cuts the log back to before its exit, to go on.
    fn reopen(&mut self) {
        let (position, next) = self.before_exit.take().unwrap();
        self.writer = LogWriter::open_at(&self.path(), position, next).unwrap();
        fs::remove_file(self.directory.path().join("run-run-1.wandb.synced")).unwrap();
    }

    fn end(&self) -> LogEnd {
        LogEnd { position: Some(self.writer.position()), complete: false, close: Close::LeaveRunning }
    }

    fn job(&self, end: watch::Receiver<LogEnd>) -> UploadJob {
        UploadJob {
            log: self.path(),
            state: StateHome::default().of(self.directory.path()),
            files_dir: self.files(),
            links: Default::default(),
            end,
            overrides: Overrides::default(),
            live: false,
            on_conflict: OnConflict::Fail,
            foreign: None,
            earlier: Vec::new(),
            attach: Vec::new(),
            staging: Default::default(),
            accept_losses: false,
            cleaning: Cleaning::No,
            progress: Arc::new(|_| {}),
        }
    }

    /// Uploads the whole log as it is.
    fn upload(&self, server: &FakeServer) -> UploadOutcome {
        runtime().block_on(self.upload_by(&fleet(server)))
    }

    async fn upload_by(&self, fleet: &Arc<Fleet>) -> UploadOutcome {
        let (_sender, end) = watch::channel(LogEnd::whole(Close::LeaveRunning));
        upload_run(self.job(end), fleet.clone()).await
    }

    /// The server holds every row of the log once, in order.
    #[track_caller]
    fn check_rows(&self, server: &FakeServer) {
        let run = server.run(ID).unwrap();
        let expected: Vec<Json> = (0..self.rows as i64).map(Json::from).collect();
        assert_eq!(run.column("_step"), expected);
        let losses: Vec<String> = run.column("loss").iter().map(Json::to_string).collect();
        for (index, loss) in losses.iter().enumerate() {
            assert_eq!(loss.parse::<f32>().unwrap(), 1.0 / (index + 1) as f32);
        }
        assert_eq!(run.rewritten_lines, 0);
        server.assert_content();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn options(server: &FakeServer) -> ApiOptions {
    let mut options = ApiOptions::new(Url::parse(server.url()).unwrap(), ApiKey::new(server.key()).unwrap());
    options.requests_per_second = Some(0.0);
    options.retry = RetryPolicy { retries: 3, wait_min: Duration::from_millis(1), wait_max: Duration::from_millis(4) };
    options
}

fn fleet(server: &FakeServer) -> Arc<Fleet> {
    Fleet::new(Arc::new(ApiClient::new(options(server)).unwrap()), 4, &CancellationToken::new())
}

#[track_caller]
fn check_synced(outcome: &UploadOutcome) {
    assert!(matches!(outcome.state, RunState::Synced), "{outcome:?}");
}

#[test]
fn a_finished_log_arrives_whole_and_once() {
    let server = FakeServer::builder().feature("FILESTREAM_GZIP").start();
    let mut log = Log::new();
    fs::create_dir_all(log.files().join("media")).unwrap();
    fs::write(log.files().join("media/a.txt"), "hello").unwrap();
    fs::write(log.files().join("media/empty.txt"), "").unwrap();
    log.writer
        .append(files_record(&[("media/a.txt", FileCategory::Media), ("media/empty.txt", FileCategory::Media)]))
        .unwrap();
    log.rows(25).exit();

    let outcome = log.upload(&server);
    check_synced(&outcome);
    assert_eq!((outcome.rows_sent, outcome.rows_total), (25, 25));
    assert_eq!(outcome.url, format!("{}/tester/demo/runs/run-1", server.url()));
    log.check_rows(&server);
    let run = server.run(ID).unwrap();
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
    assert_eq!((run.display_name.as_str(), run.group.as_deref()), ("first", Some("some group")));
    assert_eq!((run.tags.as_slice(), run.host.as_deref()), (["a".to_owned()].as_slice(), Some("node-1")));
    assert_eq!(run.summary_value().to_string(), r#"{"_step":24,"rows":25}"#);
    let config = run.config_value();
    assert_eq!(config.get("lr").unwrap().to_string(), "0.1");
    let internal = config.get("_wandb").unwrap();
    assert_eq!(
        internal.get("m").unwrap().to_string(),
        r#"[{"1":"global_step","6":[3],"7":[]},{"1":"loss","5":1,"6":[3],"7":[]}]"#
    );
    assert!(internal.get("t").is_some());
    assert_eq!(run.files["media/a.txt"].text(), "hello");
    assert_eq!(run.files["media/empty.txt"].size, 0);
    for name in ["config.yaml", "wandb-metadata.json", "wandb-summary.json"] {
        assert_eq!(run.files[name].text(), fs::read_to_string(log.files().join(name)).unwrap());
    }
    assert_eq!(run.reported, run.files.keys().cloned().collect());
    assert!(is_synced(&log.path()));
    assert!(server.stream_requests(ID).iter().all(|request| request.gzip));

    let requests = server.requests().len();
    let again = log.upload(&server);
    check_synced(&again);
    assert_eq!((again.rows_sent, again.rows_total), (0, 25));
    assert_eq!(server.requests().len(), requests, "nothing new, so nothing is sent");
}

#[test]
fn a_run_that_goes_on_after_its_exit_is_opened_again() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(5).exit();
    check_synced(&log.upload(&server));
    log.reopen();
    log.rows(7).exit();
    let outcome = log.upload(&server);
    check_synced(&outcome);
    assert_eq!((outcome.rows_sent, outcome.rows_total), (7, 12));
    log.check_rows(&server);
    assert_eq!(server.run(ID).unwrap().status, RunStatus::Finished);
    assert_eq!(server.run(ID).unwrap().resent_lines, 0);
}

#[test]
fn a_growing_log_is_followed() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(3);
    let (sender, end) = watch::channel(log.end());
    let runtime = runtime();
    let positions = Arc::new(Mutex::new(Vec::new()));
    let seen = positions.clone();
    let progress = Arc::new(move |progress| {
        if let Progress::Acknowledged { position, .. } = progress {
            seen.lock().unwrap().push(position);
        }
    });
    let job = UploadJob { live: true, progress, ..log.job(end) };
    let upload = runtime.spawn(upload_run(job, fleet(&server)));
    for rows in [3, 10, 11] {
        log.rows(rows - log.rows);
        sender.send_replace(log.end());
        server.wait_until(Duration::from_secs(20), |world| {
            world.run(ID).is_some_and(|run| run.history.len() == rows as usize)
        });
        assert_eq!(server.run(ID).unwrap().status, RunStatus::Running);
    }
    log.exit();
    sender.send_replace(LogEnd { complete: true, ..log.end() });
    let outcome = runtime.block_on(upload).unwrap();
    check_synced(&outcome);
    assert_eq!(outcome.rows_sent, 11);
    log.check_rows(&server);
    assert!(positions.lock().unwrap().is_sorted());
}

#[test]
fn an_incomplete_log_is_left_running_or_failed_as_asked() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(2);
    assert!(matches!(log.upload(&server).state, RunState::Running));
    assert_eq!(server.run(ID).unwrap().status, RunStatus::Running);
    assert!(!is_synced(&log.path()));
    let requests = server.requests().len();
    assert!(matches!(log.upload(&server).state, RunState::Running));
    assert_eq!(server.requests().len(), requests);

    let (_sender, end) = watch::channel(LogEnd::whole(Close::Fail(1)));
    let outcome = runtime().block_on(upload_run(log.job(end.clone()), fleet(&server)));
    check_synced(&outcome);
    assert_eq!(server.run(ID).unwrap().exit_code, Some(1));
    let requests = server.requests().len();
    check_synced(&runtime().block_on(upload_run(log.job(end), fleet(&server))));
    assert_eq!(server.requests().len(), requests);
    log.check_rows(&server);
}

#[test]
fn bad_weather_changes_nothing() {
    let server = FakeServer::start();
    let mut log = Log::new();
    fs::create_dir_all(log.files()).unwrap();
    fs::write(log.files().join("a"), "a").unwrap();
    log.writer.append(files_record(&[("a", FileCategory::Other)])).unwrap();
    log.rows(10).exit();
    server.fault(Fault::status(Route::graphql("UpsertBucket"), 409));
    server.fault(Fault::reset(Route::graphql("RunResumeStatus")));
    server.fault(Fault::status(Route::graphql("CreateRunFiles"), 502));
    server.fault(Fault::status(Route::Storage, 503));
    server.fault(Fault::reset(Route::FileStream).applied());
    server.fault(Fault::status(Route::FileStream, 429).header("Retry-After", "0"));
    server.fault(Fault::html(Route::FileStream, 500).applied());
    check_synced(&log.upload(&server));
    log.check_rows(&server);
    assert_eq!(server.run(ID).unwrap().files["a"].text(), "a");
}

#[test]
fn a_lost_state_is_found_again_on_the_server() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(20);
    assert!(matches!(log.upload(&server).state, RunState::Running));
    fs::remove_dir_all(log.directory.path().join(".wandb-bridge")).unwrap();
    log.rows(5).exit();
    let outcome = log.upload(&server);
    check_synced(&outcome);
    assert_eq!((outcome.rows_sent, outcome.rows_total), (5, 25));
    log.check_rows(&server);
}

#[test]
fn a_log_that_is_made_anew_is_compared_when_it_is_long_enough() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(20);
    log.upload(&server);
    fs::remove_dir_all(log.directory.path().join(".wandb-bridge")).unwrap();
    let mut anew = Log::new();
    anew.rows(5);
    let (sender, end) = watch::channel(anew.end());
    let runtime = runtime();
    let upload = runtime.spawn(upload_run(anew.job(end), fleet(&server)));
    server.wait_until(Duration::from_secs(20), |world| {
        let asks = |request: &&RequestRecord| request.operation.as_deref() == Some("RunResumeStatus");
        world.requests.iter().filter(asks).count() == 2
    });
    anew.rows(20).exit();
    sender.send_replace(LogEnd { complete: true, ..anew.end() });
    let outcome = runtime.block_on(upload).unwrap();
    check_synced(&outcome);
    assert_eq!((outcome.rows_sent, outcome.rows_total), (5, 25));
    anew.check_rows(&server);
}

#[test]
fn rows_of_somebody_else_are_a_conflict() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(4);
    log.upload(&server);
    server.append_history(ID, r#"{"_step":4,"loss":7}"#);
    let lines = server.run(ID).unwrap().history;
    let check = |outcome: UploadOutcome| {
        let RunState::Failed(UploadError::Conflict { there: 5, run, .. }) = &outcome.state else {
            panic!("{outcome:?}")
        };
        assert_eq!(run.trim_start_matches("tester/"), "demo/run-1");
        assert_eq!(server.run(ID).unwrap().history, lines, "nothing was written");
    };
    log.rows(3);
    check(log.upload(&server));
    fs::remove_dir_all(log.directory.path().join(".wandb-bridge")).unwrap();
    check(log.upload(&server));
}

#[test]
fn a_state_that_lags_behind_the_server_catches_up() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(4);
    log.upload(&server);
    log.rows(6);
    // The lines arrive, but no try of ours ever hears so.
    server.fault(Fault::reset(Route::FileStream).applied().always());
    let outcome = log.upload(&server);
    let RunState::Failed(error) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(error.class(), Some(Class::Temporary));
    assert_eq!(outcome.rows_total, 4);
    assert_eq!(server.run(ID).unwrap().history.len(), 10);
    server.behave();
    log.rows(1).exit();
    let outcome = log.upload(&server);
    check_synced(&outcome);
    assert_eq!((outcome.rows_sent, outcome.rows_total), (1, 11));
    log.check_rows(&server);
}

#[test]
fn a_cancelled_upload_ends_at_once_and_goes_on_later() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(4).exit();
    let gate = Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate));
    let cancel = CancellationToken::new();
    let fleet = Fleet::new(Arc::new(ApiClient::new(options(&server)).unwrap()), 1, &cancel);
    let runtime = runtime();
    let (_sender, end) = watch::channel(LogEnd::whole(Close::LeaveRunning));
    let upload = runtime.spawn(upload_run(log.job(end), fleet));
    server.wait_until(Duration::from_secs(20), |world| world.requests.iter().any(|request| request.run.is_some()));
    cancel.cancel();
    let outcome = runtime.block_on(upload).unwrap();
    let RunState::Failed(error) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(error.class(), Some(Class::Cancelled));
    gate.open();
    check_synced(&log.upload(&server));
    log.check_rows(&server);
}

#[test]
fn a_key_that_is_not_accepted_stops_every_run() {
    let server = FakeServer::start();
    let mut other = options(&server);
    other.api_key = ApiKey::new("another-0123456789abcdef0123456789abcdef01234567").unwrap();
    let fleet = Fleet::new(Arc::new(ApiClient::new(other).unwrap()), 1, &CancellationToken::new());
    let (mut one, mut two) = (Log::new(), Log::new());
    one.rows(1).exit();
    two.rows(1).exit();
    let runtime = runtime();
    let outcome = runtime.block_on(one.upload_by(&fleet));
    let RunState::Failed(error @ UploadError::Api(_)) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(error.class(), Some(Class::Auth));
    let text = error.to_string();
    assert!(text.starts_with(&format!("401 Unauthorized from `{}/graphql`", server.url())), "{text}");
    let requests = server.requests().len();
    let outcome = runtime.block_on(two.upload_by(&fleet));
    assert!(matches!(outcome.state, RunState::Failed(UploadError::Stopped(_))), "{outcome:?}");
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let (server, elsewhere) = (FakeServer::start(), FakeServer::start());
    let to = format!("{}/graphql", elsewhere.url());
    server.fault(Fault::status(Route::AnyGraphql, 307).header("Location", &to).always());
    let mut log = Log::new();
    log.rows(1).exit();
    let outcome = log.upload(&server);
    let RunState::Failed(error) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(error.class(), Some(Class::Protocol));
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    let server = FakeServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut options = options(&server);
    options.ca_files.push(file.path().to_owned());
    let error = ApiClient::new(options).unwrap_err();
    assert!(error.to_string().ends_with("it holds no certificate"), "{error}");
}

#[test]
fn what_cannot_be_carried_is_counted() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.writer.append(files_record(&[("gone.png", FileCategory::Media), ("../secret", FileCategory::Media)])).unwrap();
    log.rows(1);
    let key: Arc<str> = "x".repeat(10_383_361).into();
    log.update(&RunUpdate::Row(Row {
        index: 1,
        timestamp: 0.0,
        runtime: 0.0,
        axis: "global_step".into(),
        axis_value: 0,
        values: vec![(key, Number::I64(1).into())],
    }));
    log.rows(1).exit();
    let outcome = log.upload(&server);
    assert!(matches!(outcome.state, RunState::Partial), "{outcome:?}");
    let skips: Vec<(String, u64)> =
        outcome.skips.iter().map(|(reason, count)| (format!("{reason:?}"), count.count)).collect();
    assert_eq!(skips, [("RowTooLarge".to_owned(), 1), ("File".to_owned(), 2)]);
    assert_eq!(outcome.rows_total, 2);
    assert!(!is_synced(&log.path()));
    log.check_rows(&server);
}

#[test]
fn a_second_target_gets_all_of_it() {
    let server = FakeServer::start();
    let mut log = Log::new();
    log.rows(3).exit();
    check_synced(&log.upload(&server));
    let (_sender, end) = watch::channel(LogEnd::whole(Close::LeaveRunning));
    let overrides = Overrides { project: Some("other".to_owned()), ..Overrides::default() };
    let job = UploadJob { overrides, ..log.job(end) };
    check_synced(&runtime().block_on(upload_run(job, fleet(&server))));
    assert_eq!(server.run_in("other", ID).unwrap().history, server.run_in("demo", ID).unwrap().history);
    server.assert_content();
}

#[test]
fn no_server_is_a_temporary_failure() {
    let server = FakeServer::start();
    let mut options = options(&server);
    drop(server);
    options.retry.retries = 1;
    let mut log = Log::new();
    log.rows(1).exit();
    let fleet = Fleet::new(Arc::new(ApiClient::new(options).unwrap()), 1, &CancellationToken::new());
    let outcome = runtime().block_on(log.upload_by(&fleet));
    let RunState::Failed(error) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(error.class(), Some(Class::Temporary));
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!Path::new(&log.directory.path().join("run-run-1.wandb.synced")).exists());
}

/// Uploads a log by ours and by the official client, to a server each.
fn by_both(directory: &Path, log: &Path, id: &str) -> (UploadOutcome, RunSnapshot, RunSnapshot) {
    let upload = |name: &str| {
        let copy = directory.join(name);
        copy_tree(log.parent().unwrap(), &copy);
        (copy.join(log.file_name().unwrap()), FakeServer::start())
    };
    let (theirs, official) = upload("offline-run-theirs");
    official_sync(&theirs, &official);
    let (ours, server) = upload("offline-run-ours");
    let (_sender, end) = watch::channel(LogEnd::whole(Close::Fail(1)));
    let job = UploadJob {
        state: StateHome::default().of(ours.parent().unwrap()),
        files_dir: ours.parent().unwrap().join("files"),
        links: Default::default(),
        log: ours,
        end,
        overrides: Overrides::default(),
        cleaning: Cleaning::No,
        live: false,
        on_conflict: OnConflict::Fail,
        foreign: None,
        earlier: Vec::new(),
        attach: Vec::new(),
        staging: Default::default(),
        accept_losses: false,
        progress: Arc::new(|_| {}),
    };
    let outcome = runtime().block_on(upload_run(job, fleet(&server)));
    server.assert_content();
    (outcome, server.run(id).unwrap(), official.run(id).unwrap())
}

#[test]
fn an_official_log_arrives_as_the_official_client_uploads_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = official_offline_run(directory.path());
    end_at_exit(&log);
    let (outcome, ours, theirs) = by_both(directory.path(), &log, "offl1");
    let skipped: Vec<String> = outcome.skips.iter().map(|(reason, _)| reason.to_string()).collect();
    assert_eq!(skipped, [""; 0]);
    let compared = Compared { console: true, ..Compared::default() };
    assert_eq!(same_run_but_for(&ours, &theirs, &compared), Ok(()));
}

#[test]
fn our_log_arrives_as_the_official_client_uploads_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::new();
    log.rows(12).exit();
    fs::create_dir_all(log.files()).unwrap();
    let (outcome, ours, theirs) = by_both(directory.path(), &log.path(), ID);
    check_synced(&outcome);
    assert_eq!(same_run_but_for(&ours, &theirs, &Compared::default()), Ok(()));
}
