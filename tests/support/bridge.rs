//! The program itself, in an environment that holds nothing but what the test puts there.
//!
//! Whatever it is called with, no key that it was given may appear in what it prints: every call checks that.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::official::{copy_tree, logs_below};
use super::server::FakeServer;

/// Examples share this file, and have no program to run.
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_wandb-bridge");

/// How long one call may take before it is ended: much longer than any should.
const LIMIT: Duration = Duration::from_secs(120);

/// A directory of its own for one test: event files below it, and the `wandb/` folder of the program.
pub struct Place {
    directory: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("home")).unwrap();
        Self { directory, root }
    }

    /// Something below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Copies a directory of `tests/fixtures` to a place below, and returns where it is now.
    pub fn fixture(&self, fixture: &str, to: &str) -> PathBuf {
        let place = self.path(to);
        copy_tree(&fixture_path(fixture), &place);
        place
    }

    /// A call of the program with these arguments, here, with nothing else.
    pub fn call<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Call {
        let mut command = Command::new(PROGRAM.unwrap());
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            // The disk of the machine that tests may be as full as it likes.
            .env("WANDB_BRIDGE_MIN_FREE", "0")
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .args(arguments);
        Call { command, root: self.root.clone(), keys: Vec::new(), url: None }
    }

    /// `import PATH… --mode offline`, recording below `out/`.
    pub fn import_offline<S: AsRef<OsStr>>(&self, paths: impl IntoIterator<Item = S>) -> Call {
        self.call(["import", "--dir", "out", "--mode", "offline"]).args(paths)
    }

    /// `import PATH…` to a server and the project `p`, recording below `out/`.
    pub fn import<S: AsRef<OsStr>>(&self, server: &FakeServer, paths: impl IntoIterator<Item = S>) -> Call {
        self.call(["import", "--dir", "out", "-p", "p"]).args(paths).server(server)
    }

    /// `sync` to a server, of what lies below `out/`.
    pub fn sync(&self, server: &FakeServer) -> Call {
        self.call(["sync", "--dir", "out"]).server(server)
    }

    /// All logs below `out/`.
    pub fn logs(&self) -> Vec<PathBuf> {
        if self.path("out").exists() { logs_below(&self.path("out")) } else { Vec::new() }
    }

    /// The one log below `out/`.
    #[track_caller]
    pub fn log(&self) -> PathBuf {
        let logs = self.logs();
        assert_eq!(logs.len(), 1, "{logs:?}");
        logs.into_iter().next().unwrap()
    }
}

/// A directory or file of `tests/fixtures`.
pub fn fixture_path(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture)
}

/// The run id in the name of a log.
pub fn id_of(log: &Path) -> String {
    log.file_stem().unwrap().to_str().unwrap().strip_prefix("run-").unwrap().to_owned()
}

/// A call of the program, being put together.
pub struct Call {
    command: Command,
    root: PathBuf,
    keys: Vec<String>,
    url: Option<String>,
}

impl Call {
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        let value = value.into();
        if name == "WANDB_API_KEY" {
            self.keys.push(value.to_string_lossy().into_owned());
        }
        self.command.env(name, value);
        self
    }

    /// Another working directory.
    pub fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Talks to that server, with its key, as fast as it can.
    pub fn server(mut self, server: &FakeServer) -> Self {
        self.url = Some(server.url().to_owned());
        self.env("WANDB_BASE_URL", server.url()).env("WANDB_API_KEY", server.key()).env("WANDB_BRIDGE_TPSLIMIT", "0")
    }

    /// Lets it open so few files at once, whatever it asks for.
    #[cfg(unix)]
    pub fn with_open_files(self, files: u32) -> Self {
        self.by_shell(&format!("ulimit -n {files}; exec \"$0\" \"$@\""))
    }

    /// Its stdout goes to a file on a disk that is full.
    #[cfg(target_os = "linux")]
    pub fn on_full_disk(self) -> Self {
        self.by_shell("exec \"$0\" \"$@\" >/dev/full")
    }

    /// Started by a shell, which finds the program and its arguments in `"$0" "$@"`.
    #[cfg(unix)]
    fn by_shell(mut self, script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command.env_clear().envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg(self.command.get_program()).args(self.command.get_args()).stdin(Stdio::null());
        command.current_dir(self.command.get_current_dir().unwrap_or(&self.root));
        self.command = command;
        self
    }

    pub fn envs(self, variables: impl IntoIterator<Item = (&'static str, OsString)>) -> Self {
        variables.into_iter().fold(self, |call, (name, value)| call.env(name, value))
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        self.spawn().wait()
    }

    /// Starts it.
    pub fn spawn(mut self) -> Running {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) =
            (Printed::read(child.stdout.take().unwrap()), Printed::read(child.stderr.take().unwrap()));
        Running { child, stdout, stderr, root: self.root, keys: self.keys, url: self.url }
    }
}

