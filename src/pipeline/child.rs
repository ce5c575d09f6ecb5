//! The command that `watch -- CMD…` runs beside itself: started, sent the signals that we get, waited for.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

use crate::pipeline::signals::Signal;

/// A running command.
#[derive(Debug)]
pub struct RunningCommand {
    child: Child,
    name: String,
}

impl RunningCommand {
    /// Starts a command with our own standard streams. Must be called within a runtime.
    pub fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let child = Command::new(program).args(arguments).spawn()?;
        Ok(Self { child, name: program.to_string_lossy().into_owned() })
    }

    /// The program's name, as it was typed.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its end; its exit code, or 128 and the number of the signal that ended it.
    pub async fn wait(&mut self) -> i32 {
        match self.child.wait().await {
            Ok(status) => code_of(status),
            Err(error) => {
                tracing::error!(%error, "cannot wait for the command");
                1
            }
        }
    }

    /// Passes a signal on.
    ///
    /// A terminal sends an interrupt to its whole foreground group, so the command has it already; Python would take a
    /// second one for "stop cleaning up".
    pub fn pass_on(&self, signal: Signal) {
        #[cfg(unix)]
        {
            use std::io::IsTerminal as _;
            if signal == Signal::Interrupt && io::stdin().is_terminal() {
                return;
            }
            let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
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
        let _ = signal;
    }
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
