//! What whole-program tests stand on: the program itself, event files, a W&B server of their own, the official client.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "not every user needs everything")]

pub mod bridge;
pub mod compare;
pub mod events;
#[cfg(target_os = "linux")]
pub mod faults;
pub mod fixtures;
pub mod official;
pub mod python;
pub mod server;
