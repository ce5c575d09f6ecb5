//! A W&B server for tests: it holds what it is sent, complains about what a client must not do, and misbehaves on cue.
//!
//! It runs on a thread and a runtime of its own, so plain and async tests can use it alike, and ends when it is dropped.
//! Tests look at what it *holds*, not at the calls. It knows nothing of the program under test, but for the JSON dialect.

mod artifacts;
mod fault;
mod graphql;
mod http;
mod public;
mod schema;
mod state;

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::oneshot;
use wandb_bridge::model::Json;

pub use artifacts::Artifact;
pub use fault::{Fault, Gate, Route, Storm};
pub use http::hex;
pub use state::{
    Alert, RequestRecord, RunKey, RunSnapshot, RunStatus, StoredFile, Violation, ViolationKind, World, path_of,
};

/// The key that a server accepts unless it is told another.
pub const KEY: &str = "test-0123456789abcdef0123456789abcdef01234567";

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The one key that is accepted; `None` accepts any.
    pub key: Option<String>,
    /// The entity of who owns the key: the default of every request.
    pub entity: String,
    pub features: BTreeSet<String>,
    /// What the upload of a run file must carry.
    pub upload_headers: Vec<String>,
    /// Larger files are only counted and hashed.
    pub keep_bytes: usize,
    /// Look into every history line. Benchmarks switch it off.
    pub check_rows: bool,
    /// How often a version is shown as pending after it was committed.
    pub commit_lag: usize,
    /// How many threads serve. Benchmarks have one, which leaves the cores to those who are measured.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        let features = ["LARGE_FILENAMES", "ARTIFACT_TAGS", "CLIENT_IDS", "MARK_RUN_FILES_UPLOADED"];
        Self {
            key: Some(KEY.to_owned()),
            entity: "tester".to_owned(),
            features: features.map(str::to_owned).into(),
            upload_headers: vec!["X-Fake-Storage: run-file".to_owned()],
            keep_bytes: 16 << 20,
            check_rows: true,
            commit_lag: 0,
            threads: 2,
        }
    }
}

impl Options {
    pub fn feature(mut self, name: &str) -> Self {
        self.features.insert(name.to_owned());
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub fn start(self) -> FakeServer {
        FakeServer::with(self)
    }
}

/// A running server.
pub struct FakeServer {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server's thread and its owner share.
pub struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    options: Options,
    url: String,
    started: Instant,
    /// Called before each request is looked at.
    before_each: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn before_each(&self) {
        let call = self.before_each.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(call) = call {
            call();
        }
    }

    /// Every change of what is held goes through here, so that nobody waits for a condition in vain.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.notify_all();
        result
    }

    /// The times of requests are those since `started`, which is in seconds since the Unix epoch.
    fn dump(&self) -> String {
        #[derive(Serialize)]
        struct Dump<'a> {
            started: f64,
            #[serde(flatten)]
            world: &'a World,
        }
        let started = SystemTime::now() - self.started.elapsed();
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        serde_json::to_string(&Dump { started, world: &self.world() }).unwrap()
    }
}

impl FakeServer {
    /// A server that behaves as usual, at a free port of the loopback address.
    pub fn start() -> Self {
        Options::default().start()
    }

    pub fn builder() -> Options {
        Options::default()
    }

