//! The program as a child, event files that grow, and what the server holds of them.
#![allow(dead_code, reason = "most tests need signals, and so one family of systems")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use wandb_bridge::proto::tensorboard::{Event, Summary, event, summary};
use wandb_bridge::tfevents::write::write_event;

use crate::support::server::{FakeServer, RunSnapshot, RunStatus, World};

/// What is waited for comes in a second or two; a busy machine may need longer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A directory to work in, with a home of its own.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("home")).unwrap();
        place
    }

    /// A place with a directory for event files.
    pub(super) fn with_logs() -> Self {
        let place = Self::new();
        fs::create_dir(place.path("logs")).unwrap();
        place
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// The program, in an environment that holds nothing else. Split at blanks.
    pub(super) fn bridge(&self, arguments: &str) -> Bridge {
        self.prepare(Command::new(env!("CARGO_BIN_EXE_wandb-bridge")), arguments)
    }

    /// The same, with so few files that may be open unless it asks for more.
    #[cfg(unix)]
    pub(super) fn bridge_with_few_files(&self, files: u32, arguments: &str) -> Bridge {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -Sn {files}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_wandb-bridge"));
        self.prepare(command, arguments)
    }

    fn prepare(&self, mut command: Command, arguments: &str) -> Bridge {
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).env_clear();
        command.env("HOME", self.path("home")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("WANDB_BRIDGE_MIN_FREE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Bridge(command)
    }

    /// `watch logs` with a server, looking often.
    pub(super) fn watch(&self, server: &FakeServer, arguments: &str) -> Running {
        self.bridge(&format!("watch logs --poll 50ms -p p {arguments}")).online(server).start()
    }

    /// Everything below, with what files hold.
    pub(super) fn tree(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut tree = Vec::new();
        let mut directories = vec![self.0.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let content = if path.is_dir() { None } else { Some(fs::read(&path).unwrap()) };
                if content.is_none() {
                    directories.push(path.clone());
                }
                tree.push((path, content));
            }
        }
        tree.sort();
        tree
    }

    /// The run directories.
    pub(super) fn run_directories(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("wandb")) else { return Vec::new() };
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("offline-run-"));
        found
    }
}

/// The program before it is started.
pub(super) struct Bridge(Command);

