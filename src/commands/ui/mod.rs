//! All that a person reads, and what a script reads in its place.
//!
//! stdout is data: `--json` lines, and what `inspect` shows. stderr is talk: notes, warnings, errors, progress. A stdout
//! that nobody reads any more stops nothing: the runs are what matters. That it could not be written is said, and the exit
//! code says it too. [`Ui`] is shared by all threads; when it is quiet,
//! a note costs a comparison. What is said is made by pure functions in `lines`, `totals` and `text`.

mod lines;
mod report;
mod text;
mod totals;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::{CommandError, ExitCode};
use crate::settings::Output;

pub use lines::{Addresses, Destination, Found, Progress, first_lines, progress_line};
pub use report::{AttachedReport, Report, RunReport, RunState, SummaryReport};
pub use text::{command_line, counted, elapsed, grouped, named, on_one_line, printable, size};
pub use totals::{Totals, last_lines};

/// How often progress makes a plain line where there is no terminal.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// How many different warnings are remembered. Whoever watches for months may be told of one again.
const WARNINGS: usize = 10_000;

const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// The screen.
pub struct Ui {
    json: bool,
    quiet: bool,
    color: bool,
    /// Whether there is a terminal that may have a bar.
    may_have_bar: bool,
    /// From the first progress on.
    bar: OnceLock<ProgressBar>,
    /// `None` when nobody reads it any more.
    data: Mutex<Option<Box<dyn Write + Send>>>,
    /// Whether some of it could not be written, although somebody wants it.
    data_is_cut: AtomicBool,
    talk: Mutex<Talk>,
}

struct Talk {
    out: Box<dyn Write + Send>,
    /// Keys of the warnings that were printed.
    warned: HashSet<String>,
    last_progress: Option<(Instant, Progress)>,
}

impl Ui {
    /// The screen of this process.
    pub fn new(output: &Output) -> Self {
        let terminal = io::stderr().is_terminal();
        let mut ui = Self::with_writers(output, Box::new(io::stdout()), Box::new(io::stderr()));
        ui.color = output.color && terminal;
        // A log on the same terminal would tear the bar apart, and so would data.
        ui.may_have_bar = terminal && !output.quiet && !output.json && output.verbose == 0;
        ui
    }

    /// A screen without colors and bar that writes where it is told to.
    pub fn with_writers(output: &Output, data: Box<dyn Write + Send>, talk: Box<dyn Write + Send>) -> Self {
        let talk = Talk { out: talk, warned: HashSet::new(), last_progress: None };
        Self {
            json: output.json,
            quiet: output.quiet,
            color: false,
            may_have_bar: false,
            bar: OnceLock::new(),
            data: Mutex::new(Some(data)),
            data_is_cut: AtomicBool::new(false),
            talk: Mutex::new(talk),
        }
    }

    /// Says something that is good to know.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.say("", Style::new(), &on_one_line(&text.to_string()));
        }
    }

    /// Says several such things.
    pub fn notes(&self, lines: &[String]) {
        for line in lines {
            self.note(line);
        }
    }

    /// Says that something is odd.
    pub fn warning(&self, text: impl Display) {
        self.say("warning: ", WARNING, &on_one_line(&text.to_string()));
    }

    /// Says that something is odd, once for each `key`.
    pub fn warn_once(&self, key: &str, text: impl FnOnce() -> String) {
        let is_new = {
            let mut talk = lock(&self.talk);
            if talk.warned.len() >= WARNINGS {
                talk.warned.clear();
            }
            !talk.warned.contains(key) && talk.warned.insert(key.to_owned())
        };
        if is_new {
            self.warning(text());
        }
    }

    /// Says what went wrong but stops nothing.
    pub fn warn_of(&self, error: &CommandError) {
        self.say("warning: ", WARNING, &error.details());
    }

    /// Says what went wrong.
    pub fn error(&self, error: &CommandError) {
        self.say("error: ", AnsiColor::Red.on_default().bold(), &error.details());
    }

    /// Shows how far the work is: on the bar, or as a plain line from time to time. May be called as often as one likes.
    pub fn progress(&self, progress: &Progress) {
        if self.quiet {
            return;
        }
        if self.may_have_bar {
            show_on(self.bar.get_or_init(new_bar), progress);
            return;
        }
        let mut talk = lock(&self.talk);
        let now = Instant::now();
        match &talk.last_progress {
            Some((at, last)) if now.duration_since(*at) < PLAIN_PROGRESS_EVERY || last == progress => {}
            // The first one only starts the clock: short work needs no line.
            None => talk.last_progress = Some((now, *progress)),
            Some(_) => {
                talk.last_progress = Some((now, *progress));
                // There is nobody left to tell that stderr is gone.
                let _ = writeln!(talk.out, "{}", progress_line(progress));
            }
        }
    }

    /// Takes the bar away, before the last lines.
    pub fn finish_progress(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }

    /// Prints a line of `--json`; nothing without that flag.
    pub fn report(&self, report: &Report) {
        if self.json
            && let Ok(mut line) = serde_json::to_vec(report)
        {
            line.push(b'\n');
            self.write_data(&line);
        }
    }

    /// Prints to stdout what the user asked to see.
    pub fn data(&self, text: &str) {
        let text = if self.json { text::escaped(text) } else { Cow::Borrowed(text) };
        self.write_data(text.as_bytes());
    }

    /// What stdout makes of the exit code: whoever reads a file that was cut short must not take it for whole.
    pub fn exit_code(&self) -> ExitCode {
        if self.data_is_cut.load(Ordering::Relaxed) { ExitCode::Temporary } else { ExitCode::Success }
    }

    /// Whether stdout takes JSON lines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    fn write_data(&self, bytes: &[u8]) {
        let mut data = lock(&self.data);
        let Some(out) = data.as_mut() else { return };
        if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
            *data = None;
            drop(data);
            // `… | head` is a way of saying that this is enough.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.data_is_cut.store(true, Ordering::Relaxed);
                self.warning(format_args!("cannot write to stdout: {error}; what belongs there is not shown"));
            }
        }
    }

    fn say(&self, label: &str, style: Style, text: &str) {
        let text = printable(text);
        let line = if self.color && !label.is_empty() {
            format!("{style}{label}{style:#}{text}\n")
        } else {
            format!("{label}{text}\n")
        };
        let write = || {
            let mut talk = lock(&self.talk);
            // There is nobody left to tell that stderr is gone.
            let _ = talk.out.write_all(line.as_bytes()).and_then(|()| talk.out.flush());
        };
        match self.bar.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// A bar that draws nothing before it is shown something.
fn new_bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style("{spinner} {wide_msg}"))
}

