//! Calls of the binary under test, with nothing in their environment that could change what it does.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::server::FakeServer;

/// A call, being put together.
pub(super) struct Call {
    command: Command,
    _home: tempfile::TempDir,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `None` when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A call of the program.
pub(super) fn bridge<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Call {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wandb-bridge"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env("WANDB_BRIDGE_MIN_FREE", "0")
        // Much longer than any call should take: one that hangs fails its test.
        .env("WANDB_BRIDGE_MAX_DURATION", "3m")
        .current_dir(home.path())
        .stdin(Stdio::null())
        .args(arguments);
    Call { command, _home: home }
}

impl Call {
    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Talks to that server, with its key.
    pub(super) fn server(mut self, server: &FakeServer) -> Self {
        self.command.env("WANDB_BASE_URL", server.url()).env("WANDB_API_KEY", server.key());
        self
    }

    pub(super) fn run(mut self) -> Outcome {
        let output = self.command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Outcome {
    /// Panics unless it ended with that code.
    #[track_caller]
    pub(super) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The objects that `--json` prints of runs.
    pub(super) fn run_objects(&self) -> Vec<Value> {
        let objects = self.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        objects.filter(|object| object["type"] == "run").collect()
    }
}
