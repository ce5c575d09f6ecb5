//! The one integration binary: whole-program tests, and tests about the tree itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod artifacts;
mod config;
mod crash;
mod files;
mod filters;
mod habits;
mod hostile;
mod ids;
mod import;
mod interop;
mod kinds;
mod native;
mod official_client;
mod plans;
mod proto;
mod screens;
mod seams;
mod side_files;
mod space;
mod state;
mod sync;
mod tidy;
mod upload;
mod verify;
mod watch;
mod weather;
