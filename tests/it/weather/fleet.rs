//! Many runs beside each other, and what one of them may cost the others: nothing.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;
use wandb_bridge::api::{ApiClient, ApiKey, ApiOptions, RetryPolicy};
use wandb_bridge::state_file::place::StateHome;
use wandb_bridge::upload::{
    Cleaning, Close, Fleet, LogEnd, OnConflict, Overrides, RunState, UploadError, UploadJob, UploadOutcome, upload_run,
};

use super::{assert_all_is_there, id_of, import, in_calm, three_runs};
use crate::support::bridge::Place;
use crate::support::events::{Writer, scalar};
use crate::support::server::{FakeServer, Fault, Gate, Route, RunStatus};

const LIMIT: Duration = Duration::from_secs(100);

#[test]
fn a_run_that_waits_long_does_not_keep_others_from_being_sent() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let (place, server) = (Place::new(), FakeServer::start());
    // Two runs are told to come back in an hour; one place is all there is.
    for name in ["a", "b"] {
        let on = Route::FileStreamOf(id_of(&calm, name));
        server.fault(Fault::status(on, 503).header("Retry-After", "3600").always());
    }
    let importing = import(&place, &server, &logs).args(["--transfers", "1"]).spawn();
    let media = id_of(&calm, "media");
    server.wait_until(LIMIT, |world| {
        let waiting = |name| world.requests.iter().any(|request| request.run.as_deref() == Some(&id_of(&calm, name)));
        waiting("a") && waiting("b") && world.run(&media).is_some_and(|run| run.status == RunStatus::Finished)
    });
    drop(importing);
    server.behave();
    import(&place, &server, &logs).run().ok();
    assert_all_is_there(&server, &calm, "long waits");
}

/// A log of one run, recorded offline.
fn recorded(place: &Place) -> std::path::PathBuf {
    three_runs(place);
    place.import_offline([place.path("logs/a")]).args(["-p", "p"]).run().ok();
    place.log()
}

fn job(log: &std::path::Path) -> (watch::Sender<LogEnd>, UploadJob) {
    let (sender, end) = watch::channel(LogEnd::whole(Close::Fail(1)));
    let directory = log.parent().unwrap().to_owned();
    let job = UploadJob {
        log: log.to_owned(),
        files_dir: directory.join("files"),
        links: Default::default(),
        state: StateHome::default().of(&directory),
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
    };
    (sender, job)
}

fn upload(server: &FakeServer, job: UploadJob, change: impl FnOnce(&mut ApiOptions)) -> UploadOutcome {
    let mut options = ApiOptions::new(Url::parse(server.url()).unwrap(), ApiKey::new(server.key()).unwrap());
    options.requests_per_second = Some(0.0);
    options.retry = RetryPolicy { retries: 3, wait_min: Duration::from_millis(1), wait_max: Duration::from_millis(4) };
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fleet = Fleet::new(Arc::new(ApiClient::new(options).unwrap()), 1, &CancellationToken::new());
    runtime.block_on(upload_run(job, fleet))
}

#[test]
fn an_upload_that_breaks_off_is_a_failure_and_not_a_success() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = recorded(&place);
    let (_sender, job) = job(&log);
    let job = UploadJob { progress: Arc::new(|_| panic!("a mistake")), ..job };
    let outcome = upload(&server, job, |_| {});
    let RunState::Failed(UploadError::Broken(why)) = &outcome.state else { panic!("{outcome:?}") };
    assert_eq!(why, "a mistake");
    place.sync(&server).run().ok();
    assert_eq!(server.runs()[0].status, RunStatus::Finished);
    server.assert_content();
}

#[test]
fn lines_that_are_not_answered_are_sent_again() {
    let (place, server) = (Place::new(), FakeServer::start());
    let log = recorded(&place);
    let (_sender, job) = job(&log);
    server.fault(Fault::stall(Route::FileStream, &Gate::default()));
    let outcome = upload(&server, job, |options| options.timeouts.file_stream = Duration::from_secs(1));
    assert!(matches!(outcome.state, RunState::Synced), "{outcome:?}");
    server.assert_content();
}

#[test]
fn a_certificate_that_is_no_good_costs_only_itself() {
    let place = Place::new();
    let path = place.path("bundle.pem");
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let options = || {
        let mut options =
            ApiOptions::new(Url::parse("http://127.0.0.1:1").unwrap(), ApiKey::new("k".repeat(40)).unwrap());
        options.ca_files.push(path.clone());
        options
    };
    fs::write(&path, pem("bm90IGEgY2VydGlmaWNhdGU=")).unwrap();
    let error = ApiClient::new(options()).unwrap_err().to_string();
    assert!(error.contains("holds no certificate that can be used"), "{error}");
    fs::write(&path, pem("bm90IGEgY2VydGlmaWNhdGU=") + GOOD + &pem("AAAA")).unwrap();
    ApiClient::new(options()).unwrap();
    fs::remove_file(&path).unwrap();
    let error = ApiClient::new(options()).unwrap_err().to_string();
    assert!(error.contains("bundle.pem") && error.contains("No such file"), "{error}");
}

