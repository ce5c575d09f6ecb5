//! The command that `watch -- CMD…` runs beside itself: started, sent the signals that we get, waited for.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::pipeline::signals::Signal;

/// A running command. All clones mean the same one.
///
/// A task of its own waits for it and passes signals on, so that neither is kept waiting by whatever else goes on; and
/// since the same task does both, no signal can go to a process that only has the same number.
#[derive(Debug, Clone)]
pub struct RunningCommand {
    signals: mpsc::UnboundedSender<Signal>,
    code: watch::Receiver<Option<i32>>,
}

impl RunningCommand {
    /// Starts a command with our own standard streams. Must be called within a runtime.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let child = Command::new(program).args(arguments).spawn()?;
        let (signals, to_pass_on) = mpsc::unbounded_channel();
        let (ended, code) = watch::channel(None);
        tokio::spawn(keep(child, to_pass_on, ended));
        Ok(Self { signals, code })
    }

    /// Waits for its end; its exit code, or 128 and the number of the signal that ended it.
    pub async fn wait(&self) -> i32 {
        let mut code = self.code.clone();
        // An error means that nobody is left who could say: the runtime is ending.
        code.wait_for(Option::is_some).await.ok().and_then(|code| *code).unwrap_or(1)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.code.borrow().is_some()
    }

    /// Passes a signal on.
    ///
    /// A terminal sends an interrupt to its whole foreground group, so the command has it already; Python would take a
    /// second one for "stop cleaning up".
    pub fn pass_on(&self, signal: Signal) {
        // It may have ended just now.
        let _ = self.signals.send(signal);
    }
}

async fn keep(mut child: Child, mut signals: mpsc::UnboundedReceiver<Signal>, ended: watch::Sender<Option<i32>>) {
    let code = loop {
        tokio::select! {
            status = child.wait() => break status.map_or_else(
                |error| {
                    tracing::error!(%error, "cannot wait for the command");
                    1
                },
                code_of,
            ),
            Some(signal) = signals.recv() => send(&child, signal),
        }
    };
    ended.send_replace(Some(code));
}

fn send(child: &Child, signal: Signal) {
    #[cfg(unix)]
    {
        use std::io::IsTerminal as _;
        if signal == Signal::Interrupt && io::stdin().is_terminal() {
            return;
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let number = match signal {
                Signal::Interrupt => rustix::process::Signal::INT,
                Signal::Terminate => rustix::process::Signal::TERM,
                Signal::HangUp => rustix::process::Signal::HUP,
                Signal::User1 => rustix::process::Signal::USR1,
                Signal::User2 => rustix::process::Signal::USR2,
            };
            // It may have ended just now.
            let _ = rustix::process::kill_process(pid, number);
        }
    }
    #[cfg(not(unix))]
    let _ = (child, signal);
}

fn code_of(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(signal) = status.signal() {
            return 128 + signal;
        }
    }
    status.code().unwrap_or(1)
}
