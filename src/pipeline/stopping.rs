//! What signals and time limits ask of a watch: known on every thread at once, however busy the others are.
//!
//! The first SIGINT or SIGTERM asks for an end, within a time; a second one ends the process. While a command runs beside,
//! all signals are the command's, and none is ours.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::pipeline::child::RunningCommand;
use crate::pipeline::signals::{Signal, Signals};

/// After a second signal, uploads that stop where they are may take this long to write down how far they came.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What was asked so far. All clones mean the same.
#[derive(Debug, Clone)]
pub struct Stopping(Arc<watch::Sender<Asked>>);

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    /// The first signal, which may have gone to a command.
    first: Option<Signal>,
    /// The one that allows no more.
    second: Option<Signal>,
    /// When reading has to stop.
    deadline: Option<Instant>,
    /// Reading stopped where there was more.
    stopped: bool,
}

impl Stopping {
    /// Nothing was asked yet; reading may go on until `deadline`.
    pub fn new(deadline: Option<Instant>) -> Self {
        Self(Arc::new(watch::Sender::new(Asked { deadline, ..Asked::default() })))
    }

    /// Heeds signals from now on, on the runtime that this is called within. After the first one there is `drain` time;
    /// after the second one `uploads` are cancelled.
    pub fn heed(
        &self,
        mut signals: Signals,
        command: Option<RunningCommand>,
        drain: Duration,
        uploads: Option<CancellationToken>,
    ) {
        let stopping = self.clone();
        tokio::spawn(async move {
            loop {
                let signal = signals.next().await;
                if let Some(command) = command.as_ref().filter(|command| !command.has_ended()) {
                    command.pass_on(signal);
                    if signal.asks_for_an_end() {
                        stopping.0.send_modify(|asked| asked.first = Some(signal));
                    }
                } else if signal.asks_for_an_end() {
                    if stopping.0.borrow().first.is_some() {
                        stopping.0.send_modify(|asked| asked.second = Some(signal));
                        break;
                    }
                    stopping.0.send_modify(|asked| asked.first = Some(signal));
                    stopping.allow(drain);
                }
            }
            if let Some(uploads) = uploads {
                uploads.cancel();
            }
            let last = tokio::select! {
                () = sleep(LAST_WORDS) => None,
                signal = signals.next() => Some(signal),
            };
            // A file system or a lock that does not answer must not keep a user who asked twice.
            let signal = last.or(stopping.0.borrow().second).unwrap_or(Signal::Terminate);
            std::process::exit(i32::from(signal.exit_code()));
        });
    }

    /// Lets reading go on for at most this long from now.
    pub fn allow(&self, time: Duration) {
        let deadline = Instant::now() + time;
        self.0.send_modify(|asked| asked.deadline = Some(asked.deadline.map_or(deadline, |old| old.min(deadline))));
    }

    /// Whether reading may go on.
    pub fn may_go_on(&self) -> bool {
        let asked = self.0.borrow();
        asked.second.is_none() && asked.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    /// The same, asked where there is more to read: whoever is told to stop leaves it.
    pub fn may_read_on(&self) -> bool {
        let may = self.may_go_on();
        if !may {
            self.0.send_modify(|asked| asked.stopped = true);
        }
        may
    }

    /// Reading ends where there is more.
    pub fn stop_short(&self) {
        self.0.send_modify(|asked| asked.stopped = true);
    }

    /// Whether reading stopped where there was more.
    pub fn stopped_reading(&self) -> bool {
        self.0.borrow().stopped
    }

    /// The first signal, if there was one.
    pub fn signal(&self) -> Option<Signal> {
        self.0.borrow().first
    }

    /// The second signal, if there was one.
    pub fn second_signal(&self) -> Option<Signal> {
        self.0.borrow().second
    }

    /// Waits for the first signal.
    pub async fn first(&self) -> Signal {
        let mut asked = self.0.subscribe();
        loop {
            if let Some(signal) = asked.borrow_and_update().first {
                return signal;
            }
            // It cannot fail, since we hold the sender ourselves.
            let _ = asked.changed().await;
        }
    }

    /// Waits until nothing may go on.
    pub async fn no_more(&self) {
        let mut asked = self.0.subscribe();
        loop {
            let Asked { second, deadline, .. } = *asked.borrow_and_update();
            if second.is_some() {
                return;
            }
            tokio::select! {
                () = at(deadline) => return,
                _ = asked.changed() => {}
            }
        }
    }
}

/// Waits until then; for ever without a time.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