#[test]
fn a_certificate_file_that_is_not_there_is_said() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let ended = place.import(&server, ["logs/a"]).env("SSL_CERT_FILE", "none.pem").run().code(2);
    assert!(ended.stderr.contains("none.pem") && ended.stderr.contains("SSL_CERT_FILE"), "{}", ended.stderr);
    place.import_offline(["logs/a"]).env("SSL_CERT_FILE", "none.pem").run().ok();
}

#[test]
fn this_machine_is_never_asked_through_a_proxy() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let nobody = "http://127.0.0.1:1";
    let import = || place.import(&server, ["logs/a"]);
    import().env("http_proxy", nobody).env("ALL_PROXY", nobody).env("WANDB_HTTPS_PROXY", nobody).run().ok();
    // Another one is.
    let ended =
        import().env("WANDB_BASE_URL", "http://wandb.invalid").env("http_proxy", nobody).args(["--retries", "0"]);
    let ended = ended.run().code(5);
    assert!(ended.stderr.contains("refused"), "{}", ended.stderr);
}

/// What the state of a run takes on disk, in bytes.
fn state_size(place: &Place) -> u64 {
    let directory = place.log().parent().unwrap().join(".wandb-bridge");
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let uploads = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("upload-"));
    uploads.map(|entry| entry.metadata().unwrap().len()).sum()
}

#[test]
fn the_state_does_not_grow_with_the_files() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/many"));
    let image = |step: i64| {
        use wandb_bridge::proto::tensorboard::event;
        use wandb_bridge::proto::tensorboard::summary::{Image, value};
        let mut event = scalar(step, "image", 0.0);
        if let Some(event::What::Summary(summary)) = &mut event.what {
            // What stands behind the end of a PNG is no part of it, but makes another file.
            let encoded_image_string = [PIXEL, &step.to_le_bytes()].concat().into();
            let image = Image { height: 1, width: 1, colorspace: 1, encoded_image_string };
            summary.value[0].value = Some(value::Value::Image(image));
        }
        event
    };
    writer.append(&(0..3000).map(image).collect::<Vec<_>>());
    place.import(&server, ["logs"]).run().ok();
    let run = server.runs().remove(0);
    let media =
        |run: &crate::support::server::RunSnapshot| run.files.keys().filter(|path| path.starts_with("media/")).count();
    assert_eq!((media(&run), run.status), (3000, RunStatus::Finished));
    assert!(run.files.values().all(|file| file.uploads == 1));
    assert!(state_size(&place) < 16 << 10, "{} bytes", state_size(&place));
    let planned =
        place.call(["sync", "--dir", "out", "--include-synced", "--dry-run", "--json"]).server(&server).run().ok();
    let planned = &planned.json_runs()[0];
    assert_eq!((&planned["files"], &planned["rows"]), (&0.into(), &0.into()));

    // What comes later is sent, and nothing of it twice.
    writer.append(&(3000..3010).map(image).collect::<Vec<_>>());
    place.import(&server, ["logs"]).run().ok();
    place.sync(&server).arg("--include-synced").run().ok();
    let run = server.runs().remove(0);
    assert_eq!(media(&run), 3010);
    assert!(run.files.iter().filter(|(path, _)| path.starts_with("media/")).all(|(_, file)| file.uploads == 1));
    server.assert_content();
}

/// The smallest PNG.
const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0,
    0x3A, 0x7E, 0x9B, 0x55, 0, 0, 0, 10, b'I', b'D', b'A', b'T', 0x78, 0x9C, 0x63, 0x60, 0, 0, 0, 2, 0, 1, 0x48, 0xAF,
    0xA4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82,
];

/// An authority that nobody has the key of.
const GOOD: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBiDCCAS+gAwIBAgIUShtHG1adwv3awSsqTAsDZwpaHaowCgYIKoZIzj0EAwIw\n\
GTEXMBUGA1UEAwwOdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI0MjAyOTExWhgPMjEy\n\
NjEwMzEyMDI5MTFaMBkxFzAVBgNVBAMMDnRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI\n\
zj0CAQYIKoZIzj0DAQcDQgAExIE1ua8VVIPnG1akZGISaF5hlnJ58T115iykxCfj\n\
Du8xzd7+vtCGZe7KAV0ex9MOP5pZ0wrZ62ZAT8D6K7p2LaNTMFEwHQYDVR0OBBYE\n\
FBLtzBMt8j8lrAXXSStNzwQFjkHDMB8GA1UdIwQYMBaAFBLtzBMt8j8lrAXXSStN\n\
zwQFjkHDMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgCh1mH2UC\n\
a4MC9Cs2dEOp8Lubbqva6TR+C78sT7xBwZMCIDuiXdwur2DBw+0ZOT8A+6dC/peu\n\
VBFpDcLAQ7gTFhRz\n\
-----END CERTIFICATE-----\n";