    fn with(options: Options) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            changed: Condvar::new(),
            options,
            url,
            started: Instant::now(),
            before_each: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (served, threads) = (shared.clone(), shared.options.threads);
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(threads).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    result = http::serve(served, listener) => result.unwrap(),
                    _ = stopped => {}
                }
            });
            // What is stalled is not waited for.
            runtime.shutdown_background();
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The base URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// A key that is accepted.
    pub fn key(&self) -> &str {
        self.shared.options.key.as_deref().unwrap_or(KEY)
    }

    /// The default entity.
    pub fn entity(&self) -> &str {
        &self.shared.options.entity
    }

    /// Looks at all that is held.
    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.world())
    }

    /// The run with that id, when there is exactly one.
    pub fn run(&self, id: &str) -> Option<RunSnapshot> {
        self.look(|world| world.run(id).cloned())
    }

    /// A run of one project of the default entity.
    pub fn run_in(&self, project: &str, id: &str) -> Option<RunSnapshot> {
        self.look(|world| world.run_at(&(self.entity().to_owned(), project.to_owned(), id.to_owned())).cloned())
    }

    /// All runs, in the order of their paths.
    pub fn runs(&self) -> Vec<RunSnapshot> {
        self.look(|world| world.runs.values().cloned().collect())
    }

    /// The newest artifact with that name.
    pub fn artifact(&self, name: &str) -> Option<Artifact> {
        self.look(|world| world.artifact(name).cloned())
    }

    /// The history of a run as values; empty where there is no such run.
    pub fn history_rows(&self, id: &str) -> Vec<Json> {
        self.run(id).map(|run| run.history_rows()).unwrap_or_default()
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.look(|world| world.violations.clone())
    }

    /// Panics if a client did what it must not do, or asked for what the server does not know.
    #[track_caller]
    pub fn assert_content(&self) {
        let (violations, unknown) = self.look(|world| (world.violations.clone(), world.unknown_operations.clone()));
        assert!(violations.is_empty() && unknown.is_empty(), "{violations:#?}, unknown operations: {unknown:?}");
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.look(|world| world.requests.clone())
    }

    /// The GraphQL requests with that name.
    pub fn operations(&self, name: &str) -> Vec<RequestRecord> {
        self.requests().into_iter().filter(|request| request.operation.as_deref() == Some(name)).collect()
    }

    /// The file stream requests of one run.
    pub fn stream_requests(&self, id: &str) -> Vec<RequestRecord> {
        self.requests().into_iter().filter(|request| request.run.as_deref() == Some(id)).collect()
    }

    /// Calls this before each request is looked at.
    pub fn before_each(&self, call: impl Fn() + Send + Sync + 'static) {
        *self.shared.before_each.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(call));
    }

    /// Misbehaves when the time comes.
    pub fn fault(&self, fault: Fault) {
        self.shared.change(|world| world.faults.push(fault));
    }

    /// Misbehaves by chance from now on.
    pub fn storm(&self, storm: Storm) {
        self.shared.change(|world| world.storm = Some(storm));
    }

    /// Changes a run as a person does on its page.
    pub fn edit(&self, id: &str, edit: impl FnOnce(&mut RunSnapshot)) {
        self.shared.change(|world| edit(world.runs.values_mut().find(|run| run.id == id).unwrap()));
    }

    /// Behaves again: forgets the faults that are still to come.
    pub fn behave(&self) {
        self.shared.change(|world| {
            world.faults.clear();
            world.storm = None;
        });
    }

    /// Asks a run to stop, with the answers to its file stream.
    pub fn ask_to_stop(&self, id: &str) {
        self.shared.change(|world| world.stopped.insert(id.to_owned()));
    }

    /// Appends a history line that the client does not know of, as another writer would.
    pub fn append_history(&self, id: &str, line: &str) {
        self.shared.change(|world| {
            let run = world.runs.values_mut().find(|run| run.id == id).unwrap();
            run.history.push(line.to_owned());
        });
    }

    /// Forgets all history lines of a run but so many.
    pub fn lose_history(&self, id: &str, kept: usize) {
        self.shared.change(|world| {
            let run = world.runs.values_mut().find(|run| run.id == id).unwrap();
            run.history.truncate(kept);
            // Where steps go on is told by the lines that are left.
            run.last_step = None;
        });
    }

    /// Changes what is held of artifacts.
    pub fn edit_artifacts(&self, edit: impl FnOnce(&mut Vec<Artifact>)) {
        self.shared.change(|world| edit(&mut world.artifacts));
    }

    /// Forgets a run altogether.
    pub fn forget_run(&self, id: &str) {
        self.shared.change(|world| world.runs.retain(|_, run| run.id != id));
    }

    /// Waits until what is held fulfills a condition. Panics with what there is when the limit passes.
    #[track_caller]
    pub fn wait_until(&self, limit: Duration, mut condition: impl FnMut(&World) -> bool) {
        let world = self.shared.world();
        let waited = self.shared.changed.wait_timeout_while(world, limit, |world| !condition(world));
        let (world, result) = waited.unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() && !condition(&world) {
            let requests: Vec<String> =
                world.requests.iter().rev().take(20).map(|request| format!("{request:?}")).collect();
            let runs: Vec<String> = world.runs.values().map(describe).collect();
            let violations = world.violations.clone();
            drop(world);
            panic!(
                "not within {limit:?}; runs: {runs:#?}, violations: {violations:#?}, newest requests first: {requests:#?}"
            );
        }
    }

    /// All that is held, as JSON.
    pub fn dump(&self) -> String {
        self.shared.dump()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn describe(run: &RunSnapshot) -> String {
    let path = path_of(&run.key());
    let (history, events, console) = (run.history.len(), run.events.len(), run.console.len());
    format!("{path}: {:?}, {history} history, {events} events, {console} console lines", run.status)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use base64::Engine as _;
    use serde_json::{Value, json};

    use super::*;

    const SECOND: Duration = Duration::from_secs(10);

    /// Sends a request by hand; an error is a connection that broke.
    fn send(
        server: &FakeServer,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap())?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    }

    fn login(key: &str) -> String {
        format!("Authorization: Basic {}\r\n", base64::prelude::BASE64_STANDARD.encode(format!("api:{key}")))
    }

    fn query(server: &FakeServer, query: &str, variables: Value) -> (u16, Value) {
        let body = json!({"query": query, "variables": variables}).to_string();
        let (status, answer) = send(server, "POST", "/graphql", &login(server.key()), body.as_bytes()).unwrap();
        (status, serde_json::from_str(&answer).unwrap_or_default())
    }

    fn upsert(server: &FakeServer, run: &str) -> (u16, Value) {
        let text = "mutation UpsertBucket($name: String, $config: JSONString) {
            upsertBucket(input: {name: $name, modelName: \"p\", config: $config}) {
                bucket { id name historyLineCount project { name entity { name } } } inserted } }";
        query(server, text, json!({"name": run, "config": r#"{"lr":{"value":NaN},"_wandb":{"value":{"t":{}}}}"#}))
    }

    fn stream(server: &FakeServer, run: &str, body: Value) -> std::io::Result<(u16, String)> {
        let path = format!("/files/{}/p/{run}/file_stream", server.entity());
        send(server, "POST", &path, &login(server.key()), body.to_string().as_bytes())
    }

    fn row(offset: usize, step: usize) -> Value {
        json!({"files": {"wandb-history.jsonl": {"offset": offset, "content": [format!("{{\"_step\":{step}}}")]}}})
    }

    #[test]
    fn faults_happen_on_cue() {
        let server = FakeServer::start();
        assert_eq!(upsert(&server, "r").0, 200);
        server.fault(Fault::status(Route::FileStream, 503).header("Retry-After", "1"));
        server.fault(Fault::html(Route::FileStream, 502));
        server.fault(Fault::reset(Route::FileStream));
        server.fault(Fault::reset(Route::FileStream).applied());
        assert_eq!(stream(&server, "r", row(0, 0)).unwrap().0, 503);
        assert!(stream(&server, "r", row(0, 0)).unwrap().1.contains("<html>"));
        assert_eq!(stream(&server, "r", row(0, 0)).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(server.run("r").unwrap().history.len(), 0);
        stream(&server, "r", row(0, 0)).unwrap_err();
        assert_eq!(server.run("r").unwrap().history.len(), 1);
        assert_eq!(stream(&server, "r", row(0, 0)).unwrap().0, 200);
        assert_eq!(server.run("r").unwrap().resent_lines, 1);
        server.fault(Fault::graphql_error("UpsertBucket", "run was deleted"));
        assert_eq!(upsert(&server, "r").1["errors"][0]["message"], "run was deleted");
        let statuses: Vec<_> = server.stream_requests("r").iter().map(|request| request.status.unwrap()).collect();
        assert_eq!(statuses, [503, 502, 0, 0, 200]);
        server.assert_content();
    }

    #[test]
    fn stalled_requests_wait_for_the_gate() {
        let server = FakeServer::start();
        upsert(&server, "r");
        let gate = Gate::default();
        server.fault(Fault::stall(Route::FileStreamOf("r".to_owned()), &gate));
        std::thread::scope(|scope| {
            let stalled = scope.spawn(|| stream(&server, "r", row(0, 0)).unwrap().0);
            server.wait_until(SECOND, |world| world.requests.iter().any(|request| request.run.is_some()));
            assert_eq!(server.run("r").unwrap().history.len(), 0);
            gate.open();
            assert_eq!(stalled.join().unwrap(), 200);
        });
        server.wait_until(SECOND, |world| world.run("r").is_some_and(|run| run.history.len() == 1));
    }

    #[test]
    fn only_the_right_key_opens() {
        let server = FakeServer::start();
        for headers in [String::new(), login("wrong")] {
            let body = json!({"query": "query Viewer { viewer { id } }"}).to_string();
            assert_eq!(send(&server, "POST", "/graphql", &headers, body.as_bytes()).unwrap().0, 401);
        }
        let (status, answer) = query(&server, "query Viewer { viewer { id entity } }", Value::Null);
        assert_eq!((status, &answer["data"]["viewer"]["entity"]), (200, &json!("tester")));
    }

    #[test]
    fn uploads_need_the_address_and_its_headers_and_no_key() {
        let server = FakeServer::start();
        upsert(&server, "r");
        let text = "mutation CreateRunFiles($files: [String!]!) {
            createRunFiles(input: {projectName: \"p\", runName: \"r\", files: $files}) { files { name uploadUrl } } }";
        let (_, answer) = query(&server, text, json!({"files": ["a b/ü.txt"]}));
        let url = answer["data"]["createRunFiles"]["files"][0]["uploadUrl"].as_str().unwrap().to_owned();
        let path = url.strip_prefix(server.url()).unwrap();
        assert_eq!(send(&server, "PUT", path, "X-Fake-Storage: run-file\r\n", b"x").unwrap().0, 200);
        server.assert_content();
        assert_eq!(server.run("r").unwrap().files["a b/ü.txt"].text(), "x");
        send(&server, "PUT", path, &login(KEY), b"x").unwrap();
        assert_eq!(send(&server, "PUT", "/storage/x?signature=1", "", b"x").unwrap().0, 403);
        let kinds: Vec<_> = server.violations().iter().map(|violation| violation.kind).collect();
        let expected = [ViolationKind::AuthorizationOnStorage, ViolationKind::BadUpload, ViolationKind::BadUpload];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn runs_are_found_again_and_counted() {
        let server = FakeServer::start();
        assert_eq!(upsert(&server, "r").1["data"]["upsertBucket"]["inserted"], true);
        stream(&server, "r", row(0, 0)).unwrap();
        stream(&server, "r", json!({"complete": true, "exitcode": 0})).unwrap();
        assert_eq!(server.run("r").unwrap().status, RunStatus::Finished);
        let text = "query RunResumeStatus($name: String!) { model(name: \"p\") {
            bucket(name: $name, missingOk: true) { historyLineCount historyTail wandbConfig(keys: [\"t\"]) } } }";
        let (_, answer) = query(&server, text, json!({"name": "r"}));
        let expected =
            json!({"historyLineCount": 1, "historyTail": r#"["{\"_step\":0}"]"#, "wandbConfig": r#"{"t":{}}"#});
        assert_eq!(answer["data"]["model"]["bucket"], expected);
        assert_eq!(query(&server, text, json!({"name": "other"})).1["data"]["model"]["bucket"], Value::Null);
        let again = upsert(&server, "r").1["data"]["upsertBucket"].clone();
        assert_eq!((&again["inserted"], &again["bucket"]["historyLineCount"]), (&json!(false), &json!(1)));
        assert_eq!(server.run("r").unwrap().status, RunStatus::Running);
        assert_eq!(query(&server, "query Strange { strange { id } }", Value::Null).1["data"], Value::Null);
        assert!(server.look(|world| world.unknown_operations.contains("Strange")));
    }
}
