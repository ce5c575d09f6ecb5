//! `output.log`: the console of a run as a file of its own. Blocking.
//!
//! The lines that a server was sent are not kept, so the file is made from the log, whole, when the run has ended. It holds
//! the text of each line and nothing else, as the official client's does.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use crate::model::LogPosition;
use crate::upload::console::{ConsoleLine, Printed};
use crate::upload::fold::Fold;
use crate::wandb_format::{EntryKind, LogError, LogReader, Next};

/// The name of the file, below the run's `files/`.
pub(crate) const OUTPUT_LOG: &str = "output.log";

/// So many bytes of lines are kept before they are written.
const BUFFER: usize = 1 << 20;

/// Makes the file from a log, read up to `limit`. It is there whole, or as it was before.
pub(crate) fn write(log: &Path, limit: Option<LogPosition>, directory: &Path) -> io::Result<()> {
    let path = directory.join(OUTPUT_LOG);
    let fresh = directory.join(format!("{OUTPUT_LOG}.tmp"));
    let written = write_to(&fresh, log, limit).and_then(|()| fs::rename(&fresh, &path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn write_to(path: &Path, log: &Path, limit: Option<LogPosition>) -> io::Result<()> {
    // What a process that died left here, or a link that leads elsewhere.
    let _ = fs::remove_file(path);
    let mut out = BufWriter::new(File::create_new(path)?);
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
                    write_lines(&printed.take_final(), &mut out)?;
                }
            }
            Next::Damaged { .. } => {}
            Next::End | Next::Incomplete { .. } => break,
        }
    }
    write_lines(&printed.finish(&fold.console).1, &mut out)?;
    // It can be made again, so it need not survive a loss of power.
    out.flush()
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