/// The program at work. Killed when it is dropped.
pub struct Running {
    child: Child,
    stdout: Arc<Printed>,
    stderr: Arc<Printed>,
    root: PathBuf,
    keys: Vec<String>,
    url: Option<String>,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it with `kill -9`, unless it has ended already.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.wait()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and tells the most memory that it took, in bytes.
    #[cfg(target_os = "linux")]
    pub fn wait_and_measure(mut self) -> (Ended, u64) {
        let mut peak = 0;
        while self.is_running() {
            let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kilobytes =
                line.and_then(|line| line.trim().strip_suffix(" kB")).map(|text| text.trim().parse().unwrap());
            peak = peak.max(kilobytes.unwrap_or(0_u64));
            // A look now and then: the peak only grows, and the program needs the processor more.
            std::thread::sleep(Duration::from_millis(1));
        }
        (self.wait(), peak * 1024)
    }

    /// Waits until that is on stderr, or it has ended.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let said = self.stderr.wait(|printed| printed.ended || printed.text().contains(text));
        assert!(said.contains(text), "it ended without `{text}`: {said}");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let stdout = self.stdout.wait(|printed| printed.ended);
        let stderr = self.stderr.wait(|printed| printed.ended);
        let code = self.child.wait().unwrap().code();
        for key in &self.keys {
            assert!(!stdout.contains(key) && !stderr.contains(key), "the key is in the output:\n{stdout}\n{stderr}");
        }
        Ended { code, stdout, stderr, root: self.root.clone(), url: self.url.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was printed so far.
#[derive(Default)]
struct Printed {
    state: Mutex<PrintedState>,
    changed: Condvar,
}

#[derive(Default)]
struct PrintedState {
    bytes: Vec<u8>,
    ended: bool,
}

impl PrintedState {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl Printed {
    fn read(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let printed = Arc::new(Self::default());
        let page = printed.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut state = page.state.lock().unwrap();
                state.bytes.extend_from_slice(&buffer[..count]);
                state.ended = count == 0;
                page.changed.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        printed
    }

    #[track_caller]
    fn wait(&self, condition: impl Fn(&PrintedState) -> bool) -> String {
        let state = self.state.lock().unwrap();
        let (state, waited) = self.changed.wait_timeout_while(state, LIMIT, |state| !condition(state)).unwrap();
        assert!(!waited.timed_out(), "it takes longer than {LIMIT:?}: {}", state.text());
        state.text().into_owned()
    }
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    root: PathBuf,
    url: Option<String>,
}

impl Ended {
    /// Panics unless it ended with that code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless it ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// The lines of `--json`.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{}", self.stderr));
        self.stdout.lines().map(parse).collect()
    }

    /// The lines of `--json` about runs, by name.
    pub fn json_runs(&self) -> Vec<Value> {
        let mut runs: Vec<Value> = self.json().into_iter().filter(|line| line["type"] == "run").collect();
        runs.sort_by_key(|run| run["name"].as_str().unwrap_or_default().to_owned());
        runs
    }

    /// The last line of `--json`.
    #[track_caller]
    pub fn json_summary(&self) -> Value {
        let last = self.json().pop().unwrap();
        assert_eq!(last["type"], "summary");
        last
    }

    /// Code, stdout and stderr, with steady words for what differs from one call to the next.
    pub fn screen(&self) -> String {
        let mut screen = format!("exit code {}\n", self.code.map_or("none".to_owned(), |code| code.to_string()));
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let mut text = text.replace(&*self.root.to_string_lossy(), "[here]");
            text = text.replace(env!("CARGO_MANIFEST_DIR"), "[repository]");
            if let Some(url) = &self.url {
                text = text.replace(url.as_str(), "[server]");
            }
            let _ = write!(screen, "--- {name}\n{text}");
        }
        screen
    }
}

/// Compares what was printed with a snapshot, times left out.
#[macro_export]
macro_rules! assert_screen {
    ($name:expr, $ended:expr) => {
        insta::with_settings!({
            filters => vec![
                (r"in \d+\.\d s", "in [seconds] s"),
                (r"-run-\d{8}_\d{6}-", "-run-[time]-"),
                (r"127\.0\.0\.1:\d+", "127.0.0.1:[port]"),
                (r#""seconds":[\d.]+"#, r#""seconds":[seconds]"#),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($name, $ended.screen()) })
    };
}
