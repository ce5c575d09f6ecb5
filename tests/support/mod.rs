//! What whole-program tests stand on: a W&B server of their own, and the official client.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "not every user needs everything")]

pub mod compare;
pub mod official;
pub mod python;
pub mod server;