impl Bridge {
    pub(super) fn online(self, server: &FakeServer) -> Self {
        self.env("WANDB_BASE_URL", server.url()).env("WANDB_API_KEY", server.key())
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Adds arguments that hold blanks.
    pub(super) fn args(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    pub(super) fn stdin(mut self) -> Self {
        self.0.stdin(Stdio::piped());
        self
    }

    pub(super) fn start(mut self) -> Running {
        let mut child = self.0.spawn().unwrap();
        let screen = Arc::new(Screen::default());
        screen.read(child.stdout.take().unwrap(), Stream::Out);
        screen.read(child.stderr.take().unwrap(), Stream::Err);
        Running { child: Mutex::new(child), screen }
    }

    pub(super) fn run(self) -> Ended {
        self.start().end()
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// What a process has written so far.
#[derive(Default)]
struct Screen {
    shown: Mutex<Shown>,
    changed: Condvar,
}

#[derive(Default, Clone, Debug)]
struct Shown {
    out: Vec<u8>,
    err: Vec<u8>,
    closed: usize,
}

impl Screen {
    fn read(self: &Arc<Self>, mut from: impl Read + Send + 'static, stream: Stream) {
        let screen = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut shown = screen.shown.lock().unwrap();
                match stream {
                    _ if count == 0 => shown.closed += 1,
                    Stream::Out => shown.out.extend_from_slice(&buffer[..count]),
                    Stream::Err => shown.err.extend_from_slice(&buffer[..count]),
                }
                drop(shown);
                screen.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn(&Shown) -> bool) -> Shown {
        let shown = self.shown.lock().unwrap();
        let (shown, result) = self.changed.wait_timeout_while(shown, LIMIT, |shown| !condition(shown)).unwrap();
        let (out, err) = (String::from_utf8_lossy(&shown.out), String::from_utf8_lossy(&shown.err));
        assert!(!result.timed_out(), "not within {LIMIT:?}: {what}\nstdout:\n{out}\nstderr:\n{err}");
        shown.clone()
    }
}

/// The program while it runs. Dropping it kills it.
pub(super) struct Running {
    child: Mutex<Child>,
    screen: Arc<Screen>,
}

impl Running {
    /// Waits until the program has said something. Panics when it ends without having said it.
    #[track_caller]
    pub(super) fn wait_for(&self, text: &str) -> &Self {
        let says = |shown: &Shown| String::from_utf8_lossy(&shown.err).contains(text);
        let shown = self.screen.wait(&format!("`{text}`"), |shown| says(shown) || shown.closed == 2);
        assert!(says(&shown), "ended without `{text}`: {}", String::from_utf8_lossy(&shown.err));
        self
    }

    /// Waits until there is some text on its stdout.
    #[track_caller]
    pub(super) fn wait_for_output(&self, text: &str) -> &Self {
        self.screen.wait(text, |shown| String::from_utf8_lossy(&shown.out).contains(text));
        self
    }

    #[cfg(unix)]
    pub(super) fn signal(&self, signal: rustix::process::Signal) -> &Self {
        let pid = rustix::process::Pid::from_child(&self.child.lock().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
        self
    }

    #[cfg(unix)]
    pub(super) fn interrupt(&self) -> &Self {
        self.signal(rustix::process::Signal::INT)
    }

    #[cfg(unix)]
    pub(super) fn terminate(&self) -> &Self {
        self.signal(rustix::process::Signal::TERM)
    }

    pub(super) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Writes to its stdin and closes it.
    pub(super) fn input(&self, text: &str) {
        self.child.lock().unwrap().stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub(super) fn end(&self) -> Ended {
        let shown = self.screen.wait("its end", |shown| shown.closed == 2);
        let code = self.child.lock().unwrap().wait().unwrap().code();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code, out: text(shown.out), err: text(shown.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The program after its end.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ended {
    #[track_caller]
    pub(super) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(super) fn assert_says(&self, text: &str) -> &Self {
        assert!(self.err.contains(text), "`{text}` is not in:\n{}", self.err);
        self
    }

    #[track_caller]
    pub(super) fn assert_never_says(&self, text: &str) -> &Self {
        assert!(!self.err.contains(text), "`{text}` is in:\n{}", self.err);
        self
    }
}

/// Seconds since the epoch.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A writer of one event file, which flushes whatever it is given at once.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    file: File,
    wall_time: f64,
}

impl Writer {
    /// Begins a file now.
    pub(super) fn new(directory: &Path) -> Self {
        Self::at(directory, now(), "host.1.0")
    }

    /// Begins a file at some time.
    pub(super) fn at(directory: &Path, wall_time: f64, suffix: &str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(format!("events.out.tfevents.{:010.0}.{suffix}", wall_time.floor()));
        let file = OpenOptions::new().create_new(true).append(true).open(&path).unwrap();
        let mut writer = Self { path, file, wall_time };
        writer.raw(&first_record(wall_time));
        writer
    }

    /// One value. Each is a little later than the one before.
    pub(super) fn scalar(&mut self, step: i64, tag: &str, value: f32) -> &mut Self {
        let event = self.event(step, tag, value);
        self.raw(&event)
    }

    /// One value for each step, in one write; each value is its step.
    pub(super) fn steps(&mut self, tag: &str, steps: std::ops::Range<i64>) -> &mut Self {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let bytes: Vec<u8> = steps.flat_map(|step| self.event(step, tag, step as f32)).collect();
        self.raw(&bytes)
    }

    /// The bytes of one value, which are not written.
    pub(super) fn event(&mut self, step: i64, tag: &str, value: f32) -> Vec<u8> {
        self.wall_time += 0.001;
        scalar_event(self.wall_time, step, tag, value)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.file.write_all(bytes).unwrap();
        self
    }

    /// What follows is written now, however old the file is.
    pub(super) fn wake(&mut self) -> &mut Self {
        self.wall_time = now();
        self
    }
}

pub(super) fn first_record(wall_time: f64) -> Vec<u8> {
    let what = Some(event::What::FileVersion("brain.Event:2".into()));
    let mut bytes = Vec::new();
    write_event(&mut bytes, &Event { wall_time, what, ..Event::default() });
    bytes
}

pub(super) fn scalar_event(wall_time: f64, step: i64, tag: &str, value: f32) -> Vec<u8> {
    let value = summary::Value {
        tag: tag.to_owned().into(),
        value: Some(summary::value::Value::SimpleValue(value)),
        ..summary::Value::default()
    };
    let what = Some(event::What::Summary(Summary { value: vec![value] }));
    let mut bytes = Vec::new();
    write_event(&mut bytes, &Event { wall_time, step, what, ..Event::default() });
    bytes
}

/// The run with a name, when there is exactly one.
pub(super) fn named<'a>(world: &'a World, name: &str) -> Option<&'a RunSnapshot> {
    let mut found = world.runs.values().filter(|run| run.display_name == name);
    let run = found.next();
    assert!(found.next().is_none(), "more than one run is called {name}");
    run
}

/// Steps and values of one tag, in the order of the history.
pub(super) fn points(run: &RunSnapshot, tag: &str) -> Vec<(i64, f64)> {
    let row = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap();
        Some((row.get("global_step")?.as_i64().unwrap(), row.get(tag)?.as_f64().unwrap()))
    };
    run.history.iter().filter_map(row).collect()
}

/// Points whose values are their steps.
pub(super) fn steps(steps: std::ops::Range<i64>) -> Vec<(i64, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    steps.map(|step| (step, step as f64)).collect()
}

/// Waits until a run holds so many points of a tag.
#[track_caller]
pub(super) fn wait_for_points(server: &FakeServer, name: &str, tag: &str, count: usize) {
    server.wait_until(LIMIT, |world| named(world, name).is_some_and(|run| points(run, tag).len() >= count));
}

/// Waits until a run is shown as something.
#[track_caller]
pub(super) fn wait_for_status(server: &FakeServer, name: &str, status: RunStatus) {
    server.wait_until(LIMIT, |world| named(world, name).is_some_and(|run| run.status == status));
}

/// The run with a name, once nobody sends any more. Nothing that was sent may have been wrong.
#[track_caller]
pub(super) fn the_run(server: &FakeServer, name: &str) -> RunSnapshot {
    server.assert_content();
    server.look(|world| named(world, name).cloned()).unwrap_or_else(|| panic!("there is no run {name}"))
}

/// A run that ended well, with all of one tag.
#[track_caller]
pub(super) fn assert_finished(server: &FakeServer, name: &str, tag: &str, expected: &[(i64, f64)]) {
    let run = the_run(server, name);
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
    assert_eq!(points(&run, tag), expected);
}
