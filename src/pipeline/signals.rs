//! Signals, as a stream that a loop can wait on.

use std::io;

/// A signal that means something to us, or to a command that we run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C: the user is done.
    Interrupt,
    /// The system wants the place: go on later.
    Terminate,
    /// The terminal is gone.
    HangUp,
    /// For the command; batch systems warn with it.
    User1,
    /// For the command.
    User2,
}

impl Signal {
    /// The exit code of a process that this signal cut short.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate | Self::HangUp | Self::User1 | Self::User2 => 143,
        }
    }

    /// Whether it asks us to end. The others only mean something to a command.
    pub(super) fn asks_for_an_end(self) -> bool {
        matches!(self, Self::Interrupt | Self::Terminate)
    }
}

/// Delivers signals from its making on; their default effect is off from then on.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    others: Option<[tokio::signal::unix::Signal; 3]>,
}

#[cfg(unix)]
impl Signals {
    /// Listens for interrupt and terminate, and for those that only matter to a command. Must be called within a runtime.
    pub fn listen(for_a_command: bool) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let others = if for_a_command {
            Some([
                signal(SignalKind::hangup())?,
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ])
        } else {
            None
        };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, others })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        let others = self.others.as_mut();
        let other = async {
            let Some([hang_up, user1, user2]) = others else { return std::future::pending().await };
            tokio::select! {
                Some(()) = hang_up.recv() => Signal::HangUp,
                Some(()) = user1.recv() => Signal::User1,
                Some(()) = user2.recv() => Signal::User2,
                else => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            signal = other => signal,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Listens for Ctrl-C.
    pub fn listen(_for_a_command: bool) -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Interrupt
    }
}
