//! The lines before and during the work. Pure functions.

use super::text::{counted, grouped, size};

/// Beyond this many runs only the project's address is shown.
const RUNS_WITH_ADDRESS: usize = 10;

/// What is known when the first run was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where the runs go.
    pub destination: Destination,
    /// Runs that are expected to go on.
    pub growing: u64,
    /// Runs that ended.
    pub ended: u64,
    /// Ended runs that are left out, because only new ones were asked for.
    pub left_out: u64,
}

/// Where runs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To a server, at this address.
    Server(String),
    /// Into this folder, to be uploaded later.
    Folder(String),
    /// Nowhere: a dry run.
    Nowhere,
}

/// The first lines of a command.
pub fn first_lines(found: &Found) -> Vec<String> {
    let destination = match &found.destination {
        Destination::Server(url) => format!("uploading to {url}"),
        Destination::Folder(path) => format!("recording offline in `{path}`"),
        Destination::Nowhere => "dry run: nothing is written or uploaded".to_owned(),
    };
    let runs = counted(found.growing + found.ended, "run");
    let mut line = match (found.growing, found.ended) {
        (0, _) => format!("found {runs}"),
        (_, 0) => format!("found {runs}, growing"),
        (growing, ended) => format!("found {runs}: {} growing, {} ended", grouped(growing), grouped(ended)),
    };
    if found.left_out > 0 {
        line.push_str(&format!("; {} that ended before are left out", grouped(found.left_out)));
    }
    vec![destination, line]
}

/// Decides whose address is shown when the server first acknowledges a row of a run.
#[derive(Debug, Default)]
pub struct Addresses {
    found: usize,
    shown: usize,
}

impl Addresses {
    /// Counts runs that were found.
    pub fn found(&mut self, runs: usize) {
        self.found += runs;
    }

    /// The line for a run that the server has now, if it gets one.
    pub fn line(&mut self, name: &str, url: &str) -> Option<String> {
        if self.found > RUNS_WITH_ADDRESS || self.shown == RUNS_WITH_ADDRESS {
            return None;
        }
        self.shown += 1;
        Some(format!("run `{name}` is at {url}"))
    }
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of input that were read.
    pub read: u64,
    /// Bytes of input that are known of; 0 when the input is not read here.
    pub total: u64,
    /// Rows that are recorded.
    pub rows: u64,
    /// Rows that the server acknowledged; `None` offline.
    pub sent: Option<u64>,
    /// Runs that ended.
    pub runs_done: u64,
    /// Runs that are known of.
    pub runs: u64,
}

/// One line that says how far the work is.
pub fn progress_line(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if progress.total > 0 {
        parts.push(format!("read {} of {}", size(progress.read), size(progress.total.max(progress.read))));
    }
    parts.push(match progress.sent {
        Some(sent) => format!("sent {} of {}", grouped(sent), counted(progress.rows.max(sent), "row")),
        None => counted(progress.rows, "row"),
    });
    parts.push(format!("{} of {} done", grouped(progress.runs_done), counted(progress.runs, "run")));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_say_where_to_and_how_many() {
        let url = || Destination::Server("https://wandb.ai/me/p".to_owned());
        let lines = |destination, growing, ended, left_out| {
            first_lines(&Found { destination, growing, ended, left_out }).join(" | ")
        };
        assert_eq!(lines(url(), 3, 38, 0), "uploading to https://wandb.ai/me/p | found 41 runs: 3 growing, 38 ended");
        assert_eq!(lines(url(), 1, 0, 0), "uploading to https://wandb.ai/me/p | found 1 run, growing");
        assert_eq!(
            lines(Destination::Folder("wandb".to_owned()), 0, 1200, 2),
            "recording offline in `wandb` | found 1 200 runs; 2 that ended before are left out"
        );
        assert_eq!(lines(Destination::Nowhere, 0, 0, 0), "dry run: nothing is written or uploaded | found 0 runs");
    }

    #[test]
    fn few_runs_show_their_addresses() {
        let mut addresses = Addresses::default();
        addresses.found(1);
        assert_eq!(addresses.line("a", "https://x/a"), Some("run `a` is at https://x/a".to_owned()));
        addresses.found(9);
        assert!((0..9).all(|_| addresses.line("b", "https://x/b").is_some()));
        addresses.found(1);
        assert_eq!(addresses.line("c", "https://x/c"), None);
    }

    #[test]
    fn progress_is_one_line() {
        let offline = Progress { read: 1_400_000, total: 2_000_000, rows: 1204, sent: None, runs_done: 0, runs: 1 };
        assert_eq!(progress_line(&offline), "read 1.4 MB of 2.0 MB, 1 204 rows, 0 of 1 run done");
        let sync = Progress { rows: 1204, sent: Some(900), runs_done: 3, runs: 41, ..Progress::default() };
        assert_eq!(progress_line(&sync), "sent 900 of 1 204 rows, 3 of 41 runs done");
    }
}
