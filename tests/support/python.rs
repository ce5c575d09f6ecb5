//! Python with the official tools in it, made by the tests themselves, once.
//!
//! The environment lies in the target folder under a name that changes with `requirements.txt`. Tests that run side by side
//! wait for the first one to make it. Where there is no Python, tests that need it fail: they are not skipped.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use super::server::{FakeServer, hex};
use sha2::Digest as _;

const REQUIREMENTS: &str = include_str!("requirements.txt");

/// How long one call may take before it is ended: much longer than any should.
const LIMIT: Duration = Duration::from_secs(180);

/// A call of something in the environment, being put together.
pub struct Call {
    command: Command,
    name: String,
    /// Gone when the call is over, unless another home is chosen.
    home: tempfile::TempDir,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Output {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics unless it ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// One of the scripts beside this file.
pub fn script(name: &str) -> Call {
    let mut call = Call::new("python", name);
    call.command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/scripts").join(name));
    call
}

/// A few lines of Python.
pub fn inline(program: &str) -> Call {
    let mut call = Call::new("python", "inline Python");
    call.command.args(["-c", program]);
    call
}

/// The official command line.
pub fn wandb() -> Call {
    Call::new("wandb", "wandb")
}

impl Call {
    /// With nothing in its environment that could change what it does.
    fn new(program: &str, name: &str) -> Self {
        let mut command = Command::new(environment().join("bin").join(program));
        let home = tempfile::tempdir().unwrap();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("LANG", "C.UTF-8")
            .env("WANDB_ERROR_REPORTING", "false")
            .env("WANDB_DISABLE_GIT", "true")
            .current_dir(home.path())
            .stdin(Stdio::null());
        Self { command, name: name.to_owned(), home }
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The working directory; a fresh one by default.
    pub fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Where caches and staged files go; a fresh directory by default.
    pub fn home(mut self, path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        self.command.env("HOME", path);
        self
    }

    /// Talks to that server, with its key.
    pub fn server(self, server: &FakeServer) -> Self {
        self.env("WANDB_BASE_URL", server.url()).env("WANDB_API_KEY", server.key())
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Output {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = read(child.stdout.take().unwrap());
        let stderr = read(child.stderr.take().unwrap());
        let stdout = stdout.recv_timeout(LIMIT).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("{} took longer than {LIMIT:?}", self.name);
        });
        let stderr = stderr.recv_timeout(LIMIT).unwrap_or_default();
        let code = child.wait().unwrap().code();
        drop(self.home);
        Output { code, stdout, stderr }
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The folder of the environment, which is made first if need be.
fn environment() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let target = match option_env!("CARGO_TARGET_TMPDIR") {
            Some(temporary) => Path::new(temporary).parent().unwrap().to_owned(),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        };
        fs::create_dir_all(&target).unwrap();
        let version = step(Command::new("python3").arg("--version"), "finding Python");
        let hash = hex(&sha2::Sha256::digest(format!("{REQUIREMENTS}\n{version}")));
        let place = target.join(format!("test-venv-{}", &hash[..12]));
        // Released when it is closed, also by a crash.
        let lock = File::create(place.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let complete = place.join("complete");
        if !complete.exists() {
            let _ = fs::remove_dir_all(&place);
            step(Command::new("python3").args(["-m", "venv"]).arg(&place), "making a virtual environment");
            let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/requirements.txt");
            let mut install = Command::new(place.join("bin/python"));
            install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
            step(&mut install, "installing the official tools");
            fs::write(complete, "").unwrap();
        }
        place
    })
}

fn step(command: &mut Command, what: &str) -> String {
    let hint = "these tests run the official tools: they need `python3` with `venv`, and a package index";
    let output = command.output().unwrap_or_else(|error| panic!("{what} failed: {error}; {hint}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what} failed; {hint}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}
