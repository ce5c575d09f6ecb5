//! What a person reads when a run could not be recorded or uploaded, and what helps. Pure.

use std::io;
use std::path::Path;

use crate::api::{ApiError, Class};
use crate::cleaned::CleanError;
use crate::commands::error::{CommandError, ExitCode};
use crate::pipeline::RunEnd;
use crate::recorder::RecordError;
use crate::state_file::StateFileError;
use crate::state_file::lock::LockError;
use crate::upload::{RunState as Uploaded, UploadError};
use crate::wandb_format::LogError;

/// What helps where locks do not work.
const NO_LOCKS: &str = "keep the state on another file system with `--state-dir DIR`; or see to it that no other process \
     works on these runs, and use `--no-lock`";

/// What to do when the weather is bad.
pub(super) const AGAIN: &str =
    "run the same command again later: what is recorded is kept, and only what is missing is sent";

/// What to do when an id is of no use any more.
const OTHER_RUN: &str = "`import` and `watch` make a fresh run beside it with `--generation 1` (or the next number), \
    `--on-conflict new-id` uploads it under another id, and `append` and `skip` are the other choices";

/// What is the same for all runs that meet it, but for a few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Common {
    KeyRefused,
    NoSpace,
    NoAnswer,
}

pub(super) fn common(run: &RunEnd, trouble: &CommandError) -> Option<Common> {
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

/// What a person reads when a run could not be recorded.
pub(super) fn record_trouble(error: &RecordError, source: &Path) -> CommandError {
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

/// What a person reads when a run could not be uploaded.
pub(super) fn upload_trouble(error: &UploadError, source: &Path) -> CommandError {
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