/// The templates are ours and well formed; the default would be no worse than none.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn show_on(bar: &ProgressBar, progress: &Progress) {
    let template = if progress.total > 0 { "{bar:20} {wide_msg}" } else { "{spinner} {wide_msg}" };
    let lengths = (progress.total > 0).then(|| progress.total.max(progress.read));
    if bar.length() != lengths {
        bar.set_style(style(template));
        match lengths {
            Some(length) => bar.set_length(length),
            None => bar.unset_length(),
        }
    }
    bar.set_position(progress.read);
    bar.set_message(progress_line(progress));
}

/// A thread that panicked while it was printing is no reason for the others to be silent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pipe whose reader has gone, or a disk that is full.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn screen(output: Output) -> (Ui, Page, Page) {
        let (data, talk) = (Page::default(), Page::default());
        let ui = Ui::with_writers(&output, Box::new(data.clone()), Box::new(talk.clone()));
        (ui, data, talk)
    }

    #[test]
    fn warnings_come_once_and_quiet_keeps_them() {
        let (ui, data, talk) = screen(Output { quiet: true, ..Output::default() });
        ui.note("nobody hears this");
        ui.warn_once("a", || "first".to_owned());
        ui.warn_once("a", || "second".to_owned());
        ui.warn_once("b", || "a\x1b[31mb\nerror: c".to_owned());
        ui.error(&CommandError::new(ExitCode::Failed, "no").hint("try"));
        assert_eq!(talk.text(), "warning: first\nwarning: a\u{fffd}[31mb\u{fffd}error: c\nerror: no\nhint: try\n");
        assert_eq!(data.text(), "");
    }

    #[test]
    fn data_goes_to_stdout_and_talk_to_stderr() {
        let (ui, data, talk) = screen(Output { json: true, ..Output::default() });
        ui.report(&Report::Summary(Totals::default().summary(Duration::ZERO, ExitCode::Success)));
        ui.note("hello");
        ui.progress(&Progress::default());
        assert!(data.text().starts_with(r#"{"type":"summary","runs":0,"#) && data.text().ends_with("}\n"));
        assert_eq!(talk.text(), "hello\n");

        let (ui, data, _) = screen(Output::default());
        ui.report(&Report::Summary(Totals::default().summary(Duration::ZERO, ExitCode::Success)));
        ui.data("shown\n");
        assert_eq!(data.text(), "shown\n");
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let cut = "warning: cannot write to stdout: no storage space; what belongs there is not shown\n";
        for (kind, said, code) in
            [(io::ErrorKind::BrokenPipe, "", ExitCode::Success), (io::ErrorKind::StorageFull, cut, ExitCode::Temporary)]
        {
            let talk = Page::default();
            let ui = Ui::with_writers(&Output::default(), Box::new(Broken(kind)), Box::new(talk.clone()));
            ui.data("one");
            ui.data("two");
            assert_eq!((talk.text().as_str(), ui.exit_code()), (said, code));
        }
    }
}
