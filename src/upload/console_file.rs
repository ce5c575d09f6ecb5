//! `output.log`: the console of a run as a file of its own. Blocking.
//!
//! The lines that a server was sent are not kept, so the file is made from the log, whole, when the run has ended. It holds
//! the text of each line and nothing else, as the official client's does. There is one such file of a run, so it begins with
//! what the logs of the run before this one hold, as far as they are here, or as it was kept when they were deleted. A log
//! that winds its run back begins it anew.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::model::LogPosition;
use crate::state_file::place::StatePlace;
use crate::upload::console::{ConsoleLine, Printed};
use crate::upload::contents::RunLog;
use crate::upload::cursor::first_run;
use crate::upload::fold::Fold;
use crate::wandb_format::{EntryKind, LogError, LogReader, Next};

/// The name of the file, below the run's `files/`.
pub(crate) const OUTPUT_LOG: &str = "output.log";

/// So many bytes of lines are kept before they are written.
const BUFFER: usize = 1 << 20;

/// Makes the file from the logs of a run, each read up to a limit, the last of which must be there. It is there whole, or as
/// it was before. False when there are no lines, and so no file is made.
pub(crate) fn write(logs: &[RunLog], directory: &Path) -> io::Result<bool> {
    let path = directory.join(OUTPUT_LOG);
    let fresh = directory.join(format!("{OUTPUT_LOG}.tmp"));
    let written = write_to(&fresh, logs);
    if let Ok(1..) = written {
        return fs::rename(&fresh, &path).map(|()| true);
    }
    let _ = fs::remove_file(&fresh);
    written.map(|_| false)
}

/// Keeps the text of logs, of which the last is to be deleted, in its state.
pub(crate) fn keep(logs: &[RunLog], state: &StatePlace) -> io::Result<()> {
    match write(logs, state.directory()) {
        Ok(true) => File::open(state.console())?.sync_all(),
        Ok(false) => Ok(()),
        // It was deleted by who did not come to its end.
        Err(_) if logs.last().is_some_and(is_kept) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a log is gone, and its text is there: with that of the logs before it.
fn is_kept(log: &RunLog) -> bool {
    !log.log.exists() && log.state.console().is_file()
}

/// Returns how long it is.
fn write_to(path: &Path, logs: &[RunLog]) -> io::Result<u64> {
    // What a process that died left here, or a link that leads elsewhere.
    let _ = fs::remove_file(path);
    let mut out = BufWriter::new(File::create_new(path)?);
    let begins = |log: &RunLog| is_kept(log) || winds_back(&log.log, log.limit);
    // The first is the beginning of what there is, whatever it says.
    let first = logs.iter().skip(1).rposition(begins).map_or(0, |place| place + 1);
    let logs = logs.get(first..).unwrap_or_default();
    if let Some((last, earlier)) = logs.split_last() {
        for log in earlier {
            let written = if is_kept(log) {
                File::open(log.state.console()).and_then(|mut kept| io::copy(&mut kept, &mut out).map(drop))
            } else {
                write_log(&mut out, &log.log, log.limit)
            };
            if let Err(error) = written {
                debug!(log = %log.log.display(), %error, "its console is not in the file");
            }
        }
        write_log(&mut out, &last.log, last.limit)?;
    }
    // It can be made again, so it need not survive a loss of power.
    out.flush()?;
    out.get_ref().metadata().map(|metadata| metadata.len())
}

/// One that cannot be read is told of when it is to be written.
fn winds_back(log: &Path, limit: Option<LogPosition>) -> bool {
    let run = first_run(log, limit, &CancellationToken::new()).ok().flatten();
    run.is_some_and(|run| run.rewind_to().is_some())
}

fn write_log(out: &mut impl io::Write, log: &Path, limit: Option<LogPosition>) -> io::Result<()> {
    let mut reader = LogReader::open(log).map_err(plain)?;
    reader.set_limit(limit);
    let (mut fold, mut printed) = (Fold::default(), Printed::default());
    loop {
        match reader.next().map_err(plain)? {
            Next::Entry(entry) => {
                if let EntryKind::Record(record) = entry.kind {
                    fold.print(&record, &mut printed);
                }
                if printed.bytes() > BUFFER {
                    write_lines(&printed.take_final(), out)?;
                }
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => break,
        }
    }
    write_lines(&printed.finish(&fold.console).1, out)
}

fn write_lines(lines: &[ConsoleLine], out: &mut impl io::Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{}", line.text()))
}

fn plain(error: LogError) -> io::Error {
    match error {
        LogError::Io(error) => error,
        other => io::Error::other(other),
    }
}
