//! The worst day: the process dies, the power fails, the disk is full or breaks, answers are lost — at any moment, again and
//! again. In the end the server holds what is in the files, each point once.
//!
//! Every operation on the disk is a point at which something happens (`points`), and chance finds more (`kills`, `halves`, `many`).
//! What chance decides follows from a seed, which is printed: `WANDB_BRIDGE_CRASH_SEED` makes it decide the same again,
//! `WANDB_BRIDGE_CRASH_KILLS` asks for more of it.
#![cfg(target_os = "linux")]

mod halves;
mod input;
mod kills;
mod log;
mod many;
mod points;
mod together;
mod verdict;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::faults::Chance;

/// Chance, and what to say when a test fails.
struct Dice {
    seed: u64,
    chance: Chance,
    /// What is going on.
    scene: String,
}

impl Dice {
    fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let seed = number("WANDB_BRIDGE_CRASH_SEED").unwrap_or_else(now);
        eprintln!("WANDB_BRIDGE_CRASH_SEED={seed}");
        Self { seed, chance: Chance::new(seed), scene: String::new() }
    }

    /// Says what is going on, for the case that it goes wrong.
    fn scene(&mut self, scene: String) {
        self.scene = scene;
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with WANDB_BRIDGE_CRASH_SEED={}; {}", self.seed, self.scene);
        }
    }
}

/// How often the program is killed: what a test asks for, or what the environment does.
fn kills(default: u64) -> u64 {
    number("WANDB_BRIDGE_CRASH_KILLS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
